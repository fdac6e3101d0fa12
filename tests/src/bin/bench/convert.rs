//! `ce-agent convert-to-uefi` of the large Windows disk, laid out as a BIOS starts it.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use ce_disk::block::{BlockRead, BlockWrite, OpenOptions, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::ByteOffset;
use ce_disk::volume::{FatEdit, FatLabel, format_fat, write_fat};
use ce_platform::Platform;
use ce_tests::agent::Cost;
use ce_tests::disk::{MBR_SIGNATURE, Placed, SectorSize, mbr};

use crate::guest::{BIOS_STORE, Draft, hive, program};
use crate::prepare::LargeGuest;
use crate::windows::{BOOT_LENGTH, BOOT_START, WINDOWS_LENGTH, WINDOWS_START, boot_of};

/// The disk that is converted.
pub struct BiosGuest(LargeGuest);

impl BiosGuest {
    /// A guest of vSphere, in `folder`, on the disk in `kept`.
    pub fn make(kept: &Path, folder: &Path) -> Result<Self> {
        let mut draft = Draft::windows();
        draft.install_drivers_of(Platform::Azure);
        draft.came_from(Platform::Vsphere);
        draft.drive_letter('C', MBR_SIGNATURE, WINDOWS_START);
        let mut guest = draft.guest();
        let loader = r"Windows\Boot\EFI\bootmgfw.efi".to_owned();
        guest.windows.insert(loader, program(0x8664));
        let guest = LargeGuest::of(&guest, "bios.raw", kept, folder)?;
        start_by_bios(&guest.source, folder)?;
        Ok(Self(guest))
    }

    /// Runs it once.
    pub fn round(&self) -> Result<Cost> {
        self.0.run("convert-to-uefi", &[])
    }
}

/// Gives the disk an MBR in place of its GPT, and the files of a BIOS on its first partition.
fn start_by_bios(disk: &Path, folder: &Path) -> Result<()> {
    let scratch = Arc::new(ScratchFolder::open(&folder.join("bios-scratch"))?);
    let disk = open_writable(disk, &OpenOptions::default())?;
    let transaction = Transaction::begin(disk, scratch, None)?;
    let disk = transaction.disk();
    for start in [0, disk.size().0 - GPT_LENGTH] {
        disk.write_at(ByteOffset(start), &[0; GPT_LENGTH as usize])?;
    }
    // Of FAT32 and of NTFS; the bytes of Windows stay where they are.
    let partitions = [
        (
            0x0C,
            Placed {
                offset: BOOT_START,
                length: BOOT_LENGTH,
            },
        ),
        (
            0x07,
            Placed {
                offset: WINDOWS_START,
                length: WINDOWS_LENGTH,
            },
        ),
    ];
    disk.write_at(ByteOffset(0), &mbr(&partitions, SectorSize::B512)?)?;
    let boot = boot_of(disk)?;
    let name = *b"SYSTEM     ";
    format_fat(&boot, FatLabel { name, serial: 1 })?;
    let files = [
        ("bootmgr", b"code of a BIOS".to_vec()),
        (r"Boot\BCD", hive(BIOS_STORE)),
    ];
    let edits = files.into_iter().map(|(path, content)| {
        let path = path.parse()?;
        Ok(FatEdit::Write { path, content })
    });
    write_fat(&boot, &edits.collect::<Result<Vec<_>>>()?)?;
    transaction.commit(&Cancel::default(), &Progress::default())?;
    Ok(())
}

/// A copy of a GPT: its header and 128 entries; at the front behind the MBR.
const GPT_LENGTH: u64 = 34 * 512;
