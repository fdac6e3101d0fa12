//! How long it takes to put what a prepare writes onto a large volume, and in how much memory.
//!
//! Usage: `bench-prepare-io FOLDER`. In FOLDER it makes, once, a sparse volume of 64 GiB with
//! 200,000 files (through the writer itself), then writes 100 driver files (20 MB), SYSTEM (20 MB)
//! and SOFTWARE (80 MB), all in one go, commits
//! them by a journal in FOLDER, and prints one line. At the end it puts the volume back.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ce_disk::block::{BlockRead, BlockWrite, OpenOptions, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::ByteCount;
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, ContentSource, FileWrite, NtfsWrite, Security, ShortNames, VolumeEdit,
    WORKER_ARGUMENT, worker_main,
};
use ce_tests::tool::{MKNTFS, output_of, said};

fn main() -> Result<ExitCode> {
    let argument = std::env::args()
        .nth(1)
        .context("usage: bench-prepare-io FOLDER")?;
    if argument == WORKER_ARGUMENT {
        return Ok(worker_main());
    }
    let volume = Path::new(&argument).join("ntfs-64g-200k.img");
    if !volume.exists() {
        make_volume(&volume)?;
    }
    measure(&volume)?;
    Ok(ExitCode::SUCCESS)
}

fn make_volume(path: &Path) -> Result<()> {
    let partial = path.with_extension("partial");
    File::create(&partial)?.set_len(64 << 30)?;
    let mut command = MKNTFS.command()?;
    let options = [
        "-q", "-F", "-Q", "-s", "512", "-p", "0", "-H", "255", "-S", "63",
    ];
    let output = output_of(command.args(options).arg(&partial))?;
    if !output.status.success() {
        bail!("{}", said(&output));
    }
    let disk = open_writable(&partial, &OpenOptions::default())?;
    // Short names of a thousand names that begin alike take a thousand looks each.
    let writer = ConfinedWriter::new(&disk, ShortNames::Omit);
    let content: Arc<dyn ContentSource> = Arc::new(vec![7; 1000]);
    let started = Instant::now();
    let mut edits = Vec::new();
    for folder in 0..200 {
        edits.push(create_folder(&format!(
            r"Windows\WinSxS\component {folder:03}"
        ))?);
        for file in 0..999 {
            let path = format!(r"Windows\WinSxS\component {folder:03}\file {file:04}.dll");
            edits.push(write_file(&path, &content)?);
        }
    }
    let hive: Arc<dyn ContentSource> = Arc::new(vec![1; 20 << 20]);
    edits.push(create_folder(r"Windows\System32\config")?);
    edits.push(create_folder(r"Windows\System32\drivers")?);
    edits.push(write_file(r"Windows\System32\config\SYSTEM", &hive)?);
    edits.push(write_file(r"Windows\System32\config\SOFTWARE", &hive)?);
    writer
        .with_time_limit(Duration::from_secs(3600))
        .apply(&edits)?;
    disk.flush()?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "made a volume with {} files and folders in {seconds:.1} s",
        edits.len()
    );
    drop(disk);
    Ok(fs::rename(partial, path)?)
}

fn measure(volume: &Path) -> Result<()> {
    const STORE: &str =
        r"Windows\System32\DriverStore\FileRepository\net.inf_amd64_0123456789abcdef";
    let driver = |number| match number % 5 {
        0 => format!(r"Windows\System32\drivers\bench{number}.sys"),
        _ => format!(r"{STORE}\bench{number}.sys"),
    };
    let hives = |system, software| -> Result<[VolumeEdit; 2]> {
        // Read in pieces, as the files of a driver package are.
        let hive = |name, size| {
            let content: Arc<dyn ContentSource> = Arc::new(Pattern(size));
            write_file(&format!(r"Windows\System32\config\{name}"), &content)
        };
        Ok([hive("SYSTEM", system)?, hive("SOFTWARE", software)?])
    };
    let mut edits = vec![create_folder(STORE)?];
    for number in 0..100 {
        let content: Arc<dyn ContentSource> = Arc::new(Pattern(200_000));
        edits.push(write_file(&driver(number), &content)?);
    }
    edits.extend(hives(20 << 20, 80 << 20)?);
    let started = Instant::now();
    let (written, applied) = commit(volume, &edits)?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "prepare-io: {} edits, {written:#} written in {applied:.2} s, committed after {seconds:.2} s; \
         peak memory {} MiB, worker {} MiB",
        edits.len(),
        peak_memory(libc::RUSAGE_SELF) >> 10,
        peak_memory(libc::RUSAGE_CHILDREN) >> 10,
    );
    let mut back: Vec<VolumeEdit> = hives(20 << 20, 20 << 20)?.into();
    for number in 0..100 {
        let path = driver(number).parse()?;
        back.push(VolumeEdit::Delete { path });
    }
    let path = r"Windows\System32\DriverStore".parse()?;
    back.push(VolumeEdit::DeleteTree { path });
    commit(volume, &back)?;
    Ok(())
}

/// Applies `edits` and commits them; gives how much was written, and after how many seconds.
fn commit(volume: &Path, edits: &[VolumeEdit]) -> Result<(ByteCount, f64)> {
    let started = Instant::now();
    let disk = open_writable(volume, &OpenOptions::default())?;
    let scratch = volume.with_extension("scratch");
    fs::create_dir_all(&scratch)?;
    let scratch = Arc::new(ScratchFolder::open(&scratch)?);
    let transaction = Transaction::begin(disk, scratch, None)?;
    let applied = writer(transaction.disk()).apply(edits)?;
    let seconds = started.elapsed().as_secs_f64();
    transaction.commit(&Cancel::default(), &Progress::default())?;
    Ok((applied.written, seconds))
}

fn writer<D: BlockRead + BlockWrite>(disk: D) -> ConfinedWriter<D> {
    ConfinedWriter::new(disk, ShortNames::Create)
}

fn create_folder(path: &str) -> Result<VolumeEdit> {
    Ok(VolumeEdit::CreateFolder {
        path: path.parse()?,
        security: Security::Inherit,
    })
}

fn write_file(path: &str, content: &Arc<dyn ContentSource>) -> Result<VolumeEdit> {
    Ok(VolumeEdit::WriteFile(FileWrite {
        path: path.parse()?,
        content: Arc::clone(content),
        attributes: None,
        times: None,
        security: Security::Inherit,
    }))
}

/// So many bytes, no two blocks of them the same.
#[derive(Debug)]
struct Pattern(u64);

impl ContentSource for Pattern {
    fn size(&self) -> ByteCount {
        ByteCount(self.0)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        for (position, byte) in (offset..).zip(buffer) {
            *byte = (position / 4096)
                .wrapping_mul(0x9E37_79B9)
                .wrapping_add(position) as u8;
        }
        Ok(())
    }
}

/// Peak resident memory in KiB.
fn peak_memory(who: libc::c_int) -> i64 {
    // SAFETY: the structure is plain numbers, for which zeros are a value, and is written whole.
    #[expect(unsafe_code, reason = "getrusage has no safe wrapper here")]
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &mut usage);
        usage.ru_maxrss
    }
}
