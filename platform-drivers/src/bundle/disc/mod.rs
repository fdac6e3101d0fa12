//! Disc images: the files of an ISO 9660 or UDF volume, as vendors ship drivers on.
//!
//! ```text
//!  sector 16 on --> NSR02 or NSR03? --yes--> UDF ----------------------------+
//!                     | no                                                   v
//!                     +--> Joliet? else Rock Ridge? else plain names --> DiscFile: path, pieces
//! ```
//!
//! A disc with both has UDF read, as Windows does: where the two differ, ISO 9660 has a note that
//! the disc is to be read as UDF. Sectors have 2048 bytes.
//!
//! Every number of an image is somebody else's: what it points to has to lie within the image, no
//! folder is entered twice, and folders, entries and depth are bounded. Content is not looked at
//! until it is [read](DiscFile::content), and one file's may be another's.
//!
//! Not read: sessions other than the first, interleaved files, UDF with metadata, sparable or virtual
//! partitions, streams, and files with more places than fit into their entry.

mod iso9660;
mod udf;

use std::collections::HashSet;
use std::hash::Hash;
use std::io::{self, Read, Seek, SeekFrom};

/// A file on a disc.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DiscFile {
    /// The names of its folders and its own, divided by `/`.
    pub path: String,
    /// Bytes.
    pub length: u64,
    pieces: Vec<Piece>,
}

/// Bytes of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Piece {
    /// On the disc, all of it within the image.
    On { start: u64, length: u64 },
    /// In the entry itself.
    Inline(Vec<u8>),
    /// Zeros that are nowhere.
    Hole { length: u64 },
}

/// Why a disc is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscError {
    /// The image cannot be read.
    #[error("reading the image")]
    Read(#[from] io::Error),
    /// Something on it is not as the format wants it.
    #[error("at byte {at}: expected {expected}, found {found}")]
    Unsound {
        /// Where in the image.
        at: u64,
        /// What the format has there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// An entry that is not taken.
    #[error("the entry {path:?}: {reason}")]
    NotTaken {
        /// Its path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// More than discs have.
    #[error("the disc has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
}

/// Whether an image begins as a disc does.
///
/// # Errors
///
/// It cannot be read.
pub fn is_disc<R: Read + Seek>(image: &mut R) -> io::Result<bool> {
    image.seek(SeekFrom::Start(FIRST_DESCRIPTOR * SECTOR))?;
    let mut begins = Vec::new();
    image.by_ref().take(6).read_to_end(&mut begins)?;
    Ok(matches!(begins.get(1..), Some(b"CD001" | b"BEA01")))
}

/// All files of a disc that has at most `most_entries` files and folders.
///
/// # Errors
///
/// [`DiscError`]
pub fn files<R: Read + Seek>(image: &mut R, most_entries: u64) -> Result<Vec<DiscFile>, DiscError> {
    let length = image.seek(SeekFrom::End(0))?;
    let mut disc = Disc {
        image,
        length,
        entries_left: most_entries,
        most_entries,
        folder_bytes_left: MOST_FOLDER_BYTES,
    };
    let volumes = disc.volumes()?;
    match volumes {
        Volumes { udf: true, .. } => udf::files(&mut disc),
        Volumes { iso, .. } => iso9660::files(&mut disc, &iso),
    }
}

impl DiscFile {
    /// A reader of its content.
    pub fn content<'r, R: Read + Seek>(&'r self, image: &'r mut R) -> DiscContent<'r, R> {
        DiscContent {
            image,
            pieces: &self.pieces,
            done: 0,
            left: self.length,
        }
    }

    /// A file of whole pieces, cut to `length`; `None` if they are shorter.
    fn new(path: String, pieces: Vec<Piece>, length: u64) -> Option<Self> {
        let available = pieces
            .iter()
            .fold(0_u64, |sum, piece| sum.saturating_add(piece.length()));
        (available >= length).then_some(Self {
            path,
            length,
            pieces,
        })
    }
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::On { length, .. } | Self::Hole { length } => *length,
            Self::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// Reads a file of a disc from its beginning.
#[derive(Debug)]
pub struct DiscContent<'r, R> {
    image: &'r mut R,
    pieces: &'r [Piece],
    /// How much of the first piece was read.
    done: u64,
    /// How much of the file was not.
    left: u64,
}

impl<R: Read + Seek> Read for DiscContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some((piece, others)) = self.pieces.split_first() {
            let left = (piece.length() - self.done).min(self.left);
            if left == 0 {
                (self.pieces, self.done) = (others, 0);
                continue;
            }
            let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let buffer = buffer.get_mut(..wanted).unwrap_or_default();
            let read = match piece {
                Piece::On { start, .. } => {
                    self.image.seek(SeekFrom::Start(start + self.done))?;
                    let read = self.image.read(buffer)?;
                    if read == 0 && wanted > 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    read
                }
                Piece::Inline(bytes) => {
                    let rest = usize::try_from(self.done).ok();
                    let rest = rest.and_then(|done| bytes.get(done..));
                    rest.unwrap_or_default().read(buffer)?
                }
                Piece::Hole { .. } => {
                    buffer.fill(0);
                    wanted
                }
            };
            self.done += read as u64;
            self.left -= read as u64;
            return Ok(read);
        }
        Ok(0)
    }
}

/// An image under the limits of one search.
struct Disc<'r, R> {
    image: &'r mut R,
    length: u64,
    entries_left: u64,
    most_entries: u64,
    folder_bytes_left: u64,
}

/// What the sequence of descriptors from sector 16 on has.
struct Volumes {
    udf: bool,
    /// Descriptors of ISO 9660, with their places.
    iso: Vec<(u64, Vec<u8>)>,
}

impl<R: Read + Seek> Disc<'_, R> {
    fn volumes(&mut self) -> Result<Volumes, DiscError> {
        let mut found = Volumes {
            udf: false,
            iso: Vec::new(),
        };
        for sector in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MOST_DESCRIPTORS {
            let at = sector * SECTOR;
            if at + SECTOR > self.length {
                break;
            }
            let descriptor = self.read(at, SECTOR, "a volume descriptor")?;
            match descriptor.get(1..6) {
                Some(b"CD001") => found.iso.push((at, descriptor)),
                Some(b"NSR02" | b"NSR03") => found.udf = true,
                Some(b"BEA01" | b"TEA01" | b"BOOT2") => {}
                _ => break,
            }
        }
        Ok(found)
    }

    /// Bytes of the image. `length` is bounded by the caller.
    fn read(&mut self, at: u64, length: u64, what: &'static str) -> Result<Vec<u8>, DiscError> {
        self.expect_inside(at, length, what)?;
        self.image.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        let read = self.image.by_ref().take(length).read_to_end(&mut bytes)?;
        match read as u64 == length {
            true => Ok(bytes),
            false => Err(DiscError::Read(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn expect_inside(&self, at: u64, length: u64, expected: &'static str) -> Result<(), DiscError> {
        match at.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(DiscError::Unsound {
                at,
                expected,
                found: format!(
                    "{length} bytes that leave the image, which has {}",
                    self.length
                ),
            }),
        }
    }

    /// Content of a folder is about to be read.
    fn pay_folder(&mut self, length: u64) -> Result<(), DiscError> {
        if length > MOST_BYTES_OF_FOLDER {
            return Err(DiscError::TooMuch {
                what: "bytes in a folder",
                limit: MOST_BYTES_OF_FOLDER,
            });
        }
        let left = self.folder_bytes_left.checked_sub(length);
        self.folder_bytes_left = left.ok_or(DiscError::TooMuch {
            what: "bytes of folders",
            limit: MOST_FOLDER_BYTES,
        })?;
        Ok(())
    }

    fn pay_entry(&mut self) -> Result<(), DiscError> {
        let left = self.entries_left.checked_sub(1);
        self.entries_left = left.ok_or(DiscError::TooMuch {
            what: "entries",
            limit: self.most_entries,
        })?;
        Ok(())
    }
}

/// Folders that are still to be read, each once.
struct Folders<K> {
    waiting: Vec<(String, K)>,
    seen: HashSet<K>,
}

impl<K: Copy + Eq + Hash> Folders<K> {
    fn of(root: K) -> Self {
        Self {
            waiting: vec![(String::new(), root)],
            seen: HashSet::from([root]),
        }
    }

    fn add(&mut self, path: String, place: K) -> Result<(), DiscError> {
        let reason = if !self.seen.insert(place) {
            "the folder is in itself, or in two folders"
        } else if path.split('/').count() > DEEPEST {
            "the folder is too deep"
        } else {
            self.waiting.push((path, place));
            return Ok(());
        };
        Err(DiscError::NotTaken { path, reason })
    }
}

/// The path of an entry in a folder. A name that would be a path is none.
fn below(folder: &str, name: &str) -> Result<String, DiscError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Err(DiscError::NotTaken {
            path: format!("{folder}/{name}"),
            reason: "it is no name",
        });
    }
    Ok(match folder {
        "" => name.to_owned(),
        _ => format!("{folder}/{name}"),
    })
}

/// `N` bytes at `at`, zeros beyond the end. Callers have seen to it that there is none of that.
fn bytes_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(bytes, at))
}

/// UTF-16, the high byte first, as both formats have it. What is no text becomes a mark.
fn utf16_be(bytes: &[u8]) -> String {
    let units = bytes
        .as_chunks()
        .0
        .iter()
        .map(|pair| u16::from_be_bytes(*pair));
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

const SECTOR: u64 = 2048;
const FIRST_DESCRIPTOR: u64 = 16;
/// Discs have four or five.
const MOST_DESCRIPTORS: u64 = 64;
/// 100,000 entries with names of 64 characters.
const MOST_BYTES_OF_FOLDER: u64 = 16 << 20;
/// The folders of a disc with 50,000 files have some 10 MiB.
const MOST_FOLDER_BYTES: u64 = 256 << 20;
const DEEPEST: usize = 32;
