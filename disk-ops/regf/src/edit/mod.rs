//! Changing a hive in memory.
//!
//! Every operation first reads and checks what it will touch and takes the cells it needs; only
//! then does it write. An error in the first part gives the cells back and leaves keys and values
//! as they were. Should the second part fail all the same, the hive refuses to be saved.

mod keys;
mod security;
mod subkey_list;
mod values;

pub(crate) use subkey_list::hint_of;

use crate::error::HiveError;
use crate::hive::{Hive, HiveState};
use crate::name::{KeyPath, Name};
use crate::units::{CellOffset, FileTime};
use crate::value::RegValue;
use crate::{Key, SecurityDescriptor};

/// Changes a hive. Made by [`Hive::edit`]; changes are in the hive at once and reach the file with
/// [`Hive::save`].
///
/// Keys are named by their path from the root, `\` between names, without regard to case.
#[derive(Debug)]
pub struct HiveEditor<'h> {
    hive: &'h mut Hive,
    now: FileTime,
    /// Cells the current operation has taken and not linked yet.
    taken: Vec<CellOffset>,
}

/// Why a hive can't be changed as asked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The hive needs its logs first.
    #[error("the hive is dirty: its transaction logs must be applied before it is edited")]
    Dirty,

    /// What the edit touches can't be read.
    #[error(transparent)]
    Damaged(#[from] HiveError),

    /// The hive would become larger than it may.
    #[error("no room for {needed} bytes: the hive bins may have at most {limit} bytes")]
    Full {
        /// Bytes the cell was to hold.
        needed: usize,
        /// Most bytes the bins may have.
        limit: u32,
    },

    /// An earlier edit failed half way; the hive in memory is of no use any more.
    #[error("an earlier edit was broken off half way, the hive must be loaded again")]
    Interrupted,

    /// No key or value can have this name.
    #[error("invalid name \"{name}\": {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// The key belongs to a differencing hive, where it means more than what stands in it.
    #[error("key \"{path}\" is part of a layered hive, which can't be edited")]
    Layered {
        /// The key.
        path: KeyPath,
    },

    /// There is no such key.
    #[error("no key \"{path}\"")]
    NoSuchKey {
        /// The key.
        path: KeyPath,
    },

    /// The key holds a handle where others hold the number of their values.
    #[error("key \"{path}\" has a predefined handle in place of values")]
    PredefinedHandle {
        /// The key.
        path: KeyPath,
    },

    /// The root key, or one that is marked so, can't be deleted.
    #[error("key \"{path}\" can't be deleted")]
    Protected {
        /// The key.
        path: KeyPath,
    },

    /// Windows allows 512 levels of keys.
    #[error("key \"{path}\" would be deeper than 512 levels")]
    TooDeep {
        /// The key.
        path: KeyPath,
    },

    /// The data of one value is too long.
    #[error("{len} bytes of data for value \"{name}\", at most {limit} are possible")]
    ValueTooLong {
        /// The value.
        name: String,
        /// Bytes it was to have.
        len: usize,
        /// Bytes it may have in a hive of this version.
        limit: usize,
    },
}

impl Hive {
    /// Begins to edit; `now` becomes the time of every key that changes.
    ///
    /// # Errors
    ///
    /// The hive is dirty (see [`Hive::recover`] and [`Hive::accept_without_logs`]), or an earlier
    /// edit was broken off.
    pub fn edit(&mut self, now: FileTime) -> Result<HiveEditor<'_>, EditError> {
        if self.interrupted {
            return Err(EditError::Interrupted);
        }
        if self.state() == HiveState::Dirty {
            return Err(EditError::Dirty);
        }
        self.index_free_cells();
        Ok(HiveEditor {
            hive: self,
            now,
            taken: Vec::new(),
        })
    }
}

impl HiveEditor<'_> {
    /// The hive as it is now.
    pub fn hive(&self) -> &Hive {
        self.hive
    }

    /// Makes sure that a key exists, and all keys above it. New keys have the rights of the key
    /// above. Says whether there was anything to create.
    ///
    /// # Errors
    ///
    /// A name is not possible, the hive is full or damaged there. Keys above that were created
    /// already stay.
    pub fn create_key(&mut self, path: impl Into<KeyPath>) -> Result<bool, EditError> {
        let path = path.into();
        let mut created = false;
        let mut above = KeyPath::ROOT;
        let mut key = self.hive.root()?.offset();
        for name in path.names() {
            let existing = Key::at(self.hive, key)?
                .child(name)?
                .map(|child| child.offset());
            key = match existing {
                Some(child) => child,
                None => {
                    created = true;
                    self.operation(|editor| editor.create_subkey(&above, key, name))?
                }
            };
            above = above.join(name);
        }
        Ok(created)
    }

    /// Deletes a key with all its values and subkeys. Says whether it existed.
    ///
    /// # Errors
    ///
    /// The key is the root or marked as not to be deleted, or the hive is damaged there.
    pub fn delete_key(&mut self, path: impl Into<KeyPath>) -> Result<bool, EditError> {
        let path = path.into();
        let Some((above, name)) = path.split_last() else {
            return Err(EditError::Protected { path });
        };
        let Some(parent) = self.hive.root()?.subkey(above)?.map(|key| key.offset()) else {
            return Ok(false);
        };
        self.operation(|editor| editor.delete_subkey(&path, parent, name))
    }

    /// Sets a value of an existing key. The empty name is the key's default value. Says whether
    /// anything changed; a value that has this type and data already is not touched.
    ///
    /// # Errors
    ///
    /// There is no such key, name or data are too long, the hive is full or damaged there.
    pub fn set_value(
        &mut self,
        path: impl Into<KeyPath>,
        name: impl Into<Name>,
        value: &RegValue,
    ) -> Result<bool, EditError> {
        let (path, name) = (path.into(), name.into());
        let key = self.existing(&path)?;
        self.operation(|editor| editor.set_value_of(&path, key, &name, value))
    }

    /// Deletes a value. Says whether it existed.
    ///
    /// # Errors
    ///
    /// The hive is damaged there. A key that does not exist has no value to delete.
    pub fn delete_value(
        &mut self,
        path: impl Into<KeyPath>,
        name: impl Into<Name>,
    ) -> Result<bool, EditError> {
        let (path, name) = (path.into(), name.into());
        let Some(key) = self.hive.root()?.subkey(&path)?.map(|key| key.offset()) else {
            return Ok(false);
        };
        self.operation(|editor| editor.delete_value_of(&path, key, &name))
    }

    /// Sets or takes away the class name of an existing key. Says whether anything changed.
    ///
    /// # Errors
    ///
    /// There is no such key, the name is too long, the hive is full or damaged there.
    pub fn set_class_name(
        &mut self,
        path: impl Into<KeyPath>,
        class: Option<&Name>,
    ) -> Result<bool, EditError> {
        let path = path.into();
        let key = self.existing(&path)?;
        self.operation(|editor| editor.set_class_of(&path, key, class))
    }

    /// Gives an existing key, not the keys below it, other rights. Says whether anything changed.
    ///
    /// # Errors
    ///
    /// There is no such key, the hive is full or damaged there.
    pub fn set_security(
        &mut self,
        path: impl Into<KeyPath>,
        security: &SecurityDescriptor,
    ) -> Result<bool, EditError> {
        let path = path.into();
        let key = self.existing(&path)?;
        self.operation(|editor| editor.set_security_of(&path, key, security))
    }

    fn existing(&self, path: &KeyPath) -> Result<CellOffset, EditError> {
        match self.hive.root()?.subkey(path)? {
            Some(key) => Ok(key.offset()),
            None => Err(EditError::NoSuchKey { path: path.clone() }),
        }
    }

    /// Runs one operation and tidies up behind it when it fails before it began to write.
    fn operation<T>(
        &mut self,
        run: impl FnOnce(&mut Self) -> Result<T, EditError>,
    ) -> Result<T, EditError> {
        if self.hive.interrupted {
            return Err(EditError::Interrupted);
        }
        self.taken.clear();
        let result = run(self);
        match &result {
            Ok(_) => self.hive.interrupted = false,
            Err(_) if self.hive.interrupted => {}
            Err(_) => {
                for cell in std::mem::take(&mut self.taken) {
                    self.hive.free(cell)?;
                }
            }
        }
        result
    }

    /// Takes a cell for the current operation.
    fn take(&mut self, contents: &[u8]) -> Result<CellOffset, EditError> {
        let at = self.hive.allocate_with(contents)?;
        self.taken.push(at);
        Ok(at)
    }

    /// Everything is checked and allocated: from here on the hive's structure changes.
    fn begin_writing(&mut self) {
        self.hive.interrupted = true;
    }

    fn refuse_layered(&self, path: &KeyPath, key: CellOffset) -> Result<(), EditError> {
        if Key::at(self.hive, key)?.is_layered() {
            return Err(EditError::Layered { path: path.clone() });
        }
        Ok(())
    }
}
