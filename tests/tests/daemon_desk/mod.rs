//! A daemon, its Connector, a disk, and what is between them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use ce_proto::v1;
use ce_proto::v1::connector_message::Body;
use ce_tests::agent::{Invocation, Running, ce_agent};
use ce_tests::disk::DiskBuilder;
use ce_tests::pattern::Pattern;
use ce_tests::tool::text;
use tempfile::TempDir;

pub mod authority;
pub mod connector;
pub mod wire;

use authority::{Authority, NOW, Signed};

/// What a daemon needs.
pub struct Desk {
    pub folder: TempDir,
    pub authority: Authority,
}

impl Desk {
    /// A desk with a disk of this size and an agent that has a certificate.
    pub fn new(disk_size: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("of the tests")?;
        let desk = Self { folder, authority };
        for name in ["disks", "images"] {
            fs::create_dir(desk.path(name))?;
        }
        DiskBuilder::filled(disk_size, Pattern::Dense, 5).build(desk.disk())?;
        desk.write("ca.pem", &desk.authority.pem)?;
        let own = desk.authority.sign(&["agent-1"], NOW)?;
        desk.certify(&own)?;
        Ok(desk)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn disk(&self) -> PathBuf {
        self.path("disks/disk.raw")
    }

    pub fn write(&self, name: &str, content: &str) -> Result<()> {
        fs::write(self.path(name), content)?;
        Ok(fs::set_permissions(
            self.path(name),
            fs::Permissions::from_mode(0o600),
        )?)
    }

    /// Gives the agent this certificate.
    pub fn certify(&self, own: &Signed) -> Result<()> {
        self.write("agent.pem", &own.certificate)?;
        self.write("agent.key", &own.key)
    }

    /// Writes the configuration: these Connectors, and whatever else it is to say.
    pub fn configure(&self, connectors: &[String], further: &str) -> Result<()> {
        let at = |name: &str| self.path(name).display().to_string();
        let identity = match further.contains("token") {
            true => String::new(),
            false => format!(
                "client_certificate = '{}'\nclient_key = '{}'\n",
                at("agent.pem"),
                at("agent.key")
            ),
        };
        self.write(
            "config.toml",
            &format!(
                "connectors = {connectors:?}\nca_file = '{}'\nstate = '{}'\nlog = 'debug'\n\
                 {identity}{further}\n[jobs]\ndisk_folders = ['{}']\noutput_folders = ['{}']\n\
                 smb_hosts = ['127.0.0.1']\ndisk_wait = 0\n",
                at("ca.pem"),
                at("state"),
                at("disks"),
                at("images")
            ),
        )
    }

    pub fn invocation(&self) -> Result<Invocation> {
        let config = self.path("config.toml");
        let agent = ce_agent(["daemon", "--config", text(&config)?])?;
        Ok(agent.time_limit(Duration::from_secs(300)))
    }

    pub fn agent(&self) -> Result<Running> {
        self.invocation()?.start()
    }

    /// An export of the disk into the folder of images.
    pub fn export(&self, id: &str) -> v1::StartJob {
        v1::StartJob {
            job_id: id.into(),
            required_revision: 1,
            attempt: 1,
            credentials: None,
            request: Some(v1::JobRequest {
                operation: Some(v1::Operation::Export.into()),
                disk: Some(v1::DiskSelector {
                    selector: Some(v1::disk_selector::Selector::Path(
                        self.disk().display().to_string(),
                    )),
                    size_bytes: None,
                }),
                output_storage_location: Some(v1::OutputStorageLocation {
                    location: self.path("images").display().to_string(),
                    ..Default::default()
                }),
                output_image_filename: Some(id.into()),
                hash_disk: Some(true),
                ..Default::default()
            }),
        }
    }
}

pub fn start(job: &v1::StartJob) -> Body {
    Body::StartJob(job.clone())
}

pub const SOON: Duration = Duration::from_secs(30);
