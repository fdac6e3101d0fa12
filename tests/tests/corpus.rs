//! Images that other programs wrote, with the MD5 of their content by two other readers: each is
//! read right, or refused for the reason that holds.
//!
//! The images are not part of the project: `CE_CORPUS` names the folder with `corpus.tar.zst` and
//! `INDEX.md`; `make test-corpus` runs this.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::oracle::{self, Comparison, Format};
use ce_tests::tool::text;

/// A disk image of the index.
struct Image {
    path: PathBuf,
    md5: String,
    is_differencing: bool,
}

#[test]
fn every_image_is_hashed_as_two_other_readers_hash_it() -> Result<()> {
    let corpus = Corpus::open()?;
    let images = corpus.images()?;
    ensure!(
        images.len() >= 9,
        "only {} images in the index",
        images.len()
    );
    for image in images {
        let run = ce_agent(["hash", text(&image.path)?, "--json"])?;
        if image.is_differencing {
            let (code, message) = run.expect_code(1)?.error()?;
            assert_eq!(code, "DiskInvalid", "{message}");
            assert!(
                message.contains("ntfs-parent.vhdx"),
                "the parent is not named: {message}"
            );
        } else {
            let hash = run.expect_code(0)?.md5_hash()?;
            assert_eq!(hash, image.md5, "{}", image.path.display());
        }
    }
    Ok(())
}

#[test]
fn every_image_is_exported_again_without_a_change_of_content() -> Result<()> {
    let corpus = Corpus::open()?;
    let folder = tempfile::tempdir()?;
    for image in corpus.images()? {
        if image.is_differencing {
            continue;
        }
        let output = folder.path().join("again.vhdx");
        let arguments = [
            "export",
            text(&image.path)?,
            "--to",
            text(&output)?,
            "--hash",
            "--json",
        ];
        let hash = ce_agent(arguments)?.expect_code(0)?.md5_hash()?;
        assert_eq!(hash, image.md5, "{}", image.path.display());
        oracle::qemu_check(&output)?;
        assert_eq!(
            oracle::libvhdi_digest(&output)?.md5,
            image.md5,
            "{}",
            image.path.display()
        );
        fs::remove_file(output)?;
    }
    Ok(())
}

#[test]
fn every_raw_disk_of_the_corpus_is_exported_byte_for_byte() -> Result<()> {
    let corpus = Corpus::open()?;
    let folder = tempfile::tempdir()?;
    let mut seen = 0;
    for entry in fs::read_dir(corpus.folder.join("ntfs"))? {
        let raw = entry?.path();
        if raw.extension().is_none_or(|extension| extension != "raw") {
            continue;
        }
        seen += 1;
        let output = folder.path().join("disk.vhdx");
        let arguments = [
            "export",
            text(&raw)?,
            "--to",
            text(&output)?,
            "--hash",
            "--json",
        ];
        let hash = ce_agent(arguments)?.expect_code(0)?.md5_hash()?;
        assert_eq!(hash, oracle::md5_of_file(&raw)?, "{}", raw.display());
        let compared = oracle::qemu_compare((&raw, Format::Raw), (&output, Format::Vhdx))?;
        assert_eq!(compared, Comparison::Identical, "{}", raw.display());
        fs::remove_file(output)?;
    }
    ensure!(seen >= 5, "only {seen} raw disks in the corpus");
    Ok(())
}

struct Corpus {
    /// Where the archive was unpacked.
    folder: PathBuf,
    index: String,
}

impl Corpus {
    fn open() -> Result<Self> {
        let source = env::var_os("CE_CORPUS")
            .context("CE_CORPUS is not set: it names the folder with corpus.tar.zst")?;
        // Relative to the project's top folder, from where `make` is run.
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(source);
        let index = fs::read_to_string(source.join("INDEX.md"))
            .with_context(|| format!("no INDEX.md in {}", source.display()))?;
        let unpacked = env::var_os("CE_CORPUS_DIR")
            .context("CE_CORPUS_DIR is not set: `make test-corpus` unpacks and sets it")?;
        Ok(Self {
            folder: PathBuf::from(unpacked),
            index,
        })
    }

    /// The images of the index's `vhdx` folder; what was compressed stands there unpacked.
    fn images(&self) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for line in self.index.lines().filter(|line| line.starts_with("|vhdx/")) {
            let name = line.split('|').nth(1).context("a row without a name")?;
            let (_, rest) = line
                .split_once("virtual-disk MD5 ")
                .with_context(|| format!("no MD5 in the row of {name}"))?;
            let md5: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            ensure!(md5.len() == 32, "the MD5 of {name} is {md5:?}");
            images.push(Image {
                path: self.folder.join(name.trim_end_matches(".bz2")),
                md5,
                is_differencing: line.contains("differencing"),
            });
        }
        Ok(images)
    }
}
