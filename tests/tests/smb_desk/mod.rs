//! A disk, a server and everything between: what the tests with a share have in common.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Finished, Invocation, ce_agent};
use ce_tests::disk::DiskBuilder;
use ce_tests::oracle;
use ce_tests::pattern::Pattern;
use ce_tests::tool::text;
use tempfile::TempDir;

use super::share::{PASSWORD, Server};

/// A disk of noise and what its export has to be.
pub struct Desk {
    pub folder: TempDir,
    pub disk: PathBuf,
    pub server: Server,
}

impl Desk {
    pub fn new(server: Server, size: u64, pattern: Pattern) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        DiskBuilder::filled(size, pattern, 5).build(&disk)?;
        let desk = Self {
            folder,
            disk,
            server,
        };
        desk.write_credentials("smb.json", PASSWORD)?;
        Ok(desk)
    }

    /// A file with the credentials of the server's user and this password.
    pub fn write_credentials(&self, name: &str, password: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        let user = self.server.user();
        let text = serde_json::json!({"domain": "", "username": user, "password": password});
        fs::write(&path, text.to_string())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// An export of the disk to a path below the server, with JSON output.
    pub fn export(&self, path: &str) -> Result<Invocation> {
        self.export_to(&self.server.url(path))
    }

    pub fn export_to(&self, url: &str) -> Result<Invocation> {
        let credentials = self.folder.path().join("smb.json");
        ce_agent([
            "export",
            text(&self.disk)?,
            "--to",
            url,
            "--smb-credentials",
            text(&credentials)?,
            "--smb-timeout",
            "3",
            "--json",
        ])
    }

    /// The image as a local export writes it.
    pub fn local_image(&self, options: &[&str]) -> Result<Vec<u8>> {
        let image = self.folder.path().join("local.image");
        let run = ce_agent(["export", text(&self.disk)?, "--to", text(&image)?, "--json"])?;
        run.with(["--overwrite"]).with(options).expect_code(0)?;
        Ok(fs::read(image)?)
    }

    /// Fails unless the export's image is the local one and its hash that of the disk.
    pub fn expect_image(&self, run: &Finished, name: &str, options: &[&str]) -> Result<()> {
        ensure!(
            run.md5_hash()? == oracle::md5_of_file(&self.disk)?,
            "the MD5 is wrong"
        );
        let image = fs::read(self.server.folder().join(name)).context("the image")?;
        ensure!(image == self.local_image(options)?, "the image differs");
        Ok(())
    }

    /// What is on the share, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.server.folder())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// Code and message of a run that must have failed with this exit code.
pub fn failure(run: &Finished, exit: i32) -> Result<(String, String)> {
    ensure!(
        run.status.code() == Some(exit),
        "{}: {}{}",
        run.status,
        run.stdout,
        run.stderr
    );
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run.error()
}
