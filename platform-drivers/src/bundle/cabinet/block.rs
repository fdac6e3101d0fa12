//! The content of a folder: its blocks (MS-CAB 2.4), one after the other.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use flate2::{Decompress, FlushDecompress};
use lzxd::{Lzxd, WindowSize};

use super::{Budget, CabinetError, Folder, bytes, u16_at, u32_at, unsound};

/// Reads a folder from its beginning.
pub(super) struct Blocks<'s, R> {
    source: &'s mut BufReader<R>,
    /// Where the next block begins.
    next: u64,
    left: u16,
    reserved: u8,
    budget: &'s mut Budget,
    method: Method,
    /// The content of the current block, and how much of it was read.
    block: Vec<u8>,
    done: usize,
    /// Where in the folder the current block begins.
    start: u64,
}

enum Method {
    Stored,
    /// MSZIP (MS-MCI), with what the next block may refer to.
    Zip {
        inflate: Decompress,
        history: Vec<u8>,
    },
    /// LZX (MS-PATCH)
    Lzx(Box<Lzxd>),
}

impl Method {
    fn of(folder: Folder) -> Result<Self, CabinetError> {
        let window = folder.compression >> 8 & 0x1F;
        Ok(match (folder.compression & 0xF, window) {
            (0, _) => Self::Stored,
            (1, _) => Self::Zip {
                inflate: Decompress::new(false),
                history: Vec::new(),
            },
            (3, 15..=21) => Self::Lzx(Box::new(Lzxd::new(match window {
                15 => WindowSize::KB32,
                16 => WindowSize::KB64,
                17 => WindowSize::KB128,
                18 => WindowSize::KB256,
                19 => WindowSize::KB512,
                20 => WindowSize::MB1,
                _ => WindowSize::MB2,
            }))),
            _ => {
                let at = u64::from(folder.first_block);
                let expected = "a folder that is stored or compressed by MSZIP or LZX";
                let found = format!("type {:#06x}", folder.compression);
                return Err(unsound(at, expected, found));
            }
        })
    }

    /// The content of a block, or what is wrong with it.
    fn content(&mut self, packed: Vec<u8>, length: usize) -> Result<Vec<u8>, String> {
        match self {
            Self::Stored if packed.len() == length => Ok(packed),
            Self::Stored => Err(format!("{} bytes for {length}", packed.len())),
            Self::Zip { inflate, history } => {
                let found = inflated(inflate, history, &packed, length)?;
                history.extend_from_slice(&found);
                let old = history.len().saturating_sub(MOST_IN_BLOCK);
                history.drain(..old);
                Ok(found)
            }
            Self::Lzx(decoder) => {
                let found = decoder.decompress_next(&packed, length);
                found.map(<[u8]>::to_vec).map_err(|error| error.to_string())
            }
        }
    }
}

/// Each block is a stream of its own that refers to what was before it. No inflater can be given a past
/// by all of its back ends, but each has one after a stored block.
fn inflated(
    inflate: &mut Decompress,
    history: &[u8],
    packed: &[u8],
    length: usize,
) -> Result<Vec<u8>, String> {
    let Some(packed) = packed.strip_prefix(b"CK") else {
        return Err("no signature CK".to_owned());
    };
    inflate.reset(false);
    let mut found = Vec::with_capacity(MOST_IN_BLOCK);
    let past = u16::try_from(history.len()).map_err(|error| error.to_string())?;
    if past > 0 {
        let [low, high] = past.to_le_bytes();
        let mut stored = vec![0, low, high, !low, !high];
        stored.extend_from_slice(history);
        inflate
            .decompress_vec(&stored, &mut found, FlushDecompress::Sync)
            .map_err(|error| error.to_string())?;
        found.clear();
    }
    inflate
        .decompress_vec(packed, &mut found, FlushDecompress::Finish)
        .map_err(|error| error.to_string())?;
    match found.len() == length {
        true => Ok(found),
        false => Err(format!("{} bytes instead of {length}", found.len())),
    }
}

impl<'s, R: Read + Seek> Blocks<'s, R> {
    pub(super) fn new(
        source: &'s mut BufReader<R>,
        folder: Folder,
        reserved: u8,
        budget: &'s mut Budget,
    ) -> Result<Self, CabinetError> {
        Ok(Self {
            source,
            next: u64::from(folder.first_block),
            left: folder.blocks,
            reserved,
            budget,
            method: Method::of(folder)?,
            block: Vec::new(),
            done: 0,
            start: 0,
        })
    }

    /// How many bytes of the folder were read.
    pub(super) fn position(&self) -> u64 {
        self.start + self.done as u64
    }

    /// How many bytes may still come.
    pub(super) fn most_left(&self) -> u64 {
        let here = (self.block.len() - self.done) as u64;
        here + u64::from(self.left) * MOST_IN_BLOCK as u64
    }

    /// Passes over so many bytes.
    pub(super) fn pass(&mut self, count: u64) -> Result<(), CabinetError> {
        let passed = io::copy(&mut self.by_ref().take(count), &mut io::sink())?;
        match passed == count {
            true => Ok(()),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    fn read_block(&mut self) -> Result<(), CabinetError> {
        let at = self.next;
        // A seek forgets what is buffered, and the next block mostly follows.
        if self.source.stream_position()? != at {
            self.source.seek(SeekFrom::Start(at))?;
        }
        let head: [u8; 8] = bytes(self.source)?;
        let mut reserve = Vec::new();
        let reserved = u64::from(self.reserved);
        self.source
            .by_ref()
            .take(reserved)
            .read_to_end(&mut reserve)?;
        let (packed_length, length) = (u16_at(&head, 4), u16_at(&head, 6));
        if length == 0 || usize::from(length) > MOST_IN_BLOCK {
            let expected = "a block with content of up to 32 KiB";
            return Err(unsound(at + 6, expected, format!("{length} bytes")));
        }
        self.budget.spend(u64::from(length))?;
        let mut packed = Vec::new();
        let wanted = u64::from(packed_length);
        self.source.by_ref().take(wanted).read_to_end(&mut packed)?;
        if packed.len() as u64 != wanted || reserve.len() as u64 != reserved {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let sum = checksum(&head[4..], checksum(&reserve, checksum(&packed, 0)));
        // Zero: the writer did not compute it.
        let told = u32_at(&head, 0);
        if told != 0 && told != sum {
            let found = format!("{told:#010x}, while it is {sum:#010x}");
            return Err(unsound(at, "the checksum of the block", found));
        }
        self.start += self.block.len() as u64;
        self.done = 0;
        self.block = self
            .method
            .content(packed, usize::from(length))
            .map_err(|found| unsound(at, "a block that can be unpacked", found))?;
        self.next = at + 8 + reserved + wanted;
        self.left -= 1;
        Ok(())
    }
}

impl<R: Read + Seek> Read for Blocks<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.done == self.block.len() {
            if self.left == 0 || buffer.is_empty() {
                return Ok(0);
            }
            self.read_block().map_err(io::Error::other)?;
        }
        let read = self
            .block
            .get(self.done..)
            .unwrap_or_default()
            .read(buffer)?;
        self.done += read;
        Ok(read)
    }
}

/// MS-CAB 3.1: words of four bytes, and what is left over the other way round.
fn checksum(bytes: &[u8], seed: u32) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let sum = words
        .iter()
        .fold(seed, |sum, word| sum ^ u32::from_le_bytes(*word));
    sum ^ rest
        .iter()
        .fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// Bytes of content.
const MOST_IN_BLOCK: usize = 32 << 10;
