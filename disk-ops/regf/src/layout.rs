//! The physical layer: bins follow each other without gaps, cells fill each bin.
//!
//! Everything else rests on it, so it is checked when a hive is loaded and never assumed: a
//! reference is followed only to a place where the walk found a cell to begin.

use std::ops::ControlFlow;

use zerocopy::FromBytes;

use crate::bitmap::{CELL_ALIGNMENT, CellSet};
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{BIN_ALIGNMENT, BIN_HEADER_LEN, BIN_SIGNATURE, BinHeader};
use crate::units::{CellOffset, index, length};

/// Where the bins and cells of a hive begin.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    bin_starts: Vec<u32>,
    cells: CellSet,
    bins_len: u32,
}

impl Layout {
    /// Walks all bins and cells.
    ///
    /// # Errors
    ///
    /// The first bin or cell that is not as it should be.
    pub(crate) fn read(bins: &[u8]) -> Result<Self, HiveError> {
        let mut first = None;
        let layout = Self::scan(bins, |defect| {
            first = Some(defect);
            ControlFlow::Break(())
        });
        first.map_or(Ok(layout), |defect| Err(defect.into()))
    }

    /// The same, but tells every defect to `report` and goes on with the next bin while that
    /// answers so and the bins' own headers are sound.
    pub(crate) fn scan(bins: &[u8], mut report: impl FnMut(Defect) -> ControlFlow<()>) -> Self {
        let bins_len = length(bins.len());
        let mut layout = Self {
            bin_starts: Vec::new(),
            cells: CellSet::new(bins_len),
            bins_len,
        };
        let mut start = 0;
        while start < bins_len {
            let size = match bin_size(bins, start) {
                Ok(size) => size,
                Err(defect) => {
                    let _ = report(defect);
                    break;
                }
            };
            layout.bin_starts.push(start);
            // `bin_size` has checked that the bin ends within the bins.
            if let Err(defect) = layout.scan_cells(bins, start, start + size)
                && report(defect).is_break()
            {
                break;
            }
            start += size;
        }
        layout
    }

    fn scan_cells(&mut self, bins: &[u8], start: u32, end: u32) -> Result<(), Defect> {
        let mut at = start + BIN_HEADER_LEN;
        while at < end {
            let cell = CellOffset::new(at);
            let size = cell_size(bins, cell).map_or(0, i32::unsigned_abs);
            if size < CELL_ALIGNMENT || !size.is_multiple_of(CELL_ALIGNMENT) || size > end - at {
                return Err(Defect::new(
                    cell.in_file(),
                    DefectKind::Cell,
                    format!(
                        "a size that is a multiple of 8, at most the {} left in the bin",
                        end - at
                    ),
                    format!("{size}"),
                ));
            }
            self.cells.insert(cell);
            at += size;
        }
        Ok(())
    }

    /// Length of all bins in bytes.
    pub(crate) fn bins_len(&self) -> u32 {
        self.bins_len
    }

    /// Whether a cell, allocated or free, begins here.
    pub(crate) fn is_cell(&self, at: CellOffset) -> bool {
        self.cells.contains(at)
    }

    /// Start of the first cell and end of the bin that holds `at`.
    pub(crate) fn bin_around(&self, at: CellOffset) -> (u32, u32) {
        let next = self.bin_starts.partition_point(|&start| start <= at.get());
        let start = next
            .checked_sub(1)
            .and_then(|bin| self.bin_starts.get(bin))
            .copied();
        let end = self.bin_starts.get(next).copied().unwrap_or(self.bins_len);
        (start.unwrap_or(0) + BIN_HEADER_LEN, end)
    }

    /// The cell before this one in the same bin.
    pub(crate) fn cell_before(&self, at: CellOffset) -> Option<CellOffset> {
        self.cells.before(at, self.bin_around(at).0)
    }

    /// Cells in the order of the file, with their sizes (negative: allocated).
    pub(crate) fn cells<'a>(
        &'a self,
        bins: &'a [u8],
    ) -> impl Iterator<Item = (CellOffset, i32)> + 'a {
        let ends = self
            .bin_starts
            .iter()
            .skip(1)
            .copied()
            .chain([self.bins_len]);
        self.bin_starts
            .iter()
            .copied()
            .zip(ends)
            .flat_map(move |(start, end)| {
                let first = CellOffset::new(start + BIN_HEADER_LEN);
                std::iter::successors(self.step(bins, first, end), move |&(at, size)| {
                    self.step(
                        bins,
                        CellOffset::new(at.get().checked_add(size.unsigned_abs())?),
                        end,
                    )
                })
            })
    }

    fn step(&self, bins: &[u8], at: CellOffset, end: u32) -> Option<(CellOffset, i32)> {
        (at.get() < end && self.is_cell(at)).then_some(())?;
        Some((at, cell_size(bins, at)?))
    }

    /// Notes a cell that came to be by splitting.
    pub(crate) fn add_cell(&mut self, at: CellOffset) {
        self.cells.insert(at);
    }

    /// Forgets a cell that became part of the one before it.
    pub(crate) fn remove_cell(&mut self, at: CellOffset) {
        self.cells.remove(at);
    }

    /// Notes a bin at the end with one cell in it.
    pub(crate) fn add_bin(&mut self, size: u32) {
        let start = self.bins_len;
        self.bins_len += size;
        self.cells.grow(self.bins_len);
        self.bin_starts.push(start);
        self.cells.insert(CellOffset::new(start + BIN_HEADER_LEN));
    }
}

/// The size field of the cell at `at`: negative when allocated.
pub(crate) fn cell_size(bins: &[u8], at: CellOffset) -> Option<i32> {
    let bytes = bins.get(index(at.get())..)?.first_chunk::<4>()?;
    Some(i32::from_le_bytes(*bytes))
}

fn bin_size(bins: &[u8], start: u32) -> Result<u32, Defect> {
    let at = CellOffset::new(start).in_file();
    let wrong =
        |expected: String, found: String| Err(Defect::new(at, DefectKind::Bin, expected, found));
    let left = length(bins.len()) - start;
    let Some((header, _)) = bins
        .get(index(start)..)
        .and_then(|rest| BinHeader::ref_from_prefix(rest).ok())
    else {
        return wrong("a bin header of 32 bytes".into(), format!("{left} bytes"));
    };
    if header.signature != BIN_SIGNATURE {
        return wrong(
            "signature \"hbin\"".into(),
            format!("{:02x?}", header.signature),
        );
    }
    if header.offset.get() != start {
        return wrong(
            format!("its own offset {start:#x} in the header"),
            format!("{:#x}", header.offset),
        );
    }
    let size = header.size.get();
    if size == 0 || !size.is_multiple_of(BIN_ALIGNMENT) || size > left {
        return wrong(
            format!("a size that is a multiple of 4096, at most the {left} bytes left"),
            format!("{size}"),
        );
    }
    Ok(size)
}
