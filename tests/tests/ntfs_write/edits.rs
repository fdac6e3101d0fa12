//! Every kind of edit.

use std::collections::BTreeMap;

use anyhow::Result;
use ce_disk::volume::ntfs::write::{EditOutcome, FileTimes, NtfsWrite, VolumeEdit};
use ce_disk::volume::{FileAttributes, WindowsTime};

use super::volume::{
    GEOMETRIES, Volume, all_agree, create_folder, delete, delete_tree, file_write, meta, noise,
    path, write_file, writer,
};

#[test]
fn every_kind_of_edit_works_in_every_geometry() -> Result<()> {
    for geometry in GEOMETRIES {
        let volume = Volume::new(24, geometry)?;
        let disk = volume.overlay();
        let long = "a".repeat(250) + "é.sys";
        let times = FileTimes {
            created: WindowsTime(131_000_000_000_000_001),
            modified: WindowsTime(132_000_000_000_000_002),
            accessed: WindowsTime(133_000_000_000_000_003),
        };
        let mut timed = file_write(r"Windows\System32\drivers\disk.sys", &noise(70_000, 1));
        timed.times = Some(times);
        timed.attributes = Some(FileAttributes(0x1 | 0x2 | 0x4 | 0x20));
        let edits = [
            create_folder(r"Windows\System32\drivers"),
            create_folder(r"windows\SYSTEM32\config"),
            VolumeEdit::WriteFile(timed),
            write_file(r"Windows\System32\config\SYSTEM", &noise(3_000_001, 2)),
            write_file(r"Windows\tiny", b"resident"),
            write_file(r"Windows\empty", b""),
            write_file(&format!(r"Windows\{long}"), &noise(5000, 3)),
            write_file(r"Windows\日本語のファイル名.txt", &noise(600, 4)),
            write_file(r"Windows\gone.txt", &noise(100_000, 5)),
            // In place: shorter, longer, and from resident to clusters.
            write_file(r"WINDOWS\system32\CONFIG\system", &noise(4_100_000, 6)),
            write_file(r"Windows\tiny", &noise(20_000, 7)),
            write_file(r"Windows\日本語のファイル名.txt", b"short"),
            delete(r"windows\GONE.TXT"),
            delete(r"Windows\never was there"),
            create_folder(r"Drivers\old\deeper\still"),
            write_file(r"Drivers\old\one", &noise(10_000, 8)),
            write_file(r"Drivers\old\deeper\two", b"2"),
            delete_tree(r"drivers\OLD"),
            VolumeEdit::SetMeta {
                path: path(r"Windows\empty"),
                attributes: Some(FileAttributes::HIDDEN),
                times: Some(times),
            },
        ];
        let applied = writer(&disk).apply(&edits)?;
        use EditOutcome::{Changed, Created, Deleted, Overwritten, Unchanged};
        let expected = [
            Created,
            Created,
            Created,
            Created,
            Created,
            Created,
            Created,
            Created,
            Created,
            Overwritten,
            Overwritten,
            Overwritten,
            Deleted(1),
            Unchanged,
            Created,
            Created,
            Created,
            Deleted(5),
            Changed,
        ];
        assert_eq!(applied.outcomes, expected, "{geometry:?}");
        let model: BTreeMap<String, Option<Vec<u8>>> = [
            ("Windows", None),
            (r"Windows\System32", None),
            (r"Windows\System32\drivers", None),
            (r"Windows\System32\drivers\disk.sys", Some(noise(70_000, 1))),
            (r"Windows\System32\config", None),
            (r"Windows\System32\config\SYSTEM", Some(noise(4_100_000, 6))),
            (r"Windows\tiny", Some(noise(20_000, 7))),
            (r"Windows\empty", Some(vec![])),
            (&format!(r"Windows\{long}"), Some(noise(5000, 3))),
            (r"Windows\日本語のファイル名.txt", Some(b"short".to_vec())),
            ("Drivers", None),
        ]
        .into_iter()
        .map(|(path, content)| (path.to_owned(), content))
        .collect();
        let listed = all_agree(&volume, &disk, &model)?;
        let driver = meta(&disk, r"Windows\System32\drivers\disk.sys");
        assert_eq!(driver.attributes, FileAttributes(0x27));
        assert_eq!(
            (driver.created, driver.modified, driver.accessed),
            (times.created, times.modified, times.accessed)
        );
        // dissect counts nanoseconds since 1970.
        let modified = (times.modified.0 as i64 - 116_444_736_000_000_000) * 100;
        assert_eq!(
            listed[r"Windows\System32\drivers\disk.sys"].modified,
            modified
        );
        assert_eq!(
            meta(&disk, r"Windows\empty").attributes,
            FileAttributes::HIDDEN
        );
        assert!(meta(&disk, "Windows").attributes == FileAttributes::FOLDER);
    }
    Ok(())
}
