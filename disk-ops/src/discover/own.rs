//! The disk of the image of the Compositing Engine: such a machine lives in memory, and nothing that is
//! mounted shows what it was started from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::{Uuid, uuid};

/// Whether the disk behind `node` has the image on it: its GPT has the GUID that all copies of the
/// image have. What can't be read has not; a job that wants it fails when it reads it.
pub(super) fn has_image(node: &Path, sector_bytes: u32) -> bool {
    disk_guid(node, sector_bytes).is_ok_and(|guid| guid == Some(IMAGE_DISK))
}

/// The disk's GUID in the GPT header of sector 1 (UEFI 2.10, 5.3.2).
fn disk_guid(node: &Path, sector_bytes: u32) -> io::Result<Option<Uuid>> {
    let mut header = [0; 72];
    File::open(node)?.read_exact_at(&mut header, u64::from(sector_bytes))?;
    let (signature, guid) = (&header[..8], &header[56..]);
    let guid: Result<[u8; 16], _> = guid.try_into();
    Ok(guid
        .ok()
        .filter(|_| signature == b"EFI PART")
        .map(Uuid::from_bytes_le))
}

/// `packaging/image/build.sh` gives it to the disk.
const IMAGE_DISK: Uuid = uuid!("ce0b0007-1a6e-4d15-8b00-0ce000d15c00");

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    fn disk(guid: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let made = Command::new("sgdisk")
            .arg(format!("--disk-guid={guid}"))
            .arg(file.path())
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .expect("sgdisk is missing: apt-get install gdisk");
        assert!(made.status.success(), "{made:?}");
        file
    }

    #[test]
    fn the_disk_of_the_image_is_known_by_its_guid() {
        let image = disk("CE0B0007-1A6E-4D15-8B00-0CE000D15C00");
        assert!(has_image(image.path(), 512));
        // With other sectors the header would lie elsewhere.
        assert!(!has_image(image.path(), 4096));
        let other = disk("CE0B0007-1A6E-4D15-8B00-0CE000D15C01");
        assert!(!has_image(other.path(), 512));
    }

    #[test]
    fn what_is_no_disk_of_ours_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!has_image(file.path(), 512));
        fs::write(file.path(), [0; 4096]).unwrap();
        assert!(!has_image(file.path(), 512));
        assert!(!has_image(Path::new("/nonexistent"), 512));
    }

    #[test]
    fn the_image_is_built_with_the_guid_that_is_looked_for() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image/build.sh");
        let script = fs::read_to_string(script).unwrap();
        let option = format!("--disk-guid={}", IMAGE_DISK.to_string().to_uppercase());
        assert!(script.contains(&option), "{option} is not in build.sh");
    }
}
