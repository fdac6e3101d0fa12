//! `vm-data/ce-agent-config` in the xenstore, which XenServer fills from a VM's `xenstore-data`.
//!
//! A node of the xenstore holds some 2 KiB, so that what is longer goes on in
//! `vm-data/ce-agent-config.1`, `.2` and so on. The guest may write below `vm-data`.
//!
//! The xenstore is asked through `/dev/xen/xenbus` in its own words (`xen/include/public/io/xs_wire.h`
//! and `docs/misc/xenstore.txt` of Xen): a header of four numbers of 32 bits, of the machine's byte
//! order, and at most 4096 bytes. Nothing but reading and writing a node is spoken here; watches and
//! transactions are not.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zeroize::Zeroizing;

use super::token::{UsedToken, Writable};
use super::user_data::look_into;
use super::{BootstrapError, Look, Place};

/// The configuration in the xenstore.
pub(super) fn find(place: &Place) -> Result<Look, BootstrapError> {
    let device = place.root.join(DEVICE);
    let file = match open(&device) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Look::PassedOver(format!(
                "the xenstore: there is no {}; is the module xen-xenbus-frontend loaded?",
                device.display()
            )));
        }
        Err(source) => return Err(unusable(XenstoreError::Device(source))),
    };
    let (text, parts) = in_time(PATIENCE, move || read_parts(&mut Store::new(file)))?;
    let look = look_into(ORIGIN, text)?;
    let Look::Found(mut found) = look else {
        return Ok(look);
    };
    found.used_token = UsedToken::of(&found.text, Parts { device, parts });
    Ok(Look::Found(found))
}

/// Why the xenstore can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum XenstoreError {
    /// It can't be reached.
    #[error("the device of the xenstore can't be used")]
    Device(#[source] io::Error),
    /// It says that something does not go.
    #[error("the xenstore says {name} of {path}")]
    Refused {
        /// The node.
        path: String,
        /// The name of the error, `EACCES`.
        name: String,
    },
    /// It says what it should not.
    #[error("the xenstore answers {path} with {problem}")]
    Protocol {
        /// The node.
        path: String,
        /// What it says.
        problem: &'static str,
    },
    /// There is no end to it.
    #[error("the xenstore has more than {MOST_PARTS} parts of a configuration")]
    TooMuch,
}

/// Where the configuration lies, and how long its parts are.
#[derive(Debug)]
struct Parts {
    device: PathBuf,
    parts: Vec<usize>,
}

impl Writable for Parts {
    fn replace(&self, text: &str) -> Result<(), BootstrapError> {
        let file = open(&self.device).map_err(|error| unusable(XenstoreError::Device(error)))?;
        let text = Zeroizing::new(text.to_owned());
        let parts = self.parts.clone();
        in_time(PATIENCE, move || {
            write_parts(&mut Store::new(file), &text, &parts)
        })
    }
}

/// All parts in one, and how long each is.
fn read_parts<S: Read + Write>(
    store: &mut Store<S>,
) -> Result<(Zeroizing<Vec<u8>>, Vec<usize>), XenstoreError> {
    let mut parts = Vec::new();
    let mut text = Zeroizing::new(Vec::new());
    while let Some(part) = store.read(&part_name(parts.len()))? {
        parts.push(part.len());
        text.extend_from_slice(&part);
        if parts.len() > MOST_PARTS {
            return Err(XenstoreError::TooMuch);
        }
    }
    Ok((text, parts))
}

/// Puts `text` in the place of parts that were so long; what is left of these becomes empty.
fn write_parts<S: Read + Write>(
    store: &mut Store<S>,
    text: &str,
    parts: &[usize],
) -> Result<(), XenstoreError> {
    let mut rest = text.as_bytes();
    for (number, length) in parts.iter().enumerate() {
        let (part, more) = rest.split_at(rest.len().min(*length));
        store.write(&part_name(number), part)?;
        rest = more;
    }
    Ok(())
}

/// Does `work` on a thread of its own, which is left alone when it takes longer than `patience`: the
/// xenstore is in another machine, and reading the device has no end of its own.
fn in_time<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> Result<T, XenstoreError> + Send + 'static,
) -> Result<T, BootstrapError> {
    let (done, ended) = mpsc::channel();
    let thread = thread::Builder::new().name("ce-xenstore".into());
    thread
        .spawn(move || {
            // Nobody listens any more when it is late.
            let _ = done.send(work());
        })
        .map_err(|error| unusable(XenstoreError::Device(error)))?;
    let late = |_| XenstoreError::Device(ErrorKind::TimedOut.into());
    ended
        .recv_timeout(patience)
        .map_err(late)
        .flatten()
        .map_err(unusable)
}

/// A conversation with the xenstore.
#[derive(Debug)]
struct Store<S> {
    stream: S,
    last_request: u32,
}

impl<S: Read + Write> Store<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            last_request: 0,
        }
    }

    /// What a node holds; `None` if there is no such node.
    fn read(&mut self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, XenstoreError> {
        match self.request(Kind::Read, path, &[]) {
            Ok(content) => Ok(Some(content)),
            Err(XenstoreError::Refused { name, .. }) if name == "ENOENT" => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, path: &str, content: &[u8]) -> Result<(), XenstoreError> {
        let answer = self.request(Kind::Write, path, content)?;
        match answer.starts_with(b"OK") {
            true => Ok(()),
            false => Err(protocol(path, "something else than OK")),
        }
    }

    fn request(
        &mut self,
        kind: Kind,
        path: &str,
        content: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, XenstoreError> {
        self.last_request += 1;
        let length = path.len() + 1 + content.len();
        let header = Header {
            kind: kind as u32,
            request: self.last_request,
            transaction: 0,
            length: u32::try_from(length).unwrap_or(u32::MAX),
        };
        if length > LONGEST_PAYLOAD {
            return Err(protocol(path, "a content that is longer than a message"));
        }
        let mut message = Zeroizing::new(Vec::with_capacity(HEADER + length));
        message.extend_from_slice(&header.to_bytes());
        message.extend_from_slice(path.as_bytes());
        message.push(0);
        message.extend_from_slice(content);
        // The device takes a message in pieces as well.
        self.stream
            .write_all(&message)
            .map_err(XenstoreError::Device)?;
        for _ in 0..MOST_MESSAGES {
            let (header, payload) = self.message(path)?;
            // Messages that nobody asked for are of watches that others left.
            if header.request != self.last_request || header.kind == Kind::WatchEvent as u32 {
                continue;
            }
            return match header.kind {
                found if found == kind as u32 => Ok(payload),
                found if found == Kind::Error as u32 => Err(XenstoreError::Refused {
                    path: path.to_owned(),
                    name: error_name(&payload),
                }),
                _ => Err(protocol(path, "another kind of message")),
            };
        }
        Err(protocol(path, "messages that nobody asked for"))
    }

    fn message(&mut self, path: &str) -> Result<(Header, Zeroizing<Vec<u8>>), XenstoreError> {
        let mut header = [0; HEADER];
        let broken = XenstoreError::Device;
        self.stream.read_exact(&mut header).map_err(broken)?;
        let header = Header::from_bytes(&header);
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if length > LONGEST_PAYLOAD {
            return Err(protocol(path, "more than a message can have"));
        }
        let mut payload = Zeroizing::new(vec![0; length]);
        self.stream.read_exact(&mut payload).map_err(broken)?;
        Ok((header, payload))
    }
}

/// `enum xsd_sockmsg_type`, as far as it is needed.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Read = 2,
    Write = 11,
    WatchEvent = 15,
    Error = 16,
}

/// `struct xsd_sockmsg`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    kind: u32,
    request: u32,
    transaction: u32,
    length: u32,
}

impl Header {
    fn to_bytes(self) -> [u8; HEADER] {
        let numbers = [self.kind, self.request, self.transaction, self.length];
        let mut bytes = [0; HEADER];
        for (place, number) in bytes.as_chunks_mut().0.iter_mut().zip(numbers) {
            *place = number.to_ne_bytes();
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; HEADER]) -> Self {
        let number = |at: usize| u32::from_ne_bytes(bytes.as_chunks().0[at]);
        Self {
            kind: number(0),
            request: number(1),
            transaction: number(2),
            length: number(3),
        }
    }
}

fn open(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(device)
}

/// Paths that do not begin with `/` are below the machine's own.
fn part_name(number: usize) -> String {
    match number {
        0 => NODE.to_owned(),
        _ => format!("{NODE}.{number}"),
    }
}

/// The name of an error, `ENOENT`, without what would spoil a terminal.
fn error_name(payload: &[u8]) -> String {
    let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = name.get(..name.len().min(32)).unwrap_or_default();
    name.escape_ascii().to_string()
}

fn protocol(path: &str, problem: &'static str) -> XenstoreError {
    XenstoreError::Protocol {
        path: path.to_owned(),
        problem,
    }
}

fn unusable(source: XenstoreError) -> BootstrapError {
    BootstrapError::Xenstore(source)
}

/// Below the root.
const DEVICE: &str = "dev/xen/xenbus";

const NODE: &str = "vm-data/ce-agent-config";

const ORIGIN: &str = "vm-data/ce-agent-config in the xenstore";

const HEADER: usize = 16;

/// `XENSTORE_PAYLOAD_MAX`.
const LONGEST_PAYLOAD: usize = 4096;

/// 64 KiB at 2 KiB each.
const MOST_PARTS: usize = 32;

/// Read for one answer.
const MOST_MESSAGES: usize = 64;

/// For all questions together.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
