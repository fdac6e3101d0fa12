//! What Windows makes of CopyFiles, DelFiles and RenFiles.

use super::*;

#[test]
fn files_come_from_their_disks_and_go_to_their_directories() {
    let text = with_models(
        "d = A, ID\\A
[A]
CopyFiles = List, @alone.dll, Store
DelFiles = Old
RenFiles = Moved
[List]
new.sys, old.sys,, 0x10
x86.sys
[Store]
in.sys
[Old]
gone.sys
[Moved]
after.sys, before.sys
[DestinationDirs]
DefaultDestDir = 11, sub
List = 12
Store = 13
Old = 10, system32\\drivers
Moved = 65535, c:\\folder
[SourceDisksNames]
1 = Disk,,,\\root
2 = Disk,\"data.cab\",,\\root
[SourceDisksFiles]
old.sys = 1, \\below
alone.dll = 2
x86.sys = 1, x86
in.sys = 01
[SourceDisksFiles.amd64]
x86.sys = 1, amd64
",
    );
    let plan = plan(&parse(&text), r"ID\A");
    let copies: Vec<_> = plan
        .copies
        .iter()
        .map(|copy| {
            let cabinet = copy.cabinet.as_deref();
            (copy.source.as_str(), cabinet, copy.destination.clone())
        })
        .collect();
    let volume = |path: &str| Destination::Volume(path.to_owned());
    assert_eq!(
        copies,
        [
            (
                r"root\below\old.sys",
                None,
                volume(r"Windows\System32\drivers\new.sys")
            ),
            (
                r"root\amd64\x86.sys",
                None,
                volume(r"Windows\System32\drivers\x86.sys")
            ),
            (
                "alone.dll",
                Some(r"root\data.cab"),
                volume(r"Windows\System32\sub\alone.dll")
            ),
            (
                r"root\in.sys",
                None,
                Destination::DriverStore("in.sys".to_owned())
            ),
        ]
    );
    assert_eq!(plan.copies[0].flags, 0x10);
    assert_eq!(
        plan.deletes[0].file,
        volume(r"Windows\system32\drivers\gone.sys")
    );
    assert_eq!(plan.renames[0].from, volume(r"folder\before.sys"));
    assert_eq!(plan.renames[0].to, volume(r"folder\after.sys"));
}

#[test]
fn files_that_lead_elsewhere_are_refused() {
    for (list, dirs, disks, expected) in [
        ("..\\a.sys", "12", "a.sys = 1", "line 10: the file"),
        ("a/b.sys", "12", "a.sys = 1", "line 10: the file"),
        ("a.sys:s", "12", "a.sys:s = 1", "line 10: the file"),
        (
            "a.sys",
            "12, ..\\x",
            "a.sys = 1",
            "line 12: the destination folder",
        ),
        (
            "a.sys",
            "65535, D:\\x",
            "a.sys = 1",
            "line 12: the destination folder",
        ),
        ("a.sys", "999", "a.sys = 1", "line 12: directory 999"),
        (
            "a.sys",
            "12",
            "a.sys = 1, ..\\..",
            "line 16: the source folder",
        ),
        ("a.sys", "12", "a.sys = 2", "line 16: a.sys is on disk 2"),
        (
            "a.sys",
            "12",
            "b.sys = 1",
            "line 10: a.sys is copied but not listed",
        ),
    ] {
        let text = with_models(&format!(
            "d = A, ID\\A\n[A]\nCopyFiles=L\n[L]\n{list}\n[DestinationDirs]\nL = {dirs}\n\
             [SourceDisksNames]\n1 = Disk\n[SourceDisksFiles]\n{disks}\n"
        ));
        let error = parse(&text)
            .plan(r"ID\A", &windows_10(), &InfLibrary::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(expected),
            "{list} {dirs} {disks}: {error}"
        );
    }
}
