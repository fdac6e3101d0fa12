//! Setting and deleting values.

use zerocopy::{FromZeros, IntoBytes};

use super::keys::add_storage;
use super::{EditError, HiveEditor};
use crate::error::{DefectKind, HiveError};
use crate::format::{
    BIG_DATA_SIGNATURE, BigData, DATA_RESIDENT, KEY_PREDEFINED_HANDLE, KeyValue, MAX_RESIDENT_LEN,
    SEGMENT_LEN, VALUE_COMP_NAME, VALUE_SIGNATURE,
};
use crate::key::Key;
use crate::name::{KeyPath, Name};
use crate::units::{CellOffset, NIL, length};
use crate::value::{RegValue, Storage};

/// The data fields of a value's record.
#[derive(Clone, Copy)]
struct DataFields {
    data_len: u32,
    data: u32,
}

/// A value that is there.
struct Existing {
    at: CellOffset,
    position: usize,
    /// The cells its data takes.
    cells: Vec<CellOffset>,
    /// Its one data cell and how much that holds.
    cell: Option<(CellOffset, usize)>,
}

impl HiveEditor<'_> {
    pub(super) fn set_value_of(
        &mut self,
        path: &KeyPath,
        key: CellOffset,
        name: &Name,
        new: &RegValue,
    ) -> Result<bool, EditError> {
        self.refuse_layered(path, key)?;
        if Key::at(self.hive, key)?.node().flags.get() & KEY_PREDEFINED_HANDLE != 0 {
            return Err(EditError::PredefinedHandle { path: path.clone() });
        }
        let limit = if self.hive.version().has_big_data() {
            MAX_BIG_DATA
        } else {
            MAX_SINGLE_CELL
        };
        if new.data.len() > limit {
            let (name, len) = (name.to_string(), new.data.len());
            return Err(EditError::ValueTooLong { name, len, limit });
        }
        match self.find_value(path, key, name)? {
            Some((existing, old)) if old != *new => self.change_value(key, name, &existing, new)?,
            Some(_) => return Ok(false),
            None => self.add_value(key, name, new)?,
        }
        Ok(true)
    }

    pub(super) fn delete_value_of(
        &mut self,
        path: &KeyPath,
        key: CellOffset,
        name: &Name,
    ) -> Result<bool, EditError> {
        let Some((existing, _)) = self.find_value(path, key, name)? else {
            return Ok(false);
        };
        self.refuse_layered(path, key)?;
        let list = Key::at(self.hive, key)?.value_list()?;
        let mut elements: Vec<CellOffset> = (0..list.len()).filter_map(|i| list.get(i)).collect();
        elements.remove(existing.position);
        let list = list.at;

        self.begin_writing();
        if let Some(list) = list {
            if elements.is_empty() {
                self.hive.free(list)?;
            } else {
                self.hive.write_cell(list, &offsets(&elements))?;
            }
        }
        let now = self.now;
        let node = self.hive.node_mut(key)?;
        node.value_count = length(elements.len()).into();
        if elements.is_empty() {
            node.values = NIL.into();
            node.max_value_name = 0.into();
            node.max_value_data = 0.into();
        }
        node.last_written = now.ticks().into();
        self.hive.free(existing.at)?;
        for cell in existing.cells {
            self.hive.free(cell)?;
        }
        Ok(true)
    }

    fn find_value(
        &self,
        path: &KeyPath,
        key: CellOffset,
        name: &Name,
    ) -> Result<Option<(Existing, RegValue)>, EditError> {
        for (position, value) in Key::at(self.hive, key)?.values()?.enumerate() {
            let value = value?;
            if !value.name().matches(name) {
                continue;
            }
            if value.is_tombstone() {
                return Err(EditError::Layered { path: path.clone() });
            }
            let storage = value.storage()?;
            let mut cells = Vec::new();
            add_storage(&storage, &mut cells);
            for &cell in &cells {
                self.hive.cell(cell, DefectKind::ValueData)?;
            }
            let cell = match storage {
                Storage::Cell(at, _) => {
                    Some((at, self.hive.cell(at, DefectKind::ValueData)?.len()))
                }
                _ => None,
            };
            let existing = Existing {
                at: value.offset(),
                position,
                cells,
                cell,
            };
            return Ok(Some((existing, value.to_reg_value()?)));
        }
        Ok(None)
    }

    fn change_value(
        &mut self,
        key: CellOffset,
        name: &Name,
        existing: &Existing,
        new: &RegValue,
    ) -> Result<(), EditError> {
        // A cell that fits and isn't mostly air is kept.
        let len = new.data.len();
        let kept = existing.cell.filter(|&(_, room)| {
            needs_one_cell(len) && len <= room && room <= 2 * len + SMALL_WASTE
        });
        let fields = match kept {
            Some((cell, _)) => DataFields {
                data_len: length(len),
                data: cell.get(),
            },
            None => self.store(&new.data)?,
        };

        self.begin_writing();
        if let Some((cell, _)) = kept {
            self.hive.write_cell(cell, &new.data)?;
        }
        let node = self.hive.value_node_mut(existing.at)?;
        node.data_len = fields.data_len.into();
        node.data = fields.data.into();
        node.value_type = new.value_type.raw().into();
        if kept.is_none() {
            for &cell in &existing.cells {
                self.hive.free(cell)?;
            }
        }
        self.note_value(key, name, len)?;
        Ok(())
    }

    fn add_value(&mut self, key: CellOffset, name: &Name, new: &RegValue) -> Result<(), EditError> {
        let (stored, compressed) = name.stored();
        let name_len = u16::try_from(stored.len())
            .ok()
            .filter(|_| name.units().len() <= MAX_NAME);
        let name_len = name_len.ok_or_else(|| EditError::InvalidName {
            name: name.to_string(),
            reason: "a value's name has at most 16383 characters",
        })?;
        let fields = self.store(&new.data)?;
        let mut record = KeyValue::new_zeroed();
        record.signature = VALUE_SIGNATURE;
        record.name_len = name_len.into();
        record.data_len = fields.data_len.into();
        record.data = fields.data.into();
        record.value_type = new.value_type.raw().into();
        // Windows marks the empty name so too.
        record.flags = if compressed { VALUE_COMP_NAME } else { 0 }.into();
        let value = self.take(&[record.as_bytes(), &stored].concat())?;

        let list = Key::at(self.hive, key)?.value_list()?;
        let (count, old) = (list.len(), list.at);
        let mut elements: Vec<CellOffset> = (0..count).filter_map(|i| list.get(i)).collect();
        elements.push(value);
        let room = match old {
            Some(old) => self.hive.cell(old, DefectKind::ValueList)?.len(),
            None => 0,
        };
        let kept = old.filter(|_| room >= elements.len() * 4);
        let at = match kept {
            Some(old) => old,
            None => {
                let at = self.hive.allocate((elements.len() + count / 4) * 4)?;
                self.taken.push(at);
                at
            }
        };

        self.begin_writing();
        if kept.is_some() {
            self.hive.write_element(at, count, value)?;
        } else {
            self.hive.write_cell(at, &offsets(&elements))?;
            if let Some(old) = old {
                self.hive.free(old)?;
            }
        }
        let node = self.hive.node_mut(key)?;
        node.value_count = length(elements.len()).into();
        node.values = at.get().into();
        self.note_value(key, name, new.data.len())?;
        Ok(())
    }

    /// Takes the cells that data needs and fills them.
    fn store(&mut self, data: &[u8]) -> Result<DataFields, EditError> {
        if data.len() <= MAX_RESIDENT_LEN {
            let mut resident = [0; MAX_RESIDENT_LEN];
            for (byte, &from) in resident.iter_mut().zip(data) {
                *byte = from;
            }
            let data_len = length(data.len()) | DATA_RESIDENT;
            return Ok(DataFields {
                data_len,
                data: u32::from_le_bytes(resident),
            });
        }
        let data_len = length(data.len());
        if data.len() <= SEGMENT_LEN || !self.hive.version().has_big_data() {
            return Ok(DataFields {
                data_len,
                data: self.take(data)?.get(),
            });
        }
        let mut segments = Vec::with_capacity(data.len().div_ceil(SEGMENT_LEN));
        for segment in data.chunks(SEGMENT_LEN) {
            segments.push(self.take(segment)?);
        }
        let list = self.take(&offsets(&segments))?;
        let mut record = BigData::new_zeroed();
        record.signature = BIG_DATA_SIGNATURE;
        // `set_value_of` has bounded the length.
        record.segment_count = u16::try_from(segments.len()).unwrap_or(u16::MAX).into();
        record.segments = list.get().into();
        Ok(DataFields {
            data_len,
            data: self.take(record.as_bytes())?.get(),
        })
    }

    /// Updates what a key says of its values.
    fn note_value(&mut self, key: CellOffset, name: &Name, len: usize) -> Result<(), HiveError> {
        let now = self.now;
        let node = self.hive.node_mut(key)?;
        let name_len = length(name.units().len() * 2);
        node.max_value_name = node.max_value_name.get().max(name_len).into();
        node.max_value_data = node.max_value_data.get().max(length(len)).into();
        node.last_written = now.ticks().into();
        Ok(())
    }
}

fn needs_one_cell(len: usize) -> bool {
    (MAX_RESIDENT_LEN + 1..=SEGMENT_LEN).contains(&len)
}

fn offsets(cells: &[CellOffset]) -> Vec<u8> {
    cells
        .iter()
        .flat_map(|cell| cell.get().to_le_bytes())
        .collect()
}

/// Characters in the name of a value ("Registry Element Size Limits" of the Windows documentation).
const MAX_NAME: usize = 16383;
/// What a big data record can count.
const MAX_BIG_DATA: usize = 0xFFFF * SEGMENT_LEN;
/// "1 MB (standard format)", same page.
const MAX_SINGLE_CELL: usize = 1 << 20;
/// A cell may be this much longer than twice what it holds.
const SMALL_WASTE: usize = 32;
