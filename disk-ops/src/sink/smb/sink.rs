//! An image on a share as the export pipeline sees it.

use super::error::{SmbError, SmbErrorKind};
use super::location::SmbLocation;
use super::share::{ShareFile, ShareOpen, SmbShare};
use crate::sink::{ByteSink, SinkError};
use crate::units::{ByteCount, ByteOffset};

/// What becomes of files that are there already, and of an unfinished one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SmbSinkOptions {
    /// An image of the final name is replaced by the finished one. Otherwise it is an error.
    pub overwrite: bool,
    /// An image that is not finished is left under its partial name, for a resume. Otherwise it is
    /// removed.
    pub keep_partial: bool,
}

/// A [`ByteSink`] that writes to a share, as `<name>.partial` until it is finished.
///
/// ```text
///  create --> folders, free space --> "name.vhdx.partial" --> write_at ... --> finish: length
///  resume ----------------------------------^                                  checked, renamed
/// ```
#[derive(Debug)]
pub struct SmbSink {
    share: SmbShare,
    name: String,
    /// Closed, and gone, before the file is renamed or removed.
    file: Option<ShareFile>,
    /// Where the file ends, with everything written so far.
    end: ByteOffset,
    finished: bool,
    options: SmbSinkOptions,
}

impl SmbSink {
    /// Begins a new image at the share's location, with the folders on the way to it.
    ///
    /// A partial image that an earlier export left behind is removed; one that another export is
    /// writing just now is an error. `needed` is what must be free on the share.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; of its kinds especially [`SmbErrorKind::OutputExists`],
    /// [`SmbErrorKind::NoSpace`] and [`SmbErrorKind::InUse`].
    pub fn create(
        share: SmbShare,
        options: SmbSinkOptions,
        needed: ByteCount,
    ) -> Result<Self, SmbError> {
        let location = share.location().clone();
        refuse_taken_name(&share, options)?;
        share.create_folders(location.image())?;
        share.remove(&location.partial())?;
        share.remove(&location.state())?;
        let available = share.free_space(location.image())?;
        if available.is_some_and(|available| available < needed) {
            let kind = SmbErrorKind::NoSpace {
                needed: Some(needed),
                available,
            };
            return Err(SmbError::new(kind, "beginning the image", &location));
        }
        let file = share.open(&location.partial(), ShareOpen::CreateNew)?;
        Ok(Self {
            name: share.location().to_string(),
            share,
            file: Some(file),
            end: ByteOffset::ZERO,
            finished: false,
            options,
        })
    }

    /// Goes on with the partial image of an earlier export. What it holds is for the caller to
    /// check, with [`read_at`](Self::read_at).
    ///
    /// # Errors
    ///
    /// [`SmbError`]; of its kinds especially [`SmbErrorKind::NoSuchPath`] when there is none.
    pub fn resume(share: SmbShare, options: SmbSinkOptions) -> Result<Self, SmbError> {
        refuse_taken_name(&share, options)?;
        let partial = share.location().partial();
        let mut file = share.open(&partial, ShareOpen::ReadWrite)?;
        let end = file.length()?.end();
        Ok(Self {
            name: share.location().to_string(),
            share,
            file: Some(file),
            end,
            finished: false,
            options,
        })
    }

    /// The connection, for the files beside the image.
    pub fn share(&self) -> &SmbShare {
        &self.share
    }

    /// Where the file ends, with everything written so far.
    pub fn end(&self) -> ByteOffset {
        self.end
    }

    /// Reads back as much of `buffer` as the file has from `offset` on, and says how much.
    ///
    /// # Errors
    ///
    /// [`SmbError`], also of an earlier write.
    pub fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SmbError> {
        self.file()?.read_at(offset, buffer)
    }

    fn file(&mut self) -> Result<&mut ShareFile, SmbError> {
        let location = self.share.location();
        self.file.as_mut().ok_or_else(|| {
            SmbError::new(SmbErrorKind::Other, "writing", location).with_answer("already finished")
        })
    }

    fn reached(&mut self, offset: ByteOffset, length: ByteCount) {
        let end = ByteOffset(offset.0.saturating_add(length.0));
        self.end = self.end.max(end);
    }

    fn close_and_rename(&mut self) -> Result<(), SmbError> {
        let location = self.share.location().clone();
        self.file()?.flush()?;
        let length = self.file()?.length()?;
        if length.end() != self.end {
            let error = SmbError::new(SmbErrorKind::Other, "finishing", location.partial());
            return Err(error.with_answer(format_args!(
                "the file is {length} long on the server, expected {}",
                ByteCount(self.end.0)
            )));
        }
        // A file that is open can't be renamed. Closing is queued before the renaming.
        self.file = None;
        self.share.rename(
            &location.partial(),
            location.image(),
            self.options.overwrite,
        )?;
        self.finished = true;
        self.share.remove(&location.state())?;
        Ok(())
    }

    /// Removes what was written, unless it has its final name or is to be kept.
    fn give_up(&mut self) {
        self.file = None;
        if self.finished || self.options.keep_partial {
            return;
        }
        let location = self.share.location().clone();
        // This is the way out of an error or a cancellation, which is what the user is told. With
        // the connection gone there is nothing to be done here.
        let _ = self.share.remove(&location.partial());
        let _ = self.share.remove(&location.state());
    }
}

impl ByteSink for SmbSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError> {
        self.file()?.write_at(offset, bytes)?;
        self.reached(offset, ByteCount(bytes.len() as u64));
        Ok(())
    }

    fn extend_with_zeros(
        &mut self,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<(), SinkError> {
        self.file()?.write_zeros_at(offset, length)?;
        self.reached(offset, length);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.file()?.flush()?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        match self.close_and_rename() {
            Err(error) if *error.kind() == SmbErrorKind::OutputExists => Err(SinkError::Exists {
                output: self.name.clone(),
            }),
            result => Ok(result?),
        }
    }
}

impl Drop for SmbSink {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn refuse_taken_name(share: &SmbShare, options: SmbSinkOptions) -> Result<(), SmbError> {
    let location: &SmbLocation = share.location();
    match share.metadata(location.image())? {
        Some(found) if found.is_folder || !options.overwrite => Err(SmbError::new(
            SmbErrorKind::OutputExists,
            "beginning the image",
            location,
        )),
        _ => Ok(()),
    }
}
