//! The platforms that images move between.

use std::fmt;
use std::str::FromStr;

/// Where a Windows image runs, or is to run.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Platform {
    /// Amazon Web Services (EC2 on Nitro).
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud (Compute Engine).
    Gcp,
    /// Nutanix AHV.
    Nutanix,
    /// VMware vSphere.
    Vsphere,
    /// XenServer.
    Xenserver,
}

impl Platform {
    /// All of them, by name.
    pub const ALL: [Self; 6] = [
        Self::Aws,
        Self::Azure,
        Self::Gcp,
        Self::Nutanix,
        Self::Vsphere,
        Self::Xenserver,
    ];

    /// The name in requests, on the command line and in catalogues.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Azure => "azure",
            Self::Gcp => "gcp",
            Self::Nutanix => "nutanix",
            Self::Vsphere => "vsphere",
            Self::Xenserver => "xenserver",
        }
    }

    /// The name that people know it by.
    pub fn title(self) -> &'static str {
        match self {
            Self::Aws => "AWS",
            Self::Azure => "Azure",
            Self::Gcp => "Google Cloud",
            Self::Nutanix => "Nutanix AHV",
            Self::Vsphere => "VMware vSphere",
            Self::Xenserver => "XenServer",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Takes a [name](Platform::name) or an alias, without regard to case.
impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alias = ALIASES
            .iter()
            .find(|(alias, _)| alias.eq_ignore_ascii_case(text))
            .map(|&(_, platform)| platform);
        Self::ALL
            .into_iter()
            .find(|platform| platform.name().eq_ignore_ascii_case(text))
            .or(alias)
            .ok_or_else(|| UnknownPlatform(text.to_owned()))
    }
}

/// A word that names none of the platforms.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is none of aws, azure, gcp, nutanix, vsphere, xenserver")]
pub struct UnknownPlatform(pub String);

/// What else is accepted for a platform.
const ALIASES: [(&str, Platform); 4] = [
    ("ahv", Platform::Nutanix),
    ("googlecloud", Platform::Gcp),
    ("vmware", Platform::Vsphere),
    ("xen", Platform::Xenserver),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_is_known_by_its_name_in_any_case() {
        for platform in Platform::ALL {
            assert_eq!(platform.name().parse(), Ok(platform));
            assert_eq!(platform.name().to_uppercase().parse(), Ok(platform));
        }
    }

    #[test]
    fn the_names_of_the_products_are_accepted() {
        for (alias, platform) in [
            ("AHV", Platform::Nutanix),
            ("GoogleCloud", Platform::Gcp),
            ("VMware", Platform::Vsphere),
            ("Xen", Platform::Xenserver),
        ] {
            assert_eq!(alias.parse(), Ok(platform));
        }
    }

    #[test]
    fn another_word_is_refused_with_the_words_that_are_known() {
        let refused = "OS/2".parse::<Platform>().unwrap_err().to_string();
        for platform in Platform::ALL {
            assert!(refused.contains(platform.name()), "{refused}");
        }
    }
}
