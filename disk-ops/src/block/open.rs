//! Opening whatever a path names as the disk that it holds.
//!
//! The content decides, and the name has a veto: a file called `.vhdx` or `.vhd` that is none,
//! because it was cut short, say, is refused, and not exported as a raw disk.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

use ce_vhdx::ImageKind;

use super::file::{Access, open_regular, read_head};
use super::image::format_name;
use super::{BlockRead, Device, ImageFile, OpenError, RawFile, WholeDisk};
use crate::units::SectorSize;

/// How a disk is to be opened. The default is to find out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OpenOptions {
    /// The sector size of a raw file; by default what [`detect_sector_size`] sees, else 512 bytes.
    ///
    /// Devices and images know their own, and ignore this.
    ///
    /// [`detect_sector_size`]: super::detect_sector_size
    pub sector_size: Option<SectorSize>,
    /// Takes a file for a raw disk, whatever it looks like.
    pub as_raw: bool,
}

/// In what a disk was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskKind {
    /// A block device.
    BlockDevice,
    /// A VHDX or VHD file.
    Image(ImageKind),
    /// A file that is the disk, byte for byte.
    RawFile,
}

impl fmt::Display for DiskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockDevice => "block device",
            Self::Image(kind) => format_name(*kind),
            Self::RawFile => "raw file",
        })
    }
}

/// Opens the disk at `path`: a block device, a VHDX, a VHD or a raw file.
///
/// # Errors
///
/// [`OpenError`]; besides those of [`Device::open`], [`ImageFile::open`] and [`RawFile::open`],
/// [`OpenError::ForeignImage`] for an image of another format.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Box<dyn BlockRead>, OpenError> {
    if is_block_device(path)? {
        return Ok(Box::new(Device::open(path)?));
    }
    let (file, metadata) = open_regular(path, Access::Read)?;
    let kind = match options.as_raw {
        true => None,
        false => image_kind(path, &file, metadata.len())?,
    };
    Ok(match kind {
        Some(kind) => Box::new(ImageFile::from_file(path, file, &metadata, kind)?),
        None => {
            let sector_size = options.sector_size;
            let access = Access::Read;
            Box::new(RawFile::from_file(
                path,
                file,
                &metadata,
                sector_size,
                access,
            )?)
        }
    })
}

/// Opens the disk at `path` to be written: a block device or a raw file.
///
/// # Errors
///
/// [`OpenError`]; besides those of [`Device::open_writable`] and [`RawFile::open_writable`],
/// [`OpenError::NeverWritten`] for a VHDX or VHD and [`OpenError::ForeignImage`] for an image of
/// another format.
pub fn open_writable(path: &Path, options: &OpenOptions) -> Result<Box<dyn WholeDisk>, OpenError> {
    if is_block_device(path)? {
        return Ok(Box::new(Device::open_writable(path)?));
    }
    if !options.as_raw {
        // With a descriptor of its own: to be told what it is, an image need not be writable.
        let (file, metadata) = open_regular(path, Access::Read)?;
        if let Some(kind) = image_kind(path, &file, metadata.len())? {
            return Err(OpenError::NeverWritten {
                path: path.to_owned(),
                kind: DiskKind::Image(kind),
            });
        }
    }
    Ok(Box::new(RawFile::open_writable(path, options.sector_size)?))
}

/// In what the disk at `path` would be found by [`open`], without opening it as that.
///
/// # Errors
///
/// [`OpenError`] when there is nothing, or nothing that is a disk.
pub fn probe(path: &Path) -> Result<DiskKind, OpenError> {
    if is_block_device(path)? {
        return Ok(DiskKind::BlockDevice);
    }
    let (file, metadata) = open_regular(path, Access::Read)?;
    let kind = image_kind(path, &file, metadata.len())?;
    Ok(kind.map_or(DiskKind::RawFile, DiskKind::Image))
}

/// Whether two paths name the same file or the same device, links followed.
///
/// A path at which there is nothing is the same as no other.
///
/// # Errors
///
/// What the operating system says when it cannot look one of them up.
pub fn same_file(one: &Path, other: &Path) -> io::Result<bool> {
    let look_up = |path| match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    };
    let (Some(one), Some(other)) = (look_up(one)?, look_up(other)?) else {
        return Ok(false);
    };
    let is_same_node = (one.dev(), one.ino()) == (other.dev(), other.ino());
    // One device can have several nodes.
    let are_devices = one.file_type().is_block_device() && other.file_type().is_block_device();
    Ok(is_same_node || are_devices && one.rdev() == other.rdev())
}

fn is_block_device(path: &Path) -> Result<bool, OpenError> {
    std::fs::metadata(path)
        .map(|metadata| metadata.file_type().is_block_device())
        .map_err(|error| OpenError::from_io(path, "looking it up", error))
}

/// The image format in which `file` has to be opened; `None` for a raw disk.
fn image_kind(path: &Path, file: &File, length: u64) -> Result<Option<ImageKind>, OpenError> {
    let failed = |error| OpenError::from_io(path, "reading its start and end", error);
    let mut start = [0; 512];
    let start_length = read_head(file, &mut start).map_err(failed)?;
    let start = &start[..start_length];
    let mut end = [0; 512];
    let end_length = length.min(512) as usize;
    let end = &mut end[..end_length];
    file.read_exact_at(end, length - end_length as u64)
        .map_err(failed)?;
    if let Some(kind) = ImageKind::of(start, end) {
        return Ok(Some(kind));
    }
    let foreign = FOREIGN
        .iter()
        .find(|(at, mark, _)| start.get(*at..).is_some_and(|tail| tail.starts_with(mark)));
    if let Some((_, _, found)) = foreign {
        return Err(OpenError::ForeignImage {
            path: path.to_owned(),
            found,
        });
    }
    Ok(promised_by_name(path))
}

/// The format that the name of a file promises.
fn promised_by_name(path: &Path) -> Option<ImageKind> {
    let extension = path.extension()?.to_ascii_lowercase();
    match extension.to_str()? {
        "vhdx" | "avhdx" => Some(ImageKind::Vhdx),
        "vhd" | "avhd" => Some(ImageKind::Vhd),
        _ => None,
    }
}

/// Marks of other image formats: where, what, whose.
const FOREIGN: &[(usize, &[u8], &str)] = &[
    (0, b"QFI\xFB", "QCOW"),
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0x40, &[0x7F, 0x10, 0xDA, 0xBE], "VDI"),
];

#[cfg(test)]
mod tests;
