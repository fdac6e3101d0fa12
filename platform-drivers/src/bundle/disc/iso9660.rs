//! ISO 9660 (ECMA-119), with the names of Joliet or Rock Ridge (IEEE P1282) where it has them.

use std::io::{Read, Seek};

use super::{
    Disc, DiscError, DiscFile, FIRST_DESCRIPTOR, Folders, Piece, SECTOR, below, bytes_at, u16_at,
    u32_at, utf16_be,
};

/// All files of the best of the volumes that `descriptors` describe.
pub(super) fn files<R: Read + Seek>(
    disc: &mut Disc<'_, R>,
    descriptors: &[(u64, Vec<u8>)],
) -> Result<Vec<DiscFile>, DiscError> {
    let of_type = |kind: u8| {
        let mut all = descriptors.iter();
        all.find(move |(_, descriptor)| {
            let is_joliet = matches!(
                bytes_at(descriptor, ESCAPES),
                [b'%', b'/', b'@' | b'C' | b'E']
            );
            descriptor.first() == Some(&kind) && (kind != SUPPLEMENTARY || is_joliet)
        })
    };
    let joliet = of_type(SUPPLEMENTARY);
    let Some((at, descriptor)) = joliet.or_else(|| of_type(PRIMARY)) else {
        return Err(DiscError::Unsound {
            at: FIRST_DESCRIPTOR * SECTOR,
            expected: "a primary volume descriptor",
            found: format!("{} others", descriptors.len()),
        });
    };
    let block = u16_at(descriptor, BLOCK_SIZE);
    if u64::from(block) != SECTOR {
        return Err(DiscError::Unsound {
            at: at + BLOCK_SIZE as u64,
            expected: "blocks of 2048 bytes",
            found: format!("{block}"),
        });
    }
    let root = Record::read(descriptor.get(ROOT..).unwrap_or_default(), at + ROOT as u64)?;
    let mut walk = Walk {
        disc,
        names: match joliet {
            Some(_) => Names::Joliet,
            None => Names::Plain,
        },
        folders: Folders::of(root.place),
        files: Vec::new(),
    };
    walk.find_rock_ridge(root.place)?;
    while let Some((path, place)) = walk.folders.waiting.pop() {
        walk.folder(&path, place)?;
    }
    Ok(walk.files)
}

/// How names are written.
#[derive(Clone, Copy)]
enum Names {
    Plain,
    Joliet,
    /// In the system use areas, of which so many bytes at the beginning are another's.
    RockRidge(usize),
}

/// Where a file or folder is: its first block, and its length in bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Place {
    block: u32,
    length: u32,
}

impl Place {
    fn start(self) -> u64 {
        u64::from(self.block) * SECTOR
    }
}

/// A directory record (ECMA-119 9.1).
struct Record<'b> {
    at: u64,
    place: Place,
    flags: u8,
    is_interleaved: bool,
    name: &'b [u8],
    system_use: &'b [u8],
}

impl<'b> Record<'b> {
    fn read(bytes: &'b [u8], at: u64) -> Result<Self, DiscError> {
        let length = bytes.first().copied().map_or(0, usize::from);
        let record = bytes.get(..length).unwrap_or_default();
        let name_length = record.get(32).copied().map_or(0, usize::from);
        let Some(name) = record
            .get(33..33 + name_length)
            .filter(|name| !name.is_empty())
        else {
            return Err(DiscError::Unsound {
                at,
                expected: "a directory record",
                found: format!("{length} bytes for it, {name_length} for its name"),
            });
        };
        // With a name in it, the record has 34 bytes at the least.
        // A pad byte follows a name of even length.
        let system_use = 33 + name_length + usize::from(name_length.is_multiple_of(2));
        Ok(Self {
            at,
            place: Place {
                // A record of extended attributes stands before the content.
                block: u32_at(record, 2).saturating_add(u32::from(record[1])),
                length: u32_at(record, 10),
            },
            flags: record[25],
            is_interleaved: record[26] != 0 || record[27] != 0,
            name,
            system_use: record.get(system_use..).unwrap_or_default(),
        })
    }

    fn is_folder(&self) -> bool {
        self.flags & 2 != 0
    }

    /// It belongs to another file, as resource forks do.
    fn is_associated(&self) -> bool {
        self.flags & 4 != 0
    }

    fn goes_on(&self) -> bool {
        self.flags & 0x80 != 0
    }
}

struct Walk<'w, 'r, R> {
    disc: &'w mut Disc<'r, R>,
    names: Names,
    folders: Folders<Place>,
    files: Vec<DiscFile>,
}

impl<R: Read + Seek> Walk<'_, '_, R> {
    /// Rock Ridge begins with a mark in the root's record of itself (SUSP 5.3).
    fn find_rock_ridge(&mut self, root: Place) -> Result<(), DiscError> {
        if matches!(self.names, Names::Joliet) {
            return Ok(());
        }
        let sector = self.disc.read(root.start(), SECTOR, "the root folder")?;
        let itself = Record::read(&sector, root.start())?;
        if let [b'S', b'P', 7, 1, 0xBE, 0xEF, skipped] = bytes_at(itself.system_use, 0) {
            self.names = Names::RockRidge(usize::from(skipped));
        }
        Ok(())
    }

    fn folder(&mut self, path: &str, place: Place) -> Result<(), DiscError> {
        self.disc.pay_folder(u64::from(place.length))?;
        let content = self
            .disc
            .read(place.start(), u64::from(place.length), "a folder")?;
        // What there is of a file that goes on in the next record.
        let mut begun: Option<(String, Vec<Piece>)> = None;
        for (sector, at) in content
            .chunks(SECTOR as usize)
            .zip((place.start()..).step_by(2048))
        {
            let mut offset = 0;
            // Records don't cross sectors; zeros fill what is left of one.
            while let Some(rest) = sector
                .get(offset..)
                .filter(|rest| !matches!(rest, [] | [0, ..]))
            {
                let record = Record::read(rest, at + offset as u64)?;
                offset += usize::from(rest[0]);
                if matches!(record.name, [0] | [1]) || record.is_associated() {
                    continue;
                }
                self.disc.pay_entry()?;
                let Some(name) = self.name(path, &record)? else {
                    continue;
                };
                let entry = below(path, &name)?;
                if record.is_folder() {
                    self.folders.add(entry, record.place)?;
                    continue;
                }
                if record.is_interleaved {
                    let reason = "interleaved files are not taken";
                    return Err(DiscError::NotTaken {
                        path: entry,
                        reason,
                    });
                }
                let (start, length) = (record.place.start(), u64::from(record.place.length));
                self.disc.expect_inside(start, length, "a file")?;
                let mut pieces = match begun.take() {
                    Some((other, pieces)) if other == entry => pieces,
                    Some((path, _)) => return Err(cut_short(path)),
                    None => Vec::new(),
                };
                pieces.push(Piece::On { start, length });
                if record.goes_on() {
                    begun = Some((entry, pieces));
                    continue;
                }
                let length = pieces.iter().map(Piece::length).sum();
                self.files.extend(DiscFile::new(entry, pieces, length));
            }
        }
        match begun {
            Some((path, _)) => Err(cut_short(path)),
            None => Ok(()),
        }
    }

    /// The name of an entry, or nothing for a mark that has content elsewhere.
    fn name(&mut self, folder: &str, record: &Record<'_>) -> Result<Option<String>, DiscError> {
        let name = match self.names {
            Names::Joliet => without_version(&utf16_be(record.name)).to_owned(),
            Names::Plain => plain_name(record.name),
            Names::RockRidge(skipped) => {
                let area = record.system_use.get(skipped..).unwrap_or_default();
                let plain = plain_name(record.name);
                let found = self.rock_ridge(area, record.at)?;
                if found.is_link {
                    let path = format!("{folder}/{plain}");
                    let reason = "links are not taken";
                    return Err(DiscError::NotTaken { path, reason });
                }
                if found.is_elsewhere {
                    return Ok(None);
                }
                match found.name.is_empty() {
                    true => plain,
                    false => String::from_utf8_lossy(&found.name).into_owned(),
                }
            }
        };
        Ok(Some(name))
    }

    fn rock_ridge(&mut self, area: &[u8], at: u64) -> Result<RockRidge, DiscError> {
        let mut found = RockRidge::default();
        let mut area = area.to_vec();
        for _ in 0..MOST_CONTINUATIONS {
            let next = found.read(&area);
            let Some((block, offset, length)) = next else {
                return Ok(found);
            };
            let start = u64::from(block) * SECTOR + u64::from(offset);
            let length = u64::from(length).min(SECTOR);
            area = self.disc.read(start, length, "the rest of an entry")?;
        }
        Err(DiscError::Unsound {
            at,
            expected: "an entry that comes to an end",
            found: format!("more than {MOST_CONTINUATIONS} places where it goes on"),
        })
    }
}

/// What the system use area of a record says.
#[derive(Default)]
struct RockRidge {
    name: Vec<u8>,
    is_link: bool,
    /// A folder that was moved, as it was too deep; it is there under another name.
    is_elsewhere: bool,
}

impl RockRidge {
    /// Reads fields. Gives where more of them are: block, offset in it, length.
    fn read(&mut self, area: &[u8]) -> Option<(u32, u32, u32)> {
        let mut next = None;
        let mut rest = area;
        while let [first, second, length, _, ..] = *rest {
            let Some(field) = rest.get(4..usize::from(length)) else {
                break;
            };
            match [first, second] {
                // Flags: the name goes on, it is the folder itself, it is the one above.
                [b'N', b'M'] if field.first().is_some_and(|flags| flags & 6 == 0) => {
                    self.name.extend_from_slice(&field[1..]);
                }
                [b'S', b'L'] => self.is_link = true,
                [b'C', b'L'] => self.is_elsewhere = true,
                [b'C', b'E'] if field.len() >= 24 => {
                    next = Some((u32_at(field, 0), u32_at(field, 8), u32_at(field, 16)));
                }
                [b'S', b'T'] => return None,
                _ => {}
            }
            rest = rest.get(usize::from(length)..).unwrap_or_default();
        }
        next
    }
}

fn plain_name(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    without_version(&name).trim_end_matches('.').to_owned()
}

/// Without `;1` at its end.
fn without_version(name: &str) -> &str {
    match name.rsplit_once(';') {
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

fn cut_short(path: String) -> DiscError {
    let reason = "the rest of it is missing";
    DiscError::NotTaken { path, reason }
}

// Volume descriptors (ECMA-119 8.4, 8.5).
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const ESCAPES: usize = 88;
const BLOCK_SIZE: usize = 128;
const ROOT: usize = 156;

/// A name of 255 bytes and all else takes one.
const MOST_CONTINUATIONS: usize = 8;
