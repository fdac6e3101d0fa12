//! Logs up to Windows 8: one bit for each 512 bytes of the bins, then the pages whose bit is set
//! (DIRT).

use super::Patch;
use crate::format::{BaseBlock, SECTOR};
use crate::units::{index, length};

/// The pages of a log, or what is wrong with it. All of a log is applied or nothing: it does not
/// tell which of its pages were written before it was cut short.
pub(super) fn read<'a>(log: &'a [u8], base: &BaseBlock) -> Result<Vec<Patch<'a>>, &'static str> {
    // Sectors of 4096 bytes existed only in theory before Windows 8, which calls them 512.
    let sector = match base.clustering_factor.get() {
        8 => 8 * SECTOR,
        _ => SECTOR,
    };
    let vector = log.get(sector..).unwrap_or_default();
    let Some(vector) = vector.strip_prefix(b"DIRT") else {
        return Err("no dirty vector in its second sector");
    };
    let bitmap_len = index(base.bins_len.get()) / (8 * SECTOR);
    let bitmap = vector
        .get(..bitmap_len)
        .ok_or("a dirty vector that is cut short")?;

    let mut pages = Vec::new();
    let pages_start = (sector + 4 + bitmap_len).next_multiple_of(sector);
    let mut data = log.get(pages_start..).unwrap_or_default();
    let bits = bitmap
        .iter()
        .flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    for (page, _) in bits.enumerate().filter(|&(_, dirty)| dirty) {
        let (bytes, behind) = data
            .split_at_checked(SECTOR)
            .ok_or("pages that are cut short")?;
        pages.push(Patch {
            at: length(page * SECTOR),
            bytes,
        });
        data = behind;
    }
    Ok(pages)
}
