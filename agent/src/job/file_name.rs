//! Which names a request may give an image: those that any share and Windows take, and a little
//! less.

use ce_disk::sink::check_name;

/// Checks the name of an image file, without extension. Says what is wrong with it.
pub(super) fn check(name: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    check_name(name).map_err(|problem| format!("`{shown}` {problem}"))?;
    if name.starts_with(' ') {
        return Err(format!("`{shown}` begins with a space"));
    }
    for extension in [".vhd", ".vhdx"] {
        if name.to_ascii_lowercase().ends_with(extension) {
            return Err(format!(
                "`{shown}` has an extension; the format gives it one"
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

/// Checks the name of an image that Provisioning is to know. Says what is wrong with it.
pub(super) fn check_published(name: &str) -> Result<(), String> {
    check(name)?;
    let shown = name.escape_debug();
    if !name.is_ascii() {
        return Err(format!("`{shown}`: Provisioning takes ASCII letters only"));
    }
    match name.len() {
        0..=LONGEST_PUBLISHED => Ok(()),
        length => Err(format!(
            "`{shown}` has {length} letters; Provisioning takes {LONGEST_PUBLISHED} at most"
        )),
    }
}

/// The longest DiskLocatorName that Provisioning takes.
const LONGEST_PUBLISHED: usize = 52;

/// NTFS and SMB allow 255 UTF-16 units; `.vhdx.partial.state.new` must fit behind.
const LONGEST_NAME: usize = 255 - ".vhdx.partial.state.new".len();

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
    fn provisioning_takes_short_ascii_names() {
        assert_eq!(check_published(&"x".repeat(52)), Ok(()));
        for name in ["Büro", "a/b", "x.vhdx", &"x".repeat(53)] {
            assert!(check_published(name).is_err(), "{name:?} was accepted");
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
