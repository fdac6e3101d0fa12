//! A Samba server of a test's own, without root, on a free port of 127.0.0.1.
//!
//! Started as `nobody` when the test runs as root. The SMB user is the user the server runs as,
//! which is all that a server without root can serve.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use tempfile::TempDir;

/// The password of the server's only user.
pub const PASSWORD: &str = "Secret-Pass1";

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    global: String,
    share: String,
    tmpfs: Option<u64>,
}

impl Setup {
    /// Lines for the `[global]` section.
    pub fn global(mut self, lines: &str) -> Self {
        self.global.push_str(lines);
        self.global.push('\n');
        self
    }

    /// Lines for the `[share]` section.
    pub fn share(mut self, lines: &str) -> Self {
        self.share.push_str(lines);
        self.share.push('\n');
        self
    }

    /// Puts the share on a file system of its own, of so many bytes.
    pub fn tmpfs(mut self, bytes: u64) -> Self {
        self.tmpfs = Some(bytes);
        self
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Server {
        // The port may be taken between the look for it and the start.
        let mut log = String::new();
        for _ in 0..5 {
            match self.try_start() {
                Ok(server) => return server,
                Err(found) => log = found,
            }
        }
        panic!("smbd did not start on any of five ports:\n{log}");
    }

    fn try_start(&self) -> Result<Server, String> {
        for tool in ["smbd", "pdbedit", "smbclient"] {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|dir| Path::new(dir).join(tool).exists());
            assert!(
                found,
                "`{tool}` is missing; install the Debian packages samba and smbclient"
            );
        }
        let user = User::of_server();
        let dir = tempfile::Builder::new().prefix("smbd").tempdir().unwrap();
        let root = dir.path();
        for name in [
            "", "private", "lock", "state", "cache", "pid", "ncalrpc", "log", "share",
        ] {
            let path = root.join(name);
            if !name.is_empty() {
                fs::create_dir(&path).unwrap();
            }
            chown(&path, Some(user.uid), Some(user.gid)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        fs::write(root.join("smb.conf"), self.conf(root, port, &user.name)).unwrap();

        let mut pdbedit = user.command("pdbedit", root);
        pdbedit.arg("-s").arg(root.join("smb.conf"));
        pdbedit.args(["-a", "-u", &user.name, "-t"]);
        let output = fed(pdbedit, &format!("{PASSWORD}\n{PASSWORD}\n"));
        assert!(output.status.success(), "pdbedit: {output:?}");

        let listener = user.smbd(root, self.tmpfs).spawn().unwrap();
        let mut server = Server {
            dir,
            port,
            user,
            is_private: self.tmpfs.is_some(),
            listener,
        };
        match server.wait_until_it_listens() {
            true => Ok(server),
            false => Err(server.log()),
        }
    }

    fn conf(&self, root: &Path, port: u16, user: &str) -> String {
        let root = root.display();
        let mut conf = format!(
            "[global]
            server role = standalone server
            interfaces = lo
            bind interfaces only = yes
            smb ports = {port}
            disable netbios = yes
            server min protocol = SMB2_02
            passdb backend = tdbsam:{root}/private/passdb.tdb
            log file = {root}/log/log.smbd
            log level = 1 auth:3
            max log size = 0
            load printers = no
            printcap name = /dev/null
            disable spoolss = yes
            map to guest = never
            rpc start on demand helpers = false
            "
        );
        for (setting, dir) in [
            ("private dir", "private"),
            ("lock directory", "lock"),
            ("state directory", "state"),
            ("cache directory", "cache"),
            ("pid directory", "pid"),
            ("ncalrpc dir", "ncalrpc"),
        ] {
            writeln!(conf, "{setting} = {root}/{dir}").unwrap();
        }
        let Self { global, share, .. } = self;
        write!(
            conf,
            "{global}
            [share]
            path = {root}/share
            read only = no
            valid users = {user}
            strict sync = yes
            {share}
            [forbidden]
            path = {root}/share
            valid users = root
            [guests]
            path = {root}/share
            guest ok = yes
            read only = no
            "
        )
        .unwrap();
        conf
    }
}

/// A running server, which ends when this is dropped.
pub struct Server {
    dir: TempDir,
    port: u16,
    user: User,
    /// The share is a file system that only the server sees.
    is_private: bool,
    listener: Child,
}

impl Server {
    /// The name of the user.
    pub fn user(&self) -> &str {
        &self.user.name
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server and everything it has started, as a crash would.
    pub fn stop(&mut self) {
        // The group, which smbd has to itself: children outlive a listener that is killed.
        if let Some(group) = Pid::from_raw(self.listener.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Before it made that group.
        let _ = self.listener.kill();
        let _ = self.listener.wait();
    }

    /// Starts a server that was stopped, on the same port and with the same folder.
    pub fn start_again(&mut self) {
        self.listener = self.user.smbd(self.dir.path(), None).spawn().unwrap();
        assert!(self.wait_until_it_listens(), "{}", self.log());
    }

    /// Says whether it does; if not, it has ended.
    fn wait_until_it_listens(&mut self) -> bool {
        let patience = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.listener.try_wait().unwrap().is_some() {
                return false;
            }
            let log = self.log();
            assert!(Instant::now() < patience, "smbd does not listen:\n{log}");
            sleep(Duration::from_millis(20));
        }
        true
    }

    /// `smb://127.0.0.1:PORT/` and what follows.
    pub fn url(&self, rest: &str) -> String {
        format!("smb://127.0.0.1:{}/{rest}", self.port)
    }

    /// The folder of `[share]`, as the server sees it.
    pub fn folder(&self) -> PathBuf {
        let folder = self.dir.path().join("share");
        if !self.is_private {
            return folder;
        }
        let inside = folder.strip_prefix("/").unwrap();
        Path::new("/proc")
            .join(self.listener.id().to_string())
            .join("root")
            .join(inside)
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        let mut log = String::new();
        for entry in fs::read_dir(self.dir.path().join("log")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                log.push_str(&String::from_utf8_lossy(&fs::read(path).unwrap()));
            }
        }
        log
    }

    /// Sends a signal to every process that serves a connection now; there must be one.
    pub fn signal_connections(&self, signal: Signal) {
        let pids = self.connections();
        assert!(!pids.is_empty(), "nobody is connected");
        for pid in pids {
            // It may end just now, which is as good as a signal that ends it.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills every process that serves a connection now, and says how many there were.
    pub fn kill_connections(&self) -> usize {
        let pids = self.connections();
        let killed = pids
            .iter()
            .filter(|pid| kill_process(**pid, Signal::KILL).is_ok());
        killed.count()
    }

    /// Runs a command of smbclient on `[share]` and returns what it printed.
    pub fn smbclient(&self, command: &str) -> String {
        let authentication = self.dir.path().join("authentication");
        let text = format!("username = {}\npassword = {PASSWORD}\n", self.user.name);
        fs::write(&authentication, text).unwrap();
        let output = Command::new("smbclient")
            .args(["//127.0.0.1/share", "-m", "SMB3", "-p"])
            .arg(self.port.to_string())
            .arg("-A")
            .arg(&authentication)
            .args(["-c", command])
            .output()
            .unwrap();
        assert!(output.status.success(), "smbclient: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn connections(&self) -> Vec<Pid> {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X}", self.port);
        let sockets: Vec<String> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            // Local address, state "established", inode.
            .filter(|field| field[1].ends_with(&port) && field[3] == "01")
            .map(|field| format!("socket:[{}]", field[9]))
            .collect();
        let listener = self.listener.id();
        let children = fs::read_to_string(format!("/proc/{listener}/task/{listener}/children"));
        children
            .unwrap()
            .split_whitespace()
            .filter(|pid| {
                let fds = fs::read_dir(format!("/proc/{pid}/fd"));
                fds.into_iter().flatten().flatten().any(|fd| {
                    fs::read_link(fd.path())
                        .is_ok_and(|target| sockets.iter().any(|s| target == Path::new(s)))
                })
            })
            .filter_map(|pid| Pid::from_raw(pid.parse().unwrap()))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A way to a server on which every request is looked at.
pub struct Wire {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

/// What can be seen of a request from outside (MS-SMB2 2.2.1.2, 2.2.41).
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// It has a transform header.
    pub encrypted: bool,
    /// It is not encrypted and says that it is signed.
    pub signed: bool,
    /// What is asked for, if it can be seen.
    pub command: Option<u16>,
}

impl Wire {
    /// Begins to pass on every connection that is made to it.
    pub fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, server) = (Arc::clone(&requests), server.port);
        // Ends with the test's process.
        spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                spawn(move || io::copy(&mut from, &mut to));
                let seen = Arc::clone(&seen);
                spawn(move || pass_on(client, server, &seen));
            }
        });
        Self { port, requests }
    }

    /// `smb://127.0.0.1:PORT/` and what follows.
    pub fn url(&self, rest: &str) -> String {
        format!("smb://127.0.0.1:{}/{rest}", self.port)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<Request>>) -> io::Result<()> {
    loop {
        // The length before every packet, four bytes (MS-SMB2 2.1).
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut packet)?;
        let plain = packet.starts_with(b"\xfeSMB");
        seen.lock().unwrap().push(Request {
            encrypted: packet.starts_with(b"\xfdSMB"),
            signed: plain && packet[16] & 8 != 0,
            command: plain.then(|| u16::from_le_bytes([packet[12], packet[13]])),
        });
        to.write_all(&length)?;
        to.write_all(&packet)?;
    }
}

/// Whom the server runs as.
struct User {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether we have to become that user first.
    other: bool,
}

impl User {
    fn of_server() -> Self {
        let other = geteuid().is_root();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let own = geteuid().as_raw().to_string();
        let entry = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|entry| match other {
                true => entry[0] == "nobody",
                false => entry[2] == own,
            })
            .expect("the server's user needs an entry in /etc/passwd");
        Self {
            name: entry[0].to_owned(),
            uid: entry[2].parse().unwrap(),
            gid: entry[3].parse().unwrap(),
            other,
        }
    }

    fn command(&self, program: &str, home: &Path) -> Command {
        let words = self.words(program);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("HOME", home);
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::piped());
        command
    }

    /// The same in a mount namespace of its own, where the share is a small tmpfs.
    fn command_with_tmpfs(&self, program: &str, home: &Path, bytes: u64) -> Command {
        let mut command = Command::new("unshare");
        if !self.other {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        let mount = format!(
            "mount -t tmpfs -o size={bytes},mode=0777 tmpfs \"$0/share\" && exec {} \"$@\"",
            self.words(program).join(" ")
        );
        command.args(["--mount", "sh", "-c", &mount]).arg(home);
        command
            .env("HOME", home)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// The server with the configuration below `root`, perhaps with a small tmpfs as its share.
    fn smbd(&self, root: &Path, tmpfs: Option<u64>) -> Command {
        let mut smbd = match tmpfs {
            None => self.command("smbd", root),
            Some(bytes) => self.command_with_tmpfs("smbd", root, bytes),
        };
        // smbd makes a session of its own and fails if it is the leader of a group already. With
        // --no-process-group it would take the test's own group with it when it ends.
        smbd.arg("--foreground").arg("-l").arg(root.join("log"));
        smbd.arg("-s").arg(root.join("smb.conf"));
        smbd.stdin(Stdio::null());
        smbd.stdout(fs::File::create(root.join("log/stdout")).unwrap());
        smbd.stderr(fs::File::create(root.join("log/stderr")).unwrap());
        smbd
    }

    fn words(&self, program: &str) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned()];
        if self.other {
            words.push(format!("--reuid={}", self.uid));
            words.push(format!("--regid={}", self.gid));
            words.push("--clear-groups".into());
        } else {
            words.push("--inh-caps=-all".into());
        }
        words.push(program.into());
        words
    }
}

fn fed(mut command: Command, input: &str) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}
