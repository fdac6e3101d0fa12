//! Carries out one edit with libntfs-3g.

use super::super::command::{EditKind, PlainEdit};
use super::super::descriptor::{lets_anyone_write, standard};
use super::super::edit::{EditOutcome, FileTimes, Security, ShortNames};
use super::super::protocol::Step;
use super::super::short_name;
use super::Failure;
use super::native::{Changes, Errno, FileRef, Info, Name, NativeDisk, NativeVolume};
use crate::volume::WinPath;
use crate::volume::ntfs::meta::FileAttributes;

/// A mounted volume, and how it is to be edited.
pub(super) struct Applier<'d, D> {
    volume: NativeVolume<'d, D>,
    short_names: ShortNames,
}

/// What a path leads to.
struct Place {
    folder: FileRef,
    name: String,
    /// What is there.
    file: Option<FileRef>,
}

impl<'d, D: NativeDisk> Applier<'d, D> {
    pub fn new(volume: NativeVolume<'d, D>, short_names: ShortNames) -> Self {
        Self {
            volume,
            short_names,
        }
    }

    pub fn into_volume(self) -> NativeVolume<'d, D> {
        self.volume
    }

    /// Applies `edit`; `content` fills a buffer with the content of its file from a position on.
    pub fn apply(
        &mut self,
        edit: &PlainEdit,
        content: impl FnMut(u64, &mut [u8]) -> Result<(), Errno>,
    ) -> Result<EditOutcome, Failure> {
        match edit.kind {
            EditKind::CreateFolder => self.create_folder(edit),
            EditKind::Delete => self.delete(edit),
            EditKind::DeleteTree => self.delete_tree(edit),
            EditKind::SetMeta => self.set_meta(edit),
            EditKind::WriteFile => self.write_file(edit, content),
        }
    }

    fn create_folder(&mut self, edit: &PlainEdit) -> Result<EditOutcome, Failure> {
        let mut outcome = EditOutcome::Unchanged;
        let mut folder = FileRef::ROOT;
        for name in edit.path.components() {
            match self.enter(folder, name)? {
                Some(inner) => folder = inner,
                None => {
                    folder = self.create(folder, name, true, &edit.security)?;
                    outcome = EditOutcome::Created;
                }
            }
        }
        Ok(outcome)
    }

    fn write_file(
        &mut self,
        edit: &PlainEdit,
        content: impl FnMut(u64, &mut [u8]) -> Result<(), Errno>,
    ) -> Result<EditOutcome, Failure> {
        let place = self.locate(&edit.path)?;
        let Some(old) = place.file else {
            let file = self.create(place.folder, &place.name, false, &edit.security)?;
            self.fill(file, edit, None, content)?;
            return Ok(EditOutcome::Created);
        };
        let info = self.inspect(old)?;
        if info.is_folder() {
            return Err(Failure::new(Step::Lookup, Errno(libc::EISDIR)));
        }
        if info.is_encrypted() || info.attributes & FileAttributes::ENCRYPTED.0 != 0 {
            return Err(Failure::new(Step::Content, Errno(libc::EOPNOTSUPP)));
        }
        let is_packed = info.reparse_tag == REPARSE_TAG_WOF;
        if info.reparse_tag != 0 && !is_packed {
            return Err(Failure::new(Step::Lookup, Errno(libc::ELOOP)));
        }
        if info.names == 1 && info.is_plain() && !is_packed {
            self.fill(old, edit, None, content)?;
            return Ok(EditOutcome::Overwritten);
        }
        let file = self.replace(&place, old)?;
        self.fill(file, edit, Some(&info), content)?;
        Ok(EditOutcome::Replaced)
    }

    /// Puts a new, empty file in the place of an old one.
    fn replace(&mut self, place: &Place, old: FileRef) -> Result<FileRef, Failure> {
        let (folder, name) = (place.folder, Name::new(&place.name));
        let name = name.map_err(at(Step::Lookup))?;
        let security = self.volume.read_security(old).map_err(at(Step::Security))?;
        let short = self.volume.short_name(folder, old);
        let short = short.map_err(at(Step::ShortName))?;
        let deleted = self.volume.delete(folder, old, &name);
        deleted.map_err(at(Step::Delete))?;
        let inherited = self.volume.inherited(folder, false);
        let id = inherited.map_err(at(Step::Security))?;
        let created = self.volume.create(folder, &name, false, id);
        let file = created.map_err(at(Step::Create))?;
        self.protect(file, false, Some(&security))?;
        self.name_short(folder, file, &place.name, short)?;
        Ok(file)
    }

    /// Gives a file its content, attributes and times; `old` is what it takes the place of.
    fn fill(
        &mut self,
        file: FileRef,
        edit: &PlainEdit,
        old: Option<&Info>,
        content: impl FnMut(u64, &mut [u8]) -> Result<(), Errno>,
    ) -> Result<(), Failure> {
        let written = self.volume.write(file, edit.size, content);
        written.map_err(at(Step::Content))?;
        let mut changes = Changes::default();
        let kept = old.map(|old| FileAttributes(old.attributes | FileAttributes::ARCHIVE.0));
        if let Some(attributes) = edit.attributes.or(kept) {
            changes.set_attributes = 1;
            changes.attributes = attributes.0;
        }
        if let Some(times) = edit.times {
            set_times(&mut changes, times);
        } else if let Some(old) = old {
            let now = self.inspect(file)?.created;
            changes.set_times = 1;
            (changes.created, changes.modified, changes.accessed) = (old.created, now, now);
        }
        self.change(file, &changes)
    }

    fn set_meta(&mut self, edit: &PlainEdit) -> Result<EditOutcome, Failure> {
        let file = self.locate(&edit.path)?.file;
        let file = file.ok_or(Failure::new(Step::Lookup, Errno(libc::ENOENT)))?;
        let mut changes = Changes::default();
        if let Some(attributes) = edit.attributes {
            changes.set_attributes = 1;
            changes.attributes = attributes.0;
        }
        if let Some(times) = edit.times {
            set_times(&mut changes, times);
        }
        self.change(file, &changes)?;
        Ok(EditOutcome::Changed)
    }

    fn change(&mut self, file: FileRef, changes: &Changes) -> Result<(), Failure> {
        if changes.set_attributes == 0 && changes.set_times == 0 {
            return Ok(());
        }
        self.volume.change(file, changes).map_err(at(Step::Meta))
    }

    fn delete(&mut self, edit: &PlainEdit) -> Result<EditOutcome, Failure> {
        let Some((place, file)) = self.locate_to_delete(&edit.path)? else {
            return Ok(EditOutcome::Unchanged);
        };
        let name = Name::new(&place.name).map_err(at(Step::Lookup))?;
        let deleted = self.volume.delete(place.folder, file, &name);
        deleted.map_err(at(Step::Delete))?;
        Ok(EditOutcome::Deleted(1))
    }

    /// Deletes files and folders from the leaves on.
    fn delete_tree(&mut self, edit: &PlainEdit) -> Result<EditOutcome, Failure> {
        let Some((place, file)) = self.locate_to_delete(&edit.path)? else {
            return Ok(EditOutcome::Unchanged);
        };
        let name = Name::new(&place.name).map_err(at(Step::Lookup))?;
        let mut branch = vec![Branch {
            folder: place.folder,
            names: vec![(file, name)],
        }];
        let mut deleted = 0;
        while let Some(top) = branch.last_mut() {
            let folder = top.folder;
            let Some((file, name)) = top.names.last().cloned() else {
                branch.pop();
                continue;
            };
            let info = self.inspect(file)?;
            // Links have no content of their own; what they lead to stays.
            let is_branch = info.is_folder() && info.reparse_tag == 0;
            let names = match is_branch {
                true => self
                    .volume
                    .list(file, MAX_NAMES)
                    .map_err(at(Step::Lookup))?,
                false => Vec::new(),
            };
            if !names.is_empty() {
                if branch.len() >= MAX_DEPTH {
                    return Err(Failure::new(Step::Lookup, Errno(libc::ELOOP)));
                }
                branch.push(Branch {
                    folder: file,
                    names,
                });
                continue;
            }
            top.names.pop();
            let gone = self.volume.delete(folder, file, &name);
            gone.map_err(at(Step::Delete))?;
            deleted += 1;
        }
        Ok(EditOutcome::Deleted(deleted))
    }

    /// Where something is that may be deleted; `None` when it or a folder above it is not there.
    fn locate_to_delete(&mut self, path: &WinPath) -> Result<Option<(Place, FileRef)>, Failure> {
        let place = match self.locate(path) {
            Ok(place) => place,
            Err(failure) if failure.errno.0 == libc::ENOENT => return Ok(None),
            Err(failure) => return Err(failure),
        };
        Ok(place.file.map(|file| (place, file)))
    }

    /// Follows `path` to its last name.
    fn locate(&mut self, path: &WinPath) -> Result<Place, Failure> {
        let mut names: Vec<&str> = path.components().collect();
        let Some(last) = names.pop() else {
            // The root itself is never edited.
            return Err(Failure::new(Step::Lookup, Errno(libc::EINVAL)));
        };
        let mut folder = FileRef::ROOT;
        for name in names {
            let inner = self.enter(folder, name)?;
            folder = inner.ok_or(Failure::new(Step::Lookup, Errno(libc::ENOENT)))?;
        }
        Ok(Place {
            folder,
            name: last.to_owned(),
            file: self.find(folder, last)?,
        })
    }

    /// The folder `name` in `folder`, if there is something of that name.
    fn enter(&mut self, folder: FileRef, name: &str) -> Result<Option<FileRef>, Failure> {
        let Some(inner) = self.find(folder, name)? else {
            return Ok(None);
        };
        let info = self.inspect(inner)?;
        if !info.is_folder() {
            return Err(Failure::new(Step::Lookup, Errno(libc::ENOTDIR)));
        }
        if info.reparse_tag != 0 {
            return Err(Failure::new(Step::Lookup, Errno(libc::ELOOP)));
        }
        Ok(Some(inner))
    }

    /// What is called `name` in `folder`. The files of NTFS itself are out of bounds, as is all of
    /// `$Extend`, which has its own ones in it.
    fn find(&mut self, folder: FileRef, name: &str) -> Result<Option<FileRef>, Failure> {
        let name = Name::new(name).map_err(at(Step::Lookup))?;
        let found = self.volume.lookup(folder, &name);
        match found.map_err(at(Step::Lookup))? {
            Some(file) if file.record() < FIRST_USER_RECORD => {
                Err(Failure::new(Step::Lookup, Errno(libc::EPERM)))
            }
            found => Ok(found),
        }
    }

    fn inspect(&mut self, file: FileRef) -> Result<Info, Failure> {
        self.volume.inspect(file).map_err(at(Step::Lookup))
    }

    /// Makes a file or folder that is not there.
    fn create(
        &mut self,
        folder: FileRef,
        name: &str,
        is_folder: bool,
        security: &Security,
    ) -> Result<FileRef, Failure> {
        let source = match security {
            Security::Inherit => None,
            Security::SameAs(path) => {
                let model = self.locate(path)?.file;
                let model = model.ok_or(Failure::new(Step::Security, Errno(libc::ENOENT)))?;
                let descriptor = self.volume.read_security(model);
                Some(descriptor.map_err(at(Step::Security))?)
            }
        };
        let inherited = self.volume.inherited(folder, is_folder);
        let id = inherited.map_err(at(Step::Security))?;
        let units = Name::new(name).map_err(at(Step::Lookup))?;
        let created = self.volume.create(folder, &units, is_folder, id);
        let file = created.map_err(at(Step::Create))?;
        self.protect(file, is_folder, source.as_deref())?;
        self.name_short(folder, file, name, None)?;
        Ok(file)
    }

    /// Gives what was just made the descriptor `wanted`, or leaves it with what it inherited, and
    /// sees to it that not everyone can write to it.
    fn protect(
        &mut self,
        file: FileRef,
        is_folder: bool,
        wanted: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let inherited = self.volume.read_security(file);
        let inherited = inherited.map_err(at(Step::Security))?;
        let descriptor = wanted.unwrap_or(&inherited);
        let standard = standard(is_folder);
        let descriptor = match lets_anyone_write(descriptor) {
            Ok(false) => descriptor,
            Ok(true) | Err(_) => &standard,
        };
        if descriptor == inherited {
            return Ok(());
        }
        let written = self.volume.write_security(file, descriptor);
        written.map_err(at(Step::Security))
    }

    /// Gives what was just made the short name `kept`, or one of the volume's making.
    fn name_short(
        &mut self,
        folder: FileRef,
        file: FileRef,
        name: &str,
        kept: Option<String>,
    ) -> Result<(), Failure> {
        let short = if short_name::is_short(name) {
            Some(name.to_ascii_uppercase())
        } else if kept.is_some() || self.short_names == ShortNames::Omit {
            kept
        } else {
            Some(self.free_short_name(folder, name)?)
        };
        let Some(short) = short else { return Ok(()) };
        let set = self.volume.set_short_name(folder, file, &short);
        set.map_err(at(Step::ShortName))
    }

    fn free_short_name(&mut self, folder: FileRef, name: &str) -> Result<String, Failure> {
        for candidate in short_name::candidates(name).take(MAX_CANDIDATES) {
            let units = Name::new(&candidate).map_err(at(Step::ShortName))?;
            let taken = self.volume.lookup(folder, &units);
            if taken.map_err(at(Step::ShortName))?.is_none() {
                return Ok(candidate);
            }
        }
        Err(Failure::new(Step::ShortName, Errno(libc::EEXIST)))
    }
}

/// A folder whose content is being deleted.
struct Branch {
    folder: FileRef,
    names: Vec<(FileRef, Name)>,
}

fn set_times(changes: &mut Changes, times: FileTimes) {
    changes.set_times = 1;
    changes.created = times.created.0;
    changes.modified = times.modified.0;
    changes.accessed = times.accessed.0;
}

fn at(step: Step) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::new(step, errno)
}

/// IO_REPARSE_TAG_WOF (MS-FSCC 2.1.2.1): a file compressed by CompactOS.
const REPARSE_TAG_WOF: u32 = 0x8000_0017;

/// Records below belong to NTFS itself.
const FIRST_USER_RECORD: u64 = 24;

/// The most names in one folder of a tree that is deleted.
const MAX_NAMES: usize = 1 << 20;

/// The deepest tree that is deleted: what fits into the longest path of Win32.
const MAX_DEPTH: usize = 16_384;

/// How many short names are tried.
const MAX_CANDIDATES: usize = 4_096;
