//! Installation packages, made by the tools that make them for vendors.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ce_tests::tool::{MSIBUILD, WIXL, text};

use crate::desk::{Desk, files_below, import, import_json, imported, write_cabinet};

#[test]
fn packages_are_imported_from_an_installation_package() -> Result<()> {
    let desk = Desk::new()?;
    let expected = imported(desk.folder(), &desk.top.path().join("expected"))?;
    let source = desk.top.path().join("drivers.wxs");
    let files: String = ["inf", "sys", "cat"]
        .iter()
        .map(|kind| {
            format!(
                r#"<Component Id="{kind}" Guid="*"><File Id="file_{kind}" Name="vioscsi.{kind}" Source="package/vioscsi.{kind}"/></Component>"#
            )
        })
        .collect();
    fs::write(
        &source,
        format!(
            r#"<?xml version="1.0"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="Drivers" Language="1033" Version="1.0.0" Manufacturer="Vendor"
      UpgradeCode="11111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="200" Compressed="yes"/>
    <Media Id="1" Cabinet="drivers.cab" EmbedCab="yes"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFilesFolder" Name="PFiles">
        <Directory Id="INSTALLDIR" Name="Vendor Drivers">
          <Directory Id="Amd64" Name="amd64">{files}</Directory>
          <Component Id="tool" Guid="*"><File Id="file_tool" Name="tool.exe" Source="package/vioscsi.sys"/></Component>
        </Directory>
      </Directory>
    </Directory>
    <Feature Id="all" Level="1">
      <ComponentRef Id="inf"/><ComponentRef Id="sys"/><ComponentRef Id="cat"/><ComponentRef Id="tool"/>
    </Feature>
  </Product>
</Wix>"#
        ),
    )?;
    let package = desk.top.path().join("drivers.msi");
    WIXL.run(["-o", text(&package)?, text(&source)?])?;
    let found = imported(&package, &desk.top.path().join("bundle"))?;
    ensure!(found == expected, "another bundle: {found:?}");

    // Any part of it, and nothing else.
    let whole = fs::read(&package)?;
    for part in 0..12 {
        fs::write(&package, &whole[..whole.len() * part / 12])?;
        let bundle = desk.top.path().join(format!("part {part}"));
        import(&package, &bundle)?.expect_code(1)?;
        ensure!(
            files_below(&bundle)?.is_empty(),
            "{part}: something is left"
        );
    }
    Ok(())
}

/// An installation package with these rows of its tables, and a cabinet.
struct Installer<'d> {
    desk: &'d Desk,
    files: Vec<(&'static str, &'static str, &'static str)>,
    components: Vec<(&'static str, &'static str)>,
    directories: Vec<(&'static str, &'static str, &'static str)>,
    cabinet: &'static str,
    content: Vec<(&'static str, PathBuf)>,
}

impl<'d> Installer<'d> {
    /// Two packages that are installed to one folder, each on a Windows of its own: a component each.
    fn of_two(desk: &'d Desk, second: &Path) -> Self {
        let content = |key, folder: &Path, kind| (key, folder.join(format!("vioscsi.{kind}")));
        Self {
            desk,
            files: vec![
                ("a1", "Old", "VIOSCSI.INF|vioscsi.inf"),
                ("a2", "Old", "vioscsi.sys"),
                ("a3", "Old", "vioscsi.cat"),
                ("b1", "New", "vioscsi.inf"),
                ("b2", "New", "vioscsi.sys"),
                ("b3", "New", "vioscsi.cat"),
            ],
            components: vec![("Old", "Drivers"), ("New", "Drivers")],
            directories: vec![
                ("TARGETDIR", "", "SourceDir"),
                ("Same", "TARGETDIR", "."),
                ("Drivers", "Same", "DRV|Drivers:Sources"),
            ],
            cabinet: "#drivers.cab",
            content: vec![
                content("a1", desk.folder(), "inf"),
                content("a2", desk.folder(), "sys"),
                content("a3", desk.folder(), "cat"),
                content("b1", second, "inf"),
                content("b2", second, "sys"),
                content("b3", second, "cat"),
            ],
        }
    }

    fn write(&self, name: &str) -> Result<PathBuf> {
        let top = self.desk.top.path();
        let table = |name: &str, head: &str, rows: Vec<String>| -> Result<String> {
            let path = top.join(format!("{name}.idt"));
            fs::write(&path, format!("{head}\r\n{}\r\n", rows.join("\r\n")))?;
            Ok(text(&path)?.to_owned())
        };
        let files = self
            .files
            .iter()
            .zip(1..)
            .map(|((key, component, name), sequence)| {
                format!("{key}\t{component}\t{name}\t1\t\t\t512\t{sequence}")
            });
        let components = self.components.iter();
        let components = components.map(|(key, directory)| {
            format!("{key}\t{{11111111-2222-3333-4444-555555555501}}\t{directory}\t0\t\t")
        });
        let directories = self.directories.iter();
        let directories = directories.map(|(key, above, name)| format!("{key}\t{above}\t{name}"));
        let tables = [
            table(
                "File",
                "File\tComponent_\tFileName\tFileSize\tVersion\tLanguage\tAttributes\tSequence\r\n\
                 s72\ts72\tl255\ti4\tS72\tS20\tI2\ti4\r\nFile\tFile",
                files.collect(),
            )?,
            table(
                "Component",
                "Component\tComponentId\tDirectory_\tAttributes\tCondition\tKeyPath\r\n\
                 s72\tS38\ts72\ti2\tS255\tS72\r\nComponent\tComponent",
                components.collect(),
            )?,
            table(
                "Directory",
                "Directory\tDirectory_Parent\tDefaultDir\r\ns72\tS72\tl255\r\nDirectory\tDirectory",
                directories.collect(),
            )?,
            table(
                "Media",
                "DiskId\tLastSequence\tDiskPrompt\tCabinet\tVolumeLabel\tSource\r\n\
                 i2\ti4\tL64\tS255\tS32\tS72\r\nMedia\tDiskId",
                vec![format!("1\t9\t\t{}\t\t", self.cabinet)],
            )?,
        ];
        let cabinet = top.join(self.cabinet.trim_start_matches('#'));
        let content: Vec<(String, PathBuf)> = self
            .content
            .iter()
            .map(|(key, path)| ((*key).to_owned(), path.clone()))
            .collect();
        write_cabinet(&cabinet, &content)?;
        let package = top.join(name);
        // It takes nothing else along with this.
        MSIBUILD.run([
            text(&package)?,
            "-s",
            "Drivers",
            "Vendor",
            ";1033",
            "{11111111-2222-3333-4444-555555555509}",
        ])?;
        let mut arguments = vec![text(&package)?];
        for table in &tables {
            arguments.extend(["-i", table]);
        }
        if let Some(stream) = self.cabinet.strip_prefix('#') {
            arguments.extend(["-a", stream, text(&cabinet)?]);
        }
        MSIBUILD.run(&arguments)?;
        if self.cabinet.starts_with('#') {
            fs::remove_file(cabinet)?;
        }
        Ok(package)
    }
}

/// The same package, signed anew: another one.
fn second_package(desk: &Desk) -> Result<PathBuf> {
    let folder = desk.top.path().join("second");
    ce_tests::driver_package::write_package(&folder, "vioscsi")?;
    Ok(folder)
}

#[test]
fn packages_of_two_components_in_one_folder_stay_apart() -> Result<()> {
    let desk = Desk::new()?;
    let second = second_package(&desk)?;
    let both = desk.top.path().join("expected");
    imported(desk.folder(), &both)?;
    let expected = imported(&second, &both)?;
    ensure!(expected.len() == 6, "{expected:?}");
    let mut installer = Installer::of_two(&desk, &second);
    for (cabinet, name) in [("#drivers.cab", "inside.msi"), ("beside.cab", "beside.msi")] {
        installer.cabinet = cabinet;
        let package = installer.write(name)?;
        let found = imported(&package, &desk.top.path().join(format!("bundle of {name}")))?;
        ensure!(found == expected, "{name}: another bundle");
    }
    Ok(())
}

#[test]
fn an_installation_package_that_writes_elsewhere_is_refused() -> Result<()> {
    let desk = Desk::new()?;
    let second = second_package(&desk)?;
    let refused = |change: &dyn Fn(&mut Installer<'_>), expected: &str| -> Result<()> {
        let mut installer = Installer::of_two(&desk, &second);
        change(&mut installer);
        let package = installer.write("hostile.msi")?;
        let bundle = desk.top.path().join("bundle");
        let (code, message) = import_json(&package, &bundle)?;
        ensure!(
            code == "DriverInvalid" && message.contains(expected),
            "{expected}: {message}"
        );
        ensure!(
            files_below(&bundle)?.is_empty(),
            "{expected}: something is left"
        );
        fs::remove_file(package)?;
        Ok(())
    };
    refused(
        &|installer| installer.directories[2].2 = "..",
        "its path leads up",
    )?;
    refused(
        &|installer| installer.files[1].2 = r"..\..\evil.sys",
        "its path leads up",
    )?;
    refused(
        &|installer| installer.directories[1].1 = "Drivers",
        "in itself",
    )?;
    refused(
        &|installer| installer.directories[2].1 = "Nowhere",
        "the Directory table does not have it",
    )?;
    refused(
        &|installer| installer.cabinet = "C:elsewhere.cab",
        "Windows has no such name",
    )?;
    refused(
        &|installer| installer.files[1].2 = "vioscsi.inf",
        "Windows cannot tell it from another",
    )
}
