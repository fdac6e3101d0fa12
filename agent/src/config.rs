//! The configuration of the daemon: a TOML file, then `CE_*` variables, then options, each over the
//! one before.
//!
//! A field that is misspelt is refused with its line, a variable by its name. No error shows a line
//! of the file: there may be a token on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use ce_disk::discover::DiskSelector;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::bootstrap::Found;
use crate::job::{JobError, RemoteReach};
use crate::session::address::{Address, HostPort, Proxy};

/// What the daemon is told.
#[derive(Debug)]
pub(crate) struct Config {
    /// The Connectors, in the order in which they are tried.
    pub connectors: Vec<Address>,
    /// The authority of their certificates, and of no one else's.
    pub authority: RootCertStore,
    /// An HTTP proxy on the way.
    pub proxy: Option<Proxy>,
    /// A token that is exchanged for a certificate once.
    pub token: Option<SecretString>,
    /// Files with the client certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The agent's name, if it knows it.
    pub agent_id: String,
    /// Where jobs and results are kept.
    pub state: PathBuf,
    /// Where a prepare keeps what is not on the disk yet; why there is no such place, once that is known.
    pub scratch: Result<PathBuf, JobError>,
    /// The disk that is made this place, if there is one.
    pub scratch_disk: Option<DiskSelector>,
    /// Which records are logged, in the words of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// What is run when the Connector asks for the machine to be switched off.
    pub power_off_command: Vec<String>,
    /// What a job may reach.
    pub reach: RemoteReach,
    /// How long a job waits for a disk that is not attached yet.
    pub disk_wait: Duration,
}

/// Options of the command, over everything else.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// `--connector`.
    pub connectors: Vec<String>,
    /// `--ca-file`.
    pub ca_file: Option<PathBuf>,
    /// `--state-dir`.
    pub state: Option<PathBuf>,
    /// `--log`.
    pub log: Option<String>,
}

/// Why the daemon can't be configured. Every problem is told.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", .problems.join("\n"))]
pub(crate) struct ConfigError {
    /// One sentence each.
    pub problems: Vec<String>,
}

/// The file, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    connectors: Option<Vec<String>>,
    ca: Option<String>,
    ca_file: Option<PathBuf>,
    proxy: Option<String>,
    proxy_credentials_file: Option<PathBuf>,
    token: Option<SecretString>,
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    agent_id: Option<String>,
    state: Option<PathBuf>,
    /// Where prepare keeps what it has not committed; the state folder if absent.
    scratch: Option<PathBuf>,
    scratch_disk: Option<ScratchDisk>,
    log: Option<String>,
    power_off_command: Option<Vec<String>>,
    #[serde(default)]
    jobs: Jobs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jobs {
    #[serde(default)]
    smb_hosts: Vec<String>,
    #[serde(default)]
    output_folders: Vec<PathBuf>,
    #[serde(default)]
    disk_folders: Vec<PathBuf>,
    /// In seconds.
    disk_wait: Option<u32>,
}

/// How a disk is named, as in a job.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScratchDisk {
    lun: Option<u64>,
    serial: Option<String>,
    wwid: Option<String>,
    hctl: Option<String>,
    device_name: Option<String>,
}

impl ScratchDisk {
    /// The selector, if there is exactly one.
    fn selector(self) -> Option<DiskSelector> {
        let given = [
            self.lun.map(DiskSelector::Lun),
            self.serial.map(DiskSelector::Serial),
            self.wwid.map(DiskSelector::Wwid),
            self.hctl.map(DiskSelector::Hctl),
            self.device_name.map(DiskSelector::DeviceName),
        ];
        let mut given = given.into_iter().flatten();
        given.next().filter(|_| given.next().is_none())
    }
}

impl Config {
    /// The configuration from what was found, the environment and the options.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub(crate) fn build(
        found: Option<&Found>,
        environment: impl IntoIterator<Item = (String, String)>,
        options: Options,
    ) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut layer = match found.map(Layer::read) {
            None => Layer::default(),
            Some(Ok(layer)) => layer,
            // Without it the rest would only seem to be missing.
            Some(Err(problem)) => {
                return Err(ConfigError {
                    problems: vec![problem],
                });
            }
        };
        layer.apply_environment(environment, &mut problems);
        layer.apply_options(options);
        layer.checked(problems)
    }
}

impl Layer {
    fn read(found: &Found) -> Result<Self, String> {
        toml::from_str(&found.text).map_err(|error: toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = found.text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            // What was found instead may be a secret that lost its quotes.
            let message = match error.message() {
                told if told.starts_with("unknown field") || told.starts_with("duplicate") => told,
                told if told.starts_with("invalid type") => told.split_once("expected").map_or(
                    "a value of the wrong type",
                    |(_, _)| "a value of the wrong type",
                ),
                _ => "this is not TOML",
            };
            format!("{}, line {line}: {message}", found.origin)
        })
    }

    fn apply_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        problems: &mut Vec<String>,
    ) {
        let given: BTreeMap<_, _> = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with("CE_") || name == "STATE_DIRECTORY")
            .collect();
        for (name, value) in given {
            let list = || {
                value
                    .split(',')
                    .map(|part| part.trim().to_owned())
                    .collect()
            };
            match &*name {
                "CE_CONNECTORS" => self.connectors = Some(list()),
                "CE_CA_FILE" => (self.ca, self.ca_file) = (None, Some(value.into())),
                "CE_PROXY" => self.proxy = Some(value),
                "CE_PROXY_CREDENTIALS_FILE" => self.proxy_credentials_file = Some(value.into()),
                "CE_TOKEN" => (self.token, self.token_file) = (Some(value.into()), None),
                "CE_TOKEN_FILE" => (self.token, self.token_file) = (None, Some(value.into())),
                "CE_CLIENT_CERTIFICATE" => self.client_certificate = Some(value.into()),
                "CE_CLIENT_KEY" => self.client_key = Some(value.into()),
                "CE_AGENT_ID" => self.agent_id = Some(value),
                "CE_STATE_DIR" => self.state = Some(value.into()),
                "CE_SCRATCH" => self.scratch = Some(value.into()),
                "CE_POWER_OFF_COMMAND" => {
                    let words = value.split_ascii_whitespace();
                    self.power_off_command = Some(words.map(str::to_owned).collect());
                }
                "CE_LOG" => self.log = Some(value),
                "CE_SMB_HOSTS" => self.jobs.smb_hosts = list(),
                "CE_DISK_WAIT" => match value.parse() {
                    Ok(seconds) => self.jobs.disk_wait = Some(seconds),
                    Err(_) => {
                        problems.push("CE_DISK_WAIT: expected a number of seconds".into());
                    }
                },
                // The folder that systemd has made for its service (systemd.exec(5)); several are divided by
                // colons. Variables come in the order of their names: $CE_STATE_DIR was before this one.
                "STATE_DIRECTORY" => {
                    let only = Some(value).filter(|folder| !folder.contains(':'));
                    self.state = self.state.take().or(only.map(PathBuf::from));
                }
                // Others of that name are none of ours, unless they look like it.
                _ => problems.extend(misspelt(&name)),
            }
        }
    }

    fn apply_options(&mut self, options: Options) {
        if !options.connectors.is_empty() {
            self.connectors = Some(options.connectors);
        }
        if options.ca_file.is_some() {
            (self.ca, self.ca_file) = (None, options.ca_file);
        }
        self.state = options.state.or(self.state.take());
        self.log = options.log.or(self.log.take());
    }

    fn checked(self, mut problems: Vec<String>) -> Result<Config, ConfigError> {
        let mut problem = |field: &str, what: String| problems.push(format!("{field}: {what}"));
        let mut connectors = Vec::new();
        for text in self.connectors.iter().flatten() {
            match text.parse() {
                Ok(address) => connectors.push(address),
                Err(error) => problem("connectors", format!("{error}")),
            }
        }
        if self.connectors.is_none_or(|given| given.is_empty()) {
            problem("connectors", "missing; say where the Connector is".into());
        }
        if connectors.len() > MOST_CONNECTORS {
            problem("connectors", format!("at most {MOST_CONNECTORS} are tried"));
        }
        let authority = authority(self.ca, self.ca_file)
            .map_err(|what| problem("ca", what))
            .unwrap_or_else(|()| RootCertStore::empty());
        let proxy = self.proxy.as_deref().map(HostPort::proxy).transpose();
        let proxy = proxy
            .map_err(|error| problem("proxy", error.to_string()))
            .unwrap_or_default();
        let credentials = self
            .proxy_credentials_file
            .as_deref()
            .map(proxy_credentials);
        let credentials = credentials.transpose().unwrap_or_else(|what| {
            problem("proxy_credentials_file", what);
            None
        });
        if self.proxy_credentials_file.is_some() && self.proxy.is_none() {
            problem(
                "proxy",
                "missing; proxy_credentials_file belongs to it".into(),
            );
        }
        let proxy = proxy.map(|address| Proxy {
            address,
            credentials,
        });
        let client_certificate = match (self.client_certificate, self.client_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => {
                problem(
                    "client_key",
                    "missing; it belongs to client_certificate".into(),
                );
                None
            }
            (None, Some(_)) => {
                problem(
                    "client_certificate",
                    "missing; it belongs to client_key".into(),
                );
                None
            }
        };
        let token = match (self.token, self.token_file) {
            (Some(_), Some(_)) => {
                problem(
                    "token",
                    "there is a token_file as well; say one of them".into(),
                );
                None
            }
            (None, Some(file)) => read_secret(&file)
                .map(Some)
                .map_err(|what| problem("token_file", what))
                .unwrap_or_default(),
            (token, None) => token,
        };
        let agent_id = self.agent_id.unwrap_or_default();
        if !agent_id.is_empty() && !ce_proto::is_valid_id(&agent_id) {
            problem(
                "agent_id",
                "expected 1 to 64 of `a-z A-Z 0-9 . _ -`, not a dot first".into(),
            );
        }
        let state = self.state.or_else(state_folder_of_root);
        if state.is_none() {
            let what = "missing; only root has a default. Say $CE_STATE_DIR or --state-dir";
            problem("state", what.into());
        }
        if self.scratch.is_some() && self.scratch_disk.is_some() {
            problem(
                "scratch",
                "there is a scratch_disk as well; say one of them".into(),
            );
        }
        let names_a_disk = self.scratch_disk.is_some();
        let scratch_disk = self.scratch_disk.and_then(ScratchDisk::selector);
        if names_a_disk && scratch_disk.is_none() {
            let what = "say exactly one of lun, serial, wwid, hctl, device_name";
            problem("scratch_disk", what.into());
        }
        let log = self.log.unwrap_or_else(|| "info".into());
        if let Err(error) = log.parse::<tracing_subscriber::EnvFilter>() {
            problem("log", error.to_string());
        }
        match state {
            Some(state) if problems.is_empty() => Ok(Config {
                connectors,
                authority,
                proxy,
                token,
                client_certificate,
                agent_id,
                scratch: Ok(self.scratch.unwrap_or_else(|| state.clone())),
                scratch_disk,
                state,
                log,
                power_off_command: self.power_off_command.unwrap_or_default(),
                reach: RemoteReach {
                    smb_hosts: self.jobs.smb_hosts,
                    output_folders: self.jobs.output_folders,
                    disk_folders: self.jobs.disk_folders,
                },
                disk_wait: self
                    .jobs
                    .disk_wait
                    .map_or(DISK_WAIT, |seconds| Duration::from_secs(seconds.into())),
            }),
            _ => Err(ConfigError { problems }),
        }
    }
}

/// Where state is kept if nothing else is said: `$CE_STATE_DIR`, the system's folder for root, or
/// the user's own.
pub(crate) fn state_folder() -> Result<PathBuf, JobError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = set("CE_STATE_DIR") {
        return Ok(folder.into());
    }
    if let Some(folder) = state_folder_of_root() {
        return Ok(folder);
    }
    let user = set("XDG_STATE_HOME").map(PathBuf::from);
    // The XDG base directory specification ignores relative paths, and says what the default is.
    let user = user.filter(|path| path.is_absolute());
    let home = || set("HOME").map(|home| Path::new(&home).join(".local/state"));
    let folder = user.or_else(home).map(|folder| folder.join("ce-agent"));
    folder.ok_or_else(|| {
        let problem = "none is known: neither $CE_STATE_DIR nor $XDG_STATE_HOME nor $HOME is set";
        JobError::invalid("--scratch", problem)
    })
}

/// Where state is kept if nothing is said and root asks.
pub(crate) fn state_folder_of_root() -> Option<PathBuf> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| PathBuf::from(STATE_OF_ROOT))
}

/// The pinned CA. There is no other way to trust anyone.
fn authority(text: Option<String>, file: Option<PathBuf>) -> Result<RootCertStore, String> {
    let pem = match (text, file) {
        (Some(_), Some(_)) => return Err("there is a ca_file as well; say one of them".into()),
        (None, None) => {
            return Err("missing; the Connector is trusted by the CA in `ca` or `ca_file`".into());
        }
        (Some(text), None) => text,
        (None, Some(file)) => read_file(&file)?.to_string(),
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| format!("not PEM: {error}"))?;
        let added = store.add(certificate);
        added.map_err(|error| format!("not a CA's certificate: {error}"))?;
    }
    match store.is_empty() {
        true => Err("there is no certificate in it".into()),
        false => Ok(store),
    }
}

/// `user:password`, the user without a colon (RFC 7617, 2).
fn proxy_credentials(file: &Path) -> Result<SecretString, String> {
    let credentials = read_secret(file)?;
    let text = credentials.expose_secret();
    let is_sound = text.contains(':') && !text.contains(|c: char| c.is_control());
    match is_sound {
        true => Ok(credentials),
        false => Err(format!("{}: expected `user:password`", file.display())),
    }
}

/// What is in a file that is closed to others.
fn read_secret(file: &Path) -> Result<SecretString, String> {
    use std::os::unix::fs::PermissionsExt;
    let shown = file.display();
    let facts = fs::metadata(file).map_err(|error| format!("{shown}: {error}"))?;
    let mode = facts.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{shown}: mode {mode:03o} lets others read it; chmod 600"
        ));
    }
    let text = read_file(file)?;
    match text.trim() {
        "" => Err(format!("{shown}: is empty")),
        secret => Ok(secret.into()),
    }
}

fn read_file(file: &Path) -> Result<Zeroizing<String>, String> {
    let text = crate::job::journal::read_bounded(file, LONGEST_FILE);
    match text {
        Ok(Some(text)) => Ok(Zeroizing::new(text)),
        Ok(None) => Err(format!("{}: there is no such file", file.display())),
        Err(error) => Err(format!("{error}")),
    }
}

/// What is said of a variable that is probably meant to be one of ours.
fn misspelt(name: &str) -> Option<String> {
    let ours = VARIABLES
        .into_iter()
        .find(|ours| strsim::damerau_levenshtein(name, ours) <= 2)?;
    Some(format!("${name}: unknown variable; did you mean ${ours}?"))
}

const VARIABLES: [&str; 15] = [
    "CE_AGENT_ID",
    "CE_CA_FILE",
    "CE_CLIENT_CERTIFICATE",
    "CE_CLIENT_KEY",
    "CE_CONNECTORS",
    "CE_DISK_WAIT",
    "CE_LOG",
    "CE_POWER_OFF_COMMAND",
    "CE_PROXY",
    "CE_PROXY_CREDENTIALS_FILE",
    "CE_SCRATCH",
    "CE_SMB_HOSTS",
    "CE_STATE_DIR",
    "CE_TOKEN",
    "CE_TOKEN_FILE",
];

const STATE_OF_ROOT: &str = "/var/lib/ce-agent";

/// Clouds take minutes to attach a disk, and people who look at a job that does nothing have patience for
/// a few.
const DISK_WAIT: Duration = Duration::from_secs(180);

const MOST_CONNECTORS: usize = 16;

const LONGEST_FILE: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn ca() -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.self_signed(&key).unwrap().pem()
    }

    fn file(text: &str) -> Found {
        Found::at("agent.toml".into(), text.to_owned().into())
    }

    fn full() -> Found {
        file(&format!(
            "connectors = ['a.example', 'https://b.example:8443']\nca = '''{}'''\n\
             token = 's3cret'\nstate = '/var/lib/x'\nlog = 'debug'\n\
             [jobs]\nsmb_hosts = ['files.example']\n",
            ca()
        ))
    }

    fn build(found: &Found, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = variables.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        Config::build(Some(found), variables, Options::default())
    }

    #[test]
    fn a_file_is_read_and_overridden_by_variables_and_those_by_options() {
        let config = build(&full(), &[]).unwrap();
        assert_eq!(config.connectors[1].to_string(), "b.example:8443");
        assert_eq!((&*config.log, config.reach.smb_hosts.len()), ("debug", 1));
        assert!(!format!("{config:?}").contains("s3cret"));

        let variables = [
            ("CE_CONNECTORS", "c:1, d:2"),
            ("CE_LOG", "warn"),
            ("CE_POWER_OFF_COMMAND", "/sbin/poweroff --force"),
            ("HOME", "/"),
        ];
        let config = build(&full(), &variables).unwrap();
        assert_eq!(config.power_off_command, ["/sbin/poweroff", "--force"]);
        assert_eq!((config.connectors.len(), &*config.log), (2, "warn"));
        assert_eq!(config.disk_wait, Duration::from_secs(180));
        let config = build(&full(), &[("CE_DISK_WAIT", "0")]).unwrap();
        assert_eq!(config.disk_wait, Duration::ZERO);
        let error = build(&full(), &[("CE_DISK_WAIT", "-1")]).unwrap_err();
        assert!(error.to_string().starts_with("CE_DISK_WAIT: expected"));

        let options = Options {
            connectors: vec!["e:5".into()],
            log: Some("trace".into()),
            ..Options::default()
        };
        let variables = [("CE_CONNECTORS".to_owned(), "c:1".to_owned())];
        let config = Config::build(Some(&full()), variables, options).unwrap();
        assert_eq!(config.connectors[0].to_string(), "e:5");
        assert_eq!(config.log, "trace");
    }

    #[test]
    fn a_scratch_disk_is_named_once_and_beside_no_folder() {
        let with = |more: &str| {
            let text = format!("connectors = ['a']\nca = '''{}'''\n{more}", ca());
            build(&file(&text), &[("CE_STATE_DIR", "/s")])
        };
        let disk = with("[scratch_disk]\nlun = 3\n").unwrap().scratch_disk;
        assert_eq!(disk, Some(DiskSelector::Lun(3)));
        assert_eq!(with("").unwrap().scratch_disk, None);
        for (more, part) in [
            ("[scratch_disk]\n", "exactly one of"),
            ("[scratch_disk]\nlun = 3\nserial = 'x'\n", "exactly one of"),
            (
                "scratch = '/x'\n[scratch_disk]\nlun = 3\n",
                "say one of them",
            ),
            (
                "[scratch_disk]\npath = '/dev/sdb'\n",
                "unknown field `path`",
            ),
        ] {
            let error = with(more).unwrap_err().to_string();
            assert!(error.contains(part), "{more}: {error}");
        }
    }

    #[test]
    fn the_folder_that_systemd_has_made_is_the_default_for_state() {
        let text = format!("connectors = ['a']\nca = '''{}'''\n", ca());
        let state =
            |found: &Found, variables: &[(&str, &str)]| build(found, variables).unwrap().state;
        let made = ("STATE_DIRECTORY", "/var/lib/ce-agent-2");
        assert_eq!(state(&file(&text), &[made]), Path::new(made.1));
        assert_eq!(state(&full(), &[made]), Path::new("/var/lib/x"));
        let said = ("CE_STATE_DIR", "/s");
        assert_eq!(state(&file(&text), &[made, said]), Path::new("/s"));
    }

    #[test]
    fn a_misspelt_field_is_refused_with_its_line_and_nothing_of_the_line() {
        for (text, line, part) in [
            (
                "connectors = []\ntokn = 's3cret'\n",
                2,
                "unknown field `tokn`",
            ),
            (
                "log = 'x'\n[jobs]\nsmb_host = ['s3cret']\n",
                3,
                "unknown field `smb_host`",
            ),
            ("token = s3cret\n", 1, "this is not TOML"),
            ("log = 's3cret\n", 1, "this is not TOML"),
            ("\ntoken = ['s3cret']\n", 2, "a value of the wrong type"),
        ] {
            let error = build(&file(text), &[]).unwrap_err().to_string();
            let start = format!("agent.toml, line {line}: {part}");
            assert!(error.starts_with(&start), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
        let error = build(&full(), &[("CE_CONECTORS", "x")]).unwrap_err();
        assert!(error.to_string().contains("did you mean $CE_CONNECTORS?"));
    }

    #[test]
    fn every_problem_is_told() {
        let text = "connectors = ['http://x']\nproxy = 'p'\nagent_id = '../x'\nlog = 'a=b=c'\n\
                    client_key = '/k'\n";
        let error = build(&file(text), &[("CE_STATE_DIR", "/s")]).unwrap_err();
        let fields: Vec<_> = error
            .problems
            .iter()
            .map(|problem| problem.split(':').next().unwrap())
            .collect();
        assert_eq!(
            fields,
            [
                "connectors",
                "ca",
                "proxy",
                "client_certificate",
                "agent_id",
                "log"
            ]
        );
    }

    #[test]
    fn nobody_is_trusted_without_a_pinned_ca() {
        let error = build(&file("connectors = ['x']\nstate = '/s'\n"), &[]).unwrap_err();
        assert_eq!(error.problems.len(), 1);
        assert!(error.to_string().starts_with("ca: missing"));
        let error = build(&file("connectors = ['x']\nca = 'x'\nstate = '/s'\n"), &[]).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }

    #[test]
    fn a_token_that_others_can_read_is_not_taken() {
        use std::os::unix::fs::PermissionsExt;
        let token = tempfile::NamedTempFile::new().unwrap();
        fs::write(token.path(), "s3cret\n").unwrap();
        let path = token.path().to_str().unwrap();
        let mode = |mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let text = format!("connectors = ['x']\nca = '''{}'''\nstate = '/s'\n", ca());
        let found = file(&text);
        mode(0o644);
        let error = build(&found, &[("CE_TOKEN_FILE", path)]).unwrap_err();
        assert!(error.to_string().contains("chmod 600"));
        mode(0o600);
        assert!(
            build(&found, &[("CE_TOKEN_FILE", path)])
                .unwrap()
                .token
                .is_some()
        );
    }
}
