//! Custom data on the disc from which Azure has a new machine provisioned: `ovf-env.xml`, the element
//! `CustomData` with Base64 in it.
//!
//! The disc is there from a machine's creation to its first restart. Source: what cloud-init's
//! `DataSourceAzure` reads; Microsoft documents the schema ("ovf-env.xml", Windows Azure).

use ce_platform::Platform;
use roxmltree::{Document, ParsingOptions};

use super::drives::drives;
use super::user_data::{from_base64, look_into};
use super::{BootstrapError, LONGEST_CONFIG, Look, Place};

/// The configuration in the custom data.
pub(super) fn find(place: &Place) -> Result<Look, BootstrapError> {
    if place.platform() != Some(Platform::Azure) {
        return Ok(Look::NotHere);
    }
    for mut drive in drives(&place.root) {
        let origin = format!("the custom data in {FILE} on {}", drive.node.display());
        let environment = match drive.read(FILE, LONGEST_CONFIG) {
            Ok(Some(environment)) => environment,
            Ok(None) => continue,
            Err(source) => return Err(BootstrapError::Drive { origin, source }),
        };
        let garbled = |problem| BootstrapError::Garbled {
            origin: origin.clone(),
            problem,
        };
        let text = std::str::from_utf8(&environment).map_err(|_| garbled("is not UTF-8"))?;
        return match custom_data(text).ok_or_else(|| garbled("is not XML"))? {
            Some(encoded) => look_into(&origin, from_base64(&origin, encoded.as_bytes())?),
            None => Ok(Look::NotHere),
        };
    }
    Ok(Look::NotHere)
}

/// The text of the element, whatever its prefix; `None` if this is no XML.
fn custom_data(text: &str) -> Option<Option<String>> {
    let options = ParsingOptions {
        nodes_limit: MOST_NODES,
        // Nothing that is expanded.
        allow_dtd: false,
        ..ParsingOptions::default()
    };
    // Its error would show a piece of the text.
    let document =
        Document::parse_with_options(text.trim_start_matches('\u{feff}'), options).ok()?;
    let element = document
        .descendants()
        .find(|node| node.is_element() && node.tag_name().name() == "CustomData");
    Some(element.and_then(|element| Some(element.text()?.to_owned())))
}

const FILE: &str = "ovf-env.xml";

const MOST_NODES: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_data_is_found_whatever_its_prefix() {
        for (text, expected) in [
            (
                "\u{feff}<?xml version=\"1.0\"?><Environment xmlns=\"urn:o\" xmlns:wa=\"urn:w\">\
                 <wa:ProvisioningSection><LinuxProvisioningConfigurationSet xmlns=\"urn:a\">\
                 <CustomData>\nYWJj\n</CustomData></LinuxProvisioningConfigurationSet>\
                 </wa:ProvisioningSection></Environment>",
                Some(Some("\nYWJj\n".to_owned())),
            ),
            (
                "<a><ns1:CustomData xmlns:ns1='x'>YQ==</ns1:CustomData></a>",
                Some(Some("YQ==".into())),
            ),
            ("<a><CustomData/></a>", Some(None)),
            ("<a/>", Some(None)),
            ("<a>", None),
            (
                "<!DOCTYPE a [<!ENTITY x 'YQ=='>]><a><CustomData>&x;</CustomData></a>",
                None,
            ),
        ] {
            assert_eq!(custom_data(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_of_nothing_but_elements_has_an_end() {
        assert_eq!(
            custom_data(&format!("<a>{}</a>", "<b/>".repeat(20_000))),
            None
        );
        assert_eq!(custom_data(&"<a>".repeat(100_000)), None);
    }
}
