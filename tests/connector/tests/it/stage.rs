//! A Connector that runs in the test's process, or as a program of its own.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ce_connector::authority::Authority;
use ce_connector::client::Client;
use ce_connector::home::Home;
use ce_connector::ids::UnixMillis;
use ce_connector::machine::Limits;
use ce_connector::private_file;
use ce_connector::server::{Options, Server, ServerError};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Identity;

/// A Connector in this process.
pub struct Stage {
    pub folder: TempDir,
    pub agents: SocketAddr,
    pub admin: SocketAddr,
    pub api: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    end: JoinHandle<Result<(), ServerError>>,
}

impl Stage {
    pub async fn new() -> Self {
        Self::over(made()).await
    }

    /// The Connector of that folder.
    pub async fn over(folder: TempDir) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = Options {
            listen: any,
            admin: any,
            api: Some(any),
            heartbeat: Duration::from_secs(60),
            limits: Limits {
                busy_ms: 100,
                ..Limits::default()
            },
        };
        let server = Server::start(Home::new(folder.path()), &options)
            .await
            .unwrap();
        let (agents, admin, api) = (server.agents, server.admin, server.api);
        let (stop, stopped) = oneshot::channel::<()>();
        let end = tokio::spawn(server.run_until(async {
            let _ = stopped.await;
        }));
        Self {
            folder,
            agents,
            admin,
            api,
            stop,
            end,
        }
    }

    /// Stops it as a signal would; its folder is what is left.
    pub async fn stop(self) -> TempDir {
        self.stop.send(()).unwrap();
        self.end.await.unwrap().unwrap();
        self.folder
    }

    pub fn home(&self) -> Home {
        Home::new(self.folder.path())
    }

    pub fn client(&self) -> Client {
        Client::new(&self.home()).unwrap()
    }

    pub fn ca(&self) -> String {
        self.home().authority().unwrap().pem().to_owned()
    }

    /// A certificate that is registered.
    pub fn identity(&self, name: &str) -> Identity {
        identity(self.folder.path(), name)
    }

    /// A certificate that was made at `now`, signed by `authority`, and registered.
    pub fn identity_of(&self, name: &str, authority: &Authority, now: UnixMillis) -> Identity {
        let name = name.parse().unwrap();
        let (issued, key) = authority.agent_with_key(&name, now).unwrap();
        self.home().registry().unwrap().add(&name, &issued).unwrap();
        Identity::from_pem(issued.pem, &*key)
    }

    pub fn put_into_wallet(&self, text: &str) {
        private_file::write(&self.folder.path().join("wallet.toml"), text).unwrap();
    }

    /// Submits a job and gives its name.
    pub async fn submit(&self, request: &str) -> String {
        submit(&self.client(), request).await
    }

    pub async fn job(&self, id: &str) -> Value {
        self.client().get(&format!("/jobs/{id}")).await.unwrap()
    }

    /// Waits until a job has this status.
    pub async fn wait_for(&self, id: &str, status: &str) -> Value {
        let client = self.client();
        wait_for(&client, id, status).await
    }
}

/// A folder with a Connector in it.
pub fn made() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    Home::new(folder.path())
        .create(&names, UnixMillis::now())
        .unwrap();
    folder
}

/// A certificate that is registered with the Connector in `folder`.
pub fn identity(folder: &Path, name: &str) -> Identity {
    let home = Home::new(folder);
    let name = name.parse().unwrap();
    let authority = home.authority().unwrap();
    let (issued, key) = authority.agent_with_key(&name, UnixMillis::now()).unwrap();
    home.registry().unwrap().add(&name, &issued).unwrap();
    Identity::from_pem(issued.pem, &*key)
}

pub async fn submit(client: &Client, request: &str) -> String {
    let accepted = client.post("/jobs", request.into()).await.unwrap();
    accepted["id"].as_str().unwrap().to_owned()
}

pub async fn wait_for(client: &Client, id: &str, status: &str) -> Value {
    until(async || {
        let job = client.get(&format!("/jobs/{id}")).await.unwrap();
        (job["status"] == status).then_some(job)
    })
    .await
}

/// Asks again until there is an answer; for ten seconds.
pub async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    for _ in 0..500 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it did not happen within ten seconds");
}

/// A Connector that runs as a program, and can be killed.
pub struct Program {
    child: Child,
    pub agents: SocketAddr,
}

impl Program {
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ce-connector"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "--dir",
            ])
            .arg(folder)
            .env("CE_CONNECTOR_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut first).unwrap();
        let agents = first.trim().rsplit(' ').next().unwrap().parse();
        let agents = agents.unwrap_or_else(|_| panic!("{first:?} names no address"));
        // What else it prints has to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        Self { child, agents }
    }

    /// The most memory that it ever had, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// SIGKILL: it gets to do nothing any more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Killed already, if the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
