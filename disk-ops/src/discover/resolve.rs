//! Which of the attached disks a job means, and whether it may work on that one.

use super::{AttachedDisk, DiskSelector};
use crate::units::ByteCount;

/// What a job says of its disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// How it names the disk.
    pub selector: DiskSelector,
    /// The size that the disk must have.
    pub size: Option<ByteCount>,
    /// Whether the job writes to it.
    pub is_changed: bool,
}

/// Why a selector leads to no disk that a job may work on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Several disks answer to it.
    #[error("{selector} is true of several disks: {}", listed(.candidates))]
    Ambiguous {
        /// What was asked for.
        selector: DiskSelector,
        /// All that answer to it.
        candidates: Vec<AttachedDisk>,
    },
    /// It is mounted, or something on it is.
    #[error("{selector} is a disk that is in use: {disk} at {}", .disk.mounted_at.join(", "))]
    InUse {
        /// What was asked for.
        selector: DiskSelector,
        /// The disk.
        disk: Box<AttachedDisk>,
    },
    /// None answers to it.
    #[error("no disk has {selector}; attached: {}", listed(.attached))]
    NotFound {
        /// What was asked for.
        selector: DiskSelector,
        /// All that are attached.
        attached: Vec<AttachedDisk>,
    },
    /// Only a disk that this machine runs from answers to it.
    #[error("{selector} is a disk that this machine itself runs from: {}", listed(.candidates))]
    Own {
        /// What was asked for.
        selector: DiskSelector,
        /// All that answer to it.
        candidates: Vec<AttachedDisk>,
    },
    /// It is to be changed, and can't be written.
    #[error("{selector} is a disk that can't be written: {disk}")]
    ReadOnly {
        /// What was asked for.
        selector: DiskSelector,
        /// The disk.
        disk: Box<AttachedDisk>,
    },
    /// Its medium can be taken out.
    #[error("{selector} is a removable medium: {disk}")]
    Removable {
        /// What was asked for.
        selector: DiskSelector,
        /// The disk.
        disk: Box<AttachedDisk>,
    },
    /// It has another size than the job says.
    #[error(
        "{selector} is {} long; disk.sizeBytes says {expected}; attached: {}",
        .disk.size, listed(.attached)
    )]
    WrongSize {
        /// What was asked for.
        selector: DiskSelector,
        /// The size that was asked for.
        expected: ByteCount,
        /// The disk.
        disk: Box<AttachedDisk>,
        /// All that are attached.
        attached: Vec<AttachedDisk>,
    },
}

/// The one disk of `disks` that is wanted. If the selector is true of several, the size decides between
/// them, if it can.
///
/// # Errors
///
/// [`ResolveError`], with every disk that comes into question.
pub fn resolve<'d>(
    disks: &'d [AttachedDisk],
    wanted: &Wanted,
) -> Result<&'d AttachedDisk, ResolveError> {
    let selector = &wanted.selector;
    let selected: Vec<_> = disks.iter().filter(|disk| selector.selects(disk)).collect();
    let (own, mut others): (Vec<_>, Vec<_>) = selected.into_iter().partition(|disk| disk.is_own());
    // A number that a machine's own disk shares with others is no reason to refuse these.
    if !own.is_empty() && (others.is_empty() || !matches!(selector, DiskSelector::Lun(_))) {
        return Err(ResolveError::Own {
            selector: selector.clone(),
            candidates: own.into_iter().cloned().collect(),
        });
    }
    if others.len() > 1
        && let Some(size) = wanted.size
        && others.iter().any(|disk| disk.size == size)
    {
        others.retain(|disk| disk.size == size);
    }
    match others[..] {
        [disk] => check_fitness(disk, disks, wanted).map(|()| disk),
        [] => Err(ResolveError::NotFound {
            selector: selector.clone(),
            attached: disks.to_vec(),
        }),
        _ => Err(ResolveError::Ambiguous {
            selector: selector.clone(),
            candidates: others.into_iter().cloned().collect(),
        }),
    }
}

/// Whether a job may work on `disk`, one of the `attached`, that it names so.
///
/// # Errors
///
/// [`ResolveError`]: it is removable, of another size, in use, or can't be written and has to be.
pub fn check_fitness(
    disk: &AttachedDisk,
    attached: &[AttachedDisk],
    wanted: &Wanted,
) -> Result<(), ResolveError> {
    let (selector, found) = (wanted.selector.clone(), || Box::new(disk.clone()));
    if disk.is_removable {
        return Err(ResolveError::Removable {
            selector,
            disk: found(),
        });
    }
    if let Some(expected) = wanted.size
        && expected != disk.size
    {
        return Err(ResolveError::WrongSize {
            selector,
            expected,
            disk: found(),
            attached: attached.to_vec(),
        });
    }
    if !disk.mounted_at.is_empty() {
        return Err(ResolveError::InUse {
            selector,
            disk: found(),
        });
    }
    if wanted.is_changed && disk.is_read_only {
        return Err(ResolveError::ReadOnly {
            selector,
            disk: found(),
        });
    }
    Ok(())
}

fn listed(disks: &[AttachedDisk]) -> String {
    if disks.is_empty() {
        return "none".into();
    }
    let disks: Vec<_> = disks.iter().map(ToString::to_string).collect();
    disks.join(", ")
}

#[cfg(test)]
mod tests;
