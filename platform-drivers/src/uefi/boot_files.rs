//! The boot files that an image brings along, for the EFI system partition.

use ce_disk::units::ByteCount;
use ce_disk::volume::{WinPath, WindowsVolume};

use super::UefiError;
use crate::apply::{Content, FileChange};

/// Boot files, and where they go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootFiles {
    files: Vec<BootFile>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct BootFile {
    from: WinPath,
    to: WinPath,
    size: ByteCount,
}

impl BootFiles {
    /// All files below `Boot\EFI`, `Boot\Fonts` and `Boot\Resources` of the Windows in `folder`, as
    /// `bcdboot` takes them, and the boot manager once more as what firmware starts that knows of no
    /// entry.
    pub(super) fn find(volume: &dyn WindowsVolume, folder: &WinPath) -> Result<Self, UefiError> {
        let manager = folder.join(r"Boot\EFI\bootmgfw.efi")?;
        let loader = folder.join(r"System32\winload.efi")?;
        for file in [&manager, &loader] {
            if !volume.exists(file)? {
                return Err(UefiError::Missing { file: file.clone() });
            }
        }
        let mut found = Self { files: Vec::new() };
        for (from, to) in FOLDERS {
            let from = folder.join(from)?;
            if volume.exists(&from)? {
                found.add(volume, &from, &to.parse()?, DEEPEST)?;
            }
        }
        let size = volume.metadata(&manager)?.size;
        found.files.push(BootFile {
            from: manager,
            to: FALLBACK.parse()?,
            size,
        });
        Ok(found)
    }

    /// How much room they take, each rounded up to whole clusters of any size.
    pub fn size(&self) -> ByteCount {
        let sizes = self.files.iter();
        let whole = |file: &BootFile| file.size.0.saturating_add(CLUSTER);
        ByteCount(sizes.map(whole).fold(0, u64::saturating_add))
    }

    pub(super) fn read(&self, volume: &dyn WindowsVolume) -> Result<Vec<FileChange>, UefiError> {
        let read = |file: &BootFile| {
            Ok(FileChange {
                path: file.to.clone(),
                content: Content::Written(volume.read(&file.from, file.size)?),
            })
        };
        self.files.iter().map(read).collect()
    }

    fn add(
        &mut self,
        volume: &dyn WindowsVolume,
        from: &WinPath,
        to: &WinPath,
        depth: u32,
    ) -> Result<(), UefiError> {
        for entry in volume.list(from)? {
            let (from, to) = (from.join(&entry.name)?, to.join(&entry.name)?);
            if entry.attributes.is_folder() {
                if depth > 0 {
                    self.add(volume, &from, &to, depth - 1)?;
                }
                continue;
            }
            // What is listed of a file with several names may be old.
            let size = volume.metadata(&from)?.size;
            self.files.push(BootFile { from, to, size });
            if self.size() > LARGEST || self.files.len() > MOST_FILES {
                return Err(UefiError::TooLarge {
                    folder: self.files.first().map_or(WinPath::ROOT, |f| f.from.clone()),
                    limit: LARGEST,
                });
            }
        }
        Ok(())
    }
}

/// Folders of Windows, and of the EFI system partition.
const FOLDERS: [(&str, &str); 3] = [
    (r"Boot\EFI", r"EFI\Microsoft\Boot"),
    (r"Boot\Fonts", r"EFI\Microsoft\Boot\Fonts"),
    (r"Boot\Resources", r"EFI\Microsoft\Boot\Resources"),
];

const FALLBACK: &str = r"EFI\Boot\bootx64.efi";

/// Languages have folders of their own, and nothing lies deeper.
const DEEPEST: u32 = 3;

/// Windows with all languages has some 40 MiB in some 300 files.
const LARGEST: ByteCount = ByteCount::mib(256);
const MOST_FILES: usize = 4096;

/// The largest cluster of an EFI system partition that is made here.
const CLUSTER: u64 = 4096;
