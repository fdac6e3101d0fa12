//! Cabinets (MS-CAB): the files of one, each folder unpacked once, from front to back.
//!
//! ```text
//!  header --> folders: compression, first block, number of blocks
//!         --> files: folder, place in it, length, name
//!  folder --> blocks of up to 32 KiB --> [stored | MSZIP | LZX] --> content of its files, in a row
//! ```
//!
//! A folder is compressed as a whole, and a file in it is reached through all that stands before it.
//! So files are given out in the order of their places; of what comes after the last one that is
//! wanted, nothing is unpacked. Files that share their content, as installers that save room write
//! them, are given out together.
//!
//! Every number of a cabinet is somebody else's: blocks are bounded by the format, the number of files
//! and what is unpacked by the caller. Folders may share blocks, so what is unpacked to be passed over
//! counts too.
//!
//! Not read: Quantum, and what goes on in another cabinet.

mod block;

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use encoding_rs::WINDOWS_1252;

use block::Blocks;

/// A file in a cabinet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CabinetFile {
    /// Its name, with the path if it has one, as it stands there: `\` divides.
    pub name: String,
    /// Bytes.
    pub length: u32,
    /// Where in the content of its folder it begins.
    offset: u32,
    folder: usize,
}

/// Why a cabinet is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CabinetError {
    /// The cabinet cannot be read, or ends early.
    #[error("reading the cabinet")]
    Read(#[from] io::Error),
    /// Something in it is not as the format wants it.
    #[error("at byte {at}: expected {expected}, found {found}")]
    Unsound {
        /// Where in the cabinet.
        at: u64,
        /// What the format has there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A file is not where the cabinet says it is.
    #[error("the file {name:?}: {reason}")]
    File {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More than the caller takes.
    #[error("the cabinet has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
}

/// How much is taken of a cabinet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CabinetLimits {
    /// Files.
    pub files: u64,
    /// Bytes that are unpacked, those that are passed over included.
    pub bytes: u64,
}

/// An open cabinet.
#[derive(Debug)]
pub struct Cabinet<R> {
    source: BufReader<R>,
    folders: Vec<Folder>,
    files: Vec<CabinetFile>,
    bytes: Budget,
    /// Bytes before the content of each block that are the application's own.
    reserved_in_block: u8,
}

/// Bytes that may still be unpacked.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u64,
    limit: u64,
}

impl Budget {
    fn spend(&mut self, count: u64) -> Result<(), CabinetError> {
        let left = self.left.checked_sub(count);
        self.left = left.ok_or(CabinetError::TooMuch {
            what: "bytes of content",
            limit: self.limit,
        })?;
        Ok(())
    }
}

/// `CFFOLDER` (MS-CAB 2.2).
#[derive(Clone, Copy, Debug)]
struct Folder {
    first_block: u32,
    blocks: u16,
    compression: u16,
}

impl<R: Read + Seek> Cabinet<R> {
    /// Reads the header and the lists of a cabinet.
    ///
    /// # Errors
    ///
    /// [`CabinetError`]
    pub fn open(source: R, limits: CabinetLimits) -> Result<Self, CabinetError> {
        let mut source = BufReader::new(source);
        source.seek(SeekFrom::Start(0))?;
        let head: [u8; 36] = bytes(&mut source)?;
        if !head.starts_with(b"MSCF") {
            return Err(unsound(0, "the signature MSCF", hex(&head[..4])));
        }
        let [minor, major] = [head[24], head[25]];
        if (major, minor) != (1, 3) {
            return Err(unsound(24, "version 1.3", format!("{major}.{minor}")));
        }
        let (folder_count, file_count) = (u16_at(&head, 26), u16_at(&head, 28));
        if u64::from(file_count) > limits.files {
            return Err(CabinetError::TooMuch {
                what: "files",
                limit: limits.files,
            });
        }
        let flags = u16_at(&head, 30);
        let (mut reserved, mut reserved_in_folder, mut reserved_in_block) = (0, 0, 0);
        if flags & HAS_RESERVE != 0 {
            let sizes: [u8; 4] = bytes(&mut source)?;
            reserved = u16_at(&sizes, 0);
            [reserved_in_folder, reserved_in_block] = [sizes[2], sizes[3]];
        }
        skip(&mut source, reserved)?;
        // The names of the cabinets before and after it, and of their disks.
        for flag in [HAS_PREVIOUS, HAS_NEXT] {
            if flags & flag != 0 {
                text(&mut source)?;
                text(&mut source)?;
            }
        }
        let mut folders = Vec::new();
        for _ in 0..folder_count {
            let entry: [u8; 8] = bytes(&mut source)?;
            folders.push(Folder {
                first_block: u32_at(&entry, 0),
                blocks: u16_at(&entry, 4),
                compression: u16_at(&entry, 6),
            });
            skip(&mut source, u16::from(reserved_in_folder))?;
        }
        source.seek(SeekFrom::Start(u64::from(u32_at(&head, 16))))?;
        let mut files = Vec::new();
        for _ in 0..file_count {
            let at = source.stream_position()?;
            let entry: [u8; 16] = bytes(&mut source)?;
            let name = text(&mut source)?;
            let is_utf8 = u16_at(&entry, 14) & NAME_IS_UTF8 != 0;
            let file = CabinetFile {
                // Other code pages than this one are seen where names are not English.
                name: match is_utf8 {
                    true => String::from_utf8_lossy(&name).into_owned(),
                    false => WINDOWS_1252.decode_without_bom_handling(&name).0.into(),
                },
                length: u32_at(&entry, 0),
                offset: u32_at(&entry, 4),
                folder: usize::from(u16_at(&entry, 8)),
            };
            if u16_at(&entry, 8) >= CONTINUED {
                let reason = "a part of it is in another cabinet";
                let name = file.name;
                return Err(CabinetError::File { name, reason });
            }
            if file.folder >= folders.len() {
                let found = format!("folder {} of {}", file.folder, folders.len());
                return Err(unsound(at + 8, "a folder of the cabinet", found));
            }
            files.push(file);
        }
        Ok(Self {
            source,
            folders,
            files,
            bytes: Budget {
                left: limits.bytes,
                limit: limits.bytes,
            },
            reserved_in_block,
        })
    }

    /// The files, in the order of the list.
    pub fn files(&self) -> &[CabinetFile] {
        &self.files
    }

    /// How many of the bytes that may be unpacked were not.
    pub fn bytes_left(&self) -> u64 {
        self.bytes.left
    }

    /// Unpacks the files that `is_wanted`, and has `take` read each content with all that have it.
    /// What `take` leaves is passed over.
    ///
    /// # Errors
    ///
    /// [`CabinetError`]; the first error of `take`. An error of the reader that `take` is given comes
    /// of the cabinet too.
    pub fn unpack<E: From<CabinetError>>(
        &mut self,
        is_wanted: impl Fn(&CabinetFile) -> bool,
        mut take: impl FnMut(&[&CabinetFile], &mut dyn Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut wanted: Vec<&CabinetFile> =
            self.files.iter().filter(|file| is_wanted(file)).collect();
        wanted.sort_by_key(|file| (file.folder, file.offset, file.length));
        for wanted in wanted.chunk_by(|a, b| a.folder == b.folder) {
            let folder = wanted
                .first()
                .and_then(|file| self.folders.get(file.folder));
            // There is one of each: the list was read so.
            let Some(folder) = folder else { continue };
            let reserved = self.reserved_in_block;
            let mut content = Blocks::new(&mut self.source, *folder, reserved, &mut self.bytes)?;
            for files in wanted.chunk_by(|a, b| (a.offset, a.length) == (b.offset, b.length)) {
                let [file, ..] = files else { continue };
                let misplaced = |reason| CabinetError::File {
                    name: file.name.clone(),
                    reason,
                };
                let gap = u64::from(file.offset).checked_sub(content.position());
                let gap = gap.ok_or_else(|| misplaced("its content overlaps another's"))?;
                let length = u64::from(file.length);
                // The last byte of a folder may be looked for in vain for long: ask before.
                if gap.saturating_add(length) > content.most_left() {
                    return Err(misplaced("its folder ends before it").into());
                }
                content.pass(gap)?;
                let mut reader = (&mut content).take(length);
                take(files, &mut reader)?;
                let left = reader.limit();
                content.pass(left)?;
            }
        }
        Ok(())
    }
}

/// The next bytes.
fn bytes<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut found = [0; N];
    source.read_exact(&mut found)?;
    Ok(found)
}

fn skip<R: Read + Seek>(source: &mut BufReader<R>, count: u16) -> io::Result<()> {
    // Unlike a seek, it keeps what is buffered.
    source.seek_relative(i64::from(count))
}

/// Bytes up to a zero, of which there are 255 at the most (MS-CAB 2.3).
fn text<R: Read + Seek>(source: &mut BufReader<R>) -> Result<Vec<u8>, CabinetError> {
    let at = source.stream_position()?;
    let mut found = Vec::new();
    source.by_ref().take(256).read_until(0, &mut found)?;
    match found.pop() {
        Some(0) => Ok(found),
        _ => Err(unsound(
            at,
            "a text that ends",
            hex(&found[..found.len().min(16)]),
        )),
    }
}

fn unsound(at: u64, expected: &'static str, found: String) -> CabinetError {
    CabinetError::Unsound {
        at,
        expected,
        found,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Callers pass arrays that have these bytes.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

// Flags of the header (MS-CAB 2.1) and of a file (2.3).
const HAS_PREVIOUS: u16 = 1;
const HAS_NEXT: u16 = 2;
const HAS_RESERVE: u16 = 4;
const NAME_IS_UTF8: u16 = 0x80;

/// Numbers of folders from here on say that a file begins or ends in another cabinet.
const CONTINUED: u16 = 0xFFFD;
