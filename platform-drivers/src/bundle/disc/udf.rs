//! UDF (ECMA-167 with the limits of OSTA UDF 1.02 to 2.01) on one partition.
//!
//! ```text
//!  sector 256 --> anchor --> partition, logical volume --> file set --> root folder
//!                                                                          |
//!       pieces <-- file entry <-- address <-- file identifier <--- content +
//! ```

use std::io::{Read, Seek};

use super::{
    Disc, DiscError, DiscFile, Folders, Piece, SECTOR, below, u16_at, u32_at, u64_at, utf16_be,
};

/// All files of the volume.
pub(super) fn files<R: Read + Seek>(disc: &mut Disc<'_, R>) -> Result<Vec<DiscFile>, DiscError> {
    let volume = Volume::find(disc)?;
    let file_set = volume.read_block(disc, volume.file_set, Tag::FileSet)?;
    let root = Address::read(&file_set, 400);
    let mut folders = Folders::of(root);
    let mut files = Vec::new();
    while let Some((path, address)) = folders.waiting.pop() {
        let entry = volume.entry(disc, address, &path)?;
        if entry.kind != FOLDER {
            let reason = "a folder was expected";
            return Err(DiscError::NotTaken { path, reason });
        }
        disc.pay_folder(entry.file.length)?;
        let mut content = Vec::new();
        entry.file.content(disc.image).read_to_end(&mut content)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let at = (content.len() - rest.len()) as u64;
            let found = Identifier::read(rest, at)?;
            rest = rest.get(found.length..).unwrap_or_default();
            // Deleted, or the folder above.
            if found.flags & 0xC != 0 {
                continue;
            }
            disc.pay_entry()?;
            let below = below(&path, &found.name)?;
            if found.flags & 2 != 0 {
                folders.add(below, found.address)?;
                continue;
            }
            let entry = volume.entry(disc, found.address, &below)?;
            match entry.kind {
                FILE => files.push(entry.file),
                LINK => {
                    let reason = "links are not taken";
                    return Err(DiscError::NotTaken {
                        path: below,
                        reason,
                    });
                }
                _ => {
                    let reason = "only files and folders are taken";
                    return Err(DiscError::NotTaken {
                        path: below,
                        reason,
                    });
                }
            }
        }
    }
    Ok(files)
}

/// A block of a partition: `long_ad` without its length (ECMA-167 4/14.14.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Address {
    block: u32,
    partition: u16,
}

impl Address {
    fn read(bytes: &[u8], at: usize) -> Self {
        Self {
            block: u32_at(bytes, at + 4),
            partition: u16_at(bytes, at + 8),
        }
    }
}

/// What a descriptor is (ECMA-167 3/7.2.1, 4/7.2.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
enum Tag {
    Anchor = 2,
    Partition = 5,
    LogicalVolume = 6,
    Terminator = 8,
    FileSet = 256,
    FileIdentifier = 257,
    FileEntry = 261,
    ExtendedFileEntry = 266,
}

/// Whether a descriptor begins here, of this kind and as it was written.
fn is(tag: Tag, bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return false;
    };
    let sum = head.iter().enumerate().filter(|(at, _)| *at != 4);
    let sum = sum.fold(0_u8, |sum, (_, byte)| sum.wrapping_add(*byte));
    let body = rest.get(..usize::from(u16_at(head, 10)));
    u16_at(head, 0) == tag as u16
        && head[4] == sum
        && body.is_some_and(|body| crc(body) == u16_at(head, 8))
}

fn expect(tag: Tag, bytes: &[u8], at: u64) -> Result<(), DiscError> {
    let expected = match tag {
        Tag::Anchor => "an anchor of a volume",
        Tag::Partition => "a partition descriptor",
        Tag::LogicalVolume => "a logical volume descriptor",
        Tag::Terminator => "the end of the volume's descriptors",
        Tag::FileSet => "a file set descriptor",
        Tag::FileIdentifier => "a file identifier",
        Tag::FileEntry | Tag::ExtendedFileEntry => "a file entry",
    };
    match is(tag, bytes) {
        true => Ok(()),
        false => Err(DiscError::Unsound {
            at,
            expected,
            found: format!("a descriptor {} or a damaged one", u16_at(bytes, 0)),
        }),
    }
}

struct Volume {
    /// First byte and length of the partitions, as the logical volume numbers them.
    partitions: Vec<(u64, u64)>,
    file_set: Address,
}

impl Volume {
    fn find<R: Read + Seek>(disc: &mut Disc<'_, R>) -> Result<Self, DiscError> {
        let last = (disc.length / SECTOR).saturating_sub(1);
        let mut places = [ANCHOR, last, last.saturating_sub(ANCHOR)].into_iter();
        let anchor = loop {
            let Some(sector) = places.next() else {
                return Err(DiscError::Unsound {
                    at: ANCHOR * SECTOR,
                    expected: "an anchor of a volume",
                    found: "none here or at the end".to_owned(),
                });
            };
            let at = sector * SECTOR;
            if at + SECTOR <= disc.length {
                let bytes = disc.read(at, SECTOR, "an anchor")?;
                if is(Tag::Anchor, &bytes) {
                    break bytes;
                }
            }
        };
        // The second sequence is a copy of the first one.
        Self::of_sequence(disc, u32_at(&anchor, 20), u32_at(&anchor, 16))
            .or_else(|_| Self::of_sequence(disc, u32_at(&anchor, 28), u32_at(&anchor, 24)))
    }

    fn of_sequence<R: Read + Seek>(
        disc: &mut Disc<'_, R>,
        first: u32,
        length: u32,
    ) -> Result<Self, DiscError> {
        let start = u64::from(first) * SECTOR;
        let sectors = (u64::from(length) / SECTOR).min(MOST_DESCRIPTORS);
        let mut partitions = Vec::new();
        let mut volume = None;
        for at in (0..sectors).map(|sector| start + sector * SECTOR) {
            let bytes = disc.read(at, SECTOR, "the volume's descriptors")?;
            if is(Tag::Partition, &bytes) {
                let length = u64::from(u32_at(&bytes, 192)) * SECTOR;
                let start = u64::from(u32_at(&bytes, 188)) * SECTOR;
                partitions.push((u16_at(&bytes, 22), (start, length)));
            } else if is(Tag::LogicalVolume, &bytes) {
                volume = Some((at, bytes));
            } else if is(Tag::Terminator, &bytes) {
                break;
            }
        }
        let Some((at, volume)) = volume else {
            return Err(DiscError::Unsound {
                at: start,
                expected: "a logical volume descriptor",
                found: format!("none in {sectors} sectors"),
            });
        };
        let block = u32_at(&volume, 212);
        if u64::from(block) != SECTOR {
            return Err(DiscError::Unsound {
                at: at + 212,
                expected: "blocks of 2048 bytes",
                found: block.to_string(),
            });
        }
        let mut numbered = Vec::new();
        let mut map = volume.get(440..).unwrap_or_default();
        for _ in 0..u32_at(&volume, 268).min(MOST_PARTITIONS) {
            let [1, 6, _, _, low, high, ..] = *map else {
                return Err(DiscError::Unsound {
                    at: at + 440,
                    expected: "maps of plain partitions",
                    found: format!("one of type {}", map.first().copied().unwrap_or(0)),
                });
            };
            let number = u16::from_le_bytes([low, high]);
            let mut known = partitions.iter();
            let Some((_, extent)) = known.find(|(other, _)| *other == number) else {
                return Err(DiscError::Unsound {
                    at,
                    expected: "a descriptor of each partition",
                    found: format!("none of partition {number}"),
                });
            };
            numbered.push(*extent);
            map = map.get(6..).unwrap_or_default();
        }
        Ok(Self {
            partitions: numbered,
            file_set: Address::read(&volume, 248),
        })
    }

    /// Where in the image `length` bytes from a block on are.
    fn place<R: Read + Seek>(
        &self,
        disc: &Disc<'_, R>,
        address: Address,
        length: u64,
    ) -> Result<u64, DiscError> {
        let offset = u64::from(address.block) * SECTOR;
        let partition = self.partitions.get(usize::from(address.partition));
        let (start, size) = partition.copied().unwrap_or((0, 0));
        let at = start + offset;
        if offset.saturating_add(length) > size {
            return Err(DiscError::Unsound {
                at,
                expected: "an address in a partition",
                found: format!(
                    "block {} of partition {}, which has {size} bytes",
                    address.block, address.partition
                ),
            });
        }
        disc.expect_inside(at, length, "what an address names")?;
        Ok(at)
    }

    fn read_block<R: Read + Seek>(
        &self,
        disc: &mut Disc<'_, R>,
        address: Address,
        tag: Tag,
    ) -> Result<Vec<u8>, DiscError> {
        let at = self.place(disc, address, SECTOR)?;
        let bytes = disc.read(at, SECTOR, "a descriptor")?;
        // Either kind of entry will do.
        if tag != Tag::FileEntry || !is(Tag::ExtendedFileEntry, &bytes) {
            expect(tag, &bytes, at)?;
        }
        Ok(bytes)
    }

    /// A file entry (ECMA-167 4/14.9, 4/14.17).
    fn entry<R: Read + Seek>(
        &self,
        disc: &mut Disc<'_, R>,
        address: Address,
        path: &str,
    ) -> Result<Entry, DiscError> {
        let bytes = self.read_block(disc, address, Tag::FileEntry)?;
        let (attributes, descriptors) = match is(Tag::FileEntry, &bytes) {
            true => (168, 176),
            false => (208, 216),
        };
        let refused = |reason| DiscError::NotTaken {
            path: path.to_owned(),
            reason,
        };
        let start = u64::from(u32_at(&bytes, attributes)) + descriptors;
        let end = start + u64::from(u32_at(&bytes, attributes + 4));
        let area = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let area = area.and_then(|(start, end)| bytes.get(start..end));
        let area = area.ok_or_else(|| refused("its entry is longer than a block"))?;
        let length = u64_at(&bytes, 56);
        let pieces = match u16_at(&bytes, 34) & 7 {
            0 => self.pieces(disc, area.as_chunks::<8>().0, |place| Address {
                block: u32_at(place, 4),
                partition: address.partition,
            }),
            1 => self.pieces(disc, area.as_chunks::<16>().0, |place| {
                Address::read(place, 0)
            }),
            3 => Ok(Some(vec![Piece::Inline(area.to_vec())])),
            _ => Ok(None),
        };
        let pieces =
            pieces?.ok_or_else(|| refused("its place is written in a way that is not read"))?;
        let file = DiscFile::new(path.to_owned(), pieces, length);
        Ok(Entry {
            kind: bytes.get(27).copied().unwrap_or(0),
            file: file.ok_or_else(|| refused("it is longer than its pieces"))?,
        })
    }

    /// The pieces that allocation descriptors name (ECMA-167 4/14.14.1); `None` if they go on
    /// elsewhere.
    fn pieces<R: Read + Seek, const N: usize>(
        &self,
        disc: &Disc<'_, R>,
        places: &[[u8; N]],
        address: impl Fn(&[u8]) -> Address,
    ) -> Result<Option<Vec<Piece>>, DiscError> {
        let mut pieces = Vec::new();
        for place in places {
            let word = u32_at(place, 0);
            let length = u64::from(word & 0x3FFF_FFFF);
            if length == 0 {
                break;
            }
            pieces.push(match word >> 30 {
                0 => Piece::On {
                    start: self.place(disc, address(place), length)?,
                    length,
                },
                1 | 2 => Piece::Hole { length },
                _ => return Ok(None),
            });
        }
        Ok(Some(pieces))
    }
}

struct Entry {
    /// The file type of its ICB tag (ECMA-167 4/14.6.6).
    kind: u8,
    file: DiscFile,
}

/// A file identifier descriptor (ECMA-167 4/14.4).
struct Identifier {
    flags: u8,
    address: Address,
    name: String,
    /// Bytes up to the next one.
    length: usize,
}

impl Identifier {
    /// `at` is its place in the content of its folder.
    fn read(bytes: &[u8], at: u64) -> Result<Self, DiscError> {
        expect(Tag::FileIdentifier, bytes, at)?;
        let name_length = bytes.get(19).copied().map_or(0, usize::from);
        let name_start = 38 + usize::from(u16_at(bytes, 36));
        let Some(name) = bytes.get(name_start..name_start + name_length) else {
            return Err(DiscError::Unsound {
                at,
                expected: "a file identifier that ends in its folder",
                found: format!("{} bytes", name_start + name_length),
            });
        };
        Ok(Self {
            flags: bytes.get(18).copied().unwrap_or(0),
            address: Address::read(bytes, 20),
            // Compressed Unicode (UDF 2.1.1): a byte for each character, or two.
            name: match name.split_first() {
                Some((8, characters)) => characters.iter().copied().map(char::from).collect(),
                Some((16, units)) => utf16_be(units),
                _ => String::new(),
            },
            length: (name_start + name_length).next_multiple_of(4),
        })
    }
}

/// CRC-ITU-T, as ECMA-167 3/7.2.6 has it.
fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let next = crc << 1;
            if crc & 0x8000 == 0 {
                next
            } else {
                next ^ 0x1021
            }
        })
    })
}

const ANCHOR: u64 = 256;
const MOST_DESCRIPTORS: u64 = 64;
const MOST_PARTITIONS: u32 = 4;

const FOLDER: u8 = 4;
const FILE: u8 = 5;
const LINK: u8 = 12;
