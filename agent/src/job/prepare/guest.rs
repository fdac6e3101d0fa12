//! The Windows that is prepared, and the partition that it starts from, opened together.

use ce_disk::block::{BlockError, BlockRead, Window};
use ce_disk::partition::{ContentKind, DiskId, Partition, PartitionTable};
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::ntfs::write::ShortNames;
use ce_disk::volume::{FatVolume, NtfsVolume, VolumeError, WinPath, WindowsVolume, find_windows};
use ce_platform::apply::{PreparedFiles, apply};
use ce_platform::catalog::Preparation;
use ce_platform::hives::{HiveName, HiveSet, LoadedHive};
use ce_platform::inspect::Inspection;
use ce_platform::plan::{BCD, BootVolume, EditPlan, JobOptions, Machine, plan};
use ce_platform::proof::{BootSubject, Proof, Subject};
use ce_platform::streaming::{self, Fitness, Requirements, StreamPlatform, fitness};
use ce_regf::FileTime;
use uuid::Uuid;

use super::super::failure::{apply_failed, plan_failed, volume_failed};
use super::super::{ErrorCode, JobError};
use super::Bundle;

/// Where Windows is on a disk, and where it starts from.
#[derive(Clone, Debug)]
pub(in crate::job) struct Place {
    pub(super) windows: Extent,
    pub(super) folder: WinPath,
    pub(super) boot: Option<Extent>,
    /// The GUIDs by which the boot configuration finds Windows: of the disk, of the partition.
    ids: Option<(Uuid, Uuid)>,
}

/// A partition's bytes.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    start: ByteOffset,
    length: ByteCount,
    name: String,
}

impl Extent {
    /// These bytes, under this name.
    pub(super) fn new(start: ByteOffset, length: ByteCount, name: String) -> Self {
        Self {
            start,
            length,
            name,
        }
    }

    fn of(partition: &Partition) -> Self {
        Self {
            start: partition.start,
            length: partition.length,
            name: format!("partition {}", partition.number),
        }
    }

    /// The same bytes of `disk`.
    pub(super) fn of_disk<D: BlockRead>(&self, disk: D) -> Result<Window<D>, JobError> {
        self.window(disk)
            .map_err(|error| volume_failed(&VolumeError::Block(error)))
    }

    /// The same, with the error as it is.
    pub(super) fn window<D: BlockRead>(&self, disk: D) -> Result<Window<D>, BlockError> {
        Window::new(disk, self.start, self.length, self.name.clone())
    }
}

impl Place {
    /// The folder of Windows.
    pub(super) fn folder(&self) -> &WinPath {
        &self.folder
    }

    /// The number of the partition of Windows in `table`.
    pub(super) fn number(&self, table: &PartitionTable) -> Option<u32> {
        let mut partitions = table.partitions.iter();
        let is_it = |found: &&Partition| {
            (found.start, found.length) == (self.windows.start, self.windows.length)
        };
        let found = partitions.find(is_it)?;
        Some(found.number)
    }

    /// The same with another EFI system partition.
    pub(super) fn with_boot(self, boot: Extent) -> Self {
        Self {
            boot: Some(boot),
            ..self
        }
    }

    /// The one Windows of `disk`, and the first EFI system partition with a boot configuration.
    pub(in crate::job) fn find(
        disk: &dyn BlockRead,
        table: &PartitionTable,
    ) -> Result<Self, JobError> {
        let search = find_windows(&disk, table).map_err(|error| volume_failed(&error))?;
        let [windows] = search.installations.as_slice() else {
            let message = format!("{} installations of Windows", search.installations.len());
            return Err(JobError::new(ErrorCode::MultipleWindows, message));
        };
        let partition_of_windows = table
            .partitions
            .iter()
            .find(|partition| Some(partition.number) == windows.partition);
        let ids = match (table.id, partition_of_windows.and_then(|found| found.id)) {
            (Some(DiskId::Guid(disk)), Some(partition)) => Some((disk, partition)),
            _ => None,
        };
        let mut boot = None;
        for partition in &table.partitions {
            if matches!(partition.content, Some(ContentKind::Fat { .. })) {
                let extent = Extent::of(partition);
                if has_boot_store(&extent.of_disk(disk)?)? {
                    boot = Some(extent);
                    break;
                }
            }
        }
        Ok(Self {
            windows: Extent {
                start: windows.start,
                length: windows.length,
                name: match windows.partition {
                    Some(number) => format!("partition {number}"),
                    None => "the disk".to_owned(),
                },
            },
            folder: windows.folder.clone(),
            boot,
            ids,
        })
    }
}

fn has_boot_store(disk: &Window<&dyn BlockRead>) -> Result<bool, JobError> {
    let store = bcd()?;
    match FatVolume::open(disk).and_then(|volume| volume.exists(&store)) {
        Ok(found) => Ok(found),
        Err(error @ VolumeError::Block(_)) => Err(volume_failed(&error)),
        // A volume of something else, or a damaged one, is not the one.
        Err(_) => Ok(false),
    }
}

fn bcd() -> Result<WinPath, JobError> {
    BCD.parse()
        .map_err(|error| JobError::from_chain(ErrorCode::Internal, &error))
}

/// A Windows with its hives in memory.
pub(in crate::job) struct Guest<'d> {
    place: Place,
    pub(super) volume: NtfsVolume<Window<&'d dyn BlockRead>>,
    pub(super) hives: HiveSet,
    pub(super) inspection: Inspection,
    boot: Option<Boot<'d>>,
}

/// The EFI system partition.
pub(super) struct Boot<'d> {
    volume: FatVolume<Window<&'d dyn BlockRead>>,
    store: LoadedHive,
}

impl Boot<'_> {
    fn as_volume(&self) -> BootVolume<'_> {
        BootVolume {
            volume: &self.volume,
            store: &self.store.hive,
        }
    }
}

impl<'d> Guest<'d> {
    pub(in crate::job) fn open(disk: &'d dyn BlockRead, place: &Place) -> Result<Self, JobError> {
        let volume = NtfsVolume::open(place.windows.of_disk(disk)?);
        let volume = volume.map_err(|error| volume_failed(&error))?;
        let hives = HiveSet::load(&volume, &place.folder, &HIVES);
        let boot = place.boot.as_ref().map(|extent| {
            let volume = FatVolume::open(extent.of_disk(disk)?);
            let volume = volume.map_err(|error| volume_failed(&error))?;
            let store = LoadedHive::load(&volume, &bcd()?)
                .map_err(|error| JobError::from_chain(ErrorCode::HiveCorrupt, &error))?;
            Ok(Boot { volume, store })
        });
        Ok(Self {
            inspection: Inspection::of(&hives),
            place: place.clone(),
            volume,
            hives,
            boot: boot.transpose()?,
        })
    }

    /// What is to be done. The hives are used up, as for [`carry_out`](Self::carry_out).
    pub(super) fn plan(
        self,
        preparation: &Preparation<'_>,
        options: &JobOptions,
        bundle: &Bundle,
        now: FileTime,
    ) -> Result<EditPlan, JobError> {
        let machine = Machine {
            preparation,
            inspection: &self.inspection,
            volume: &self.volume,
            folder: &self.place.folder,
            boot: self.boot.as_ref().map(Boot::as_volume),
            options,
            bundle: &bundle.packages,
            installers: &bundle.installers,
            now,
        };
        plan(&machine, self.hives).map_err(|error| plan_failed(&error))
    }

    /// The files that are to be written. The hives are used up, so that they are in memory once.
    pub(super) fn carry_out(
        self,
        plan: &EditPlan,
        now: FileTime,
    ) -> Result<PreparedFiles, JobError> {
        let boot = self.boot.as_ref().map(Boot::as_volume);
        let files = apply(plan, self.hives, &self.volume, boot, now);
        files.map_err(|error| apply_failed(&error))
    }

    /// The same without its hives. A proof reads them anew, by another reader: the largest are too large to be
    /// in memory twice.
    pub(super) fn without_hives(self) -> Self {
        Self {
            hives: HiveSet::default(),
            ..self
        }
    }

    /// Whether it boots on the target, read from where it was opened.
    pub(in crate::job) fn proof(&self, preparation: &Preparation<'_>) -> Proof {
        Proof::of(&Subject {
            preparation,
            inspection: &self.inspection,
            volume: &self.volume,
            folder: &self.place.folder,
            boot: self.boot_subject(),
        })
    }

    /// Whether the default entry starts it, read from where it was opened.
    pub(super) fn boot_proof(&self) -> Proof {
        let boot = self.boot_subject();
        Proof::of_boot(&self.inspection, &self.volume, boot.as_ref())
    }

    fn boot_subject(&self) -> Option<BootSubject<'_>> {
        let both = self.boot.as_ref().zip(self.place.ids);
        both.map(|(boot, ids)| BootSubject {
            volume: &boot.volume,
            disk: ids.0,
            windows: ids.1,
        })
    }

    /// Whether it can be streamed.
    pub(in crate::job) fn fitness(
        &self,
        requirements: &Requirements,
        platform: Option<StreamPlatform<'_>>,
    ) -> Result<Fitness, VolumeError> {
        fitness(&streaming::Subject {
            requirements,
            inspection: &self.inspection,
            hives: &self.hives,
            volume: &self.volume,
            folder: &self.place.folder,
            platform,
        })
    }

    /// What Windows does about short names of new files on its volume.
    pub(super) fn short_names(&self) -> ShortNames {
        let setting = || {
            let system = self.hives.hive(HiveName::System)?;
            let set = self.inspection.control_sets.key()?;
            let key = format!(r"{set}\Control\FileSystem");
            let key = system.hive.root().ok()?.subkey(key.as_str()).ok()??;
            key.value("NtfsDisable8dot3NameCreation")
                .ok()??
                .dword()
                .ok()
        };
        // What is not there or cannot be read is as if nothing had been set.
        ShortNames::by_setting(setting())
    }
}

/// What is changed, and what it takes to know which Windows it is.
const HIVES: [HiveName; 4] = [
    HiveName::System,
    HiveName::Software,
    HiveName::Security,
    HiveName::Drivers,
];
