//! From the firmware to the loader of Windows.

use ce_disk::volume::WindowsVolume;
use uuid::Uuid;

use super::{BootSubject, Chain, SecondReader, Unreadable};
use crate::inspect::Inspection;
use crate::plan::BCD;

pub(super) fn chains(
    inspection: &Inspection,
    windows: &dyn WindowsVolume,
    boot: &BootSubject<'_>,
    store: Option<&[u8]>,
) -> Result<Vec<Chain>, Unreadable> {
    let mut firmware = Chain::new("EFI system partition", false);
    let fallback = match inspection.version.architecture.as_deref() {
        Some("arm64") => r"EFI\Boot\bootaa64.efi",
        Some("x86") => r"EFI\Boot\bootia32.efi",
        _ => r"EFI\Boot\bootx64.efi",
    };
    for file in [r"EFI\Microsoft\Boot\bootmgfw.efi", fallback] {
        presence(boot.volume, "file", file, &mut firmware)?;
    }
    let mut loader = Chain::new("boot configuration data", false);
    match store {
        Some(bytes) => entry(windows, boot, &SecondReader::new(bytes)?, &mut loader)?,
        None => presence(boot.volume, "store", BCD, &mut loader)?,
    }
    Ok(vec![firmware, loader])
}

/// The entry that is started by default.
fn entry(
    windows: &dyn WindowsVolume,
    boot: &BootSubject<'_>,
    store: &SecondReader<'_>,
    chain: &mut Chain,
) -> Result<(), Unreadable> {
    let element = |object: &str, element: &str| format!(r"Objects\{object}\Elements\{element}");
    let object = store.text(&element(BOOT_MANAGER, DEFAULT_OBJECT), "Element")?;
    let Some(object) = object else {
        chain.link("default entry", false, "the boot manager has none");
        return Ok(());
    };
    chain.link("default entry", true, object.as_str());
    for (name, kind) in [("device", DEVICE), ("OS device", OS_DEVICE)] {
        let data = store.data(&element(&object, kind), "Element")?;
        let found = partition(&data.unwrap_or_default());
        let expected = (boot.windows, boot.disk);
        let words = |(partition, disk)| format!("partition {partition} of disk {disk}");
        let text = found.map_or("no partition of a GPT disk".to_owned(), words);
        match found == Some(expected) {
            true => chain.link(name, true, text),
            false => chain.link(name, false, format!("{text}, expected {}", words(expected))),
        };
    }
    let loader = store.text(&element(&object, APPLICATION_PATH), "Element")?;
    presence(windows, "loader", &loader.unwrap_or_default(), chain)
}

/// The partition and the disk of a device element for a partition of a GPT disk: the type stands at
/// 16, the partition at 32, the kind of the disk at 52, the disk at 56.
fn partition(element: &[u8]) -> Option<(Uuid, Uuid)> {
    let number = |at: usize| Some(u32::from_le_bytes(*element.get(at..)?.first_chunk()?));
    let guid = |at: usize| Some(Uuid::from_bytes_le(*element.get(at..)?.first_chunk()?));
    let is_gpt = number(16)? == PARTITION && number(52)? == GPT;
    if is_gpt {
        Some((guid(32)?, guid(56)?))
    } else {
        None
    }
}

fn presence(
    volume: &dyn WindowsVolume,
    link: &'static str,
    file: &str,
    chain: &mut Chain,
) -> Result<(), Unreadable> {
    let is_there = match file.parse() {
        Ok(path) => !file.is_empty() && volume.exists(&path)?,
        Err(_) => false,
    };
    match is_there {
        true => chain.link(link, true, file),
        false => chain.link(link, false, format!("{file:?} is not there")),
    };
    Ok(())
}

const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

/// BcdBootMgrObject_DefaultObject, BcdLibraryDevice_ApplicationDevice, BcdOSLoaderDevice_OSDevice and
/// BcdLibraryString_ApplicationPath.
const DEFAULT_OBJECT: &str = "23000003";
const DEVICE: &str = "11000001";
const OS_DEVICE: &str = "21000001";
const APPLICATION_PATH: &str = "12000002";

/// The kind of a device element that is a partition, and the kind of its disk.
const PARTITION: u32 = 6;
const GPT: u32 = 0;
