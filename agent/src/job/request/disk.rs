//! The disk that a request names, by exactly one selector.

use std::path::PathBuf;
use std::time::Duration;

use ce_disk::discover::{DiskSelector as Selector, Wanted};
use ce_disk::units::ByteCount;
use serde::Deserialize;

use super::{CHANGING, LocalOverrides, Request};
use crate::job::attach::AwaitedDisk;
use crate::job::selection::{Found, Reach, find_disk};
use crate::job::spec::DiskSpec;

/// The field, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DiskSelector {
    lun: Option<u64>,
    serial: Option<String>,
    wwid: Option<String>,
    hctl: Option<String>,
    device_name: Option<String>,
    path: Option<PathBuf>,
    size_bytes: Option<u64>,
}

impl DiskSelector {
    /// The selectors that are given.
    fn named(&self) -> Vec<&'static str> {
        [
            ("lun", self.lun.is_some()),
            ("serial", self.serial.is_some()),
            ("wwid", self.wwid.is_some()),
            ("hctl", self.hctl.is_some()),
            ("deviceName", self.device_name.is_some()),
            ("path", self.path.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }

    /// The one selector that is given.
    fn only(self) -> Selector {
        if let Some(path) = self.path {
            Selector::Path(path)
        } else if let Some(lun) = self.lun {
            Selector::Lun(lun)
        } else if let Some(serial) = self.serial {
            Selector::Serial(serial)
        } else if let Some(wwid) = self.wwid {
            Selector::Wwid(wwid)
        } else if let Some(hctl) = self.hctl {
            Selector::Hctl(hctl)
        } else {
            Selector::DeviceName(self.device_name.unwrap_or_default())
        }
    }
}

impl Request {
    /// The disk that the request names, or what is to be waited for.
    pub(super) fn checked_disk(
        &mut self,
        timeout: Duration,
        local: &LocalOverrides,
    ) -> Option<DiskSpec> {
        let selector = self.disk.take();
        let expected_size = selector
            .as_ref()
            .and_then(|disk| disk.size_bytes)
            .map(ByteCount);
        let selected = selector
            .as_ref()
            .map(DiskSelector::named)
            .unwrap_or_default();
        if selected.len() > 1 {
            self.problem(
                "disk",
                format!("{} contradict each other", selected.join(" and ")),
            );
            return None;
        }
        let operation = self.operation.as_deref();
        let is_changed = operation.is_some_and(|operation| CHANGING.contains(&operation));
        let mut disk = DiskSpec {
            path: PathBuf::new(),
            sector_size: None,
            as_raw: false,
            expected_size,
            awaited: None,
        };
        let wanted = match (&local.disk, selector) {
            (Some(local), _) => {
                disk.path.clone_from(local);
                return Some(disk);
            }
            (None, Some(selector)) if !selected.is_empty() => Wanted {
                selector: selector.only(),
                size: expected_size,
                is_changed,
            },
            (None, _) => {
                if !self.given.contains(&"disk") || selected.is_empty() {
                    self.problem("disk", "no disk is selected; name it by `path` or --disk");
                }
                return None;
            }
        };
        let limit = local.disk_wait.min(timeout);
        let found = match (&wanted.selector, &local.reach) {
            // What is wrong with it shows when it is opened.
            (Selector::Path(path), Reach::Local) if limit.is_zero() => {
                Ok(Found::Disk(path.clone()))
            }
            _ => find_disk(&wanted, &local.reach),
        };
        match found {
            Ok(Found::Disk(path)) => disk.path = path,
            Ok(Found::None(_)) if !limit.is_zero() => {
                disk.awaited = Some(AwaitedDisk {
                    wanted,
                    reach: local.reach.clone(),
                    limit,
                });
            }
            Ok(Found::None(error)) | Err(error) => {
                self.disk_error = Some(error);
                return None;
            }
        }
        Some(disk)
    }
}
