//! Where the bytes of an image come from.

use std::io;

use crate::error::{FileReadError, OpenError};
use crate::overlay::Overlay;
use crate::units::{FileOffset, buffer_index, length_of};

/// The file of an image, as its reader is given it.
pub trait ReadAt {
    /// The length of the file in bytes.
    fn length(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// Whatever the medium says; `UnexpectedEof` when the range is not all in the file.
    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()>;
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn length(&self) -> u64 {
        (**self).length()
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
}

impl ReadAt for [u8] {
    fn length(&self) -> u64 {
        length_of(self)
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        let start = buffer_index(offset.0);
        let bytes = self
            .get(start..start.saturating_add(buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A file as it would be with its log applied.
///
/// Replaying can make a file longer: what lies behind the end of the real one reads as zeros.
#[derive(Debug)]
pub(crate) struct Image<R> {
    source: R,
    /// The length of the real file when it was opened. Should it shrink, reads of it must fail:
    /// only what a log adds is zero by right.
    source_length: u64,
    overlay: Overlay,
    length: u64,
}

impl<R: ReadAt> Image<R> {
    pub(crate) fn new(source: R) -> Self {
        let source_length = source.length();
        Self {
            source,
            source_length,
            overlay: Overlay::default(),
            length: source_length,
        }
    }

    /// This file with `overlay` over it and at least `length` bytes long.
    pub(crate) fn with_overlay(self, overlay: Overlay, length: u64) -> Self {
        Self {
            overlay,
            length: self.length.max(length),
            ..self
        }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer`; the caller has checked that the range lies within [`length`](Self::length).
    pub(crate) fn read(&self, offset: FileOffset, buffer: &mut [u8]) -> Result<(), FileReadError> {
        let available = self.source_length.saturating_sub(offset.0);
        let split = buffer_index(available).min(buffer.len());
        let (real, beyond) = buffer.split_at_mut(split);
        if !real.is_empty() {
            let length = length_of(real);
            self.source
                .read_at(offset, real)
                .map_err(|source| FileReadError {
                    offset,
                    length,
                    source,
                })?;
        }
        beyond.fill(0);
        self.overlay.apply(offset, buffer);
        Ok(())
    }

    /// Reads the structure `what`, whose length the caller has bounded.
    pub(crate) fn structure(
        &self,
        what: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, OpenError> {
        let file_length = self.length;
        let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if end > file_length {
            return Err(OpenError::Truncated {
                what,
                end,
                file_length,
            });
        }
        let mut bytes = vec![0; length];
        self.read(FileOffset(offset), &mut bytes)?;
        Ok(bytes)
    }
}
