//! A disk with a Windows volume of 64 GiB and 200,000 files: a look at it, and what a prepare writes
//! to it.
//!
//! The disk is made once, by the writer itself, and stays in the bench folder. Nobody changes it:
//! whoever writes gets a copy, and what was written is read back by the reader of `ce-disk`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_disk::block::{BlockRead, OpenOptions, Window, open, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, ContentSource, FileWrite, NtfsWrite, Security, ShortNames, VolumeEdit,
    WORKER_ARGUMENT, WorkerProgram,
};
use ce_disk::volume::{NtfsVolume, WinPath};
use ce_regf::{FileTime, Hive};
use ce_tests::agent::{Cost, Invocation, binary, ce_agent, drop_from_page_cache};
use ce_tests::guest::{PhonyWindows, inspected};
use ce_tests::pattern::{MIB, write_noise};
use ce_tests::tool::{CP, HIVEXGET, ICAT, IFIND, LOSETUP, UNSHARE, text};
use serde_json::Value;

use crate::{hive, limits, memory};

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct WindowsRound {
    /// The payload applied in an overlay by a confined process, read back, and committed by a
    /// journal. The memory of program and worker is added up.
    pub commit: Cost,
    /// How much of that had passed when the commit began.
    pub until_commit: Duration,
    /// The payload copied to the volume that ntfs-3g has mounted, until it is on the disk. Only
    /// root can mount.
    pub mounted: Option<Cost>,
    /// As many bytes written to a file, past the page cache, until they are on the disk.
    pub write: Duration,
    /// `ce-agent inspect`.
    pub inspect: Cost,
    /// Build number and name of the computer by `ifind`, `icat` and `hivexget`.
    pub by_hand: Cost,
}

/// The disk, and what is written to it.
pub struct LargeWindows {
    disk: PathBuf,
    folder: PathBuf,
    /// A folder with the folders and files that are written.
    payload: PathBuf,
    /// How much is written.
    pub payload_size: u64,
}

impl LargeWindows {
    /// Takes the disk in `kept`, or makes it there; everything else is made in `folder`.
    pub fn make(kept: &Path, folder: &Path) -> Result<Self> {
        let disk = kept_disk(kept)?;
        let payload = folder.join("payload");
        let payload_size = make_payload(&payload, &disk)?;
        Ok(Self {
            disk,
            folder: folder.to_owned(),
            payload,
            payload_size,
        })
    }

    /// Runs everyone once.
    pub fn round(&self) -> Result<WindowsRound> {
        drop_from_page_cache(&self.disk)?;
        memory::fill(&self.folder)?;
        let inspect = ce_agent(["inspect", text(&self.disk)?])?
            .expect_code(0)?
            .cost;
        drop_from_page_cache(&self.disk)?;
        memory::fill(&self.folder)?;
        let by_hand = self.look_by_hand()?;

        let copy = self.copy()?;
        let (commit, until_commit) = self.commit(&copy)?;
        self.expect_payload(&copy)?;
        let mounted = match can_mount() {
            false => None,
            true => {
                let copy = self.copy()?;
                let cost = self.copy_to_mounted(&copy)?;
                self.expect_payload(&copy)?;
                Some(cost)
            }
        };
        fs::remove_file(copy)?;
        Ok(WindowsRound {
            commit,
            until_commit,
            mounted,
            write: limits::write_directly(&self.folder, self.payload_size.next_multiple_of(4096))?,
            inspect,
            by_hand,
        })
    }

    fn look_by_hand(&self) -> Result<Cost> {
        for tool in [IFIND, ICAT, HIVEXGET] {
            tool.path()?;
        }
        let sector = (WINDOWS_START / 512).to_string();
        let arguments = [
            "-c",
            LOOK_BY_HAND,
            "sh",
            text(&self.disk)?,
            &sector,
            text(&self.folder)?,
        ];
        let run = Invocation::new("sh", arguments).expect_code(0)?;
        ensure!(run.stdout == "22631\nGOLD\n", "{:?}", run.stdout);
        Ok(run.cost)
    }

    /// A copy of the disk that is not in the page cache.
    fn copy(&self) -> Result<PathBuf> {
        let copy = self.folder.join("windows.raw");
        CP.run(["--sparse=auto", text(&self.disk)?, text(&copy)?])?;
        drop_from_page_cache(&copy)?;
        drop_from_page_cache(&self.disk)?;
        memory::fill(&self.folder)?;
        Ok(copy)
    }

    fn commit(&self, disk: &Path) -> Result<(Cost, Duration)> {
        let program = std::env::current_exe()?.with_file_name("commit-folder");
        let scratch = self.folder.join("scratch");
        let partition = WINDOWS_PARTITION.to_string();
        let arguments = [
            text(disk)?,
            &partition,
            text(&self.payload)?,
            text(&scratch)?,
        ];
        let run = Invocation::new(program, arguments).expect_code(0)?;
        let said = run.stdout.lines().last().unwrap_or_default();
        let said: Value = serde_json::from_str(said).with_context(|| run.stdout.clone())?;
        let number = |name: &str| {
            said[name]
                .as_f64()
                .with_context(|| format!("{name}: {said}"))
        };
        let peak_memory = (number("peakMemory")? + number("workerPeakMemory")?) as u64;
        let until_commit = Duration::from_secs_f64(number("secondsUntilCommit")?);
        let cost = Cost {
            peak_memory,
            ..run.cost
        };
        Ok((cost, until_commit))
    }

    fn copy_to_mounted(&self, disk: &Path) -> Result<Cost> {
        LOSETUP.path()?;
        let mount = self.folder.join("mount");
        fs::create_dir_all(&mount)?;
        let (start, length) = (WINDOWS_START.to_string(), WINDOWS_LENGTH.to_string());
        let arguments = [
            "--mount",
            "sh",
            "-c",
            COPY_TO_MOUNTED,
            "sh",
            text(disk)?,
            &start,
            &length,
            text(&mount)?,
            text(&self.payload)?,
        ];
        Ok(Invocation::new(UNSHARE.path()?, arguments)
            .expect_code(0)?
            .cost)
    }

    /// Fails unless everything of the payload is on `disk`.
    fn expect_payload(&self, disk: &Path) -> Result<()> {
        let disk = open(disk, &OpenOptions::default())?;
        let volume = NtfsVolume::open(windows_of(&disk)?)?;
        for (path, file) in files_of(&self.payload)? {
            let expected = fs::read(file)?;
            let found = volume.read(&path, ByteCount::mib(256))?;
            ensure!(found == expected, "{path} is not what was written");
        }
        Ok(())
    }
}

/// The disk that is kept in a folder; it is made if it is not there.
pub fn kept_disk(folder: &Path) -> Result<PathBuf> {
    let disk = folder.join("windows-64g-200k.raw");
    if !disk.exists() {
        make_disk(&disk)?;
    }
    Ok(disk)
}

/// Whether this process may mount, and the kernel has what it takes.
fn can_mount() -> bool {
    let devices = ["/dev/fuse", "/dev/loop-control"];
    rustix::process::geteuid().is_root() && devices.iter().all(|path| Path::new(path).exists())
}

fn make_disk(path: &Path) -> Result<()> {
    eprintln!("making the large Windows disk, which is kept");
    let partial = path.with_extension("partial");
    if partial.exists() {
        fs::remove_file(&partial)?;
    }
    let windows = PhonyWindows::vda_on_vsphere();
    let size = WINDOWS_LENGTH + 134 * MIB;
    let built = windows.disk(size)?.build(&partial)?;
    let place = built.partitions[WINDOWS_PARTITION - 1];
    ensure!(
        (place.offset, place.length) == (WINDOWS_START, WINDOWS_LENGTH),
        "{place:?}"
    );
    // Written to the disk itself, every block of an index or table would be a write of its own.
    let folder = tempfile::tempdir_in(path.parent().context("a file is in a folder")?)?;
    let scratch = Arc::new(ScratchFolder::open(folder.path())?);
    let disk = open_writable(&partial, &OpenOptions::default())?;
    let transaction = Transaction::begin(disk, scratch, None)?;
    let volume = windows_of(transaction.disk())?;
    let mut edits = Vec::new();
    let content: Arc<dyn ContentSource> = Arc::new(vec![7; 1000]);
    for folder in 0..200 {
        let folder = format!(r"Windows\WinSxS\component {folder:03}");
        edits.push(VolumeEdit::CreateFolder {
            path: folder.parse()?,
            security: Security::Inherit,
        });
        for file in 0..999 {
            edits.push(write_file(
                &format!(r"{folder}\file {file:04}.dll"),
                &content,
            )?);
        }
    }
    for (name, keys_below, count) in LARGE_HIVES {
        let path = format!(r"Windows\System32\config\{name}");
        let bytes = NtfsVolume::open(&volume)?.read(&path.parse()?, ByteCount::mib(16))?;
        let content: Arc<dyn ContentSource> = Arc::new(grown(bytes, keys_below, count)?);
        edits.push(write_file(&path, &content)?);
    }
    let worker = WorkerProgram::new(binary()?, [WORKER_ARGUMENT]);
    let started = Instant::now();
    // Short names of a thousand names that begin alike take a thousand looks each.
    ConfinedWriter::new(&volume, ShortNames::Omit)
        .with_worker(worker)
        .with_time_limit(Duration::from_secs(3600))
        .apply(&edits)?;
    transaction.commit(&Cancel::default(), &Progress::default())?;
    eprintln!("... in {:.0} s", started.elapsed().as_secs_f64());
    let found = inspected(&partial)?;
    let (name, blockers) = (&found["windows"][0]["computer"]["name"], &found["blockers"]);
    ensure!(
        name == "GOLD" && *blockers == Value::Array(vec![]),
        "{found}"
    );
    Ok(fs::rename(partial, path)?)
}

/// The hive in `bytes` with so many more keys.
pub fn grown(bytes: Vec<u8>, keys_below: &str, count: u32) -> Result<Vec<u8>> {
    let now = FileTime::from_ticks(133_000_000_000_000_000);
    let mut hive = Hive::load(bytes)?;
    hive::add_keys(&mut hive.edit(now)?, keys_below, count)?;
    Ok(hive.save(now)?.bytes.to_vec())
}

/// 100 driver files, and SYSTEM and SOFTWARE, each a MiB longer than it is on `disk` and different
/// in every block. Gives how much that is.
fn make_payload(folder: &Path, disk: &Path) -> Result<u64> {
    let disk = open(disk, &OpenOptions::default())?;
    let volume = NtfsVolume::open(windows_of(&disk)?)?;
    let mut files = BTreeMap::new();
    for name in ["SYSTEM", "SOFTWARE"] {
        let path = format!(r"Windows\System32\config\{name}").parse()?;
        let size = volume.metadata(&path)?.size;
        files.insert(format!("config/{name}"), size.0 + MIB);
    }
    let store = "DriverStore/FileRepository/net.inf_amd64_0123456789abcdef";
    for number in 0..100 {
        let folder = match number % 5 {
            0 => "drivers",
            _ => store,
        };
        files.insert(format!("{folder}/bench{number}.sys"), 200_000);
    }
    for (seed, (name, size)) in (0..).zip(&files) {
        let path = folder.join("Windows/System32").join(name);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        let file = File::create_new(path)?;
        write_noise(&file, seed, 0, *size)?;
        file.sync_all()?;
    }
    Ok(files.values().sum())
}

/// Every file below `folder`: where it goes on the volume, and where it is.
fn files_of(folder: &Path) -> Result<Vec<(WinPath, PathBuf)>> {
    let mut files = Vec::new();
    let mut folders = vec![(WinPath::ROOT, folder.to_owned())];
    while let Some((to, folder)) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let inner = (to.join(text(Path::new(&entry.file_name()))?)?, entry.path());
            match entry.file_type()?.is_dir() {
                true => folders.push(inner),
                false => files.push(inner),
            }
        }
    }
    Ok(files)
}

/// The volume of Windows.
pub fn windows_of<D: BlockRead>(disk: D) -> Result<Window<D>> {
    let (start, length) = (ByteOffset(WINDOWS_START), ByteCount(WINDOWS_LENGTH));
    let name = format!("partition {WINDOWS_PARTITION}");
    Ok(Window::new(disk, start, length, name)?)
}

/// The EFI system partition.
pub fn boot_of<D: BlockRead>(disk: D) -> Result<Window<D>> {
    let (start, length) = (ByteOffset(BOOT_START), ByteCount(BOOT_LENGTH));
    Ok(Window::new(disk, start, length, "partition 1".to_owned())?)
}

/// A file to be written, as the folder it is in is protected.
pub fn write_file(path: &str, content: &Arc<dyn ContentSource>) -> Result<VolumeEdit> {
    Ok(VolumeEdit::WriteFile(FileWrite {
        path: path.parse()?,
        content: Arc::clone(content),
        attributes: None,
        times: None,
        security: Security::Inherit,
    }))
}

/// Hives of the size that they have where much is installed: how many keys are added, and where.
pub const LARGE_HIVES: [(&str, &str, u32); 2] = [
    ("SYSTEM", r"ControlSet001\Control\DeviceClasses", 27_000),
    ("SOFTWARE", r"Classes\CLSID", 120_000),
];

/// DISK SECTOR FOLDER: what a person types who wants to know which Windows it is.
const LOOK_BY_HAND: &str = r#"
set -e
for hive in SOFTWARE SYSTEM; do
    record=$(ifind -o "$2" -n "Windows/System32/config/$hive" "$1")
    icat -o "$2" "$1" "$record" >"$3/$hive.found"
done
hivexget "$3/SOFTWARE.found" 'Microsoft\Windows NT\CurrentVersion' CurrentBuildNumber
hivexget "$3/SYSTEM.found" 'ControlSet001\Control\ComputerName\ComputerName' ComputerName
"#;

/// DISK START LENGTH MOUNT PAYLOAD: what a person types who wants to copy files to the volume.
const COPY_TO_MOUNTED: &str = r#"
set -e
device=$(losetup --find --show --offset "$2" --sizelimit "$3" "$1")
trap 'losetup --detach "$device"' EXIT
ntfs-3g -o no_detach "$device" "$4" &
until mountpoint --quiet "$4"; do
    kill -0 $!
    sleep 0.01
done
cp -r "$5/." "$4"
umount "$4"
wait $!
sync "$device" "$1"
"#;

/// As [`PhonyWindows::disk`] lays out a disk: behind 1 MiB, an EFI system partition of 100 MiB and
/// a reserved one of 16.
pub const WINDOWS_PARTITION: usize = 3;
pub const BOOT_START: u64 = MIB;
pub const BOOT_LENGTH: u64 = 100 * MIB;
pub const WINDOWS_START: u64 = 117 * MIB;
pub const WINDOWS_LENGTH: u64 = 64 * 1024 * MIB;
