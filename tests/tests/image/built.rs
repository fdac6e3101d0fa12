//! The image, built once for all tests, and what can be seen of it without starting it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use ce_tests::agent::{binary, init_binary};
use ce_tests::oracle;
use ce_tests::tool::{SGDISK, output_of, said, text};

/// The folder with the image of the programs under test. Its compression is quick and bad: what is
/// shipped is built by `make image`.
pub fn image() -> Result<&'static Path> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let build = || build("image", &[]).map_err(|error| format!("{error:#}"));
    match BUILT.get_or_init(build) {
        Ok(folder) => Ok(folder),
        Err(error) => bail!("{error}"),
    }
}

/// Builds an image into a folder of this name.
pub fn build(name: &str, options: &[&str]) -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = output_of(
        Command::new("packaging/image/build.sh")
            .current_dir(root)
            .args(["--agent", text(binary()?)?, "--init", text(init_binary()?)?])
            .args(["--out", text(&folder)?, "--level", "3"])
            .args(options),
    )?;
    let words = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success(), "build.sh: {words}");
    Ok(folder)
}

#[test]
fn two_builds_are_the_same_bytes() -> Result<()> {
    let (first, second) = (image()?, build("image-again", &[])?);
    for name in ["vmlinuz", "initrd", "ce.efi", "ce.raw", "packages.tsv"] {
        ensure!(
            oracle::md5_of_file(&first.join(name))? == oracle::md5_of_file(&second.join(name))?,
            "{name} is another one"
        );
    }
    fs::remove_dir_all(second)?;
    Ok(())
}

#[test]
fn the_disk_is_one_that_uefi_starts_and_its_modules_are_signed() -> Result<()> {
    let folder = image()?;
    let disk = folder.join("ce.raw");
    oracle::sgdisk_verify(&disk)?;
    let table = said(&SGDISK.run(["--print", text(&disk)?])?);
    ensure!(table.contains("EF00"), "{table}");
    ensure!(
        table.contains("CE0B0007-1A6E-4D15-8B00-0CE000D15C00"),
        "{table}"
    );
    // What is appended to a module is its signature and this text (module-signing.rst of the kernel).
    let unpacked = tempfile::tempdir()?;
    let initrd = folder.join("initrd");
    output_of(
        Command::new("sh")
            .args([
                "-c",
                "zstd -dcq \"$0\" | cpio -idm --quiet --no-absolute-filenames",
            ])
            .arg(&initrd)
            .current_dir(unpacked.path()),
    )?;
    let mut modules = 0;
    let mut open = vec![unpacked.path().join("usr/lib/modules")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path)?.collect::<std::io::Result<Vec<_>>>()?;
            open.extend(entries.into_iter().map(|entry| entry.path()));
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            let signed = fs::read(&path)?.ends_with(b"~Module signature appended~\n");
            ensure!(signed, "{} is not signed", path.display());
            modules += 1;
        }
    }
    ensure!(modules > 50, "{modules} modules");
    for shell in ["bash", "busybox", "dash", "getty", "login", "sh", "sshd"] {
        for folder in ["bin", "sbin"] {
            let program = unpacked.path().join("usr").join(folder).join(shell);
            ensure!(!program.exists(), "there is a {shell}");
        }
    }
    Ok(())
}

#[test]
fn every_library_is_of_a_package_that_is_listed() -> Result<()> {
    let packages = fs::read_to_string(image()?.join("packages.tsv"))?;
    for name in ["libc6", "libsmbclient", "systemd-boot-efi"] {
        let is_listed = packages
            .lines()
            .any(|line| line.split('\t').next() == Some(name));
        ensure!(is_listed, "{name} is not in {packages}");
    }
    let kernel = packages
        .lines()
        .find(|line| line.starts_with("linux-image-"));
    kernel.context("no kernel")?;
    Ok(())
}
