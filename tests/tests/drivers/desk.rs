//! A package, and archives of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::driver_package::write_package;
use ce_tests::tool::text;
use serde_json::Value;
use tempfile::TempDir;

/// A folder with one sound package.
pub struct Desk {
    pub top: TempDir,
    folder: PathBuf,
}

impl Desk {
    pub fn new() -> Result<Self> {
        let top = tempfile::tempdir()?;
        let folder = top.path().join("package");
        write_package(&folder, "vioscsi")?;
        Ok(Self { top, folder })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Packs the package in folders of its own.
    pub fn pack(&self, format: &str, name: &str) -> Result<PathBuf> {
        let path = self.top.path().join(name);
        let program = "import os, shutil, sys\n\
                       made = shutil.make_archive(sys.argv[1] + '.made', sys.argv[3], \
                       os.path.dirname(sys.argv[2]), os.path.basename(sys.argv[2]))\n\
                       os.rename(made, sys.argv[1])\n";
        python(program, &[&path, &self.folder, Path::new(format)])?;
        Ok(path)
    }

    pub fn pack_cabinet(&self) -> Result<PathBuf> {
        let path = self.top.path().join("a.cab");
        let names = ["vioscsi.cat", "vioscsi.inf", "vioscsi.sys"];
        let files = names.map(|name| (format!("x64\\{name}"), self.folder.join(name)));
        write_cabinet(&path, &files)?;
        Ok(path)
    }
}

/// Writes a cabinet with files under other names.
pub fn write_cabinet(path: &Path, files: &[(String, PathBuf)]) -> Result<()> {
    let mut builder = cab::CabinetBuilder::new();
    let folder = builder.add_folder(cab::CompressionType::MsZip);
    for (name, _) in files {
        folder.add_file(name.clone());
    }
    let mut writer = builder.build(File::create(path)?)?;
    for (_, source) in files {
        let mut file = writer.next_file()?.context("no room for a file")?;
        file.write_all(&fs::read(source)?)?;
    }
    writer.finish()?;
    Ok(())
}

pub fn import(source: &Path, bundle: &Path) -> Result<Invocation> {
    let arguments = [
        "drivers",
        "import",
        text(source)?,
        "--platform",
        "gcp",
        "--into",
    ];
    ce_agent(arguments.into_iter().chain([text(bundle)?]))
}

/// What is in a bundle after an import.
pub fn imported(source: &Path, bundle: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    import(source, bundle)?.expect_code(0)?;
    let mut files = files_below(bundle)?;
    files.sort();
    Ok(files)
}

pub fn import_json(source: &Path, bundle: &Path) -> Result<(String, String)> {
    let run = import(source, bundle)?.with(["--json"]).expect_code(1)?;
    let told: Value = serde_json::from_str(&run.stdout)?;
    let part = |name: &str| {
        let text = told["error"][name].as_str().map(str::to_owned);
        text.with_context(|| format!("no error.{name} in {told}"))
    };
    Ok((part("code")?, part("message")?))
}

/// Paths below a folder, with what is in the files.
pub fn files_below(top: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut folders = vec![top.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = text(path.strip_prefix(top)?)?.to_owned();
                files.push((name, fs::read(&path)?));
            }
        }
    }
    Ok(files)
}

pub fn python(program: &str, arguments: &[&Path]) -> Result<()> {
    let status = Command::new("/usr/bin/python3")
        .arg("-c")
        .arg(program)
        .args(arguments)
        .status()?;
    ensure!(status.success(), "python: {status}");
    Ok(())
}
