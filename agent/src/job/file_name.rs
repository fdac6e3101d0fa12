//! Which names an image may have, so that it can lie on any share and be opened by Windows.

/// Checks the name of an image file, without extension. Says what is wrong with it.
pub(super) fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("is empty".into());
    }
    if let Some(forbidden) = name
        .chars()
        .find(|c| c.is_control() || r#"<>:"/\|?*"#.contains(*c))
    {
        return Err(format!(
            "`{}` holds the character {forbidden:?}",
            name.escape_debug()
        ));
    }
    if name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return Err(format!("`{name}` begins or ends with a dot or a space"));
    }
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_ascii_uppercase();
    if is_device_name(&stem) {
        return Err(format!("`{name}` is a device name on Windows"));
    }
    for extension in [".vhd", ".vhdx"] {
        if name.to_ascii_lowercase().ends_with(extension) {
            return Err(format!(
                "`{name}` has an extension; the format gives it one"
            ));
        }
    }
    let length = name.encode_utf16().count();
    if length > LONGEST_NAME {
        return Err(format!(
            "is {length} UTF-16 units long; at most {LONGEST_NAME} fit"
        ));
    }
    Ok(())
}

fn is_device_name(stem: &str) -> bool {
    let numbered = |prefix: &str| {
        stem.strip_prefix(prefix)
            .is_some_and(|rest| matches!(rest.as_bytes(), [b'1'..=b'9']) || is_superscript(rest))
    };
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem)
        || numbered("COM")
        || numbered("LPT")
}

/// Windows takes these digits, too, for a port's number.
fn is_superscript(digits: &str) -> bool {
    ["\u{b9}", "\u{b2}", "\u{b3}"].contains(&digits)
}

/// NTFS and SMB allow 255 UTF-16 units; `.vhdx.partial.state` must fit behind.
const LONGEST_NAME: usize = 255 - ".vhdx.partial.state".len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_pass() {
        for name in [
            "golden-2026",
            "Büro Süd",
            "v1.2",
            "日本語",
            "com10",
            "console",
            "a%41",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_leave_the_folder_or_break_windows_are_refused() {
        let long = "x".repeat(LONGEST_NAME + 1);
        for name in [
            "",
            ".",
            "..",
            "a/b",
            r"a\b",
            "a:b",
            "nul",
            "COM1",
            "lpt9.x",
            "com\u{b2}",
            "a.",
            "a ",
            " a",
            "a\n",
            "a\0",
            "x.vhdx",
            "x.VHD",
            &long,
        ] {
            assert!(check(name).is_err(), "{name:?} was accepted");
        }
    }
}
