//! Raw disk images with partition tables and file systems, made without root and without loop
//! devices.
//!
//! Every file system is made in a file of its own and then copied to its place on the disk, holes
//! left holes. The partition tables come from the `gpt` crate or, for MBR, from a few lines here;
//! `sgdisk` says in the tests whether they are right.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types as kind;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde_json::json;
use uuid::Uuid;

use crate::pattern::{MIB, Pattern, write_noise, write_pattern};
use crate::tool::{MCOPY, MKFS_FAT, MKNTFS, MMD, NTFSCP, PYTHON, output_with_input, said};

/// The logical sector size of a disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SectorSize {
    /// 512 bytes.
    #[default]
    B512,
    /// 4096 bytes.
    B4096,
}

/// Which partition table a disk carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Table {
    /// GUID partition table, both copies, with a protective MBR.
    Gpt,
    /// Master boot record; at most four partitions.
    Mbr,
}

/// What a partition says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Windows volume ("basic data"); MBR type 07.
    BasicData,
    /// EFI system partition; MBR type EF.
    EfiSystem,
    /// Microsoft reserved partition; GPT only, MBR type 00 would mean "unused".
    MicrosoftReserved,
    /// Windows recovery environment; MBR type 27.
    Recovery,
}

/// A file to be put on a volume: noise of a seed.
#[derive(Clone, Debug)]
pub struct FileOnVolume {
    /// Path inside the volume with `/`; NTFS takes files of the root folder only.
    pub name: String,
    /// Length in bytes.
    pub length: u64,
    /// Where its content comes from.
    pub seed: u64,
}

/// What stands inside a partition.
#[derive(Clone, Debug)]
pub enum Content {
    /// Nothing was ever written.
    Empty,
    /// A FAT volume made by `mkfs.fat`.
    Fat {
        /// Volume label.
        label: String,
        /// Files, with the folders they need.
        files: Vec<FileOnVolume>,
    },
    /// An NTFS volume made by `mkntfs`.
    Ntfs {
        /// Volume label.
        label: String,
        /// Bytes in a cluster.
        cluster: u32,
        /// Files of the root folder.
        files: Vec<FileOnVolume>,
    },
    /// An NTFS volume made by `mkntfs`, and filled by libntfs-3g.
    NtfsTree {
        /// Volume label.
        label: String,
        /// Bytes in a cluster.
        cluster: u32,
        /// What is done on it, in order.
        steps: Vec<Step>,
    },
    /// A FAT volume made by `mkfs.fat`, with files of any content.
    FatTree {
        /// Volume label.
        label: String,
        /// Files, with the folders they need.
        files: Vec<(String, FileContent)>,
    },
    /// A pattern from the first byte to the last.
    Pattern(Pattern, u64),
}

/// One thing that happens on a volume. Paths have `/`.
#[derive(Clone, Debug)]
pub enum Step {
    /// A folder is made.
    Folder(String),
    /// A file is made, with the folders that it needs.
    File(String, FileContent),
    /// A file is deleted; its content stays where it was until something else is written there.
    Delete(String),
}

/// What is in a file.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Noise of a seed.
    Noise {
        /// Length in bytes.
        length: u64,
        /// Where it comes from.
        seed: u64,
    },
}

impl From<&str> for FileContent {
    fn from(text: &str) -> Self {
        Self::Bytes(text.into())
    }
}

impl From<Vec<u8>> for FileContent {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// Where a partition ended up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Placed {
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// A finished image.
#[derive(Debug)]
pub struct Disk {
    /// The raw file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// The partitions in the order they were asked for.
    pub partitions: Vec<Placed>,
}

/// Describes a disk; [`DiskBuilder::build`] makes it.
#[derive(Debug)]
pub struct DiskBuilder {
    size: u64,
    sector_size: SectorSize,
    table: Option<Table>,
    partitions: Vec<(Role, u64, Content)>,
    patterns: Vec<(Pattern, u64, Placed)>,
}

impl SectorSize {
    /// Bytes in a sector.
    pub fn bytes(self) -> u64 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

impl Role {
    fn gpt_type(self) -> kind::Type {
        match self {
            Self::BasicData => kind::BASIC,
            Self::EfiSystem => kind::EFI,
            Self::MicrosoftReserved => kind::MICROSOFT_RESERVED,
            Self::Recovery => kind::WINDOWS_RECOVERY,
        }
    }

    fn mbr_type(self) -> u8 {
        match self {
            Self::BasicData => 0x07,
            Self::EfiSystem => 0xEF,
            Self::MicrosoftReserved => 0x00,
            Self::Recovery => 0x27,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::BasicData => "Basic data partition",
            Self::EfiSystem => "EFI system partition",
            Self::MicrosoftReserved => "Microsoft reserved partition",
            Self::Recovery => "Recovery",
        }
    }
}

impl FileOnVolume {
    /// A file of noise.
    pub fn new(name: impl Into<String>, length: u64, seed: u64) -> Self {
        Self {
            name: name.into(),
            length,
            seed,
        }
    }
}

impl DiskBuilder {
    /// An empty disk of `size` bytes: one hole.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            sector_size: SectorSize::default(),
            table: None,
            partitions: Vec::new(),
            patterns: Vec::new(),
        }
    }

    /// A disk that is one pattern from end to end.
    pub fn filled(size: u64, pattern: Pattern, seed: u64) -> Self {
        Self::new(size).pattern(pattern, seed, 0, size)
    }

    /// The logical sector size, which partition tables and file systems are made for.
    pub fn sector_size(mut self, sector_size: SectorSize) -> Self {
        self.sector_size = sector_size;
        self
    }

    /// The partition table.
    pub fn table(mut self, table: Table) -> Self {
        self.table = Some(table);
        self
    }

    /// The next partition, on the next MiB boundary; `length` is a multiple of a MiB.
    pub fn partition(mut self, role: Role, length: u64, content: Content) -> Self {
        self.partitions.push((role, length, content));
        self
    }

    /// A pattern on a stretch of the disk, laid before partitions are made.
    pub fn pattern(mut self, pattern: Pattern, seed: u64, offset: u64, length: u64) -> Self {
        self.patterns
            .push((pattern, seed, Placed { offset, length }));
        self
    }

    /// The usual UEFI Windows layout: EFI system partition, reserved partition, NTFS volume,
    /// recovery partition.
    pub fn windows_layout(size: u64, files: Vec<FileOnVolume>) -> Self {
        let (esp, reserved, recovery) = (100 * MIB, 16 * MIB, 32 * MIB);
        let boot = vec![FileOnVolume::new(
            "EFI/Microsoft/Boot/bootmgfw.efi",
            2 * MIB,
            11,
        )];
        let windows = (size / MIB) * MIB - esp - reserved - recovery - 2 * MIB;
        Self::new(size)
            .table(Table::Gpt)
            .partition(
                Role::EfiSystem,
                esp,
                Content::Fat {
                    label: "SYSTEM".into(),
                    files: boot,
                },
            )
            .partition(Role::MicrosoftReserved, reserved, Content::Empty)
            .partition(
                Role::BasicData,
                windows,
                Content::Ntfs {
                    label: "Windows".into(),
                    cluster: 4096,
                    files,
                },
            )
            .partition(
                Role::Recovery,
                recovery,
                Content::Ntfs {
                    label: "Recovery".into(),
                    cluster: 4096,
                    files: Vec::new(),
                },
            )
    }

    /// Makes the image at `path`, which must not exist.
    pub fn build(&self, path: impl Into<PathBuf>) -> Result<Disk> {
        let path = path.into();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .with_context(|| format!("can't create {}", path.display()))?;
        file.set_len(self.size)
            .with_context(|| format!("can't make {} {} bytes long", path.display(), self.size))?;
        for (pattern, seed, place) in &self.patterns {
            write_pattern(&file, *pattern, *seed, place.offset, place.length)?;
        }
        let partitions = self.places()?;
        match self.table {
            Some(Table::Gpt) => self.write_gpt(&file, &partitions)?,
            Some(Table::Mbr) => self.write_mbr(&file, &partitions)?,
            None => ensure!(partitions.is_empty(), "partitions need a partition table"),
        }
        for ((_, _, content), place) in self.partitions.iter().zip(&partitions) {
            self.write_content(&file, content, *place)
                .with_context(|| format!("partition at byte {}", place.offset))?;
        }
        Ok(Disk {
            path,
            size: self.size,
            partitions,
        })
    }

    fn places(&self) -> Result<Vec<Placed>> {
        let mut next = MIB;
        let mut places = Vec::new();
        for (role, length, _) in &self.partitions {
            ensure!(
                length % MIB == 0,
                "{role:?}: {length} bytes is not a whole number of MiB"
            );
            places.push(Placed {
                offset: next,
                length: *length,
            });
            next += length;
        }
        // The second copy of a GPT stands in the last 33 sectors, less than a MiB in all.
        let end = if places.is_empty() { 0 } else { next + MIB };
        ensure!(
            end <= self.size,
            "the partitions need {end} bytes of {}",
            self.size
        );
        Ok(places)
    }

    fn write_gpt(&self, file: &File, places: &[Placed]) -> Result<()> {
        let sector = self.sector_size.bytes();
        let last_sector = self.size / sector - 1;
        let mut device = file.try_clone()?;
        ProtectiveMBR::with_lb_size(u32::try_from(last_sector).unwrap_or(u32::MAX))
            .overwrite_lba0(&mut device)?;
        let block_size = match self.sector_size {
            SectorSize::B512 => LogicalBlockSize::Lb512,
            SectorSize::B4096 => LogicalBlockSize::Lb4096,
        };
        let mut table = GptConfig::new()
            .writable(true)
            .logical_block_size(block_size)
            .create_from_device(device, Some(Uuid::from_u128(DISK_GUID)))?;
        let mut partitions = BTreeMap::new();
        for (number, ((role, _, _), place)) in (1_u32..).zip(self.partitions.iter().zip(places)) {
            partitions.insert(
                number,
                Partition {
                    part_type_guid: role.gpt_type(),
                    part_guid: Uuid::from_u128(DISK_GUID + u128::from(number)),
                    first_lba: place.offset / sector,
                    last_lba: (place.offset + place.length) / sector - 1,
                    flags: 0,
                    name: role.name().to_owned(),
                },
            );
        }
        table.update_partitions(partitions)?;
        table.write()?;
        Ok(())
    }

    fn write_mbr(&self, file: &File, places: &[Placed]) -> Result<()> {
        let types = self.partitions.iter().map(|(role, ..)| role.mbr_type());
        let partitions: Vec<_> = types.zip(places.iter().copied()).collect();
        file.write_all_at(&mbr(&partitions, self.sector_size)?, 0)?;
        Ok(())
    }

    fn write_content(&self, disk: &File, content: &Content, place: Placed) -> Result<()> {
        match content {
            Content::Empty => Ok(()),
            Content::Pattern(pattern, seed) => Ok(write_pattern(
                disk,
                *pattern,
                *seed,
                place.offset,
                place.length,
            )?),
            Content::Fat { label, files } => {
                let scratch = tempfile::tempdir()?;
                let volume = new_volume(scratch.path(), place)?;
                self.make_fat(&volume, label, place)?;
                let mut folders = BTreeSet::new();
                for file in files {
                    let source = write_source(scratch.path(), file)?;
                    put_on_fat(&volume, &source, &file.name, &mut folders)?;
                }
                copy_data(&File::open(volume)?, disk, place.offset)
            }
            Content::FatTree { label, files } => {
                let scratch = tempfile::tempdir()?;
                let volume = new_volume(scratch.path(), place)?;
                self.make_fat(&volume, label, place)?;
                let mut folders = BTreeSet::new();
                for (name, content) in files {
                    let source = scratch.path().join("content");
                    write_content_to(&source, content)?;
                    put_on_fat(&volume, &source, name, &mut folders)?;
                }
                copy_data(&File::open(volume)?, disk, place.offset)
            }
            Content::NtfsTree {
                label,
                cluster,
                steps,
            } => {
                let scratch = tempfile::tempdir()?;
                let volume = new_volume(scratch.path(), place)?;
                self.make_ntfs(&volume, label, *cluster, place)?;
                write_tree(scratch.path(), &volume, steps)?;
                copy_data(&File::open(volume)?, disk, place.offset)
            }
            Content::Ntfs {
                label,
                cluster,
                files,
            } => {
                let scratch = tempfile::tempdir()?;
                let volume = new_volume(scratch.path(), place)?;
                self.make_ntfs(&volume, label, *cluster, place)?;
                for file in files {
                    let source = write_source(scratch.path(), file)?;
                    NTFSCP.run([os("-q"), os("-f"), os(&volume), os(source), os(&file.name)])?;
                }
                copy_data(&File::open(volume)?, disk, place.offset)
            }
        }
    }

    fn make_fat(&self, volume: &Path, label: &str, place: Placed) -> Result<()> {
        let sector = self.sector_size.bytes();
        // A fixed volume id and no time stamps: the same disk every time.
        MKFS_FAT.run([
            os("--invariant"),
            os("-F"),
            os("32"),
            os("-S"),
            os(sector.to_string()),
            os("-h"),
            os((place.offset / sector).to_string()),
            os("-n"),
            os(label),
            os(volume),
        ])?;
        Ok(())
    }

    fn make_ntfs(&self, volume: &Path, label: &str, cluster: u32, place: Placed) -> Result<()> {
        let sector = self.sector_size.bytes();
        MKNTFS.run([
            os("--force"),
            os("--quick"),
            os("--quiet"),
            os("--label"),
            os(label),
            os("--cluster-size"),
            os(cluster.to_string()),
            os("--sector-size"),
            os(sector.to_string()),
            os("--partition-start"),
            os((place.offset / sector).to_string()),
            os("--heads"),
            os("255"),
            os("--sectors-per-track"),
            os("63"),
            os(volume),
        ])?;
        Ok(())
    }
}

/// The stretches of a file that are not holes: first byte, byte after the last.
pub fn data_stretches(file: &File) -> Result<Vec<(u64, u64)>> {
    let mut stretches = Vec::new();
    let mut position = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(position)) {
            Ok(start) => start,
            // There is no more data.
            Err(Errno::NXIO) => return Ok(stretches),
            Err(error) => return Err(error).context("looking for data in a sparse file"),
        };
        position = seek(file, SeekFrom::Hole(start))?;
        stretches.push((start, position));
    }
}

/// Copies what is not a hole in `source` to `target`, moved by `offset`.
fn copy_data(source: &File, target: &File, offset: u64) -> Result<()> {
    let mut buffer = vec![0; MIB as usize];
    for (start, end) in data_stretches(source)? {
        for position in (start..end).step_by(MIB as usize) {
            let part = &mut buffer[..(end - position).min(MIB) as usize];
            source.read_exact_at(part, position)?;
            target.write_all_at(part, offset + position)?;
        }
    }
    Ok(())
}

fn new_volume(scratch: &Path, place: Placed) -> Result<PathBuf> {
    let volume = scratch.join("volume");
    File::create_new(&volume)?.set_len(place.length)?;
    Ok(volume)
}

fn write_source(scratch: &Path, file: &FileOnVolume) -> Result<PathBuf> {
    let source = scratch.join("content");
    write_noise(&File::create(&source)?, file.seed, 0, file.length)?;
    Ok(source)
}

fn write_content_to(path: &Path, content: &FileContent) -> Result<()> {
    match content {
        FileContent::Bytes(bytes) => fs::write(path, bytes)?,
        FileContent::Noise { length, seed } => {
            write_noise(&File::create(path)?, *seed, 0, *length)?
        }
    }
    Ok(())
}

/// Does `steps` on the NTFS volume in a file.
fn write_tree(scratch: &Path, volume: &Path, steps: &[Step]) -> Result<()> {
    let mut folders = BTreeSet::new();
    let mut list = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let path = match step {
            Step::Folder(path) | Step::File(path, _) | Step::Delete(path) => path,
        };
        let above = path
            .match_indices('/')
            .map(|(position, _)| &path[..position]);
        let itself = Some(path.as_str()).filter(|_| matches!(step, Step::Folder(_)));
        for folder in above.chain(itself) {
            if folders.insert(folder.to_lowercase()) {
                list.push(json!({"folder": folder}));
            }
        }
        match step {
            Step::Folder(_) => {}
            Step::File(_, FileContent::Bytes(bytes)) if bytes.is_empty() => {
                list.push(json!({"file": path, "from": null}));
            }
            Step::File(_, content) => {
                let source = scratch.join(format!("content-{number}"));
                write_content_to(&source, content)?;
                list.push(json!({"file": path, "from": source}));
            }
            Step::Delete(_) => list.push(json!({"delete": path})),
        }
    }
    let mut command = PYTHON.command()?;
    command.args([os("-c"), os(include_str!("ntfs_writer.py")), os(volume)]);
    let output = output_with_input(&mut command, serde_json::to_string(&list)?.as_bytes())?;
    ensure!(
        output.status.success(),
        "filling the volume: {}",
        said(&output)
    );
    Ok(())
}

/// Copies a file to the FAT volume in another one, with the folders that `name` needs and that are
/// not among `folders` yet.
fn put_on_fat(
    volume: &Path,
    source: &Path,
    name: &str,
    folders: &mut BTreeSet<String>,
) -> Result<()> {
    for (position, _) in name.match_indices('/') {
        let folder = format!("::{}", &name[..position]);
        if folders.insert(folder.to_lowercase()) {
            MMD.run([os("-i"), os(volume), os(folder)])?;
        }
    }
    let target = format!("::{name}");
    MCOPY.run([os("-o"), os("-i"), os(volume), os(source), os(target)])?;
    Ok(())
}

/// An MBR with these partitions and their types, the first one active.
///
/// # Errors
///
/// There are more than it holds, or one lies where its numbers do not reach.
pub fn mbr(partitions: &[(u8, Placed)], sector_size: SectorSize) -> Result<[u8; 512]> {
    ensure!(
        partitions.len() <= 4,
        "an MBR holds four partitions, not {}",
        partitions.len()
    );
    let sector = sector_size.bytes();
    let mut block = [0_u8; 512];
    block[440..444].copy_from_slice(&MBR_SIGNATURE.to_le_bytes());
    for (number, (kind, place)) in partitions.iter().enumerate() {
        let entry = &mut block[446 + 16 * number..][..16];
        entry[0] = if number == 0 { 0x80 } else { 0x00 };
        // "Too far for cylinders, heads and sectors": the reader takes the sector numbers.
        entry[1..4].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
        entry[4] = *kind;
        entry[5..8].copy_from_slice(&[0xFE, 0xFF, 0xFF]);
        entry[8..12].copy_from_slice(&u32::try_from(place.offset / sector)?.to_le_bytes());
        entry[12..16].copy_from_slice(&u32::try_from(place.length / sector)?.to_le_bytes());
    }
    block[510..].copy_from_slice(&[0x55, 0xAA]);
    Ok(block)
}

fn os(text: impl Into<OsString>) -> OsString {
    text.into()
}

/// The disk's GUID; its partitions' follow it.
const DISK_GUID: u128 = 0x6d5c_1f0e_8a3b_4c27_9e10_52d1_7f3a_0000;

/// By which a BIOS and Windows tell disks with an MBR from others.
pub const MBR_SIGNATURE: u32 = 0x5A17_C0DE;
