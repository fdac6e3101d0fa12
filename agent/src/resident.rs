//! Memory that was needed to start or for a job, given back while the daemon waits.
//!
//! Nearly all that is resident in a daemon that waits are clean pages of its program and of the
//! libraries that libsmbclient brings along: read once by the dynamic linker, and not used since. The
//! kernel would take them back when memory runs short; in a helper VM, which has little and nobody
//! who looks, and below a limit of the service manager, they should not be counted at all.

use std::fs;
use std::io;

/// Asks the kernel to take back the pages of files that are mapped read-only. What is needed again
/// is read again.
///
/// # Errors
///
/// The list of mappings can't be read. A mapping that the kernel does not take back is no error: for
/// files of others it wants more rights than to read them.
pub(crate) fn give_back() -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    for (start, length) in maps.lines().filter_map(read_only_file) {
        page_out(start, length);
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "advice to the kernel about memory, of a kind that changes no content"
)]
fn page_out(start: usize, length: usize) {
    let start = std::ptr::without_provenance_mut(start);
    // Kernels before 5.4 do not know it, and nothing is lost.
    //
    // SAFETY: MADV_PAGEOUT never changes what memory holds (madvise(2)): a page that can't be read
    // again from its file is written to swap or kept. So it does no harm either if by now something
    // else is mapped there, or nothing, which is an error.
    let _ = unsafe { libc::madvise(start, length, libc::MADV_PAGEOUT) };
}

/// Where the mapping of a line of `maps` lies, and how long it is, if it is one of a file that is
/// only read (proc_pid_maps(5)): `7f00-7f10 r-xp 00000000 fe:00 123   /usr/lib/x.so`.
fn read_only_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    let file = fields.nth(3)?;
    if !(access.starts_with("r-") && file.starts_with('/')) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_files_that_are_only_read_are_given_back() {
        let is = |line| read_only_file(line);
        assert_eq!(
            is("7f5c1000-7f5c3000 r-xp 00026000 fe:00 131  /usr/lib/lib with blanks.so"),
            Some((0x7f5c_1000, 0x2000))
        );
        assert!(is("1000-2000 r--p 00000000 fe:00 131  /usr/bin/x").is_some());
        assert!(is("1000-2000 rw-p 00000000 fe:00 131  /usr/bin/x").is_none());
        assert!(is("1000-2000 r--p 00000000 00:00 0  [vvar]").is_none());
        assert!(is("1000-2000 r--p 00000000 00:00 0").is_none());
        assert!(is("2000-1000 r--p 00000000 fe:00 131  /usr/bin/x").is_none());
        assert!(is("").is_none());
    }

    #[test]
    fn what_was_given_back_is_there_when_it_is_needed() {
        let text = include_str!("resident.rs");
        give_back().unwrap();
        assert!(text.ends_with("}\n"));
    }
}
