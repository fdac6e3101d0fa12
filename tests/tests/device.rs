//! "The disk is a device of the machine, not a file": real block devices of the kernel, made of
//! files by `losetup`, which only root can do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ce_disk::block::{OpenOptions, Window, open, open_writable};
use ce_disk::units::{ByteCount, ByteOffset};
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::disk::{Content, Disk, DiskBuilder, Placed, Role, SectorSize, Table};
use ce_tests::oracle;
use ce_tests::pattern::{MIB, Noise, Pattern};
use ce_tests::tool::{LOSETUP, MKE2FS, MOUNT, UMOUNT, text};
use serde_json::Value;
use tempfile::TempDir;

#[path = "ntfs_write/volume.rs"]
#[expect(dead_code, reason = "the tests of NTFS writing use the rest")]
mod volume;

use volume::{Image, agree_on};

#[test]
fn a_device_is_exported_as_the_file_behind_it_would_be() -> Result<()> {
    let _turn = turn();
    for sectors in [SectorSize::B512, SectorSize::B4096] {
        let folder = tempfile::tempdir()?;
        let raw = folder.path().join("disk.raw");
        DiskBuilder::new(64 * MIB)
            .sector_size(sectors)
            .table(Table::Gpt)
            .partition(
                Role::BasicData,
                32 * MIB,
                Content::Pattern(Pattern::HalfZero, 3),
            )
            .build(&raw)?;
        let device = Device::of(&raw, sectors)?;
        let mut images = Vec::new();
        for (source, image) in [(&raw, "file.vhdx"), (&device.path, "device.vhdx")] {
            let image = folder.path().join(image);
            let arguments = ["export", text(source)?, "--to", text(&image)?, "--hash"];
            let job = ce_agent(arguments)?
                .with(["--json"])
                .expect_code(0)?
                .job()?;
            assert_eq!(job["artifacts"]["md5Hash"], oracle::md5_of_file(&raw)?);
            images.push(fs::read(image)?);
        }
        ensure!(
            images[0] == images[1],
            "the images of file and device differ"
        );

        let job = ce_agent(["inspect", text(&device.path)?, "--json"])?
            .expect_code(0)?
            .job()?;
        let disk = &job["artifacts"]["disk"];
        assert_eq!(disk["logicalSectorBytes"], sectors.bytes());
        assert_eq!(disk["bothCopiesGood"], true, "{disk}");
    }
    Ok(())
}

#[test]
fn a_mounted_device_is_refused_and_its_mount_point_named() -> Result<()> {
    let _turn = turn();
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("volume.raw");
    File::create(&raw)?.set_len(16 * MIB)?;
    MKE2FS.run(["-q", "-t", "ext4", text(&raw)?])?;
    let device = Device::of(&raw, SectorSize::B512)?;
    let mount_point = folder.path().join("mounted");
    fs::create_dir(&mount_point)?;
    let mounted = Mount::of(&device.path, &mount_point)?;

    let image = folder.path().join("image.vhdx");
    let export = || {
        ce_agent([
            "export",
            text(&device.path)?,
            "--to",
            text(&image)?,
            "--json",
        ])
    };
    let (code, message) = export()?.expect_code(1)?.error()?;
    assert_eq!(code, "DiskBusy", "{message}");
    ensure!(message.contains(text(&mount_point)?), "{message}");
    ensure!(!image.exists());

    drop(mounted);
    export()?.expect_code(0)?;
    oracle::qemu_check(&image)
}

#[test]
fn what_is_committed_to_a_device_is_what_others_read_of_it() -> Result<()> {
    let _turn = turn();
    for sectors in [SectorSize::B512, SectorSize::B4096] {
        let desk = Desk::new(sectors)?;
        let before = fs::read(&desk.disk.path)?;
        let device = Device::of(&desk.disk.path, sectors)?;
        let mut model = BTreeMap::new();
        // New files, then the same ones shorter and longer.
        for (seed, sizes) in [
            (1, [200_000, 3_000_000, 90]),
            (2, [70_000, 3_500_000, 9000]),
        ] {
            model.extend(desk.write_tree(seed, sizes)?);
            desk.commit(&device.path)?.expect_code(0)?;
            let partition = Device::within(&device.path, sectors, desk.place())?;
            let image = Image {
                path: partition.path.clone(),
            };
            let disk = open(&device.path, &OpenOptions::default())?;
            agree_on(&image, &desk.volume_of(disk)?, &model)?;
        }
        drop(device);
        // And around the volume nothing has changed.
        let (after, place) = (fs::read(&desk.disk.path)?, desk.place());
        let (start, end) = (
            place.offset as usize,
            (place.offset + place.length) as usize,
        );
        ensure!(after[..start] == before[..start] && after[end..] == before[end..]);
        ensure!(after[start..end] != before[start..end]);
        ensure!(desk.journals()?.is_empty());
    }
    Ok(())
}

#[test]
fn a_commit_to_a_device_that_is_killed_is_made_or_not_made_by_recover() -> Result<()> {
    let _turn = turn();
    let attempts = match ce_tests::is_long() {
        true => 40,
        false => 4,
    };
    let (mut finished, mut old) = (0, 0);
    for attempt in 0..attempts {
        let sectors = [SectorSize::B512, SectorSize::B4096][attempt / 2 % 2];
        let moment = [Moment::Begun, Moment::Sealed][attempt % 2];
        let desk = Desk::new(sectors)?;
        let model = desk.write_tree(3, [200_000, 12_000_000, 5000])?;
        let before = fs::read(&desk.disk.path)?;
        let device = Device::of(&desk.disk.path, sectors)?;
        let delay = Duration::from_millis(attempt as u64 / 2);
        desk.kill_commit(&device.path, moment, delay)?;
        let recovered = desk.recover()?;
        let partition = Device::within(&device.path, sectors, desk.place())?;
        let image = Image {
            path: partition.path.clone(),
        };
        let is_old = image.sleuthed()?.is_empty();
        let model = match is_old {
            true => BTreeMap::new(),
            false => model,
        };
        let disk = open(&device.path, &OpenOptions::default())?;
        agree_on(&image, &desk.volume_of(disk)?, &model)?;
        drop(partition);
        drop(device);
        ensure!(desk.journals()?.is_empty());
        if is_old {
            ensure!(fs::read(&desk.disk.path)? == before);
            old += 1;
        }
        if recovered["journals"][0]["done"] == "finished" {
            ensure!(!is_old, "{recovered}");
            finished += 1;
        }
    }
    ensure!(
        finished > 0 && old > 0,
        "{finished} times finished, {old} times not begun"
    );
    Ok(())
}

#[test]
fn a_device_that_is_being_changed_is_kept_from_everyone_else() -> Result<()> {
    let _turn = turn();
    let desk = Desk::new(SectorSize::B512)?;
    let device = Device::of(&desk.disk.path, SectorSize::B512)?;
    let disk = open_writable(&device.path, &OpenOptions::default())?;
    let image = desk.folder.path().join("image.vhdx");
    let export = [
        "export",
        text(&device.path)?,
        "--to",
        text(&image)?,
        "--json",
    ];
    let (code, message) = ce_agent(export)?.expect_code(1)?.error()?;
    assert_eq!(code, "DiskBusy", "{message}");
    ensure!(open_writable(&device.path, &OpenOptions::default()).is_err());
    let mount_point = desk.folder.path().join("mounted");
    fs::create_dir(&mount_point)?;
    ensure!(Mount::of(&device.path, &mount_point).is_err());
    drop(disk);
    ce_agent(export)?.expect_code(0)?;
    Ok(())
}

/// Tests take turns: a child that another one has started shares the claims of this process until
/// it executes, also those that are given up meanwhile.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed in its turn leaves nothing behind.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a commit is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// It has begun to write the journal: nothing may have changed.
    Begun,
    /// The journal counts, and the device is being written.
    Sealed,
}

/// A disk with an empty NTFS volume, what is to be written to it, and where changes are kept.
struct Desk {
    folder: TempDir,
    disk: Disk,
    tree: PathBuf,
    scratch: PathBuf,
}

impl Desk {
    fn new(sectors: SectorSize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let volume = Content::Ntfs {
            label: "Windows".into(),
            cluster: 4096,
            files: Vec::new(),
        };
        let disk = DiskBuilder::new(48 * MIB)
            .sector_size(sectors)
            .table(Table::Gpt)
            .partition(
                Role::MicrosoftReserved,
                4 * MIB,
                Content::Pattern(Pattern::Dense, 7),
            )
            .partition(Role::BasicData, 36 * MIB, volume)
            .build(folder.path().join("disk.raw"))?;
        Ok(Self {
            tree: folder.path().join("tree"),
            scratch: folder.path().join("scratch"),
            disk,
            folder,
        })
    }

    fn place(&self) -> Placed {
        self.disk.partitions[1]
    }

    /// The volume on `disk`, for our reader.
    fn volume_of<D: ce_disk::block::BlockRead>(&self, disk: D) -> Result<Window<D>> {
        let (start, length) = (self.place().offset, self.place().length);
        let name = "partition 2".to_owned();
        Ok(Window::new(
            disk,
            ByteOffset(start),
            ByteCount(length),
            name,
        )?)
    }

    /// Writes three files of these sizes in folders; gives what the volume is to have.
    fn write_tree(
        &self,
        seed: u64,
        sizes: [usize; 3],
    ) -> Result<BTreeMap<String, Option<Vec<u8>>>> {
        let names = ["drivers/disk.sys", "config/SYSTEM", "tiny.inf"];
        let mut model: BTreeMap<_, _> =
            ["", r"\System32", r"\System32\drivers", r"\System32\config"]
                .map(|folder| (format!("Windows{folder}"), None))
                .into();
        for (name, size) in names.into_iter().zip(sizes) {
            let path = self.tree.join("Windows/System32").join(name);
            fs::create_dir_all(path.parent().context("it is in a folder")?)?;
            let content = Noise::new(seed).bytes(0, size);
            fs::write(&path, &content)?;
            let name = name.replace('/', r"\");
            model.insert(format!(r"Windows\System32\{name}"), Some(content));
        }
        Ok(model)
    }

    /// The program that commits the tree to a device.
    fn commit(&self, device: &Path) -> Result<Invocation> {
        Ok(Invocation::new(COMMIT_FOLDER, self.arguments(device)?))
    }

    fn arguments<'a>(&'a self, device: &'a Path) -> Result<[&'a str; 4]> {
        Ok([text(device)?, "2", text(&self.tree)?, text(&self.scratch)?])
    }

    /// Kills it so long after a moment, if it is still there.
    fn kill_commit(&self, device: &Path, moment: Moment, delay: Duration) -> Result<()> {
        let mut child = Command::new(COMMIT_FOLDER)
            .args(self.arguments(device)?)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        ensure!(lines.next().transpose()?.as_deref() == Some("committing"));
        if let Moment::Sealed = moment {
            while !self.is_sealed()? && child.try_wait()?.is_none() {
                std::hint::spin_loop();
            }
        }
        sleep(delay);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Whether there is a journal with its first seal.
    fn is_sealed(&self) -> Result<bool> {
        let Some(journal) = self.journals()?.pop() else {
            return Ok(false);
        };
        let mut seal = [0; 8];
        // It may be gone meanwhile, or too short for one.
        let read = File::open(journal).and_then(|file| file.read_exact_at(&mut seal, 8192));
        Ok(read.is_ok() && seal == *b"ce-seal1")
    }

    /// What `ce-agent recover` did.
    fn recover(&self) -> Result<Value> {
        let recover = ["recover", "--json", "--scratch", text(&self.scratch)?];
        let mut job = ce_agent(recover)?.expect_code(0)?.job()?;
        Ok(job["artifacts"].take())
    }

    fn journals(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.scratch)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let paths = paths.collect::<Result<Vec<_>>>()?;
        let is_journal = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "journal");
        Ok(paths.into_iter().filter(is_journal).collect())
    }
}

/// A loop device, detached when it is dropped.
struct Device {
    path: PathBuf,
}

impl Device {
    /// All of a file.
    fn of(file: &Path, sectors: SectorSize) -> Result<Self> {
        Self::attach(file, sectors, &[])
    }

    /// A part of a file or device.
    fn within(file: &Path, sectors: SectorSize, place: Placed) -> Result<Self> {
        let (offset, length) = (place.offset.to_string(), place.length.to_string());
        Self::attach(
            file,
            sectors,
            &["--offset", &offset, "--sizelimit", &length],
        )
    }

    fn attach(file: &Path, sectors: SectorSize, part: &[&str]) -> Result<Self> {
        let sectors = sectors.bytes().to_string();
        let mut arguments = vec!["--find", "--show", "--sector-size", &sectors];
        arguments.extend(part);
        arguments.push(text(file)?);
        let output = LOSETUP
            .run(arguments)
            .context("loop devices need root and a kernel that has them")?;
        let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        Ok(Self { path })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = LOSETUP.run(["--detach".as_ref(), self.path.as_os_str()]) {
            eprintln!("{} is left behind: {error:#}", self.path.display());
        }
    }
}

/// A mounted file system, unmounted when it is dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn of(device: &Path, point: &'a Path) -> Result<Self> {
        MOUNT.run([device, point])?;
        Ok(Self(point))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if let Err(error) = UMOUNT.run([self.0]) {
            eprintln!("{} is left mounted: {error:#}", self.0.display());
        }
    }
}

const COMMIT_FOLDER: &str = env!("CARGO_BIN_EXE_commit-folder");
