//! Device elements: which partition something is on.
//!
//! ```text
//!   0  GUID of additional options, or zeros
//!  16  u32 type: 6 partition; 0 with 3 at 32: a file that is taken for a disk in memory
//!  24  u32 length from 16 on
//!      of a partition:
//!  32  GPT: GUID of the partition         MBR: u64 its first byte, zeros
//!  52  u32 0 GPT, 1 MBR
//!  56  GPT: GUID of the disk              MBR: u32 its signature, zeros
//!      of a file: its partition, laid out from 68 on as from 16 on, then its path
//! ```
//!
//! What is known of it comes from the stores of real machines; Microsoft documents it nowhere.

use uuid::Uuid;

/// A partition of a GPT disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GptPlace {
    /// The GUID of the disk.
    pub disk: Uuid,
    /// The GUID of the partition.
    pub partition: Uuid,
}

impl GptPlace {
    /// The device element for it.
    pub fn element(self) -> Vec<u8> {
        let mut element = vec![0; PARTITION_LENGTH];
        put(&mut element, 16, &PARTITION.to_le_bytes());
        put(&mut element, 24, &DESCRIPTION_LENGTH.to_le_bytes());
        put(&mut element, 32, &self.partition.to_bytes_le());
        put(&mut element, 56, &self.disk.to_bytes_le());
        element
    }
}

/// A partition that a device element names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Device {
    /// On a GPT disk.
    Gpt(GptPlace),
    /// On an MBR disk.
    Mbr {
        /// The signature of the disk.
        signature: u32,
        /// Where on the disk the partition begins, in bytes.
        start: u64,
    },
}

impl Device {
    /// What `element` names, if it is a partition, or a file on one that is taken for a disk.
    pub fn of(element: &[u8]) -> Option<Self> {
        let at = partition_at(element)?;
        match number(element, at + 36)? {
            GPT => Some(Self::Gpt(GptPlace {
                partition: Uuid::from_bytes_le(bytes(element, at + 16)?),
                disk: Uuid::from_bytes_le(bytes(element, at + 40)?),
            })),
            MBR => Some(Self::Mbr {
                start: u64::from_le_bytes(bytes(element, at + 16)?),
                signature: number(element, at + 40)?,
            }),
            _ => None,
        }
    }
}

/// `element` with its partition, which has to be one that `new_place` knows, named as it is named on
/// the new disk.
pub(super) fn moved(
    element: &[u8],
    new_place: impl Fn(Device) -> Option<GptPlace>,
) -> Option<Vec<u8>> {
    let place = new_place(Device::of(element)?)?;
    let at = partition_at(element)?;
    let mut moved = element.to_vec();
    put(&mut moved, at + 16, &place.partition.to_bytes_le());
    put(&mut moved, at + 36, &GPT.to_le_bytes());
    put(&mut moved, at + 40, &place.disk.to_bytes_le());
    Some(moved)
}

/// The GUID of the object with the options of a device.
pub(super) fn options(element: &[u8]) -> Option<Uuid> {
    let options = Uuid::from_bytes_le(bytes(element, 0)?);
    (!options.is_nil()).then_some(options)
}

/// Where the description of the partition begins, which is whole then.
fn partition_at(element: &[u8]) -> Option<usize> {
    let at = match number(element, 16)? {
        PARTITION => 16,
        BLOCK_IO if number(element, 32)? == RAM_DISK && number(element, 64)? == FILE => 68,
        _ => return None,
    };
    let is_whole = element.len() >= at + DESCRIPTION_LENGTH as usize;
    (is_whole && number(element, at)? == PARTITION).then_some(at)
}

fn bytes<const N: usize>(element: &[u8], at: usize) -> Option<[u8; N]> {
    element.get(at..)?.first_chunk().copied()
}

fn number(element: &[u8], at: usize) -> Option<u32> {
    bytes(element, at).map(u32::from_le_bytes)
}

/// Puts `what` at a place that the element has.
fn put(element: &mut [u8], at: usize, what: &[u8]) {
    for (target, byte) in element.iter_mut().skip(at).zip(what) {
        *target = *byte;
    }
}

const BLOCK_IO: u32 = 0;
const RAM_DISK: u32 = 3;
const FILE: u32 = 5;
const PARTITION: u32 = 6;
const GPT: u32 = 0;
const MBR: u32 = 1;
const DESCRIPTION_LENGTH: u32 = 0x48;
const PARTITION_LENGTH: usize = 88;
