//! Finding out for what sector size a raw image was made.

use crate::units::SectorSize;

/// The sector size at which the first bytes of a disk show a GPT header, if they do.
///
/// A raw file does not say for what sector size it was made, but a GPT header stands at LBA 1
/// (UEFI 2.10, 5.3.2): at byte 512 or at byte 4096. Besides the signature, the header has to name
/// LBA 1 as its own position, so that a header that lies about in file content, or a stale copy,
/// is not taken for one. `head` should be the first 8 KiB; what is missing is not looked at.
pub fn detect_sector_size(head: &[u8]) -> Option<SectorSize> {
    [SectorSize::B512, SectorSize::B4096]
        .into_iter()
        .find(|sector| header_stands_at(head, *sector))
}

fn header_stands_at(head: &[u8], sector: SectorSize) -> bool {
    let header = usize::try_from(sector.bytes())
        .ok()
        .and_then(|start| head.get(start..))
        .unwrap_or_default();
    header.starts_with(b"EFI PART") && header.get(24..32) == Some(&1_u64.to_le_bytes())
}

/// How much of a disk [`detect_sector_size`] wants to see.
pub(super) const DETECTION_LENGTH: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn head_with_header_at(offset: usize, own_lba: u64) -> Vec<u8> {
        let mut head = vec![0; DETECTION_LENGTH];
        head[offset..offset + 8].copy_from_slice(b"EFI PART");
        head[offset + 24..offset + 32].copy_from_slice(&own_lba.to_le_bytes());
        head
    }

    #[test]
    fn the_position_of_the_gpt_header_tells_the_sector_size() {
        for sector in [SectorSize::B512, SectorSize::B4096] {
            let head = head_with_header_at(sector.bytes() as usize, 1);
            assert_eq!(detect_sector_size(&head), Some(sector));
        }
    }

    #[test]
    fn a_header_that_names_another_position_tells_nothing() {
        assert_eq!(detect_sector_size(&head_with_header_at(4096, 8)), None);
    }

    #[test]
    fn a_head_that_is_cut_short_tells_nothing() {
        let head = head_with_header_at(4096, 1);
        for length in [0, 511, 512, 519, 4096, 4104, 4127] {
            assert_eq!(detect_sector_size(&head[..length]), None, "{length} bytes");
        }
    }
}
