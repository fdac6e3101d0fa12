//! The index of a folder: a tree of names in the order of their upper-case letters.
//!
//! ```text
//!  $INDEX_ROOT:        | B | M | end |        every entry may have a child, whose names come
//!                        |       |            before it; the last entry has no name
//!  $INDEX_ALLOCATION:  | A |   | Q | Z |
//! ```
//!
//! The tree is walked here and not by the parser, which follows loops, and which counts children
//! in clusters where NTFS counts in units of 512 bytes: on every volume whose clusters are larger
//! than its index records. The names in the entries are the parser's.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use ntfs::NtfsError;
use ntfs::indexes::NtfsIndexEntryKey;
use ntfs::structured_values::NtfsFileName;

use super::fields::{Fields, undo_update_sequence};
use super::geometry::Geometry;
use super::meta::FileId;
use super::stream::Stream;
use crate::block::BlockRead;
use crate::volume::VolumeError;

/// The index of one folder.
pub(super) struct Index<'a, D> {
    pub volume: &'a D,
    pub geometry: &'a Geometry,
    /// The value of `$INDEX_ROOT`.
    pub root: &'a [u8],
    /// Where the nodes below the root are.
    pub allocation: Option<&'a Stream>,
    /// The bytes in each of them.
    pub record_size: u32,
    /// The folder, for messages.
    pub folder: &'a str,
}

/// Why a walk ended early: `Err(Stop::Damaged)` with what is wrong, or another error.
pub(super) enum Stop {
    Damaged(String),
    Parser(NtfsError),
    Volume(VolumeError),
}

impl<D: BlockRead> Index<'_, D> {
    /// Calls `each` for every name, in order.
    pub fn list(&self, mut each: impl FnMut(NtfsFileName, FileId)) -> Result<(), Stop> {
        let mut seen = BTreeSet::new();
        let mut nodes = vec![Node::root(self.root)?];
        // The entries whose children are being walked; one less than there are nodes.
        let mut waiting: Vec<Option<(NtfsFileName, FileId)>> = Vec::new();
        while let Some(node) = nodes.last_mut() {
            let Some(entry) = node.next()? else {
                nodes.pop();
                if let Some(Some((name, id))) = waiting.pop() {
                    each(name, id);
                }
                continue;
            };
            let name = entry.name.map(|name| (name, entry.id));
            match (entry.child, name) {
                (Some(child), name) => {
                    nodes.push(self.node(child, &mut seen)?);
                    waiting.push(name);
                }
                (None, Some((name, id))) => each(name, id),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Finds the name for which `compare`, which tells how the wanted name stands to another, says
    /// that they are equal.
    pub fn find(
        &self,
        compare: impl Fn(&NtfsFileName) -> Ordering,
    ) -> Result<Option<FileId>, Stop> {
        let mut seen = BTreeSet::new();
        let mut node = Node::root(self.root)?;
        while let Some(entry) = node.next()? {
            match entry.name.as_ref().map_or(Ordering::Less, &compare) {
                Ordering::Equal => return Ok(Some(entry.id)),
                Ordering::Greater => {}
                Ordering::Less => match entry.child {
                    Some(child) => node = self.node(child, &mut seen)?,
                    None => return Ok(None),
                },
            }
        }
        Ok(None)
    }

    /// Reads the node `number`, which must not have been `seen` in the same walk.
    fn node(&self, number: u64, seen: &mut BTreeSet<u64>) -> Result<Node, Stop> {
        if !seen.insert(number) {
            return Err(Stop::Damaged(format!(
                "the index comes back to its node {number}"
            )));
        }
        let allocation = self
            .allocation
            .ok_or_else(|| Stop::Damaged(format!("node {number} without an $INDEX_ALLOCATION")))?;
        let unit = match self.geometry.cluster_size {
            cluster if cluster <= self.record_size => cluster,
            _ => 512,
        };
        let mut bytes = vec![0; self.record_size as usize];
        let at = number.checked_mul(unit.into());
        let read = at.map(|at| {
            let name = format!("index of {}", self.folder);
            allocation.read_at(self.volume, self.geometry, &name, at, &mut bytes)
        });
        let length = read.transpose().map_err(Stop::Volume)?;
        if length != Some(bytes.len()) {
            let size = allocation.size;
            return Err(Stop::Damaged(format!(
                "node {number} lies outside of {size} bytes"
            )));
        }
        if !bytes.starts_with(b"INDX") || undo_update_sequence(&mut bytes).is_none() {
            return Err(Stop::Damaged(format!(
                "node {number} has no valid header, or was torn"
            )));
        }
        match Fields(&bytes).u64(16) {
            Some(own) if own == number => Node::new(bytes, NODE_HEADER),
            own => Err(Stop::Damaged(format!("node {number} calls itself {own:?}"))),
        }
    }
}

/// A node, and how far it has been walked.
struct Node {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
}

struct Entry {
    id: FileId,
    name: Option<NtfsFileName>,
    child: Option<u64>,
}

impl Node {
    fn root(value: &[u8]) -> Result<Self, Stop> {
        Self::new(value.to_vec(), ROOT_HEADER)
    }

    /// The node in `bytes`, where the sizes of the entries stand at `header`.
    fn new(bytes: Vec<u8>, header: usize) -> Result<Self, Stop> {
        let fields = Fields(&bytes);
        let position = |at| Some(header.saturating_add(fields.u32(at)? as usize));
        match (position(header), position(header + 4)) {
            (Some(at), Some(end)) if at <= end && end <= bytes.len() => Ok(Self { bytes, at, end }),
            (at, end) => {
                let size = bytes.len();
                Err(Stop::Damaged(format!(
                    "entries from {at:?} to {end:?} in a node of {size} bytes"
                )))
            }
        }
    }

    /// The next entry; `None` behind the last one.
    fn next(&mut self) -> Result<Option<Entry>, Stop> {
        if self.at >= self.end {
            return Ok(None);
        }
        let at = self.at;
        let damaged = || Stop::Damaged(format!("the entry at byte {at} of a node leaves it"));
        let room = Fields(self.bytes.get(at..self.end).ok_or_else(damaged)?);
        let length = usize::from(room.u16(8).ok_or_else(damaged)?);
        let entry = Fields(room.slice(0, length).ok_or_else(damaged)?);
        let key_length = usize::from(entry.u16(10).ok_or_else(damaged)?);
        let flags = entry
            .u8(12)
            .filter(|_| length >= ENTRY_HEADER)
            .ok_or_else(damaged)?;
        let is_last = flags & LAST != 0;
        let child = match flags & HAS_CHILD {
            0 => None,
            _ => {
                let at = length.checked_sub(8).filter(|at| *at >= ENTRY_HEADER);
                Some(at.and_then(|at| entry.u64(at)).ok_or_else(damaged)?)
            }
        };
        let name = if is_last || key_length == 0 {
            None
        } else {
            let key = entry.slice(ENTRY_HEADER, key_length).ok_or_else(damaged)?;
            // The parser checks a key against its length before it looks into it.
            let name = NtfsFileName::key_from_slice(key, None.into());
            Some(name.map_err(Stop::Parser)?)
        };
        let id = FileId::from_reference(entry.u64(0).ok_or_else(damaged)?);
        self.at = if is_last { self.end } else { at + length };
        Ok(Some(Entry { id, name, child }))
    }
}

/// Where the sizes of the entries stand in `$INDEX_ROOT`, and in the other nodes.
const ROOT_HEADER: usize = 16;
const NODE_HEADER: usize = 24;

const ENTRY_HEADER: usize = 16;
const HAS_CHILD: u8 = 1;
const LAST: u8 = 2;
