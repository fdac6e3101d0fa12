//! The second reader of hives: nt-hive, which shares no line with what wrote them.

use nt_hive::{Hive, KeyNode, NtHiveError};

/// A hive that another crate than the one that wrote it has read and found valid.
pub(super) struct SecondReader<'b> {
    hive: Hive<&'b [u8]>,
}

type Node<'h, 'b> = KeyNode<'h, &'b [u8]>;

impl<'b> SecondReader<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Result<Self, NtHiveError> {
        Ok(Self {
            hive: Hive::new(bytes)?,
        })
    }

    fn key(&self, path: &str) -> Result<Option<Node<'_, 'b>>, NtHiveError> {
        let root = self.hive.root_key_node()?;
        root.subpath(path).transpose()
    }

    pub(super) fn has_key(&self, path: &str) -> Result<bool, NtHiveError> {
        Ok(self.key(path)?.is_some())
    }

    /// The data of a value, whatever its type.
    pub(super) fn data(&self, path: &str, name: &str) -> Result<Option<Vec<u8>>, NtHiveError> {
        let Some(key) = self.key(path)? else {
            return Ok(None);
        };
        let Some(value) = key.value(name).transpose()? else {
            return Ok(None);
        };
        Ok(Some(value.data()?.into_vec()?))
    }

    pub(super) fn number(&self, path: &str, name: &str) -> Result<Option<u32>, NtHiveError> {
        let data = self.data(path, name)?;
        let bytes: Option<[u8; 4]> = data.and_then(|data| data.try_into().ok());
        Ok(bytes.map(u32::from_le_bytes))
    }

    /// The texts of a value: of a list all, of one text that.
    pub(super) fn texts(&self, path: &str, name: &str) -> Result<Vec<String>, NtHiveError> {
        let data = self.data(path, name)?.unwrap_or_default();
        let (units, _) = data.as_chunks::<2>();
        let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
        let texts = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
        Ok(texts.take_while(|text| !text.is_empty()).collect())
    }

    pub(super) fn text(&self, path: &str, name: &str) -> Result<Option<String>, NtHiveError> {
        Ok(self.texts(path, name)?.into_iter().next())
    }

    pub(super) fn subkeys(&self, path: &str) -> Result<Vec<String>, NtHiveError> {
        let Some(key) = self.key(path)? else {
            return Ok(Vec::new());
        };
        let Some(subkeys) = key.subkeys() else {
            return Ok(Vec::new());
        };
        subkeys?
            .map(|subkey| Ok(subkey?.name()?.to_string_lossy()))
            .collect()
    }

    pub(super) fn value_names(&self, path: &str) -> Result<Vec<String>, NtHiveError> {
        let Some(key) = self.key(path)? else {
            return Ok(Vec::new());
        };
        let Some(values) = key.values() else {
            return Ok(Vec::new());
        };
        values?
            .map(|value| Ok(value?.name()?.to_string_lossy()))
            .collect()
    }
}
