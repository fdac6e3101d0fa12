//! A hive in memory: the bytes of its file and the map of its cells.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::alloc::FreeCells;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{
    BASE_BLOCK_LEN, BASE_BLOCK_SIGNATURE, BIN_ALIGNMENT, BaseBlock, CELL_HEADER_LEN,
    FILE_FORMAT_DIRECT, FILE_TYPE_PRIMARY, KeyNode, KeySecurity, KeyValue, MAX_BINS_LEN,
};
use crate::key::Key;
use crate::layout::{Layout, cell_size};
use crate::units::{CellOffset, FileOffset, FileTime, NIL, Version, index, length};
use crate::walk::Walk;

/// A registry hive.
///
/// Holds the file's bytes as they are, including what follows the last bin, and changes them in
/// place.
#[derive(Clone, Debug)]
pub struct Hive {
    bytes: Vec<u8>,
    version: Version,
    layout: Layout,
    state: HiveState,
    pub(crate) modified: bool,
    /// An edit failed after it had begun to write.
    pub(crate) interrupted: bool,
    pub(crate) free_cells: Option<FreeCells>,
    pub(crate) growth_limit: u32,
}

/// Whether the file holds everything that was ever written to the hive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HiveState {
    /// It does.
    Clean,
    /// Windows was stopped between two writes ("Dirty state of a hive"); what is missing stands in
    /// the log files. Reading works, and may find old or half-written things.
    Dirty,
}

impl Hive {
    /// Takes the bytes of a primary file, as they are and without its logs.
    ///
    /// # Errors
    ///
    /// The file is no hive, or its base block, a bin header or a cell size is wrong. A base block
    /// whose checksum is wrong can be had back with [`Hive::recover`] when there are logs.
    pub fn load(bytes: impl Into<Vec<u8>>) -> Result<Self, HiveError> {
        let bytes = bytes.into();
        let base = base_block(&bytes)?;
        check_identity(base)?;
        if !base.checksum_is_right() {
            return Err(Defect::new(
                FileOffset::new(CHECKSUM_OFFSET),
                DefectKind::BaseBlock,
                format!("checksum {:#010x}", base.expected_checksum()),
                format!("{:#010x}", base.checksum),
            )
            .into());
        }
        let version = version_of(base)?;
        let state = if base.primary_sequence == base.secondary_sequence {
            HiveState::Clean
        } else {
            HiveState::Dirty
        };
        let bins_len = bins_len_of(base, &bytes)?;
        let bins = bytes
            .get(BASE_BLOCK_LEN..BASE_BLOCK_LEN + index(bins_len))
            .unwrap_or_default();
        let layout = Layout::read(bins)?;
        Ok(Self {
            version,
            layout,
            state,
            modified: false,
            interrupted: false,
            free_cells: None,
            growth_limit: MAX_BINS_LEN,
            bytes,
        })
    }

    /// Whether all of the hive is in the file.
    pub fn state(&self) -> HiveState {
        self.state
    }

    /// The format's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// When the hive says it was last written. Windows 8.1 and later don't keep this up to date.
    pub fn last_written(&self) -> FileTime {
        FileTime::from_ticks(self.base().last_written.get())
    }

    /// Length of the hive bins in bytes.
    pub fn bins_len(&self) -> u32 {
        self.layout.bins_len()
    }

    /// Whether saving would write anything but what was loaded.
    pub fn is_modified(&self) -> bool {
        self.modified
    }

    /// Lets edits make the bins at most this long. Without it they may grow to the format's own
    /// end, just below 2 GiB.
    pub fn limit_growth(&mut self, bins_len: u32) {
        self.growth_limit = bins_len.min(MAX_BINS_LEN);
    }

    /// How long edits may make the bins.
    pub fn growth_limit(&self) -> u32 {
        self.growth_limit
    }

    /// Declares a dirty hive without logs good as it is, so that it can be edited and saved.
    ///
    /// What Windows had written last may be lost, and parts that were being written may not fit
    /// together: [`Hive::check`] says whether they do.
    pub fn accept_without_logs(&mut self) {
        if self.state == HiveState::Dirty {
            self.state = HiveState::Clean;
            self.modified = true;
        }
    }

    /// The root key.
    ///
    /// # Errors
    ///
    /// The base block names no sound key.
    pub fn root(&self) -> Result<Key<'_>, HiveError> {
        let raw = self.base().root_cell.get();
        let at = CellOffset::from_raw(raw).ok_or_else(|| {
            Defect::new(
                FileOffset::new(ROOT_CELL_OFFSET),
                DefectKind::BaseBlock,
                "the offset of the root key",
                format!("{NIL:#x}, which points nowhere"),
            )
        })?;
        Key::at(self, at)
    }

    /// All keys from the root on, each before its subkeys, in the order they are listed.
    ///
    /// # Errors
    ///
    /// As [`Hive::root`].
    pub fn walk(&self) -> Result<Walk<'_>, HiveError> {
        Ok(Walk::new(self.root()?))
    }

    /// The bytes of the file as they stand in memory. To write them after a change, use
    /// [`Hive::save`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same bytes, for a hive that is not needed any more.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn layout_mut(&mut self) -> &mut Layout {
        &mut self.layout
    }

    pub(crate) fn bins(&self) -> &[u8] {
        let end = BASE_BLOCK_LEN + index(self.layout.bins_len());
        self.bytes.get(BASE_BLOCK_LEN..end).unwrap_or_default()
    }

    /// The same for writing, which makes the hive a modified one.
    pub(crate) fn bins_mut(&mut self) -> &mut [u8] {
        self.modified = true;
        let end = BASE_BLOCK_LEN + index(self.layout.bins_len());
        self.bytes.get_mut(BASE_BLOCK_LEN..end).unwrap_or_default()
    }

    /// The whole file, for growing it.
    pub(crate) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.modified = true;
        &mut self.bytes
    }

    pub(crate) fn base(&self) -> &BaseBlock {
        let bytes = self.bytes.first_chunk::<{ size_of::<BaseBlock>() }>();
        match bytes.and_then(|bytes| BaseBlock::ref_from_bytes(bytes).ok()) {
            Some(base) => base,
            // `load` refuses a file that is shorter, and nothing shortens it.
            None => unreachable!("a hive has a base block"),
        }
    }

    pub(crate) fn base_mut(&mut self) -> &mut BaseBlock {
        self.modified = true;
        let bytes = self.bytes.first_chunk_mut::<{ size_of::<BaseBlock>() }>();
        match bytes.and_then(|bytes| BaseBlock::mut_from_bytes(bytes).ok()) {
            Some(base) => base,
            // As in `base`.
            None => unreachable!("a hive has a base block"),
        }
    }

    /// What an allocated cell holds, behind its size field. `role` says what the cell was looked
    /// up as.
    pub(crate) fn cell(&self, at: CellOffset, kind: DefectKind) -> Result<&[u8], HiveError> {
        let size = match self
            .layout
            .is_cell(at)
            .then(|| cell_size(self.bins(), at))
            .flatten()
        {
            Some(size) if size < 0 => size.unsigned_abs(),
            Some(_) => return Err(not_a_cell(at, kind, "a free cell")),
            None => return Err(not_a_cell(at, kind, "no cell")),
        };
        let start = index(at.get());
        self.bins()
            .get(start + index(CELL_HEADER_LEN)..start + index(size))
            .ok_or_else(|| not_a_cell(at, kind, "no cell"))
    }

    /// The same for writing.
    pub(crate) fn cell_mut(
        &mut self,
        at: CellOffset,
        kind: DefectKind,
    ) -> Result<&mut [u8], HiveError> {
        let len = self.cell(at, kind)?.len();
        let start = index(at.get()) + index(CELL_HEADER_LEN);
        self.bins_mut()
            .get_mut(start..start + len)
            .ok_or_else(|| not_a_cell(at, kind, "no cell"))
    }

    /// The structure an allocated cell begins with, and what follows it.
    pub(crate) fn record<T: FromBytes + Immutable + KnownLayout>(
        &self,
        at: CellOffset,
        kind: DefectKind,
    ) -> Result<(&T, &[u8]), HiveError> {
        let cell = self.cell(at, kind)?;
        T::ref_from_prefix(cell).map_err(|_| {
            Defect::new(
                at.in_file(),
                kind,
                format!("a cell of at least {} bytes", size_of::<T>()),
                format!("one of {} bytes", cell.len()),
            )
            .into()
        })
    }

    /// The same for writing.
    fn record_mut<T: FromBytes + IntoBytes + KnownLayout>(
        &mut self,
        at: CellOffset,
        kind: DefectKind,
    ) -> Result<&mut T, HiveError> {
        let cell = self.cell_mut(at, kind)?;
        let len = cell.len();
        T::mut_from_prefix(cell)
            .map(|(record, _)| record)
            .map_err(|_| {
                let expected = format!("a cell of at least {} bytes", size_of::<T>());
                Defect::new(at.in_file(), kind, expected, format!("one of {len} bytes")).into()
            })
    }

    pub(crate) fn node_mut(&mut self, at: CellOffset) -> Result<&mut KeyNode, HiveError> {
        self.record_mut(at, DefectKind::KeyNode)
    }

    pub(crate) fn value_node_mut(&mut self, at: CellOffset) -> Result<&mut KeyValue, HiveError> {
        self.record_mut(at, DefectKind::Value)
    }

    pub(crate) fn security_mut(&mut self, at: CellOffset) -> Result<&mut KeySecurity, HiveError> {
        self.record_mut(at, DefectKind::Security)
    }

    /// Writes element `position` of a list of offsets.
    pub(crate) fn write_element(
        &mut self,
        list: CellOffset,
        position: usize,
        element: CellOffset,
    ) -> Result<(), HiveError> {
        let cell = self.cell_mut(list, DefectKind::ValueList)?;
        let (elements, _) = cell.as_chunks_mut::<4>();
        let room = elements.len();
        match elements.get_mut(position) {
            Some(field) => *field = element.get().to_le_bytes(),
            None => {
                return Err(Defect::new(
                    list.in_file(),
                    DefectKind::ValueList,
                    format!("room for element {position}"),
                    format!("room for {room}"),
                )
                .into());
            }
        }
        Ok(())
    }
}

/// The base block of a file that begins like a hive and is long enough.
pub(crate) fn base_block(bytes: &[u8]) -> Result<&BaseBlock, HiveError> {
    if !bytes.starts_with(&BASE_BLOCK_SIGNATURE) {
        let found = bytes
            .iter()
            .copied()
            .take(BASE_BLOCK_SIGNATURE.len())
            .collect();
        return Err(HiveError::NotAHive { found });
    }
    match BaseBlock::ref_from_prefix(bytes) {
        Ok((base, _)) if bytes.len() >= BASE_BLOCK_LEN => Ok(base),
        _ => Err(Defect::new(
            FileOffset::new(0),
            DefectKind::BaseBlock,
            format!("{BASE_BLOCK_LEN} bytes"),
            format!("{} bytes in the file", bytes.len()),
        )
        .into()),
    }
}

/// Refuses what has a base block too but is no primary file.
fn check_identity(base: &BaseBlock) -> Result<(), HiveError> {
    let wrong = |at, expected: &str, found: u32| {
        let found = format!("{found}");
        Err(Defect::new(FileOffset::new(at), DefectKind::BaseBlock, expected, found).into())
    };
    if base.file_type.get() != FILE_TYPE_PRIMARY {
        return wrong(
            FILE_TYPE_OFFSET,
            "file type 0 (a primary file)",
            base.file_type.get(),
        );
    }
    if base.file_format.get() != FILE_FORMAT_DIRECT {
        return wrong(FILE_FORMAT_OFFSET, "file format 1", base.file_format.get());
    }
    Ok(())
}

pub(crate) fn version_of(base: &BaseBlock) -> Result<Version, HiveError> {
    let (major, minor) = (base.major.get(), base.minor.get());
    match Version::from_minor(minor) {
        Some(version) if major == 1 => Ok(version),
        _ => Err(HiveError::UnsupportedVersion { major, minor }),
    }
}

fn bins_len_of(base: &BaseBlock, bytes: &[u8]) -> Result<u32, HiveError> {
    let bins_len = base.bins_len.get();
    let available = length(bytes.len().saturating_sub(BASE_BLOCK_LEN));
    let in_range = (BIN_ALIGNMENT..=available.min(MAX_BINS_LEN)).contains(&bins_len);
    if in_range && bins_len.is_multiple_of(BIN_ALIGNMENT) {
        return Ok(bins_len);
    }
    Err(Defect::new(
        FileOffset::new(BINS_LEN_OFFSET),
        DefectKind::BaseBlock,
        format!("a bins length that is a multiple of 4096, at most the {available} in the file"),
        format!("{bins_len}"),
    )
    .into())
}

fn not_a_cell(at: CellOffset, kind: DefectKind, found: &str) -> HiveError {
    Defect::new(at.in_file(), kind, "an allocated cell", found).into()
}

const FILE_TYPE_OFFSET: u64 = 28;
const FILE_FORMAT_OFFSET: u64 = 32;
const ROOT_CELL_OFFSET: u64 = 36;
const BINS_LEN_OFFSET: u64 = 40;
const CHECKSUM_OFFSET: u64 = 508;
