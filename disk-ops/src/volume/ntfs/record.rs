//! Everything that the records of one file say: its attributes, whole, wherever they lie.
//!
//! ```text
//!  base record --> $ATTRIBUTE_LIST? --> the other records of the file
//!       \                                   /
//!        attributes, those in several pieces joined by their first clusters
//! ```
//!
//! The parser reads and checks the records and finds the attributes in them. The sizes of a value
//! that it does not tell (initialized part, compression unit, first cluster of a piece) are read
//! here, from the bytes of the same record.

use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Seek, SeekFrom};

use ntfs::structured_values::NtfsAttributeList;
use ntfs::{Ntfs, NtfsAttributeType, NtfsError, NtfsFile};

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
    /// Where it begins on the volume.
    pub position: u64,
    bytes: Vec<u8>,
    /// Where its attributes begin, and how long they are.
    attributes: Vec<(usize, usize)>,
    /// The other records of the file, by number.
    pub others: BTreeSet<u64>,
}

impl RawRecord {
    /// Reads record `number`.
    pub fn read<T: Read + Seek>(
        ntfs: &Ntfs,
        medium: &mut T,
        number: u64,
    ) -> Result<Self, NtfsError> {
        let file = ntfs.file(medium, number)?;
        let position = file.position().value().map_or(0, u64::from);
        medium.seek(SeekFrom::Start(position))?;
        let mut bytes = vec![0; ntfs.file_record_size() as usize];
        medium.read_exact(&mut bytes)?;
        // The parser has undone the same sequence without complaint, so that this does not fail;
        // if it did, the attributes below would be found to be damaged.
        let _ = undo_update_sequence(&mut bytes);
        let mut record = Self {
            id: FileId {
                record: number,
                sequence: file.sequence_number(),
            },
            is_in_use: file.flags().contains(ntfs::NtfsFileFlags::IN_USE),
            is_folder: file.is_directory(),
            base: Fields(&bytes).u64(32).unwrap_or_default(),
            position,
            bytes,
            attributes: Vec::new(),
            others: BTreeSet::new(),
        };
        for attribute in file.attributes_raw() {
            let attribute = attribute?;
            let at = attribute.position().value().map_or(0, u64::from);
            let at = at
                .checked_sub(position)
                .and_then(|at| usize::try_from(at).ok());
            record.attributes.push((
                at.unwrap_or(usize::MAX),
                attribute.attribute_length() as usize,
            ));
        }
        if record.base == 0 {
            record.others = other_records(&file, medium)?;
        }
        Ok(record)
    }

    /// The pieces of attributes in the record, on a volume of `geometry`.
    fn pieces(&self, geometry: &Geometry) -> Result<Vec<Piece>, String> {
        let pieces = self.attributes.iter().map(|(at, length)| {
            let header = Fields(&self.bytes).slice(*at, *length);
            let piece = header.map(|header| Piece::parse(Fields(header), geometry));
            match piece {
                Some(piece) => piece.map_err(|problem| format!("attribute at {at:#x}: {problem}")),
                None => Err(format!("attribute at {at:#x} leaves the record")),
            }
        });
        pieces.collect()
    }
}

/// The numbers in the attribute list of `file`, except its own.
fn other_records<T: Read + Seek>(
    file: &NtfsFile<'_>,
    medium: &mut T,
) -> Result<BTreeSet<u64>, NtfsError> {
    let mut others = BTreeSet::new();
    for attribute in file.attributes_raw() {
        let attribute = attribute?;
        if attribute.ty().ok() != Some(NtfsAttributeType::AttributeList) {
            continue;
        }
        let list = attribute.structured_value::<_, NtfsAttributeList<'_, '_>>(medium)?;
        let mut entries = list.entries();
        while let Some(entry) = entries.next(medium) {
            others.insert(entry?.base_file_reference().file_record_number());
        }
    }
    others.remove(&file.file_record_number());
    Ok(others)
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

const COMPRESSED: u16 = 0x00FF;
const LZNT1: u16 = 1;
const ENCRYPTED: u16 = 0x4000;
const SPARSE: u16 = 0x8000;
