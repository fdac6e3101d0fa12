//! Which names a file may have, so that it can lie on any share and be opened by Windows.

/// Checks the name of a file or folder against the rules of Windows ("Naming Files, Paths, and
/// Namespaces"), which every SMB server has to assume of its clients.
///
/// # Errors
///
/// [`NameProblem`], the first that is found.
pub fn check_name(name: &str) -> Result<(), NameProblem> {
    Err(if name.is_empty() {
        NameProblem::Empty
    } else if name == "." || name == ".." {
        NameProblem::LeadsOut
    } else if name.chars().any(char::is_control) {
        NameProblem::ControlCharacter
    } else if name.contains('/') {
        NameProblem::Separator
    } else if name.contains(['<', '>', ':', '"', '|', '?', '*', '\\']) {
        NameProblem::ForbiddenCharacter
    } else if name.ends_with(['.', ' ']) {
        NameProblem::EndsInDotOrSpace
    } else if utf16_length(name) > LONGEST_NAME {
        NameProblem::TooLong
    } else if is_device(name) {
        NameProblem::Device
    } else {
        return Ok(());
    })
}

/// What is wrong with a name, shown as the rest of a sentence about it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// There is a character below 0x20, or another that controls a terminal.
    #[error("has a control character in it")]
    ControlCharacter,
    /// Windows takes it for a device, with or without an extension.
    #[error("is reserved for a device")]
    Device,
    /// There is nothing.
    #[error("is empty")]
    Empty,
    /// Windows would leave the end away.
    #[error("ends in a dot or a space")]
    EndsInDotOrSpace,
    /// There is a character that has another meaning.
    #[error("has one of < > : \" | ? * \\ in it")]
    ForbiddenCharacter,
    /// It is `.` or `..`.
    #[error("leads out of its folder")]
    LeadsOut,
    /// There is a `/`.
    #[error("has a separator in it")]
    Separator,
    /// NTFS and SMB have no room for it.
    #[error("is longer than 255 UTF-16 units")]
    TooLong,
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end_matches(' ');
    let stem = stem.to_uppercase();
    if ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) {
        return true;
    }
    let digit = stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"));
    digit.is_some_and(|digit| {
        let mut digits = digit.chars();
        let first = digits.next();
        digits.next().is_none()
            && first.is_some_and(|c| c.is_ascii_digit() || "\u{b9}\u{b2}\u{b3}".contains(c))
    })
}

pub(super) fn utf16_length(text: &str) -> usize {
    text.encode_utf16().count()
}

/// The longest name of a file on NTFS and in SMB, in UTF-16 units.
pub(super) const LONGEST_NAME: usize = 255;
