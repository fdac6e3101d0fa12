//! Reads cabinets whose numbers are anything, with folders that are stored or compressed by MSZIP.
//!
//! Oracle: nothing panics or takes long, no more is unpacked than was allowed, and a file has the same
//! content whether it is read with all others or alone. Stored content is where the file says it is.

#![no_main]

use std::io::Cursor;

use arbitrary::Arbitrary;
use ce_platform::bundle::cabinet::{Cabinet, CabinetError, CabinetFile, CabinetLimits};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    folders: Vec<Folder>,
    files: Vec<File>,
    /// Bytes of the header and the lists that are something else; not how a folder is compressed.
    patches: Vec<(u8, u8)>,
}

#[derive(Arbitrary, Debug)]
struct Folder {
    is_compressed: bool,
    blocks: Vec<(Vec<u8>, Option<u16>)>,
}

#[derive(Arbitrary, Debug)]
struct File {
    folder: u8,
    offset: u16,
    length: u16,
    name: [u8; 2],
}

fuzz_target!(|input: Input| {
    let bytes = written(&input);
    let Some(all) = seen(&bytes, |_| true) else {
        return;
    };
    for (file, content) in &all {
        assert!(content.len() as u64 <= LIMITS.bytes);
        let alone = seen(&bytes, |other| other == file).expect("a file of a sound cabinet");
        // Several entries may be equal.
        assert!(!alone.is_empty() && alone.iter().all(|(_, other)| other == content));
    }
    if input.patches.is_empty() {
        for file in &input.files {
            let folder = &input.folders[usize::from(file.folder)];
            let whole: Vec<u8> = folder.blocks.iter().flat_map(|(block, _)| block.clone()).collect();
            let (start, end) = (usize::from(file.offset), usize::from(file.offset) + usize::from(file.length));
            if !folder.is_compressed {
                let expected = whole.get(start..end).expect("content that was read");
                assert!(all.iter().any(|(_, content)| content == expected));
            }
        }
    }
});

fn written(input: &Input) -> Vec<u8> {
    let (folders, files) = (&input.folders, &input.files);
    let lists = 36 + folders.len() * 8;
    let mut bytes = b"MSCF".to_vec();
    bytes.extend([0; 12]);
    bytes.extend((lists as u32).to_le_bytes());
    bytes.extend([0, 0, 0, 0, 3, 1]);
    bytes.extend((folders.len() as u16).to_le_bytes());
    bytes.extend((files.len() as u16).to_le_bytes());
    bytes.extend([0; 6]);
    let mut start = lists + files.len() * 19;
    for folder in folders {
        bytes.extend((start as u32).to_le_bytes());
        bytes.extend((folder.blocks.len() as u16).to_le_bytes());
        bytes.extend(u16::from(folder.is_compressed).to_le_bytes());
        start += folder.blocks.iter().map(|(block, _)| 8 + block.len()).sum::<usize>();
    }
    for file in files {
        bytes.extend(u32::from(file.length).to_le_bytes());
        bytes.extend(u32::from(file.offset).to_le_bytes());
        bytes.extend(u16::from(file.folder).to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(file.name.map(|byte| byte | 0x20));
        bytes.push(0);
    }
    for (block, length) in folders.iter().flat_map(|folder| &folder.blocks) {
        bytes.extend([0; 4]);
        bytes.extend((block.len() as u16).to_le_bytes());
        bytes.extend(length.unwrap_or(block.len() as u16).to_le_bytes());
        bytes.extend(block);
    }
    for (at, byte) in &input.patches {
        let at = usize::from(*at);
        let is_compression = (36..lists).contains(&at) && (at - 36) % 8 >= 6;
        // Flags and places move the folders' entries.
        if !is_compression && !(16..20).contains(&at) && !(24..36).contains(&at) && at < bytes.len() {
            bytes[at] = *byte;
        }
    }
    bytes
}

fn seen(
    bytes: &[u8],
    is_wanted: impl Fn(&CabinetFile) -> bool,
) -> Option<Vec<(CabinetFile, Vec<u8>)>> {
    let mut cabinet = Cabinet::open(Cursor::new(bytes), LIMITS).ok()?;
    let mut found = Vec::new();
    let done = cabinet.unpack(is_wanted, |files, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        found.extend(files.iter().map(|file| ((*file).clone(), bytes.clone())));
        Ok::<(), CabinetError>(())
    });
    done.ok().map(|()| found)
}

const LIMITS: CabinetLimits = CabinetLimits {
    files: 20,
    bytes: 1 << 20,
};
