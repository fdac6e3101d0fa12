//! Where on which server an image goes: `smb://host[:port]/share/folder/name.vhdx`.

use std::fmt;

use md5::{Digest, Md5};

use crate::sink::name::{LONGEST_NAME, NameProblem, check_name, utf16_length};

/// A server by name and port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SmbServer {
    host: String,
    port: u16,
}

impl SmbServer {
    /// The host name or IPv4 address, as the user wrote it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port, 445 unless another was named.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Shown as it stands in a location: the port only if it is not the usual one.
impl fmt::Display for SmbServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if self.port != USUAL_PORT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// The file an export writes, on a share.
///
/// Nothing in a location is decoded: every character stands for itself. A `%41` in a name is the
/// three characters `%41` and not an `A`, a space is a space, a `#` a `#`. What the library below
/// needs to be encoded is encoded behind this type, once.
///
/// ```
/// use ce_disk::sink::smb::SmbLocation;
///
/// let location = SmbLocation::parse("smb://filer.example/images/2024/web 01.vhdx")?;
/// assert_eq!(location.server().host(), "filer.example");
/// assert_eq!(location.share(), "images");
/// assert_eq!(location.image().to_string(), "2024/web 01.vhdx");
/// assert_eq!(location.partial().to_string(), "2024/web 01.vhdx.partial");
/// # Ok::<(), ce_disk::sink::smb::SmbLocationError>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SmbLocation {
    server: SmbServer,
    share: String,
    image: SmbPath,
}

impl SmbLocation {
    /// Reads a location that ends in a file name.
    ///
    /// # Errors
    ///
    /// [`SmbLocationError`], naming the part that can't be right on any SMB server.
    pub fn parse(text: &str) -> Result<Self, SmbLocationError> {
        let (server, share, path) = split(text)?;
        if path.is_empty() {
            return Err(SmbLocationError::NoFileName);
        }
        let image = SmbPath::new(path)?;
        Ok(Self {
            server,
            share,
            image,
        })
    }

    /// Reads `folder`, a location that ends in a share or a folder, and puts `name` into it.
    ///
    /// # Errors
    ///
    /// As for [`parse`](Self::parse); a `name` with a separator in it is refused.
    pub fn within(folder: &str, name: &str) -> Result<Self, SmbLocationError> {
        let (server, share, path) = split(folder)?;
        if name.contains('/') {
            return Err(refused(name, NameProblem::Separator));
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let image = match path {
            "" => SmbPath::new(name)?,
            path => SmbPath::new(&format!("{path}/{name}"))?,
        };
        Ok(Self {
            server,
            share,
            image,
        })
    }

    /// The server.
    pub fn server(&self) -> &SmbServer {
        &self.server
    }

    /// The share's name.
    pub fn share(&self) -> &str {
        &self.share
    }

    /// The image's final name.
    pub fn image(&self) -> &SmbPath {
        &self.image
    }

    /// The name the image has until it is whole: `<name>.partial`.
    ///
    /// A name that leaves no room for the suffix is cut and told apart by a digest of the whole.
    pub fn partial(&self) -> SmbPath {
        self.image.with_suffix(".partial")
    }

    /// What is known about the partial image, for a resume: `<name>.partial.state`.
    pub fn state(&self) -> SmbPath {
        self.image.with_suffix(".partial.state")
    }

    /// What [`state`](Self::state) is written as before it takes the place of the last one.
    pub(super) fn new_state(&self) -> SmbPath {
        self.state().with_suffix(NEW)
    }
}

/// The location as it was written.
impl fmt::Display for SmbLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "smb://{}/{}/{}", self.server, self.share, self.image)
    }
}

/// A file or folder below the root of a share.
///
/// Every part is a name that Windows accepts, so none leads out of the share, names a device, or
/// changes on its way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SmbPath {
    parts: Vec<String>,
}

impl SmbPath {
    /// Reads a path whose parts are separated by `/`.
    ///
    /// # Errors
    ///
    /// [`SmbLocationError::Name`] for the first part that is refused.
    pub fn new(path: &str) -> Result<Self, SmbLocationError> {
        let parts = path
            .split('/')
            .map(|part| match check_name(part) {
                Ok(()) => Ok(part.to_owned()),
                Err(problem) => Err(refused(part, problem)),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { parts })
    }

    /// The folders on the way to it, outermost first.
    pub fn folders(&self) -> impl Iterator<Item = SmbPath> {
        (1..self.parts.len()).map(|count| SmbPath {
            parts: self.parts.iter().take(count).cloned().collect(),
        })
    }

    /// The path as libsmbclient wants it: each part percent-encoded, with a `/` before it.
    pub(super) fn encoded(&self) -> String {
        self.parts.iter().fold(String::new(), |mut path, part| {
            path.push('/');
            path.push_str(&percent_encoded(part));
            path
        })
    }

    /// The folder it lies in, encoded; empty for the root of the share.
    pub(super) fn encoded_folder(&self) -> String {
        self.folders()
            .last()
            .map_or_else(|| "/".to_owned(), |folder| folder.encoded())
    }

    /// A name beside this one, with `suffix` behind it.
    pub(super) fn with_suffix(&self, suffix: &str) -> SmbPath {
        let mut parts = self.parts.clone();
        if let Some(name) = parts.last_mut() {
            if utf16_length(name) + utf16_length(suffix) > LONGEST_NAME {
                *name = shortened(name, LONGEST_NAME - LONGEST_SUFFIX);
            }
            name.push_str(suffix);
        }
        SmbPath { parts }
    }
}

impl fmt::Display for SmbPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join("/"))
    }
}

/// Why a text is no place for an image on a share.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SmbLocationError {
    /// It does not begin as an SMB location does, or is longer than any path can be.
    #[error("expected smb://host[:port]/share/folder/name")]
    Form,
    /// The host is followed by a user or password. What was found is not repeated.
    #[error("a user name or password has no place in an SMB location")]
    Userinfo,
    /// The host can't be one.
    #[error("`{host}` is not a host name or IPv4 address")]
    Host {
        /// What stood there.
        host: String,
    },
    /// The port can't be one.
    #[error("`{port}` is not a port (1 to 65535)")]
    Port {
        /// What stood there.
        port: String,
    },
    /// The share's name can't be one.
    #[error("`{share}` is not the name of a share")]
    Share {
        /// What stood there.
        share: String,
    },
    /// There is a share and no name of a file on it.
    #[error("the location ends in a share or folder; a file name is missing")]
    NoFileName,
    /// A folder or file can't be called that on an SMB server.
    #[error("the name `{name}` {problem}")]
    Name {
        /// The part of the path.
        name: String,
        /// What is wrong with it, as the rest of a sentence.
        problem: NameProblem,
    },
}

/// The server, the share and the path behind it, which may be empty.
fn split(text: &str) -> Result<(SmbServer, String, &str), SmbLocationError> {
    if text.len() > LONGEST_LOCATION {
        return Err(SmbLocationError::Form);
    }
    let scheme = text.get(..SCHEME.len()).ok_or(SmbLocationError::Form)?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(SmbLocationError::Form);
    }
    let rest = &text[SCHEME.len()..];
    let (authority, rest) = rest.split_once('/').ok_or(SmbLocationError::Form)?;
    if authority.contains('@') {
        return Err(SmbLocationError::Userinfo);
    }
    let (share, path) = rest.split_once('/').unwrap_or((rest, ""));
    check_share(share)?;
    Ok((parse_server(authority)?, share.to_owned(), path))
}

fn parse_server(authority: &str) -> Result<SmbServer, SmbLocationError> {
    // A second colon is an IPv6 address, which libsmbclient's own parser can't read.
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        Some(_) => (authority, None),
        None => (authority, None),
    };
    let sound = (1..=253).contains(&host.len())
        && !host.starts_with(['-', '.'])
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if !sound {
        return Err(SmbLocationError::Host {
            host: host.to_owned(),
        });
    }
    let port =
        match port {
            None => USUAL_PORT,
            Some(text) => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                SmbLocationError::Port {
                    port: text.to_owned(),
                }
            })?,
        };
    Ok(SmbServer {
        host: host.to_owned(),
        port,
    })
}

fn check_share(share: &str) -> Result<(), SmbLocationError> {
    let sound = (1..=80).contains(&utf16_length(share))
        && !share
            .chars()
            .any(|c| c.is_control() || "\"/\\[]:|<>+=;,*?".contains(c))
        && !share.eq_ignore_ascii_case("IPC$")
        && share != "."
        && share != "..";
    if sound {
        Ok(())
    } else {
        Err(SmbLocationError::Share {
            share: share.to_owned(),
        })
    }
}

fn refused(name: &str, problem: NameProblem) -> SmbLocationError {
    SmbLocationError::Name {
        name: name.escape_debug().to_string(),
        problem,
    }
}

/// The beginning of `name` and a digest of the whole, in at most `limit` UTF-16 units.
fn shortened(name: &str, limit: usize) -> String {
    let digest = Md5::digest(name.as_bytes());
    let mut tag = String::from("~");
    for byte in digest.iter().take(8) {
        tag.push_str(&format!("{byte:02x}"));
    }
    let mut short = String::new();
    let mut room = limit.saturating_sub(tag.len());
    for c in name.chars() {
        match room.checked_sub(c.len_utf16()) {
            Some(left) => room = left,
            None => break,
        }
        short.push(c);
    }
    short + &tag
}

/// Every byte that is not a letter, digit, `-`, `.`, `_` or `~` as `%XX`.
pub(super) fn percent_encoded(part: &str) -> String {
    part.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

/// What is put behind the name of a file that is to take the place of another.
pub(super) const NEW: &str = ".new";
const SCHEME: &str = "smb://";
const USUAL_PORT: u16 = 445;
/// Room for the longest suffix that this module puts behind a name (`.partial.state.new`).
const LONGEST_SUFFIX: usize = 18;
/// In bytes. What Linux servers take as a path (`PATH_MAX`); bounds the work on a hostile text.
const LONGEST_LOCATION: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn image(text: &str) -> SmbLocation {
        SmbLocation::parse(text).unwrap()
    }

    #[test]
    fn a_location_is_shown_as_it_was_written() {
        for text in [
            "smb://filer/images/web.vhdx",
            "smb://192.0.2.7:4455/images$/a/b/c d.vhdx",
            "smb://filer/images/Größe 100%/日本.vhdx",
        ] {
            assert_eq!(image(text).to_string(), text);
        }
        assert_eq!(image("SMB://filer/i/a").to_string(), "smb://filer/i/a");
    }

    #[test]
    fn nothing_is_decoded_and_everything_is_encoded_once() {
        let location = image("smb://h/s/a b#c%41/ü.vhdx");
        assert_eq!(location.image().encoded(), "/a%20b%23c%2541/%C3%BC.vhdx");
        assert_eq!(location.image().encoded_folder(), "/a%20b%23c%2541");
        assert_eq!(image("smb://h/s/x").image().encoded_folder(), "/");
    }

    #[test]
    fn names_that_windows_refuses_are_refused_with_the_reason() {
        for (name, reason) in [
            ("..", "leads out"),
            (".", "leads out"),
            ("", "is empty"),
            ("a?b", "has one of"),
            ("a\\..\\b", "has one of"),
            ("stream:$DATA", "has one of"),
            ("tail.", "dot or a space"),
            ("tail ", "dot or a space"),
            ("tab\tbed", "control character"),
            ("CON", "device"),
            ("nul.vhdx", "device"),
            ("com1.tar.gz", "device"),
            ("LPT\u{b9}", "device"),
            ("aux .vhdx", "device"),
        ] {
            let error = SmbLocation::parse(&format!("smb://h/s/{name}/x.vhdx")).unwrap_err();
            assert!(error.to_string().contains(reason), "{name}: {error}");
            assert!(SmbLocation::within("smb://h/s", name).is_err(), "{name}");
        }
        for name in ["CONSOLE", "COM10", "com.vhdx", "a..b", " lead", "%41"] {
            SmbLocation::within("smb://h/s", name).unwrap();
        }
    }

    #[test]
    fn names_of_255_units_are_taken_and_longer_ones_are_not() {
        let long = "x".repeat(255);
        let location = SmbLocation::within("smb://h/s", &long).unwrap();
        assert!(SmbLocation::within("smb://h/s", &format!("{long}x")).is_err());
        let astral = "\u{1F4BE}".repeat(127);
        SmbLocation::within("smb://h/s", &astral).unwrap();
        assert!(SmbLocation::within("smb://h/s", &format!("{astral}xy")).is_err());

        let partial = location.partial().to_string();
        assert!(
            partial.len() <= 255 && partial.ends_with(".partial"),
            "{partial}"
        );
        let other = format!("{}y", "x".repeat(254));
        let other = SmbLocation::within("smb://h/s", &other).unwrap();
        assert_ne!(other.partial(), location.partial());
        let state = location.state().with_suffix(".new").to_string();
        assert!(state.len() <= 255 && state.ends_with(".partial.state.new"));
    }

    #[test]
    fn the_server_the_port_and_the_share_are_checked() {
        use SmbLocationError as E;
        let refused = |text: &str| SmbLocation::parse(text).unwrap_err();
        assert!(matches!(refused("https://h/s/n"), E::Form));
        assert!(matches!(refused("smb://h"), E::Form));
        assert!(matches!(refused("smb://h/s"), E::NoFileName));
        assert!(matches!(refused("smb://h/s/"), E::NoFileName));
        assert!(matches!(refused("smb://h:0/s/n"), E::Port { .. }));
        assert!(matches!(refused("smb://h:66000/s/n"), E::Port { .. }));
        assert!(matches!(refused("smb://[::1]/s/n"), E::Host { .. }));
        assert!(matches!(refused("smb://h%41/s/n"), E::Host { .. }));
        assert!(matches!(refused("smb:///s/n"), E::Host { .. }));
        assert!(matches!(refused("smb://h//n"), E::Share { .. }));
        assert!(matches!(refused("smb://h/ipc$/n"), E::Share { .. }));
        assert!(matches!(refused("smb://h/../n"), E::Share { .. }));
    }

    #[test]
    fn a_password_in_a_location_is_refused_and_not_repeated() {
        let error = SmbLocation::parse("smb://alice:Secret-Pass1@filer/s/n").unwrap_err();
        assert!(!error.to_string().contains("Secret"), "{error}");
        assert!(!format!("{error:?}").contains("Secret"));
    }

    #[test]
    fn a_folder_and_a_name_make_a_location() {
        for folder in ["smb://h/s/a/b", "smb://h/s/a/b/"] {
            let location = SmbLocation::within(folder, "n.vhdx").unwrap();
            assert_eq!(location.image().to_string(), "a/b/n.vhdx");
            let folders: Vec<_> = location.image().folders().map(|f| f.to_string()).collect();
            assert_eq!(folders, ["a", "a/b"]);
        }
        assert!(SmbLocation::within("smb://h/s", "a/b").is_err());
        assert!(SmbLocation::within("smb://h/s/../t", "b").is_err());
    }
}
