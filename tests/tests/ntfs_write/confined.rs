//! What the worker cannot do, and what becomes of a worker that fails or lies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ce_disk::cancel::Cancel;
use ce_disk::units::ByteCount;
use ce_disk::volume::ntfs::write::{
    Confinement, ContentSource, FileWrite, NtfsWrite, NtfsWriteError, Security, VolumeEdit,
    WorkerError, WorkerProgram,
};

use super::volume::{USUAL, Volume, bytes_of, noise, path, write_file, writer};

#[test]
fn a_confined_process_can_neither_open_nor_connect_nor_start_anything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    fs::write(&disk, [7; 4096])?;
    let (mut ours, theirs) = UnixStream::pair()?;
    let status = Command::new(env!("CARGO_BIN_EXE_ntfs-worker"))
        .arg("try")
        .arg(&disk)
        .arg(std::process::id().to_string())
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .status()?;
    let mut said = String::new();
    ours.read_to_string(&mut said)?;
    assert!(status.success(), "{status}: {said}");
    let mut results = BTreeMap::new();
    for line in said.lines() {
        let (what, errno) = line.split_once(' ').context("two words")?;
        results.insert(what, errno.parse::<i32>()?);
    }
    let confinement = results
        .keys()
        .find_map(|what| what.strip_prefix("confinement-"));
    let confinement = Confinement(confinement.context("told")?.parse()?);
    assert!(
        confinement.contains(Confinement::REQUIRED),
        "{confinement:?}"
    );
    // It had opened the disk before, and the kernel would have let it.
    assert_eq!(results["confined"], 0);
    assert_eq!(results["end"], 0);
    let attempts: Vec<_> = results
        .iter()
        .filter(|(what, _)| {
            !["confined", "end"].contains(what) && !what.starts_with("confinement-")
        })
        .collect();
    assert_eq!(attempts.len(), 20, "{said}");
    for (what, errno) in attempts {
        let expected = if *what == "much-memory" {
            libc::ENOMEM
        } else {
            libc::EPERM
        };
        assert_eq!(*errno, expected, "{what}");
    }
    assert_eq!(fs::read(&disk)?, [7; 4096]);
    Ok(())
}

/// Content that looks at the worker while it is asked for.
#[derive(Debug)]
struct Watcher {
    seen: Mutex<Vec<(String, usize)>>,
    and_then: AndThen,
}

#[derive(Clone, Copy, Debug)]
enum AndThen {
    GoOn,
    Kill,
}

/// The processes that the calling thread has started.
fn children() -> io::Result<Vec<i32>> {
    children_of(Path::new("/proc/thread-self"))
}

/// The processes that a thread has started, by its folder in `/proc`.
pub fn children_of(thread: &Path) -> io::Result<Vec<i32>> {
    let children = fs::read_to_string(thread.join("children"))?;
    Ok(children
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect())
}

impl ContentSource for Watcher {
    fn size(&self) -> ByteCount {
        ByteCount(1_000_000)
    }

    fn read_at(&self, _: u64, buffer: &mut [u8]) -> io::Result<()> {
        buffer.fill(7);
        for child in children()? {
            let status = fs::read_to_string(format!("/proc/{child}/status"))?;
            // Only root may look at a process that cannot be dumped.
            let files = fs::read_dir(format!("/proc/{child}/fd")).map_or(1, Iterator::count);
            self.seen.lock().expect("no panic").push((status, files));
            if let AndThen::Kill = self.and_then {
                let pid = rustix::process::Pid::from_raw(child).expect("not 0");
                rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
            }
        }
        Ok(())
    }
}

fn watched(and_then: AndThen) -> (Arc<Watcher>, VolumeEdit) {
    let watcher = Arc::new(Watcher {
        seen: Mutex::default(),
        and_then,
    });
    let edit = VolumeEdit::WriteFile(FileWrite {
        path: path("file"),
        content: watcher.clone(),
        attributes: None,
        times: None,
        security: Security::Inherit,
    });
    (watcher, edit)
}

#[test]
fn the_worker_is_confined_while_it_has_the_volume() -> Result<()> {
    let agent = WorkerProgram::new(ce_tests::agent::binary()?, ["__ntfs-worker"]);
    for program in [super::volume::worker(), agent] {
        let volume = Volume::new(16, USUAL)?;
        let disk = volume.overlay();
        let (watcher, edit) = watched(AndThen::GoOn);
        writer(&disk).with_worker(program).apply(&[edit])?;
        let seen = watcher.seen.lock().expect("no panic");
        let (status, files) = seen.first().context("the worker was seen")?;
        let field = |name: &str| {
            let lines = status.lines();
            let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            values.next().unwrap_or_default().trim().to_owned()
        };
        assert_eq!(field("Seccomp"), "2", "{status}");
        assert_eq!(field("NoNewPrivs"), "1");
        assert_eq!(field("CapEff"), "0000000000000000");
        assert_eq!(field("Threads"), "1");
        assert_eq!(*files, 1);
        assert_eq!(children()?, [] as [i32; 0], "no worker is left");
    }
    Ok(())
}

#[test]
fn a_killed_worker_is_an_error_and_the_disk_is_as_it_was() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let before = bytes_of(&volume.base)?;
    let disk = volume.overlay();
    let (_, edit) = watched(AndThen::Kill);
    let error = writer(&disk)
        .apply(&[write_file("first", b"x"), edit])
        .unwrap_err();
    let text = format!("{:#}", anyhow::Error::new(error));
    assert!(
        text.contains("edit 2: writing 1000000 bytes") && text.contains("signal: 9"),
        "{text}"
    );
    assert!(bytes_of(&volume.base)? == before);
    Ok(())
}

/// A worker in Python: what it says is written anew from the description of the protocol.
fn impostor(script: &str) -> WorkerProgram {
    let prelude = "
import os, struct, sys, time
sent = 0
def send(kind, payload=b'', magic=b'CENW', version=1, sequence=None, length=None):
    global sent
    header = struct.pack('<4sHHII', magic, version, kind, sent if sequence is None else sequence,
                         len(payload) if length is None else length)
    sent += 1
    data = header + payload
    while data:
        data = data[os.write(0, data):]
def exactly(count):
    data = b''
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece: sys.exit(3)
        data += piece
    return data
def receive():
    magic, version, kind, sequence, length = struct.unpack('<4sHHII', exactly(16))
    return kind, exactly(length)
def hello(confinement=31): send(1, struct.pack('<II', confinement, 9) + b'2022.10.3')
def done(code): send(6, bytes([code]))
def applied(outcome): send(6, bytes([2, outcome]) + bytes(8))
";
    WorkerProgram::new(
        "/usr/bin/python3",
        ["-c".to_owned(), format!("{prelude}{script}")],
    )
}

fn deceived(script: &str) -> Result<NtfsWriteError> {
    let volume = Volume::new(16, USUAL)?;
    let before = bytes_of(&volume.base)?;
    let disk = volume.overlay();
    let writer = writer(&disk).with_worker(impostor(script));
    let writer = writer.with_time_limit(Duration::from_secs(20));
    let error = writer
        .apply(&[write_file("file", &noise(5000, 1))])
        .unwrap_err();
    assert!(bytes_of(&volume.base)? == before, "{script}");
    Ok(error)
}

#[test]
fn a_hostile_worker_gets_nothing_but_an_error() -> Result<()> {
    let mounted = "hello(); receive(); done(0); receive()\n";
    for (script, expected) in [
        ("sys.exit(5)", "exit status: 5"),
        (
            "os.write(0, b'GET / HTTP/1.1\\r\\n\\r\\n')",
            "a frame begins with [47, 45, 54, 20]",
        ),
        ("send(1, b'', version=2)", "version 2, expected 1"),
        ("send(1, b'', sequence=9)", "frame 9, expected frame 0"),
        (
            "send(1, b'', length=0xFFFFFFFF)",
            "a frame of 4294967295 bytes",
        ),
        ("send(1, b'')", "whose confinement is wrong or missing"),
        ("send(99, b'')", "kind 99"),
        ("hello(7)", "confinement 0x7, expected 0xf"),
        ("done(0)", "it answered Mounted when its name was due"),
        (
            "hello(); hello(); receive()",
            "it answered its name when a request was due",
        ),
        (
            "hello(); receive(); done(1)",
            "it answered Unmounted when that it has mounted was due",
        ),
        (
            "hello(); receive(); send(5, struct.pack('<QI', 0, 10))",
            "a wish for content",
        ),
    ]
    .into_iter()
    .map(|(script, expected)| (script.to_owned(), expected))
    .chain(
        [
            (
                "send(2, struct.pack('<QI', 1 << 40, 512))",
                "512 bytes of the volume at 0x10000000000",
            ),
            (
                "send(2, struct.pack('<QI', (1 << 64) - 1, 2))",
                "which ends at 0x1000000",
            ),
            (
                "send(2, struct.pack('<QI', 0, 1 << 30))",
                "whose length is wrong",
            ),
            ("send(2, struct.pack('<QI', 0, 0))", "whose length is wrong"),
            (
                "send(3, struct.pack('<Q', (16 << 20) - 1) + b'xx')",
                "2 bytes of the volume at 0xffffff",
            ),
            ("send(3, struct.pack('<Q', 0))", "whose length is wrong"),
            (
                "send(5, struct.pack('<QI', 4999, 2))",
                "2 bytes of the content at 0x1387, which ends at 0x1388",
            ),
            (
                "send(6, bytes([3, 200]) + struct.pack('<iI', 5, 0))",
                "whose step is wrong",
            ),
            (
                "send(6, bytes([3, 1]) + struct.pack('<iI', -5, 0))",
                "whose errno is wrong",
            ),
            (
                "send(6, bytes([3, 1]) + struct.pack('<iI', 5, 4000) + b'x' * 4000)",
                "whose message is wrong",
            ),
            ("send(4, b'more')", "whose end is wrong"),
            ("sys.exit(0)", "exit status: 0"),
            ("os.write(0, b'CEN'); sys.exit(0)", "exit status: 0"),
            (
                "while True: send(3, struct.pack('<Q', 0) + bytes(1 << 18)); receive()",
                "it wrote more than",
            ),
            (
                "while True: send(4); receive()",
                "it made requests, more than",
            ),
            // It claims to have done what it has not, and ends in good order.
            ("applied(1); receive(); done(1)", "no such file"),
            (
                "applied(0); receive(); done(1); sys.exit(1)",
                "exit status: 1",
            ),
            (
                "send(6, bytes([3, 1]) + struct.pack('<iI', 28, 3) + b'\\x1b[2')",
                r#"No space left on device (os error 28): "\u{1b}[2""#,
            ),
        ]
        .into_iter()
        .map(|(script, expected)| (format!("{mounted}{script}"), expected)),
    ) {
        let error = anyhow::Error::new(deceived(&script)?);
        let text = format!("{error:#}");
        assert!(text.contains(expected), "{script}: {text}");
    }
    Ok(())
}

#[test]
fn a_worker_that_says_nothing_is_given_up() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    for script in [
        "time.sleep(1000)",
        "hello(); time.sleep(1000)",
        "hello(); receive(); time.sleep(1000)",
    ] {
        let disk = volume.overlay();
        let started = Instant::now();
        let silent = writer(&disk).with_worker(impostor(script));
        let error = silent
            .with_time_limit(Duration::from_millis(700))
            .apply(&[write_file("file", b"x")])
            .unwrap_err();
        assert!(matches!(error, NtfsWriteError::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(children()?, [] as [i32; 0], "no worker is left");
    }
    Ok(())
}

#[test]
fn a_request_to_cancel_ends_it_soon() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let disk = volume.overlay();
    let cancel = Cancel::default();
    let silent = writer(&disk).with_worker(impostor("hello(); time.sleep(1000)"));
    let writer = silent.with_cancel(cancel.clone());
    let started = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            cancel.request();
        });
        writer.apply(&[write_file("file", b"x")]).unwrap_err()
    });
    assert!(matches!(error, NtfsWriteError::Cancelled { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[test]
fn a_program_that_is_not_there_is_named() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let disk = volume.overlay();
    let missing = WorkerProgram::new("/nonexistent/worker", [""; 0]);
    let error = writer(&disk)
        .with_worker(missing)
        .apply(&[write_file("file", b"x")])
        .unwrap_err();
    let NtfsWriteError::Worker {
        source: WorkerError::Start { program, .. },
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(program, "/nonexistent/worker");
    Ok(())
}
