//! Files of every kind, on volumes of every geometry.

use super::super::{lznt1, xpress};
use super::*;

#[test]
fn files_are_read_as_they_were_written_in_every_geometry() {
    for (cluster, sector) in [
        (512, 512),
        (1024, 512),
        (4096, 512),
        (4096, 4096),
        (65_536, 512),
        (65_536, 4096),
    ] {
        let image = Image::new(24 << 20, cluster, sector);
        let contents = [
            ("Tiny.txt", noise(100, 1)),
            ("big.bin", noise(3_000_001, 2)),
            ("empty", vec![]),
        ];
        for (name, content) in &contents {
            image.put(name, content);
        }
        let volume = image.open();
        assert_eq!(volume.geometry().cluster_size, cluster);
        assert_eq!(volume.label().unwrap(), "Système");
        for (name, content) in &contents {
            let wanted = path(&name.to_uppercase());
            let meta = volume.metadata(&wanted).unwrap();
            assert_eq!(meta.size.0, content.len() as u64);
            assert_eq!((meta.link_count, meta.names[0].name.as_str()), (1, *name));
            assert_eq!(
                &volume.read(&wanted, LIMIT).unwrap(),
                content,
                "{cluster} {sector} {name}"
            );
            assert_eq!(volume.paths_of(meta.id).unwrap(), [*name]);
        }
        let big = volume.open_file(&path("big.bin")).unwrap();
        for (offset, length) in [
            (0, 1),
            (511, 70_000),
            (2_999_999, 100),
            (3_000_001, 5),
            (9 << 40, 5),
        ] {
            let mut part = vec![9; length];
            let read = big.read_at(ByteOffset(offset as u64), &mut part).unwrap();
            let expected = contents[1].1.get(offset..).unwrap_or_default();
            assert_eq!(&part[..read], &expected[..expected.len().min(length)]);
        }
        let names: Vec<String> = volume
            .list(&WinPath::ROOT)
            .unwrap()
            .into_iter()
            .map(|e| e.name)
            .collect();
        assert!(
            ["$MFT", "big.bin", "empty", "Tiny.txt"]
                .iter()
                .all(|name| names.iter().any(|n| n == name)),
            "{names:?}"
        );
        free_space_is_what_ntfsinfo_counts(&image, &volume);
    }
}

fn free_space_is_what_ntfsinfo_counts(image: &Image, volume: &NtfsVolume<MemoryDisk>) {
    let information = text(&run(tool("ntfsinfo", "ntfs-3g").arg("-m").arg(&image.path)));
    let line = information
        .lines()
        .find(|line| line.contains("Free Clusters:"))
        .unwrap();
    let counted: u64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
    let free = FreeMap::read(volume).unwrap().free().unwrap();
    assert_eq!(free.0 / u64::from(volume.geometry().cluster_size), counted);
}

const TREE: &str = r"
random.seed(7)
os.makedirs('Windows/System32/config')
os.makedirs('Windows.old/Windows/System32/config')
for name in ('Windows/System32/config/SYSTEM', 'Windows/System32/ntoskrnl.exe',
             'Windows.old/Windows/System32/config/SYSTEM', 'Windows.old/Windows/System32/ntoskrnl.exe'):
    open(name, 'wb').write(os.urandom(5000))
os.link('Windows/System32/ntoskrnl.exe', 'Windows/kernel.exe')
open('streams', 'wb').write(b'main')
open('streams:second', 'wb').write(b'x' * 3000)
with open('sparse', 'wb') as f:
    f.truncate(3_000_000); f.seek(1_000_000); f.write(b'island')
os.mkdir('many')
for n in range(1500):
    open(f'many/a rather long name of a file {n:04}', 'wb').write(str(n).encode())
os.mkdir('links')
open('scattered', 'wb').close()
pieces = [open('scattered', 'ab', buffering=0), open('between', 'ab', buffering=0)]
for n in range(1200):
    pieces[n % 2].write(random.randbytes(4096))
    os.fsync(pieces[n % 2])
for n in range(60):
    os.link('scattered', f'links/one of many names of the same file {n:03}')
os.mkdir('packed')
os.setxattr('packed', 'system.ntfs_attrib_be', struct.pack('>I', 0x810))
words = [bytes([random.randrange(256) for _ in range(random.randrange(3, 30))]) for _ in range(300)]
open('packed/words', 'wb').write(b''.join(random.choice(words) for _ in range(40000)))
open('packed/zeros', 'wb').write(bytes(700_000))
open('packed/mixed', 'wb').write(random.randbytes(200_000) + bytes(300_000) + b'end' * 1000)
";

#[test]
fn what_ntfs_3g_writes_is_read_as_sleuthkit_reads_it() {
    let image = Image::new(64 << 20, 4096, 512);
    image.populate(TREE);
    let volume = image.open();
    for (name, storage) in [
        (r"packed\words", Storage::Lznt1),
        (r"packed\zeros", Storage::Lznt1),
        (r"packed\mixed", Storage::Lznt1),
        ("sparse", Storage::Sparse),
        ("scattered", Storage::Plain),
        (r"windows\SYSTEM32\Config\system", Storage::Plain),
    ] {
        let meta = volume.metadata(&path(name)).unwrap();
        assert_eq!(meta.storage, storage, "{name}");
        let content = volume.read(&path(name), LIMIT).unwrap();
        assert_eq!(content.len() as u64, meta.size.0);
        assert!(
            content == icat(&image.path, meta.id.record),
            "{name} differs"
        );
        assert!(
            storage == Storage::Plain || meta.allocated < meta.size,
            "{name} {meta:?}"
        );
        // From the middle of one unit into the next ones.
        let mut part = vec![0; content.len().min(100_000)];
        let from = (content.len() - part.len()).min(60_001);
        let file = volume.open_file(&path(name)).unwrap();
        let read = file.read_at(ByteOffset(from as u64), &mut part).unwrap();
        assert!(part[..read] == content[from..from + read], "{name}");
    }
    hard_links_streams_and_large_folders_are_seen(&volume);
    let disk = image.disk();
    let table = PartitionTable::read(&disk).unwrap();
    let search = find_windows(&disk, &table).unwrap();
    assert!(search.unreadable.is_empty());
    let [windows] = &search.installations[..] else {
        panic!("{search:?}");
    };
    assert_eq!(
        (windows.folder.clone(), windows.partition),
        (path("Windows"), None)
    );
    let found = survey(&disk, &table).unwrap();
    assert!(
        found.blockers.is_empty() && found.unreadable.is_empty(),
        "{found:?}"
    );
}

fn hard_links_streams_and_large_folders_are_seen(volume: &NtfsVolume<MemoryDisk>) {
    let kernel = volume.metadata(&path(r"Windows\kernel.exe")).unwrap();
    assert_eq!(kernel.link_count, 2);
    let mut paths = volume.paths_of(kernel.id).unwrap();
    paths.sort();
    assert_eq!(
        paths,
        [r"Windows\System32\ntoskrnl.exe", r"Windows\kernel.exe"]
    );

    assert_eq!(
        volume.metadata(&path("streams")).unwrap().streams,
        ["second"]
    );
    let second = volume.open_stream(&path("streams"), "second").unwrap();
    assert_eq!(second.read_all(LIMIT).unwrap(), [b'x'; 3000]);
    assert!(matches!(
        volume.open_stream(&path("streams"), "third"),
        Err(VolumeError::NotFound { .. })
    ));

    assert_eq!(volume.list(&path("many")).unwrap().len(), 1500);
    for n in (0..1500).step_by(97) {
        let name = path(&format!(r"MANY\A rather long name of a FILE {n:04}"));
        assert_eq!(volume.read(&name, LIMIT).unwrap(), n.to_string().as_bytes());
    }
    assert!(!volume.exists(&path(r"many\nothing")).unwrap());
    assert!(!volume.exists(&path(r"streams\below")).unwrap());
    assert!(matches!(
        volume.read(&path("many"), LIMIT),
        Err(VolumeError::IsFolder { .. })
    ));
    assert!(matches!(
        volume.read(&path(r"packed\words"), ByteCount(10)),
        Err(VolumeError::TooLarge { .. })
    ));
}

/// The chunk table and the chunks of a file compressed by CompactOS.
fn compact(content: &[u8], chunk: usize) -> Vec<u8> {
    let chunks = content.chunks(chunk).map(|chunk| {
        let packed = xpress::tests::compress(chunk);
        if packed.len() < chunk.len() {
            packed
        } else {
            chunk.to_vec()
        }
    });
    let chunks: Vec<Vec<u8>> = chunks.collect();
    let mut end = 0;
    let mut table = Vec::new();
    for chunk in &chunks[..chunks.len() - 1] {
        end += chunk.len() as u32;
        table.extend(end.to_le_bytes());
    }
    [table, chunks.concat()].concat()
}

#[test]
fn files_of_compactos_are_unpacked_and_links_are_not_followed() {
    let image = Image::new(32 << 20, 4096, 512);
    let content = [b"Windows ".repeat(3000), noise(9000, 5), vec![0; 20_000]].concat();
    let mut script = format!(
        "def point(file, tag, data): os.setxattr(file, 'system.ntfs_reparse_data', \
         struct.pack('<IHH', tag, len(data), 0) + data)\n\
         size = {}\nos.mkdir('target'); os.mkdir('junction'); open('target/f', 'w').write('f')\n\
         name = '\\\\??\\\\C:\\\\target'.encode('utf-16-le')\n\
         point('junction', 0xA0000003, struct.pack('<HHHH', 0, len(name), len(name) + 2, 0) + name + bytes(4))\n\
         open('other', 'w').write('stub'); point('other', 0x80000099, b'1234')\n",
        content.len()
    );
    let kinds = [
        ("x4", 0, 4096),
        ("x8", 2, 8192),
        ("x16", 3, 16_384),
        ("lzx", 1, 32_768),
    ];
    for (name, algorithm, chunk) in kinds {
        let packed = image.folder.path().join(name);
        fs::write(&packed, compact(&content, chunk)).unwrap();
        let source = packed.display();
        script += &format!(
            "open('{name}', 'wb').truncate(size)\n\
             open('{name}:WofCompressedData', 'wb').write(open('{source}', 'rb').read())\n\
             point('{name}', 0x80000017, struct.pack('<IIIII', 1, 2, 1, {algorithm}, 0)[:16])\n"
        );
    }
    image.populate(&script);
    let volume = image.open();
    for name in ["x4", "x8", "x16"] {
        let file = volume.open_file(&path(name)).unwrap();
        assert!(file.read_all(LIMIT).unwrap() == content, "{name}");
        let mut part = vec![0; 10_000];
        assert_eq!(file.read_at(ByteOffset(23_999), &mut part).unwrap(), 10_000);
        assert!(part == content[23_999..33_999]);
        let meta = volume.metadata(&path(name)).unwrap();
        assert!(matches!(meta.storage, Storage::Wof(_)) && meta.streams == ["WofCompressedData"]);
        assert!(meta.allocated < meta.size);
    }
    let refusal = volume.read(&path("lzx"), LIMIT).unwrap_err().to_string();
    assert!(refusal.contains("LZX"), "{refusal}");
    assert!(matches!(
        volume.read(&path("other"), LIMIT),
        Err(VolumeError::Unsupported { .. })
    ));

    let junction = volume.metadata(&path("junction")).unwrap().reparse.unwrap();
    assert_eq!(
        junction,
        Reparse::Junction {
            target: r"\??\C:\target".into()
        }
    );
    for refused in [
        volume.read(&path(r"junction\f"), LIMIT).err(),
        volume.list(&path("junction")).err(),
    ] {
        assert!(
            matches!(refused, Some(VolumeError::Reparse { .. })),
            "{refused:?}"
        );
    }
    // The encoder of the other compression is held against this reader in its own tests.
    let mut unpacked = vec![0; 5000];
    lznt1::decompress(&lznt1::tests::compress(&content[..5000]), &mut unpacked).unwrap();
    assert!(unpacked == content[..5000]);
}
