//! Cabinets that another program wrote, whole and with bytes wrong; and what it cannot write, by hand.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use cab::{CabinetBuilder, CompressionType};
use ce_platform::bundle::cabinet::{Cabinet, CabinetError, CabinetFile, CabinetLimits};
use proptest::prelude::*;

const LIMITS: CabinetLimits = CabinetLimits {
    files: 100,
    bytes: 64 << 20,
};

/// A folder: how it is compressed, and its files.
type Folder = (CompressionType, Vec<(String, Vec<u8>)>);

fn written(folders: &[Folder]) -> Vec<u8> {
    let mut builder = CabinetBuilder::new();
    for (compression, files) in folders {
        let folder = builder.add_folder(*compression);
        for (name, _) in files {
            folder.add_file(name.clone());
        }
    }
    let mut writer = builder.build(Cursor::new(Vec::new())).unwrap();
    let mut contents = folders.iter().flat_map(|(_, files)| files);
    while let Some(mut file) = writer.next_file().unwrap() {
        file.write_all(&contents.next().unwrap().1).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// All that is wanted of it.
fn read(
    bytes: &[u8],
    limits: CabinetLimits,
    is_wanted: impl Fn(&CabinetFile) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, CabinetError> {
    let mut cabinet = Cabinet::open(Cursor::new(bytes), limits)?;
    let mut found = BTreeMap::new();
    cabinet.unpack(is_wanted, |files, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        for file in files {
            found.insert(file.name.clone(), bytes.clone());
        }
        Ok::<(), CabinetError>(())
    })?;
    Ok(found)
}

/// Content that can be compressed, and some that can't.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    (noise, 0..1500_usize).prop_map(|(noise, times)| noise.repeat(times))
}

fn folders() -> impl Strategy<Value = Vec<Folder>> {
    let compression = prop_oneof![Just(CompressionType::None), Just(CompressionType::MsZip)];
    let folder = (compression, proptest::collection::vec(content(), 1..5));
    proptest::collection::vec(folder, 1..4).prop_map(|folders| {
        let mut number = 0;
        let named = folders.into_iter().map(|(compression, contents)| {
            let files = contents.into_iter().map(|content| {
                number += 1;
                (format!("x64\\driver {number}.sys"), content)
            });
            (compression, files.collect())
        });
        named.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_another_program_wrote_is_read(folders in folders(), only in 0..16_usize) {
        let bytes = written(&folders);
        let expected: BTreeMap<_, _> = folders.into_iter().flat_map(|(_, files)| files).collect();
        prop_assert_eq!(&read(&bytes, LIMITS, |_| true).unwrap(), &expected);
        // And one of them alone.
        let (name, content) = expected.iter().nth(only % expected.len()).unwrap();
        let found = read(&bytes, LIMITS, |file| file.name == *name).unwrap();
        prop_assert_eq!(found, BTreeMap::from([(name.clone(), content.clone())]));
    }

    #[test]
    fn whatever_is_wrong_with_it_a_cabinet_is_read_or_refused(
        folders in folders(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = written(&folders);
        for (at, byte) in changes {
            // Where the numbers are.
            let length = bytes.len().min(400);
            bytes[at.index(length)] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(found) = read(&bytes, LIMITS, |_| true) {
            for (name, content) in found {
                let again = read(&bytes, LIMITS, |file| file.name == name).unwrap();
                // Files may have one name.
                prop_assert_eq!(again.get(&name), Some(&content));
            }
        }
    }
}

/// A cabinet of one folder, made by hand: how it is compressed, its blocks with the length of their
/// content, and its files with offset and length.
fn by_hand(compression: u16, blocks: &[(&[u8], u16)], files: &[(&str, u32, u32, u16)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (name, offset, length, folder) in files {
        list.extend(length.to_le_bytes());
        list.extend(offset.to_le_bytes());
        list.extend(folder.to_le_bytes());
        list.extend([0; 6]);
        list.extend(name.as_bytes());
        list.push(0);
    }
    let first_block = 36 + 8 + list.len() as u32;
    let mut bytes = b"MSCF".to_vec();
    bytes.extend([0; 12]);
    bytes.extend(44_u32.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 3, 1, 1, 0]);
    bytes.extend((files.len() as u16).to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(first_block.to_le_bytes());
    bytes.extend((blocks.len() as u16).to_le_bytes());
    bytes.extend(compression.to_le_bytes());
    bytes.extend(list);
    for (packed, length) in blocks {
        bytes.extend([0; 4]);
        bytes.extend((packed.len() as u16).to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(*packed);
    }
    bytes
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes, LIMITS, |_| true).unwrap_err().to_string()
}

#[test]
fn files_that_share_their_content_are_all_given_it() {
    let bytes = by_hand(
        0,
        &[(b"onetwo", 6)],
        &[
            ("a", 0, 3, 0),
            ("b", 3, 3, 0),
            ("c", 0, 3, 0),
            ("d", 3, 0, 0),
        ],
    );
    let found = read(&bytes, LIMITS, |_| true).unwrap();
    let found: Vec<(&str, &[u8])> = found
        .iter()
        .map(|(name, content)| (&**name, &**content))
        .collect();
    let expected: [(&str, &[u8]); 4] = [("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b"")];
    assert_eq!(found, expected);
}

#[test]
fn lzx_is_unpacked_over_several_blocks() {
    // Blocks of LZX that are stored (MS-PATCH 2.4.2.3): no E8 translation, type 3, 24 bits of length,
    // three offsets, content.
    let stored = |length: u32, content: &[u8], is_first: bool| {
        let (kind, bits) = (3_u32 << 24 | length, if is_first { 28 } else { 27 });
        let word = kind << (32 - bits);
        let mut packed = Vec::new();
        for half in [word >> 16, word & 0xFFFF] {
            packed.extend((half as u16).to_le_bytes());
        }
        for offset in [1_u32; 3] {
            packed.extend(offset.to_le_bytes());
        }
        packed.extend(content);
        packed
    };
    let (first, second) = (vec![0xAB; 32 << 10], b"a driver".to_vec());
    let blocks = [
        stored(first.len() as u32, &first, true),
        stored(second.len() as u32, &second, false),
    ];
    for window in 15..=21_u16 {
        let bytes = by_hand(
            3 | window << 8,
            &[(&blocks[0], 0x8000), (&blocks[1], 8)],
            &[("all", 0, 0x8000, 0), ("rest", 0x8000, 8, 0)],
        );
        let found = read(&bytes, LIMITS, |_| true).unwrap();
        assert!(
            found["all"] == first && found["rest"] == second,
            "window {window}"
        );
    }
}

#[test]
fn hostile_cabinets_are_refused_by_what_is_wrong_with_them() {
    let one: [(&[u8], u16); 1] = [(b"four", 4)];
    for (bytes, expected) in [
        (
            by_hand(0, &one, &[("a", 0, 3, 0), ("b", 2, 2, 0)]),
            "the file \"b\": its content overlaps another's",
        ),
        (
            by_hand(0, &one, &[("a", 0xFFFF_FFF0, 3, 0)]),
            "the file \"a\": its folder ends before it",
        ),
        (
            by_hand(0, &one, &[("a", 0, 4, 0xFFFD)]),
            "the file \"a\": a part of it is in another cabinet",
        ),
        (
            by_hand(0, &one, &[("a", 0, 4, 7)]),
            "at byte 52: expected a folder of the cabinet, found folder 7 of 1",
        ),
        (
            by_hand(2, &one, &[("a", 0, 4, 0)]),
            "at byte 62: expected a folder that is stored or compressed by MSZIP or LZX, found type 0x0002",
        ),
    ] {
        assert_eq!(refusal(&bytes), expected);
    }
    // What the blocks hold is found while they are read.
    for (bytes, expected) in [
        (
            by_hand(0, &[(b"four", 5)], &[("a", 0, 4, 0)]),
            "4 bytes for 5",
        ),
        (by_hand(1, &one, &[("a", 0, 4, 0)]), "no signature CK"),
        (
            by_hand(1, &[(b"CK\x03\0", 4)], &[("a", 0, 4, 0)]),
            "0 bytes instead of 4",
        ),
        (by_hand(0, &[(b"", 0)], &[("a", 0, 4, 0)]), "found 0 bytes"),
    ] {
        let error = read(&bytes, LIMITS, |_| true).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert!(
            cause
                .as_ref()
                .is_some_and(|cause| cause.ends_with(expected)),
            "{cause:?}"
        );
    }
    let sound = by_hand(0, &one, &[("a", 0, 4, 0)]);
    let tight = |files, bytes| read(&sound, CabinetLimits { files, bytes }, |_| true);
    assert_eq!(tight(1, 4).unwrap().len(), 1);
    assert_eq!(
        tight(0, 4).unwrap_err().to_string(),
        "the cabinet has more than 0 files"
    );
    let error = tight(1, 3).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(
        cause.as_deref(),
        Some("the cabinet has more than 3 bytes of content")
    );
}
