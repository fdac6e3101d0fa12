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
        // C: by the signature of the disk and where the partition begins, as Windows has it.
        let place = [&SIGNATURE.to_le_bytes()[..], &WINDOWS_START.to_le_bytes()].concat();
        let place: Vec<String> = place.iter().map(|byte| format!("{byte:02x}")).collect();
        let line = format!("\"\\\\DosDevices\\\\C:\"=hex:{}\n", place.join(","));
        draft
            .system
            .push_str(&format!("\n[MountedDevices]\n{line}"));
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
    disk.write_at(ByteOffset(0), &mbr()?)?;
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

/// An active partition of FAT32 and that of Windows, whose bytes stay where they are.
fn mbr() -> Result<[u8; SECTOR as usize]> {
    let mut block = [0; SECTOR as usize];
    block[440..444].copy_from_slice(&SIGNATURE.to_le_bytes());
    let partitions = [
        (0x80, 0x0C, BOOT_START, BOOT_LENGTH),
        (0x00, 0x07, WINDOWS_START, WINDOWS_LENGTH),
    ];
    for (entry, (active, kind, start, length)) in block[446..].chunks_mut(16).zip(partitions) {
        entry[0] = active;
        entry[4] = kind;
        entry[8..12].copy_from_slice(&u32::try_from(start / SECTOR)?.to_le_bytes());
        entry[12..].copy_from_slice(&u32::try_from(length / SECTOR)?.to_le_bytes());
    }
    block[510..].copy_from_slice(&[0x55, 0xAA]);
    Ok(block)
}

const SECTOR: u64 = 512;

/// By which a BIOS and Windows tell the disk from others.
const SIGNATURE: u32 = 0x5A17_C0DE;

/// A copy of a GPT: its header and 128 entries; at the front behind the MBR.
const GPT_LENGTH: u64 = 34 * SECTOR;
