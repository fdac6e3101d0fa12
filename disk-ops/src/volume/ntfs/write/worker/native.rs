//! libntfs-3g behind safe calls: the one file of the worker with foreign functions in it.
//!
//! What can go wrong with the library's pointers is kept out by `native/ce_ntfs.h`: files are named
//! by reference, each call opens and closes what it needs. Left are the rules of that header, each
//! of which a type here holds to:
//!
//! | rule | held by |
//! |---|---|
//! | one thread | [`NativeVolume`] is neither `Send` nor `Sync`, and there is one in the process |
//! | callbacks must not unwind | [`guarded`] |
//! | unmount once, and look at what it says | [`NativeVolume::unmount`] takes the volume |
#![expect(unsafe_code, reason = "libntfs-3g is a C library")]

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::slice;

/// A value of `errno`, above 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Errno(pub c_int);

impl Errno {
    pub const EIO: Self = Self(libc::EIO);

    /// The value that an answer of the shim stands for.
    fn check(value: c_int) -> Result<(), Self> {
        match value {
            0 => Ok(()),
            errno if errno > 0 => Err(Self(errno)),
            _ => Err(Self::EIO),
        }
    }
}

/// The disk that the library works on.
pub(super) trait NativeDisk {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno>;
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno>;
    fn sync(&self) -> Result<(), Errno>;
}

/// A file or folder: the number of its record and its sequence number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileRef(u64);

impl FileRef {
    pub const ROOT: Self = Self(5);

    /// The number of its record.
    pub fn record(self) -> u64 {
        self.0 & 0xFFFF_FFFF_FFFF
    }
}

/// What the library knows about a file. As `struct ce_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Info {
    pub attributes: u32,
    pub reparse_tag: u32,
    pub names: u32,
    is_folder: u32,
    kept: u32,
    pub security_id: u32,
    pub created: u64,
}

impl Info {
    pub fn is_folder(&self) -> bool {
        self.is_folder != 0
    }

    /// Whether its content is kept as it is.
    pub fn is_plain(&self) -> bool {
        self.kept & (COMPRESSED | SPARSE) == 0
    }

    pub fn is_encrypted(&self) -> bool {
        self.kept & ENCRYPTED != 0
    }
}

/// What is to be set. As `struct ce_changes`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    pub set_attributes: u32,
    pub attributes: u32,
    pub set_times: u32,
    pub created: u64,
    pub modified: u64,
    pub accessed: u64,
}

/// A mounted volume.
pub(super) struct NativeVolume<'d, D> {
    volume: NonNull<c_void>,
    /// The library holds a pointer to the disk, and is for one thread.
    disk: PhantomData<(&'d D, *mut ())>,
}

impl<'d, D: NativeDisk> NativeVolume<'d, D> {
    /// Mounts the volume that fills `disk`, to be written.
    pub fn mount(disk: &'d D, size: u64, sector_size: u32) -> Result<Self, Errno> {
        let too_large = |_| Errno(libc::EFBIG);
        let description = DiskOps {
            context: std::ptr::from_ref(disk).cast_mut().cast(),
            size: size.try_into().map_err(too_large)?,
            sector_size: sector_size.try_into().map_err(too_large)?,
            read: read::<D>,
            write: write::<D>,
            sync: sync::<D>,
        };
        let mut volume = std::ptr::null_mut();
        // SAFETY: the description is copied by the call; the disk behind it is borrowed for 'd,
        // which this value cannot outlive. The callbacks match its type D and never unwind.
        Errno::check(unsafe { ce_mount(&description, &mut volume) })?;
        let volume = NonNull::new(volume).ok_or(Errno::EIO)?;
        let disk = PhantomData;
        Ok(Self { volume, disk })
    }

    /// Writes back what the library still holds, and ends its use of the disk.
    pub fn unmount(self) -> Result<(), Errno> {
        // SAFETY: the volume is mounted, and `self` is gone after this.
        Errno::check(unsafe { ce_unmount(self.volume.as_ptr()) })
    }

    /// The file `name` in `folder`, without regard to case.
    pub fn lookup(&mut self, folder: FileRef, name: &Name) -> Result<Option<FileRef>, Errno> {
        let mut file = 0;
        // SAFETY: as for every call below: the volume is mounted, `self` is borrowed mutably so
        // that no other call runs, and pointers are to live values of the length that is said.
        let found = unsafe {
            ce_lookup(
                self.volume.as_ptr(),
                folder.0,
                name.units(),
                name.length(),
                &mut file,
            )
        };
        match Errno::check(found) {
            Ok(()) => Ok(Some(FileRef(file))),
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    pub fn inspect(&mut self, file: FileRef) -> Result<Info, Errno> {
        let mut info = Info::default();
        // SAFETY: as in `lookup`; Info is laid out as the header has it.
        Errno::check(unsafe { ce_inspect(self.volume.as_ptr(), file.0, &mut info) })?;
        Ok(info)
    }

    /// The names in `folder`, short ones left out, of which there may be `limit`.
    pub fn list(&mut self, folder: FileRef, limit: usize) -> Result<Vec<(FileRef, Name)>, Errno> {
        let mut listing = Listing {
            names: Vec::new(),
            limit,
        };
        let context = std::ptr::from_mut(&mut listing).cast();
        // SAFETY: as in `lookup`; the callback takes the context for what it is, a Listing that
        // nothing else uses while the call lasts.
        let listed = unsafe { ce_list(self.volume.as_ptr(), folder.0, context, found) };
        Errno::check(listed)?;
        Ok(listing.names)
    }

    pub fn create(
        &mut self,
        folder: FileRef,
        name: &Name,
        is_folder: bool,
        security_id: u32,
    ) -> Result<FileRef, Errno> {
        let mut file = 0;
        // SAFETY: as in `lookup`.
        Errno::check(unsafe {
            ce_create(
                self.volume.as_ptr(),
                folder.0,
                name.units(),
                name.length(),
                c_int::from(is_folder),
                security_id,
                &mut file,
            )
        })?;
        Ok(FileRef(file))
    }

    /// Deletes the name `name` of `file`, and the file with its last name.
    pub fn delete(&mut self, folder: FileRef, file: FileRef, name: &Name) -> Result<(), Errno> {
        // SAFETY: as in `lookup`.
        Errno::check(unsafe {
            ce_delete(
                self.volume.as_ptr(),
                folder.0,
                file.0,
                name.units(),
                name.length(),
            )
        })
    }

    /// Makes `size` bytes the content of `file`. `content` fills a buffer from a position on.
    pub fn write<F>(&mut self, file: FileRef, size: u64, mut content: F) -> Result<(), Errno>
    where
        F: FnMut(u64, &mut [u8]) -> Result<(), Errno>,
    {
        let context = std::ptr::from_mut(&mut content).cast();
        // SAFETY: as in `lookup`; the callback takes the context for what it is, a closure of type
        // F that nothing else uses while the call lasts.
        Errno::check(unsafe { ce_write(self.volume.as_ptr(), file.0, size, context, piece::<F>) })
    }

    pub fn change(&mut self, file: FileRef, changes: &Changes) -> Result<(), Errno> {
        // SAFETY: as in `lookup`; Changes is laid out as the header has it.
        Errno::check(unsafe { ce_change(self.volume.as_ptr(), file.0, changes) })
    }

    /// The security id that something new in `folder` inherits; never 0.
    pub fn inherited(&mut self, folder: FileRef, is_folder: bool) -> Result<u32, Errno> {
        let mut id = 0;
        // SAFETY: as in `lookup`.
        Errno::check(unsafe {
            ce_inherited(
                self.volume.as_ptr(),
                folder.0,
                c_int::from(is_folder),
                &mut id,
            )
        })?;
        Ok(id)
    }

    pub fn read_security(&mut self, file: FileRef) -> Result<Vec<u8>, Errno> {
        let mut descriptor = vec![0; MAX_DESCRIPTOR as usize];
        let mut length = 0;
        // SAFETY: as in `lookup`; the buffer has the capacity that is said.
        Errno::check(unsafe {
            ce_read_security(
                self.volume.as_ptr(),
                file.0,
                descriptor.as_mut_ptr(),
                MAX_DESCRIPTOR,
                &mut length,
            )
        })?;
        descriptor.truncate(length as usize);
        Ok(descriptor)
    }

    pub fn write_security(&mut self, file: FileRef, descriptor: &[u8]) -> Result<(), Errno> {
        let length = descriptor
            .len()
            .try_into()
            .map_err(|_| Errno(libc::E2BIG))?;
        // SAFETY: as in `lookup`.
        Errno::check(unsafe {
            ce_write_security(self.volume.as_ptr(), file.0, descriptor.as_ptr(), length)
        })
    }

    /// The short name that `file` has in `folder` beside a long one.
    pub fn short_name(&mut self, folder: FileRef, file: FileRef) -> Result<Option<String>, Errno> {
        let mut name = [0; 64];
        // SAFETY: as in `lookup`; the buffer has the capacity that is said.
        Errno::check(unsafe {
            ce_read_short_name(
                self.volume.as_ptr(),
                folder.0,
                file.0,
                name.as_mut_ptr().cast(),
                name.len() as u32,
            )
        })?;
        let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::EIO)?;
        let name = name.to_string_lossy().into_owned();
        Ok(Some(name).filter(|name| !name.is_empty()))
    }

    pub fn set_short_name(
        &mut self,
        folder: FileRef,
        file: FileRef,
        name: &str,
    ) -> Result<(), Errno> {
        let name = CString::new(name).map_err(|_| Errno(libc::EINVAL))?;
        // SAFETY: as in `lookup`.
        Errno::check(unsafe {
            ce_write_short_name(self.volume.as_ptr(), folder.0, file.0, name.as_ptr())
        })
    }
}

/// What the library complained about last; empty when it did not.
pub(super) fn last_message() -> String {
    // SAFETY: there is one thread (a NativeVolume cannot leave its own); the text ends with a zero
    // and stays as it is until the next call, while it is copied here.
    let message = unsafe { CStr::from_ptr(ce_last_message()) };
    message.to_string_lossy().into_owned()
}

/// A name in UTF-16, of 1 to 255 units.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Name(Vec<u16>);

impl Name {
    pub fn new(name: &str) -> Result<Self, Errno> {
        Self::from_units(name.encode_utf16().collect())
    }

    fn from_units(units: Vec<u16>) -> Result<Self, Errno> {
        match units.len() {
            // As the library has them: little-endian.
            1..=255 => Ok(Self(units.into_iter().map(u16::to_le).collect())),
            _ => Err(Errno(libc::ENAMETOOLONG)),
        }
    }

    fn units(&self) -> *const u16 {
        self.0.as_ptr()
    }

    fn length(&self) -> u8 {
        // At most 255.
        self.0.len() as u8
    }
}

struct Listing {
    names: Vec<(FileRef, Name)>,
    limit: usize,
}

/// Runs a callback of the library. Unwinding into C would be undefined; a panic is an error there,
/// and none of the values that callbacks use is used after one: the worker ends.
fn guarded(callback: impl FnOnce() -> Result<(), Errno>) -> c_int {
    if HAS_PANICKED.get() {
        return libc::EIO;
    }
    match catch_unwind(AssertUnwindSafe(callback)) {
        Ok(Ok(())) => 0,
        Ok(Err(Errno(errno))) => errno,
        Err(_) => {
            HAS_PANICKED.set(true);
            libc::EIO
        }
    }
}

extern "C" fn read<D: NativeDisk>(
    context: *mut c_void,
    offset: u64,
    length: u64,
    bytes: *mut c_void,
) -> c_int {
    // SAFETY: the context is the disk that `mount` was given, which outlives the volume; `bytes`
    // are `length` bytes of the library's, initialized or not read before they are written.
    let (disk, buffer) = unsafe { (&*context.cast::<D>(), buffer(bytes, length)) };
    guarded(|| disk.read(offset, buffer))
}

extern "C" fn write<D: NativeDisk>(
    context: *mut c_void,
    offset: u64,
    length: u64,
    bytes: *const c_void,
) -> c_int {
    // SAFETY: as in `read`; nobody writes to the bytes while the call lasts.
    let (disk, bytes) = unsafe { (&*context.cast::<D>(), &*buffer(bytes.cast_mut(), length)) };
    guarded(|| disk.write(offset, bytes))
}

extern "C" fn sync<D: NativeDisk>(context: *mut c_void) -> c_int {
    // SAFETY: as in `read`.
    let disk = unsafe { &*context.cast::<D>() };
    guarded(|| disk.sync())
}

extern "C" fn found(context: *mut c_void, file: u64, name: *const u16, length: u8) -> c_int {
    // SAFETY: the context is the Listing of `list`; the name has `length` units, at any alignment.
    let (listing, units) = unsafe {
        let units = (0..usize::from(length)).map(|at| name.add(at).read_unaligned());
        (&mut *context.cast::<Listing>(), units.collect::<Vec<u16>>())
    };
    guarded(|| {
        if listing.names.len() >= listing.limit {
            return Err(Errno(libc::E2BIG));
        }
        let units = units.into_iter().map(u16::from_le).collect();
        listing
            .names
            .push((FileRef(file), Name::from_units(units)?));
        Ok(())
    })
}

extern "C" fn piece<F>(context: *mut c_void, offset: u64, length: u64, bytes: *mut c_void) -> c_int
where
    F: FnMut(u64, &mut [u8]) -> Result<(), Errno>,
{
    // SAFETY: the context is the closure of `write`; `bytes` are `length` bytes of the shim's.
    let (content, buffer) = unsafe { (&mut *context.cast::<F>(), buffer(bytes, length)) };
    guarded(|| content(offset, buffer))
}

/// # Safety
///
/// `bytes` has to be `length` bytes that nothing else uses during 'a.
unsafe fn buffer<'a>(bytes: *mut c_void, length: u64) -> &'a mut [u8] {
    if length == 0 {
        return &mut [];
    }
    // SAFETY: the caller's. The shim takes lengths from C's own sizes: they fit.
    unsafe { slice::from_raw_parts_mut(bytes.cast(), length as usize) }
}

/// As `struct ce_disk`.
#[repr(C)]
struct DiskOps {
    context: *mut c_void,
    size: i64,
    sector_size: i32,
    read: extern "C" fn(*mut c_void, u64, u64, *mut c_void) -> c_int,
    write: extern "C" fn(*mut c_void, u64, u64, *const c_void) -> c_int,
    sync: extern "C" fn(*mut c_void) -> c_int,
}

// As native/ce_ntfs.h declares them.
unsafe extern "C" {
    fn ce_mount(disk: *const DiskOps, volume: *mut *mut c_void) -> c_int;
    fn ce_unmount(volume: *mut c_void) -> c_int;
    fn ce_lookup(
        volume: *mut c_void,
        folder: u64,
        name: *const u16,
        length: u8,
        file: *mut u64,
    ) -> c_int;
    fn ce_inspect(volume: *mut c_void, file: u64, info: *mut Info) -> c_int;
    fn ce_list(
        volume: *mut c_void,
        folder: u64,
        context: *mut c_void,
        found: extern "C" fn(*mut c_void, u64, *const u16, u8) -> c_int,
    ) -> c_int;
    fn ce_create(
        volume: *mut c_void,
        folder: u64,
        name: *const u16,
        length: u8,
        is_folder: c_int,
        security_id: u32,
        file: *mut u64,
    ) -> c_int;
    fn ce_delete(
        volume: *mut c_void,
        folder: u64,
        file: u64,
        name: *const u16,
        length: u8,
    ) -> c_int;
    fn ce_write(
        volume: *mut c_void,
        file: u64,
        size: u64,
        context: *mut c_void,
        content: extern "C" fn(*mut c_void, u64, u64, *mut c_void) -> c_int,
    ) -> c_int;
    fn ce_change(volume: *mut c_void, file: u64, changes: *const Changes) -> c_int;
    fn ce_inherited(volume: *mut c_void, folder: u64, is_folder: c_int, id: *mut u32) -> c_int;
    fn ce_read_security(
        volume: *mut c_void,
        file: u64,
        descriptor: *mut u8,
        capacity: u32,
        length: *mut u32,
    ) -> c_int;
    fn ce_write_security(
        volume: *mut c_void,
        file: u64,
        descriptor: *const u8,
        length: u32,
    ) -> c_int;
    fn ce_read_short_name(
        volume: *mut c_void,
        folder: u64,
        file: u64,
        name: *mut c_char,
        capacity: u32,
    ) -> c_int;
    fn ce_write_short_name(
        volume: *mut c_void,
        folder: u64,
        file: u64,
        name: *const c_char,
    ) -> c_int;
    fn ce_last_message() -> *const c_char;
}

thread_local! {
    /// Whether a callback panicked: no other one is called then.
    static HAS_PANICKED: Cell<bool> = const { Cell::new(false) };
}

const COMPRESSED: u32 = 1;
const SPARSE: u32 = 2;
const ENCRYPTED: u32 = 4;

/// The longest security descriptor: what one entry of `$Secure` holds.
const MAX_DESCRIPTOR: u32 = 64 << 10;
