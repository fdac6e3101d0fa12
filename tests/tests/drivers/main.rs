//! "I collect drivers for a platform and know what each is for, before any disk is touched."

mod desk;
mod discs;
mod installers;

use std::fs;

use anyhow::{Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::driver_package::{HARDWARE_ID, SIGNER, driver};
use ce_tests::tool::text;
use serde_json::Value;

use desk::{Desk, files_below, import, import_json, python};

#[test]
fn a_list_says_what_each_package_is_for_and_who_signed_it() -> Result<()> {
    let desk = Desk::new()?;
    let listed = ce_agent(["drivers", "list", text(desk.folder())?, "--json"])?.expect_code(0)?;
    let listed: Value = serde_json::from_str(&listed.stdout)?;
    let package = &listed["packages"][0];
    assert_eq!(package["inf"], "vioscsi.inf");
    assert_eq!(package["provider"], "Vendor, Inc.");
    assert_eq!(package["version"], "100.95.104.26100");
    assert_eq!(package["date"], "2024-05-06");
    assert_eq!(package["signer"]["name"], SIGNER);
    assert_eq!(package["signer"]["signatureFits"], true);
    assert_eq!(package["signer"]["hardwareProgramme"], false);
    assert_eq!(package["everyFileListed"], true);
    let supported = &package["supported"][0];
    assert_eq!(supported["architecture"], "amd64");
    assert_eq!(supported["from"], "10.0.17763");
    assert_eq!(supported["devices"][0]["hardwareId"], HARDWARE_ID);
    assert_eq!(supported["devices"][0]["description"], "Storage controller");

    let told = ce_agent(["drivers", "list", text(desk.folder())?])?.expect_code(0)?;
    for expected in [
        "SCSIAdapter, Vendor, Inc., 100.95.104.26100 of 2024-05-06",
        "for amd64 from Windows 10.0.17763: PCI\\VEN_1AF4&DEV_1048, ",
        "signed by: Test Driver Publisher (vioscsi.cat, which lists 2 of 2 files)",
    ] {
        ensure!(told.stdout.contains(expected), "{}", told.stdout);
    }
    Ok(())
}

#[test]
fn a_check_finds_every_file_that_is_not_what_was_signed() -> Result<()> {
    let desk = Desk::new()?;
    let check = || ce_agent(["drivers", "check", text(desk.folder())?]);
    let sound = check()?.expect_code(0)?;
    ensure!(
        sound.stdout.ends_with("1 packages: sound\n"),
        "{}",
        sound.stdout
    );

    let sys = desk.folder().join("vioscsi.sys");
    let original = fs::read(&sys)?;
    let mut changed = original.clone();
    changed[900] ^= 1;
    fs::write(&sys, changed)?;
    let told = check()?.expect_code(1)?.stdout;
    ensure!(
        told.contains("vioscsi.sys is not what the catalogue lists"),
        "{told}"
    );

    fs::write(&sys, driver(0xAA64))?;
    let told = check()?.expect_code(1)?.stdout;
    ensure!(
        told.contains("vioscsi.sys is a driver for arm64, copied on amd64"),
        "{told}"
    );

    fs::remove_file(&sys)?;
    let told = check()?.expect_code(1)?.stdout;
    ensure!(told.contains("vioscsi.sys is missing; line"), "{told}");

    fs::write(&sys, original)?;
    let cat = desk.folder().join("vioscsi.cat");
    let mut bytes = fs::read(&cat)?;
    let hash = bytes.len() / 2;
    bytes[hash] ^= 1;
    fs::write(&cat, bytes)?;
    let told = check()?.expect_code(1)?.stdout;
    ensure!(told.contains("NOT sound"), "{told}");
    Ok(())
}

#[test]
fn packages_are_imported_from_folders_and_archives_alike() -> Result<()> {
    let desk = Desk::new()?;
    let folder = desk.folder();
    let archives = [
        folder.to_owned(),
        desk.pack("zip", "a.zip")?,
        desk.pack("gztar", "a.goo")?,
        desk.pack("tar", "a.tar")?,
        desk.pack_cabinet()?,
    ];
    let mut contents = Vec::new();
    for (index, source) in archives.iter().enumerate() {
        let bundle = desk.top.path().join(format!("bundle{index}"));
        let run = import(source, &bundle)?.expect_code(0)?;
        ensure!(run.stdout.ends_with(": imported\n"), "{}", run.stdout);
        let again = import(source, &bundle)?.expect_code(0)?;
        ensure!(
            again.stdout.ends_with(": there already\n"),
            "{}",
            again.stdout
        );
        ce_agent(["drivers", "check", text(&bundle)?])?.expect_code(0)?;
        let mut files = files_below(&bundle)?;
        files.sort();
        contents.push(files);
    }
    assert_eq!(contents[0].len(), 3, "{:?}", contents[0]);
    ensure!(
        contents[0][0].0.starts_with("gcp/vioscsi-"),
        "{:?}",
        contents[0][0].0
    );
    for other in &contents[1..] {
        ensure!(*other == contents[0], "another bundle");
    }
    Ok(())
}

#[test]
fn an_archive_that_writes_elsewhere_is_refused_by_its_entry() -> Result<()> {
    let desk = Desk::new()?;
    for (script, expected) in [
        ("z.writestr('../evil.inf', 'x')", "its path leads up"),
        (
            "z.writestr('a/..\\\\..\\\\evil.inf', 'x')",
            "its path leads up",
        ),
        ("z.writestr('/evil.inf', 'x')", "its path begins at a root"),
        ("z.writestr('C:evil.inf', 'x')", "Windows has no such name"),
        (
            "z.writestr('A.inf', 'x'); z.writestr('a.INF', 'x')",
            "cannot tell it from another",
        ),
        (
            "z.writestr('a', 'x'); z.writestr('A/b.inf', 'x')",
            "that is a file",
        ),
        (
            "i = zipfile.ZipInfo('l.inf'); i.external_attr = 0o120777 << 16; z.writestr(i, '/etc')",
            "links are not taken",
        ),
        (
            "z.writestr('bomb.inf', bytes(80 << 20))",
            "the archive has more than",
        ),
    ] {
        let archive = desk.top.path().join("hostile.zip");
        let program = format!(
            "import sys, zipfile, warnings\nwarnings.simplefilter('ignore')\n\
             z = zipfile.ZipFile(sys.argv[1], 'w', zipfile.ZIP_DEFLATED)\n{script}\nz.close()\n"
        );
        python(&program, &[&archive])?;
        let bundle = desk.top.path().join("bundle");
        let (code, message) = import_json(&archive, &bundle)?;
        assert_eq!(code, "DriverInvalid", "{script}");
        ensure!(message.contains(expected), "{script}: {message}");
        ensure!(
            files_below(&bundle)?.is_empty(),
            "{script}: something is left"
        );
        ensure!(!desk.top.path().join("evil.inf").exists(), "{script}");
    }
    Ok(())
}

#[test]
fn a_tar_archive_with_a_link_in_it_is_refused() -> Result<()> {
    let desk = Desk::new()?;
    let archive = desk.top.path().join("hostile.tar.gz");
    let program = "import sys, tarfile\nt = tarfile.open(sys.argv[1], 'w:gz')\n\
                   i = tarfile.TarInfo('d'); i.type = tarfile.SYMTYPE; i.linkname = '/tmp'\n\
                   t.addfile(i)\nt.close()\n";
    python(program, &[&archive])?;
    let (code, message) = import_json(&archive, &desk.top.path().join("bundle"))?;
    assert_eq!(code, "DriverInvalid");
    ensure!(message.contains("\"d\": links are not taken"), "{message}");
    Ok(())
}

#[test]
fn what_holds_no_package_is_refused_with_what_it_is() -> Result<()> {
    let desk = Desk::new()?;
    let bundle = desk.top.path().join("bundle");
    let other = desk.top.path().join("other.bin");
    fs::write(&other, b"MZ\x90\0 no archive")?;
    let (code, message) = import_json(&other, &bundle)?;
    assert_eq!(code, "DriverInvalid");
    ensure!(message.contains("(it begins with 4d5a9000"), "{message}");

    fs::write(desk.folder().join("vioscsi.sys"), b"changed")?;
    let (_, message) = import_json(desk.folder(), &bundle)?;
    ensure!(
        message.contains("vioscsi.sys is not what the catalogue lists"),
        "{message}"
    );

    let empty = desk.top.path().join("empty");
    fs::create_dir(&empty)?;
    fs::write(empty.join("autorun.inf"), "[autorun]\nopen=setup.exe\n")?;
    let (_, message) = import_json(&empty, &bundle)?;
    ensure!(message.ends_with("holds no driver package"), "{message}");
    Ok(())
}
