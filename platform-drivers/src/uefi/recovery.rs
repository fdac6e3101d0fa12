//! Where `reagentc` believes the recovery environment to be (`ReAgent.xml`).
//!
//! ```text
//!  on MBR   id = signature of the disk, in decimal    offset = first byte of the partition   guid = 0
//!  on GPT   id = 0                                    offset = the same                      guid = that of the disk
//! ```
//!
//! Each place that is on this disk, and whose partition stays, is named as it is named on GPT; all else
//! stays as it is, to the byte. A file that is not there, or is not text of UTF-8, says nothing.

use ce_disk::volume::{WinPath, WindowsVolume};

use super::{ITEM, NewPlaces, UefiError};
use crate::apply::{Content, FileChange};
use crate::bcd::Device;
use crate::plan::ChangeLine;
use crate::reagent::{self, attribute};

/// The file with the new places, and what is changed; `None` if it names none of this disk.
pub(super) fn rename(
    volume: &dyn WindowsVolume,
    folder: &WinPath,
    places: &NewPlaces,
) -> Result<Option<(FileChange, ChangeLine)>, UefiError> {
    let path = reagent::path(folder)?;
    let text = reagent::text(volume, &path)?;
    let Some(renamed) = text.and_then(|text| renamed(&text, places)) else {
        return Ok(None);
    };
    let line = ChangeLine::done(
        ITEM,
        format!("{path}: the recovery environment is on the GPT disk"),
        "reagentc finds it by the GUID of the disk, no more by the signature",
    );
    let content = Content::Written(renamed.into_bytes());
    Ok(Some((FileChange { path, content }, line)))
}

/// The text with all places renamed, if there are any.
fn renamed(text: &str, places: &NewPlaces) -> Option<String> {
    let mut renamed = String::with_capacity(text.len());
    let mut is_changed = false;
    for piece in text.split_inclusive('>') {
        match renamed_element(piece, places) {
            Some(element) => {
                is_changed = true;
                renamed.push_str(&element);
            }
            None => renamed.push_str(piece),
        }
    }
    is_changed.then_some(renamed)
}

fn renamed_element(element: &str, places: &NewPlaces) -> Option<String> {
    let number = |name| element.get(attribute(element, name)?)?.parse::<i64>().ok();
    let device = Device::Mbr {
        signature: signature(number("id")?)?,
        start: u64::try_from(number("offset")?).ok()?,
    };
    let place = places.of(device)?;
    let mut renamed = element.to_owned();
    renamed.replace_range(attribute(&renamed, "guid")?, &format!("{{{}}}", place.disk));
    renamed.replace_range(attribute(&renamed, "id")?, "0");
    Some(renamed)
}

/// A signature in decimal: some versions take its highest bit for a sign.
fn signature(number: i64) -> Option<u32> {
    let negative = || i32::try_from(number).ok().map(i32::cast_unsigned);
    u32::try_from(number).ok().or_else(negative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const WINDOWS_RE: u64 = 241 << 20;

    fn places(signature: u32) -> NewPlaces {
        NewPlaces {
            signature,
            disk: Uuid::from_u128(0xD15C),
            efi_system: Uuid::from_u128(2),
            windows: Uuid::from_u128(3),
            loader: Uuid::from_u128(4),
            resume: Uuid::from_u128(5),
            kept: vec![(1 << 20, None), (WINDOWS_RE, Some(Uuid::from_u128(6)))],
        }
    }

    fn file(id: &str, offset: u64, guid: &str) -> String {
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\r\n\r\n<WindowsRE version=\"2.0\">\r\n  \
             <WinreBCD id=\"{{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00fe}}\"/>\r\n  \
             <WinreLocation path=\"\\Recovery\\WindowsRE\" id=\"{id}\" offset=\"{offset}\" \
             guid=\"{guid}\"/>\r\n  \
             <ImageLocation path=\"\" id=\"0\" offset=\"0\" guid=\"{NOTHING}\"/>\r\n  \
             <InstallState state=\"1\"/>\r\n</WindowsRE>\r\n"
        )
    }

    const NOTHING: &str = "{00000000-0000-0000-0000-000000000000}";
    const DISK: &str = "{00000000-0000-0000-0000-00000000d15c}";

    #[test]
    fn the_place_of_the_recovery_environment_is_named_by_the_disk_and_nothing_else_changes() {
        let expected = Some(file("0", WINDOWS_RE, DISK));
        let positive = file("1511506142", WINDOWS_RE, NOTHING);
        assert_eq!(renamed(&positive, &places(0x5A17_C0DE)), expected);
        for negative in ["2343432205", "-1951535091"] {
            let text = file(negative, WINDOWS_RE, NOTHING);
            assert_eq!(renamed(&text, &places(0x8BAD_F00D)), expected, "{negative}");
        }
    }

    #[test]
    fn places_elsewhere_are_left_alone() {
        let places = places(0x5A17_C0DE);
        for text in [
            file("7", WINDOWS_RE, NOTHING),
            file("1511506142", 5 << 20, NOTHING),
            // Its partition is formatted.
            file("1511506142", 1 << 20, NOTHING),
            file("0", WINDOWS_RE, DISK),
            file("99999999999", WINDOWS_RE, NOTHING),
            "<WinreLocation id=\"1511506142\" offset=\"252706816\" guid=\"".into(),
            "no XML".into(),
        ] {
            assert_eq!(renamed(&text, &places), None, "{text}");
        }
    }
}
