//! Telling an image from a raw disk.

use crate::error::FileReadError;
use crate::format::FILE_IDENTIFIER_SIGNATURE;
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, buffer_index};
use crate::vhd::{FOOTER_COOKIE, FOOTER_LENGTH};

/// A format that this crate reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ImageKind {
    /// VHDX: begins with `vhdxfile`.
    Vhdx,
    /// VHD: ends with a footer, or begins with the copy of one.
    Vhd,
}

impl ImageKind {
    /// What the first and the last bytes of a file say it is; `None` for anything else.
    ///
    /// Eight bytes of `start` and 512 of `end` are enough, and fewer if the file has fewer.
    pub fn of(start: &[u8], end: &[u8]) -> Option<Self> {
        // The footer of the oldest files is one byte short.
        let footers = [FOOTER_LENGTH, FOOTER_LENGTH - 1].map(buffer_index);
        let is_footer = |length| {
            let begin = end.len().checked_sub(length);
            begin
                .and_then(|begin| end.get(begin..))
                .is_some_and(|b| b.starts_with(&FOOTER_COOKIE))
        };
        if start.starts_with(&FILE_IDENTIFIER_SIGNATURE) {
            Some(Self::Vhdx)
        } else if start.starts_with(&FOOTER_COOKIE) || footers.into_iter().any(is_footer) {
            Some(Self::Vhd)
        } else {
            None
        }
    }

    /// What `source` is, by its first and last bytes.
    ///
    /// # Errors
    ///
    /// [`FileReadError`] when they can't be read.
    pub fn probe<R: ReadAt>(source: R) -> Result<Option<Self>, FileReadError> {
        let image = Image::new(source);
        let length = image.length();
        let mut start = vec![0; buffer_index(length.min(8))];
        image.read(FileOffset(0), &mut start)?;
        let mut end = vec![0; buffer_index(length.min(FOOTER_LENGTH))];
        image.read(FileOffset(length - length.min(FOOTER_LENGTH)), &mut end)?;
        Ok(Self::of(&start, &end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_told_from_disks_by_their_ends() {
        let mut footer = [0; 512];
        footer[..8].copy_from_slice(b"conectix");
        let mut disk = vec![7; 4096];
        assert_eq!(ImageKind::of(b"", b""), None);
        assert_eq!(ImageKind::of(b"vhdxfile", b""), Some(ImageKind::Vhdx));
        assert_eq!(ImageKind::of(b"conectix....", b""), Some(ImageKind::Vhd));
        assert_eq!(ImageKind::of(&disk, &footer), Some(ImageKind::Vhd));
        assert_eq!(ImageKind::of(&disk, &footer[..511]), Some(ImageKind::Vhd));
        assert_eq!(ImageKind::of(&disk, &footer[..510]), None);
        assert_eq!(ImageKind::probe(disk.as_slice()).expect("memory"), None);
        disk.extend(footer);
        assert_eq!(
            ImageKind::probe(disk.as_slice()).expect("memory"),
            Some(ImageKind::Vhd)
        );
    }
}
