//! An image on a share as the export pipeline sees it.

use super::error::{SmbError, SmbErrorKind};
use super::location::SmbLocation;
use super::share::{ShareFile, ShareOpen, SmbShare};
use crate::export::LONGEST_CHECKPOINT;
use crate::sink::{ByteSink, SinkError, SinkOptions};
use crate::units::{ByteCount, ByteOffset};

/// A [`ByteSink`] that writes to a share, as `<name>.partial` until it is finished.
///
/// When it is dropped unfinished the partial image is removed, unless it is to be kept, or was cut
/// off by something that may be over in a moment, such as a lost connection
/// ([`SmbError::is_retryable`]): then it is left for a resume.
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
    /// It failed in a way that is worth another try.
    cut_off: bool,
    options: SinkOptions,
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
        options: SinkOptions,
        needed: ByteCount,
    ) -> Result<Self, SmbError> {
        let location = share.location().clone();
        refuse_taken_name(&share, options)?;
        share.create_folders(location.image())?;
        remove_unfinished(&share)?;
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
            cut_off: false,
            options,
        })
    }

    /// Goes on with the partial image of an earlier export. What it holds is for the caller to
    /// check, with [`read_at`](Self::read_at).
    ///
    /// # Errors
    ///
    /// [`SmbError`]; of its kinds especially [`SmbErrorKind::NoSuchPath`] when there is none.
    pub fn resume(share: SmbShare, options: SinkOptions) -> Result<Self, SmbError> {
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
            cut_off: false,
            options,
        })
    }

    /// Whether `location` holds an image of `length` bytes and no partial one: what it looks like
    /// when a renaming was done and its answer was lost. Removes what is kept beside the image.
    ///
    /// # Errors
    ///
    /// [`SmbError`].
    pub fn is_finished(share: &SmbShare, length: ByteCount) -> Result<bool, SmbError> {
        let location = share.location();
        if share.metadata(&location.partial())?.is_some() {
            return Ok(false);
        }
        let image = share.metadata(location.image())?;
        let finished = image.is_some_and(|found| !found.is_folder && found.length == length);
        if finished {
            remove_states(share)?;
        }
        Ok(finished)
    }

    /// The connection, for the files beside the image.
    pub fn share(&self) -> &SmbShare {
        &self.share
    }

    /// Where the file ends, with everything written so far.
    pub fn end(&self) -> ByteOffset {
        self.end
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

    /// Notes how something on the share went, and completes the error if the share is full.
    fn noted<T>(&mut self, result: Result<T, SmbError>) -> Result<T, SmbError> {
        result.map_err(|error| {
            self.cut_off |= error.is_retryable();
            match error.kind() {
                SmbErrorKind::NoSpace {
                    needed: None,
                    available: None,
                } => self.with_figures(error),
                _ => error,
            }
        })
    }

    /// What is missing on a share that has become full: the bytes of the image that are not there
    /// yet, as far as the image has come, and what is free.
    fn with_figures(&self, error: SmbError) -> SmbError {
        let location = self.share.location();
        let written = self.share.metadata(&location.partial());
        let available = self.share.free_space(location.image());
        match (written, available) {
            (Ok(Some(written)), Ok(available)) => {
                let needed = self.end.0.saturating_sub(written.length.0);
                error.with_kind(SmbErrorKind::NoSpace {
                    needed: Some(ByteCount(needed)),
                    available,
                })
            }
            // The figures are an addition; what has failed is known without them.
            _ => error,
        }
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
        remove_states(&self.share)
    }

    /// Removes what was written, unless it has its final name or is to be kept.
    fn give_up(&mut self) {
        self.file = None;
        if self.finished || self.cut_off {
            return;
        }
        if self.options.keep_partial {
            // Whoever resumes finds the last checkpoint in its place and the file closed: the
            // process may end before the connection's thread has come to that.
            let _ = self.share.metadata(&self.share.location().partial());
            return;
        }
        // This is the way out of an error or a cancellation, which is what the user is told. With
        // the connection gone there is nothing to be done here.
        let _ = remove_unfinished(&self.share);
    }
}

impl ByteSink for SmbSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError> {
        self.reached(offset, ByteCount(bytes.len() as u64));
        let written = self.file().and_then(|file| file.write_at(offset, bytes));
        Ok(self.noted(written)?)
    }

    fn extend_with_zeros(
        &mut self,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<(), SinkError> {
        self.reached(offset, length);
        let written = self
            .file()
            .and_then(|file| file.write_zeros_at(offset, length));
        Ok(self.noted(written)?)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.file().and_then(ShareFile::flush);
        Ok(self.noted(flushed)?)
    }

    fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let read = self.file().and_then(|file| file.read_at(offset, buffer));
        Ok(self.noted(read)?)
    }

    fn save_state(&mut self, state: &[u8]) -> Result<(), SinkError> {
        let path = self.share.location().state();
        let saved = self
            .file()
            .and_then(|file| file.replace_small_after_writes(&path, state.to_vec()));
        Ok(self.noted(saved)?)
    }

    fn load_state(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        let location = self.share.location();
        // Replacing removes the old one before the new one has its name: between the two, the new
        // one is all there is.
        let mut loaded = Ok(None);
        for path in [location.state(), location.new_state()] {
            loaded = self.share.read_small(&path, LONGEST_CHECKPOINT);
            if !matches!(loaded, Ok(None)) {
                break;
            }
        }
        Ok(self.noted(loaded)?)
    }

    /// The file keeps its length, as libsmbclient can't shorten one.
    fn cut_to(&mut self, end: ByteOffset) -> Result<(), SinkError> {
        self.end = end;
        Ok(())
    }

    fn discard(mut self: Box<Self>) {
        self.options.keep_partial = false;
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        let finished = self.close_and_rename();
        match self.noted(finished) {
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

fn refuse_taken_name(share: &SmbShare, options: SinkOptions) -> Result<(), SmbError> {
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

/// Removes a partial image and what is kept beside it.
fn remove_unfinished(share: &SmbShare) -> Result<(), SmbError> {
    share.remove(&share.location().partial())?;
    remove_states(share)
}

fn remove_states(share: &SmbShare) -> Result<(), SmbError> {
    let location = share.location();
    share.remove(&location.state())?;
    share.remove(&location.new_state())?;
    Ok(())
}
