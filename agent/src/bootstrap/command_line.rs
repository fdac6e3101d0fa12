//! `ce.config=FILE` on the kernel's command line.

use std::path::PathBuf;

use super::{BootstrapError, Look, Place, named_file};
use crate::job::journal::read_bounded;

/// The configuration that the kernel's command line names.
pub(super) fn find(place: &Place) -> Result<Look, BootstrapError> {
    // Where there is no such file, as in some containers, there is no such parameter.
    let line = read_bounded(&place.root.join("proc/cmdline"), LONGEST_LINE)?.unwrap_or_default();
    let found = parameter(&line)
        .map(|path| named_file("ce.config= on the kernel's command line", &path))
        .transpose()?;
    Ok(found.into())
}

/// The value of `ce.config=`; the last one counts, as with the kernel's own parameters.
fn parameter(line: &str) -> Option<PathBuf> {
    let values = line
        .split_ascii_whitespace()
        // What follows belongs to init.
        .take_while(|word| *word != "--")
        .filter_map(|word| word.strip_prefix("ce.config="));
    values.last().map(|value| value.trim_matches('"').into())
}

/// The kernel takes at most 4096 bytes on most machines.
const LONGEST_LINE: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_found_among_others() {
        let at = |line| parameter(line).map(|path| path.display().to_string());
        assert_eq!(at("quiet ce.config=/a ro\n").as_deref(), Some("/a"));
        assert_eq!(at("ce.config=/a ce.config=\"/b\"").as_deref(), Some("/b"));
        assert_eq!(at("xce.config=/a -- ce.config=/b"), None);
    }
}
