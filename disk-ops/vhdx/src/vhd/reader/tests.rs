use super::*;
use crate::units::MIB;

/// A dynamic VHD of three blocks of 2 MiB and one sector, of which the first is in the file, with
/// data in its sectors 1 and 4095.
fn dynamic() -> Vec<u8> {
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&FILE_FORMAT_VERSION.to_be_bytes());
    footer[16..24].copy_from_slice(&512_u64.to_be_bytes());
    footer[48..56].copy_from_slice(&(6 * MIB + 512).to_be_bytes());
    footer[60..64].copy_from_slice(&3_u32.to_be_bytes());
    let mut header = vec![0; 1024];
    header[..8].copy_from_slice(b"cxsparse");
    header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
    header[24..28].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&4_u32.to_be_bytes());
    header[32..36].copy_from_slice(&(2_u32 << 20).to_be_bytes());
    header[64..70].copy_from_slice(b"\0b\0.\0v");
    let mut file = [footer.clone(), header].concat();
    file.extend(4_u32.to_be_bytes());
    file.resize(2048, 0xFF);
    file.extend([0x40].iter().chain(&[0; 510]).chain(&[1]));
    file.resize(2560 + buffer_index(2 * MIB), 0xDD);
    file.extend(footer);
    reseal(&mut file);
    file
}

fn reseal(file: &mut [u8]) {
    let end = file.len() - 512;
    for (start, length, field) in [(0, 512, 64), (512, 1024, 36), (end, 512, 64)] {
        let sum = checksum(&file[start..start + length], field);
        file[start + field..start + field + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

fn refusal(file: &[u8]) -> String {
    VhdReader::open(file)
        .map(|_| ())
        .expect_err("a file that is refused")
        .to_string()
}

#[test]
fn sectors_that_the_bitmap_leaves_out_are_zero() {
    let file = dynamic();
    let reader = VhdReader::open(file.as_slice()).expect("a valid file");
    assert_eq!(reader.disk_size(), 6 * MIB + 512);
    let at = |offset| {
        reader
            .extent_at(VirtualOffset(offset))
            .expect("on the disk")
    };
    let data = |file_offset, length| Extent::Data {
        file_offset: FileOffset(file_offset),
        length,
    };
    assert_eq!(at(0), Extent::Zero { length: 512 });
    assert_eq!(at(612), data(2560 + 612, 412));
    assert_eq!(
        at(1024),
        Extent::Zero {
            length: 2 * MIB - 1536
        }
    );
    assert_eq!(at(2 * MIB - 512), data(2560 + 2 * MIB - 512, 512));
    assert_eq!(
        at(2 * MIB),
        Extent::Zero {
            length: 4 * MIB + 512
        }
    );
    let mut bytes = vec![7; 1536];
    reader
        .read_at(VirtualOffset(0), &mut bytes)
        .expect("readable");
    assert_eq!(bytes, [[0; 512], [0xDD; 512], [0; 512]].concat());
}

#[test]
fn unused_blocks_are_looked_up_a_stretch_at_a_time() {
    // A disk of 64 MiB in blocks of 512 bytes, none of which is in the file.
    let mut file = dynamic();
    file[512 + 28..512 + 32].copy_from_slice(&(1_u32 << 17).to_be_bytes());
    file[512 + 32..512 + 36].copy_from_slice(&512_u32.to_be_bytes());
    file.truncate(1536);
    file.resize(1536 + (4 << 17), 0xFF);
    let footer: Vec<u8> = file[..512].to_vec();
    file.extend(footer);
    let end = file.len() - 512;
    for at in [0, end] {
        file[at + 48..at + 56].copy_from_slice(&(64 * MIB).to_be_bytes());
    }
    reseal(&mut file);
    let reader = VhdReader::open(file.as_slice()).expect("a valid file");
    let mut offset = 0;
    while offset < 64 * MIB {
        let extent = reader.extent_at(VirtualOffset(offset));
        assert_eq!(
            extent.expect("on the disk"),
            Extent::Zero { length: 4 * MIB }
        );
        offset += 4 * MIB;
    }
    let mut bytes = vec![7; buffer_index(9 * MIB)];
    reader
        .read_at(VirtualOffset(MIB + 5), &mut bytes)
        .expect("readable");
    assert!(crate::is_zero(&bytes));
}

#[test]
fn the_copy_at_the_start_stands_in_for_a_lost_footer() {
    let mut file = dynamic();
    let end = file.len() - 512;
    file[end + 20] ^= 1;
    VhdReader::open(file.as_slice()).expect("the copy is whole");
    file[20] ^= 1;
    assert!(refusal(&file).contains("checksum of the footer"));
    assert!(matches!(
        VhdReader::open([0; 4096].as_slice()),
        Err(OpenError::NotVhd)
    ));
}

#[test]
fn fields_that_can_t_be_right_are_refused() {
    let cases: [(usize, u8, &str); 8] = [
        (13, 2, "the format version"),
        (48, 1, "impossible disk"),
        (55, 1, "impossible disk"),
        (63, 9, "the disk type"),
        (512 + 25, 2, "the header version"),
        (512 + 31, 1, "the number of table entries"),
        (512 + 35, 1, "the block size"),
        (512 + 21, 0xFF, "the BAT"),
    ];
    for (at, value, message) in cases {
        let mut file = dynamic();
        let end = file.len() - 512;
        file[at] = value;
        if at < 512 {
            file[end + at] = value;
        }
        reseal(&mut file);
        let found = refusal(&file);
        assert!(found.contains(message), "{found}");
    }
    let mut file = dynamic();
    file[512] = b'x';
    assert!(refusal(&file).contains("the dynamic header"));
}

#[test]
fn blocks_that_are_cut_short_or_overlap_are_refused() {
    let mut file = dynamic();
    file[1536 + 4..1536 + 8].copy_from_slice(&5_u32.to_be_bytes());
    file.splice(2560..2560, [0; 512]);
    assert!(refusal(&file).contains("overlaps"), "{}", refusal(&file));
    file[1536 + 6] = 0x80;
    assert!(refusal(&file).contains("block 1 at 0x1000a00 of the image is cut short"));
}

#[test]
fn blocks_that_lie_over_a_structure_are_refused() {
    // The sectors of the dynamic header, of the end of the table, and the one that lets the block
    // end where the last footer does.
    for (sector, message) in [(1, "overlaps"), (3, "overlaps"), (5, "cut short")] {
        let mut file = dynamic();
        file[1536 + 3] = sector;
        assert!(refusal(&file).contains(message), "{}", refusal(&file));
    }
}

#[test]
fn a_differencing_disk_is_refused_by_the_name_of_its_parent() {
    let mut file = dynamic();
    let end = file.len() - 512;
    for at in [0, end] {
        file[at + 63] = 4;
    }
    reseal(&mut file);
    assert!(refusal(&file).contains("\"b.v\""), "{}", refusal(&file));
}

#[test]
fn a_footer_of_511_bytes_is_one_of_the_first_programs() {
    let mut file = dynamic();
    let end = file.len() - 512;
    file.drain(512..end);
    for footer in 0..2 {
        file[512 * footer + 63] = 2;
        file[512 * footer + 48..512 * footer + 56].copy_from_slice(&512_u64.to_be_bytes());
    }
    let sum = checksum(&file[512..], 64);
    file[512 + 64..512 + 68].copy_from_slice(&sum.to_be_bytes());
    file.pop();
    let reader = VhdReader::open(file.as_slice()).expect("a fixed disk of one sector");
    assert_eq!(reader.disk_size(), 512);
    file.remove(0);
    assert!(refusal(&file).contains("cut short"));
}
