//! The runs of a non-resident attribute: which clusters hold its value.

use super::fields::Fields;

/// Consecutive clusters of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::volume) struct Run {
    /// The first cluster of the value that is in the run.
    pub first: u64,
    /// How many clusters there are.
    pub length: u64,
    /// The cluster of the volume where they begin; `None` when they are not there and read as
    /// zeros.
    pub cluster: Option<u64>,
}

impl Run {
    /// The first cluster of the value behind the run; `decode` has checked the sum.
    pub fn end(&self) -> u64 {
        self.first + self.length
    }
}

/// Reads the packed runs of a value whose first cluster in them is `first`, on a volume of
/// `clusters`, and appends them to `runs`.
pub(super) fn decode(
    packed: &[u8],
    first: u64,
    clusters: u64,
    runs: &mut Vec<Run>,
) -> Result<(), String> {
    let mut at = 0;
    let mut next = first;
    let mut previous: i64 = 0;
    loop {
        let Some(head) = Fields(packed).u8(at).filter(|head| *head != 0) else {
            return Ok(());
        };
        let length_size = usize::from(head & 15);
        let offset_size = usize::from(head >> 4);
        let length = integer(packed, at + 1, length_size);
        let offset = integer(packed, at + 1 + length_size, offset_size);
        let (Some(length), Some(offset)) = (length, offset) else {
            return Err(format!(
                "the run at byte {at} does not fit in the attribute"
            ));
        };
        let length = u64::try_from(length).ok().filter(|length| *length > 0);
        let length = length
            .ok_or_else(|| format!("the run at byte {at} is empty, or longer than any can be"))?;
        let end = next.checked_add(length).filter(|end| *end <= MAX_CLUSTERS);
        let end = end.ok_or_else(|| format!("the runs hold more than {MAX_CLUSTERS} clusters"))?;
        let cluster = if offset_size == 0 {
            None
        } else {
            previous = previous.checked_add(offset).unwrap_or(-1);
            let start = u64::try_from(previous).ok();
            let fits = |start: &u64| start.checked_add(length).is_some_and(|end| end <= clusters);
            Some(start.filter(fits).ok_or_else(|| {
                format!("a run of {length} clusters at {previous}, but the volume has {clusters}")
            })?)
        };
        runs.push(Run {
            first: next,
            length,
            cluster,
        });
        next = end;
        at += 1 + length_size + offset_size;
    }
}

/// A signed little-endian number of `size` bytes.
fn integer(packed: &[u8], at: usize, size: usize) -> Option<i64> {
    let bytes = packed.get(at..at + size)?;
    let mut number = [0; 8];
    number.get_mut(..size)?.copy_from_slice(bytes);
    let unused = 64 - 8 * size as u32;
    match unused {
        64 => Some(0),
        unused => Some(i64::from_le_bytes(number) << unused >> unused),
    }
}

/// The most clusters in a value: those of 2^63 bytes in the smallest clusters.
const MAX_CLUSTERS: u64 = 1 << 54;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(packed: &[u8]) -> Result<Vec<(u64, u64, Option<u64>)>, String> {
        let mut found = Vec::new();
        decode(packed, 0, 0x10000, &mut found)?;
        Ok(found
            .iter()
            .map(|run| (run.first, run.length, run.cluster))
            .collect())
    }

    #[test]
    fn runs_lie_forwards_backwards_and_nowhere() {
        let packed = [
            0x21, 0x18, 0x34, 0x56, 0x11, 0x10, 0xF0, 0x01, 0x05, 0x00, 0xFF,
        ];
        assert_eq!(
            runs(&packed).unwrap(),
            [
                (0, 0x18, Some(0x5634)),
                (0x18, 0x10, Some(0x5624)),
                (0x28, 5, None)
            ]
        );
    }

    #[test]
    fn runs_that_leave_the_volume_or_the_attribute_are_refused() {
        for packed in [
            &[0x21, 0x18, 0x34][..],
            &[0x11, 0x00, 0x34],
            &[0x11, 0x01, 0xFF],
            &[
                0x21, 0x02, 0xFF, 0x7F, 0x21, 0x02, 0xFF, 0x7F, 0x11, 0x02, 0x01,
            ],
            &[0x9F, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            &[0x08, 1, 1, 1, 1, 1, 1, 1, 0x7F],
            &[0x08, 1, 1, 1, 1, 1, 1, 1, 0xFF],
        ] {
            assert!(runs(packed).is_err(), "{packed:?} {:?}", runs(packed));
        }
    }

    proptest! {
        #[test]
        fn runs_never_leave_the_volume(packed in prop::collection::vec(any::<u8>(), 0..60)) {
            for (_, length, cluster) in runs(&packed).unwrap_or_default() {
                prop_assert!(cluster.is_none_or(|cluster| cluster + length <= 0x10000));
            }
        }
    }
}
