//! `guestinfo.ce-agent.config` of a machine on VMware vSphere, in the extra configuration of its VM; in
//! Base64 if `guestinfo.ce-agent.config.encoding` is `base64` (or `b64`).
//!
//! It is read through the "backdoor", an I/O port that VMware answers. Where that was restricted
//! (`monitor_control.restrict_backdoor`) the processor ends the process that asks: there the configuration
//! has to come by a source that is before this one. The token in it is not wiped: what reads the port here
//! can't write it.

use zeroize::Zeroizing;

use super::user_data::{from_base64, look_into};
use super::{BootstrapError, Look, Place};

/// The configuration in guestinfo.
#[cfg(target_arch = "x86_64")]
pub(super) fn find(_: &Place) -> Result<Look, BootstrapError> {
    if !vmw_backdoor::is_vmware_cpu() {
        return Ok(Look::PassedOver(
            "guestinfo: the firmware says VMware and the processor does not".into(),
        ));
    }
    // The kernel may keep the right to use ports to itself; VMware answers without it as well.
    let backdoor = vmw_backdoor::probe_backdoor_privileged()
        .or_else(|_| vmw_backdoor::probe_backdoor())
        .map_err(unusable)?;
    let mut backdoor = backdoor;
    let mut channel = backdoor.open_enhanced_chan().map_err(unusable)?;
    look(|key| channel.get_guestinfo(key.as_bytes()).map_err(unusable))
}

/// There is no such port on other processors.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn find(_: &Place) -> Result<Look, BootstrapError> {
    Ok(Look::NotHere)
}

/// The configuration in what `get` knows by its keys.
fn look(
    mut get: impl FnMut(&str) -> Result<Option<Vec<u8>>, BootstrapError>,
) -> Result<Look, BootstrapError> {
    // A value that was emptied counts as none.
    let Some(value) = get(KEY)?.filter(|value| !value.is_empty()) else {
        return Ok(Look::NotHere);
    };
    let value = Zeroizing::new(value);
    let encoding = get(ENCODING_KEY)?.unwrap_or_default();
    match encoding.trim_ascii() {
        b"" => look_into(KEY, value),
        b"base64" | b"b64" => look_into(KEY, from_base64(KEY, &value)?),
        _ => Err(BootstrapError::Garbled {
            origin: ENCODING_KEY.into(),
            problem: "is neither `base64` nor empty",
        }),
    }
}

#[cfg(target_arch = "x86_64")]
fn unusable(error: vmw_backdoor::VmwError) -> BootstrapError {
    BootstrapError::GuestInfo(error.to_string())
}

const KEY: &str = "guestinfo.ce-agent.config";

const ENCODING_KEY: &str = "guestinfo.ce-agent.config.encoding";

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(value: Option<&str>, encoding: Option<&str>) -> Result<Look, BootstrapError> {
        look(|key| {
            let text = match key {
                KEY => value,
                _ => encoding,
            };
            Ok(text.map(|text| text.as_bytes().to_vec()))
        })
    }

    #[test]
    fn guestinfo_is_plain_or_base64_and_says_which() {
        for (value, encoding) in [
            ("log = 'x'", None),
            ("log = 'x'", Some("")),
            ("bG9nID0gJ3gn", Some("base64")),
            ("bG9nID0g\nJ3gn\n", Some("b64")),
        ] {
            let Ok(Look::Found(found)) = looked(Some(value), encoding) else {
                panic!("{encoding:?}")
            };
            assert_eq!(*found.text, "log = 'x'");
        }
        assert!(looked(Some("log = 'x'"), Some("base64")).is_err());
        assert!(looked(Some("log = 'x'"), Some("gzip+base64")).is_err());
        for value in [None, Some(""), Some(" ")] {
            assert!(matches!(looked(value, None), Ok(Look::NotHere)));
        }
    }

    #[test]
    fn a_machine_that_only_claims_to_be_vmwares_is_not_asked() {
        // The port would end this process.
        let place = Place::in_tests(std::path::Path::new("/nonexistent"));
        assert!(matches!(find(&place), Ok(Look::PassedOver(_))));
    }
}
