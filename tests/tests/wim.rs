//! WIM files in a folder of their own: what wimlib's program does with them, and what it cannot do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_disk::block::{self, OpenOptions, Window};
use ce_disk::cancel::Cancel;
use ce_disk::scratch::ScratchFolder;
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::ntfs::write::{ContentSource, WorkerProgram};
use ce_disk::volume::wim::tool::WORKER_ARGUMENT;
use ce_disk::volume::{
    NtfsVolume, VolumeError, WimCopy, WimCopyError, WimFile, WimTool, WimToolError, WinPath,
    WindowsVolume,
};
use ce_tests::disk::{Content, DiskBuilder, Role, Step, Table};
use ce_tests::pattern::MIB;
use ce_tests::tool::{WIMLIB_IMAGEX, text};
use tempfile::TempDir;

const PLACE: &str = r"Recovery\WindowsRE\Winre.wim";
const SYSTEM: &str = r"Windows\System32\config\SYSTEM";

#[test]
fn files_of_an_image_are_read_and_replaced_and_wimlib_finds_the_result_whole() -> Result<()> {
    let desk = Desk::new(&wim(&[])?)?;
    let copy = desk.take(WIMLIB_IMAGEX.path()?)?;
    let image = copy.image()?;
    // In any case, and only what is there.
    let read = image.read(&path(&SYSTEM.to_uppercase()), ByteCount::mib(1))?;
    ensure!(read == system(), "{} bytes", read.len());
    ensure!(image.exists(&path(r"windows\SYSTEM32\config"))?);
    ensure!(!image.exists(&path(r"Windows\System32\config\SOFTWARE"))?);
    let missing = image.read(&path(r"Windows\nothing"), ByteCount::mib(1));
    ensure!(
        matches!(missing, Err(VolumeError::NotFound { .. })),
        "{missing:?}"
    );
    let too_large = image.read(&path(SYSTEM), ByteCount(100));
    ensure!(
        matches!(too_large, Err(VolumeError::TooLarge { .. })),
        "{too_large:?}"
    );
    // A name that would pass for a list of names, or for a pattern.
    for odd in ["@odd", "odd [1]"] {
        ensure!(
            image.read(&path(odd), ByteCount(100))? == odd.as_bytes(),
            "{odd}"
        );
    }

    let files = [
        (r"WINDOWS\system32\config\SYSTEM", b"changed".to_vec()),
        (
            r"Windows\System32\DriverStore\FileRepository\a b'c\d.sys",
            vec![7; 300_000],
        ),
        (r"Windows\INF\größe.inf", Vec::new()),
    ];
    let files = files.map(|(name, content)| WimFile {
        path: path(name),
        content,
    });
    copy.put(&files)?;
    copy.verify()?;
    let after = copy.image()?;
    for file in &files {
        let found = after.read(&file.path, ByteCount::mib(1))?;
        ensure!(found == file.content, "{}", file.path);
    }

    // As wimlib sees it when nobody confines it.
    let whole = desk.folder.path().join("after.wim");
    fs::write(&whole, content(&copy)?)?;
    WIMLIB_IMAGEX.run(["verify", text(&whole)?])?;
    let told = String::from_utf8(WIMLIB_IMAGEX.run(["info", text(&whole)?])?.stdout)?;
    let is_told = |line: &str| {
        told.lines()
            .any(|told| told.split_whitespace().eq(line.split_whitespace()))
    };
    ensure!(
        is_told("Boot Index: 1") && is_told("Image Count: 1"),
        "{told}"
    );
    ensure!(told.contains("Integrity info"), "{told}");
    let out = desk.folder.path().join("out");
    WIMLIB_IMAGEX.run([
        "extract",
        text(&whole)?,
        "1",
        "/Windows",
        "--dest-dir",
        text(&out)?,
    ])?;
    let driver = out.join("Windows/System32/DriverStore/FileRepository/a b'c/d.sys");
    ensure!(fs::read(driver)? == files[1].content);
    let listed = fs::read_dir(out.join("Windows/System32/config"))?.count();
    ensure!(listed == 1, "SYSTEM is there {listed} times");

    drop(copy);
    ensure!(desk.leftovers()?.is_empty(), "{:?}", desk.leftovers()?);
    Ok(())
}

#[test]
fn the_image_that_boots_is_meant_whatever_its_number() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (tree, file) = (folder.path().join("tree"), folder.path().join("two.wim"));
    for (name, options) in [("first", &[][..]), ("second", &["--boot"])] {
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(&tree)?;
        fs::write(tree.join("name"), name)?;
        let verb = if file.exists() { "append" } else { "capture" };
        let arguments = [verb, text(&tree)?, text(&file)?, name];
        WIMLIB_IMAGEX.run(arguments.iter().chain(options))?;
    }
    let desk = Desk::new(&fs::read(&file)?)?;
    let copy = desk.take(WIMLIB_IMAGEX.path()?)?;
    ensure!(copy.header().boot_image == 2);
    ensure!(copy.image()?.read(&path("name"), ByteCount(100))? == b"second");
    copy.put(&[WimFile {
        path: path("name"),
        content: b"changed".to_vec(),
    }])?;
    let whole = desk.folder.path().join("after.wim");
    fs::write(&whole, content(&copy)?)?;
    for (number, expected) in [("1", "first"), ("2", "changed")] {
        let read = ["extract", text(&whole)?, number, "/name", "--to-stdout"];
        ensure!(
            WIMLIB_IMAGEX.run(read)?.stdout == expected.as_bytes(),
            "{number}"
        );
    }
    Ok(())
}

#[test]
fn a_damaged_or_hostile_file_is_an_error_within_bounds_and_leaves_nothing_behind() -> Result<()> {
    let whole = wim(&[])?;
    let mut hostile = Vec::new();
    // Sizes and places of the table of blobs and of the tree, as large as they can be.
    for at in [48, 64, 72, 88, 96, 112] {
        let mut bytes = whole.clone();
        bytes[at..at + 7].fill(0xFF);
        hostile.push(bytes);
    }
    let mut random = 5_u64;
    let mut next = || {
        // Knuth's MMIX generator.
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        random >> 33
    };
    let rounds = if ce_tests::is_long() { 300 } else { 20 };
    for _ in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            let at = 24 + next() as usize % (bytes.len() - 24);
            bytes[at] = next() as u8;
        }
        hostile.push(bytes);
    }
    let garbage: Vec<u8> = (0..100_000).map(|_| 0x5A).collect();
    hostile.push(garbage);
    hostile.push([&whole[..208], &[0x5A; 300_000]].concat());
    hostile.push(Vec::new());
    let mut refused = 0;
    for (round, bytes) in hostile.iter().enumerate() {
        let desk = Desk::new(bytes)?;
        let began = Instant::now();
        let all = || -> Result<(), WimCopyError> {
            let copy = desk.take(WIMLIB_IMAGEX.path().unwrap())?;
            let image = copy.image()?;
            match image.read(&path(SYSTEM), ByteCount::mib(1)) {
                Ok(_) | Err(VolumeError::NotFound { .. } | VolumeError::TooLarge { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let content = b"new".to_vec();
            copy.put(&[WimFile {
                path: path(SYSTEM),
                content,
            }])?;
            copy.verify()?;
            Ok(())
        };
        if let Err(error) = all() {
            refused += 1;
            let words = format!("{:#}", anyhow::Error::from(error));
            ensure!(
                words.len() < 2000 && !words.contains('\u{1b}'),
                "{round}: {words}"
            );
        }
        ensure!(began.elapsed() < Duration::from_secs(120), "round {round}");
        ensure!(desk.leftovers()?.is_empty(), "{:?}", desk.leftovers()?);
    }
    ensure!(
        refused >= 7,
        "only {refused} of {} were refused",
        hostile.len()
    );
    Ok(())
}

#[test]
fn a_program_that_was_taken_over_reaches_no_file_no_network_and_no_process() -> Result<()> {
    let desk = Desk::new(&wim(&[])?)?;
    let outside = desk.folder.path().join("outside");
    fs::write(&outside, "secret")?;
    // The calls themselves, and not what a library makes of them.
    let script = format!(
        "use Socket; my $told = '';\n\
         sub tried {{ my ($what, $got) = @_; $told .= \"$what\\n\" if $got; }}\n\
         sub reads {{ my $file; open($file, '<', $_[0]) && defined(getc($file)) }}\n\
         sub writes {{ my $file; open($file, '>', $_[0]) && print($file 'x') && close($file) }}\n\
         tried('read', reads('{outside}'));\n\
         tried('passwd', reads('/etc/passwd'));\n\
         tried('proc', reads('/proc/self/status'));\n\
         tried('list', opendir(my $folder, '/tmp'));\n\
         tried('write', writes('{outside}'));\n\
         tried('beside', writes('../stray'));\n\
         tried('tmp', writes('/tmp/ce-agent-stray'));\n\
         tried('link', link('{outside}', 'linked') || (symlink('{outside}', 'led') && reads('led')));\n\
         tried('remove', unlink('{outside}'));\n\
         tried('device', reads('/dev/zero'));\n\
         tried('socket', socket(my $tcp, PF_INET, SOCK_STREAM, 0));\n\
         tried('local', socket(my $unix, PF_UNIX, SOCK_STREAM, 0));\n\
         tried('pair', socketpair(my $one, my $other, PF_UNIX, SOCK_STREAM, 0));\n\
         tried('signal', kill(0, {process}));\n\
         my $child = fork(); exit(0) if defined($child) && $child == 0;\n\
         tried('fork', defined($child));\n\
         tried('trace', syscall({ptrace}, 0x4206, {process}, 0, 0) == 0);\n\
         tried('memory', syscall({memory}, {process}, 0, 0, 0, 0, 0) == 0);\n\
         tried('namespace', syscall({unshare}, 0x10000000) == 0);\n\
         tried('own-file', writes('allowed') && reads('allowed'));\n\
         open(my $file, '>', 'told'); print($file $told); close($file);\n",
        outside = text(&outside)?,
        process = std::process::id(),
        ptrace = libc::SYS_ptrace,
        memory = libc::SYS_process_vm_readv,
        unshare = libc::SYS_unshare,
    );
    let program = desk.program(&script)?;

    // Unconfined it can do what it tries. The rest depends on how the kernel of the machine is set.
    let free = desk.folder.path().join("free/own");
    fs::create_dir_all(&free)?;
    let ended = Command::new(&program).current_dir(&free).status()?;
    ensure!(ended.success(), "{ended}");
    let told = fs::read_to_string(free.join("told"))?;
    for what in [
        "read", "passwd", "proc", "list", "write", "beside", "tmp", "link", "remove", "device",
        "socket", "local", "pair", "signal", "fork", "own-file",
    ] {
        ensure!(
            told.lines().any(|line| line == what),
            "no {what} in {told:?}"
        );
    }
    fs::remove_file("/tmp/ce-agent-stray")?;
    fs::write(&outside, "secret")?;

    let copy = desk.take(program)?;
    let ended = copy.put(&[]);
    let told = fs::read_to_string(desk.own_folder()?.join("told"))?;
    ensure!(told == "own-file\n", "{told:?}: {ended:?}");
    ensure!(fs::read(&outside)? == b"secret");
    Ok(())
}

#[test]
fn the_program_has_no_capabilities_a_filter_of_calls_and_no_environment() -> Result<()> {
    let desk = Desk::new(&wim(&[])?)?;
    let script = "open(my $file, '>', 'environment'); print($file join(\"\\n\", %ENV)); close($file);\n\
                  open($file, '>', 'process'); print($file \"$$\\n\"); close($file);\n\
                  1 while 1;\n";
    let tool = desk
        .tool(desk.program(script)?)
        .with_time_limit(Duration::from_secs(20));
    let copy = desk.take_with(tool)?;
    thread::scope(|scope| -> Result<()> {
        let running = scope.spawn(|| copy.put(&[]));
        let found = (|| -> Result<()> {
            let own = desk.own_folder()?;
            let began = Instant::now();
            let process = loop {
                if let Ok(process) = fs::read_to_string(own.join("process"))
                    && process.ends_with('\n')
                {
                    break process;
                }
                ensure!(began.elapsed() < Duration::from_secs(15), "it does not run");
                thread::sleep(Duration::from_millis(20));
            };
            let status = fs::read_to_string(format!("/proc/{}/status", process.trim()))?;
            let says = |line: &str| {
                status
                    .lines()
                    .any(|found| found.split_whitespace().eq(line.split_whitespace()))
            };
            ensure!(says("CapEff: 0000000000000000"), "{status}");
            ensure!(says("CapPrm: 0000000000000000"), "{status}");
            ensure!(says("NoNewPrivs: 1") && says("Seccomp: 2"), "{status}");
            let open = fs::read_dir(format!("/proc/{}/fd", process.trim()))?;
            let open: Vec<_> = open.flatten().map(|fd| fd.file_name()).collect();
            // The last is that of the script itself.
            ensure!(open.len() <= 4, "{open:?}");
            let environment = fs::read_to_string(own.join("environment"))?;
            ensure!(
                !environment.contains("CARGO") && !environment.contains("HOME="),
                "{environment}"
            );
            Ok(())
        })();
        let ended = running.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
        found?;
        let ended = ended.err().context("it has ended by itself")?;
        ensure!(
            ended.to_string().contains("took longer than 20 s"),
            "{ended}"
        );
        Ok(())
    })
}

#[test]
fn a_program_without_end_is_stopped_by_its_output_by_time_and_by_request() -> Result<()> {
    let desk = Desk::new(&wim(&[])?)?;
    let talker = desk.program("print '/', 'a' x 1000, \"\\n\" while 1;\n")?;
    let copy = desk.take(talker)?;
    let ended = copy.image().map(drop);
    ensure!(
        matches!(ended, Err(WimToolError::TooMuch { .. })),
        "{ended:?}"
    );
    drop(copy);

    let sleeper = desk.program("close(STDOUT); close(STDERR); 1 while 1;\n")?;
    let tool = desk
        .tool(sleeper.clone())
        .with_time_limit(Duration::from_millis(300));
    let ended = desk.take_with(tool)?.verify();
    ensure!(
        matches!(ended, Err(WimToolError::TimedOut { .. })),
        "{ended:?}"
    );

    let cancel = Cancel::default();
    let copy = desk.take_with(desk.tool(sleeper).with_cancel(cancel.clone()))?;
    let ended = thread::scope(|scope| {
        let running = scope.spawn(|| copy.verify());
        thread::sleep(Duration::from_millis(200));
        cancel.request();
        running.join()
    });
    let ended = ended.map_err(|_| anyhow::anyhow!("it panicked"))?;
    ensure!(
        matches!(ended, Err(WimToolError::Cancelled { .. })),
        "{ended:?}"
    );

    // One that writes where it is only to read.
    let writer = desk.program("open(my $file, '>', 'big'); print($file 'much');\n")?;
    let copy = desk.take(writer)?;
    let ended = copy.image().map(drop);
    ensure!(
        matches!(ended, Err(WimToolError::Failed { .. })),
        "{ended:?}"
    );
    drop(copy);

    // What it says at its end is told, without what would change a terminal.
    let failing = desk.program("print(STDERR \"so\\033[31m it\\n  ends\\n\"); exit(44);\n")?;
    let ended = desk.take(failing)?.verify();
    let words = ended.err().context("it has worked")?.to_string();
    ensure!(
        words.contains("44") && words.ends_with(": so[31m it ends"),
        "{words}"
    );
    let gone = desk.take(desk.folder.path().join("nothing"))?.verify();
    let words = gone.err().context("it has worked")?.to_string();
    ensure!(words.contains("No such file"), "{words}");
    Ok(())
}

#[test]
fn the_folder_of_one_who_was_killed_is_removed_and_one_in_use_stays() -> Result<()> {
    let desk = Desk::new(&wim(&[])?)?;
    let abandoned = desk
        .scratch()
        .join("recovery-0b8c9c9e-5f3e-4d9a-8d1b-0f6d0c2f7a11");
    fs::create_dir_all(&abandoned)?;
    fs::write(abandoned.join("image.wim"), "half")?;
    for other in ["recovery-notes", "journal"] {
        fs::create_dir(desk.scratch().join(other))?;
    }
    let first = desk.take(WIMLIB_IMAGEX.path()?)?;
    ensure!(!abandoned.exists());
    let second = desk.take(WIMLIB_IMAGEX.path()?)?;
    first.verify()?;
    second.verify()?;
    drop((first, second));
    let mut left = desk.leftovers()?;
    left.sort();
    ensure!(left == ["journal", "recovery-notes"], "{left:?}");
    Ok(())
}

/// A disk with a volume that has the file on it, and a scratch folder.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new(file: &[u8]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let volume = Content::NtfsTree {
            label: "Recovery".into(),
            cluster: 4096,
            steps: vec![Step::File(PLACE.replace('\\', "/"), file.to_vec().into())],
        };
        DiskBuilder::new(18 * MIB)
            .table(Table::Gpt)
            .partition(Role::Recovery, 16 * MIB, volume)
            .build(folder.path().join("disk.raw"))?;
        let desk = Self { folder };
        ScratchFolder::open(&desk.scratch())?;
        Ok(desk)
    }

    fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    fn leftovers(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.scratch())?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    /// The folder of the only copy.
    fn own_folder(&self) -> Result<PathBuf> {
        let name = self.leftovers()?.pop().context("no folder")?;
        Ok(self.scratch().join(name))
    }

    fn tool(&self, program: PathBuf) -> WimTool {
        let worker = env!("CARGO_BIN_EXE_ntfs-worker");
        WimTool::at(program).with_worker(WorkerProgram::new(worker, [WORKER_ARGUMENT]))
    }

    /// A program in wimlib's place, in Perl, which every Debian has.
    fn program(&self, script: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(format!("program-{}", script.len()));
        fs::write(&path, format!("#!/usr/bin/perl\n{script}"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    fn take(&self, program: PathBuf) -> Result<WimCopy, WimCopyError> {
        self.take_with(self.tool(program))
    }

    fn take_with(&self, tool: WimTool) -> Result<WimCopy, WimCopyError> {
        let disk = block::open(
            &self.folder.path().join("disk.raw"),
            &OpenOptions::default(),
        );
        let disk = disk.expect("the disk was just made");
        let (start, length) = (ByteOffset(MIB), ByteCount(16 * MIB));
        let window =
            Window::new(disk, start, length, "partition 1".into()).expect("it is on the disk");
        let volume = NtfsVolume::open(window)?;
        let scratch =
            ScratchFolder::open(&self.scratch()).expect("the scratch folder was just made");
        WimCopy::take(&volume, &path(PLACE), &scratch, tool, 1)
    }
}

/// The file as it would be written to a volume.
fn content(copy: &WimCopy) -> Result<Vec<u8>> {
    let source = copy.content()?;
    ensure!(source.size() == copy.size()?);
    let mut bytes = vec![0; source.size().0 as usize];
    source.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn path(text: &str) -> WinPath {
    text.parse().expect("a path")
}

fn system() -> Vec<u8> {
    let numbers = (0..200_000_u32).map(|number| number.wrapping_mul(number));
    numbers.flat_map(u32::to_le_bytes).collect()
}

/// A WIM file of one image that boots, made by wimlib.
fn wim(options: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (tree, file) = (folder.path().join("tree"), folder.path().join("made.wim"));
    fs::create_dir_all(tree.join("Windows/System32/config"))?;
    fs::write(tree.join("Windows/System32/config/SYSTEM"), system())?;
    for odd in ["@odd", "odd [1]"] {
        fs::write(tree.join(odd), odd)?;
    }
    let capture = [
        "capture",
        text(&tree)?,
        text(&file)?,
        "Windows RE",
        "--boot",
        "--check",
    ];
    WIMLIB_IMAGEX.run(capture.iter().chain(options))?;
    Ok(fs::read(file)?)
}
