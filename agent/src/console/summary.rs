//! The few lines that a person reads when a job is complete.

use std::fmt::Write;

use ce_disk::units::ByteCount;

use super::{Style, changes, inspection};
use crate::job::{Artifacts, Job};

/// What came of a job, ready to print.
pub(super) fn of(job: &Job, style: Style) -> String {
    let found = &job.artifacts;
    match job.operation {
        // As `md5sum` prints it, so that scripts can take it apart in the way they know.
        "hash" => format!("{}\n", found.md5_hash.as_deref().unwrap_or_default()),
        "inspect" => found
            .disk
            .as_ref()
            .map(|found| inspection::page(found, style))
            .unwrap_or_default(),
        "convertToUefi" | "prepare" => changes::page(found, job.status, style),
        "prepareAndPublish" => changes::page(found, job.status, style) + &exported(found),
        _ => exported(found),
    }
}

fn exported(found: &Artifacts) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<8}{value}");
    };
    if let Some(image) = &found.output_image {
        line("image", image.clone());
    }
    if let (Some(file), Some(disk)) = (found.file_size_bytes, found.virtual_size_bytes) {
        line(
            "size",
            format!("{}, for a disk of {}", ByteCount(file), ByteCount(disk)),
        );
    }
    if let Some(skipped) = found.skipped_bytes {
        let skipped = ByteCount(skipped);
        line(
            "free",
            format!("{skipped:#} of free clusters are zeros in the image"),
        );
    }
    if let Some(md5) = &found.md5_hash {
        line("md5", md5.clone());
    }
    if let Some(from) = found.resumed_from_bytes {
        line("resumed", format!("from {:#} of the disk", ByteCount(from)));
    }
    if found.verified == Some(true) {
        line("checked", "read back, and the same as the disk".to_owned());
    }
    if let (Some(seconds), Some(disk)) = (found.durations.get("export"), found.virtual_size_bytes) {
        let rate = disk as f64 / 1_048_576.0 / seconds.max(0.001);
        line("time", format!("{seconds:.1} s ({rate:.0} MiB/s of disk)"));
    }
    if let Some(registration) = &found.registration {
        let _ = writeln!(text, "{registration}");
    }
    text
}
