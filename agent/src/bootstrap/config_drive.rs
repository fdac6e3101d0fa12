//! A drive that was made to configure this machine.
//!
//! | label | file | attached by |
//! |---|---|---|
//! | `config-2` | `openstack/latest/user_data` | Nutanix AHV, OpenStack |
//! | `cidata` | `user-data` | NoCloud: whoever made it by hand |
//!
//! It is not looked for on platforms that have a channel of their own and no such drives.
//!
//! Sources: "Config drives" (OpenStack Nova), "NoCloud" (documentation of cloud-init).

use ce_platform::Platform;

use super::drives::drives;
use super::user_data::look_into;
use super::{BootstrapError, LONGEST_CONFIG, Look, Place};

/// The configuration on a drive.
pub(super) fn find(place: &Place) -> Result<Look, BootstrapError> {
    if let Some(Platform::Aws | Platform::Azure | Platform::Gcp) = place.platform() {
        return Ok(Look::NotHere);
    }
    let mut meant = Vec::new();
    for drive in drives(&place.root) {
        let kind = KINDS.iter().find(|(label, _)| drive.is_labelled(label));
        meant.extend(kind.map(|(label, path)| (drive, *label, *path)));
    }
    let (mut drive, label, path) = match meant.len() {
        0 | 1 => match meant.pop() {
            None => return Ok(Look::NotHere),
            Some(only) => only,
        },
        _ => {
            let nodes: Vec<_> = meant
                .iter()
                .map(|(drive, ..)| drive.node.display().to_string())
                .collect();
            return Err(BootstrapError::SeveralDrives(nodes.join(", ")));
        }
    };
    let origin = format!("{path} on the drive {label} ({})", drive.node.display());
    match drive.read(path, LONGEST_CONFIG) {
        Ok(Some(data)) => look_into(&origin, data),
        Ok(None) => Ok(Look::PassedOver(format!("{origin}: there is no such file"))),
        Err(source) => Err(BootstrapError::Drive { origin, source }),
    }
}

/// Labels and files.
const KINDS: [(&str, &str); 2] = [
    ("config-2", "openstack/latest/user_data"),
    ("cidata", "user-data"),
];
