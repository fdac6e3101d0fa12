//! Inserting into and removing from subkey lists.
//!
//! Only the leaf concerned is written. A leaf that is full is split in two under an index root, as
//! Windows does it: hash and plain leaves hold 1012 elements. A fast leaf, used in hives older than
//! 1.5, that outgrows 505 elements becomes a plain one.

use zerocopy::IntoBytes;

use super::{EditError, HiveEditor};
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::LIST_HEADER_LEN;
use crate::hive::Hive;
use crate::name::Name;
use crate::subkeys::{INDEX_ROOT_SIGNATURE, Leaf, LeafKind, Place, SubkeyList};
use crate::units::CellOffset;

/// What is to be written, with all cells taken.
#[derive(Debug, Default)]
pub(super) struct ListChange {
    writes: Vec<(CellOffset, Vec<u8>)>,
    frees: Vec<CellOffset>,
    /// What the key refers to afterwards.
    head: Option<CellOffset>,
}

/// An element of a leaf, with the name's hint for the kinds that have one.
#[derive(Clone, Copy)]
struct Element {
    key: u32,
    hint: [u8; 4],
}

impl HiveEditor<'_> {
    /// Plans to put `key` at `position`, counted across leaves.
    pub(super) fn plan_insertion(
        &mut self,
        list: &SubkeyList,
        position: u32,
        key: CellOffset,
        name: &Name,
    ) -> Result<ListChange, EditError> {
        let mut change = ListChange::default();
        // The end of the list is no element's place, but that of the last leaf.
        let place = match position.checked_sub(1).filter(|_| position == list.len()) {
            None => list.place(position),
            Some(last) => list.place(last).map(|place| Place {
                element: place.element + 1,
                ..place
            }),
        };
        let (old, mut elements, element, kind) = match place {
            None => (None, Vec::new(), 0, self.preferred_kind()),
            Some(Place { leaf, element }) => {
                let leaf = leaf_of(list, leaf)?;
                (
                    Some(leaf),
                    elements_of(self.hive, &leaf)?,
                    usize::from(element),
                    leaf.kind,
                )
            }
        };
        let kind = match kind {
            LeafKind::Fast if elements.len() >= MAX_FAST_ELEMENTS => LeafKind::Plain,
            kind => kind,
        };
        let hint = hint_of(kind, name);
        elements.insert(
            element.min(elements.len()),
            Element {
                key: key.get(),
                hint,
            },
        );

        if elements.len() <= MAX_ELEMENTS {
            let at = self.place_leaf(&mut change, old, kind, &elements)?;
            self.replace_leaf(&mut change, list, place, &[at])?;
            return Ok(change);
        }
        let (front, back) = elements.split_at(elements.len().div_ceil(2));
        let front = self.place_leaf(&mut change, old, kind, front)?;
        let back = self.place_leaf(&mut change, None, kind, back)?;
        self.replace_leaf(&mut change, list, place, &[front, back])?;
        Ok(change)
    }

    /// Plans to take out the element at `place`. Needs no new cell.
    pub(super) fn plan_removal(
        &mut self,
        list: &SubkeyList,
        place: Place,
    ) -> Result<ListChange, EditError> {
        let mut change = ListChange::default();
        let leaf = leaf_of(list, place.leaf)?;
        let mut elements = elements_of(self.hive, &leaf)?;
        elements.remove(usize::from(place.element));
        if !elements.is_empty() {
            change
                .writes
                .push((leaf.at, leaf_bytes(leaf.kind, &elements)));
            change.head = list.root.or(Some(leaf.at));
            return Ok(change);
        }
        change.frees.push(leaf.at);
        self.replace_leaf(&mut change, list, Some(place), &[])?;
        Ok(change)
    }

    /// Carries out a plan and returns what the key has to refer to.
    pub(super) fn apply(&mut self, change: ListChange) -> Result<Option<CellOffset>, EditError> {
        for (at, bytes) in &change.writes {
            self.hive.write_cell(*at, bytes)?;
        }
        for at in change.frees {
            self.hive.free(at)?;
        }
        Ok(change.head)
    }

    fn preferred_kind(&self) -> LeafKind {
        if self.hive.version().has_hash_leaves() {
            LeafKind::Hash
        } else {
            LeafKind::Fast
        }
    }

    /// Chooses the old leaf's cell if there is room, else takes one with room to grow.
    fn place_leaf(
        &mut self,
        change: &mut ListChange,
        old: Option<Leaf>,
        kind: LeafKind,
        elements: &[Element],
    ) -> Result<CellOffset, EditError> {
        let bytes = leaf_bytes(kind, elements);
        if let Some(old) = old {
            let room = self.hive.cell(old.at, DefectKind::SubkeyList)?.len();
            if bytes.len() <= room {
                change.writes.push((old.at, bytes));
                return Ok(old.at);
            }
            change.frees.push(old.at);
        }
        let room = with_room_to_grow(elements.len())
            .min(MAX_ELEMENTS)
            .max(elements.len());
        let at = self
            .hive
            .allocate(LIST_HEADER_LEN + room * kind.element_len())?;
        self.taken.push(at);
        change.writes.push((at, bytes));
        Ok(at)
    }

    /// Puts `leaves` where the leaf at `place` is, in the index root or as the only ones.
    fn replace_leaf(
        &mut self,
        change: &mut ListChange,
        list: &SubkeyList,
        place: Option<Place>,
        leaves: &[CellOffset],
    ) -> Result<(), EditError> {
        let mut all: Vec<CellOffset> = list.leaves.iter().map(|leaf| leaf.at).collect();
        let unchanged = match place {
            Some(place) => {
                let unchanged = leaves == all.get(place.leaf..=place.leaf).unwrap_or_default();
                all.splice(place.leaf..=place.leaf, leaves.iter().copied());
                unchanged
            }
            None => {
                all = leaves.to_vec();
                false
            }
        };
        change.head = match (list.root, all.as_slice()) {
            (Some(root), []) => {
                change.frees.push(root);
                None
            }
            (Some(root), _) if unchanged => Some(root),
            (None, []) => None,
            (None, [only]) => Some(*only),
            (root, _) => Some(self.place_index_root(change, root, &all)?),
        };
        Ok(())
    }

    fn place_index_root(
        &mut self,
        change: &mut ListChange,
        old: Option<CellOffset>,
        leaves: &[CellOffset],
    ) -> Result<CellOffset, EditError> {
        let count = u16::try_from(leaves.len()).map_err(|_| EditError::Full {
            needed: leaves.len() * 4,
            limit: self.hive.growth_limit,
        })?;
        let mut bytes = INDEX_ROOT_SIGNATURE.to_vec();
        bytes.extend(count.to_le_bytes());
        bytes.extend(leaves.iter().flat_map(|leaf| leaf.get().to_le_bytes()));
        if let Some(old) = old {
            if bytes.len() <= self.hive.cell(old, DefectKind::SubkeyList)?.len() {
                change.writes.push((old, bytes));
                return Ok(old);
            }
            change.frees.push(old);
        }
        let at = self
            .hive
            .allocate(LIST_HEADER_LEN + with_room_to_grow(leaves.len()) * 4)?;
        self.taken.push(at);
        change.writes.push((at, bytes));
        Ok(at)
    }
}

fn leaf_of(list: &SubkeyList, leaf: usize) -> Result<Leaf, HiveError> {
    list.leaves.get(leaf).copied().ok_or_else(|| {
        let at = list.root.unwrap_or(CellOffset::new(0));
        let found = format!("{} leaves", list.leaves.len());
        Defect::new(
            at.in_file(),
            DefectKind::SubkeyList,
            format!("a leaf number {leaf}"),
            found,
        )
        .into()
    })
}

fn elements_of(hive: &Hive, leaf: &Leaf) -> Result<Vec<Element>, HiveError> {
    if leaf.kind != LeafKind::Plain {
        let hinted = leaf.hinted(hive)?.iter();
        return Ok(hinted
            .map(|e| Element {
                key: e.key.get(),
                hint: e.hint,
            })
            .collect());
    }
    let cell = hive.cell(leaf.at, DefectKind::SubkeyList)?;
    let (keys, _) = cell
        .get(LIST_HEADER_LEN..)
        .unwrap_or_default()
        .as_chunks::<4>();
    let keys = keys.iter().take(usize::from(leaf.count));
    Ok(keys
        .map(|key| Element {
            key: u32::from_le_bytes(*key),
            hint: [0; 4],
        })
        .collect())
}

fn leaf_bytes(kind: LeafKind, elements: &[Element]) -> Vec<u8> {
    // A leaf that was longer than Windows makes them stays below its own 16-bit count.
    let count = u16::try_from(elements.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(LIST_HEADER_LEN + elements.len() * kind.element_len());
    bytes.extend(kind.signature());
    bytes.extend(count.to_le_bytes());
    for element in elements {
        bytes.extend(element.key.as_bytes());
        if kind != LeafKind::Plain {
            bytes.extend(element.hint);
        }
    }
    bytes
}

/// The four bytes a leaf keeps of a name.
pub(crate) fn hint_of(kind: LeafKind, name: &Name) -> [u8; 4] {
    match kind {
        LeafKind::Hash => name.hash().to_le_bytes(),
        LeafKind::Plain => [0; 4],
        LeafKind::Fast => {
            let mut hint = [0; 4];
            for (byte, &unit) in hint.iter_mut().zip(name.units()) {
                match u8::try_from(unit) {
                    Ok(narrow) => *byte = narrow,
                    // "if it isn't [possible], the first byte [...] is null"
                    Err(_) => return [0; 4],
                }
            }
            hint
        }
    }
}

/// Elements to make room for, so that a list that grows one by one is moved seldom.
fn with_room_to_grow(len: usize) -> usize {
    len + len / 4 + 1
}

/// As in leaves that Windows wrote: none is longer, and one that was split has half as many.
const MAX_ELEMENTS: usize = 1012;
/// What fits a bin of 4096 bytes; longer fast leaves have not been seen.
const MAX_FAST_ELEMENTS: usize = 505;
