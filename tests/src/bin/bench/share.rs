//! Exports to an SMB share, beside what `smbclient` and a plain copy over the loopback reach with
//! the same bytes.
//!
//! Server and client share the machine, so that all of them fight for the same cores.

#[path = "../../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "the tests of the share use the rest")]
mod server;

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use ce_tests::agent::{Cost, Invocation, ce_agent, drop_from_page_cache};
use ce_tests::disk::Disk;
use ce_tests::tool::{MD5SUM, SMBCLIENT, text};
use serde_json::json;

use server::{PASSWORD, Server, Setup};

use crate::contenders::run_together;
use crate::memory;

/// One round with one kind of protection.
#[derive(Clone, Copy, Debug)]
pub struct ShareRound {
    /// `ce-agent export --hash` to the share.
    pub agent: Cost,
    /// `smbclient put` of the image that such an export writes.
    pub smbclient: Cost,
    /// The same again while `md5sum` reads the disk: what an export does, without making the image.
    pub smbclient_beside_md5: Cost,
    /// The same image through a TCP connection of the loopback, into a file.
    pub loopback: Duration,
    /// MD5 of all bytes of the disk on one core.
    pub md5: Duration,
}

impl ShareRound {
    /// The least time that an export can take, as far as `smbclient` shows what the share can do.
    pub fn limit(&self) -> Duration {
        self.md5.max(self.smbclient.wall)
    }
}

/// A server and an image for it.
pub struct Share {
    /// How the report names it.
    pub name: &'static str,
    folder: PathBuf,
    server: Server,
    agent_options: &'static [&'static str],
    smbclient_options: &'static [&'static str],
    credentials: PathBuf,
}

impl Share {
    /// A server that demands signatures, and one that demands encryption.
    pub fn both(folder: &Path) -> Result<[Self; 2]> {
        let signed = Setup::default()
            .global("server signing = mandatory")
            .start();
        let encrypted = Setup::default().global("smb encrypt = required").start();
        Ok([
            Self {
                name: "signed",
                folder: folder.to_owned(),
                agent_options: &["--smb-encryption", "if-demanded"],
                smbclient_options: &["--client-protection=sign"],
                credentials: write_credentials(folder, "signed.json", signed.user())?,
                server: signed,
            },
            Self {
                name: "encrypted",
                folder: folder.to_owned(),
                agent_options: &[],
                smbclient_options: &["--client-protection=encrypt"],
                credentials: write_credentials(folder, "encrypted.json", encrypted.user())?,
                server: encrypted,
            },
        ])
    }

    /// Runs everyone once. `image` is what an export of `disk` writes.
    pub fn round(&self, disk: &Disk, image: &Path, md5_rate: f64) -> Result<ShareRound> {
        drop_from_page_cache(&disk.path)?;
        memory::fill(&self.folder)?;
        let url = self.server.url("share/agent.vhdx");
        let export = [
            "export",
            text(&disk.path)?,
            "--to",
            &url,
            "--hash",
            "--quiet",
        ];
        let agent = ce_agent(export)?
            .with(["--smb-credentials", text(&self.credentials)?])
            .with(self.agent_options)
            .time_limit(TIME_LIMIT)
            .expect_code(0)?
            .cost;
        self.take_back("agent.vhdx", image)?;

        drop_from_page_cache(image)?;
        memory::fill(&self.folder)?;
        let smbclient = self
            .smbclient(image)?
            .time_limit(TIME_LIMIT)
            .expect_code(0)?
            .cost;
        self.take_back("smbclient.vhdx", image)?;

        drop_from_page_cache(image)?;
        drop_from_page_cache(&disk.path)?;
        memory::fill(&self.folder)?;
        let md5sum = Invocation::new(MD5SUM.path()?, [text(&disk.path)?]);
        let started = Instant::now();
        let both = run_together(vec![self.smbclient(image)?, md5sum])?;
        let smbclient_beside_md5 = Cost {
            wall: started.elapsed(),
            ..both
        };
        self.take_back("smbclient.vhdx", image)?;

        drop_from_page_cache(image)?;
        memory::fill(&self.folder)?;
        let loopback = copy_over_loopback(image, &self.server.folder().join("loopback"))?;
        self.take_back("loopback", image)?;
        Ok(ShareRound {
            agent,
            smbclient,
            smbclient_beside_md5,
            loopback,
            md5: Duration::from_secs_f64(disk.size as f64 / md5_rate),
        })
    }

    /// `smbclient` that puts `image` there.
    fn smbclient(&self, image: &Path) -> Result<Invocation> {
        let put = format!("put {} smbclient.vhdx", text(image)?);
        let port = self.server.port().to_string();
        let user = format!("{}%{PASSWORD}", self.server.user());
        let arguments = [
            "//127.0.0.1/share",
            "-p",
            &port,
            "-U",
            &user,
            "-m",
            "SMB3",
            "-c",
            &put,
        ];
        let call = Invocation::new(SMBCLIENT.path()?, arguments);
        Ok(call.with(self.smbclient_options))
    }

    /// Removes what was written, once it is on the disk and as long as the image.
    fn take_back(&self, name: &str, image: &Path) -> Result<()> {
        let path = self.server.folder().join(name);
        let written = File::open(&path)?;
        written.sync_all()?;
        let lengths = (written.metadata()?.len(), fs::metadata(image)?.len());
        ensure!(lengths.0 == lengths.1, "{name}: {lengths:?}");
        Ok(fs::remove_file(path)?)
    }
}

fn write_credentials(folder: &Path, name: &str, user: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let text = json!({"domain": "", "username": user, "password": PASSWORD}).to_string();
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(path)
}

fn copy_over_loopback(source: &Path, target: &Path) -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut file = File::create(target)?;
    let started = Instant::now();
    let receiver = thread::spawn(move || {
        let (mut connection, _) = listener.accept()?;
        io::copy(&mut connection, &mut file)
    });
    let mut connection = TcpStream::connect(address)?;
    io::copy(&mut File::open(source)?, &mut connection)?;
    drop(connection);
    receiver
        .join()
        .map_err(|_| anyhow!("the receiver panicked"))??;
    Ok(started.elapsed())
}

const TIME_LIMIT: Duration = Duration::from_secs(3600);
