//! Values longer than one segment ("Big data").

use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{BIG_DATA_SIGNATURE, BigData, SEGMENT_LEN};
use crate::hive::Hive;
use crate::units::{CellOffset, index};

/// The cells that a big data record refers to.
#[derive(Debug)]
pub(crate) struct Segments<'h> {
    /// The cell of the list itself.
    pub(crate) list: CellOffset,
    elements: &'h [u8],
}

impl<'h> Segments<'h> {
    /// The segments of a value of `data_len` bytes.
    pub(crate) fn read(hive: &'h Hive, at: CellOffset, data_len: u32) -> Result<Self, HiveError> {
        let (record, _) = hive.record::<BigData>(at, DefectKind::BigData)?;
        let wrong = |expected: &str, found: String| {
            HiveError::from(Defect::new(
                at.in_file(),
                DefectKind::BigData,
                expected,
                found,
            ))
        };
        if record.signature != BIG_DATA_SIGNATURE {
            return Err(wrong(
                "signature \"db\"",
                format!("{:02x?}", record.signature),
            ));
        }
        // Segments that all refer to one cell would make a small hive yield much data.
        if data_len > hive.bins_len() {
            return Err(wrong(
                "a value shorter than its hive",
                format!("{data_len} bytes"),
            ));
        }
        let count = usize::from(record.segment_count.get());
        let needed = index(data_len).div_ceil(SEGMENT_LEN);
        if count != needed {
            return Err(wrong(
                &format!("{needed} segments for {data_len} bytes"),
                count.to_string(),
            ));
        }
        let list = CellOffset::new(record.segments.get());
        let cell = hive.cell(list, DefectKind::BigData)?;
        let elements = cell.get(..count * 4).ok_or_else(|| {
            Defect::new(
                list.in_file(),
                DefectKind::BigData,
                format!("a list of {count} segments"),
                format!("{} bytes", cell.len()),
            )
        })?;
        Ok(Self { list, elements })
    }

    /// The segments' cells in order.
    pub(crate) fn cells(&self) -> impl Iterator<Item = CellOffset> + 'h {
        let (raw, _) = self.elements.as_chunks::<4>();
        raw.iter()
            .map(|raw| CellOffset::new(u32::from_le_bytes(*raw)))
    }

    /// The data, `data_len` bytes as given to `read`.
    pub(crate) fn data(&self, hive: &Hive, data_len: u32) -> Result<Vec<u8>, HiveError> {
        let mut data = Vec::with_capacity(index(data_len));
        for at in self.cells() {
            let wanted = (index(data_len) - data.len()).min(SEGMENT_LEN);
            let cell = hive.cell(at, DefectKind::BigData)?;
            let part = cell.get(..wanted).ok_or_else(|| {
                Defect::new(
                    at.in_file(),
                    DefectKind::BigData,
                    format!("a segment of {wanted} bytes"),
                    format!("{} bytes", cell.len()),
                )
            })?;
            data.extend_from_slice(part);
        }
        Ok(data)
    }
}
