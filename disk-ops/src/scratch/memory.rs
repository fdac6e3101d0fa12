//! A scratch in memory, for tests, and a file in memory, for overlays without a folder.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Scratch, ScratchFile, ScratchLock};
use crate::fault::{CachedPages, Faults};
use crate::units::ByteCount;

/// A [`Scratch`] in memory that fails, fills up and loses power on demand.
///
/// Clones are the same scratch. It is public because the tests of other crates need it; nothing
/// that ships uses it.
#[derive(Clone, Debug, Default)]
pub struct MemoryScratch {
    faults: Faults,
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    seen: BTreeMap<String, Arc<Mutex<Content>>>,
    durable: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Alive while someone holds the lock.
    holder: Weak<()>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    pages: CachedPages,
    length: u64,
    durable_length: u64,
}

impl MemoryScratch {
    /// An empty scratch, whose changes fail as `faults` say.
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    /// What a power cut leaves: all that was synced, and of the rest each change for which
    /// `survives` says so: names, lengths, and writes by sectors of 512 bytes.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let mut names = lock(&self.names);
        let changed: Vec<String> = names
            .seen
            .keys()
            .chain(names.durable.keys())
            .cloned()
            .collect();
        for name in changed {
            let seen = names.seen.get(&name).cloned();
            if !same(seen.as_ref(), names.durable.get(&name)) && survives() {
                match seen {
                    Some(file) => names.durable.insert(name, file),
                    None => names.durable.remove(&name),
                };
            }
        }
        names.seen = names.durable.clone();
        for file in names.seen.values() {
            let mut file = lock(file);
            let mut end = file.durable_length;
            if survives() {
                end = file.length;
            }
            // Sectors behind the end that is left are cut off with it.
            file.pages.cut_power(512, &mut survives);
            file.length = end;
            file.durable_length = end;
        }
    }

    /// The bytes of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let file = Arc::clone(lock(&self.names).seen.get(name)?);
        let file = lock(&file);
        let mut bytes = vec![0; usize::try_from(file.length).ok()?];
        file.pages.read(0, &mut bytes);
        Some(bytes)
    }

    /// Puts a file there, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut content = Content::default();
        content.pages.write_durably(0, bytes);
        content.length = bytes.len() as u64;
        content.durable_length = content.length;
        let file = Arc::new(Mutex::new(content));
        let mut names = lock(&self.names);
        names.seen.insert(name.to_owned(), Arc::clone(&file));
        names.durable.insert(name.to_owned(), file);
    }

    /// A scratch of its own with what is in this one now, without faults and caches.
    #[must_use]
    pub fn copy(&self, faults: Faults) -> Self {
        let copy = Self::new(faults);
        let names: Vec<String> = lock(&self.names).seen.keys().cloned().collect();
        for name in names {
            if let Some(bytes) = self.content(&name) {
                copy.put(&name, &bytes);
            }
        }
        copy
    }

    fn step(&self) -> io::Result<()> {
        self.faults.next().map_err(|(_, error)| error)
    }

    fn file(&self, content: Arc<Mutex<Content>>) -> Box<dyn ScratchFile> {
        Box::new(MemoryFile {
            faults: self.faults.clone(),
            content,
        })
    }
}

impl Scratch for MemoryScratch {
    fn path_of(&self, name: &str) -> String {
        format!("memory:{name}")
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn ScratchFile>> {
        self.step()?;
        let mut names = lock(&self.names);
        if names.seen.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let content = Arc::default();
        names.seen.insert(name.to_owned(), Arc::clone(&content));
        Ok(self.file(content))
    }

    fn create_unnamed(&self) -> io::Result<Box<dyn ScratchFile>> {
        self.step()?;
        Ok(self.file(Arc::default()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ScratchFile>> {
        self.faults.expect_power()?;
        let names = lock(&self.names);
        let content = names.seen.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(Arc::clone(content)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step()?;
        let removed = lock(&self.names).seen.remove(name);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.faults.expect_power()?;
        Ok(lock(&self.names).seen.keys().cloned().collect())
    }

    fn sync(&self) -> io::Result<()> {
        self.step()?;
        let mut names = lock(&self.names);
        names.durable = names.seen.clone();
        Ok(())
    }

    fn available(&self) -> Option<ByteCount> {
        None
    }

    fn lock(&self) -> io::Result<Option<ScratchLock>> {
        self.faults.expect_power()?;
        let mut names = lock(&self.names);
        if names.holder.strong_count() > 0 {
            return Ok(None);
        }
        let holder = Arc::new(());
        names.holder = Arc::downgrade(&holder);
        Ok(Some(Box::new(holder)))
    }
}

/// A file in memory, gone when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryFile {
    faults: Faults,
    content: Arc<Mutex<Content>>,
}

impl ScratchFile for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.faults.expect_power()?;
        let content = lock(&self.content);
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > content.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        content.pages.read(offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (through, result) = match self.faults.next() {
            Ok(()) => (bytes.len(), Ok(())),
            Err((sectors, error)) => {
                let through = sectors.saturating_mul(512).min(bytes.len() as u64);
                (through as usize, Err(error))
            }
        };
        let mut content = lock(&self.content);
        content.pages.write(offset, &bytes[..through]);
        if through > 0 {
            content.length = content.length.max(offset + through as u64);
        }
        result
    }

    fn length(&self) -> io::Result<u64> {
        self.faults.expect_power()?;
        Ok(lock(&self.content).length)
    }

    fn sync(&self) -> io::Result<()> {
        let step = self.faults.next();
        let mut content = lock(&self.content);
        match step {
            Ok(()) => {
                content.pages.flush();
                content.durable_length = content.length;
                Ok(())
            }
            Err((_, error)) => {
                if !self.faults.is_dead() {
                    content.pages.drop_unflushed();
                }
                Err(error)
            }
        }
    }
}

fn same(one: Option<&Arc<Mutex<Content>>>, other: Option<&Arc<Mutex<Content>>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
