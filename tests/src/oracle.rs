//! Second opinions: what programs that share no code with ours say about an image.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::tool::{MD5SUM, PYTHON, QEMU_IMG, SGDISK, VHDIINFO, output_of, said, text};

/// An image format by the name qemu has for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Bytes as they are.
    Raw,
    /// VHDX.
    Vhdx,
    /// VHD, its size taken from the footer's current size, as Hyper-V and Azure do.
    Vhd,
}

/// What dissect.ntfs tells of a file or folder.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Where it is on its volume.
    pub path: String,
    /// The number of its record.
    pub record: u64,
    /// Whether it is a folder.
    pub folder: bool,
    /// How long a file is, in bytes.
    pub size: u64,
    /// The MD5 of a file.
    pub md5: Option<String>,
    /// Its attributes, as Windows numbers them.
    pub attributes: u32,
    /// How long the index of its folder takes it to be.
    pub index_size: u64,
    /// When its content changed last, in nanoseconds since 1970.
    pub modified: i64,
    /// Of which kind its name is.
    pub namespace: u8,
    /// Its name of eight and three characters.
    pub short_name: Option<String>,
    /// The names of a file's further streams.
    pub streams: Vec<String>,
    /// Whether everyone may write to it.
    pub anyone_writes: Option<bool>,
}

/// What dissect.ntfs reads on the volume in a file, by path.
pub fn dissected(volume: &Path) -> Result<BTreeMap<String, Listed>> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join("../target/tools/python/bin/python");
    ensure!(python.exists(), "dissect.ntfs is missing: run `make setup`");
    let script = project.join("src/ntfs_reader.py");
    let output = output_of(Command::new(python).arg(script).arg(volume))?;
    ensure!(output.status.success(), "dissect.ntfs: {}", said(&output));
    let lines = std::str::from_utf8(&output.stdout)?.lines();
    lines
        .map(|line| {
            let listed: Listed = serde_json::from_str(line).with_context(|| line.to_owned())?;
            Ok((listed.path.clone(), listed))
        })
        .collect()
}

/// What `qemu-img info` tells.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageInfo {
    /// Format that was found, by qemu's name.
    pub format: String,
    /// Size of the disk inside, in bytes.
    #[serde(rename = "virtual-size")]
    pub virtual_size: u64,
}

/// How the content of two images relates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Comparison {
    /// Equal; a longer image may go on with zeros.
    Identical,
    /// Not equal, in qemu's words.
    Different(String),
}

/// The content of an image as a hash.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct ContentDigest {
    /// 32 lower-case hexadecimal digits.
    pub md5: String,
    /// How many bytes were hashed.
    pub length: u64,
}

impl Format {
    /// The options that open a file as this format and no other.
    fn options(self, path: &Path) -> Result<String> {
        // A comma inside an option is doubled.
        let path = text(path)?.replace(',', ",,");
        Ok(match self {
            Self::Raw => format!("driver=raw,file.filename={path}"),
            Self::Vhdx => format!("driver=vhdx,file.filename={path}"),
            Self::Vhd => {
                format!("driver=vpc,force_size_calc=current_size,file.filename={path}")
            }
        })
    }
}

/// `qemu-img info`, the format guessed from the file's first bytes as any user's tool would.
pub fn qemu_info(path: &Path) -> Result<ImageInfo> {
    let output = QEMU_IMG.run(["info", "--output=json", text(path)?])?;
    serde_json::from_slice(&output.stdout).context("what qemu-img info wrote")
}

/// Whether qemu opens the file as this format; its own words when it does not.
pub fn qemu_opens(path: &Path, format: Format) -> Result<std::result::Result<(), String>> {
    let mut command = QEMU_IMG.command()?;
    command.args(["info", "--image-opts", &format.options(path)?]);
    let output = output_of(&mut command)?;
    Ok(if output.status.success() {
        Ok(())
    } else {
        Err(said(&output))
    })
}

/// `qemu-img check`: fails unless a VHDX has neither errors nor leaks. VHD has no check in qemu.
pub fn qemu_check(path: &Path) -> Result<()> {
    let output = QEMU_IMG.run(["check", "--image-opts", &Format::Vhdx.options(path)?])?;
    ensure!(
        said(&output).contains("No errors were found"),
        "qemu-img check: {}",
        said(&output)
    );
    Ok(())
}

/// `qemu-img compare` of two images' content.
pub fn qemu_compare(left: (&Path, Format), right: (&Path, Format)) -> Result<Comparison> {
    let mut command = QEMU_IMG.command()?;
    command.args(["compare", "--image-opts"]);
    command.args([left.1.options(left.0)?, right.1.options(right.0)?]);
    let output = output_of(&mut command)?;
    match output.status.code() {
        Some(0) => Ok(Comparison::Identical),
        Some(1) => Ok(Comparison::Different(said(&output))),
        _ => bail!("{command:?}: {}\n{}", output.status, said(&output)),
    }
}

/// `qemu-img convert`: `options` go to the new image (`subformat=fixed`), empty for none.
pub fn qemu_convert(source: (&Path, Format), target: (&Path, Format), options: &str) -> Result<()> {
    let format = match target.1 {
        Format::Raw => "raw",
        Format::Vhdx => "vhdx",
        Format::Vhd => "vpc",
    };
    let source = source.1.options(source.0)?;
    let mut arguments = vec!["convert", "--image-opts", &source, "-O", format];
    if !options.is_empty() {
        arguments.extend(["-o", options]);
    }
    arguments.push(text(target.0)?);
    QEMU_IMG.run(arguments)?;
    Ok(())
}

/// MD5 of the disk inside a VHDX or VHD, read from end to end by libvhdi.
pub fn libvhdi_digest(path: &Path) -> Result<ContentDigest> {
    let mut digests = libvhdi(path, &[])?;
    digests.pop().context("libvhdi's reader gave no digest")
}

/// MD5 of some stretches (offset, length) of the disk inside, read by libvhdi.
pub fn libvhdi_digests_of(path: &Path, stretches: &[(u64, u64)]) -> Result<Vec<ContentDigest>> {
    let digests = libvhdi(path, stretches)?;
    ensure!(
        digests.len() == stretches.len(),
        "libvhdi's reader gave {} digests",
        digests.len()
    );
    Ok(digests)
}

/// `vhdiinfo`: fails unless libvhdi recognises the file; its report.
pub fn vhdiinfo(path: &Path) -> Result<String> {
    Ok(said(&VHDIINFO.run([path])?))
}

/// MD5 of a file by `md5sum`.
pub fn md5_of_file(path: &Path) -> Result<String> {
    let length = fs::metadata(path)?.len();
    ensure!(length > 0, "{} is empty", path.display());
    first_word(&MD5SUM.run([path])?.stdout)
}

/// MD5 of bytes by `md5sum`.
pub fn md5_of_bytes(bytes: &[u8]) -> Result<String> {
    let mut child = MD5SUM
        .command()?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("md5sum has no standard input")?;
    input.write_all(bytes)?;
    drop(input);
    first_word(&child.wait_with_output()?.stdout)
}

/// `sgdisk --verify`: fails unless both copies of the GPT are right. 512-byte sectors only.
pub fn sgdisk_verify(path: &Path) -> Result<()> {
    let output = SGDISK.run(["--verify", text(path)?])?;
    ensure!(
        said(&output).contains("No problems found"),
        "sgdisk: {}",
        said(&output)
    );
    Ok(())
}

fn libvhdi(path: &Path, stretches: &[(u64, u64)]) -> Result<Vec<ContentDigest>> {
    let mut arguments = vec![
        "-c".to_owned(),
        LIBVHDI_READER.to_owned(),
        text(path)?.to_owned(),
    ];
    for (offset, length) in stretches {
        arguments.push(format!("{offset}:{length}"));
    }
    let output = PYTHON
        .run(arguments)
        .context("libvhdi (package python3-libvhdi)")?;
    serde_json::from_slice(&output.stdout).context("what libvhdi's reader wrote")
}

fn first_word(output: &[u8]) -> Result<String> {
    let output = String::from_utf8_lossy(output);
    let word = output
        .split_whitespace()
        .next()
        .context("md5sum wrote nothing")?;
    // md5sum marks a name it had to escape with a backslash before the digest.
    Ok(word.trim_start_matches('\\').to_owned())
}

const LIBVHDI_READER: &str = include_str!("libvhdi_reader.py");
