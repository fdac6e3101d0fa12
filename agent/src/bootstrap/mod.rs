//! Where a daemon finds its configuration.
//!
//! ```text
//!  --config FILE --> kernel command line (ce.config=FILE) --> channel of the platform
//!      --> drive that was made for it --> /etc/ce-agent/config.toml --> nothing
//! ```
//!
//! A source that has one which can't be used is an error: a daemon that was told something does not go
//! on with something else. One that is not for us, or does not answer, is passed over with a note. Only
//! the platform that the firmware tells is asked, so nobody waits for a network that is not there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ce_platform::Platform;
use zeroize::Zeroizing;

use crate::host::Firmware;
use crate::job::journal::{JournalError, read_bounded};

mod azure_disc;
mod cloud;
mod command_line;
mod config_drive;
mod drives;
mod guestinfo;
#[cfg(any(debug_assertions, test))]
mod lab;
mod metadata;
mod token;
mod user_data;
mod xenstore;

use drives::DriveError;
use metadata::{MetadataError, Patience, Service};
pub(crate) use token::UsedToken;
use xenstore::XenstoreError;

/// What came of the search.
#[derive(Debug)]
pub(crate) struct Discovery {
    /// The configuration of the first source that has one.
    pub found: Option<Found>,
    /// Why sources before it were passed over, one sentence each.
    pub notes: Vec<String>,
}

/// A configuration as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where, for messages.
    pub origin: String,
    /// TOML. There may be a token in it.
    pub text: Zeroizing<String>,
    /// The token, if the channel that it came by can be written.
    pub used_token: Option<UsedToken>,
}

/// Why a source can't be used although it is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BootstrapError {
    /// A drive that was made for us can't be read.
    #[error("{origin}")]
    Drive {
        /// Where.
        origin: String,
        /// What is wrong.
        #[source]
        source: DriveError,
    },
    /// What is there can't be a configuration.
    #[error("{origin} {problem}")]
    Garbled {
        /// Where.
        origin: String,
        /// What is wrong with it, as the rest of a sentence.
        problem: &'static str,
    },
    /// VMware does not tell.
    #[error("guestinfo can't be read: {0}")]
    GuestInfo(String),
    /// The metadata service does what it should not.
    #[error("{origin}")]
    Metadata {
        /// What was to be read.
        origin: &'static str,
        /// What is wrong.
        #[source]
        source: MetadataError,
    },
    /// A file that was named is not there.
    #[error("{origin} names {path}, and there is no such file")]
    Missing {
        /// Who named it.
        origin: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// Nobody knows which one counts.
    #[error("there are several drives that configure this machine: {0}")]
    SeveralDrives(String),
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] JournalError),
    /// XenServer does not tell.
    #[error(transparent)]
    Xenstore(XenstoreError),
}

/// What a source says.
#[derive(Debug)]
enum Look {
    /// It has a configuration.
    Found(Found),
    /// It has none, or is not here.
    NotHere,
    /// It has something else, or does not answer. Why, as a sentence.
    PassedOver(String),
}

/// The machine in which is looked.
#[derive(Debug)]
struct Place {
    /// Where its files are.
    root: PathBuf,
    /// Where its metadata service is.
    service: SocketAddr,
    /// How long that is waited for.
    patience: Patience,
}

/// A place where a configuration may be.
type Source = fn(&Place) -> Result<Look, BootstrapError>;

/// The configuration: the file `named` on the command line, or from the first source that has one.
///
/// Blocks while a metadata service is waited for, at most a minute and a half. Not to be called on a
/// thread that turns an asynchronous runtime.
///
/// # Errors
///
/// A source has one that can't be used.
pub(crate) fn find(named: Option<&Path>) -> Result<Discovery, BootstrapError> {
    if let Some(path) = named {
        return Ok(Discovery {
            found: Some(named_file("--config", path)?),
            notes: Vec::new(),
        });
    }
    Place::here().search()
}

impl Place {
    fn here() -> Self {
        Self {
            root: "/".into(),
            service: metadata::SERVICE,
            patience: Patience::default(),
        }
    }

    /// One whose files are below `root`, and where no metadata service answers.
    #[cfg(test)]
    fn in_tests(root: &Path) -> Self {
        use std::time::Duration;
        Self {
            root: root.to_owned(),
            // Nobody serves tcpmux any more.
            service: SocketAddr::from(([127, 0, 0, 1], 1)),
            patience: Patience {
                answer: Duration::from_millis(300),
                silence: Duration::from_millis(600),
                busy: Duration::from_millis(1500),
                first_wait: Duration::from_millis(10),
            },
        }
    }

    fn search(&self) -> Result<Discovery, BootstrapError> {
        let mut notes = Vec::new();
        for source in SOURCES {
            match source(self)? {
                Look::Found(found) => {
                    return Ok(Discovery {
                        found: Some(found),
                        notes,
                    });
                }
                Look::NotHere => {}
                Look::PassedOver(note) => notes.push(note),
            }
        }
        Ok(Discovery { found: None, notes })
    }

    fn platform(&self) -> Option<Platform> {
        Firmware::read(&self.root.join("sys")).platform()
    }

    fn metadata(&self) -> Result<Service, BootstrapError> {
        Service::at(self.service, self.patience).map_err(|source| BootstrapError::Metadata {
            origin: "the metadata service",
            source,
        })
    }
}

impl Found {
    /// One in a channel that can't be written.
    pub(crate) fn at(origin: String, text: Zeroizing<String>) -> Self {
        Self {
            origin,
            text,
            used_token: None,
        }
    }
}

impl From<Option<Found>> for Look {
    fn from(found: Option<Found>) -> Self {
        found.map_or(Self::NotHere, Self::Found)
    }
}

/// What the platform keeps for its machines.
fn platforms_channel(place: &Place) -> Result<Look, BootstrapError> {
    match place.platform() {
        Some(Platform::Aws) => cloud::aws(place),
        Some(Platform::Azure) => cloud::azure(place),
        Some(Platform::Gcp) => cloud::gcp(place),
        Some(Platform::Vsphere) => guestinfo::find(place),
        Some(Platform::Xenserver) => xenstore::find(place),
        // Its channel is a config drive.
        Some(Platform::Nutanix) | None => Ok(Look::NotHere),
    }
}

fn default_file(place: &Place) -> Result<Look, BootstrapError> {
    Ok(file(&place.root.join(DEFAULT_FILE))?.into())
}

/// A file that someone has named has to be there.
fn named_file(origin: &'static str, path: &Path) -> Result<Found, BootstrapError> {
    file(path)?.ok_or_else(|| BootstrapError::Missing {
        origin,
        path: path.to_owned(),
    })
}

fn file(path: &Path) -> Result<Option<Found>, BootstrapError> {
    let text = read_bounded(path, LONGEST_CONFIG)?;
    Ok(text.map(|text| Found::at(path.display().to_string(), text.into())))
}

/// In the order in which they are asked.
const SOURCES: &[Source] = &[
    command_line::find,
    platforms_channel,
    azure_disc::find,
    config_drive::find,
    default_file,
    #[cfg(debug_assertions)]
    lab::fw_cfg,
    #[cfg(debug_assertions)]
    lab::smbios,
];

/// Below the root.
const DEFAULT_FILE: &str = "etc/ce-agent/config.toml";

const LONGEST_CONFIG: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let error = find(Some(Path::new("/nonexistent/x.toml"))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--config names /nonexistent/x.toml, and there is no such file"
        );
    }
}
