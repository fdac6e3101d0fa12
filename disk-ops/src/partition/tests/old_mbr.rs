//! MBRs, chains of logical partitions, and disks that only look like one.

use super::build::mbr_entry;
use super::*;

const SECTORS: usize = 8192;

fn blank() -> Vec<u8> {
    vec![0; SECTORS * 512]
}

/// An extended partition at sector 2048 with logical partitions of 100 sectors; the last boot
/// record links to `last_link`, relative to the extended partition, if that is not zero.
fn with_chain(boot_records: &[u32], last_link: u32) -> Vec<u8> {
    let mut bytes = blank();
    mbr_entry(&mut bytes, 0, 0x80, 0x07, 64, 1000);
    mbr_entry(&mut bytes, 1, 0, 0x0F, 2048, 4096);
    for (index, record) in boot_records.iter().enumerate() {
        let at = (2048 + *record as usize) * 512;
        let link = boot_records.get(index + 1).copied().unwrap_or(last_link);
        mbr_entry(&mut bytes[at..], 0, 0, 0x83, 63, 100);
        if link != 0 {
            mbr_entry(&mut bytes[at..], 1, 0, 0x05, link, 200);
        }
    }
    bytes
}

#[test]
fn primary_and_logical_partitions_are_read_with_their_numbers() {
    let table = read(&with_chain(&[0, 500, 300], 0));
    assert_eq!(table.scheme, Scheme::Mbr);
    assert_eq!(table.findings, []);
    assert_eq!(
        ranges(&table),
        [
            (1, 64, 1000),
            (2, 2048, 4096),
            (5, 2048 + 63, 100),
            (6, 2548 + 63, 100),
            (7, 2348 + 63, 100)
        ]
    );
    assert!(table.partitions[0].attributes.active);
    assert_eq!(table.partitions[1].role, Role::Extended);
    assert_eq!(table.partitions[2].role, Role::Logical);
}

#[test]
fn a_chain_that_returns_ends_there() {
    let table = read(&with_chain(&[0, 500, 300], 500));
    assert_eq!(table.partitions.len(), 5);
    let at = ByteOffset(2548 * 512);
    assert_eq!(table.findings, [Finding::ExtendedLoop { at }]);
}

#[test]
fn a_chain_that_leads_outside_ends_there() {
    for link in [4096, 6144, u32::MAX] {
        let table = read(&with_chain(&[0], link));
        let lba = 2048 + u64::from(link);
        assert_eq!(table.findings, [Finding::ExtendedOutside { lba }]);
        assert_eq!(table.partitions.len(), 3);
    }
}

#[test]
fn a_chain_that_leads_to_no_boot_record_ends_there() {
    let table = read(&with_chain(&[0], 700));
    let at = ByteOffset(2748 * 512);
    assert_eq!(table.findings, [Finding::ExtendedSignature { at }]);
}

#[test]
fn a_chain_without_end_is_cut_off() {
    let records: Vec<u32> = (0..400).map(|index| index * 10).collect();
    let table = read(&with_chain(&records, 0));
    let limit = mbr::MAX_LOGICAL;
    assert!(table.findings.contains(&Finding::ExtendedTooLong { limit }));
    assert_eq!(table.partitions.len(), 2 + limit);
}

#[test]
fn a_logical_partition_that_leaves_its_container_is_told() {
    let mut bytes = with_chain(&[0], 0);
    mbr_entry(&mut bytes[2048 * 512..], 0, 0, 0x83, 63, 4096);
    let finding = Finding::LogicalOutsideExtended { number: 5 };
    assert_eq!(read(&bytes).findings, [finding]);
}

#[test]
fn a_second_extended_partition_is_told_and_not_followed() {
    let mut bytes = with_chain(&[0], 0);
    mbr_entry(&mut bytes, 2, 0, 0x05, 7000, 100);
    assert_eq!(
        read(&bytes).findings,
        [Finding::SecondExtended { number: 3 }]
    );
}

#[test]
fn a_primary_partition_that_reaches_into_the_extended_one_is_told() {
    let mut bytes = with_chain(&[0], 0);
    mbr_entry(&mut bytes, 0, 0, 0x07, 64, 2000);
    let at = ByteOffset(2048 * 512);
    let finding = Finding::Overlap {
        first: 1,
        second: 2,
        at,
    };
    assert_eq!(read(&bytes).findings, [finding]);
}

#[test]
fn partitions_off_the_disk_or_on_the_mbr_are_told() {
    let mut bytes = blank();
    mbr_entry(&mut bytes, 0, 0, 0x07, 0, 100);
    mbr_entry(&mut bytes, 1, 0, 0x07, 8000, 1000);
    mbr_entry(&mut bytes, 2, 0, 0x07, u32::MAX, u32::MAX);
    let table = read(&bytes);
    let disk_end = ByteOffset(SECTORS as u64 * 512);
    let outside = |number, end: u64| Finding::OutsideDisk {
        number,
        end: ByteOffset(end * 512),
        disk_end,
    };
    assert_eq!(
        table.findings,
        [
            Finding::OutsideUsable {
                number: 1,
                start: ByteOffset::ZERO,
                end: ByteOffset(51_200),
                usable_start: ByteOffset(512),
                usable_end: disk_end,
            },
            outside(2, 9000),
            outside(3, 2 * u64::from(u32::MAX)),
        ]
    );
}

#[test]
fn dynamic_disks_are_recognised_by_type_and_by_private_header() {
    let mut bytes = blank();
    mbr_entry(&mut bytes, 0, 0, 0x42, 63, 8000);
    let table = read(&bytes);
    assert!(table.partitions[0].kind.is_dynamic());
    assert!(matches!(
        table.findings.as_slice(),
        [Finding::DynamicDisk { .. }]
    ));

    mbr_entry(&mut bytes, 0, 0, 0x07, 63, 8000);
    assert_eq!(read(&bytes).findings, []);
    bytes[6 * 512..6 * 512 + 8].copy_from_slice(b"PRIVHEAD");
    assert!(matches!(
        read(&bytes).findings.as_slice(),
        [Finding::DynamicDisk { .. }]
    ));

    let gpt = GptImage::new(SectorSize::B512, 4096)
        .with(entry(PartitionType::LDM_METADATA, 64, 127, ""))
        .with(entry(PartitionType::LDM_DATA, 128, 2047, ""));
    let mut bytes = gpt.bytes();
    bytes[127 * 512..127 * 512 + 8].copy_from_slice(b"PRIVHEAD");
    let table = read(&bytes);
    assert!(matches!(
        table.findings.as_slice(),
        [Finding::DynamicDisk { .. }]
    ));
    assert_eq!(table.partitions[0].content, Some(ContentKind::Ldm));
}

#[test]
fn boot_code_is_not_taken_for_a_table() {
    let mut bytes = blank();
    mbr_entry(&mut bytes, 0, 0x33, 0x07, 64, 1000);
    let table = read(&bytes);
    assert_eq!((table.scheme, table.partitions.len()), (Scheme::None, 0));
    assert_eq!(table.findings, [Finding::ImplausibleMbr]);
}

#[test]
fn an_mbr_without_partitions_is_a_table() {
    let mut bytes = blank();
    bytes[440..444].copy_from_slice(&0xCAFE_F00D_u32.to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    let table = read(&bytes);
    assert_eq!(table.scheme, Scheme::Mbr);
    assert_eq!(table.id.unwrap().to_string(), "cafef00d");
    assert_eq!(table.gaps.len(), 1);
}
