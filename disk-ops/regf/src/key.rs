//! Keys ("Key node").

use std::fmt;

use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{KEY_COMP_NAME, KEY_NODE_LEN, KEY_SIGNATURE, KeyNode};
use crate::hive::Hive;
use crate::name::{KeyPath, Name, NameRef};
use crate::security::{self, SecurityDescriptor};
use crate::subkeys::{SubkeyList, Subkeys};
use crate::units::{CellOffset, FileTime};
use crate::value::{Value, ValueList, Values};
use crate::walk::Walk;

/// A key of a hive.
#[derive(Clone, Copy)]
pub struct Key<'h> {
    hive: &'h Hive,
    at: CellOffset,
    node: &'h KeyNode,
    name: NameRef<'h>,
}

impl<'h> Key<'h> {
    /// The key whose node is in the cell at `at`.
    pub(crate) fn at(hive: &'h Hive, at: CellOffset) -> Result<Self, HiveError> {
        let (node, behind) = hive.record::<KeyNode>(at, DefectKind::KeyNode)?;
        if node.signature != KEY_SIGNATURE {
            return Err(Defect::new(
                at.in_file(),
                DefectKind::KeyNode,
                "signature \"nk\"",
                format!("{:02x?}", node.signature),
            )
            .into());
        }
        let compressed = node.flags.get() & KEY_COMP_NAME != 0;
        let len = node.name_len.get();
        let name = NameRef::read(at, DefectKind::KeyNode, behind, len, compressed)?;
        Ok(Self {
            hive,
            at,
            node,
            name,
        })
    }

    /// The key's own name. The root key's is of no consequence.
    pub fn name(&self) -> NameRef<'h> {
        self.name
    }

    /// Where the key's node is.
    pub fn offset(&self) -> CellOffset {
        self.at
    }

    /// When the key, its values or its list of subkeys last changed.
    pub fn last_written(&self) -> FileTime {
        FileTime::from_ticks(self.node.last_written.get())
    }

    /// Whether the key has a meaning in a differencing hive other than its own contents ("Layered
    /// keys").
    pub fn is_layered(&self) -> bool {
        self.node.layer != 0
    }

    /// The class name, which nearly no key has.
    ///
    /// # Errors
    ///
    /// The reference to it is broken.
    pub fn class_name(&self) -> Result<Option<Name>, HiveError> {
        let len = usize::from(self.node.class_len.get());
        let Some(at) = CellOffset::from_raw(self.node.class.get()).filter(|_| len > 0) else {
            return Ok(None);
        };
        let cell = self.hive.cell(at, DefectKind::ClassName)?;
        let bytes = cell.get(..len).ok_or_else(|| {
            Defect::new(
                at.in_file(),
                DefectKind::ClassName,
                format!("a cell of at least {len} bytes"),
                format!("one of {} bytes", cell.len()),
            )
        })?;
        Ok(Some(NameRef::utf16(bytes).to_name()))
    }

    /// The subkeys in the order they are listed.
    ///
    /// # Errors
    ///
    /// The list or a list of lists can't be read.
    pub fn subkeys(&self) -> Result<Subkeys<'h>, HiveError> {
        Ok(Subkeys::new(self.hive, self.subkey_list()?))
    }

    /// Number of subkeys, as the key says.
    pub fn subkey_count(&self) -> u32 {
        self.node.subkey_count.get()
    }

    /// The key at a path below this one, `\` between names, without regard to case.
    ///
    /// # Errors
    ///
    /// The hive is damaged on the way there. A key that is not there is `None`.
    pub fn subkey(&self, path: impl Into<KeyPath>) -> Result<Option<Self>, HiveError> {
        let mut key = *self;
        for name in path.into().names() {
            match key.child(name)? {
                Some(child) => key = child,
                None => return Ok(None),
            }
        }
        Ok(Some(key))
    }

    /// The values in the order they are listed.
    ///
    /// # Errors
    ///
    /// The list of values can't be read.
    pub fn values(&self) -> Result<Values<'h>, HiveError> {
        Ok(Values::new(self.hive, self.value_list()?))
    }

    /// The value of this name, without regard to case. The empty name is the key's default value.
    ///
    /// # Errors
    ///
    /// The hive is damaged there. A value that is not there is `None`.
    pub fn value(&self, name: impl Into<Name>) -> Result<Option<Value<'h>>, HiveError> {
        let name = name.into();
        for value in self.values()? {
            let value = value?;
            if value.name().matches(&name) {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Owner and access rights.
    ///
    /// # Errors
    ///
    /// The reference to them is broken or they are no security descriptor.
    pub fn security_descriptor(&self) -> Result<SecurityDescriptor, HiveError> {
        let raw = self.node.security.get();
        let at = CellOffset::from_raw(raw).ok_or_else(|| {
            Defect::new(
                self.at.in_file(),
                DefectKind::KeyNode,
                "the offset of a security record",
                "the value that points nowhere",
            )
        })?;
        let (_, bytes) = security::record(self.hive, at)?;
        SecurityDescriptor::from_bytes(bytes).map_err(|invalid| {
            Defect::new(
                at.in_file(),
                DefectKind::Security,
                "a self-relative security descriptor",
                invalid.to_string(),
            )
            .into()
        })
    }

    /// This key and all below it, each before its subkeys.
    pub fn walk(&self) -> Walk<'h> {
        Walk::new(*self)
    }

    /// The subkey of this name.
    pub(crate) fn child(&self, name: &Name) -> Result<Option<Self>, HiveError> {
        let Some((_, at)) = self.subkey_list()?.find(self.hive, name)? else {
            return Ok(None);
        };
        Self::at(self.hive, at).map(Some)
    }

    pub(crate) fn subkey_list(&self) -> Result<SubkeyList, HiveError> {
        SubkeyList::read(self.hive, self.node)
    }

    pub(crate) fn value_list(&self) -> Result<ValueList<'h>, HiveError> {
        ValueList::read(self.hive, self.at, self.node)
    }

    pub(crate) fn node(&self) -> &'h KeyNode {
        self.node
    }

    pub(crate) fn hive(&self) -> &'h Hive {
        self.hive
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("name", &self.name)
            .field("at", &self.at)
            .finish()
    }
}

/// Every key takes a cell of at least this much, so a hive holds no more keys than that allows.
#[expect(clippy::as_conversions, reason = "a small constant")]
pub(crate) const SMALLEST_KEY: u32 = (KEY_NODE_LEN + 4) as u32;
