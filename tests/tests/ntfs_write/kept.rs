//! What a file is besides its content: names, links, compression, rights.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use ce_disk::block::BlockRead;
use ce_disk::units::ByteCount;
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, EditOutcome, NtfsWrite, NtfsWriteError, Security, ShortNames, VolumeEdit,
};
use ce_disk::volume::{NtfsVolume, Storage};
use ce_tests::oracle::Listed;
use ce_tests::tool::{UNSHARE, output_of, said};

use super::volume::{
    USUAL, Volume, all_agree, create_folder, delete, delete_tree, file_write, meta, noise, path,
    worker, write_file, writer,
};

/// Mounts the volume with ntfs-3g for the time of a Python script that finds itself in its root.
fn populate(volume: &Path, script: &str) -> Result<()> {
    let mount = volume.with_extension("mount");
    std::fs::create_dir_all(&mount)?;
    let shell = "ntfs-3g -o compression,streams_interface=windows \"$0\" \"$1\" || exit 99
        cd \"$1\" && python3 -c \"$2\"; code=$?; cd /; umount \"$1\"; exit $code";
    // Root mounts where nobody else sees it; others need ntfs-3g to be allowed to.
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = UNSHARE.command()?;
            command.args(["--mount", "sh"]);
            command
        }
        false => Command::new("sh"),
    };
    command
        .args(["-c", shell])
        .arg(volume)
        .arg(&mount)
        .arg(script);
    let output = output_of(&mut command)?;
    ensure!(
        output.status.success(),
        "ntfs-3g needs root and /dev/fuse to mount: {}",
        said(&output)
    );
    Ok(())
}

fn content(disk: &impl BlockRead, file: &str) -> Result<Vec<u8>> {
    Ok(NtfsVolume::open(disk)?.read(&path(file), ByteCount::mib(64))?)
}

#[test]
fn a_file_with_several_names_is_replaced_and_the_others_keep_their_content() -> Result<()> {
    let volume = Volume::prepared(32, USUAL, |file| {
        populate(
            file,
            "
import os
os.makedirs('WinSxS'); os.makedirs('drivers')
open('WinSxS/disk.sys', 'wb').write(b'old' * 9000)
os.link('WinSxS/disk.sys', 'drivers/disk.sys')
os.setxattr('drivers/disk.sys', 'system.ntfs_attrib_be', bytes([0, 0, 0, 0x22]))
",
        )
    })?;
    let disk = volume.overlay();
    let before = meta(&disk, r"drivers\disk.sys");
    assert_eq!(before.link_count, 2);
    let applied = writer(&disk).apply(&[write_file(r"drivers\DISK.sys", &noise(50_000, 1))])?;
    assert_eq!(applied.outcomes, [EditOutcome::Replaced]);
    let model = BTreeMap::from([
        ("WinSxS".to_owned(), None),
        (r"WinSxS\disk.sys".to_owned(), Some(b"old".repeat(9000))),
        ("drivers".to_owned(), None),
        (r"drivers\DISK.sys".to_owned(), Some(noise(50_000, 1))),
    ]);
    // The folders and the old file were made by ntfs-3g, which lets everyone write.
    let image = volume.save(&disk)?;
    image.is_sound()?;
    let listed = image.dissected()?;
    assert_eq!(
        listed.keys().collect::<Vec<_>>(),
        model.keys().collect::<Vec<_>>()
    );
    assert_eq!(listed[r"drivers\DISK.sys"].anyone_writes, Some(false));
    for (file, expected) in model {
        if let Some(expected) = expected {
            assert!(content(&disk, &file)? == expected, "{file}");
        }
    }
    let (new, other) = (
        meta(&disk, r"drivers\disk.sys"),
        meta(&disk, r"WinSxS\disk.sys"),
    );
    assert_eq!((new.link_count, other.link_count), (1, 1));
    assert_eq!(
        (new.attributes, new.created),
        (before.attributes, before.created)
    );
    assert_ne!(new.id, before.id);
    assert_eq!(other.id, before.id);
    // And one of several names can be deleted.
    writer(&disk).apply(&[delete(r"WinSxS\disk.sys")])?;
    assert!(content(&disk, r"drivers\disk.sys")? == noise(50_000, 1));
    volume.save(&disk)?.is_sound()
}

#[test]
fn packed_and_sparse_files_are_replaced_by_plain_ones() -> Result<()> {
    let volume = Volume::prepared(32, USUAL, |file| {
        populate(
            file,
            "
import os, struct
os.mkdir('packed')
os.setxattr('packed', 'system.ntfs_attrib_be', struct.pack('>I', 0x810))
open('packed/lznt1', 'wb').write(b'abc' * 40000)
with open('sparse', 'wb') as f:
    f.truncate(3000000); f.seek(1000000); f.write(b'island')
os.truncate('sparse', 3000000)
# CompactOS: what it unpacks to is a hole, how it is packed stands in a stream.
with open('wof', 'wb') as f:
    f.truncate(9000)
with open('wof:WofCompressedData', 'wb') as f:
    f.write(b'x' * 5000)
os.setxattr('wof', 'system.ntfs_reparse_data', struct.pack('<IHHIIII', 0x80000017, 16, 0, 1, 2, 1, 0))
",
        )
    })?;
    let disk = volume.overlay();
    for (file, storage) in [
        (r"packed\lznt1", Storage::Lznt1),
        ("sparse", Storage::Sparse),
    ] {
        assert_eq!(meta(&disk, file).storage, storage);
    }
    assert!(matches!(meta(&disk, "wof").storage, Storage::Wof(_)));
    let edits = [r"packed\lznt1", "sparse", "wof"].map(|file| write_file(file, &noise(200_000, 3)));
    let applied = writer(&disk).apply(&edits)?;
    assert_eq!(applied.outcomes, [EditOutcome::Replaced; 3]);
    let image = volume.save(&disk)?;
    image.is_sound()?;
    let dissected = image.dissected()?;
    for file in [r"packed\lznt1", "sparse", "wof"] {
        let found = meta(&disk, file);
        assert_eq!(
            (found.storage, found.reparse),
            (Storage::Plain, None),
            "{file}"
        );
        let listed: &Listed = &dissected[file];
        assert_eq!(
            (listed.streams.len(), listed.attributes & 0xE00),
            (0, 0),
            "{file}"
        );
        assert!(content(&disk, file)? == noise(200_000, 3), "{file}");
    }
    // Nothing of the packed file is left in the list of reparse points.
    let index = NtfsVolume::open(&disk)?.metadata(&path(r"$Extend\$Reparse"))?;
    assert_eq!(index.size, ByteCount(0));
    Ok(())
}

#[test]
fn links_are_not_followed() -> Result<()> {
    let volume = Volume::prepared(16, USUAL, |file| {
        populate(
            file,
            r"
import os, struct
os.makedirs('Users/Public'); os.mkdir('junction')
open('Users/Public/keep', 'wb').write(b'keep')
target = '\\??\\C:\\Users'.encode('utf-16-le'); shown = 'C:\\Users'.encode('utf-16-le')
data = struct.pack('<HHHH', 0, len(target), len(target) + 2, len(shown)) + target + b'\0\0' + shown + b'\0\0'
os.setxattr('junction', 'system.ntfs_reparse_data', struct.pack('<IHH', 0xA0000003, len(data), 0) + data)
",
        )
    })?;
    let disk = volume.overlay();
    for edit in [
        write_file(r"junction\Public\new", b"x"),
        create_folder(r"junction\new"),
    ] {
        let error = writer(&disk).apply(&[edit]).unwrap_err();
        assert!(error.to_string().contains("symbolic links"), "{error}");
    }
    let applied = writer(&disk).apply(&[delete_tree("junction")])?;
    assert_eq!(applied.outcomes, [EditOutcome::Deleted(1)]);
    assert_eq!(content(&disk, r"Users\Public\keep")?, b"keep");
    volume.save(&disk)?.is_sound()
}

#[test]
fn short_names_are_made_as_the_volume_wants_them() -> Result<()> {
    let names = [
        "much longer name.inf",
        "much longer name again.inf",
        "disk.sys",
        "oem12.PNF",
        "größe.txt",
        "two.dots.txt",
    ];
    let edits = names.map(|name| write_file(&format!(r"INF\{name}"), name.as_bytes()));
    let edits: Vec<VolumeEdit> = [create_folder("INF")].into_iter().chain(edits).collect();
    let model = names.map(|name| (format!(r"INF\{name}"), Some(name.as_bytes().to_vec())));
    let model = [("INF".to_owned(), None)]
        .into_iter()
        .chain(model)
        .collect();
    for (setting, expected) in [
        (
            ShortNames::Create,
            [
                Some("MUCHLO~1.INF"),
                Some("MUCHLO~2.INF"),
                None,
                None,
                Some("GR__E~1.TXT"),
                Some("TWODOT~1.TXT"),
            ],
        ),
        (ShortNames::Omit, [None; 6]),
    ] {
        let volume = Volume::new(16, USUAL)?;
        let disk = volume.overlay();
        let writer = ConfinedWriter::new(&disk, setting).with_worker(worker());
        writer.apply(&edits)?;
        let listed = all_agree(&volume, &disk, &model)?;
        for (name, short) in names.into_iter().zip(expected) {
            let file = &listed[&format!(r"INF\{name}")];
            assert_eq!(file.short_name.as_deref(), short, "{name}");
            let ours = meta(&disk, &format!(r"INF\{name}"));
            assert_eq!(ours.names[0].short_name.as_deref(), short);
            // Long with a short one beside it, both in one, or neither.
            let is_short = ["disk.sys", "oem12.PNF"].contains(&name);
            let namespace = if is_short {
                3
            } else {
                u8::from(short.is_some())
            };
            assert_eq!(file.namespace, namespace, "{name}");
            if let Some(short) = short {
                assert!(content(&disk, &format!(r"inf\{short}"))? == name.as_bytes());
            }
        }
        if setting == ShortNames::Create {
            // By its short name a file is found as well, and both names go with it.
            writer.apply(&[delete(r"INF\MUCHLO~1.INF")])?;
            let volume = NtfsVolume::open(&disk)?;
            assert!(!volume.exists(&path(r"INF\much longer name.inf"))?);
            assert!(volume.exists(&path(r"INF\MUCHLO~2.INF"))?);
        }
        volume.save(&disk)?.is_sound()?;
    }
    Ok(())
}

#[test]
fn nothing_new_can_be_written_by_everyone() -> Result<()> {
    // The root of what mkntfs makes hands on full access to everyone, and ntfs-3g uses that.
    let volume = Volume::prepared(16, USUAL, |file| {
        populate(
            file,
            "import os; os.mkdir('open'); open('open/old', 'w').write('o')",
        )
    })?;
    let disk = volume.overlay();
    let mut same = file_write(r"open\same", b"x");
    same.security = Security::SameAs(path(r"open\old"));
    let mut kept = file_write(r"safe\same", b"x");
    kept.security = Security::SameAs(path(r"safe"));
    writer(&disk).apply(&[
        write_file(r"open\inherited", b"x"),
        create_folder(r"open\folder"),
        create_folder("safe"),
        VolumeEdit::WriteFile(same),
        VolumeEdit::WriteFile(kept),
        write_file(r"safe\inherited", b"x"),
    ])?;
    let listed = volume.save(&disk)?.dissected()?;
    // These have a descriptor of their own, not one of $Secure.
    for old in ["open", r"open\old"] {
        assert_eq!(listed[old].anyone_writes, None, "{old}");
    }
    for new in [
        r"open\inherited",
        r"open\folder",
        r"open\same",
        "safe",
        r"safe\same",
        r"safe\inherited",
    ] {
        assert_eq!(listed[new].anyone_writes, Some(false), "{new}");
    }
    Ok(())
}

#[test]
fn files_of_ntfs_itself_and_the_root_are_out_of_bounds() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    for edit in [
        write_file("$MFT", b"x"),
        delete("$Bitmap"),
        write_file(r"$Extend\$ObjId", b"x"),
        delete_tree("$Extend"),
        create_folder(r"$Secure\x"),
    ] {
        let disk = volume.overlay();
        let error = writer(&disk).apply(&[edit]).unwrap_err();
        assert!(error.to_string().contains("not permitted"), "{error}");
        assert!(
            matches!(error, NtfsWriteError::Edit { number: 1, .. }),
            "{error}"
        );
    }
    let disk = volume.overlay();
    for edit in [delete_tree(""), delete(""), write_file("", b"")] {
        let error = writer(&disk).apply(&[edit]).unwrap_err();
        assert!(
            matches!(error, NtfsWriteError::InvalidEdit { .. }),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn what_cannot_be_done_is_told_with_the_edit_and_the_reason() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let disk = volume.overlay();
    writer(&disk).apply(&[create_folder("folder"), write_file(r"folder\file", b"x")])?;
    for (edit, expected) in [
        (
            write_file(r"missing\file", b"x"),
            "edit 1: writing 1 bytes to missing\\file: finding it failed: No such file",
        ),
        (
            write_file("folder", b"x"),
            "finding it failed: Is a directory",
        ),
        (
            create_folder(r"folder\file\more"),
            "finding it failed: Not a directory",
        ),
        (delete("folder"), "deleting failed: Directory not empty"),
        (
            VolumeEdit::SetMeta {
                path: path("none"),
                attributes: Some(Default::default()),
                times: None,
            },
            "setting attributes of none: finding it failed: No such file",
        ),
    ] {
        let error = writer(&disk).apply(&[edit]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    Ok(())
}
