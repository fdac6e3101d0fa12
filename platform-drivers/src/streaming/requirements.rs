//! What has to be true of a disk that is streamed, as `streaming.toml` of this crate says it.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::Platform;
use crate::catalog::Evidence;

/// The file, read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    schema: u32,
    #[serde(rename = "platform")]
    platforms: Vec<StreamedOn>,
    /// The drivers that carry a stream.
    #[serde(rename = "driver")]
    pub drivers: Vec<StreamDriver>,
    /// What an earlier life of the image left.
    #[serde(rename = "leftover")]
    pub leftovers: Vec<Leftover>,
}

/// A platform that published disks are streamed on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamedOn {
    name: String,
    evidence: Vec<Evidence>,
}

/// A driver that a stream does not come without.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamDriver {
    /// Its service.
    pub service: String,
    /// What it is.
    pub title: String,
    /// Its files below the folder of Windows, of which one has to be there.
    pub images: Vec<String>,
    /// What it does.
    pub why: String,
    /// How that is known.
    pub evidence: Vec<Evidence>,
}

/// A file that should be gone.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leftover {
    /// Where it is, from the root of the volume.
    pub file: String,
    /// What it is.
    pub what: String,
    /// How that is known.
    pub evidence: Vec<Evidence>,
}

impl Requirements {
    /// Those of this program.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, with its line.
    pub fn builtin() -> Result<&'static Self, String> {
        static BUILTIN: LazyLock<Result<Requirements, String>> =
            LazyLock::new(|| Requirements::parse(TEXT));
        BUILTIN.as_ref().map_err(Clone::clone)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let read: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if read.schema != SCHEMA {
            let found = read.schema;
            return Err(format!("schema {found}, expected {SCHEMA}"));
        }
        let mut seen = BTreeSet::new();
        for StreamedOn { name, .. } in &read.platforms {
            let platform: Platform = name.parse().map_err(|_| format!("no platform: {name:?}"))?;
            if !seen.insert(platform) {
                return Err(format!("{name:?} is there twice"));
            }
        }
        let is_unfounded = read.evidence().any(<[Evidence]>::is_empty);
        if is_unfounded {
            return Err("something is without evidence".to_owned());
        }
        Ok(read)
    }

    fn evidence(&self) -> impl Iterator<Item = &[Evidence]> {
        let platforms = self.platforms.iter().map(|on| &*on.evidence);
        let drivers = self.drivers.iter().map(|driver| &*driver.evidence);
        let leftovers = self.leftovers.iter().map(|leftover| &*leftover.evidence);
        platforms.chain(drivers).chain(leftovers)
    }

    /// The platforms that disks are streamed on.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        // All of them were parsed before.
        self.platforms.iter().filter_map(|on| on.name.parse().ok())
    }
}

const SCHEMA: u32 = 1;

const TEXT: &str = include_str!("../../streaming.toml");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_in_the_program_is_sound() {
        let requirements = Requirements::builtin().unwrap();
        let platforms: Vec<Platform> = requirements.platforms().collect();
        let expected = [
            Platform::Azure,
            Platform::Gcp,
            Platform::Vsphere,
            Platform::Xenserver,
        ];
        assert_eq!(platforms, expected);
        assert!(!requirements.drivers.is_empty() && !requirements.leftovers.is_empty());
    }

    #[test]
    fn what_is_misspelt_or_unfounded_is_refused() {
        for (from, to) in [
            ("schema = 1", "schema = 2"),
            ("name     = \"gcp\"", "name     = \"azure\""),
            ("name     = \"gcp\"", "name     = \"gpc\""),
            ("service  =", "services ="),
            ("[\"source: BIS-F names it\"]", "[]"),
            ("\"source: BIS-F names it\"", "\"BIS-F names it\""),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let text = TEXT.replacen(from, to, 1);
            assert!(Requirements::parse(&text).is_err(), "{to} was accepted");
        }
    }
}
