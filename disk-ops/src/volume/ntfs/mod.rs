//! NTFS, read.
//!
//! ```text
//!  path --> lookup (the volume's own $UpCase) --> FileId
//!                                                   |
//!                                                   v
//!  $MFT --> records --> FileRecord: attributes, whole
//!                                                   |
//!            +--------------------------------------+------------------------+
//!            v                  v                   v                        v
//!        metadata      reparse points      stream (runs, LZNT1)      WOF (XPRESS chunks)
//! ```
//!
//! The `ntfs` crate reads the boot sector, `$UpCase` and names, and compares names. It panics on
//! some hostile records (sizes that it trusts), so that whatever reads the disk with it goes
//! through one guard, which bounds what it may read and turns a panic into an error. Records,
//! content and the tree of a folder's index are read here, for the reasons in `record`, `stream`
//! and `index`.
//!
//! Not read: files compressed with LZX, and encrypted files. Each is refused by name.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ntfs::structured_values::{NtfsFileName, NtfsFileNamespace};
use ntfs::{Ntfs, NtfsAttributeType, NtfsError, UpcaseOrd};

use crate::block::BlockRead;
use crate::units::{ByteCount, ByteOffset};

mod bitlocker;
pub mod blocker;
mod fields;
mod file;
pub mod free;
mod geometry;
mod index;
mod logfile;
pub mod lznt1;
pub mod mask;
pub(in crate::volume) mod medium;
pub mod meta;
mod record;
pub mod reparse;
mod runs;
mod stream;
pub mod write;
pub mod xpress;

pub use file::FileReader;
pub use geometry::Geometry;

use self::fields::Fields;
use self::index::{Index, Stop};
use self::medium::Medium;
use self::meta::{
    DirectoryEntry, FileAttributes, FileId, FileMeta, HardLink, Storage, WindowsTime,
};
use self::record::{FileRecord, RawRecord, assemble, listed_records};
use self::reparse::Reparse;
use self::runs::Run;
use self::stream::{Encoding, Place, Stream, check_limit};
use super::{VolumeError, WinPath};

/// An NTFS volume on a disk or in a partition (a [`Window`](crate::block::Window)).
#[derive(Debug)]
pub struct NtfsVolume<D> {
    disk: D,
    ntfs: Ntfs,
    geometry: Geometry,
    /// The master file table.
    table: Stream,
}

impl<D: BlockRead> NtfsVolume<D> {
    /// Opens the volume that begins with the first byte of `disk`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotNtfs`] when the boot sector is none of NTFS; [`VolumeError::Damaged`] or
    /// [`VolumeError::Structure`] when the master file table or `$UpCase` is unusable;
    /// [`VolumeError::Block`] when the disk cannot be read.
    pub fn open(disk: D) -> Result<Self, VolumeError> {
        let geometry = Geometry::read(&disk)?;
        let ntfs = guard(&disk, METADATA_ALLOWANCE, |medium| {
            let mut ntfs = Ntfs::new(medium)?;
            ntfs.read_upcase_table(medium)?;
            Ok(ntfs)
        })?;
        let mut volume = Self {
            table: table_start(&geometry),
            disk,
            ntfs,
            geometry,
        };
        // As far as its first record tells, and there are the records that tell the rest.
        let first = volume.raw_record(0)?;
        volume.table = volume.table_of(first.beginning(DATA, &volume.geometry))?;
        let table = volume.record(0)?;
        let data = table.attribute(DATA, "").map(|data| data.stream.clone());
        volume.table = volume.table_of(Ok(data))?;
        Ok(volume)
    }

    fn table_of(&self, data: Result<Option<Stream>, String>) -> Result<Stream, VolumeError> {
        let data = data.and_then(|data| data.ok_or_else(|| "has no content".to_owned()));
        data.map_err(|problem| self.damaged("the master file table, record", 0, problem))
    }

    /// How the volume is divided.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The disk or partition that the volume is on.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The label; empty when there is none.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] when the record that holds it is unusable.
    pub fn label(&self) -> Result<String, VolumeError> {
        let record = self.record(VOLUME_RECORD)?;
        let label = record.resident(VOLUME_NAME).unwrap_or_default();
        Ok(Fields(label).utf16(0, label.len()).unwrap_or_default())
    }

    /// Whether there is something at `path`, whatever it is.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata), but for [`VolumeError::NotFound`].
    pub fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        match self.lookup(path) {
            Ok(_) => Ok(true),
            Err(VolumeError::NotFound { .. } | VolumeError::NotAFolder { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What is known about the file or folder at `path`. A reparse point is described, not
    /// followed.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotFound`]; [`VolumeError::NotAFolder`] or [`VolumeError::Reparse`] when the
    /// path leads through something else than folders; others when the volume is damaged or the
    /// disk unreadable.
    pub fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        let record = self.lookup(path)?;
        self.describe(&record)
    }

    /// What is known about the file or folder `id`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotFound`] when the record is no longer that of this file.
    pub fn metadata_of(&self, id: FileId) -> Result<FileMeta, VolumeError> {
        let record = self.record_of(id)?;
        self.describe(&record)
    }

    /// The names in the folder at `path`, in the order of the volume (by upper-case letters).
    /// Short names of files that have a long one are left out; they are in [`FileMeta::names`].
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata), and [`VolumeError::NotAFolder`];
    /// [`VolumeError::TooLarge`] above 64 MiB of index (about half a million names).
    pub fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        let folder = self.lookup(path)?;
        self.list_folder(&folder, &path.to_string())
    }

    /// Opens the content of the file at `path`.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata); [`VolumeError::IsFolder`]; [`VolumeError::Reparse`]
    /// when the file is a link; [`VolumeError::Encrypted`] and [`VolumeError::Unsupported`] when
    /// its content is kept in a way that is not read.
    pub fn open_file(&self, path: &WinPath) -> Result<FileReader<'_, D>, VolumeError> {
        let record = self.lookup(path)?;
        FileReader::open(self, &record, path.to_string())
    }

    /// Opens the alternate data stream `stream` of the file or folder at `path`, as it is kept.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata), and [`VolumeError::NotFound`] without such a stream.
    pub fn open_stream(
        &self,
        path: &WinPath,
        stream: &str,
    ) -> Result<FileReader<'_, D>, VolumeError> {
        let record = self.lookup(path)?;
        FileReader::open_stream(self, &record, stream, format!("{path}:{stream}"))
    }

    /// Reads the whole file at `path`, if it is no longer than `limit`.
    ///
    /// # Errors
    ///
    /// As for [`open_file`](Self::open_file) and [`FileReader::read_at`];
    /// [`VolumeError::TooLarge`].
    pub fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        self.open_file(path)?.read_all(limit)
    }

    /// Every path that leads to the file `id`: one for each name.
    ///
    /// # Errors
    ///
    /// [`VolumeError::Damaged`] when its folders do not lead to the root.
    pub fn paths_of(&self, id: FileId) -> Result<Vec<String>, VolumeError> {
        let record = self.record_of(id)?;
        let mut paths = Vec::new();
        for link in names(&record) {
            let mut names = vec![link.name];
            let mut parent = link.parent;
            while parent.record != ROOT_RECORD {
                if names.len() >= MAX_DEPTH {
                    let problem = format!("{MAX_DEPTH} folders above it do not lead to the root");
                    return Err(self.damaged("file", id.record, problem));
                }
                let folder = self.record_of(parent)?;
                let link = folder_link(&folder).ok_or_else(|| {
                    let problem = "a folder above it has no name".to_owned();
                    self.damaged("file", id.record, problem)
                })?;
                names.push(link.name);
                parent = link.parent;
            }
            names.reverse();
            paths.push(names.join("\\"));
        }
        Ok(paths)
    }

    /// Follows `path` from the root, by the volume's own rules of upper case.
    pub(super) fn lookup(&self, path: &WinPath) -> Result<FileRecord, VolumeError> {
        let mut record = self.record(ROOT_RECORD)?;
        let mut walked = Vec::new();
        for name in path.components() {
            let so_far = || match walked.as_slice() {
                [] => "\\".to_owned(),
                walked => walked.join("\\"),
            };
            if let Some(reparse) = self.reparse_of(&record)? {
                return Err(VolumeError::Reparse {
                    file: so_far(),
                    reparse,
                });
            }
            if !record.is_folder {
                return Err(VolumeError::NotAFolder { file: so_far() });
            }
            let found = self.find(&record, name, &so_far())?;
            walked.push(name);
            let id = found.ok_or_else(|| VolumeError::NotFound {
                file: path.to_string(),
                volume: self.disk.name().to_owned(),
            })?;
            record = self.record_of(id)?;
        }
        Ok(record)
    }

    /// The attributes of the file `id`, if its record still belongs to it.
    pub(super) fn record_of(&self, id: FileId) -> Result<FileRecord, VolumeError> {
        let record = self.record(id.record)?;
        if record.id.sequence != id.sequence {
            let problem = format!(
                "has sequence number {}, expected {}",
                record.id.sequence, id.sequence
            );
            return Err(self.damaged("file record", id.record, problem));
        }
        Ok(record)
    }

    /// The attributes of the file whose base record is `number`.
    pub(super) fn record(&self, number: u64) -> Result<FileRecord, VolumeError> {
        let base = self.raw_record(number)?;
        if !base.is_in_use || base.base != 0 {
            let found = if base.is_in_use {
                "continues another one"
            } else {
                "is not in use"
            };
            return Err(self.damaged(
                "file record",
                number,
                format!("it {found}, expected a file"),
            ));
        }
        let damaged = |problem| self.damaged("file record", number, problem);
        let list = base
            .beginning(ATTRIBUTE_LIST, &self.geometry)
            .map_err(damaged)?;
        let (id, is_folder) = (base.id, base.is_folder);
        let mut records = vec![base];
        if let Some(list) = list {
            let name = format!("attribute list of record {number}");
            let list = list.read_all(&self.disk, &self.geometry, &name, MAX_ATTRIBUTE_LIST)?;
            let mut others = listed_records(&list).map_err(damaged)?;
            others.remove(&number);
            for other in others {
                let other = self.raw_record(other)?;
                let owner = FileId::from_reference(other.base);
                if !other.is_in_use || owner != id {
                    let problem = format!("it belongs to file {owner}, expected {id}");
                    return Err(self.damaged("file record", other.id.record, problem));
                }
                records.push(other);
            }
        }
        let attributes = assemble(&records, &self.geometry).map_err(damaged)?;
        Ok(FileRecord {
            id,
            is_folder,
            attributes,
        })
    }

    fn raw_record(&self, number: u64) -> Result<RawRecord, VolumeError> {
        let mut bytes = vec![0; self.geometry.record_size as usize];
        let at = number.checked_mul(self.geometry.record_size.into());
        let read = at.map(|at| {
            let table = &self.table;
            table.read_at(&self.disk, &self.geometry, "$MFT", at, &mut bytes)
        });
        if read.transpose()? != Some(bytes.len()) {
            let problem = format!("lies behind the {} bytes of the table", self.table.size);
            return Err(self.damaged("file record", number, problem));
        }
        let record = RawRecord::parse(number, bytes);
        record.map_err(|problem| self.damaged("file record", number, problem))
    }

    /// The file `name` in `folder`, which is called `path`.
    fn find(
        &self,
        folder: &FileRecord,
        name: &str,
        path: &str,
    ) -> Result<Option<FileId>, VolumeError> {
        let index = self.index(folder, path)?;
        let found = index.find(|other| name.upcase_cmp(&self.ntfs, &other.name()));
        found.map_err(|stop| self.index_error(folder, stop))
    }

    fn list_folder(
        &self,
        folder: &FileRecord,
        path: &str,
    ) -> Result<Vec<DirectoryEntry>, VolumeError> {
        if let Some(reparse) = self.reparse_of(folder)? {
            return Err(VolumeError::Reparse {
                file: path.to_owned(),
                reparse,
            });
        }
        if !folder.is_folder {
            return Err(VolumeError::NotAFolder {
                file: path.to_owned(),
            });
        }
        let mut listed = Vec::new();
        let walked = self.index(folder, path)?.list(|name, id| {
            if name.namespace() != NtfsFileNamespace::Dos {
                listed.push(directory_entry(&name, id));
            }
        });
        walked.map_err(|stop| self.index_error(folder, stop))?;
        Ok(listed)
    }

    /// The index of `folder`, which is called `path`, with its sizes bounded.
    fn index<'a>(
        &'a self,
        folder: &'a FileRecord,
        path: &'a str,
    ) -> Result<Index<'a, D>, VolumeError> {
        let root = folder.attribute(INDEX_ROOT, INDEX_NAME);
        let root = root.and_then(|root| match &root.stream.place {
            Place::Resident(value) => Some(value.as_slice()),
            Place::Clusters { .. } => None,
        });
        let root = root.ok_or_else(|| {
            let problem = "a folder without an index".to_owned();
            self.damaged("file record", folder.id.record, problem)
        })?;
        let record_size = Fields(root).u32(8).unwrap_or_default();
        if !(512..=64 << 10).contains(&record_size) || !record_size.is_power_of_two() {
            let problem = format!("index records of {record_size} bytes, expected 512 to 65536");
            return Err(self.damaged("$INDEX_ROOT of record", folder.id.record, problem));
        }
        let allocation = folder.attribute(INDEX_ALLOCATION, INDEX_NAME);
        let allocation = allocation.map(|allocation| &allocation.stream);
        let size = ByteCount(allocation.map_or(0, |allocation| allocation.size));
        check_limit(path, size, MAX_INDEX)?;
        Ok(Index {
            volume: &self.disk,
            geometry: &self.geometry,
            root,
            allocation,
            record_size,
            folder: path,
        })
    }

    fn index_error(&self, folder: &FileRecord, stop: Stop) -> VolumeError {
        match stop {
            Stop::Damaged(problem) => {
                self.damaged("index of the folder in record", folder.id.record, problem)
            }
            Stop::Parser(source) => VolumeError::Structure {
                volume: self.disk.name().to_owned(),
                near: self.record_position(folder.id.record),
                source: Box::new(source),
            },
            Stop::Volume(error) => error,
        }
    }

    /// What `record` is, if it is a reparse point.
    pub(super) fn reparse_of(&self, record: &FileRecord) -> Result<Option<Reparse>, VolumeError> {
        let Some(attribute) = record.attribute(REPARSE_POINT, "") else {
            return Ok(None);
        };
        let name = format!("reparse point of record {}", record.id.record);
        let value = attribute
            .stream
            .read_all(&self.disk, &self.geometry, &name, MAX_REPARSE)?;
        Reparse::parse(&value).map(Some).ok_or_else(|| {
            let tag = Fields(&value).u32(0).unwrap_or_default();
            let problem = format!("tag {tag:#010x} with {} malformed bytes", value.len());
            self.damaged("reparse point of record", record.id.record, problem)
        })
    }

    fn describe(&self, record: &FileRecord) -> Result<FileMeta, VolumeError> {
        let information = Fields(record.resident(STANDARD_INFORMATION).unwrap_or_default());
        let time = |at| information.u64(at).map(WindowsTime);
        let (Some(created), Some(modified), Some(changed), Some(accessed), Some(attributes)) =
            (time(0), time(8), time(16), time(24), information.u32(32))
        else {
            let problem = "no $STANDARD_INFORMATION".to_owned();
            return Err(self.damaged("file record", record.id.record, problem));
        };
        let reparse = self.reparse_of(record)?;
        let data = record.attribute(DATA, "");
        let names = names(record);
        Ok(FileMeta {
            id: record.id,
            attributes: FileAttributes::from_volume(attributes, record.is_folder),
            size: ByteCount(data.map_or(0, |data| data.stream.size)),
            allocated: file::allocated(record, reparse.as_ref()),
            created,
            modified,
            changed,
            accessed,
            link_count: u32::try_from(names.len()).unwrap_or(u32::MAX),
            names,
            streams: record
                .all(DATA)
                .filter(|data| !data.name.is_empty())
                .map(|data| data.name.clone())
                .collect(),
            storage: match (&reparse, data.map(|data| data.stream.encoding)) {
                (Some(Reparse::Wof(algorithm)), _) => Storage::Wof(*algorithm),
                (_, Some(Encoding::Lznt1 { .. })) => Storage::Lznt1,
                (_, Some(Encoding::Encrypted)) => Storage::Encrypted,
                (_, Some(Encoding::Plain { is_sparse: true })) => Storage::Sparse,
                _ => Storage::Plain,
            },
            reparse,
        })
    }

    fn damaged(&self, structure: &'static str, record: u64, problem: String) -> VolumeError {
        VolumeError::Damaged {
            volume: self.disk.name().to_owned(),
            structure,
            at: self.record_position(record),
            problem: format!("{record}: {problem}"),
        }
    }

    /// Where record `number` is; the start of the volume, if the table does not have it.
    fn record_position(&self, number: u64) -> ByteOffset {
        let cluster_size = u64::from(self.geometry.cluster_size);
        let at = number.saturating_mul(self.geometry.record_size.into());
        let Place::Clusters { runs, .. } = &self.table.place else {
            return ByteOffset::ZERO;
        };
        let run = runs.get(runs.partition_point(|run| run.end() <= at / cluster_size));
        let position = run.and_then(|run| {
            let within = at - run.first * cluster_size;
            Some(run.cluster? * cluster_size + within)
        });
        ByteOffset(position.unwrap_or_default())
    }
}

/// The first record of the master file table, which tells where the others are.
fn table_start(geometry: &Geometry) -> Stream {
    let size = u64::from(geometry.record_size);
    let clusters = size.div_ceil(geometry.cluster_size.into());
    let run = Run {
        first: 0,
        length: clusters.min(geometry.clusters - geometry.table),
        cluster: Some(geometry.table),
    };
    Stream {
        size,
        allocated: size,
        encoding: Encoding::Plain { is_sparse: false },
        place: Place::Clusters {
            runs: vec![run],
            initialized: size,
        },
    }
}

/// Calls the parser with what it may read of `disk` bounded.
///
/// The parser takes some sizes in records and index records for granted, and panics when they
/// point outside. Nothing that outlives the call is changed by it, hence unwinding is safe.
fn guard<D: BlockRead, T>(
    disk: &D,
    allowance: ByteCount,
    question: impl FnOnce(&mut Medium<'_, D>) -> Result<T, NtfsError>,
) -> Result<T, VolumeError> {
    let mut medium = Medium::new(disk, allowance);
    let answer = catch_unwind(AssertUnwindSafe(|| question(&mut medium)));
    if let Some(failure) = medium.take_failure() {
        return Err(failure.into());
    }
    let damaged = |problem: &str| VolumeError::Damaged {
        volume: disk.name().to_owned(),
        structure: "an NTFS structure near",
        at: medium.position(),
        problem: problem.to_owned(),
    };
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) if medium.is_exhausted() => Err(damaged("it has no end, or is a loop")),
        Ok(Err(source)) => Err(VolumeError::Structure {
            volume: disk.name().to_owned(),
            near: medium.position(),
            source: Box::new(source),
        }),
        Err(_) => Err(damaged("its sizes contradict each other")),
    }
}

fn directory_entry(key: &NtfsFileName, id: FileId) -> DirectoryEntry {
    let attributes = key.file_attributes().bits();
    DirectoryEntry {
        name: key.name().to_string_lossy(),
        id,
        attributes: FileAttributes::from_volume(attributes, key.is_directory()),
        size: ByteCount(key.data_size()),
        modified: WindowsTime(key.modification_time().nt_timestamp()),
    }
}

/// The names of a file, short ones with the long ones that they go with.
fn names(record: &FileRecord) -> Vec<HardLink> {
    const DOS: u8 = 2;
    let mut links: Vec<HardLink> = Vec::new();
    let mut short = Vec::new();
    for attribute in record.all(NtfsAttributeType::FileName as u32) {
        let Place::Resident(value) = &attribute.stream.place else {
            continue;
        };
        let value = Fields(value);
        let name_length = value.u8(64).map(|units| 2 * usize::from(units));
        let name = name_length.and_then(|length| value.utf16(66, length));
        let (Some(parent), Some(namespace), Some(name)) = (value.u64(0), value.u8(65), name) else {
            continue;
        };
        let parent = FileId::from_reference(parent);
        if namespace == DOS {
            short.push((parent, name));
            continue;
        }
        links.push(HardLink {
            parent,
            name,
            short_name: None,
        });
    }
    for (parent, name) in short {
        let mut long = links.iter_mut();
        match long.find(|link| link.parent == parent && link.short_name.is_none()) {
            Some(link) => link.short_name = Some(name),
            None => links.push(HardLink {
                parent,
                name,
                short_name: None,
            }),
        }
    }
    links
}

fn folder_link(folder: &FileRecord) -> Option<HardLink> {
    names(folder).into_iter().next()
}

const STANDARD_INFORMATION: u32 = 0x10;
const ATTRIBUTE_LIST: u32 = 0x20;
const VOLUME_NAME: u32 = 0x60;
const VOLUME_INFORMATION: u32 = 0x70;
const DATA: u32 = 0x80;
const INDEX_ROOT: u32 = 0x90;
const INDEX_ALLOCATION: u32 = 0xA0;
const REPARSE_POINT: u32 = 0xC0;
const INDEX_NAME: &str = "$I30";

const LOGFILE_RECORD: u64 = 2;
const VOLUME_RECORD: u64 = 3;
const ROOT_RECORD: u64 = 5;
const BITMAP_RECORD: u64 = 6;

/// What the parser may read to open a volume: the first records and `$UpCase`.
const METADATA_ALLOWANCE: ByteCount = ByteCount::mib(4);

/// The largest attribute list of NTFS.
const MAX_ATTRIBUTE_LIST: ByteCount = ByteCount(256 << 10);

/// The largest index of a folder that is read.
const MAX_INDEX: ByteCount = ByteCount::mib(64);

/// The largest reparse point (MAXIMUM_REPARSE_DATA_BUFFER_SIZE, MS-FSCC 2.1.2).
const MAX_REPARSE: ByteCount = ByteCount(16 << 10);

/// The most folders above a file: what fits into the longest path.
const MAX_DEPTH: usize = 16_384;

#[cfg(test)]
mod tests;
