//! The disk inside of a VHDX or VHD file.
//!
//! The formats are those of [`ce_vhdx`]; here they are given their file. Big aligned reads of
//! blocks that lie aligned in the file, as they do in a VHDX, go straight to the caller's memory.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use ce_vhdx::{FileOffset, ImageKind, ReadAt, VhdReader, VhdxReader, VirtualOffset};

use super::file::{Access, open_direct, open_regular};
use super::medium::Medium;
use super::{
    BlockError, BlockRead, Extent, ExtentKind, FileStamp, OpenError, SizeProblem, check_range,
};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// The disk in an open VHDX or VHD file.
#[derive(Debug)]
pub struct ImageFile {
    disk: ImageDisk<ImageMedium>,
    /// As it was when the file was opened.
    stamp: FileStamp,
}

impl ImageFile {
    /// Opens the image of format `kind` at `path`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] as for a raw file, and [`OpenError::Image`] when the file is no image of that
    /// format, a damaged one, or a differencing disk.
    pub fn open(path: &Path, kind: ImageKind) -> Result<Self, OpenError> {
        let (file, metadata) = open_regular(path, Access::Read)?;
        Self::from_file(path, file, &metadata, kind)
    }

    /// As [`open`](Self::open), for a file that `open_regular` has opened.
    pub(super) fn from_file(
        path: &Path,
        file: File,
        metadata: &Metadata,
        kind: ImageKind,
    ) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let length = ByteCount(metadata.len());
        let direct = open_direct(path, metadata, Access::Read);
        let medium = ImageMedium(Medium::new(name.clone(), length, file, direct));
        let failed = |source| OpenError::Image {
            path: path.to_owned(),
            kind: format_name(kind),
            source: Box::new(source),
        };
        let disk = ImageDisk::open(name, kind, medium).map_err(failed)?;
        let (size, sectors) = (disk.size(), disk.sectors());
        if let Some(problem) = SizeProblem::of(size, sectors.logical.bytes()) {
            return Err(OpenError::BadSize {
                path: path.to_owned(),
                problem,
            });
        }
        Ok(Self {
            disk,
            stamp: metadata.into(),
        })
    }

    /// The format of the file.
    pub fn kind(&self) -> ImageKind {
        match self.disk.reader {
            Reader::Vhd(_) => ImageKind::Vhd,
            Reader::Vhdx(_) => ImageKind::Vhdx,
        }
    }
}

impl BlockRead for ImageFile {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        self.disk.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        self.disk.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        self.disk.extent_at(offset)
    }

    fn file_stamp(&self) -> Option<FileStamp> {
        Some(self.stamp)
    }
}

/// The disk in an image, wherever the image's bytes come from.
#[derive(Debug)]
pub(crate) struct ImageDisk<R> {
    name: String,
    size: ByteCount,
    sectors: SectorSizes,
    reader: Reader<R>,
}

#[derive(Debug)]
enum Reader<R> {
    Vhd(VhdReader<R>),
    Vhdx(Box<VhdxReader<R>>),
}

impl<R: ReadAt> ImageDisk<R> {
    /// Opens the image of format `kind` in `file`, to be called `name` in messages.
    pub(crate) fn open(name: String, kind: ImageKind, file: R) -> Result<Self, ce_vhdx::OpenError> {
        let (size, sectors, reader) = match kind {
            ImageKind::Vhdx => {
                let reader = VhdxReader::open(file)?;
                let geometry = reader.geometry();
                let sectors = SectorSizes {
                    logical: geometry.logical_sector(),
                    physical: geometry.physical_sector(),
                };
                let size = geometry.disk_size();
                (size, sectors, Reader::Vhdx(Box::new(reader)))
            }
            ImageKind::Vhd => {
                let reader = VhdReader::open(file)?;
                (reader.disk_size(), SectorSizes::B512, Reader::Vhd(reader))
            }
        };
        Ok(Self {
            name,
            size: ByteCount(size),
            sectors,
            reader,
        })
    }

    fn failed(&self, offset: ByteOffset, length: u64, source: ce_vhdx::ReadError) -> BlockError {
        BlockError::Image {
            disk: self.name.clone(),
            offset,
            length: ByteCount(length),
            source: Box::new(source),
        }
    }
}

impl<R: ReadAt + Send + Sync> BlockRead for ImageDisk<R> {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn sectors(&self) -> SectorSizes {
        self.sectors
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        let length = buffer.len() as u64;
        check_range(self, offset, ByteCount(length))?;
        let position = VirtualOffset(offset.0);
        match &self.reader {
            Reader::Vhd(reader) => reader.read_at(position, buffer),
            Reader::Vhdx(reader) => reader.read_at(position, buffer),
        }
        .map_err(|error| self.failed(offset, length, error))
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let position = VirtualOffset(offset.0);
        let extent = match &self.reader {
            Reader::Vhd(reader) => reader.extent_at(position),
            Reader::Vhdx(reader) => reader.extent_at(position),
        }
        .map_err(|error| self.failed(offset, 1, error))?;
        let kind = match extent {
            ce_vhdx::Extent::Data { .. } => ExtentKind::Data,
            ce_vhdx::Extent::Zero { .. } => ExtentKind::Zero,
        };
        let end = offset.0.saturating_add(extent.length());
        Ok(Extent {
            kind,
            end: ByteOffset(end).min(self.size.end()),
        })
    }
}

/// The file of an image, as `ce-vhdx` reads it.
#[derive(Debug)]
struct ImageMedium(Medium);

impl ReadAt for ImageMedium {
    fn length(&self) -> u64 {
        self.0.size().0
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.0.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.length()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let read = self.0.read_at(ByteOffset(offset.0), buffer);
        read.map_err(|error| match error {
            BlockError::Read { source, .. } => source,
            other => io::Error::new(io::ErrorKind::UnexpectedEof, other),
        })
    }
}

/// What the format is called in a message.
pub(super) fn format_name(kind: ImageKind) -> &'static str {
    match kind {
        ImageKind::Vhd => "VHD",
        ImageKind::Vhdx => "VHDX",
    }
}
