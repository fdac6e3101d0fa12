//! Reading a finished image back from where it was written.
//!
//! The image is opened as any reader would open it, so that its tables are checked as well, and
//! its content is hashed. The bytes may come from the memory of the server; nothing here can tell.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ce_vhdx::{ContentDigest, ContentId, FileOffset, Geometry, ImageKind, PIECE_LENGTH, ReadAt};

use super::error::ExportError;
use super::image::Content;
use super::stage::CHUNK;
use super::{ExportReport, ImageFormat, hash};
use crate::block::{BlockRead, ExtentKind, ImageDisk};
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::sink::{ByteSink, SinkError};
use crate::units::{ByteCount, ByteOffset};

/// Compares the content of the image that `sink` holds with what `report` and `written` say: by
/// its MD5 if there is one, otherwise by its identity.
pub(super) fn verify(
    sink: &mut dyn ByteSink,
    format: ImageFormat,
    report: &ExportReport,
    written: &Content,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<(), ExportError> {
    let output = sink.name().to_owned();
    let differs = |difference: String| ExportError::Verify {
        output: output.clone(),
        difference,
    };
    let kind = match format {
        ImageFormat::Vhdx(_) => ImageKind::Vhdx,
        ImageFormat::FixedVhd => ImageKind::Vhd,
    };
    let readback = Readback::new(sink, report.file_size);
    let compare = || -> Result<Option<String>, ExportError> {
        let image = match ImageDisk::open(output.clone(), kind, &readback) {
            Ok(image) => image,
            Err(error) => return Ok(Some(format!("it cannot be read: {}", chain(&error)))),
        };
        if image.size() != report.virtual_size {
            let (is, expected) = (image.size(), report.virtual_size);
            return Ok(Some(format!("its disk has {is}, expected {expected}")));
        }
        match report.md5 {
            Some(expected) => {
                let found = hash(&image, cancel, progress)?;
                Ok((found != expected).then(|| format!("its MD5 is {found}, expected {expected}")))
            }
            None => {
                let found = content_id(&image, &written.geometry, cancel, progress)?;
                Ok((found != written.id).then(|| "its content differs from what was read".into()))
            }
        }
    };
    let result = compare();
    // What the sink said is the reason, whatever the reader made of it.
    if let Some(error) = readback.into_failure() {
        return Err(error.into());
    }
    match result {
        Ok(None) => Ok(()),
        Ok(Some(difference)) => Err(differs(difference)),
        Err(ExportError::Read(error)) => Err(differs(chain(&error))),
        Err(error) => Err(error),
    }
}

fn content_id(
    image: &dyn BlockRead,
    geometry: &Geometry,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<ContentId, ExportError> {
    let mut digest = ContentDigest::new();
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < image.size().0 {
        if cancel.is_requested() {
            return Err(ExportError::Cancelled);
        }
        let extent = image.extent_at(ByteOffset(offset))?;
        let zeros = extent.end.0.saturating_sub(offset) / CHUNK as u64 * CHUNK as u64;
        if extent.kind == ExtentKind::Zero && zeros > 0 {
            offset += zeros;
        } else {
            let length = (CHUNK as u64).min(image.size().0 - offset);
            let bytes = &mut buffer[..length as usize];
            image.read_at(ByteOffset(offset), bytes)?;
            for (number, piece) in (offset / PIECE_LENGTH as u64..).zip(bytes.chunks(PIECE_LENGTH))
            {
                digest
                    .update(number, piece)
                    .expect("pieces ascend and have at most the length of one");
            }
            offset += length;
        }
        progress.reach(ByteCount(offset));
    }
    Ok(digest.finish(geometry))
}

/// The file in a sink, read ahead: the sink may be a network away.
///
/// Tables and payload lie apart and are read in turn, each in ascending order, so each has a window
/// of its own.
struct Readback<'s> {
    length: u64,
    state: Mutex<State<'s>>,
}

struct State<'s> {
    sink: &'s mut dyn ByteSink,
    tables: Window,
    payload: Window,
    failure: Option<SinkError>,
}

/// Bytes of the file that have been read.
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// How many are read at a time.
    reach: usize,
}

impl<'s> Readback<'s> {
    fn new(sink: &'s mut dyn ByteSink, length: ByteCount) -> Self {
        let window = |reach| Window {
            start: 0,
            bytes: Vec::new(),
            reach,
        };
        Self {
            length: length.0,
            state: Mutex::new(State {
                sink,
                tables: window(TABLES_AHEAD),
                payload: window(PAYLOAD_AHEAD),
                failure: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'s>> {
        // A panic of another reader leaves a window that is whole or empty.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the sink failed with, if it did.
    fn into_failure(self) -> Option<SinkError> {
        let state = self.state.into_inner();
        state.unwrap_or_else(PoisonError::into_inner).failure
    }
}

impl ReadAt for Readback<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.0.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = &mut *self.lock();
        let window = match buffer.len() <= TABLES_AHEAD {
            true => &mut state.tables,
            false => &mut state.payload,
        };
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.0 + done as u64;
            let known = window.from(at);
            if known.is_empty() {
                match window.load(state.sink, at, self.length) {
                    Ok(true) => continue,
                    Ok(false) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(error) => {
                        let told = io::Error::other(error.to_string());
                        state.failure.get_or_insert(error);
                        return Err(told);
                    }
                }
            }
            let count = known.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&known[..count]);
            done += count;
        }
        Ok(())
    }
}

impl Window {
    /// What is known from `at` on.
    fn from(&self, at: u64) -> &[u8] {
        let known = at
            .checked_sub(self.start)
            .and_then(|skip| usize::try_from(skip).ok());
        known
            .and_then(|skip| self.bytes.get(skip..))
            .unwrap_or_default()
    }

    /// Reads on from `at`; says whether there was anything.
    fn load(&mut self, sink: &mut dyn ByteSink, at: u64, end: u64) -> Result<bool, SinkError> {
        let length = (self.reach as u64).min(end.saturating_sub(at)) as usize;
        self.bytes.resize(length, 0);
        self.start = at;
        let read = sink.read_at(ByteOffset(at), &mut self.bytes);
        // Nothing is known after a failure.
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Entries of a block allocation table are asked for in at most this many bytes.
const TABLES_AHEAD: usize = 64 << 10;
/// What an SMB server sends at a time.
const PAYLOAD_AHEAD: usize = 8 << 20;
