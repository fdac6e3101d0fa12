//! A small site: `ce-connector` as a program, agents as programs, disks, a folder for images.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_tests::agent::{Invocation, ce_agent, ce_connector, connector_binary};
use ce_tests::disk::DiskBuilder;
use ce_tests::pattern::Pattern;
use ce_tests::tool::text;
use serde_json::Value;
use tempfile::TempDir;

use crate::share::{PASSWORD, Server};

/// The site. Everything that runs ends with it.
pub struct Site {
    pub folder: TempDir,
    server: Option<Child>,
    pub agents: SocketAddr,
    pub admin: SocketAddr,
}

/// How an agent shows who it is.
#[derive(Clone, Copy)]
pub enum Admission {
    Certificate,
    Token,
}

impl Site {
    /// A Connector on the loopback.
    pub fn new() -> Result<Self> {
        Self::at("127.0.0.1")
    }

    /// A Connector whose agents come to this address.
    pub fn at(host: &str) -> Result<Self> {
        Self::reached_as(host, host)
    }

    /// A Connector that listens on `host` and that agents know by another name.
    pub fn reached_as(host: &str, name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["disks", "images"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let mut site = Self {
            folder,
            server: None,
            agents: SocketAddr::new(host.parse()?, 0),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let home = site.path("site");
        ce_connector(["init", text(&home)?, "--name", name])?.expect_code(0)?;
        site.serve()?;
        Ok(site)
    }

    /// Starts the Connector, at the addresses that it had before.
    pub fn serve(&mut self) -> Result<()> {
        let mut command = Command::new(connector_binary()?);
        command.args(["serve", "--heartbeat", "2", "--dir"]);
        command.arg(self.path("site"));
        command.args(["--listen", &self.agents.to_string()]);
        command.args(["--admin", &self.admin.to_string()]);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.path("connector.log"))?;
        command.stderr(log).stdout(Stdio::piped());
        let mut child = command.spawn().context("ce-connector")?;
        let output = child.stdout.take().context("no output")?;
        let mut output = BufReader::new(output);
        let address = |output: &mut BufReader<_>| -> Result<SocketAddr> {
            let mut line = String::new();
            BufRead::read_line(output, &mut line)?;
            let last = line.trim().rsplit([' ', '/']).next().unwrap_or_default();
            let address = last.parse();
            address.with_context(|| format!("{line:?} names no address"))
        };
        self.server = Some(child);
        self.agents = address(&mut output)?;
        self.admin = address(&mut output)?;
        // What else it prints has to go somewhere.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Ok(())
    }

    /// SIGKILL: the Connector gets to do nothing any more.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.kill()?;
            server.wait()?;
        }
        Ok(())
    }

    /// The number of the Connector's process.
    pub fn id(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no Connector runs")?.id())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Puts the user of a share into the wallet, as `backup`.
    pub fn keep_credentials(&self, share: &Server) -> Result<()> {
        let user = share.user();
        let wallet =
            format!("[credentials.backup]\nusername = '{user}'\npassword = '{PASSWORD}'\n");
        self.write("site/wallet.toml", &wallet)?;
        Ok(())
    }

    /// A disk of noise.
    pub fn disk(&self, name: &str, size: u64) -> Result<PathBuf> {
        let path = self.path("disks").join(name);
        DiskBuilder::filled(size, Pattern::Dense, 5).build(&path)?;
        Ok(path)
    }

    /// A command of `ce-connector` for this site.
    pub fn command(&self, arguments: &[&str]) -> Result<Invocation> {
        let home = self.path("site");
        Ok(ce_connector(arguments)?.with(["--dir", text(&home)?]))
    }

    /// What a command prints, which must go well.
    pub fn said(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.command(arguments)?.expect_code(0)?.stdout)
    }

    /// Submits a job and gives its name.
    pub fn submit(&self, request: &Value) -> Result<String> {
        let file = self.write("request.json", &request.to_string())?;
        Ok(self.said(&["submit", text(&file)?])?.trim().to_owned())
    }

    pub fn show(&self, job: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.said(&["show", job])?)?)
    }

    /// Waits until a job is as it should be.
    pub fn wait(&self, job: &str, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.show(job)?;
            if is_so(&shown) {
                return Ok(shown);
            }
            ensure!(Instant::now() < until, "it stays so: {shown:#}");
            sleep(Duration::from_millis(50));
        }
    }

    pub fn ended(&self, job: &str) -> Result<Value> {
        self.wait(job, has_ended)
    }

    /// Waits for the end of a job, which must be complete.
    pub fn complete(&self, job: &str) -> Result<Value> {
        let ended = self.ended(job)?;
        ensure!(ended["status"] == "complete", "{ended:#}");
        Ok(ended)
    }

    /// Waits until the Connector has logged a text, and gives all that it has logged.
    pub fn until_logged(&self, text: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let log = fs::read_to_string(self.path("connector.log"))?;
            if log.contains(text) {
                return Ok(log);
            }
            ensure!(Instant::now() < until, "no `{text}` in {log}");
            sleep(Duration::from_millis(50));
        }
    }

    /// An HTTP call with the site's bearer token: status line and headers, and the body.
    pub fn http(&self, call: &str, body: &str) -> Result<(String, Value)> {
        let token = fs::read_to_string(self.path("site/api-token"))?;
        let mut stream = TcpStream::connect(self.admin)?;
        write!(
            stream,
            "{call} HTTP/1.1\r\nHost: site\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        // Bodies of one piece, unless the answer says that they are chunked.
        let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
            true => bail!("chunked: {answer}"),
            false => body,
        };
        let body = match body {
            "" => Value::Null,
            body => serde_json::from_str(body).with_context(|| answer.clone())?,
        };
        Ok((head.to_owned(), body))
    }

    /// The names of the agents that are in a session now.
    pub fn connected(&self) -> Result<Vec<String>> {
        let (_, agents) = self.http("GET /agents", "")?;
        let agents = agents["items"].as_array().context("no agents")?;
        let connected = agents
            .iter()
            .filter(|agent| agent["session"]["connected"] == true);
        let names = connected.filter_map(|agent| agent["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// Waits until an agent is in a session; how long that took.
    pub fn until_connected(&self, agent: &str) -> Result<Duration> {
        let began = Instant::now();
        while !self.connected()?.iter().any(|name| name == agent) {
            ensure!(began.elapsed() < PATIENCE, "{agent} does not come");
            sleep(Duration::from_millis(10));
        }
        Ok(began.elapsed())
    }

    /// Lets an agent in and writes its configuration, for a Connector at `address`; gives the call
    /// that runs it.
    pub fn agent_by(
        &self,
        name: &str,
        admission: Admission,
        address: &str,
        further: &str,
    ) -> Result<Invocation> {
        let own = format!("agent-{name}");
        let at = |file: &str| self.path(&own).join(file).display().to_string();
        let identity = match admission {
            Admission::Certificate => {
                let out = self.path(&own);
                self.said(&["agent", "add", name, "--out", text(&out)?])?;
                format!(
                    "client_certificate = '{}'\nclient_key = '{}'\n",
                    at("client.pem"),
                    at("client.key")
                )
            }
            Admission::Token => {
                fs::create_dir_all(self.path(&own))?;
                let token = self.said(&["token", "new", name])?;
                self.write(&format!("{own}/token"), &token)?;
                format!("token_file = '{}'\n", at("token"))
            }
        };
        let folder = |name: &str| self.path(name).display().to_string();
        let config = self.write(
            &format!("{own}/config.toml"),
            &format!(
                "connectors = ['{address}']\nca_file = '{}'\nstate = '{}'\nscratch = '{}'\n\
                 {identity}{further}\n[jobs]\ndisk_folders = ['{}']\noutput_folders = ['{}']\n\
                 smb_hosts = ['127.0.0.1']\ndisk_wait = 0\n",
                folder("site/ca.pem"),
                at("state"),
                at("scratch"),
                folder("disks"),
                folder("images")
            ),
        )?;
        let agent = ce_agent(["daemon", "--config", text(&config)?])?;
        Ok(agent.time_limit(Duration::from_secs(1800)))
    }

    /// An agent with a certificate.
    pub fn agent(&self, name: &str) -> Result<Invocation> {
        self.agent_by(name, Admission::Certificate, &self.agents.to_string(), "")
    }

    /// An export of a disk into the folder of images.
    pub fn export(&self, disk: &Path, image: &str) -> Value {
        serde_json::json!({
            "operation": "export",
            "disk": {"path": disk},
            "outputStorageLocation": {"location": self.path("images")},
            "outputImageFilename": image,
            "hashDisk": true,
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Nothing more can be done about one that can't be killed.
        let _ = self.kill();
    }
}

pub fn has_ended(job: &Value) -> bool {
    ["complete", "failed", "cancelled"].contains(&job["status"].as_str().unwrap_or_default())
}

/// Longer than anything takes on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(120);
