//! What the parent and the worker say to each other: frames, checked one by one.
//!
//! ```text
//!  0      4         6      8          12       16
//!  +------+---------+------+----------+--------+------------------+
//!  | CENW | version | kind | sequence | length | payload          |
//!  +------+---------+------+----------+--------+------------------+
//!   all little-endian; sequence counts the frames of one side from 0; length is that of the payload
//!
//!  parent                                        worker
//!     | <------------------------- Hello            |   once, when it is confined
//!     | Mount, Apply or Unmount ------------------> |
//!     | <------ Read, Write, Sync or Content        |   as often as it needs
//!     |   Data or Fine ---------------------------> |   one for each
//!     | <-------------------------- Done            |
//! ```
//!
//! Nothing is ever under way in both directions. The parent takes the worker for hostile as soon as
//! it has seen a byte of the disk: a frame is bounded before it is read, and one that is not
//! exactly as described here ends the session.

use std::io::{self, Read, Write};

use super::edit::EditOutcome;

/// What the worker says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Part of the content of the file that is being written is wanted.
    Content {
        /// Where it begins in the content.
        offset: u64,
        /// Its length.
        length: u32,
    },
    /// The command is carried out.
    Done(Answer),
    /// The worker is there.
    Hello {
        /// The version of libntfs-3g.
        library: String,
        /// How it is confined: bits of [`Confinement`](super::Confinement).
        confinement: u32,
    },
    /// Part of the volume is wanted.
    Read {
        /// Where it begins on the volume.
        offset: u64,
        /// Its length.
        length: u32,
    },
    /// What was written has to be durable.
    Sync,
    /// Part of the volume is to be changed.
    Write {
        /// Where it begins on the volume.
        offset: u64,
        /// What is to be there.
        bytes: &'a [u8],
    },
}

/// How a command ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// An edit did this.
    Applied(EditOutcome),
    /// It failed.
    Failed {
        /// What failed.
        step: Step,
        /// The value of `errno`, above 0.
        errno: i32,
        /// What libntfs-3g said about it; may be empty.
        message: String,
    },
    /// The volume is mounted.
    Mounted,
    /// It no longer is.
    Unmounted,
}

/// What the worker was doing when it failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Putting bytes into a file.
    Content,
    /// Making a file or folder.
    Create,
    /// Deleting.
    Delete,
    /// Finding what a path names.
    Lookup,
    /// Setting attributes and times.
    Meta,
    /// Mounting the volume.
    Mount,
    /// Finding or setting a security descriptor.
    Security,
    /// Finding or setting a short name.
    ShortName,
    /// Writing back what the library still held, at the end.
    Unmount,
}

/// A frame as it was received.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The kind of message.
    pub kind: u16,
    /// What belongs to it.
    pub payload: &'a [u8],
}

/// Why what was received is no frame, or no message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// It does not begin as a frame does.
    #[error("a frame begins with {found:02x?}, expected {expected:02x?}")]
    Magic {
        /// Its first bytes.
        found: [u8; 4],
        /// What they have to be.
        expected: [u8; 4],
    },
    /// It is of another version of the protocol.
    #[error("a frame of version {found}, expected {VERSION}")]
    Version {
        /// Its version.
        found: u16,
    },
    /// A frame was lost or made up.
    #[error("frame {found}, expected frame {expected}")]
    Sequence {
        /// Its number.
        found: u32,
        /// The number that was due.
        expected: u32,
    },
    /// It is longer than a frame may be.
    #[error("a frame of {found} bytes, expected at most {MAX_PAYLOAD}")]
    TooLong {
        /// Its length.
        found: u32,
    },
    /// There is no such kind of message, or not at this point.
    #[error("a message of kind {found}, which is not one of those expected here")]
    Kind {
        /// Its kind.
        found: u16,
    },
    /// The payload is not what the kind of message has.
    #[error("a message of kind {kind} whose {field} is wrong or missing")]
    Field {
        /// The kind.
        kind: u16,
        /// The part of it.
        field: &'static str,
    },
}

/// One side of the conversation.
#[derive(Debug)]
pub struct Link<T> {
    transport: T,
    sent: u32,
    received: u32,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

/// Why nothing was received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other side is gone, or something under it failed.
    #[error("the connection between parent and worker broke")]
    Io(#[from] io::Error),
    /// The other side talks nonsense.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl<T> Link<T> {
    /// A conversation over `transport` that has not begun.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            sent: 0,
            received: 0,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// What it runs over.
    pub fn transport(&self) -> &T {
        &self.transport
    }
}

impl<T: Read + Write> Link<T> {
    /// Waits for the next frame.
    ///
    /// # Errors
    ///
    /// [`LinkError`]. The conversation cannot be continued after it.
    pub fn receive(&mut self) -> Result<Frame<'_>, LinkError> {
        let mut header = [0; HEADER];
        self.transport.read_exact(&mut header)?;
        let (kind, length) = parse_header(&header, self.received)?;
        self.received = self.received.wrapping_add(1);
        // Bounded by MAX_PAYLOAD.
        self.incoming.resize(length as usize, 0);
        self.transport.read_exact(&mut self.incoming)?;
        Ok(Frame {
            kind,
            payload: &self.incoming,
        })
    }

    /// Sends a message of `kind`, whose payload `fill` appends.
    ///
    /// # Errors
    ///
    /// That of `fill`, when it fails: nothing is sent then; [`LinkError::Io`].
    pub fn send<E: From<io::Error>>(
        &mut self,
        kind: u16,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&[0; HEADER]);
        fill(&mut self.outgoing)?;
        let length = self.outgoing.len() - HEADER;
        if length > MAX_PAYLOAD as usize {
            return Err(io::Error::other("a frame that is too long to be sent").into());
        }
        // At most MAX_PAYLOAD.
        write_header(&mut self.outgoing, kind, self.sent, length as u32);
        self.sent = self.sent.wrapping_add(1);
        self.transport.write_all(&self.outgoing)?;
        Ok(())
    }
}

fn parse_header(header: &[u8; HEADER], due: u32) -> Result<(u16, u32), ProtocolError> {
    let [
        m0,
        m1,
        m2,
        m3,
        v0,
        v1,
        k0,
        k1,
        s0,
        s1,
        s2,
        s3,
        l0,
        l1,
        l2,
        l3,
    ] = *header;
    let found = [m0, m1, m2, m3];
    if found != MAGIC {
        return Err(ProtocolError::Magic {
            found,
            expected: MAGIC,
        });
    }
    let version = u16::from_le_bytes([v0, v1]);
    if version != VERSION {
        return Err(ProtocolError::Version { found: version });
    }
    let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
    if sequence != due {
        return Err(ProtocolError::Sequence {
            found: sequence,
            expected: due,
        });
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length > MAX_PAYLOAD {
        return Err(ProtocolError::TooLong { found: length });
    }
    Ok((u16::from_le_bytes([k0, k1]), length))
}

fn write_header(frame: &mut [u8], kind: u16, sequence: u32, length: u32) {
    frame[..4].copy_from_slice(&MAGIC);
    frame[4..6].copy_from_slice(&VERSION.to_le_bytes());
    frame[6..8].copy_from_slice(&kind.to_le_bytes());
    frame[8..12].copy_from_slice(&sequence.to_le_bytes());
    frame[12..16].copy_from_slice(&length.to_le_bytes());
}

impl<'a> Request<'a> {
    /// The kind of the frame that carries it.
    pub fn kind(&self) -> u16 {
        match self {
            Self::Hello { .. } => HELLO,
            Self::Read { .. } => READ,
            Self::Write { .. } => WRITE,
            Self::Sync => SYNC,
            Self::Content { .. } => CONTENT,
            Self::Done(_) => DONE,
        }
    }

    /// Appends its payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello {
                library,
                confinement,
            } => {
                out.extend_from_slice(&confinement.to_le_bytes());
                put_text(out, library);
            }
            Self::Read { offset, length } | Self::Content { offset, length } => {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
            }
            Self::Write { offset, bytes } => {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Sync => {}
            Self::Done(answer) => answer.encode(out),
        }
    }

    /// What a frame from the worker says.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::Kind`] and [`ProtocolError::Field`]: every byte of the payload has to be
    /// as [`encode`](Self::encode) makes it.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, ProtocolError> {
        let kind = frame.kind;
        let mut payload = Payload {
            kind,
            rest: frame.payload,
        };
        let request = match kind {
            HELLO => Self::Hello {
                confinement: payload.u32("confinement")?,
                library: payload.text("version", MAX_VERSION)?,
            },
            READ => {
                let (offset, length) = payload.range()?;
                Self::Read { offset, length }
            }
            CONTENT => {
                let (offset, length) = payload.range()?;
                Self::Content { offset, length }
            }
            WRITE => {
                let offset = payload.u64("offset")?;
                let bytes = std::mem::take(&mut payload.rest);
                if bytes.is_empty() || bytes.len() > MAX_TRANSFER as usize {
                    return Err(payload.wrong("length"));
                }
                Self::Write { offset, bytes }
            }
            SYNC => Self::Sync,
            DONE => Self::Done(Answer::decode(&mut payload)?),
            found => return Err(ProtocolError::Kind { found }),
        };
        payload.end()?;
        Ok(request)
    }
}

impl Answer {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mounted => out.push(0),
            Self::Unmounted => out.push(1),
            Self::Applied(outcome) => {
                out.push(2);
                let (code, count) = match outcome {
                    EditOutcome::Unchanged => (0, 0),
                    EditOutcome::Created => (1, 0),
                    EditOutcome::Overwritten => (2, 0),
                    EditOutcome::Replaced => (3, 0),
                    EditOutcome::Changed => (4, 0),
                    EditOutcome::Deleted(count) => (5, *count),
                };
                out.push(code);
                out.extend_from_slice(&count.to_le_bytes());
            }
            Self::Failed {
                step,
                errno,
                message,
            } => {
                out.push(3);
                out.push(step.code());
                out.extend_from_slice(&errno.to_le_bytes());
                put_text(out, message);
            }
        }
    }

    fn decode(payload: &mut Payload<'_>) -> Result<Self, ProtocolError> {
        Ok(match payload.u8("answer")? {
            0 => Self::Mounted,
            1 => Self::Unmounted,
            2 => {
                let (code, count) = (payload.u8("outcome")?, payload.u64("count")?);
                Self::Applied(match (code, count) {
                    (0, 0) => EditOutcome::Unchanged,
                    (1, 0) => EditOutcome::Created,
                    (2, 0) => EditOutcome::Overwritten,
                    (3, 0) => EditOutcome::Replaced,
                    (4, 0) => EditOutcome::Changed,
                    (5, count) => EditOutcome::Deleted(count),
                    _ => return Err(payload.wrong("outcome")),
                })
            }
            3 => {
                let step = Step::from_code(payload.u8("step")?);
                let step = step.ok_or_else(|| payload.wrong("step"))?;
                let errno = i32::from_le_bytes(payload.array("errno")?);
                if !(1..4096).contains(&errno) {
                    return Err(payload.wrong("errno"));
                }
                let message = payload.text("message", MAX_MESSAGE)?;
                Self::Failed {
                    step,
                    errno,
                    message,
                }
            }
            _ => return Err(payload.wrong("answer")),
        })
    }
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Content,
        Self::Create,
        Self::Delete,
        Self::Lookup,
        Self::Meta,
        Self::Mount,
        Self::Security,
        Self::ShortName,
        Self::Unmount,
    ];

    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// What it is, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Content => "writing the content",
            Self::Create => "making the file or folder",
            Self::Delete => "deleting",
            Self::Lookup => "finding it",
            Self::Meta => "setting attributes and times",
            Self::Mount => "opening the volume for writing",
            Self::Security => "setting the security descriptor",
            Self::ShortName => "setting the short name",
            Self::Unmount => "closing the volume",
        }
    }
}

/// What is left to be read of a payload.
pub(super) struct Payload<'a> {
    pub kind: u16,
    pub rest: &'a [u8],
}

impl<'a> Payload<'a> {
    pub fn wrong(&self, field: &'static str) -> ProtocolError {
        ProtocolError::Field {
            kind: self.kind,
            field,
        }
    }

    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ProtocolError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or_else(|| self.wrong(field))?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, ProtocolError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, ProtocolError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, ProtocolError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A position and a length that one frame can carry.
    fn range(&mut self) -> Result<(u64, u32), ProtocolError> {
        let (offset, length) = (self.u64("offset")?, self.u32("length")?);
        if length == 0 || length > MAX_TRANSFER {
            return Err(self.wrong("length"));
        }
        Ok((offset, length))
    }

    pub fn text(&mut self, field: &'static str, limit: usize) -> Result<String, ProtocolError> {
        let length = self.u32(field)? as usize;
        if length > limit || length > self.rest.len() {
            return Err(self.wrong(field));
        }
        let (text, rest) = self.rest.split_at(length);
        let text = std::str::from_utf8(text).map_err(|_| self.wrong(field))?;
        self.rest = rest;
        Ok(text.to_owned())
    }

    pub fn end(&self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.wrong("end"))
    }
}

/// Appends a text with its length in front.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    // Paths and messages are below 2^17 bytes.
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

const MAGIC: [u8; 4] = *b"CENW";

/// The version of the protocol. Parent and worker are the same program, so that there is only one.
const VERSION: u16 = 1;

pub(super) const HEADER: usize = 16;

/// The most bytes of a volume or a content in one frame.
pub const MAX_TRANSFER: u32 = 256 << 10;

/// The longest payload: the longest transfer, or the longest path three times over (UTF-8).
pub const MAX_PAYLOAD: u32 = MAX_TRANSFER + 64;

const MAX_VERSION: usize = 32;

/// The longest message of libntfs-3g that is passed on, in bytes.
pub(super) const MAX_MESSAGE: usize = 512;

const HELLO: u16 = 1;
const READ: u16 = 2;
const WRITE: u16 = 3;
const SYNC: u16 = 4;
const CONTENT: u16 = 5;
const DONE: u16 = 6;

#[cfg(test)]
mod tests;
