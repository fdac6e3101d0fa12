//! The boot sector of NTFS, checked before the parser builds on it.

use super::fields::Fields;
use crate::block::{BlockRead, check_range};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::VolumeError;

/// How a volume is divided.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    /// The bytes in a sector, as the boot sector has it: 512 to 4096.
    pub sector_size: u32,
    /// The bytes in a cluster: 512 bytes to 2 MiB.
    pub cluster_size: u32,
    /// The whole clusters of the volume. The spare boot sector lies behind them.
    pub clusters: u64,
    /// The bytes in a record of the master file table: 1024 to 4096, as far as is known.
    pub record_size: u32,
    /// The serial number.
    pub serial: u64,
    /// The cluster where the master file table begins.
    pub table: u64,
}

impl Geometry {
    /// Reads the boot sector of `volume`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotNtfs`] when it is none of NTFS or says what cannot be;
    /// [`VolumeError::Block`].
    pub(super) fn read<D: BlockRead + ?Sized>(volume: &D) -> Result<Self, VolumeError> {
        let not_ntfs = |problem: String| VolumeError::NotNtfs {
            volume: volume.name().to_owned(),
            problem,
        };
        check_range(volume, ByteOffset::ZERO, ByteCount(512))?;
        let mut sector = [0; 512];
        volume.read_at(ByteOffset::ZERO, &mut sector)?;
        let geometry = parse(Fields(&sector)).map_err(not_ntfs)?;
        let size = u128::from(geometry.clusters) * u128::from(geometry.cluster_size);
        if size > u128::from(volume.size().0) {
            return Err(not_ntfs(format!(
                "it claims {} clusters of {} bytes, but the partition has {}",
                geometry.clusters,
                geometry.cluster_size,
                volume.size()
            )));
        }
        Ok(geometry)
    }

    /// The bytes in all clusters.
    pub fn size(&self) -> ByteCount {
        // `read` has checked that they lie in the partition.
        ByteCount(self.clusters * u64::from(self.cluster_size))
    }
}

fn parse(sector: Fields<'_>) -> Result<Geometry, String> {
    // The sector has 512 bytes, and every field below lies in it.
    let u16 = |at| sector.u16(at).unwrap_or_default();
    let u64 = |at| sector.u64(at).unwrap_or_default();
    let byte = |at| sector.u8(at).unwrap_or_default();
    let oem = sector.bytes(3).unwrap_or([0; 8]);
    if &oem != b"NTFS    " {
        let found = oem.escape_ascii();
        return Err(format!(
            "its mark is {found:?}, expected \"NTFS    \"",
            found = found.to_string()
        ));
    }
    if u16(510) != 0xAA55 {
        return Err(format!("it ends in {:#06x}, expected 0xaa55", u16(510)));
    }
    let sector_size = u32::from(u16(11));
    if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
        return Err(format!(
            "sectors of {sector_size} bytes, expected 512 to 4096"
        ));
    }
    let per_cluster = match byte(13) {
        small @ 1..=128 if small.is_power_of_two() => u32::from(small),
        // Above 64 KiB clusters, the byte holds the negative binary logarithm.
        large @ 0xF4..=0xFF => 1 << (256 - u32::from(large)),
        other => {
            return Err(format!(
                "{other} sectors in a cluster, expected a power of two"
            ));
        }
    };
    let cluster_size = sector_size * per_cluster;
    if cluster_size > MAX_CLUSTER {
        return Err(format!(
            "clusters of {cluster_size} bytes, expected at most {MAX_CLUSTER}"
        ));
    }
    let clusters = u64(40) / u64::from(per_cluster);
    if clusters == 0 || u64(48) >= clusters {
        let table = u64(48);
        return Err(format!(
            "the master file table at cluster {table}, expected one of {clusters}"
        ));
    }
    let record_size = match byte(64) {
        exponent @ 0x80..=0xFF if (10..=12).contains(&(256 - u32::from(exponent))) => {
            Some(1 << (256 - u32::from(exponent)))
        }
        count @ 1..=0x7F => cluster_size.checked_mul(count.into()),
        _ => None,
    };
    let record_size = record_size
        .filter(|size| (1024..=4096).contains(size) && size.is_power_of_two())
        .ok_or_else(|| {
            format!(
                "a record size written as {:#04x}, expected 1024 to 4096 bytes",
                byte(64)
            )
        })?;
    Ok(Geometry {
        sector_size,
        cluster_size,
        clusters,
        record_size,
        serial: u64(72),
        table: u64(48),
    })
}

/// The largest cluster of NTFS since Windows 10 1709.
const MAX_CLUSTER: u32 = 2 << 20;
