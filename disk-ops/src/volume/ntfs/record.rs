//! Everything that the records of one file say: its attributes, whole, wherever they lie.
//!
//! ```text
//!  base record --> $ATTRIBUTE_LIST? --> the other records of the file
//!       \                                   /
//!        attributes, those in several pieces joined by their first clusters
//! ```
//!
//! Records are read here and not by the parser: that one takes a record for contiguous, which it
//! need not be where clusters are smaller than records; knows of the master file table only what
//! its first record says; and hides the fields that content cannot be read without (initialized
//! length, compression unit, first cluster of a piece).

use std::collections::{BTreeSet, HashMap};

use super::fields::{Fields, undo_update_sequence};
use super::geometry::Geometry;
use super::meta::FileId;
use super::runs::{self, Run};
use super::stream::{Encoding, Place, Stream};

/// The attributes of a file.
#[derive(Debug)]
pub(in crate::volume) struct FileRecord {
    pub id: FileId,
    pub is_folder: bool,
    pub attributes: Vec<Attribute>,
}

/// An attribute of a file.
#[derive(Debug)]
pub(in crate::volume) struct Attribute {
    /// Its type, such as 0x80 for `$DATA`.
    pub kind: u32,
    pub name: String,
    pub stream: Stream,
}

impl FileRecord {
    /// The first attribute of a type and name.
    pub fn attribute(&self, kind: u32, name: &str) -> Option<&Attribute> {
        let mut matching = self.all(kind);
        matching.find(|attribute| attribute.name == name)
    }

    /// All attributes of a type.
    pub fn all(&self, kind: u32) -> impl Iterator<Item = &Attribute> {
        let attributes = self.attributes.iter();
        attributes.filter(move |attribute| attribute.kind == kind)
    }

    /// The value of the first unnamed attribute of a type, which is resident.
    pub fn resident(&self, kind: u32) -> Option<&[u8]> {
        match &self.attribute(kind, "")?.stream.place {
            Place::Resident(value) => Some(value),
            Place::Clusters { .. } => None,
        }
    }
}

/// One record as it was read, before the attributes are put together.
#[derive(Debug)]
pub(super) struct RawRecord {
    pub id: FileId,
    pub is_in_use: bool,
    pub is_folder: bool,
    /// Which file's record it is a continuation of; 0 of a base record.
    pub base: u64,
    bytes: Vec<u8>,
    /// Where its attributes begin, and how long they are.
    attributes: Vec<(usize, usize)>,
}

impl RawRecord {
    /// Reads the record `number` from its `bytes`.
    pub fn parse(number: u64, mut bytes: Vec<u8>) -> Result<Self, String> {
        if !bytes.starts_with(b"FILE") {
            let found = bytes.get(..4).unwrap_or_default().escape_ascii();
            return Err(format!("begins with \"{found}\", expected \"FILE\""));
        }
        if undo_update_sequence(&mut bytes).is_none() {
            return Err("was torn: its update sequence does not fit its blocks".to_owned());
        }
        let fields = Fields(&bytes);
        // The record has at least 1024 bytes, and these fields lie in the first 48.
        let u16 = |at| fields.u16(at).unwrap_or_default();
        let used = fields.u32(24).unwrap_or_default() as usize;
        let mut attributes = Vec::new();
        let mut at = usize::from(u16(20));
        loop {
            let kind = fields.u32(at).filter(|_| at < used && used <= bytes.len());
            let kind =
                kind.ok_or_else(|| format!("attributes reach {at:#x} of {used:#x} bytes"))?;
            if kind == END {
                break;
            }
            let length = fields.u32(at + 4).unwrap_or_default() as usize;
            if length < SHORTEST_ATTRIBUTE || fields.slice(at, length).is_none() {
                return Err(format!("attribute at {at:#x} is {length} bytes long"));
            }
            attributes.push((at, length));
            at += length;
        }
        Ok(Self {
            id: FileId {
                record: number,
                sequence: u16(16),
            },
            is_in_use: u16(22) & IN_USE != 0,
            is_folder: u16(22) & FOLDER != 0,
            base: fields.u64(32).unwrap_or_default(),
            bytes,
            attributes,
        })
    }

    /// The first piece of an attribute of this record, as far as it goes.
    pub fn beginning(&self, kind: u32, geometry: &Geometry) -> Result<Option<Stream>, String> {
        let pieces = self.pieces(geometry)?.into_iter();
        let mut wanted = pieces.filter(|piece| piece.kind == kind && piece.name.is_empty());
        Ok(wanted.find(|piece| piece.first == 0).map(|piece| {
            let covered = match piece.body {
                Body::Clusters { covered, .. } => covered.checked_mul(geometry.cluster_size.into()),
                Body::Resident(_) => None,
            };
            let mut stream = piece.into_attribute().stream;
            stream.size = stream.size.min(covered.unwrap_or(u64::MAX));
            stream
        }))
    }

    /// The pieces of attributes in the record, on a volume of `geometry`.
    fn pieces(&self, geometry: &Geometry) -> Result<Vec<Piece>, String> {
        let pieces = self.attributes.iter().map(|(at, length)| {
            // `parse` has checked that it lies in the record.
            let header = self.bytes.get(*at..at + length).unwrap_or_default();
            Piece::parse(Fields(header), geometry)
                .map_err(|problem| format!("attribute at {at:#x}: {problem}"))
        });
        pieces.collect()
    }
}

/// The records that an attribute list names.
pub(super) fn listed_records(list: &[u8]) -> Result<BTreeSet<u64>, String> {
    let mut records = BTreeSet::new();
    let mut at = 0;
    while at < list.len() {
        let entry = Fields(list.get(at..).unwrap_or_default());
        let length = entry.u16(4).map(usize::from);
        let (Some(length), Some(reference)) = (length, entry.u64(16)) else {
            return Err(format!("its entry at byte {at} is cut off"));
        };
        if length < SHORTEST_ENTRY {
            return Err(format!("its entry at byte {at} is {length} bytes long"));
        }
        records.insert(FileId::from_reference(reference).record);
        at += length;
    }
    Ok(records)
}

/// Puts the attributes in the records of one file together; `records` begin with the base record.
pub(super) fn assemble(
    records: &[RawRecord],
    geometry: &Geometry,
) -> Result<Vec<Attribute>, String> {
    let mut pieces = Vec::new();
    for record in records {
        pieces.extend(record.pieces(geometry)?);
    }
    let mut attributes: Vec<(Attribute, u64)> = Vec::new();
    let mut begun: HashMap<(u32, String), usize> = HashMap::new();
    // The order of attributes of one type is kept; pieces of one attribute come by their place.
    pieces.sort_by_key(|piece| piece.first);
    for piece in pieces {
        let Body::Clusters { covered, .. } = piece.body else {
            attributes.push((piece.into_attribute(), 0));
            continue;
        };
        if piece.first == 0 {
            begun.insert((piece.kind, piece.name.clone()), attributes.len());
            attributes.push((piece.into_attribute(), covered));
            continue;
        }
        let index = begun.get(&(piece.kind, piece.name));
        let begun = index.and_then(|index| attributes.get_mut(*index));
        let (attribute, next) = begun.ok_or_else(|| {
            format!(
                "attribute {:#x} begins at cluster {}",
                piece.kind, piece.first
            )
        })?;
        if *next != piece.first {
            return Err(format!(
                "attribute {:#x} goes on at cluster {}, expected {next}",
                piece.kind, piece.first
            ));
        }
        *next = covered;
        match &mut attribute.stream.place {
            Place::Clusters { runs, .. } => runs.extend(piece.body.into_runs()),
            Place::Resident(_) => {
                return Err(format!("attribute {:#x} is half resident", piece.kind));
            }
        }
    }
    for (attribute, covered) in &attributes {
        let Place::Clusters { initialized, .. } = &attribute.stream.place else {
            continue;
        };
        let room = u128::from(*covered) * u128::from(geometry.cluster_size);
        let stream = &attribute.stream;
        if u128::from(stream.size) > room || *initialized > stream.size {
            return Err(format!(
                "attribute {:#x}: {} bytes, {initialized} of them initialized, in clusters of {room} bytes",
                attribute.kind, stream.size
            ));
        }
    }
    Ok(attributes
        .into_iter()
        .map(|(attribute, _)| attribute)
        .collect())
}

/// What one attribute header describes: an attribute, or a piece of one.
struct Piece {
    kind: u32,
    name: String,
    /// The first cluster of the value that is in this piece.
    first: u64,
    encoding: Encoding,
    size: u64,
    allocated: u64,
    initialized: u64,
    body: Body,
}

enum Body {
    /// The runs, and the first cluster of the value behind them.
    Clusters {
        runs: Vec<Run>,
        covered: u64,
    },
    Resident(Vec<u8>),
}

impl Body {
    fn into_runs(self) -> Vec<Run> {
        match self {
            Self::Clusters { runs, .. } => runs,
            Self::Resident(_) => Vec::new(),
        }
    }
}

impl Piece {
    fn parse(header: Fields<'_>, geometry: &Geometry) -> Result<Self, String> {
        let cut = || "is cut off".to_owned();
        let kind = header.u32(0).ok_or_else(cut)?;
        let name_length = 2 * usize::from(header.u8(9).ok_or_else(cut)?);
        let name_at = usize::from(header.u16(10).ok_or_else(cut)?);
        let name = header.utf16(name_at, name_length).ok_or_else(cut)?;
        let flags = header.u16(12).ok_or_else(cut)?;
        if header.u8(8) == Some(0) {
            let length = header.u32(16).ok_or_else(cut)?;
            let at = usize::from(header.u16(20).ok_or_else(cut)?);
            let value = header.slice(at, length as usize).ok_or_else(cut)?;
            return Ok(Self {
                kind,
                name,
                first: 0,
                encoding: encoding(flags, 0, geometry, true)?,
                size: u64::from(length),
                allocated: 0,
                initialized: u64::from(length),
                body: Body::Resident(value.to_vec()),
            });
        }
        let u64 = |at| header.u64(at).ok_or_else(cut);
        let first = u64(16)?;
        let runs_at = usize::from(header.u16(32).ok_or_else(cut)?);
        let packed = header.0.get(runs_at..).ok_or_else(cut)?;
        let mut runs = Vec::new();
        runs::decode(packed, first, geometry.clusters, &mut runs)?;
        let covered = runs.last().map_or(first, Run::end);
        let is_first = first == 0;
        let unit = header.u8(34).ok_or_else(cut)?;
        let allocated = if is_first { u64(40)? } else { 0 };
        Ok(Self {
            kind,
            name,
            first,
            encoding: encoding(flags, unit, geometry, !is_first)?,
            size: if is_first { u64(48)? } else { 0 },
            // Of a compressed or sparse value, what is there is counted apart.
            allocated: if is_first && flags & (COMPRESSED | SPARSE) != 0 && runs_at >= 72 {
                u64(64)?
            } else {
                allocated
            },
            initialized: if is_first { u64(56)? } else { 0 },
            body: Body::Clusters { runs, covered },
        })
    }

    fn into_attribute(self) -> Attribute {
        let place = match self.body {
            Body::Clusters { runs, .. } => Place::Clusters {
                runs,
                initialized: self.initialized,
            },
            Body::Resident(value) => Place::Resident(value),
        };
        Attribute {
            kind: self.kind,
            name: self.name,
            stream: Stream {
                size: self.size,
                allocated: self.allocated,
                encoding: self.encoding,
                place,
            },
        }
    }
}

/// What the flags and the compression unit of an attribute mean. Resident values are never
/// compressed, whatever the flags say, and later pieces have no unit.
fn encoding(
    flags: u16,
    unit: u8,
    geometry: &Geometry,
    is_exempt: bool,
) -> Result<Encoding, String> {
    if flags & ENCRYPTED != 0 {
        return Ok(Encoding::Encrypted);
    }
    let is_sparse = flags & SPARSE != 0;
    match flags & COMPRESSED {
        0 => Ok(Encoding::Plain { is_sparse }),
        _ if is_exempt => Ok(Encoding::Plain { is_sparse }),
        LZNT1 => {
            // Windows compresses in units of 16 clusters of at most 4 KiB.
            if !(1..=6).contains(&unit) || geometry.cluster_size > 64 << 10 {
                return Err(format!("a compression unit of 2^{unit} clusters"));
            }
            Ok(Encoding::Lznt1 { unit: 1 << unit })
        }
        other => Err(format!("compression {other}, expected 1 (LZNT1)")),
    }
}

const END: u32 = 0xFFFF_FFFF;
const SHORTEST_ATTRIBUTE: usize = 16;
const SHORTEST_ENTRY: usize = 26;
const IN_USE: u16 = 1;
const FOLDER: u16 = 2;
const COMPRESSED: u16 = 0x00FF;
const LZNT1: u16 = 1;
const ENCRYPTED: u16 = 0x4000;
const SPARSE: u16 = 0x8000;
