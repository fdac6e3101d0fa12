//! Volumes that mkntfs makes, edited in an overlay, and what others read of the result.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_disk::block::{
    BlockRead, BlockWrite, MemoryDisk, OpenOptions, Overlay, WholeDisk, open_writable,
};
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, FileWrite, Security, ShortNames, VolumeEdit, WORKER_ARGUMENT, WorkerProgram,
};
use ce_disk::volume::{FileMeta, NtfsVolume, WinPath};
use ce_tests::oracle::{self, Listed};
use ce_tests::tool::{FLS, MKNTFS, NTFSFIX, output_of, said};
use tempfile::TempDir;

/// A volume as mkntfs made it, and what was done to it by hand.
pub struct Volume {
    pub folder: TempDir,
    pub base: MemoryDisk,
}

/// How a volume is divided.
#[derive(Clone, Copy, Debug)]
pub struct Geometry {
    pub cluster: u32,
    pub sector: u32,
}

pub const GEOMETRIES: [Geometry; 7] = [
    Geometry::new(512, 512),
    Geometry::new(1024, 512),
    Geometry::new(4096, 512),
    Geometry::new(4096, 4096),
    Geometry::new(16_384, 512),
    Geometry::new(65_536, 512),
    Geometry::new(65_536, 4096),
];

pub const USUAL: Geometry = Geometry::new(4096, 512);

impl Geometry {
    const fn new(cluster: u32, sector: u32) -> Self {
        Self { cluster, sector }
    }

    fn sectors(self) -> SectorSizes {
        let size = match self.sector {
            4096 => SectorSize::B4096,
            _ => SectorSize::B512,
        };
        SectorSizes {
            logical: size,
            physical: size,
        }
    }
}

impl Volume {
    pub fn new(mib: u64, geometry: Geometry) -> Result<Self> {
        Self::prepared(mib, geometry, |_| Ok(()))
    }

    /// A volume that `prepare` changes as a file before it becomes a disk.
    pub fn prepared(
        mib: u64,
        geometry: Geometry,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("before");
        File::create(&path)?.set_len(mib << 20)?;
        let (cluster, sector) = (geometry.cluster.to_string(), geometry.sector.to_string());
        let options = [
            "-q", "-F", "-Q", "-p", "0", "-H", "255", "-S", "63", "-c", &cluster, "-s", &sector,
        ];
        let mut command = MKNTFS.command()?;
        let output = output_of(command.args(options).arg(&path))?;
        ensure!(output.status.success(), "{}", said(&output));
        prepare(&path)?;
        let base = memory(&fs::read(&path)?, geometry.sectors());
        Ok(Self { folder, base })
    }

    pub fn overlay(&self) -> Overlay<&MemoryDisk> {
        Overlay::in_memory(&self.base, ByteCount(self.base.size().0))
    }

    /// Writes what `disk` has become to a file.
    pub fn save(&self, disk: &impl BlockRead) -> Result<Image> {
        let path = self.folder.path().join("after");
        fs::write(&path, bytes_of(disk)?)?;
        Ok(Image { path })
    }
}

/// The worker of the tests.
pub fn worker() -> WorkerProgram {
    WorkerProgram::new(env!("CARGO_BIN_EXE_ntfs-worker"), [WORKER_ARGUMENT])
}

pub fn writer<D: BlockRead + BlockWrite>(disk: D) -> ConfinedWriter<D> {
    ConfinedWriter::new(disk, ShortNames::Create).with_worker(worker())
}

/// Begins to change the disk in a file, with `scratch` for what is on its way to it.
pub fn begin(disk: &Path, scratch: &Path) -> Result<Transaction<Box<dyn WholeDisk>>> {
    let attempt = || -> Result<_> {
        let disk = open_writable(disk, &OpenOptions::default())?;
        let scratch = Arc::new(ScratchFolder::open(scratch)?);
        Ok(Transaction::begin(disk, scratch, None)?)
    };
    // A child that another test has started shares the locks of this process until it executes,
    // also those that are given up meanwhile.
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            begun => return begun,
        }
    }
}

/// A volume in a file, for others to read.
pub struct Image {
    pub path: PathBuf,
}

impl Image {
    /// What dissect.ntfs reads.
    pub fn dissected(&self) -> Result<BTreeMap<String, Listed>> {
        oracle::dissected(&self.path)
    }

    /// The names that sleuthkit finds, with the numbers of their records.
    pub fn sleuthed(&self) -> Result<BTreeMap<String, u64>> {
        let mut command = FLS.command()?;
        command.env("LC_ALL", "C.UTF-8");
        let output = output_of(
            command
                .args(["-r", "-p", "-u", "-f", "ntfs"])
                .arg(&self.path),
        )?;
        ensure!(output.status.success(), "fls: {}", said(&output));
        let mut found = BTreeMap::new();
        for line in std::str::from_utf8(&output.stdout)?.lines() {
            let (head, name) = line.split_once(":\t").context("fls prints a tab")?;
            let record = head
                .split_whitespace()
                .last()
                .context("fls prints a record")?;
            let record: u64 = record.split('-').next().unwrap_or_default().parse()?;
            // Streams are listed too, as is a folder of files that nothing leads to.
            if record >= 24 && !name.contains(':') && !name.starts_with("$OrphanFiles") {
                found.insert(name.replace('/', "\\"), record);
            }
        }
        Ok(found)
    }

    /// Fails unless `ntfsfix -n` finds nothing.
    pub fn is_sound(&self) -> Result<()> {
        let mut command = NTFSFIX.command()?;
        let output = output_of(command.arg("-n").arg(&self.path))?;
        let text = said(&output);
        ensure!(
            output.status.success() && text.contains("processed successfully"),
            "ntfsfix: {text}"
        );
        Ok(())
    }
}

/// Holds everything that others read of `disk` against `model`: paths and contents, `None` for
/// folders.
pub fn all_agree(
    volume: &Volume,
    disk: &impl BlockRead,
    model: &BTreeMap<String, Option<Vec<u8>>>,
) -> Result<BTreeMap<String, Listed>> {
    agree_on(&volume.save(disk)?, disk, model)
}

/// Holds what others read of `image`, and we of `disk`, which is the same, against `model`.
pub fn agree_on(
    image: &Image,
    disk: &impl BlockRead,
    model: &BTreeMap<String, Option<Vec<u8>>>,
) -> Result<BTreeMap<String, Listed>> {
    image.is_sound()?;
    let dissected = image.dissected()?;
    let sleuthed = image.sleuthed()?;
    let ours = NtfsVolume::open(disk)?;
    let names = |names: Vec<&String>| format!("{names:#?}");
    let expected = names(model.keys().collect());
    assert_eq!(names(dissected.keys().collect()), expected, "dissect.ntfs");
    for (path, content) in model {
        let listed = &dissected[path];
        // It shows names that are left over in blocks of an index as well: more than there are.
        assert_eq!(
            sleuthed.get(path),
            Some(&listed.record),
            "sleuthkit: {path}"
        );
        assert_eq!(listed.anyone_writes, Some(false), "{path} {listed:?}");
        let wanted: WinPath = path.parse()?;
        let meta = ours.metadata(&wanted)?;
        assert_eq!(meta.id.record, listed.record, "{path}");
        assert_eq!(meta.is_folder(), content.is_none(), "{path}");
        assert_eq!(listed.folder, content.is_none(), "{path}");
        if let Some(content) = content {
            assert_eq!(listed.size, content.len() as u64, "{path}");
            assert_eq!(
                listed.index_size, listed.size,
                "{path}: the size in the folder"
            );
            assert_eq!(listed.md5.as_deref(), Some(md5(content).as_str()), "{path}");
            assert!(
                ours.read(&wanted, ByteCount::mib(64))? == *content,
                "{path}"
            );
        }
    }
    Ok(dissected)
}

fn md5(bytes: &[u8]) -> String {
    use ce_disk::md5::Md5;
    use digest::Digest;
    let digest = Md5::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn path(text: &str) -> WinPath {
    text.parse().expect("a path of a test")
}

pub fn write_file(file: &str, content: &[u8]) -> VolumeEdit {
    VolumeEdit::WriteFile(file_write(file, content))
}

pub fn file_write(file: &str, content: &[u8]) -> FileWrite {
    FileWrite {
        path: path(file),
        content: Arc::new(content.to_vec()),
        attributes: None,
        times: None,
        security: Security::Inherit,
    }
}

pub fn create_folder(folder: &str) -> VolumeEdit {
    VolumeEdit::CreateFolder {
        path: path(folder),
        security: Security::Inherit,
    }
}

pub fn delete(file: &str) -> VolumeEdit {
    VolumeEdit::Delete { path: path(file) }
}

pub fn delete_tree(folder: &str) -> VolumeEdit {
    VolumeEdit::DeleteTree { path: path(folder) }
}

pub fn meta(disk: &impl BlockRead, file: &str) -> FileMeta {
    let volume = NtfsVolume::open(disk).expect("a volume");
    volume.metadata(&path(file)).expect("a file")
}

pub fn memory(bytes: &[u8], sectors: SectorSizes) -> MemoryDisk {
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), sectors);
    for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write(ByteOffset(page * 4096), bytes);
        }
    }
    disk
}

pub fn bytes_of(disk: &impl BlockRead) -> Result<Vec<u8>> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes)?;
    Ok(bytes)
}

/// Bytes that look random, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let words = (seed..).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31));
    let bytes = words.flat_map(|word| word.wrapping_mul(word | 1).to_le_bytes());
    bytes.take(length).collect()
}
