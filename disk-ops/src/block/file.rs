//! A raw image in a regular file: byte n of the file is byte n of the disk.
//!
//! Aligned reads bypass the page cache where the file system allows it; elsewhere the file is read
//! ahead and dropped behind, so that reading a disk does not evict the host's cache. Holes of the
//! file are reported as zeros where the file system can tell them (`SEEK_DATA`).
//!
//! A file that is only read is not locked, and that somebody writes to it goes unnoticed. One that
//! is opened to be written is locked against a second writer of this kind.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, OFlags, SeekFrom};
use rustix::io::Errno;

use super::busy::find_users_of_file;
use super::medium::Medium;
use super::node::identity_of_file;
use super::sector::{DETECTION_LENGTH, detect_sector_size};
use super::{
    BlockError, BlockRead, Extent, ExtentKind, FileKind, FileStamp, OpenError, SizeProblem,
    Writable, check_range,
};
use crate::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};

/// An open raw image.
#[derive(Debug)]
pub struct RawFile {
    medium: Medium,
    sectors: SectorSizes,
    /// As it was when the file was opened.
    stamp: FileStamp,
    /// The last answer of the file system, so that a reader in order asks once an extent.
    last_extent: Mutex<Option<KnownExtent>>,
    knows_no_holes: AtomicBool,
}

impl RawFile {
    /// Opens the regular file at `path`.
    ///
    /// Without `sector_size`, a GPT header at byte 4096 makes it a disk of 4096-byte sectors
    /// ([`detect_sector_size`]), and anything else one of 512-byte sectors.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: nothing there, not readable, no regular file, or a size that is zero, above
    /// [`MAX_DISK_SIZE`](super::MAX_DISK_SIZE) or no multiple of the sector size.
    pub fn open(path: &Path, sector_size: Option<SectorSize>) -> Result<Self, OpenError> {
        let (file, metadata) = open_regular(path, Access::Read)?;
        Self::from_file(path, file, &metadata, sector_size, Access::Read)
    }

    /// As [`open`](Self::open), to be written as well, and locked for as long as it is open.
    ///
    /// Whatever the file holds counts as a raw disk; [`open_writable`](super::open_writable)
    /// refuses images.
    ///
    /// # Errors
    ///
    /// Also [`OpenError::NotWritable`], and [`OpenError::Busy`] when another process has opened it
    /// so, or a loop device uses it.
    pub fn open_writable(
        path: &Path,
        sector_size: Option<SectorSize>,
    ) -> Result<Writable<Self>, OpenError> {
        let (file, metadata) = open_regular(path, Access::Write)?;
        let busy = |held_by| OpenError::Busy {
            path: path.to_owned(),
            held_by,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(busy(vec!["another process has locked it".to_owned()]));
            }
            Err(error) => return Err(OpenError::from_io(path, "locking", error.into())),
        }
        let users = find_users_of_file(&metadata);
        if !users.is_empty() {
            return Err(busy(users));
        }
        let disk = Self::from_file(path, file, &metadata, sector_size, Access::Write)?;
        Ok(Writable::new(disk, identity_of_file(path, &metadata)))
    }

    pub(super) fn medium(&self) -> &Medium {
        &self.medium
    }

    /// Drops what is known about holes, as the file is about to have others.
    pub(super) fn forget_extents(&self) {
        *self
            .last_extent
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// As [`open`](Self::open), for a file that [`open_regular`] has opened.
    pub(super) fn from_file(
        path: &Path,
        file: File,
        metadata: &Metadata,
        sector_size: Option<SectorSize>,
        access: Access,
    ) -> Result<Self, OpenError> {
        let size = ByteCount(metadata.len());
        let sector = match sector_size {
            Some(sector) => sector,
            None => {
                let mut head = [0; DETECTION_LENGTH];
                let length = read_head(&file, &mut head)
                    .map_err(|error| OpenError::from_io(path, "reading the start", error))?;
                detect_sector_size(&head[..length]).unwrap_or(SectorSize::B512)
            }
        };
        if let Some(problem) = SizeProblem::of(size, sector.bytes()) {
            return Err(OpenError::BadSize {
                path: path.to_owned(),
                problem,
            });
        }
        let direct = open_direct(path, metadata, access);
        Ok(Self {
            medium: Medium::new(path.display().to_string(), size, file, direct),
            sectors: SectorSizes {
                logical: sector,
                physical: sector,
            },
            stamp: metadata.into(),
            last_extent: Mutex::new(None),
            knows_no_holes: AtomicBool::new(false),
        })
    }

    /// Whether aligned reads bypass the page cache at present.
    pub fn is_direct(&self) -> bool {
        self.medium.is_direct()
    }

    /// Asks the file system for the extent around `offset`.
    fn look_up_extent(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        let end = self.medium.size().end();
        let data = match self.seek(SeekFrom::Data(offset.0)) {
            Ok(data) => data,
            Err(Errno::NXIO) => {
                // No data from here to the end of the file - or an end that has moved before us.
                let now = self.medium.buffered().metadata();
                let now = now
                    .map_err(|error| self.medium.failed(offset, 1, error))?
                    .len();
                if now < end.0 {
                    return Err(self.medium.shrunk(ByteOffset(now)));
                }
                end
            }
            // Not every file system has the question (EINVAL), nor every FUSE server.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.knows_no_holes.store(true, Ordering::Relaxed);
                offset
            }
            Err(error) => return Err(self.medium.failed(offset, 1, error.into())),
        };
        if data > offset {
            return Ok(Extent {
                kind: ExtentKind::Zero,
                end: data.min(end),
            });
        }
        let hole = match self.knows_no_holes.load(Ordering::Relaxed) {
            true => end,
            false => self
                .seek(SeekFrom::Hole(offset.0))
                .map_err(|error| self.medium.failed(offset, 1, error.into()))?,
        };
        Ok(Extent {
            kind: ExtentKind::Data,
            // A file that is cut off between the two questions answers with its new end.
            end: hole.clamp(ByteOffset(offset.0 + 1), end),
        })
    }

    /// Moves the descriptor's position, which nothing else uses, and returns it.
    fn seek(&self, position: SeekFrom) -> Result<ByteOffset, Errno> {
        rustix::fs::seek(self.medium.buffered(), position).map(ByteOffset)
    }
}

impl BlockRead for RawFile {
    fn size(&self) -> ByteCount {
        self.medium.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.sectors
    }

    fn name(&self) -> &str {
        self.medium.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(buffer.len() as u64))?;
        self.medium.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        // A panic elsewhere cannot leave a copied answer half written.
        let mut last = self
            .last_extent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *last
            && (known.start..known.extent.end).contains(&offset)
        {
            return Ok(known.extent);
        }
        let extent = self.look_up_extent(offset)?;
        *last = Some(KnownExtent {
            start: offset,
            extent,
        });
        Ok(extent)
    }

    fn file_stamp(&self) -> Option<FileStamp> {
        Some(self.stamp)
    }
}

/// An extent and the position it was asked for at.
#[derive(Clone, Copy, Debug)]
struct KnownExtent {
    start: ByteOffset,
    extent: Extent,
}

/// What a disk is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// Reading alone.
    Read,
    /// Reading and writing.
    Write,
}

/// Opens `path` if it is a regular file.
pub(super) fn open_regular(path: &Path, access: Access) -> Result<(File, Metadata), OpenError> {
    // Before opening: to open a pipe or a device may have effects.
    let metadata = std::fs::metadata(path)
        .map_err(|error| OpenError::from_io(path, "looking it up", error))?;
    expect_regular(path, &metadata)?;
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        // Should it have become a pipe meanwhile, opening must not wait for a writer.
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(|error| match access {
            Access::Read => OpenError::from_io(path, "opening", error),
            Access::Write => OpenError::from_write_open(path, error),
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| OpenError::from_io(path, "looking it up", error))?;
    expect_regular(path, &metadata)?;
    Ok((file, metadata))
}

fn expect_regular(path: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    if metadata.is_dir() {
        return Err(OpenError::IsDirectory {
            path: path.to_owned(),
        });
    }
    match file_kind(metadata) {
        FileKind::Regular => Ok(()),
        found => Err(OpenError::NotADisk {
            path: path.to_owned(),
            found,
            expected: "a regular file",
        }),
    }
}

/// What kind of file `metadata` describes; directories have their own error and are unknown here.
pub(super) fn file_kind(metadata: &Metadata) -> FileKind {
    let kind = metadata.file_type();
    if kind.is_file() {
        FileKind::Regular
    } else if kind.is_block_device() {
        FileKind::BlockDevice
    } else if kind.is_char_device() {
        FileKind::CharacterDevice
    } else if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Unknown
    }
}

/// A second descriptor of the file that `metadata` describes, for direct I/O, if there can be one.
pub(super) fn open_direct(path: &Path, metadata: &Metadata, access: Access) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        .custom_flags((OFlags::DIRECT | OFlags::NONBLOCK).bits() as i32)
        .open(path)
        .ok()?;
    let reopened = file.metadata().ok()?;
    // The path may name another file by now.
    (reopened.dev() == metadata.dev() && reopened.ino() == metadata.ino()).then_some(file)
}

/// Reads as much of the start of `file` as there is, up to the length of `head`.
pub(super) fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom as From, Write};
    use std::os::unix::net::UnixListener;

    use tempfile::{NamedTempFile, TempDir};

    use super::*;

    /// A file of `size` bytes that holds `bytes` at `offset` and holes elsewhere.
    fn file_with(size: u64, pieces: &[(u64, &[u8])]) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        for (offset, bytes) in pieces {
            file.seek(From::Start(*offset)).unwrap();
            file.write_all(bytes).unwrap();
        }
        file.as_file().sync_all().unwrap();
        file
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
    }

    /// A buffer whose memory starts `skew` bytes behind a 4 KiB boundary.
    fn skewed(storage: &mut Vec<u8>, length: usize, skew: usize) -> &mut [u8] {
        storage.resize(length + skew + 2 * 4096, 0xEE);
        let start = storage.as_ptr().align_offset(4096) + skew;
        &mut storage[start..start + length]
    }

    #[test]
    fn every_alignment_of_offset_length_and_memory_reads_the_same_bytes() {
        let content = pattern(64 * 1024 + 512);
        let file = file_with(content.len() as u64, &[(0, &content)]);
        let disk = RawFile::open(file.path(), None).unwrap();
        let mut storage = Vec::new();
        for offset in [0_usize, 1, 511, 512, 4095, 4096, 8192, 12_345] {
            for length in [0_usize, 1, 512, 4095, 4096, 4097, 8192, 40_000] {
                for skew in [0, 1, 512] {
                    let buffer = skewed(&mut storage, length, skew);
                    disk.read_at(ByteOffset(offset as u64), buffer).unwrap();
                    assert_eq!(
                        buffer,
                        &content[offset..offset + length],
                        "{offset}+{length}"
                    );
                }
            }
        }
        let mut tail = vec![0; 4096 + 512];
        disk.read_at(ByteOffset(60 * 1024), &mut tail).unwrap();
        assert_eq!(tail, content[60 * 1024..]);
    }

    #[test]
    fn a_refusal_of_direct_reads_is_survived_and_remembered() {
        let content = pattern(16 * 1024);
        let file = file_with(content.len() as u64, &[(0, &content)]);
        let disk = RawFile::open(file.path(), None).unwrap();
        // Stands in for such a file system: it opens, and every read of it is EINVAL.
        let refusing = File::open("/proc/self/ns/mnt").unwrap();
        let medium = Medium::new(
            "refusing".into(),
            disk.size(),
            File::open(file.path()).unwrap(),
            Some(refusing),
        );
        assert!(medium.is_direct());
        let mut storage = Vec::new();
        let buffer = skewed(&mut storage, 8192, 0);
        medium.read_at(ByteOffset(4096), buffer).unwrap();
        assert_eq!(buffer, &content[4096..12_288]);
        assert!(!medium.is_direct());
    }

    #[test]
    fn holes_are_told_and_data_is_found_behind_them() {
        let size = 4 << 20;
        let file = file_with(
            size,
            &[(1 << 20, &pattern(65_536)), (3 << 20, &pattern(4096))],
        );
        let disk = RawFile::open(file.path(), None).unwrap();
        let mut position = ByteOffset::ZERO;
        let mut data = Vec::new();
        while position < disk.size().end() {
            let extent = disk.extent_at(position).unwrap();
            assert!(extent.end > position && extent.end <= disk.size().end());
            if extent.kind == ExtentKind::Data {
                data.push((position.0, extent.end.0));
            }
            position = extent.end;
        }
        assert_eq!(
            data,
            [(1 << 20, (1 << 20) + 65_536), (3 << 20, (3 << 20) + 4096)],
            "the test's directory must be on a file system that keeps holes"
        );
    }

    #[test]
    fn an_answer_about_holes_is_reused_inside_its_extent_only() {
        let file = file_with(1 << 20, &[(512 << 10, &pattern(4096))]);
        let disk = RawFile::open(file.path(), None).unwrap();
        let first = disk.extent_at(ByteOffset(4096)).unwrap();
        assert_eq!(disk.extent_at(ByteOffset(8192)).unwrap(), first);
        assert_eq!(disk.extent_at(first.end).unwrap().kind, ExtentKind::Data);
        assert_eq!(disk.extent_at(ByteOffset(0)).unwrap(), first);
    }

    #[test]
    fn a_file_that_shrinks_gives_an_error_and_no_zeros() {
        let file = file_with(64 * 1024, &[(0, &pattern(64 * 1024))]);
        let disk = RawFile::open(file.path(), None).unwrap();
        file.as_file().set_len(16 * 1024).unwrap();
        let mut storage = Vec::new();
        for skew in [0, 1] {
            let error = disk.read_at(ByteOffset(8192), skewed(&mut storage, 32 * 1024, skew));
            let Err(BlockError::Shrunk { offset, .. }) = error else {
                panic!("expected the end to be noticed, got {error:?}");
            };
            assert_eq!(offset, ByteOffset(16 * 1024));
        }
        let error = disk.extent_at(ByteOffset(32 * 1024)).unwrap_err();
        assert!(matches!(error, BlockError::Shrunk { .. }), "{error}");
    }

    #[test]
    fn a_read_that_leaves_the_disk_is_refused() {
        let file = file_with(4096, &[]);
        let disk = RawFile::open(file.path(), None).unwrap();
        for (offset, length) in [(4096, 1), (4095, 2), (u64::MAX, 1), (u64::MAX, 4096)] {
            let error = disk
                .read_at(ByteOffset(offset), &mut vec![0; length])
                .unwrap_err();
            assert!(matches!(error, BlockError::OutOfRange { .. }), "{error}");
        }
        disk.read_at(ByteOffset(4096), &mut []).unwrap();
        assert!(disk.extent_at(ByteOffset(4096)).is_err());
    }

    #[test]
    fn sizes_that_no_disk_has_are_refused() {
        let cases = [
            (0, None, "is empty"),
            (513, None, "not a multiple of the sector size of 512 bytes"),
            (
                512,
                Some(SectorSize::B4096),
                "not a multiple of the sector size of 4096 bytes",
            ),
        ];
        for (size, sector, text) in cases {
            let file = file_with(size, &[]);
            let error = RawFile::open(file.path(), sector).unwrap_err();
            assert!(matches!(error, OpenError::BadSize { .. }));
            assert!(error.to_string().contains(text), "{error}");
        }
        let too_large = ByteCount((64 << 40) + 512);
        assert_eq!(
            SizeProblem::of(too_large, 512),
            Some(SizeProblem::TooLarge { size: too_large })
        );
        assert_eq!(SizeProblem::of(ByteCount(64 << 40), 512), None);
    }

    #[test]
    fn the_sector_size_is_detected_unless_it_is_given() {
        let mut head = [0; 8192];
        head[4096..4104].copy_from_slice(b"EFI PART");
        head[4120..4128].copy_from_slice(&1_u64.to_le_bytes());
        let file = file_with(65_536, &[(0, &head)]);
        let sector = |given| {
            let disk = RawFile::open(file.path(), given).unwrap();
            disk.sectors().logical
        };
        assert_eq!(sector(None), SectorSize::B4096);
        assert_eq!(sector(Some(SectorSize::B512)), SectorSize::B512);
    }

    #[test]
    fn what_is_no_regular_file_is_named_in_the_error() {
        let directory = TempDir::new().unwrap();
        let missing = directory.path().join("missing.raw");
        let error = RawFile::open(&missing, None).unwrap_err();
        assert!(matches!(error, OpenError::NotFound { .. }), "{error}");

        let error = RawFile::open(directory.path(), None).unwrap_err();
        assert!(matches!(error, OpenError::IsDirectory { .. }), "{error}");

        let socket = directory.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let cases = [
            (socket.as_path(), FileKind::Socket),
            (pipe.as_path(), FileKind::Fifo),
            (Path::new("/dev/zero"), FileKind::CharacterDevice),
        ];
        for (path, kind) in cases {
            let error = RawFile::open(path, None).unwrap_err();
            let OpenError::NotADisk { found, .. } = error else {
                panic!("{}: {error}", path.display());
            };
            assert_eq!(found, kind);
        }
    }
}
