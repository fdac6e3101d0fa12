//! Small drives and optical ones, and single files on them.
//!
//! The agent works on disks whose content somebody else has written, and which must not get to command
//! it: so only optical drives and disks of at most 64 MiB are looked at, and no partitions. ISO 9660, UDF
//! and FAT are read, by [`disc`] and [`FatVolume`]; nothing is mounted and nothing written.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use ce_disk::block::MemoryDisk;
use ce_disk::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};
use ce_disk::volume::{FatVolume, VolumeError, WinPath, WindowsVolume};
use ce_platform::bundle::disc::{self, DiscError, DiscFile};
use zeroize::Zeroizing;

/// Why a drive that is meant for us can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DriveError {
    /// The drive can't be read.
    #[error("reading")]
    Read(#[from] io::Error),
    /// What is on the disc is no sound file system.
    #[error(transparent)]
    Disc(#[from] DiscError),
    /// What is on the disk is no sound file system.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A file is too long.
    #[error("{path} has {length} bytes, and at most {limit} are read")]
    TooLong {
        /// Which.
        path: String,
        /// How long it is.
        length: u64,
        /// How long it may be.
        limit: u64,
    },
}

/// A drive.
#[derive(Debug)]
pub(super) struct Drive {
    /// Its device file.
    pub node: PathBuf,
    file: File,
    content: Content,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Content {
    /// ISO 9660 or UDF, with the label that ISO 9660 has.
    Disc(String),
    /// FAT, with its label.
    Fat(String),
}

/// All drives below `root` with something on them that can be read. One that can't be opened or begins
/// with something else is none of ours.
pub(super) fn drives(root: &Path) -> Vec<Drive> {
    let Ok(names) = fs::read_dir(root.join("sys/block")) else {
        return Vec::new();
    };
    let mut names: Vec<_> = names
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_candidate(root, name))
        .collect();
    names.sort();
    names
        .into_iter()
        .take(MOST_DRIVES)
        .filter_map(|name| Drive::open(&root.join("dev").join(name)).ok()?)
        .collect()
}

impl Drive {
    fn open(node: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(node)?;
        let content = content_of(&mut file)?;
        Ok(content.map(|content| Self {
            node: node.to_owned(),
            file,
            content,
        }))
    }

    /// Whether this is its label; upper and lower case are the same.
    pub(super) fn is_labelled(&self, label: &str) -> bool {
        let (Content::Disc(own) | Content::Fat(own)) = &self.content;
        own.eq_ignore_ascii_case(label)
    }

    /// The content of the file at `path`, whose names are divided by `/`; upper and lower case are the
    /// same. `None` if there is no such file.
    pub(super) fn read(
        &mut self,
        path: &str,
        limit: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DriveError> {
        match self.content {
            Content::Disc(_) => self.read_of_disc(path, limit),
            Content::Fat(_) => self.read_of_fat(path, limit),
        }
    }

    fn read_of_disc(
        &mut self,
        path: &str,
        limit: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DriveError> {
        let files = disc::files(&mut self.file, MOST_ENTRIES)?;
        let is_it = |file: &&DiscFile| file.path.eq_ignore_ascii_case(path);
        let Some(file) = files.iter().find(is_it) else {
            return Ok(None);
        };
        if file.length > limit {
            return Err(DriveError::TooLong {
                path: path.to_owned(),
                length: file.length,
                limit,
            });
        }
        let mut content = Zeroizing::new(Vec::new());
        file.content(&mut self.file).read_to_end(&mut content)?;
        Ok(Some(content))
    }

    fn read_of_fat(
        &mut self,
        path: &str,
        limit: u64,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, DriveError> {
        let volume = FatVolume::open(in_memory(&mut self.file)?)?;
        let Ok(path) = path.replace('/', "\\").parse::<WinPath>() else {
            return Ok(None);
        };
        match volume.read(&path, ByteCount(limit)) {
            Ok(content) => Ok(Some(content.into())),
            Err(VolumeError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_candidate(root: &Path, name: &str) -> bool {
    let is_optical = name.strip_prefix("sr").is_some_and(is_number);
    let is_virtual = ["dm-", "fd", "loop", "md", "nbd", "ram", "zram"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let size = fs::read_to_string(root.join("sys/block").join(name).join("size"));
    let sectors = size.ok().and_then(|text| text.trim().parse::<u64>().ok());
    let is_small = sectors.is_some_and(|sectors| (1..=LARGEST_DISK / 512).contains(&sectors));
    is_optical || (is_small && !is_virtual)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is on a drive, by its first sectors: ISO 9660 (ECMA-119, 8.4: the volume identifier) or UDF, or
/// FAT (the label of the extended boot record).
fn content_of(file: &mut File) -> io::Result<Option<Content>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(HEAD).read_to_end(&mut head)?;
    let descriptor = head.get(16 * 2048..).unwrap_or_default();
    match descriptor.get(1..6) {
        Some(b"CD001") => {
            let label = descriptor.get(40..72).filter(|_| descriptor[0] == 1);
            return Ok(Some(Content::Disc(label_of(label.unwrap_or_default()))));
        }
        Some(b"BEA01") => return Ok(Some(Content::Disc(String::new()))),
        _ => {}
    }
    let is_fat = head.get(510..512) == Some(&[0x55, 0xAA]);
    // FAT32 has no size of a table of 16 bits.
    let extended = match head.get(22..24) {
        Some([0, 0]) => head.get(66..82),
        _ => head.get(38..54),
    };
    let label = extended
        .filter(|record| is_fat && record[0] == 0x29)
        .map(|record| label_of(&record[5..16]));
    Ok(label.map(Content::Fat))
}

fn label_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_end_matches([' ', '\0']).to_owned()
}

/// A copy of a drive that is not larger than [`LARGEST_DISK`]: it may be in use elsewhere, which is no
/// reason to refuse it.
fn in_memory(file: &mut File) -> io::Result<MemoryDisk> {
    let length = file.seek(SeekFrom::End(0))?;
    if length > LARGEST_DISK {
        return Err(ErrorKind::FileTooLarge.into());
    }
    file.seek(SeekFrom::Start(0))?;
    let mut disk = MemoryDisk::new(
        ByteCount(length),
        SectorSizes {
            logical: SectorSize::B512,
            physical: SectorSize::B512,
        },
    );
    let mut at = 0;
    let mut chunk = Zeroizing::new(Vec::new());
    loop {
        chunk.clear();
        let read = file.take(CHUNK).read_to_end(&mut chunk)? as u64;
        if read == 0 {
            return Ok(disk);
        }
        disk.write(ByteOffset(at), &chunk);
        at += read;
    }
}

/// OpenStack makes its config drives of FAT with this size.
const LARGEST_DISK: u64 = 64 << 20;

const MOST_DRIVES: usize = 32;

/// Files and folders of a disc. A config drive has some ten.
const MOST_ENTRIES: u64 = 1024;

/// To the end of the first volume descriptor of a disc.
const HEAD: u64 = 17 * 2048;

const CHUNK: u64 = 1 << 20;

#[cfg(test)]
mod tests;
