//! Section names with a target behind them: `NTamd64.10.0...17763`.
//!
//! ```text
//!  [Manufacturer]  %Vendor% = Model, NTamd64.6.3, NTamd64.10.0...17763
//!                                    `-- which of these, if any -----'
//!  [Model.NTamd64.10.0...17763]  %Device% = Install, PCI\VEN_...
//!                                                |
//!  [Install.NTamd64] else [Install.NT] else [Install]
//! ```
//!
//! The rules are those of "INF Manufacturer section" in the Windows driver documentation: the highest
//! version that is not above the running one wins; among equals the one that also names the product
//! type or suites. A build number counts only under its own version, and a Windows older than 14310
//! does not understand it at all. An architecture has to be named for all but x86.

use std::cmp::Ordering;
use std::fmt;

use super::directives::number;

/// What a driver runs on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 32-bit ARM.
    Arm,
    /// 64-bit ARM.
    Arm64,
    /// Itanium.
    Ia64,
    /// 32-bit x86.
    X86,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Amd64, Self::Arm, Self::Arm64, Self::Ia64, Self::X86];

    /// The name in decorations and in the driver store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm => "arm",
            Self::Arm64 => "arm64",
            Self::Ia64 => "ia64",
            Self::X86 => "x86",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What Windows was sold as (`VER_NT_*`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProductType {
    /// A client.
    Workstation,
    /// A server that is a domain controller.
    DomainController,
    /// Another server.
    Server,
}

impl ProductType {
    fn number(self) -> u32 {
        match self {
            Self::Workstation => 1,
            Self::DomainController => 2,
            Self::Server => 3,
        }
    }
}

/// The version of a Windows.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WindowsVersion {
    /// 10 from Windows 10 and Server 2016 on, 6 before.
    pub major: u32,
    /// 3 of 8.1 and Server 2012 R2.
    pub minor: u32,
    /// 17763 of Server 2019.
    pub build: u32,
}

impl fmt::Display for WindowsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// The Windows that a driver is installed into.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct WindowsTarget {
    /// Of the kernel.
    pub architecture: Architecture,
    /// Of the kernel.
    pub version: WindowsVersion,
    /// Client or server.
    pub product_type: ProductType,
    /// `VER_SUITE_*` flags.
    pub suites: u32,
}

impl fmt::Display for WindowsTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.product_type {
            ProductType::Workstation => "client",
            ProductType::DomainController => "domain controller",
            ProductType::Server => "server",
        };
        write!(
            f,
            "Windows {} {kind} on {}",
            self.version, self.architecture
        )
    }
}

/// `TargetOSVersion`: for which Windows a section is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Decoration {
    /// The machine; x86 if it is not named.
    pub architecture: Option<Architecture>,
    /// The lowest major version.
    pub major: Option<u32>,
    /// The lowest minor version of that major one.
    pub minor: Option<u32>,
    /// The only product type, a `VER_NT_*` number.
    pub product_type: Option<u32>,
    /// Suites of which all have to be there.
    pub suites: Option<u32>,
    /// The lowest build of just that version.
    pub build: Option<u32>,
}

impl Decoration {
    /// Reads `NTamd64.10.0...17763`; `None` of what Windows does not understand either and passes by.
    pub fn parse(text: &str) -> Option<Self> {
        let (nt, rest) = text.split_at_checked(2)?;
        if !nt.eq_ignore_ascii_case("nt") {
            return None;
        }
        let mut parts = rest.split('.');
        let architecture = match parts.next().unwrap_or_default() {
            "" => None,
            name => Some(Architecture::named(name)?),
        };
        let mut fields = [None; 5];
        for field in &mut fields {
            *field = match parts.next() {
                None | Some("") => None,
                Some(digits) => Some(number(digits)?),
            };
        }
        if parts.next().is_some() {
            return None;
        }
        let [major, minor, product_type, suites, build] = fields;
        Some(Self {
            architecture,
            major,
            minor,
            product_type,
            suites,
            build,
        })
    }

    /// Whether a section with this decoration is for a Windows.
    pub fn applies_to(&self, target: &WindowsTarget) -> bool {
        let version = target.version;
        let architecture = self.architecture.unwrap_or(Architecture::X86);
        let lowest = (self.major.unwrap_or(0), self.minor.unwrap_or(0));
        let running = (version.major, version.minor);
        let build_fits = self.build.is_none_or(|lowest_build| {
            version >= FIRST_WITH_BUILDS && (running != lowest || version.build >= lowest_build)
        });
        architecture == target.architecture
            && lowest <= running
            && build_fits
            && self
                .product_type
                .is_none_or(|wanted| wanted == target.product_type.number())
            && self
                .suites
                .is_none_or(|wanted| target.suites & wanted == wanted)
    }

    /// The oldest Windows that it is for.
    pub fn lowest_target(&self) -> WindowsTarget {
        let version = WindowsVersion {
            major: self.major.unwrap_or(5),
            minor: self.minor.unwrap_or(0),
            build: self.build.unwrap_or(0),
        };
        WindowsTarget {
            architecture: self.architecture.unwrap_or(Architecture::X86),
            version,
            product_type: match self.product_type {
                Some(2) => ProductType::DomainController,
                Some(3) => ProductType::Server,
                _ => ProductType::Workstation,
            },
            suites: self.suites.unwrap_or(0),
        }
    }

    /// Which of two that apply is closer to the Windows that they apply to.
    fn closeness(&self, other: &Self) -> Ordering {
        let version = |of: &Self| {
            (
                of.major.unwrap_or(0),
                of.minor.unwrap_or(0),
                of.build.unwrap_or(0),
                of.major.is_some(),
                of.minor.is_some(),
            )
        };
        let restriction = |of: &Self| {
            (
                of.product_type.is_some(),
                of.suites.map_or(0, u32::count_ones),
                of.architecture.is_some(),
            )
        };
        version(self)
            .cmp(&version(other))
            .then_with(|| restriction(self).cmp(&restriction(other)))
    }
}

/// The decoration, out of those that `[Manufacturer]` lists, whose section a Windows uses: as text, as
/// it stands there. `Some("")` means the section without one.
pub(super) fn choose<'d>(listed: &[&'d str], target: &WindowsTarget) -> Option<&'d str> {
    if listed.is_empty() {
        // Since Server 2003 SP1, a section for another machine has to name it.
        return (target.architecture == Architecture::X86).then_some("");
    }
    let mut best: Option<(&str, Decoration)> = None;
    for text in listed {
        let Some(decoration) = Decoration::parse(text).filter(|found| found.applies_to(target))
        else {
            continue;
        };
        let closer = best
            .as_ref()
            .is_none_or(|(_, best)| decoration.closeness(best).is_gt());
        if closer {
            best = Some((text, decoration));
        }
    }
    best.map(|(text, _)| text)
}

/// What may stand behind the name of an install section, the first choice first.
pub(super) fn install_suffixes(architecture: Architecture) -> [String; 3] {
    [
        format!(".NT{architecture}"),
        ".NT".to_owned(),
        String::new(),
    ]
}

/// An older Windows takes a decoration with a build number for an unknown one.
const FIRST_WITH_BUILDS: WindowsVersion = WindowsVersion {
    major: 10,
    minor: 0,
    build: 14310,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_documentation_are_followed() {
        let listed = ["NTamd64.6.1", "NTamd64.10.0", "NTamd64.10.0...14393"];
        for (version, expected) in [
            ((6, 0, 6002), None),
            ((6, 1, 7601), Some("NTamd64.6.1")),
            ((6, 3, 9600), Some("NTamd64.6.1")),
            ((10, 0, 10240), Some("NTamd64.10.0")),
            ((10, 0, 14392), Some("NTamd64.10.0")),
            ((10, 0, 14393), Some("NTamd64.10.0...14393")),
            ((10, 0, 26100), Some("NTamd64.10.0...14393")),
            ((10, 1, 1), Some("NTamd64.10.0...14393")),
        ] {
            assert_eq!(choose(&listed, &amd64(version)), expected, "{version:?}");
        }
    }

    #[test]
    fn a_version_takes_precedence_over_suites() {
        let xp = |suites| WindowsTarget {
            architecture: Architecture::X86,
            suites,
            ..amd64((5, 1, 2600))
        };
        let listed = ["NT", "NT.5", "NT.5.5", "NT....0x80"];
        assert_eq!(choose(&listed, &xp(0)), Some("NT.5"));
        assert_eq!(choose(&listed, &xp(0x80)), Some("NT.5"));
        let suites = ["NTx86", "NTx86....0x80", "NTamd64"];
        assert_eq!(choose(&suites, &xp(0x80)), Some("NTx86....0x80"));
        assert_eq!(choose(&suites, &xp(0)), Some("NTx86"));
    }

    #[test]
    fn a_product_type_is_for_that_product_only() {
        let listed = ["NTamd64.10.0", "NTamd64.10.0.3", "NTamd64.10.0.2"];
        let of = |product_type| WindowsTarget {
            product_type,
            ..amd64((10, 0, 20348))
        };
        let choice = |product_type| choose(&listed, &of(product_type));
        assert_eq!(choice(ProductType::Workstation), Some("NTamd64.10.0"));
        assert_eq!(choice(ProductType::Server), Some("NTamd64.10.0.3"));
        assert_eq!(
            choice(ProductType::DomainController),
            Some("NTamd64.10.0.2")
        );
    }

    #[test]
    fn a_machine_other_than_x86_has_to_be_named() {
        let amd64 = amd64((10, 0, 17763));
        let x86 = WindowsTarget {
            architecture: Architecture::X86,
            ..amd64
        };
        assert_eq!(choose(&[], &amd64), None);
        assert_eq!(choose(&[], &x86), Some(""));
        assert_eq!(choose(&["NT.6.1"], &amd64), None);
        assert_eq!(choose(&["NT.6.1"], &x86), Some("NT.6.1"));
    }

    #[test]
    fn what_windows_does_not_understand_is_passed_by() {
        for text in [
            "NT$ARCH$",
            "NTmips",
            "amd64",
            "NTamd64.ten",
            "NT.1.2.3.4.5.6",
            "N",
            "é",
        ] {
            assert_eq!(Decoration::parse(text), None, "{text}");
        }
        let target = amd64((10, 0, 17763));
        assert_eq!(choose(&["NT$ARCH$", "ntAMD64"], &target), Some("ntAMD64"));
    }

    fn amd64((major, minor, build): (u32, u32, u32)) -> WindowsTarget {
        WindowsTarget {
            architecture: Architecture::Amd64,
            version: WindowsVersion {
                major,
                minor,
                build,
            },
            product_type: ProductType::Workstation,
            suites: 0,
        }
    }
}
