//! Cells: taken from free ones, given back, and new bins when none fits.
//!
//! Free cells are indexed by size, once for a hive and only when it is edited. The smallest that
//! fits is taken and split; a freed cell joins its free neighbours within its bin, as Windows does
//! it ("Unallocated cell").

use std::collections::BTreeSet;

use zerocopy::FromBytes;

use crate::bitmap::CELL_ALIGNMENT;
use crate::edit::EditError;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{
    BASE_BLOCK_LEN, BIN_ALIGNMENT, BIN_HEADER_LEN, BIN_SIGNATURE, BinHeader, CELL_HEADER_LEN,
    MAX_BINS_LEN,
};
use crate::hive::Hive;
use crate::layout::cell_size;
use crate::units::{CellOffset, index, length, round_up};

/// Free cells of a hive, by size and then by offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeCells {
    by_size: BTreeSet<(u32, u32)>,
}

impl Hive {
    /// Indexes the free cells, unless that is done.
    pub(crate) fn index_free_cells(&mut self) {
        if self.free_cells.is_some() {
            return;
        }
        let bins = self.bins();
        let free = self.layout().cells(bins).filter_map(|(at, size)| {
            let size = u32::try_from(size).ok()?;
            Some((size, at.get()))
        });
        self.free_cells = Some(FreeCells {
            by_size: free.collect(),
        });
    }

    /// Takes a cell for `len` bytes and fills it with zeros.
    pub(crate) fn allocate(&mut self, len: usize) -> Result<CellOffset, EditError> {
        let needed = length(len)
            .checked_add(CELL_HEADER_LEN)
            .and_then(|needed| round_up(needed, CELL_ALIGNMENT))
            .filter(|&needed| needed <= MAX_BINS_LEN)
            .ok_or(EditError::Full {
                needed: len,
                limit: self.growth_limit,
            })?;
        let (size, at) = match self.smallest_free_cell(needed) {
            Some(found) => found,
            None => self.add_bin(needed, len)?,
        };
        self.forget_free_cell(size, at);
        let left = size - needed;
        // Sizes are multiples of 8, and 8 bytes are a cell.
        let taken = if left == 0 { size } else { needed };
        if left > 0 {
            let rest = CellOffset::new(at.get() + needed);
            self.layout_mut().add_cell(rest);
            self.note_free_cell(rest, left);
        }
        self.write_size(at, taken, true);
        let start = index(at.get() + CELL_HEADER_LEN);
        if let Some(contents) = self.bins_mut().get_mut(start..index(at.get() + taken)) {
            contents.fill(0);
        }
        Ok(at)
    }

    /// Takes a cell that holds `contents`.
    pub(crate) fn allocate_with(&mut self, contents: &[u8]) -> Result<CellOffset, EditError> {
        let at = self.allocate(contents.len())?;
        self.write_cell(at, contents)?;
        Ok(at)
    }

    /// Writes the front of an allocated cell.
    pub(crate) fn write_cell(&mut self, at: CellOffset, contents: &[u8]) -> Result<(), HiveError> {
        let cell = self.cell_mut(at, DefectKind::Cell)?;
        let room = cell.len();
        match cell.get_mut(..contents.len()) {
            Some(front) => front.copy_from_slice(contents),
            None => {
                return Err(Defect::new(
                    at.in_file(),
                    DefectKind::Cell,
                    format!("a cell of at least {} bytes", contents.len()),
                    format!("one of {room} bytes"),
                )
                .into());
            }
        }
        Ok(())
    }

    /// Gives an allocated cell back.
    pub(crate) fn free(&mut self, at: CellOffset) -> Result<(), HiveError> {
        let mut size = length(self.cell(at, DefectKind::Cell)?.len()) + CELL_HEADER_LEN;
        let mut start = at;
        let (_, bin_end) = self.layout().bin_around(at);
        let next = CellOffset::new(at.get() + size);
        if next.get() < bin_end
            && let Some(next_size) = self.free_size(next)
        {
            self.forget_free_cell(next_size, next);
            self.layout_mut().remove_cell(next);
            size += next_size;
        }
        if let Some(before) = self.layout().cell_before(at)
            && let Some(before_size) = self.free_size(before)
        {
            self.forget_free_cell(before_size, before);
            self.layout_mut().remove_cell(at);
            start = before;
            size += before_size;
        }
        self.note_free_cell(start, size);
        Ok(())
    }

    fn free_size(&self, at: CellOffset) -> Option<u32> {
        cell_size(self.bins(), at).and_then(|size| u32::try_from(size).ok())
    }

    fn smallest_free_cell(&self, needed: u32) -> Option<(u32, CellOffset)> {
        let by_size = &self.free_cells.as_ref()?.by_size;
        let &(size, at) = by_size.range((needed, 0)..).next()?;
        Some((size, CellOffset::new(at)))
    }

    fn note_free_cell(&mut self, at: CellOffset, size: u32) {
        self.write_size(at, size, false);
        if let Some(free) = &mut self.free_cells {
            free.by_size.insert((size, at.get()));
        }
    }

    fn forget_free_cell(&mut self, size: u32, at: CellOffset) {
        if let Some(free) = &mut self.free_cells {
            free.by_size.remove(&(size, at.get()));
        }
    }

    fn write_size(&mut self, at: CellOffset, size: u32, allocated: bool) {
        // A cell is shorter than 2 GiB, for the bins are.
        let size = i32::try_from(size).unwrap_or(i32::MAX);
        let signed = if allocated { -size } else { size };
        let start = index(at.get());
        let field = self
            .bins_mut()
            .get_mut(start..)
            .and_then(|rest| rest.first_chunk_mut::<4>());
        if let Some(field) = field {
            *field = signed.to_le_bytes();
        }
    }

    /// Appends a bin with one free cell of at least `needed` bytes.
    fn add_bin(&mut self, needed: u32, len: usize) -> Result<(u32, CellOffset), EditError> {
        let bins_len = self.bins_len();
        let full = EditError::Full {
            needed: len,
            limit: self.growth_limit,
        };
        let size = needed
            .checked_add(BIN_HEADER_LEN)
            .and_then(|size| round_up(size, BIN_ALIGNMENT));
        let grown = size.and_then(|size| bins_len.checked_add(size));
        let (Some(size), Some(grown)) = (size, grown.filter(|&grown| grown <= self.growth_limit))
        else {
            return Err(full);
        };
        let start = BASE_BLOCK_LEN + index(bins_len);
        let end = BASE_BLOCK_LEN + index(grown);
        let bytes = self.bytes_mut();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        // What follows the bins in a file is left from earlier.
        if let Some(bin) = bytes.get_mut(start..end) {
            bin.fill(0);
            if let Ok((header, _)) = BinHeader::mut_from_prefix(bin) {
                header.signature = BIN_SIGNATURE;
                header.offset = bins_len.into();
                header.size = size.into();
            }
        }
        self.base_mut().bins_len = grown.into();
        self.layout_mut().add_bin(size);
        let at = CellOffset::new(bins_len + BIN_HEADER_LEN);
        self.note_free_cell(at, size - BIN_HEADER_LEN);
        Ok((size - BIN_HEADER_LEN, at))
    }
}
