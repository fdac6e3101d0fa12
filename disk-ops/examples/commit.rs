//! Commits a pattern to a disk, for tests that kill it: `commit DISK SCRATCH BYTE`.
//!
//! It writes BYTE (a number) over every second MiB of the disk, in one transaction, and says
//! `begun` when it begins to commit.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use ce_disk::block::{BlockRead, BlockWrite, OpenOptions, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::{ByteCount, ByteOffset};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [disk, scratch, byte] = arguments.as_slice() else {
        return Err("usage: commit DISK SCRATCH BYTE".into());
    };
    let piece = vec![byte.parse::<u8>()?; 1 << 20];
    let disk = open_writable(Path::new(disk), &OpenOptions::default())?;
    let scratch = Arc::new(ScratchFolder::open(Path::new(scratch))?);
    let transaction = Transaction::begin(disk, scratch, None)?;
    let overlay = transaction.disk();
    for mib in (0..overlay.size().0 >> 20).step_by(2) {
        overlay.write_at(ByteCount::mib(mib).end(), &piece)?;
    }
    // Something that is there whenever the commit is: an odd place, and less than a block.
    overlay.write_at(ByteOffset(overlay.size().0 - 7), &piece[..7])?;
    println!("begun");
    transaction.commit(&Cancel::default(), &Progress::default())?;
    println!("committed");
    Ok(())
}
