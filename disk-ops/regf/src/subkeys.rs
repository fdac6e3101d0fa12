//! Lists of subkeys ("Index leaf", "Fast leaf", "Hash leaf", "Index root").
//!
//! A key has one leaf, or an index root that refers to several. Elements are sorted by name in
//! upper case across all leaves.

use std::cmp::Ordering;

use zerocopy::FromBytes;

use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{HintedElement, KeyNode, LIST_HEADER_LEN, ListHeader};
use crate::hive::Hive;
use crate::key::{Key, SMALLEST_KEY};
use crate::name::Name;
use crate::units::{CellOffset, index, length};

/// The subkeys of a key, one after the other.
#[derive(Clone, Debug)]
pub struct Subkeys<'h> {
    hive: &'h Hive,
    list: SubkeyList,
    next: u32,
}

impl<'h> Subkeys<'h> {
    pub(crate) fn new(hive: &'h Hive, list: SubkeyList) -> Self {
        Self {
            hive,
            list,
            next: 0,
        }
    }
}

impl<'h> Iterator for Subkeys<'h> {
    type Item = Result<Key<'h>, HiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.list.len() {
            return None;
        }
        let at = self.list.key_at(self.hive, self.next);
        self.next += 1;
        Some(at.and_then(|at| Key::at(self.hive, at)))
    }
}

/// Where the list of a key is and how it is divided.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubkeyList {
    /// The index root, when there is one.
    pub(crate) root: Option<CellOffset>,
    pub(crate) leaves: Vec<Leaf>,
    len: u32,
}

/// One leaf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf {
    pub(crate) at: CellOffset,
    pub(crate) kind: LeafKind,
    pub(crate) count: u16,
    /// Elements in the leaves before this one.
    first: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LeafKind {
    /// `lf`: offset and the first four characters.
    Fast,
    /// `lh`: offset and hash.
    Hash,
    /// `li`: offset.
    Plain,
}

/// A place in a list: which leaf, which element of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) leaf: usize,
    pub(crate) element: u16,
}

impl LeafKind {
    pub(crate) const fn from_signature(signature: [u8; 2]) -> Option<Self> {
        match &signature {
            b"lf" => Some(Self::Fast),
            b"lh" => Some(Self::Hash),
            b"li" => Some(Self::Plain),
            _ => None,
        }
    }

    pub(crate) const fn signature(self) -> [u8; 2] {
        match self {
            Self::Fast => *b"lf",
            Self::Hash => *b"lh",
            Self::Plain => *b"li",
        }
    }

    pub(crate) const fn element_len(self) -> usize {
        match self {
            Self::Fast | Self::Hash => 8,
            Self::Plain => 4,
        }
    }
}

impl SubkeyList {
    /// The list of a key that says it has subkeys; else an empty one, as Windows reads it.
    pub(crate) fn read(hive: &Hive, node: &KeyNode) -> Result<Self, HiveError> {
        if node.subkey_count.get() == 0 {
            return Ok(Self::default());
        }
        let Some(at) = CellOffset::from_raw(node.subkeys.get()) else {
            return Ok(Self::default());
        };
        let (header, behind) = hive.record::<ListHeader>(at, DefectKind::SubkeyList)?;
        let mut list = Self::default();
        if header.signature != INDEX_ROOT_SIGNATURE {
            list.push_leaf(hive, at)?;
            return Ok(list);
        }
        list.root = Some(at);
        for raw in words(at, behind, header.count.get(), 4)?.as_chunks::<4>().0 {
            list.push_leaf(hive, CellOffset::new(u32::from_le_bytes(*raw)))?;
        }
        Ok(list)
    }

    fn push_leaf(&mut self, hive: &Hive, at: CellOffset) -> Result<(), HiveError> {
        let (header, behind) = hive.record::<ListHeader>(at, DefectKind::SubkeyList)?;
        let kind = LeafKind::from_signature(header.signature).ok_or_else(|| {
            defect(
                at,
                "signature \"lf\", \"lh\" or \"li\"",
                format!("{:02x?}", header.signature),
            )
        })?;
        let count = header.count.get();
        words(at, behind, count, kind.element_len())?;
        self.leaves.push(Leaf {
            at,
            kind,
            count,
            first: self.len,
        });
        self.len += u32::from(count);
        // Leaves that an index root names over and over must not add up to endless work.
        let most = hive.bins_len() / SMALLEST_KEY;
        if self.len > most {
            return Err(defect(
                at,
                &format!("at most {most} keys in this hive"),
                self.len.to_string(),
            ));
        }
        Ok(())
    }

    /// Number of elements in all leaves.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// The offset in the element at `position`, counted across leaves.
    pub(crate) fn key_at(&self, hive: &Hive, position: u32) -> Result<CellOffset, HiveError> {
        let behind = self.leaves.partition_point(|leaf| leaf.first <= position);
        let leaf = behind.checked_sub(1).and_then(|leaf| self.leaves.get(leaf));
        let found = match leaf {
            Some(leaf) => leaf.element(hive, position - leaf.first)?,
            None => None,
        };
        // Callers count up to `len`.
        found.ok_or_else(|| HiveError::from(no_element(position)))
    }

    /// The subkey of this name and its place.
    ///
    /// Goes by the hashes where there are any and by the order elsewhere, as Windows does.
    pub(crate) fn find(
        &self,
        hive: &Hive,
        name: &Name,
    ) -> Result<Option<(Place, CellOffset)>, HiveError> {
        if self.leaves.iter().any(|leaf| leaf.kind != LeafKind::Hash) {
            return match self.search(hive, name)? {
                Ok(position) => {
                    let at = self.key_at(hive, position)?;
                    Ok(self.place(position).map(|place| (place, at)))
                }
                Err(_) => Ok(None),
            };
        }
        let hash = name.hash();
        for (leaf, header) in self.leaves.iter().enumerate() {
            for (element, hinted) in (0..header.count).zip(header.hinted(hive)?) {
                if u32::from_le_bytes(hinted.hint) != hash {
                    continue;
                }
                let at = CellOffset::new(hinted.key.get());
                if Key::at(hive, at)?.name().matches(name) {
                    return Ok(Some((Place { leaf, element }, at)));
                }
            }
        }
        Ok(None)
    }

    /// Where the name is (`Ok`) or belongs (`Err`), counted across leaves, by the order of names.
    pub(crate) fn search(&self, hive: &Hive, name: &Name) -> Result<Result<u32, u32>, HiveError> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            let key = Key::at(hive, self.key_at(hive, middle)?)?;
            match key.name().order(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(Ok(middle)),
            }
        }
        Ok(Err(low))
    }

    /// The leaf and element of a position counted across leaves.
    pub(crate) fn place(&self, position: u32) -> Option<Place> {
        let leaf = self
            .leaves
            .partition_point(|leaf| leaf.first <= position)
            .checked_sub(1)?;
        let element = u16::try_from(position - self.leaves.get(leaf)?.first).ok()?;
        Some(Place { leaf, element })
    }
}

impl Leaf {
    /// The offset in an element.
    pub(crate) fn element(
        &self,
        hive: &Hive,
        element: u32,
    ) -> Result<Option<CellOffset>, HiveError> {
        let cell = hive.cell(self.at, DefectKind::SubkeyList)?;
        let start = LIST_HEADER_LEN + index(element) * self.kind.element_len();
        let raw = cell.get(start..).and_then(|rest| rest.first_chunk::<4>());
        Ok(raw
            .filter(|_| element < u32::from(self.count))
            .map(|raw| CellOffset::new(u32::from_le_bytes(*raw))))
    }

    /// The elements of a leaf of the kinds that have hints.
    pub(crate) fn hinted<'h>(&self, hive: &'h Hive) -> Result<&'h [HintedElement], HiveError> {
        let cell = hive.cell(self.at, DefectKind::SubkeyList)?;
        let bytes = cell.get(LIST_HEADER_LEN..).unwrap_or_default();
        let elements =
            <[HintedElement]>::ref_from_prefix_with_elems(bytes, usize::from(self.count));
        elements.map(|(elements, _)| elements).map_err(|_| {
            defect(
                self.at,
                "as many elements as the list says",
                format!("{} bytes", bytes.len()),
            )
        })
    }
}

/// The first `count` elements behind a list's header.
fn words(at: CellOffset, behind: &[u8], count: u16, len: usize) -> Result<&[u8], HiveError> {
    behind.get(..usize::from(count) * len).ok_or_else(|| {
        let room = length(behind.len() / len);
        defect(at, &format!("at most {room} elements"), count.to_string())
    })
}

fn defect(at: CellOffset, expected: &str, found: String) -> HiveError {
    Defect::new(at.in_file(), DefectKind::SubkeyList, expected, found).into()
}

fn no_element(position: u32) -> Defect {
    Defect::new(
        CellOffset::new(0).in_file(),
        DefectKind::SubkeyList,
        format!("an element number {position}"),
        "a shorter list",
    )
}

pub(crate) const INDEX_ROOT_SIGNATURE: [u8; 2] = *b"ri";
