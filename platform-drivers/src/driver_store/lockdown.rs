//! `PnpLockdownFiles`: whose the files are that plug and play has put in place.
//!
//! ```text
//!  SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\PnpLockdownFiles
//!    %SystemRoot%/System32/drivers/viostor.sys
//!      Class   4: Windows keeps others from changing the file (PnpLockdown = 1 in the INF), else 5
//!      Owners  the published INFs that bring it
//!      Source  where it is in the driver store
//! ```
//!
//! Not documented. It is as DISM enters files, by published registries of virtio drivers (Class 4) and
//! comparisons of images before and after DISM (Class 5).

use ce_regf::RegValue;

use super::StagedPackage;
use crate::hives::HiveName;
use crate::plan::edit::{Reason, RegistryEdit, RegistryEditKind};

/// The key in the SOFTWARE hive.
pub const LOCKDOWN: &str = r"Microsoft\Windows\CurrentVersion\Setup\PnpLockdownFiles";

/// The key of a file's entry, by its path on a volume where the folder of Windows is called `Windows`;
/// `None` outside of that folder, where there are none.
pub fn lockdown_key(path: &str) -> Option<String> {
    let (folder, rest) = path.split_once('\\')?;
    let is_windows = folder.eq_ignore_ascii_case("Windows") && !rest.is_empty();
    is_windows.then(|| format!("{LOCKDOWN}\\%SystemRoot%/{}", rest.replace('\\', "/")))
}

/// What enters the file `source` of the package under `key`, which has these `owners` so far. The INF
/// says whether it `is_locked`.
pub fn lockdown_edits(
    package: &StagedPackage<'_>,
    key: &str,
    source: &str,
    is_locked: bool,
    owners: &[String],
) -> Vec<RegistryEdit> {
    let own = package.published_name;
    let others = owners
        .iter()
        .map(String::as_str)
        .filter(|owner| !owner.eq_ignore_ascii_case(own));
    let owners: Vec<&str> = others.chain([own]).collect();
    let class = if is_locked { LOCKED } else { UNLOCKED };
    let source = format!(
        r"%SystemRoot%\System32\DriverStore\FileRepository\{}\{source}",
        package.label
    );
    let values = [
        ("Class", RegValue::dword(class)),
        ("Owners", RegValue::multi_sz(owners)),
        ("Source", RegValue::expand_sz(&source)),
    ];
    let edits = values.into_iter().map(|(name, value)| RegistryEdit {
        hive: HiveName::Software,
        key: key.to_owned(),
        change: RegistryEditKind::SetValue {
            name: name.to_owned(),
            value,
        },
        reason: Reason(format!("says that {} brings the file", package.inf_name)),
    });
    edits.collect()
}

const LOCKED: u32 = 4;
const UNLOCKED: u32 = 5;
