//! The share as a destination, against a real Samba server.

#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;

use std::fs;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ce_disk::sink::smb::{
    ShareOpen, SmbCredentials, SmbDialect, SmbEncryption, SmbError, SmbErrorCode, SmbErrorKind,
    SmbLocation, SmbSecurity, SmbShare, SmbSink, SmbTimeouts,
};
use ce_disk::sink::{ByteSink, SinkError, SinkOptions};
use ce_disk::units::{ByteCount, ByteOffset};
use rustix::process::Signal;

use share::{PASSWORD, Server, Setup};

#[test]
fn an_image_arrives_as_it_was_written_and_under_its_name_only_when_it_is_whole() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let location = image(&server, "share/2024/may/web.vhdx");
    let mut sink = create(&server, "share/2024/may/web.vhdx", SinkOptions::default());
    let content = pattern(21 << 20);
    for (index, piece) in content.chunks(2 << 20).enumerate() {
        let offset = ByteOffset((index * (2 << 20)) as u64);
        sink.write_at(offset, piece).unwrap();
    }
    let end = ByteOffset(content.len() as u64);
    sink.extend_with_zeros(end, ByteCount::mib(9)).unwrap();
    sink.flush().unwrap();
    let folder = server.folder().join("2024/may");
    assert!(folder.join("web.vhdx.partial").exists());
    assert!(!folder.join("web.vhdx").exists());
    // As an image's head is: last, and before everything else.
    sink.write_at(ByteOffset(512), b"head").unwrap();
    sink.finish().unwrap();

    let mut expected = content;
    expected[512..516].copy_from_slice(b"head");
    expected.resize(30 << 20, 0);
    assert!(fs::read(folder.join("web.vhdx")).unwrap() == expected);
    assert_eq!(names(&server, "2024/may"), ["web.vhdx"]);
    let fetched = tempfile::NamedTempFile::new().unwrap();
    server.smbclient(&format!(
        "get \"2024/may/web.vhdx\" \"{}\"",
        fetched.path().display()
    ));
    assert!(fs::read(fetched.path()).unwrap() == expected);

    let share = connect(&server, "share/2024/may/web.vhdx").unwrap();
    let mut read = Vec::new();
    let mut file = share.open(location.image(), ShareOpen::Read).unwrap();
    file.read_through(ByteOffset::ZERO, |offset, bytes| {
        assert_eq!(offset.0, read.len() as u64);
        read.extend_from_slice(bytes);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(read == expected);
}

#[test]
fn zeros_are_written_and_leave_no_hole() {
    use std::os::unix::fs::MetadataExt;
    let _policy = default_policy();
    let server = Setup::default().start();
    let mut sink = create(&server, "share/z.vhdx", SinkOptions::default());
    sink.extend_with_zeros(ByteOffset::ZERO, ByteCount(20_000_001))
        .unwrap();
    sink.finish().unwrap();
    let metadata = fs::metadata(server.folder().join("z.vhdx")).unwrap();
    assert_eq!(metadata.len(), 20_000_001);
    assert!(metadata.blocks() * 512 >= 20_000_001);
}

#[test]
fn every_kind_of_protection_is_met_with_at_least_what_is_required() {
    let _policy = default_policy();
    for setup in [
        Setup::default().global("server signing = mandatory"),
        Setup::default().global("smb encrypt = required"),
        Setup::default().share("smb encrypt = required"),
        Setup::default().global(
            "smb encrypt = required
            server smb3 encryption algorithms = AES-256-GCM",
        ),
        Setup::default().global("server smb3 encryption algorithms = AES-128-CCM"),
    ] {
        let server = setup.clone().start();
        for security in [SmbSecurity::default(), signed_only()] {
            let share = connect_as(&server, "share/p.vhdx", security, PASSWORD).unwrap();
            let options = SinkOptions {
                overwrite: true,
                ..SinkOptions::default()
            };
            let mut sink = Box::new(SmbSink::create(share, options, ByteCount(0)).unwrap());
            let content = pattern(9 << 20);
            sink.write_at(ByteOffset::ZERO, &content).unwrap();
            sink.finish().unwrap();
            let written = fs::read(server.folder().join("p.vhdx")).unwrap();
            assert!(written == content, "{setup:?}");
        }
    }
}

#[test]
fn what_goes_over_the_wire_is_encrypted_or_at_least_signed() {
    let _policy = default_policy();
    let server = Setup::default().start();
    for (security, encrypted) in [(SmbSecurity::default(), true), (signed_only(), false)] {
        let wire = share::Wire::to(&server);
        let location = SmbLocation::parse(&wire.url("share/secret name.vhdx")).unwrap();
        let credentials = credentials(server.user(), PASSWORD);
        let share = SmbShare::connect(&location, &credentials, security, timeouts()).unwrap();
        let overwrite = SinkOptions {
            overwrite: true,
            ..SinkOptions::default()
        };
        let mut sink = Box::new(SmbSink::create(share, overwrite, ByteCount(0)).unwrap());
        sink.write_at(ByteOffset::ZERO, &pattern(9 << 20)).unwrap();
        sink.finish().unwrap();
        let requests = wire.requests();
        assert!(requests.len() > 10, "{requests:?}");
        for request in &requests {
            let expected = match request.command {
                // NEGOTIATE, and SESSION_SETUP, by which the keys come into being; and ECHO,
                // which belongs to no session and carries nothing.
                Some(0 | 1 | 13) => continue,
                // TREE_CONNECT to IPC$, on which encryption is asked for.
                Some(3) => !request.encrypted && request.signed,
                _ => request.encrypted == encrypted && (encrypted || request.signed),
            };
            assert!(expected, "{request:?} with {security:?}");
        }
    }
}

#[test]
fn a_server_that_does_not_encrypt_is_refused_before_anything_is_written() {
    let _policy = default_policy();
    for setup in [
        Setup::default().global("smb encrypt = off"),
        // It could, but libsmbclient asks for it only where DFS is announced.
        Setup::default().global("host msdfs = no"),
    ] {
        let server = setup.start();
        let error = connect(&server, "share/x.vhdx").unwrap_err();
        assert_eq!(*error.kind(), SmbErrorKind::EncryptionRefused, "{error}");
        assert_eq!(error.code(), SmbErrorCode::SmbProtocol);
        assert!(!error.is_retryable());
        assert!(names(&server, "").is_empty());
        connect_as(&server, "share/x.vhdx", signed_only(), PASSWORD).unwrap();
    }
}

#[test]
fn nothing_is_printed_to_standard_output_by_the_library() {
    // libsmbclient prints a sentence about the encryption that it can't have.
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("a_server_that_does_not_encrypt_is_refused_before_anything_is_written")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains("1 passed"), "{output:?}");
    assert!(!printed.contains("ncryption"), "{printed}");
}

#[test]
fn an_old_server_is_refused_unless_it_is_allowed() {
    let _policy = POLICY.write().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default()
        .global("server max protocol = SMB2_10")
        .start();
    let error = connect(&server, "share/x.vhdx").unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::ProtocolTooOld, "{error}");
    assert_eq!(error.code(), SmbErrorCode::SmbProtocol);
    assert!(!server.log().contains("authentication for user"));
    let old = SmbSecurity {
        oldest_dialect: SmbDialect::Smb2_10,
        encryption: SmbEncryption::IfDemanded,
    };
    connect_as(&server, "share/x.vhdx", old, PASSWORD).unwrap();
}

#[test]
fn another_dialect_waits_for_connections_that_are_being_closed() {
    let _policy = POLICY.write().unwrap_or_else(PoisonError::into_inner);
    let server = Setup::default().start();
    let old = SmbSecurity {
        oldest_dialect: SmbDialect::Smb2_10,
        ..SmbSecurity::default()
    };
    let first = connect(&server, "share/x.vhdx").unwrap();
    let error = connect_as(&server, "share/x.vhdx", old, PASSWORD).unwrap_err();
    assert!(error.to_string().contains("dialect"), "{error}");
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(1));
        drop(first);
    });
    connect_as(&server, "share/x.vhdx", old, PASSWORD).unwrap();
    closing.join().unwrap();
}

#[test]
fn nobody_becomes_a_guest() {
    let _policy = default_policy();
    let server = Setup::default()
        .global("map to guest = Bad User\nguest account = nobody\nsmb encrypt = off")
        .start();
    for security in [SmbSecurity::default(), signed_only()] {
        let location = image(&server, "guests/x.vhdx");
        let stranger = credentials("stranger", PASSWORD);
        let error = SmbShare::connect(&location, &stranger, security, timeouts()).unwrap_err();
        assert_eq!(*error.kind(), SmbErrorKind::SigningRefused, "{error}");
    }
}

#[test]
fn a_wrong_password_is_tried_once_and_never_shown() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let wrong = "Wrong-Pass2";
    let error = connect_as(&server, "share/x.vhdx", SmbSecurity::default(), wrong).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::BadCredentials, "{error}");
    assert_eq!(error.code(), SmbErrorCode::SmbAuthFailed);
    assert!(!error.is_retryable());
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    assert!(!format!("{error} {error:?} {}", error.hint()).contains(wrong));
    let log = server.log();
    assert_eq!(
        log.matches("FAILED with error NT_STATUS_WRONG_PASSWORD")
            .count(),
        1
    );
    assert!(!log.contains("anonymous"), "{log}");
}

#[test]
fn the_password_is_in_no_log_record() {
    struct Collect;
    static RECORDS: Mutex<String> = Mutex::new(String::new());
    impl log::Log for Collect {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            let mut records = RECORDS.lock().unwrap();
            records.push_str(&record.args().to_string());
        }
        fn flush(&self) {}
    }
    let _policy = default_policy();
    log::set_logger(&Collect).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let server = Setup::default().start();
    connect(&server, "share/x.vhdx").unwrap();
    log::set_max_level(log::LevelFilter::Off);
    let records = RECORDS.lock().unwrap();
    assert!(
        records.contains("context initialized"),
        "pavao logs to this"
    );
    assert!(!records.contains(PASSWORD));
}

#[test]
fn what_is_not_there_is_told_apart() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let kind = |path: &str| connect(&server, path).unwrap_err();
    let error = kind("nosuch/x.vhdx");
    assert_eq!(*error.kind(), SmbErrorKind::NoSuchShare, "{error}");
    assert_eq!(error.code(), SmbErrorCode::SmbShareNotFound);
    assert!(error.to_string().contains("/nosuch"), "{error}");
    let error = kind("forbidden/x.vhdx");
    assert_eq!(*error.kind(), SmbErrorKind::AccessDenied, "{error}");
    assert_eq!(error.code(), SmbErrorCode::SmbAccessDenied);

    let share = connect(&server, "share/none.vhdx").unwrap();
    let missing = share.location().image();
    assert_eq!(share.metadata(missing).unwrap(), None);
    assert_eq!(share.read_small(missing, 10).unwrap(), None);
    assert!(!share.remove(missing).unwrap());
    let error = share.open(missing, ShareOpen::ReadWrite).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::NoSuchPath);
    assert!(error.answer().unwrap().starts_with("NT_STATUS_"), "{error}");

    let anyone = |text: &str| {
        let location = SmbLocation::parse(text).unwrap();
        SmbShare::connect(
            &location,
            &credentials("alice", PASSWORD),
            SmbSecurity::default(),
            timeouts(),
        )
        .unwrap_err()
    };
    let error = anyone("smb://no-such-host.invalid/share/x");
    assert_eq!(*error.kind(), SmbErrorKind::Unresolved, "{error}");
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = anyone(&format!("smb://127.0.0.1:{closed}/share/x"));
    assert_eq!(*error.kind(), SmbErrorKind::Refused, "{error}");
    assert!(error.is_retryable());
    assert_eq!(error.code(), SmbErrorCode::SmbUnreachable);
    // No host, but nothing that a connection could be made to either.
    let error = anyone("smb://255.255.255.255/share/x");
    assert_eq!(*error.kind(), SmbErrorKind::Unreachable, "{error}");
    // Connections are taken, and nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let start = Instant::now();
    let error = anyone(&format!("smb://127.0.0.1:{port}/share/x"));
    assert_eq!(*error.kind(), SmbErrorKind::TimedOut, "{error}");
    assert!(start.elapsed() < timeouts().answer * 2);
}

#[test]
fn a_share_that_can_only_be_read_is_said_to_be_so() {
    let _policy = default_policy();
    let server = Setup::default().share("read only = yes").start();
    let share = connect(&server, "share/x.vhdx").unwrap();
    let error = SmbSink::create(share, SinkOptions::default(), ByteCount(0)).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::ReadOnly, "{error}");
    assert_eq!(error.code(), SmbErrorCode::SmbAccessDenied);
    assert!(
        error.to_string().contains("NT_STATUS_ACCESS_DENIED"),
        "{error}"
    );
}

#[test]
fn an_image_that_does_not_fit_is_refused_at_once_with_the_figures() {
    let _policy = default_policy();
    let server = Setup::default().tmpfs(16 << 20).start();
    let share = connect(&server, "share/x.vhdx").unwrap();
    let free = share.free_space(share.location().image()).unwrap().unwrap();
    assert!(
        free > ByteCount::mib(14) && free <= ByteCount::mib(16),
        "{free}"
    );
    let needed = ByteCount::mib(17);
    let error = SmbSink::create(share, SinkOptions::default(), needed).unwrap_err();
    let found = SmbErrorKind::NoSpace {
        needed: Some(needed),
        available: Some(free),
    };
    assert_eq!(*error.kind(), found);
    assert!(
        error
            .to_string()
            .contains("17825792 bytes (17.0 MiB) needed"),
        "{error}"
    );
    assert!(names(&server, "").is_empty());
}

#[test]
fn a_share_that_fills_up_is_an_error_at_the_latest_when_flushing() {
    let _policy = default_policy();
    let server = Setup::default().tmpfs(20 << 20).start();
    let mut sink = create(&server, "share/x.vhdx", SinkOptions::default());
    let content = pattern(32 << 20);
    let error = sink
        .write_at(ByteOffset::ZERO, &content)
        .and_then(|()| sink.flush())
        .unwrap_err();
    let SinkError::Smb(error) = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(error.kind(), SmbErrorKind::NoSpace { .. }),
        "{error}"
    );
    assert_eq!(error.code(), SmbErrorCode::SmbNoSpace);
    assert!(sink.write_at(ByteOffset::ZERO, b"more").is_err());
    drop(sink);
    assert!(names(&server, "").is_empty(), "the partial file is removed");
}

#[test]
fn an_image_that_exists_is_not_touched_unless_that_is_asked_for() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let old = server.folder().join("x.vhdx");
    fs::write(&old, b"old").unwrap();
    let share = connect(&server, "share/x.vhdx").unwrap();
    let error = SmbSink::create(share.clone(), SinkOptions::default(), ByteCount(0)).unwrap_err();
    assert_eq!(error.code(), SmbErrorCode::OutputExists);
    fs::remove_file(&old).unwrap();

    // It comes into being while the export runs.
    let mut sink = create(&server, "share/x.vhdx", SinkOptions::default());
    sink.write_at(ByteOffset::ZERO, b"new").unwrap();
    fs::write(&old, b"old").unwrap();
    let error = sink.finish().unwrap_err();
    assert!(matches!(error, SinkError::Exists { .. }), "{error}");
    assert_eq!(fs::read(&old).unwrap(), b"old");
    assert_eq!(names(&server, ""), ["x.vhdx"]);

    let overwrite = SinkOptions {
        overwrite: true,
        ..SinkOptions::default()
    };
    let mut sink = create(&server, "share/x.vhdx", overwrite);
    sink.write_at(ByteOffset::ZERO, b"new").unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"old");
    sink.finish().unwrap();
    assert_eq!(fs::read(&old).unwrap(), b"new");
    fs::create_dir(server.folder().join("d.vhdx")).unwrap();
    let share = connect(&server, "share/d.vhdx").unwrap();
    let error = SmbSink::create(share, overwrite, ByteCount(0)).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::OutputExists);
}

#[test]
fn what_stands_in_the_way_of_a_replacement_is_told() {
    let _policy = default_policy();
    let server = Setup::default().start();
    fs::write(server.folder().join("old.vhdx"), b"old").unwrap();
    fs::write(server.folder().join("new.vhdx"), b"new").unwrap();
    let share = connect(&server, "share/old.vhdx").unwrap();
    let (old, new) = (
        image(&server, "share/old.vhdx"),
        image(&server, "share/new.vhdx"),
    );
    let other = connect(&server, "share/old.vhdx").unwrap();
    let held = other.open(old.image(), ShareOpen::Read).unwrap();

    let error = share.rename(new.image(), old.image(), true).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::InUse, "{error}");
    assert!(error.is_retryable(), "{error}");
    assert_eq!(names(&server, ""), ["new.vhdx", "old.vhdx"]);

    drop(held);
    // Answered when the file is closed: a connection does one thing after the other.
    other.remove(&old.state()).unwrap();
    share.rename(new.image(), old.image(), true).unwrap();
    assert_eq!(fs::read(server.folder().join("old.vhdx")).unwrap(), b"new");
    assert_eq!(names(&server, ""), ["old.vhdx"]);
}

#[test]
fn two_exports_to_one_name_do_not_mix() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let mut first = create(&server, "share/x.vhdx", SinkOptions::default());
    first.write_at(ByteOffset::ZERO, b"first").unwrap();
    let share = connect(&server, "share/x.vhdx").unwrap();
    let error = SmbSink::create(share, SinkOptions::default(), ByteCount(0)).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::InUse, "{error}");
    first.finish().unwrap();
    assert_eq!(fs::read(server.folder().join("x.vhdx")).unwrap(), b"first");
}

#[test]
fn a_partial_image_can_be_kept_checked_and_finished_later() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let keep = SinkOptions {
        keep_partial: true,
        ..SinkOptions::default()
    };
    let content = pattern(20 << 20);
    let mut sink = create(&server, "share/x.vhdx", keep);
    sink.write_at(ByteOffset::ZERO, &content[..12 << 20])
        .unwrap();
    sink.flush().unwrap();
    let state = sink.share().location().state();
    sink.share().replace_small(&state, b"one".to_vec()).unwrap();
    sink.share().replace_small(&state, b"two".to_vec()).unwrap();
    drop(sink);
    assert_eq!(
        names(&server, ""),
        ["x.vhdx.partial", "x.vhdx.partial.state"]
    );

    let share = connect(&server, "share/x.vhdx").unwrap();
    assert_eq!(share.read_small(&state, 3).unwrap().unwrap(), b"two");
    assert!(share.read_small(&state, 2).is_err());
    let mut sink = Box::new(SmbSink::resume(share, keep).unwrap());
    assert_eq!(sink.end(), ByteOffset(12 << 20));
    let mut tail = vec![0; 9 << 20];
    let count = sink.read_at(ByteOffset(4 << 20), &mut tail).unwrap();
    assert_eq!(count, 8 << 20);
    assert!(tail[..count] == content[4 << 20..12 << 20]);
    sink.write_at(ByteOffset(12 << 20), &content[12 << 20..])
        .unwrap();
    sink.finish().unwrap();
    assert!(fs::read(server.folder().join("x.vhdx")).unwrap() == content);
    assert_eq!(names(&server, ""), ["x.vhdx"]);
}

#[test]
fn an_export_that_is_given_up_leaves_nothing_behind() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let mut sink = create(&server, "share/x.vhdx", SinkOptions::default());
    sink.write_at(ByteOffset::ZERO, &pattern(10 << 20)).unwrap();
    drop(sink);
    assert!(names(&server, "").is_empty());
}

#[test]
fn names_reach_the_server_as_they_are_written() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let long = format!("{}.vhdx", "n".repeat(250));
    for name in [
        "Größe – 日本 💾.vhdx",
        "a b#c%41+;&.vhdx",
        "%2e%2e.vhdx",
        " lead 'quote' [x] {y} $z.vhdx",
        long.as_str(),
    ] {
        let mut sink = create(
            &server,
            &format!("share/ordner ü %/{name}"),
            SinkOptions::default(),
        );
        sink.write_at(ByteOffset::ZERO, name.as_bytes()).unwrap();
        sink.finish().unwrap();
        let path = server.folder().join("ordner ü %").join(name);
        assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{name}");
    }
    assert_eq!(names(&server, ""), ["ordner ü %"]);
    assert_eq!(names(&server, "ordner ü %").len(), 5);

    // 255 units for Windows, but too long for the server's file system.
    let wide = "日".repeat(255);
    let share = connect(&server, &format!("share/{wide}")).unwrap();
    let error = SmbSink::create(share, SinkOptions::default(), ByteCount(0)).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::PathRefused, "{error}");
    // A file is where a folder should be.
    fs::write(server.folder().join("file"), b"x").unwrap();
    let share = connect(&server, "share/file/x.vhdx").unwrap();
    let error = SmbSink::create(share, SinkOptions::default(), ByteCount(0)).unwrap_err();
    assert_eq!(*error.kind(), SmbErrorKind::PathRefused, "{error}");
}

#[test]
fn a_server_that_dies_while_it_is_written_to_is_a_lost_connection_and_can_be_resumed() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let content = pattern(24 << 20);
    let keep = SinkOptions {
        keep_partial: true,
        ..SinkOptions::default()
    };
    let mut sink = create(&server, "share/x.vhdx", keep);
    sink.write_at(ByteOffset::ZERO, &content[..16 << 20])
        .unwrap();
    sink.flush().unwrap();
    server.signal_connections(Signal::KILL);
    let error = sink
        .write_at(ByteOffset(16 << 20), &content[16 << 20..])
        .and_then(|()| sink.flush())
        .unwrap_err();
    let SinkError::Smb(error) = error else {
        panic!("{error:?}")
    };
    assert!(
        error.is_connection_lost() && error.is_retryable(),
        "{error}"
    );
    // The connection is not repaired behind the scenes, where open files would be lost.
    let again = sink.share().metadata(sink.share().location().image());
    assert!(again.unwrap_err().is_connection_lost());
    drop(sink);

    let share = connect(&server, "share/x.vhdx").unwrap();
    let mut sink = Box::new(SmbSink::resume(share, keep).unwrap());
    assert_eq!(sink.end(), ByteOffset(16 << 20));
    sink.write_at(ByteOffset(8 << 20), &content[8 << 20..])
        .unwrap();
    sink.finish().unwrap();
    assert!(fs::read(server.folder().join("x.vhdx")).unwrap() == content);
}

#[test]
fn a_frozen_server_is_an_error_after_the_time_that_was_set() {
    let _policy = default_policy();
    let server = Setup::default().start();
    let mut sink = create(&server, "share/x.vhdx", SinkOptions::default());
    sink.write_at(ByteOffset::ZERO, &pattern(8 << 20)).unwrap();
    sink.flush().unwrap();
    server.signal_connections(Signal::STOP);
    let start = Instant::now();
    sink.write_at(ByteOffset(8 << 20), b"more").unwrap();
    let SinkError::Smb(error) = sink.flush().unwrap_err() else {
        panic!("not an error of the share")
    };
    let taken = start.elapsed();
    assert!(
        error.is_connection_lost() && error.is_retryable(),
        "{error}"
    );
    assert_eq!(error.code(), SmbErrorCode::SmbUnreachable);
    let set = timeouts().answer;
    assert!(taken >= set && taken < set * 2, "{taken:?} for {set:?}");
    let start = Instant::now();
    drop(sink);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "nobody waits for the end"
    );
}

/// pavao has one range of dialects for all connections of a process at a time. Whoever wants
/// another one than the default has it alone.
static POLICY: RwLock<()> = RwLock::new(());

fn default_policy() -> std::sync::RwLockReadGuard<'static, ()> {
    POLICY.read().unwrap_or_else(PoisonError::into_inner)
}

fn timeouts() -> SmbTimeouts {
    SmbTimeouts {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(4),
    }
}

fn signed_only() -> SmbSecurity {
    SmbSecurity {
        encryption: SmbEncryption::IfDemanded,
        ..SmbSecurity::default()
    }
}

fn credentials(user: &str, password: &str) -> SmbCredentials {
    SmbCredentials::new("WORKGROUP".into(), user.into(), password.to_owned().into()).unwrap()
}

fn image(server: &Server, path: &str) -> SmbLocation {
    SmbLocation::parse(&server.url(path)).unwrap()
}

fn connect(server: &Server, path: &str) -> Result<SmbShare, SmbError> {
    connect_as(server, path, SmbSecurity::default(), PASSWORD)
}

fn connect_as(
    server: &Server,
    path: &str,
    security: SmbSecurity,
    password: &str,
) -> Result<SmbShare, SmbError> {
    let credentials = credentials(server.user(), password);
    SmbShare::connect(&image(server, path), &credentials, security, timeouts())
}

fn create(server: &Server, path: &str, options: SinkOptions) -> Box<SmbSink> {
    let share = connect(server, path).unwrap();
    Box::new(SmbSink::create(share, options, ByteCount(0)).unwrap())
}

/// What is in a folder of the share, sorted.
fn names(server: &Server, folder: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(server.folder().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Bytes of which no two blocks are alike.
fn pattern(length: usize) -> Vec<u8> {
    let words = (0u64..).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(length).collect()
}
