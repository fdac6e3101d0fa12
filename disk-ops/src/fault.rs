//! Faults on demand, for tests: what fails, when the power goes, and what is left after that.
//!
//! ```text
//!  MemoryDisk ----+                    operation n: goes through, fails once, or the power goes
//!                 +--> Faults (one) --> and it fails with everything after it
//!  MemoryScratch -+
//! ```
//!
//! A disk and a scratch folder that share one [`Faults`] are cut at one moment, so a test can go
//! through every operation that changes either. It is public because the tests of other crates need
//! it; nothing that ships uses it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the operations that change something, and makes one of them fail.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    operations: u64,
    planned: Option<(u64, Failure)>,
    is_dead: bool,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// It alone fails, after as many sectors of it got through.
    Error {
        /// What the operating system says.
        kind: io::ErrorKind,
        /// How many sectors of a write take effect in spite of that.
        after_sectors: u64,
    },
    /// The power goes: it fails, and so does everything after it.
    PowerCut {
        /// How many sectors of a write take effect before that.
        after_sectors: u64,
    },
}

impl Faults {
    /// How many operations were tried that change something: writes, flushes, new lengths, and the
    /// making and removing of files.
    pub fn operations(&self) -> u64 {
        self.plan().operations
    }

    /// Makes the operation with this number fail; the first one has number 0.
    pub fn fail_operation(&self, number: u64, failure: Failure) {
        self.plan().planned = Some((number, failure));
    }

    /// The power is back, nothing is planned, and counting starts again.
    pub fn clear(&self) {
        *self.plan() = Plan::default();
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        self.plan().is_dead
    }

    /// Whether something can be read.
    pub(crate) fn expect_power(&self) -> io::Result<()> {
        match self.is_dead() {
            true => Err(power_is_gone()),
            false => Ok(()),
        }
    }

    /// Counts an operation. An error comes with the number of sectors that get through.
    pub(crate) fn next(&self) -> Result<(), (u64, io::Error)> {
        let mut plan = self.plan();
        if plan.is_dead {
            return Err((0, power_is_gone()));
        }
        let number = plan.operations;
        plan.operations += 1;
        match plan.planned {
            Some((planned, failure)) if planned == number => match failure {
                Failure::Error {
                    kind,
                    after_sectors,
                } => Err((after_sectors, kind.into())),
                Failure::PowerCut { after_sectors } => {
                    plan.is_dead = true;
                    Err((after_sectors, power_is_gone()))
                }
            },
            _ => Ok(()),
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

/// Sparse bytes behind a cache that loses what was not flushed.
///
/// Beside what is seen there is what is durable: the pages that were changed since, as they are on
/// the medium, and the changes that are on their way there.
#[derive(Clone, Debug, Default)]
pub(crate) struct CachedPages {
    seen: BTreeMap<u64, Page>,
    /// As they are on the medium, where that differs; `None` for a hole.
    durable: BTreeMap<u64, Option<Page>>,
    unflushed: Vec<(u64, Vec<u8>)>,
}

pub(crate) type Page = Box<[u8; PAGE]>;

impl CachedPages {
    /// The page with this number, if it is no hole.
    pub(crate) fn page(&self, number: u64) -> Option<&Page> {
        self.seen.get(&number)
    }

    /// The pages that are no holes, from this number on.
    pub(crate) fn pages_from(&self, number: u64) -> impl Iterator<Item = u64> {
        self.seen.range(number..).map(|(number, _)| *number)
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (position, at, length) in pages_of(offset, buffer.len()) {
            let within = (position % PAGE as u64) as usize;
            let target = &mut buffer[at..at + length];
            match self.page(position / PAGE as u64) {
                Some(page) => target.copy_from_slice(&page[within..within + length]),
                None => target.fill(0),
            }
        }
    }

    /// Puts bytes where they survive everything.
    pub(crate) fn write_durably(&mut self, offset: u64, bytes: &[u8]) {
        self.write(offset, bytes);
        self.unflushed.pop();
        self.make_durable(offset, bytes);
        let seen = &self.seen;
        self.durable
            .retain(|number, durable| durable.as_ref() != seen.get(number));
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (position, _, _) in pages_of(offset, bytes.len()) {
            let number = position / PAGE as u64;
            let seen = self.seen.get(&number);
            self.durable.entry(number).or_insert_with(|| seen.cloned());
        }
        put(&mut self.seen, offset, bytes);
        self.unflushed.push((offset, bytes.to_vec()));
    }

    pub(crate) fn flush(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.unflushed) {
            self.make_durable(offset, &bytes);
        }
        // What a failed flush has dropped is seen, and not durable, until it is written again.
        let seen = &self.seen;
        self.durable
            .retain(|number, durable| durable.as_ref() != seen.get(number));
    }

    /// A flush that failed: what was on its way is seen, and will never be durable.
    pub(crate) fn drop_unflushed(&mut self) {
        self.unflushed.clear();
    }

    /// The power was cut: of what was not flushed, what `survives` says is there, sector by sector.
    ///
    /// As any of several changes of one sector may be the last that survives, this covers every
    /// order in which a cache can write.
    pub(crate) fn cut_power(&mut self, sector: u64, survives: &mut dyn FnMut() -> bool) {
        for (offset, bytes) in std::mem::take(&mut self.unflushed) {
            let mut at = 0;
            while at < bytes.len() {
                let position = offset + at as u64;
                let length = ((sector - position % sector) as usize).min(bytes.len() - at);
                if survives() {
                    self.make_durable(position, &bytes[at..at + length]);
                }
                at += length;
            }
        }
        for (number, durable) in std::mem::take(&mut self.durable) {
            match durable {
                Some(page) => self.seen.insert(number, page),
                None => self.seen.remove(&number),
            };
        }
    }

    fn make_durable(&mut self, offset: u64, bytes: &[u8]) {
        for (position, at, length) in pages_of(offset, bytes.len()) {
            let page = self.durable.entry(position / PAGE as u64).or_default();
            let page = page.get_or_insert_with(|| Box::new([0; PAGE]));
            let within = (position % PAGE as u64) as usize;
            page[within..within + length].copy_from_slice(&bytes[at..at + length]);
        }
    }
}

fn put(pages: &mut BTreeMap<u64, Page>, offset: u64, bytes: &[u8]) {
    for (position, at, length) in pages_of(offset, bytes.len()) {
        let page = pages
            .entry(position / PAGE as u64)
            .or_insert_with(|| Box::new([0; PAGE]));
        let within = (position % PAGE as u64) as usize;
        page[within..within + length].copy_from_slice(&bytes[at..at + length]);
    }
}

/// Cuts `length` bytes from `offset` on at page borders: position, index into the bytes, length.
pub(crate) fn pages_of(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let position = offset + at as u64;
        let room = PAGE - (position % PAGE as u64) as usize;
        let piece = room.min(length - at);
        let start = at;
        at += piece;
        (piece > 0).then_some((position, start, piece))
    })
}

pub(crate) const PAGE: usize = 4096;
