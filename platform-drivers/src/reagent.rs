//! Where `reagentc` believes the recovery environment to be, and whether it is on
//! (`System32\Recovery\ReAgent.xml`).
//!
//! ```text
//!  <WinreLocation path="\Recovery\WindowsRE" id="0" offset="1072693248" guid="{...}"/>
//!  <InstallState state="1"/>
//! ```
//!
//! The offset is the first byte of the partition. Microsoft documents none of it; this is what files of
//! Windows 10 and 11 have in them. Of the XML only the attributes are read that are asked for.

use std::ops::Range;

use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::{PathError, VolumeError, WinPath, WindowsVolume};

/// What the file says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReAgent {
    is_on: Option<bool>,
    /// The first byte of the partition, and the folder there.
    place: Option<(u64, WinPath)>,
}

impl ReAgent {
    /// Reads the file of the Windows in `folder`; `None` if there is none that is text of UTF-8.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] when the volume cannot be read.
    pub fn read(volume: &dyn WindowsVolume, folder: &WinPath) -> Result<Option<Self>, VolumeError> {
        let text = match path(folder) {
            Ok(path) => text(volume, &path)?,
            Err(_) => None,
        };
        Ok(text.as_deref().map(Self::parse))
    }

    fn parse(text: &str) -> Self {
        let value = |element: &str, name: &str| {
            let opening = format!("<{element} ");
            let mut pieces = text.split_inclusive('>');
            let element = pieces.find_map(|piece| piece.get(piece.find(&opening)?..))?;
            element.get(attribute(element, name)?)
        };
        let start = value("WinreLocation", "offset").and_then(|offset| offset.parse().ok());
        let folder = value("WinreLocation", "path").and_then(|path| path.parse().ok());
        Self {
            is_on: match value("InstallState", "state") {
                Some("1") => Some(true),
                Some("0") => Some(false),
                _ => None,
            },
            place: start.zip(folder),
        }
    }

    /// Whether Windows starts the recovery environment in `file` of the volume at `start`; `None` if
    /// that cannot be told.
    pub fn starts(&self, start: ByteOffset, file: &WinPath) -> Option<bool> {
        let is_here = self.place.as_ref().is_some_and(|(place, folder)| {
            *place == start.0 && file.parent().as_ref() == Some(folder)
        });
        self.is_on.map(|is_on| is_on && is_here)
    }
}

/// The file of the Windows in `folder`.
pub(crate) fn path(folder: &WinPath) -> Result<WinPath, PathError> {
    folder.join(r"System32\Recovery\ReAgent.xml")
}

/// What is in it, if it is there and text.
pub(crate) fn text(
    volume: &dyn WindowsVolume,
    path: &WinPath,
) -> Result<Option<String>, VolumeError> {
    if !volume.exists(path)? || volume.metadata(path)?.size > LARGEST {
        return Ok(None);
    }
    Ok(String::from_utf8(volume.read(path, LARGEST)?).ok())
}

/// Where in `element` the value of an attribute is.
pub(crate) fn attribute(element: &str, name: &str) -> Option<Range<usize>> {
    let opening = format!(" {name}=\"");
    let start = element.find(&opening)? + opening.len();
    let length = element.get(start..)?.find('"')?;
    Some(start..start + length)
}

/// It has about one KiB.
const LARGEST: ByteCount = ByteCount(64 << 10);

#[cfg(test)]
mod tests {
    use super::*;
    use ce_disk::volume::MemoryVolume;

    fn starts(text: &str, start: u64, file: &str) -> Option<bool> {
        let folder: WinPath = "Windows".parse().unwrap();
        let mut volume = MemoryVolume::default();
        volume.put(&path(&folder).unwrap(), text);
        let found = ReAgent::read(&volume, &folder).unwrap().unwrap();
        found.starts(ByteOffset(start), &file.parse().unwrap())
    }

    const FILE: &str = r"Recovery\WindowsRE\Winre.wim";

    #[test]
    fn the_recovery_environment_is_on_where_the_file_says_so_and_nowhere_else() {
        let text = |state: &str| {
            format!(
                "<?xml version='1.0'?>\r\n<WindowsRE version=\"2.0\">\r\n  \
                 <WinreLocation path=\"\\Recovery\\WindowsRE\" id=\"0\" offset=\"1048576\" guid=\"{{0}}\"/>\r\n  \
                 <ImageLocation path=\"\" id=\"0\" offset=\"0\" guid=\"{{0}}\"/>\r\n  \
                 <InstallState state=\"{state}\"/>\r\n</WindowsRE>\r\n"
            )
        };
        assert_eq!(starts(&text("1"), 1 << 20, FILE), Some(true));
        assert_eq!(starts(&text("1"), 2 << 20, FILE), Some(false));
        let off = r"Windows\System32\Recovery\Winre.wim";
        assert_eq!(starts(&text("1"), 1 << 20, off), Some(false));
        assert_eq!(starts(&text("0"), 1 << 20, FILE), Some(false));
        assert_eq!(starts(&text("9"), 1 << 20, FILE), None);
    }

    #[test]
    fn a_file_that_says_nothing_tells_nothing() {
        for text in ["", "no XML", "<InstallState state=\"1", "<InstallState/>"] {
            assert_eq!(starts(text, 1 << 20, FILE), None, "{text}");
        }
        let folder: WinPath = "Windows".parse().unwrap();
        let mut volume = MemoryVolume::default();
        assert_eq!(ReAgent::read(&volume, &folder).unwrap(), None);
        volume.put(&path(&folder).unwrap(), vec![0xFF; 10]);
        assert_eq!(ReAgent::read(&volume, &folder).unwrap(), None);
        volume.put(&path(&folder).unwrap(), vec![b' '; (64 << 10) + 1]);
        assert_eq!(ReAgent::read(&volume, &folder).unwrap(), None);
    }
}
