//! What the parent tells the worker to do, and what it answers to the worker's requests.
//!
//! The worker trusts its parent; that these messages are checked all the same costs nothing and
//! shows a mistake where it is made.

use super::super::meta::{FileAttributes, WindowsTime};
use super::edit::{FileTimes, Security, ShortNames, VolumeEdit};
use super::protocol::{Frame, Payload, ProtocolError, put_text};
use crate::volume::WinPath;

/// What the parent says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Command {
    /// Carry out an edit.
    Apply(PlainEdit),
    /// Mount the volume.
    Mount {
        /// Its size in bytes.
        size: u64,
        /// The size of a sector of the disk.
        sector_size: u32,
        /// Whether new files get short names.
        short_names: ShortNames,
    },
    /// Write back everything and end.
    Unmount,
}

/// An edit without the content of a file, of which only the size is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PlainEdit {
    pub kind: EditKind,
    pub path: WinPath,
    pub size: u64,
    pub attributes: Option<FileAttributes>,
    pub times: Option<FileTimes>,
    pub security: Security,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EditKind {
    CreateFolder,
    Delete,
    DeleteTree,
    SetMeta,
    WriteFile,
}

/// What the parent answers to a request.
pub(super) mod reply {
    /// The bytes that were asked for.
    pub const DATA: u16 = 0x101;
    /// It is done.
    pub const FINE: u16 = 0x102;
}

impl PlainEdit {
    pub fn of(edit: &VolumeEdit) -> Self {
        let plain = |kind, path: &WinPath| Self {
            kind,
            path: path.clone(),
            size: 0,
            attributes: None,
            times: None,
            security: Security::Inherit,
        };
        match edit {
            VolumeEdit::CreateFolder { path, security } => Self {
                security: security.clone(),
                ..plain(EditKind::CreateFolder, path)
            },
            VolumeEdit::Delete { path } => plain(EditKind::Delete, path),
            VolumeEdit::DeleteTree { path } => plain(EditKind::DeleteTree, path),
            VolumeEdit::SetMeta {
                path,
                attributes,
                times,
            } => Self {
                attributes: *attributes,
                times: *times,
                ..plain(EditKind::SetMeta, path)
            },
            VolumeEdit::WriteFile(file) => Self {
                size: file.content.size().0,
                attributes: file.attributes,
                times: file.times,
                security: file.security.clone(),
                ..plain(EditKind::WriteFile, &file.path)
            },
        }
    }
}

impl Command {
    pub fn kind(&self) -> u16 {
        match self {
            Self::Mount { .. } => MOUNT,
            Self::Apply(_) => APPLY,
            Self::Unmount => UNMOUNT,
        }
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Mount {
                size,
                sector_size,
                short_names,
            } => {
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&sector_size.to_le_bytes());
                out.push(u8::from(*short_names == ShortNames::Create));
            }
            Self::Unmount => {}
            Self::Apply(edit) => {
                out.push(edit.kind as u8);
                put_text(out, &edit.path.to_string());
                out.extend_from_slice(&edit.size.to_le_bytes());
                let attributes = edit.attributes.map(|attributes| attributes.0);
                out.push(u8::from(attributes.is_some()));
                out.extend_from_slice(&attributes.unwrap_or_default().to_le_bytes());
                out.push(u8::from(edit.times.is_some()));
                if let Some(times) = edit.times {
                    for time in [times.created, times.modified, times.accessed] {
                        out.extend_from_slice(&time.0.to_le_bytes());
                    }
                }
                match &edit.security {
                    Security::Inherit => out.push(0),
                    Security::SameAs(path) => {
                        out.push(1);
                        put_text(out, &path.to_string());
                    }
                }
            }
        }
    }

    pub fn decode(frame: &Frame<'_>) -> Result<Self, ProtocolError> {
        let mut payload = Payload {
            kind: frame.kind,
            rest: frame.payload,
        };
        let command = match frame.kind {
            MOUNT => Self::Mount {
                size: payload.u64("size")?,
                sector_size: payload.u32("sector size")?,
                short_names: match payload.flag("short names")? {
                    true => ShortNames::Create,
                    false => ShortNames::Omit,
                },
            },
            UNMOUNT => Self::Unmount,
            APPLY => Self::Apply(decode_edit(&mut payload)?),
            found => return Err(ProtocolError::Kind { found }),
        };
        payload.end()?;
        Ok(command)
    }
}

fn decode_edit(payload: &mut Payload<'_>) -> Result<PlainEdit, ProtocolError> {
    let kind = match payload.u8("kind of edit")? {
        0 => EditKind::CreateFolder,
        1 => EditKind::Delete,
        2 => EditKind::DeleteTree,
        3 => EditKind::SetMeta,
        4 => EditKind::WriteFile,
        _ => return Err(payload.wrong("kind of edit")),
    };
    let path = payload.path()?;
    let size = payload.u64("size")?;
    let has_attributes = payload.flag("attributes")?;
    let attributes = FileAttributes(payload.u32("attributes")?);
    let times = match payload.flag("times")? {
        false => None,
        true => Some(FileTimes {
            created: WindowsTime(payload.u64("times")?),
            modified: WindowsTime(payload.u64("times")?),
            accessed: WindowsTime(payload.u64("times")?),
        }),
    };
    let security = match payload.flag("security")? {
        false => Security::Inherit,
        true => Security::SameAs(payload.path()?),
    };
    Ok(PlainEdit {
        kind,
        path,
        size,
        attributes: has_attributes.then_some(attributes),
        times,
        security,
    })
}

impl Payload<'_> {
    fn flag(&mut self, field: &'static str) -> Result<bool, ProtocolError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong(field)),
        }
    }

    fn path(&mut self) -> Result<WinPath, ProtocolError> {
        let text = self.text("path", MAX_PATH_BYTES)?;
        text.parse().map_err(|_| self.wrong("path"))
    }
}

const MOUNT: u16 = 0x81;
const APPLY: u16 = 0x82;
const UNMOUNT: u16 = 0x83;

/// The longest path in UTF-8: at most three bytes for each of 32,767 units.
const MAX_PATH_BYTES: usize = 3 * 32_767;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_as_they_were_sent() {
        let path: WinPath = r"Windows\System32\drivers\größe.sys".parse().unwrap();
        let times = FileTimes {
            created: WindowsTime(1),
            modified: WindowsTime(u64::MAX),
            accessed: WindowsTime(3),
        };
        let edit = PlainEdit {
            kind: EditKind::WriteFile,
            path: path.clone(),
            size: 1 << 40,
            attributes: Some(FileAttributes::HIDDEN),
            times: Some(times),
            security: Security::SameAs(path.clone()),
        };
        let mount = |short_names| Command::Mount {
            size: 1 << 36,
            sector_size: 4096,
            short_names,
        };
        let plain = PlainEdit {
            kind: EditKind::Delete,
            size: 0,
            attributes: None,
            times: None,
            security: Security::Inherit,
            ..edit.clone()
        };
        for command in [
            mount(ShortNames::Create),
            mount(ShortNames::Omit),
            Command::Unmount,
            Command::Apply(edit),
            Command::Apply(plain),
        ] {
            let mut payload = Vec::new();
            command.encode(&mut payload);
            let kind = command.kind();
            let decode = |payload: &[u8]| Command::decode(&Frame { kind, payload });
            assert_eq!(decode(&payload).unwrap(), command);
            for cut in 0..payload.len() {
                assert!(decode(&payload[..cut]).is_err(), "{cut}");
            }
            payload.push(0);
            assert!(decode(&payload).is_err());
        }
    }
}
