//! Whatever is broken in a hive, the check finds it and says where.

use ce_regf::{
    CellOffset, DefectKind, FileTime, Hive, RegValue, SecurityDescriptor, Severity, Version,
    check_file,
};

#[test]
fn a_sound_hive_gives_no_finding() {
    let hive = Sample::new();
    assert_eq!(check_file(&hive.bytes).unwrap().findings, []);
}

#[test]
fn each_kind_of_damage_is_found_where_it_is() {
    use DefectKind::*;
    use Severity::*;
    let sample = Sample::new();
    let s = &sample;
    let root = s.key("");
    let a = s.key("A");
    let b = s.key("B");
    let list = s.refers(root + 28);
    let security = s.refers(root + 44);
    let own_security = s.refers(b + 44);
    let values = s.refers(a + 40);
    let value = s.refers(values);
    let big = s.value("A", "big");
    let record = s.refers(big + 8);
    let segments = s.refers(record + 4);
    let cases: Vec<(&str, usize, Vec<u8>, DefectKind, Severity)> = vec![
        ("a bin's signature", 4096, b"hbiN".to_vec(), Bin, Error),
        ("a bin's own offset", 4096 + 4, vec![8], Bin, Error),
        ("a bin's size", 4096 + 8, le(1 << 20), Bin, Error),
        ("a bin's size of nothing", 4096 + 8, le(0), Bin, Error),
        (
            "a cell's size past its bin",
            a - 4,
            le(0x8000_0000),
            Cell,
            Error,
        ),
        ("a cell's size of zero", a - 4, le(0), Cell, Error),
        (
            "a cell's odd size",
            a - 4,
            le(0_u32.wrapping_sub(84)),
            Cell,
            Error,
        ),
        ("a checksum", 508, le(7), BaseBlock, Error),
        ("a length of the bins", 40, le(4096 * 100), BaseBlock, Error),
        ("a root key nowhere", 36, le(u32::MAX), BaseBlock, Error),
        ("a root key between cells", 36, le(40), KeyNode, Error),
        ("a key's signature", a, b"nK".to_vec(), KeyNode, Error),
        (
            "a name longer than its cell",
            a + 72,
            vec![0xFF, 0xFF],
            KeyNode,
            Error,
        ),
        ("an empty name", a + 72, vec![0, 0], KeyNode, Error),
        ("a parent", a + 16, le(s.raw(b)), ParentLink, Error),
        (
            "a free cell in a list",
            list + 4,
            le(s.free_cell),
            KeyNode,
            Error,
        ),
        (
            "a list's signature",
            list,
            b"lx".to_vec(),
            SubkeyList,
            Error,
        ),
        (
            "a list longer than its cell",
            list + 2,
            vec![0xFF, 0xFF],
            SubkeyList,
            Error,
        ),
        (
            "a list with less than the key says",
            list + 2,
            vec![1, 0],
            SubkeyList,
            Error,
        ),
        (
            "no list where the key has subkeys",
            root + 28,
            le(u32::MAX),
            SubkeyList,
            Error,
        ),
        ("a hash", list + 8, vec![9], SubkeyList, Error),
        (
            "two keys in the wrong order",
            list + 4,
            s.swapped(list + 4),
            KeyOrder,
            Error,
        ),
        (
            "a key listed twice",
            list + 12,
            s.bytes[list + 4..list + 8].to_vec(),
            KeyNode,
            Error,
        ),
        ("a cycle", list + 4, le(s.raw(root)), KeyNode, Error),
        (
            "a list of values nowhere",
            a + 40,
            le(u32::MAX),
            ValueList,
            Error,
        ),
        (
            "more values than the list holds",
            a + 36,
            le(1 << 30),
            ValueList,
            Error,
        ),
        ("a value's signature", value, b"Vk".to_vec(), Value, Error),
        ("a value's name", value + 2, vec![0xFF, 0x7F], Value, Error),
        (
            "a value listed twice",
            values + 4,
            s.bytes[values..values + 4].to_vec(),
            Value,
            Error,
        ),
        (
            "more data in a value than fits",
            value + 4,
            le(0x8000_0005),
            ValueData,
            Error,
        ),
        (
            "data longer than its cell",
            value + 4,
            le(4000),
            ValueData,
            Error,
        ),
        (
            "data in a free cell",
            s.value("A", "text") + 8,
            le(s.free_cell),
            ValueData,
            Error,
        ),
        (
            "a signature of big data",
            record,
            b"dB".to_vec(),
            BigData,
            Error,
        ),
        ("a number of segments", record + 2, vec![9], BigData, Error),
        (
            "a segment used twice",
            segments + 4,
            s.bytes[segments..segments + 4].to_vec(),
            BigData,
            Error,
        ),
        (
            "a segment too short",
            segments,
            s.bytes[segments + 8..segments + 12].to_vec(),
            BigData,
            Error,
        ),
        (
            "a class name's place",
            b + 48,
            le(s.free_cell),
            ClassName,
            Error,
        ),
        (
            "a class name's length",
            b + 74,
            vec![0xFF],
            ClassName,
            Error,
        ),
        (
            "a security record's signature",
            security,
            b"Sk".to_vec(),
            Security,
            Error,
        ),
        (
            "a count of users too low",
            security + 12,
            le(1),
            Security,
            Error,
        ),
        (
            "a count of users too high",
            security + 12,
            le(99),
            Security,
            Warning,
        ),
        (
            "a ring's way on",
            security + 4,
            le(s.raw(security)),
            Security,
            Error,
        ),
        (
            "a ring's way back",
            security + 8,
            le(s.raw(security)),
            Security,
            Error,
        ),
        (
            "a ring that leads astray",
            own_security + 4,
            le(s.raw(a)),
            Security,
            Error,
        ),
        ("a descriptor", security + 20, vec![2], Security, Error),
        (
            "a descriptor's length",
            security + 16,
            le(5000),
            Security,
            Error,
        ),
        ("a root key's flag", root + 2, vec![0x20], KeyNode, Warning),
        (
            "the flag of a root key",
            a + 2,
            vec![0x24],
            KeyNode,
            Warning,
        ),
        (
            "the length of the longest name",
            root + 52,
            vec![0],
            KeyNode,
            Warning,
        ),
        (
            "the length of the longest data",
            a + 64,
            le(0),
            KeyNode,
            Warning,
        ),
        (
            "a value that is no longer listed",
            a + 36,
            le(1),
            CellUse,
            Note,
        ),
    ];
    for (what, at, patch, kind, severity) in cases {
        let mut bytes = s.bytes.clone();
        assert!(
            !bytes[at..].starts_with(&patch),
            "{what}: the patch changes nothing"
        );
        bytes[at..at + patch.len()].copy_from_slice(&patch);
        if at < 508 {
            fix_checksum(&mut bytes);
        }
        let report = check_file(&bytes).unwrap();
        let found = report
            .findings
            .iter()
            .any(|finding| finding.severity == severity && finding.defect.kind == kind);
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert!(found, "{what}: {findings:#?}");
        // To read and to edit it must not be worse than an error.
        if let Ok(mut hive) = Hive::load(bytes) {
            let _ = hive.walk().map(|walk| walk.count());
            let _ = hive.export("", &ce_regf::ExportOptions::default());
            if let Ok(mut editor) = hive.edit(FileTime::from_ticks(1)) {
                let _ = editor.set_value("A", "text", &RegValue::dword(1));
                let _ = editor.create_key(r"A\0");
                let _ = editor.delete_key("B");
                let _ = editor.delete_key("A");
            }
        }
    }
}

#[test]
fn a_finding_names_the_key_the_place_what_was_expected_and_what_was_found() {
    let sample = Sample::new();
    let mut bytes = sample.bytes.clone();
    let deep = sample.key(r"B\C");
    bytes[deep + 16] ^= 8;
    let report = check_file(&bytes).unwrap();
    let [finding] = &report.findings[..] else {
        panic!("{report:?}")
    };
    let link = u32::from_le_bytes(bytes[deep + 16..deep + 20].try_into().unwrap());
    // The broken link is where its path begins.
    assert_eq!(
        finding.to_string(),
        format!(
            "error: key \"C\": parent link at file offset {:#x}: expected the parent's offset {}, \
             found {link:#x}",
            deep - 4,
            CellOffset::from_raw(sample.raw(sample.key("B"))).unwrap(),
        )
    );
    assert!(!report.is_sound());
}

#[test]
fn a_thousand_findings_are_listed_and_all_are_counted() {
    let mut hive = new_hive();
    let mut editor = hive.edit(FileTime::from_ticks(1)).unwrap();
    for number in 0..1500 {
        editor.create_key(format!("K{number}")).unwrap();
    }
    let offsets: Vec<usize> = hive
        .root()
        .unwrap()
        .subkeys()
        .unwrap()
        .map(|key| usize::try_from(key.unwrap().offset().in_file().get()).unwrap())
        .collect();
    let mut bytes = hive.save(FileTime::from_ticks(1)).unwrap().bytes.to_vec();
    for at in offsets {
        bytes[at + 4 + 16] ^= 8;
    }
    let report = check_file(&bytes).unwrap();
    assert_eq!(report.count(Severity::Error), 1500);
    assert_eq!(report.findings.len(), 1000);
}

/// A hive with something of everything, saved.
struct Sample {
    hive: Hive,
    bytes: Vec<u8>,
    free_cell: u32,
}

impl Sample {
    fn new() -> Self {
        let mut hive = new_hive();
        let now = FileTime::from_ticks(1);
        let mut editor = hive.edit(now).unwrap();
        editor.create_key("A").unwrap();
        editor.create_key(r"B\C").unwrap();
        editor.create_key("gone").unwrap();
        editor
            .set_value("A", "text", &RegValue::sz("some text"))
            .unwrap();
        editor
            .set_value("A", "number", &RegValue::dword(1))
            .unwrap();
        editor
            .set_value("A", "big", &RegValue::binary(vec![1; 40_000]))
            .unwrap();
        editor.set_class_name("B", Some(&"class".into())).unwrap();
        let mut own = SecurityDescriptor::for_administrators().as_bytes().to_vec();
        *own.last_mut().unwrap() = 1;
        let own = SecurityDescriptor::from_bytes(own).unwrap();
        editor.set_security("B", &own).unwrap();
        let gone = hive
            .root()
            .unwrap()
            .subkey("gone")
            .unwrap()
            .unwrap()
            .offset();
        hive.edit(now).unwrap().delete_key("gone").unwrap();
        let bytes = hive.save(now).unwrap().bytes.to_vec();
        Self {
            free_cell: gone.get(),
            bytes,
            hive,
        }
    }

    /// Where a key's node begins in the file.
    fn key(&self, path: &str) -> usize {
        let key = self.hive.root().unwrap().subkey(path).unwrap().unwrap();
        usize::try_from(key.offset().in_file().get()).unwrap() + 4
    }

    fn value(&self, path: &str, name: &str) -> usize {
        let key = self.hive.root().unwrap().subkey(path).unwrap().unwrap();
        let value = key.value(name).unwrap().unwrap();
        usize::try_from(value.offset().in_file().get()).unwrap() + 4
    }

    /// Where the cell that the field at `at` names has its contents.
    fn refers(&self, at: usize) -> usize {
        let raw = u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap());
        usize::try_from(raw).unwrap() + 4096 + 4
    }

    /// The offset that names the cell whose contents are at `at`.
    fn raw(&self, at: usize) -> u32 {
        u32::try_from(at - 4096 - 4).unwrap()
    }

    /// The first two elements of a hash leaf, exchanged.
    fn swapped(&self, at: usize) -> Vec<u8> {
        [&self.bytes[at + 8..at + 16], &self.bytes[at..at + 8]].concat()
    }
}

fn new_hive() -> Hive {
    let security = SecurityDescriptor::for_administrators();
    Hive::new_empty(Version::V1_5, &security, FileTime::from_ticks(1)).unwrap()
}

fn le(number: u32) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

fn fix_checksum(base: &mut [u8]) {
    let sum = base[..508].chunks(4).fold(0, |sum, word| {
        sum ^ u32::from_le_bytes(word.try_into().unwrap())
    });
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}
