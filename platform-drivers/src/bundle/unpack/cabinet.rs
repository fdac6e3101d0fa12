//! Cabinets, alone or in an MSI package.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek};

use super::{Output, UnpackError, refused};
use crate::bundle::cabinet::{Cabinet, CabinetError, CabinetLimits};

impl Output<'_> {
    /// Unpacks the files for which `path` gives one.
    pub(super) fn cabinet<R: Read + Seek>(
        &mut self,
        source: R,
        format: &'static str,
        path: impl Fn(&str) -> Option<String>,
    ) -> Result<(), UnpackError> {
        let limits = CabinetLimits {
            files: self.entries_left,
            bytes: self.bytes_left,
        };
        let failed = |archive: &Self, error| match error {
            CabinetError::TooMuch { what, limit } => UnpackError::TooMuch { what, limit },
            CabinetError::File { name, reason } => refused(&name, reason),
            error => archive.damaged(format, error),
        };
        let cabinet = Cabinet::open(source, limits);
        let mut cabinet = cabinet.map_err(|error| failed(self, error))?;
        let mut paths = HashMap::new();
        for file in cabinet.files() {
            self.count_entry()?;
            if let Some(path) = path(&file.name) {
                paths.insert(file.name.clone(), path);
            }
        }
        let done = cabinet.unpack(
            |file| paths.contains_key(&file.name),
            |files, content| {
                let mut written = None;
                // All that were asked for have a path.
                for name in files.iter().filter_map(|file| paths.get(&file.name)) {
                    written = Some(match written {
                        None => self.write(name, format, content)?,
                        Some(first) => {
                            let read = |source| UnpackError::Read {
                                path: self.archive.to_owned(),
                                source,
                            };
                            let mut again = fs::File::open(&first).map_err(read)?;
                            self.write(name, format, &mut again)?
                        }
                    });
                }
                Ok::<(), Unpacked>(())
            },
        );
        // What was passed over was work, too.
        self.bytes_left = self.bytes_left.min(cabinet.bytes_left());
        done.map_err(|error| match error {
            Unpacked::Cabinet(error) => failed(self, error),
            Unpacked::Archive(error) => error,
        })
    }
}

/// Which of the two failed.
enum Unpacked {
    Cabinet(CabinetError),
    Archive(UnpackError),
}

impl From<CabinetError> for Unpacked {
    fn from(error: CabinetError) -> Self {
        Self::Cabinet(error)
    }
}

impl From<UnpackError> for Unpacked {
    fn from(error: UnpackError) -> Self {
        Self::Archive(error)
    }
}
