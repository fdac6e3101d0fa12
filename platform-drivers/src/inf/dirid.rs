//! The numbers that stand for directories ("Using Dirids").

use super::error::InfErrorKind;

/// Where a directory number leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Directory {
    /// A directory of the system volume: its path from the volume's root, without a first backslash.
    Volume(&'static str),
    /// The package's folder in the driver store; files that go there stay where they are.
    DriverStore,
    /// The path that follows is a whole one.
    Absolute,
}

/// What a directory number means.
pub(super) fn directory(id: u32) -> Result<Directory, InfErrorKind> {
    if id == ABSOLUTE || id == ABSOLUTE_16 {
        return Ok(Directory::Absolute);
    }
    if id == DRIVER_STORE {
        return Ok(Directory::DriverStore);
    }
    DIRECTORIES
        .iter()
        .find(|&&(known, _)| known == id)
        .map(|&(_, path)| Directory::Volume(path))
        .ok_or(InfErrorKind::UnknownDirectory { found: id })
}

/// What `%12%` becomes in text: a whole path, on the drive that Windows calls its own.
pub(super) fn absolute(id: &str) -> Option<String> {
    if id.is_empty() || id.len() > 5 || !id.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    match directory(id.parse().ok()?).ok()? {
        Directory::Volume("") => Some(SYSTEM_DRIVE.to_owned()),
        Directory::Volume(path) => Some(format!("{SYSTEM_DRIVE}\\{path}")),
        Directory::DriverStore => Some(DRIVER_STORE_MARK.to_owned()),
        Directory::Absolute => None,
    }
}

/// Windows sees its own volume as C: wherever it was installed by its setup or from an image.
pub(super) const SYSTEM_DRIVE: &str = "C:";

/// `%13%` before the package has a folder. Whoever names the folder puts it in.
pub const DRIVER_STORE_MARK: &str = "%13%";

const DRIVER_STORE: u32 = 13;

/// -1, as 32 bits and as the 16 that old INFs write.
const ABSOLUTE: u32 = u32::MAX;
const ABSOLUTE_16: u32 = 0xFFFF;

/// On a 64-bit Windows. 164xx are CSIDL numbers with 0x4000 added.
const DIRECTORIES: [(u32, &str); 40] = [
    (10, "Windows"),
    (11, "Windows\\System32"),
    (12, "Windows\\System32\\drivers"),
    (17, "Windows\\INF"),
    (18, "Windows\\Help"),
    (20, "Windows\\Fonts"),
    (21, "Windows\\System32\\viewers"),
    (23, "Windows\\System32\\spool\\drivers\\color"),
    (24, ""),
    (25, "Windows"),
    (30, ""),
    (50, "Windows\\System"),
    (51, "Windows\\System32\\spool"),
    (52, "Windows\\System32\\spool\\drivers"),
    (54, ""),
    (55, "Windows\\System32\\spool\\prtprocs"),
    (16406, "ProgramData\\Microsoft\\Windows\\Start Menu"),
    (
        16407,
        "ProgramData\\Microsoft\\Windows\\Start Menu\\Programs",
    ),
    (
        16408,
        "ProgramData\\Microsoft\\Windows\\Start Menu\\Programs\\Startup",
    ),
    (16409, "Users\\Public\\Desktop"),
    (16415, "Users\\Public\\Favorites"),
    (16419, "ProgramData"),
    (16420, "Windows"),
    (16421, "Windows\\System32"),
    (16422, "Program Files"),
    (16425, "Windows\\SysWOW64"),
    (16426, "Program Files (x86)"),
    (16427, "Program Files\\Common Files"),
    (16428, "Program Files (x86)\\Common Files"),
    (16429, "ProgramData\\Microsoft\\Windows\\Templates"),
    (16430, "Users\\Public\\Documents"),
    (
        16431,
        "ProgramData\\Microsoft\\Windows\\Start Menu\\Programs\\Administrative Tools",
    ),
    (16437, "Users\\Public\\Music"),
    (16438, "Users\\Public\\Pictures"),
    (16439, "Users\\Public\\Videos"),
    (16440, "Windows\\Resources"),
    (66000, "Windows\\System32\\spool\\drivers\\x64"),
    (66001, "Windows\\System32\\spool\\prtprocs\\x64"),
    (66002, "Windows\\System32"),
    (66003, "Windows\\System32\\spool\\drivers\\color"),
];
