//! Paths inside a Windows volume.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// A path inside a Windows volume: names between backslashes, from the root on, without a drive.
///
/// It is never a path of the host, and there is no way to make one of it. It names files and
/// folders only: a `:` (which would name a stream or a drive) is refused, as is everything else
/// that Win32 does not take in a name. Two paths are equal when they differ in case only; the
/// volume has the last word on that, by its own table of upper-case letters.
///
/// ```
/// use ce_disk::volume::WinPath;
///
/// let hive: WinPath = r"Windows\System32\config\SYSTEM".parse()?;
/// assert_eq!(hive, r"\WINDOWS\system32\Config\system".parse()?);
/// assert!(r"Windows\..\secret".parse::<WinPath>().is_err());
/// # Ok::<(), ce_disk::volume::PathError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct WinPath {
    components: Vec<String>,
}

/// Why a text is no path inside a Windows volume.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Two backslashes follow each other, or one ends the path.
    #[error("path {path:?} has an empty name in it")]
    EmptyName {
        /// The whole path.
        path: String,
    },
    /// A name contains a character that Win32 does not take.
    #[error("path {path:?}: {found:?} cannot stand in a name")]
    ForbiddenCharacter {
        /// The whole path.
        path: String,
        /// The character.
        found: char,
    },
    /// A name is `.` or `..`, or ends in a dot or a space, which Win32 would drop.
    #[error("path {path:?}: {name:?} is no name of a file")]
    ForbiddenName {
        /// The whole path.
        path: String,
        /// The name.
        name: String,
    },
    /// A name or the path is longer than NTFS and Win32 allow.
    #[error("path of {found} UTF-16 units, expected at most {limit} in a {part}")]
    TooLong {
        /// `name` or `path`.
        part: &'static str,
        /// Its length.
        found: usize,
        /// The most that is allowed.
        limit: usize,
    },
}

impl WinPath {
    /// The root folder.
    pub const ROOT: Self = Self {
        components: Vec::new(),
    };

    /// Whether this is the root folder.
    pub fn is_root(&self) -> bool {
        self.components.is_empty()
    }

    /// The names from the root on.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.components.iter().map(String::as_str)
    }

    /// The last name; `None` for the root.
    pub fn file_name(&self) -> Option<&str> {
        self.components.last().map(String::as_str)
    }

    /// The folder that it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parents) = self.components.split_last()?;
        Some(Self {
            components: parents.to_vec(),
        })
    }

    /// The path `more` below this one; `more` may have several names.
    ///
    /// # Errors
    ///
    /// [`PathError`] when `more` is no path, or the whole is too long.
    pub fn join(&self, more: &str) -> Result<Self, PathError> {
        let more: Self = more.parse()?;
        let components = self.components.iter().chain(&more.components);
        let path = Self {
            components: components.cloned().collect(),
        };
        check_length("path", &path.to_string(), MAX_PATH)?;
        Ok(path)
    }

    fn folded(&self) -> impl Iterator<Item = char> {
        self.components.iter().flat_map(|name| {
            let separator = std::iter::once('\\');
            separator.chain(name.chars().map(upper_case))
        })
    }
}

impl FromStr for WinPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        check_length("path", path, MAX_PATH)?;
        let relative = path.strip_prefix('\\').unwrap_or(path);
        if relative.is_empty() {
            return Ok(Self::ROOT);
        }
        let names = relative.split('\\');
        let components = names.map(|name| check_name(path, name).map(|()| name.to_owned()));
        Ok(Self {
            components: components.collect::<Result<_, _>>()?,
        })
    }
}

/// Names between backslashes, without a leading one; the root is a single backslash.
impl fmt::Display for WinPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str("\\");
        }
        f.write_str(&self.components.join("\\"))
    }
}

impl PartialEq for WinPath {
    fn eq(&self, other: &Self) -> bool {
        self.folded().eq(other.folded())
    }
}

impl Eq for WinPath {}

impl Hash for WinPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded().for_each(|letter| letter.hash(state));
    }
}

fn check_name(path: &str, name: &str) -> Result<(), PathError> {
    if name.is_empty() {
        return Err(PathError::EmptyName {
            path: path.to_owned(),
        });
    }
    check_length("name", name, MAX_NAME)?;
    let is_forbidden = |letter: char| letter < ' ' || r#"<>:"/|?*"#.contains(letter);
    if let Some(found) = name.chars().find(|letter| is_forbidden(*letter)) {
        return Err(PathError::ForbiddenCharacter {
            path: path.to_owned(),
            found,
        });
    }
    if name.ends_with(['.', ' ']) {
        return Err(PathError::ForbiddenName {
            path: path.to_owned(),
            name: name.to_owned(),
        });
    }
    Ok(())
}

fn check_length(part: &'static str, text: &str, limit: usize) -> Result<(), PathError> {
    let found = text.encode_utf16().count();
    if found > limit {
        return Err(PathError::TooLong { part, found, limit });
    }
    Ok(())
}

/// The upper-case letter, where it is a single one, as in the `$UpCase` table of a volume.
fn upper_case(letter: char) -> char {
    let mut upper = letter.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) => single,
        _ => letter,
    }
}

/// The most UTF-16 units in a name of NTFS.
const MAX_NAME: usize = 255;

/// The most UTF-16 units that a UNICODE_STRING, and with it a path of Windows NT, can hold.
const MAX_PATH: usize = 32_767;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WinPath {
        text.parse().unwrap()
    }

    #[test]
    fn paths_are_equal_whatever_their_case() {
        assert_eq!(path(r"windows\SYSTEM32"), path(r"\Windows\System32"));
        assert_eq!(path("Straße\\äöü"), path("STRAßE\\ÄÖÜ"));
        assert_ne!(path(r"a\bc"), path(r"ab\c"));
        let set: std::collections::HashSet<_> = [path("a"), path("A")].into_iter().collect();
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn a_path_comes_apart_and_together() {
        let hive = path(r"Windows\System32\config").join("SYSTEM").unwrap();
        assert_eq!(hive.to_string(), r"Windows\System32\config\SYSTEM");
        assert_eq!(hive.file_name(), Some("SYSTEM"));
        assert_eq!(hive.parent().unwrap(), path(r"Windows\System32\config"));
        assert_eq!(hive.components().count(), 4);
        assert!(path("").is_root() && path("\\").is_root());
        assert_eq!(WinPath::ROOT.to_string(), "\\");
        assert_eq!(WinPath::ROOT.parent(), None);
    }

    #[test]
    fn what_could_leave_the_volume_or_name_something_else_is_refused() {
        for text in [
            r"a\..\b",
            "..",
            ".",
            r"a\\b",
            "a\\",
            r"\\server\share",
            r"C:\Windows",
            "a:stream",
            "a/b",
            "a\0b",
            "a*",
            "a?",
            "a|b",
            "a\"b",
            "<a",
            "a>",
            "dot.",
            "space ",
            "tab\t",
        ] {
            assert!(text.parse::<WinPath>().is_err(), "{text:?}");
        }
        assert!("x".repeat(255).parse::<WinPath>().is_ok());
        assert!("x".repeat(256).parse::<WinPath>().is_err());
        let long = ["x"; 16_384].join("\\");
        assert!(matches!(
            format!("{long}\\x").parse::<WinPath>(),
            Err(PathError::TooLong { part: "path", .. })
        ));
    }
}
