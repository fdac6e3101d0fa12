//! Creating and deleting keys.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use zerocopy::{FromZeros, IntoBytes};

use super::{EditError, HiveEditor};
use crate::bitmap::CellSet;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{
    KEY_COMP_NAME, KEY_HIVE_ENTRY, KEY_NO_DELETE, KEY_SIGNATURE, KeyNode, MAX_DEPTH,
    VIRTUALIZATION_MASK, VIRTUALIZATION_RECURSE,
};
use crate::hive::Hive;
use crate::key::Key;
use crate::name::{KeyPath, Name, SEPARATOR};
use crate::subkeys::SubkeyList;
use crate::units::{CellOffset, FileTime, NIL};
use crate::value::Storage;

impl Hive {
    /// Takes a cell for a key without subkeys and values.
    pub(crate) fn allocate_key(
        &mut self,
        name: &Name,
        flags: u16,
        parent: u32,
        security: CellOffset,
        now: FileTime,
    ) -> Result<CellOffset, EditError> {
        let (stored, compressed) = name.stored();
        let mut node = KeyNode::new_zeroed();
        node.signature = KEY_SIGNATURE;
        node.flags = (flags | if compressed { KEY_COMP_NAME } else { 0 }).into();
        node.last_written = now.ticks().into();
        node.parent = parent.into();
        node.subkeys = NIL.into();
        node.volatile_subkeys = NIL.into();
        node.values = NIL.into();
        node.security = security.get().into();
        node.class = NIL.into();
        // Names are at most 510 bytes long.
        node.name_len = u16::try_from(stored.len()).unwrap_or(u16::MAX).into();
        self.allocate_with(&[node.as_bytes(), &stored].concat())
    }
}

impl HiveEditor<'_> {
    pub(super) fn create_subkey(
        &mut self,
        above: &KeyPath,
        parent: CellOffset,
        name: &Name,
    ) -> Result<CellOffset, EditError> {
        check_key_name(name)?;
        self.refuse_layered(above, parent)?;
        if above.names().len() >= MAX_DEPTH {
            return Err(EditError::TooDeep {
                path: above.join(name),
            });
        }
        let key = Key::at(self.hive, parent)?;
        let list = sound_list(&key)?;
        let position = place_for(self.hive, &list, name)?;
        let security = self.security_record_of(parent)?;
        let virtualization = match key.node().virtualization & VIRTUALIZATION_MASK {
            flags if flags & VIRTUALIZATION_RECURSE != 0 => flags,
            _ => 0,
        };

        let child = self
            .hive
            .allocate_key(name, 0, parent.get(), security, self.now)?;
        self.taken.push(child);
        let change = self.plan_insertion(&list, position, child, name)?;

        self.begin_writing();
        self.hive.node_mut(child)?.virtualization = virtualization;
        self.add_security_reference(security)?;
        let subkeys = self.apply(change)?;
        let now = self.now;
        let node = self.hive.node_mut(parent)?;
        node.subkeys = subkeys.map_or(NIL, CellOffset::get).into();
        node.subkey_count = (node.subkey_count.get() + 1).into();
        let name_len = u16::try_from(name.units().len() * 2).unwrap_or(u16::MAX);
        node.max_subkey_name = node.max_subkey_name.get().max(name_len).into();
        node.last_written = now.ticks().into();
        Ok(child)
    }

    pub(super) fn delete_subkey(
        &mut self,
        path: &KeyPath,
        parent: CellOffset,
        name: &Name,
    ) -> Result<bool, EditError> {
        let key = Key::at(self.hive, parent)?;
        let list = sound_list(&key)?;
        let Some((place, child)) = list.find(self.hive, name)? else {
            return Ok(false);
        };
        self.refuse_layered(path, parent)?;
        let subtree = Subtree::read(self.hive, path, parent, child)?;
        for (&record, &keys) in &subtree.security {
            self.check_security_references(record, keys)?;
        }
        let change = self.plan_removal(&list, place)?;

        self.begin_writing();
        let subkeys = self.apply(change)?;
        let now = self.now;
        let node = self.hive.node_mut(parent)?;
        node.subkeys = subkeys.map_or(NIL, CellOffset::get).into();
        node.subkey_count = (node.subkey_count.get() - 1).into();
        if node.subkey_count.get() == 0 {
            node.max_subkey_name = 0.into();
            node.max_subkey_class = 0.into();
        }
        node.last_written = now.ticks().into();
        for (record, keys) in subtree.security {
            self.drop_security_references(record, keys)?;
        }
        for cell in subtree.cells {
            self.hive.free(cell)?;
        }
        Ok(true)
    }

    pub(super) fn set_class_of(
        &mut self,
        path: &KeyPath,
        key: CellOffset,
        class: Option<&Name>,
    ) -> Result<bool, EditError> {
        self.refuse_layered(path, key)?;
        let class = class.filter(|class| !class.is_empty());
        let view = Key::at(self.hive, key)?;
        let old = view.class_name()?;
        if old.as_ref() == class {
            return Ok(false);
        }
        let old_cell = CellOffset::from_raw(view.node().class.get()).filter(|_| old.is_some());
        let is_root = view.node().flags.get() & KEY_HIVE_ENTRY != 0;
        let parent = CellOffset::new(view.node().parent.get());
        if !is_root {
            Key::at(self.hive, parent)?;
        }
        let units = class.map_or(&[][..], Name::units);
        let class_len = u16::try_from(units.len() * 2).map_err(|_| EditError::InvalidName {
            name: class.map(Name::to_string).unwrap_or_default(),
            reason: "a class name has at most 32767 characters",
        })?;
        let cell = match class {
            Some(_) => {
                let bytes: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
                Some(self.take(&bytes)?)
            }
            None => None,
        };

        self.begin_writing();
        let now = self.now;
        let node = self.hive.node_mut(key)?;
        node.class = cell.map_or(NIL, CellOffset::get).into();
        node.class_len = class_len.into();
        node.last_written = now.ticks().into();
        if !is_root {
            let above = self.hive.node_mut(parent)?;
            let longest = above.max_subkey_class.get().max(u32::from(class_len));
            above.max_subkey_class = longest.into();
        }
        if let Some(cell) = old_cell {
            self.hive.free(cell)?;
        }
        Ok(true)
    }
}

/// What goes when a key is deleted.
struct Subtree {
    cells: Vec<CellOffset>,
    /// Security records and how many of the keys use each.
    security: BTreeMap<CellOffset, u32>,
}

impl Subtree {
    /// Everything at and below `key`. Refuses a cell that is used twice: to free it would damage
    /// what else it belongs to.
    fn read(
        hive: &Hive,
        path: &KeyPath,
        parent: CellOffset,
        key: CellOffset,
    ) -> Result<Self, EditError> {
        let mut subtree = Self {
            cells: Vec::new(),
            security: BTreeMap::new(),
        };
        let mut claimed = CellSet::new(hive.bins_len());
        let mut open = vec![(key, parent, path.names().len())];
        while let Some((at, parent, depth)) = open.pop() {
            let key = Key::at(hive, at)?;
            let node = key.node();
            let protected = node.flags.get() & (KEY_NO_DELETE | KEY_HIVE_ENTRY) != 0;
            if protected {
                return Err(EditError::Protected { path: path.clone() });
            }
            if key.is_layered() {
                return Err(EditError::Layered { path: path.clone() });
            }
            if depth > MAX_DEPTH {
                return Err(EditError::TooDeep { path: path.clone() });
            }
            if node.parent.get() != parent.get() {
                return Err(defect(
                    at,
                    DefectKind::ParentLink,
                    format!("the parent's offset {parent}"),
                    format!("{:#x}", node.parent),
                )
                .into());
            }
            let first = subtree.cells.len();
            subtree.add_key(&key)?;
            for &cell in subtree.cells.get(first..).unwrap_or_default() {
                // The cell must be there and allocated, so that freeing it can't fail.
                hive.cell(cell, DefectKind::CellUse)?;
                if !claimed.insert(cell) {
                    return Err(defect(cell, DefectKind::CellUse, "one use", "two".into()).into());
                }
            }
            for child in key.subkeys()? {
                open.push((child?.offset(), at, depth + 1));
            }
        }
        Ok(subtree)
    }

    fn add_key(&mut self, key: &Key<'_>) -> Result<(), HiveError> {
        self.cells.push(key.offset());
        if key.class_name()?.is_some() {
            self.cells.push(CellOffset::new(key.node().class.get()));
        }
        let list = key.subkey_list()?;
        self.cells.extend(list.root);
        self.cells.extend(list.leaves.iter().map(|leaf| leaf.at));
        let values = key.value_list()?;
        self.cells.extend(values.at);
        for value in key.values()? {
            let value = value?;
            self.cells.push(value.offset());
            add_storage(&value.storage()?, &mut self.cells);
        }
        let security = CellOffset::new(key.node().security.get());
        *self.security.entry(security).or_default() += 1;
        Ok(())
    }
}

/// The cells a value's data takes.
pub(super) fn add_storage(storage: &Storage<'_>, cells: &mut Vec<CellOffset>) {
    match storage {
        Storage::Nothing | Storage::Resident(_) => {}
        Storage::Cell(at, _) => cells.push(*at),
        Storage::Segments(at, segments) => {
            cells.extend([*at, segments.list]);
            cells.extend(segments.cells());
        }
    }
}

/// The list of a key, when it has as many elements as the key says.
fn sound_list(key: &Key<'_>) -> Result<SubkeyList, HiveError> {
    let list = key.subkey_list()?;
    if list.len() == key.subkey_count() {
        return Ok(list);
    }
    let expected = format!("a list of {} subkeys", key.subkey_count());
    Err(defect(
        key.offset(),
        DefectKind::SubkeyList,
        expected,
        list.len().to_string(),
    ))
}

/// Where a new name goes. Its neighbours must be in order, or Windows would not find it there.
fn place_for(hive: &Hive, list: &SubkeyList, name: &Name) -> Result<u32, HiveError> {
    let position = match list.search(hive, name)? {
        Err(position) => position,
        Ok(position) => {
            let at = list.key_at(hive, position)?;
            let found = "one that its list's hashes don't lead to".into();
            return Err(defect(
                at,
                DefectKind::SubkeyList,
                "no key of the new name",
                found,
            ));
        }
    };
    let neighbours = [
        (position.checked_sub(1), Ordering::Less),
        (
            Some(position).filter(|&position| position < list.len()),
            Ordering::Greater,
        ),
    ];
    for (neighbour, wanted) in neighbours {
        let Some(neighbour) = neighbour else { continue };
        let at = list.key_at(hive, neighbour)?;
        let neighbour = Key::at(hive, at)?.name();
        if neighbour.order(name) != wanted {
            let found = format!("\"{neighbour}\" beside \"{name}\"");
            return Err(defect(at, DefectKind::KeyOrder, "subkeys in order", found));
        }
    }
    Ok(position)
}

fn check_key_name(name: &Name) -> Result<(), EditError> {
    let invalid = |reason| {
        Err(EditError::InvalidName {
            name: name.to_string(),
            reason,
        })
    };
    if name.is_empty() {
        return invalid("a key's name is not empty");
    }
    if name.units().len() > MAX_KEY_NAME {
        return invalid("a key's name has at most 255 characters");
    }
    if name.units().contains(&SEPARATOR) {
        return invalid("a key's name has no backslash");
    }
    Ok(())
}

fn defect(
    at: CellOffset,
    kind: DefectKind,
    expected: impl Into<String>,
    found: String,
) -> HiveError {
    Defect::new(at.in_file(), kind, expected, found).into()
}

/// Characters in the name of a key ("Registry Element Size Limits" of the Windows documentation).
const MAX_KEY_NAME: usize = 255;
