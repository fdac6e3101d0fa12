//! Short (8.3) names beside long ones, by the rules of Windows.
//!
//! The rules are those of `RtlGenerate8dot3Name`: six characters of the long name, `~` and a
//! number up to 4; from the fifth on two characters, four digits of a checksum, `~` and a number.
//! Characters outside of ASCII become `_`: Windows would take those of its OEM code page, which a
//! volume does not tell.

/// Whether `name` can serve as a short name itself.
pub(super) fn is_short(name: &str) -> bool {
    let (base, extension) = match name.rsplit_once('.') {
        Some((_, "")) => return false,
        Some(parts) => parts,
        None => (name, ""),
    };
    let fits = |part: &str, most| part.len() <= most && part.bytes().all(is_short_byte);
    !base.is_empty() && fits(base, 8) && fits(extension, 3)
}

/// Short names for `name`, the preferred one first. The first that is not taken is to be used.
pub(super) fn candidates(name: &str) -> impl Iterator<Item = String> {
    let (base, extension) = parts(name);
    let checksum = checksum(name);
    let (six, two) = (shortened(&base, 6), shortened(&base, 2));
    let plain = (1..=4).map(move |number| format!("{six}~{number}"));
    let hashed = (1..=9).map(move |number| format!("{two}{checksum:04X}~{number}"));
    // When hundreds of names have the same checksum.
    let base = shortened(&base, 1);
    let further = (10..1_000_000u32).map(move |number| {
        let digits = number.to_string();
        // At most 6 digits, and the tilde.
        format!("{}~{digits}", shortened(&base, 7 - digits.len()))
    });
    plain
        .chain(hashed)
        .chain(further)
        .map(move |base| format!("{base}{extension}"))
}

/// The letters of the base, and the extension with its dot.
fn parts(name: &str) -> (String, String) {
    let name = name.trim_start_matches('.');
    let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let clean = |part: &str| {
        let letters = part.chars().filter(|letter| !matches!(letter, ' ' | '.'));
        letters.map(short_letter).collect::<String>()
    };
    let extension = shortened(&clean(extension), 3);
    let dot = if extension.is_empty() { "" } else { "." };
    (clean(base), format!("{dot}{extension}"))
}

fn short_letter(letter: char) -> char {
    let upper = letter.to_ascii_uppercase();
    match u8::try_from(upper) {
        Ok(byte) if is_short_byte(byte) => upper,
        _ => '_',
    }
}

/// The first letters of what is ASCII.
fn shortened(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn is_short_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

/// Four digits that follow from the whole name.
fn checksum(name: &str) -> u16 {
    let units = name.encode_utf16();
    let sum = units.fold(0u16, |sum, unit| sum.wrapping_mul(37).wrapping_add(unit));
    let mixed = i32::from(sum as i16)
        .wrapping_mul(314_159_269)
        .unsigned_abs();
    (mixed % 1_000_000_007) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_eight_and_three_is_its_own_short_name() {
        for name in [
            "a",
            "disk.sys",
            "SYSTEM",
            "12345678.abc",
            "oem0.inf",
            "a~1.b",
        ] {
            assert!(is_short(name), "{name}");
        }
        for name in [
            "123456789",
            "a.html",
            "a b.txt",
            "a.b.c",
            "größe",
            ".x",
            "a,b",
            "a+b",
            "x.",
        ] {
            assert!(!is_short(name), "{name}");
        }
    }

    #[test]
    fn short_names_are_the_ones_that_windows_makes() {
        let first = |name| candidates(name).next().unwrap();
        assert_eq!(first("Program Files"), "PROGRA~1");
        assert_eq!(first("much longer name.inf"), "MUCHLO~1.INF");
        assert_eq!(first("index.html"), "INDEX~1.HTM");
        assert_eq!(first(".gitignore"), "GITIGN~1");
        assert_eq!(first("a+b;c.txt"), "A_B_C~1.TXT");
        assert_eq!(first("größe"), "GR__E~1");
        assert_eq!(first("archive.tar.gz"), "ARCHIV~1.GZ");
    }

    #[test]
    fn candidates_are_short_and_differ() {
        for name in [
            "Microsoft.Windows.Something",
            "größe größe",
            "...",
            "é",
            "a.b.c.d",
        ] {
            let names: Vec<String> = candidates(name).take(2000).collect();
            let all: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(all.len(), names.len(), "{name}");
            let wrong = names.iter().find(|name| !is_short(name));
            assert_eq!(wrong, None, "of {name}");
        }
    }
}
