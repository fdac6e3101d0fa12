//! Taking up an export that was cut: what is checked before anything that was kept is trusted.
//!
//! ```text
//!  checkpoint --> same options? --> same disk? --> a possible state?
//!                                                        |
//!                       tail of the file = disk? --> file cut to the checkpoint --> go on
//! ```
//!
//! Images are canonical, so whatever was written behind the checkpoint is written once more, the
//! same.

use ce_vhdx::{PIECE_LENGTH, is_zero};

use super::ExportOptions;
use super::checkpoint::Checkpoint;
use super::error::{ExportError, ResumeError};
use super::fingerprint::SourceFingerprint;
use super::image::Image;
use crate::block::BlockRead;
use crate::sink::ByteSink;
use crate::units::{ByteCount, ByteOffset};

/// Reads the checkpoint that lies beside the output of `sink`, and refuses one that does not belong
/// to `source` and `options`.
pub(super) fn load(
    source: &dyn BlockRead,
    fingerprint: &SourceFingerprint,
    sink: &mut dyn ByteSink,
    options: &ExportOptions,
) -> Result<(Checkpoint, Image), ExportError> {
    let refused = |output: &str, source| ExportError::Resume {
        output: output.to_owned(),
        source,
    };
    let Some(state) = sink.load_state()? else {
        return Err(refused(sink.name(), ResumeError::NoCheckpoint));
    };
    let checkpoint =
        Checkpoint::parse(&state).map_err(|error| refused(sink.name(), error.into()))?;
    // Options first: a disk without its free space looks like another disk.
    if let Some((option, was, now)) = checkpoint.other_option(options) {
        let differ = ResumeError::OptionsDiffer { option, was, now };
        return Err(refused(sink.name(), differ));
    }
    if let Some(difference) = checkpoint.source.difference(fingerprint) {
        return Err(refused(
            sink.name(),
            ResumeError::SourceChanged { difference },
        ));
    }
    let mut image = Image::new(source, options.format)?;
    image
        .restore(&checkpoint)
        .map_err(|error| refused(sink.name(), error.into()))?;
    Ok((checkpoint, image))
}

/// Compares what was written last before `position` with the disk, up to [`TAIL`] bytes that are
/// not zero.
pub(super) fn verify_tail(
    source: &dyn BlockRead,
    sink: &mut dyn ByteSink,
    image: &Image,
    position: ByteOffset,
) -> Result<(), ExportError> {
    let mut expected = vec![0; PIECE_LENGTH];
    let mut found = vec![0; PIECE_LENGTH];
    let mut compared = 0;
    let mut pieces = 0;
    let run = image.contiguous();
    let mut end = position.0;
    while end > 0 {
        // Blocks are whole pieces, and so is the position: a whole number of chunks.
        let start = (end - 1) / run * run;
        let place = image.locate(ByteOffset(start));
        for number in (0..(end - start) / PIECE_LENGTH as u64).rev() {
            let piece = start + number * PIECE_LENGTH as u64;
            let Some(place) = place else { break };
            source.read_at(ByteOffset(piece), &mut expected)?;
            let place = place + (piece - start);
            // Behind the end everything counts as zeros.
            let there = image.end().saturating_sub(place).min(PIECE_LENGTH as u64) as usize;
            let (in_file, beyond) = expected.split_at(there);
            let read = sink.read_at(ByteOffset(place), &mut found[..there])?;
            if read != there || found[..there] != *in_file || !is_zero(beyond) {
                return Err(ExportError::Resume {
                    output: sink.name().to_owned(),
                    source: ResumeError::TailDiffers {
                        offset: ByteOffset(piece),
                        before: ByteCount(position.0 - piece),
                    },
                });
            }
            pieces += 1;
            if !is_zero(&expected) {
                compared += PIECE_LENGTH;
            }
            if compared >= TAIL || pieces >= MOST_PIECES {
                return Ok(());
            }
        }
        end = start;
    }
    Ok(())
}

/// More than a server has accepted and a client does not know of; read again in a fraction of a
/// second.
const TAIL: usize = 16 << 20;

/// No more than this is read to find that much: the largest payload block, in which there is
/// something somewhere, and as much again.
const MOST_PIECES: usize = 512;
