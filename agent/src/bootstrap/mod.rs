//! Where a daemon finds its configuration.
//!
//! ```text
//!  --config FILE --> kernel command line (ce.config=FILE) --> /etc/ce-agent/config.toml --> nothing
//! ```
//!
//! Each source says `Ok(None)` if it is not here, and an error if it is here but broken: a daemon
//! that was told something does not go on with something else. The channels of the platforms take
//! their places between the kernel's command line and the file.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::job::journal::{JournalError, read_bounded};

mod command_line;

/// A configuration as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Where, for messages.
    pub origin: String,
    /// TOML. There may be a token in it.
    pub text: Zeroizing<String>,
}

/// Why a source can't be used although it is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum BootstrapError {
    /// A file that was named is not there.
    #[error("{origin} names {path}, and there is no such file")]
    Missing {
        /// Who named it.
        origin: &'static str,
        /// Which.
        path: PathBuf,
    },
    /// It can't be read.
    #[error(transparent)]
    Unreadable(#[from] JournalError),
}

/// A place where a configuration may be.
type Source = fn() -> Result<Option<Found>, BootstrapError>;

/// The configuration: the file `named` on the command line, or from the first source that has one.
///
/// # Errors
///
/// A source has one that can't be read.
pub(crate) fn find(named: Option<&Path>) -> Result<Option<Found>, BootstrapError> {
    if let Some(path) = named {
        return named_file("--config", path).map(Some);
    }
    for source in SOURCES {
        if let Some(found) = source()? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn default_file() -> Result<Option<Found>, BootstrapError> {
    file(Path::new(DEFAULT_FILE))
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
    Ok(text.map(|text| Found {
        origin: path.display().to_string(),
        text: text.into(),
    }))
}

/// In the order in which they are asked.
const SOURCES: [Source; 2] = [command_line::find, default_file];

const DEFAULT_FILE: &str = "/etc/ce-agent/config.toml";

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
