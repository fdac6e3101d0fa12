//! Serves a worker of NTFS writing that sends whatever it likes.
//!
//! Oracle: the session ends; nothing is written outside of the volume (the disk would say so, and
//! the guard behind it stays as it is); what is written stays within the budget; a message that is
//! taken is the one that would have been sent.
//!
//! Input: messages of a kind (8 bits), a length (16 bits, little-endian) and a payload, which are
//! put into frames; a kind with its highest bit set puts the payload there without a frame.

#![no_main]

use std::io::{self, Cursor, Read, Write};

use ce_disk::block::{BlockRead, MemoryDisk, Window};
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use ce_disk::volume::ntfs::write::protocol::{Frame, Request};
use ce_disk::volume::ntfs::write::session::{Budget, Session};
use ce_disk::volume::ntfs::write::{FileWrite, Security, ShortNames, VolumeEdit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let disk = MemoryDisk::new(ByteCount(2 * SIZE), SectorSizes::B512);
    let volume = Window::new(&disk, ByteOffset::ZERO, ByteCount(SIZE), "volume".into())
        .expect("half of the disk");
    let budget = Budget {
        bytes: 100_000,
        requests: 1_000,
    };
    let edit = VolumeEdit::WriteFile(FileWrite {
        path: "file".parse().expect("a path"),
        content: std::sync::Arc::new(vec![5; 10_000]),
        attributes: None,
        times: None,
        security: Security::Inherit,
    });
    let mut written = ByteCount(0);
    if let Ok(mut session) = Session::begin(&volume, Scripted::new(input), budget) {
        if session.mount(ShortNames::Create).is_ok() && session.apply(&edit).is_ok() {
            let _ = session.finish();
        }
        written = session.written();
    }
    assert!(written.0 <= budget.bytes, "{written}");
    let mut guard = vec![0; SIZE as usize];
    disk.read_at(ByteOffset(SIZE), &mut guard)
        .expect("on the disk");
    assert!(
        guard.iter().all(|byte| *byte == 0),
        "written outside of the volume"
    );
});

/// A worker that says what the input has it say, and does not listen.
struct Scripted(Cursor<Vec<u8>>);

impl Scripted {
    fn new(mut input: &[u8]) -> Self {
        let mut stream = Vec::new();
        let mut sequence = 0u32;
        while let [kind, low, high, rest @ ..] = input {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (payload, rest) = rest.split_at(length);
            input = rest;
            if kind & 0x80 == 0 {
                let kind = u16::from(*kind);
                check_canonical(&Frame { kind, payload });
                stream.extend_from_slice(b"CENW");
                stream.extend_from_slice(&1u16.to_le_bytes());
                stream.extend_from_slice(&kind.to_le_bytes());
                stream.extend_from_slice(&sequence.to_le_bytes());
                // At most 65,535.
                stream.extend_from_slice(&(length as u32).to_le_bytes());
                sequence += 1;
            }
            stream.extend_from_slice(payload);
        }
        Self(Cursor::new(stream))
    }
}

fn check_canonical(frame: &Frame<'_>) {
    if let Ok(request) = Request::decode(frame) {
        let mut payload = Vec::new();
        request.encode(&mut payload);
        assert_eq!((request.kind(), &payload[..]), (frame.kind, frame.payload));
    }
}

impl Read for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SIZE: u64 = 1 << 20;
