//! Which Windows it is, whose, and from which control set it starts.

use serde::Serialize;

use super::registry::Registry;
use super::time::UtcTime;

/// Which Windows it is. What the hives do not tell is `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowsVersion {
    /// The name it is sold by, such as `Windows 11 Enterprise`.
    pub product: Option<String>,
    /// The edition, such as `Enterprise` or `ServerDatacenter`.
    pub edition: Option<String>,
    /// `Client`, `Server`, `Server Core`.
    pub installation_type: Option<String>,
    /// The version, such as `23H2`, or before those `1709`.
    pub version: Option<String>,
    /// The build.
    pub build: Option<u32>,
    /// The revision of the build (UBR): how far it is updated.
    pub revision: Option<u32>,
    /// `x64`, `x86` or `arm64`.
    pub architecture: Option<String>,
    /// Languages of its user interface.
    pub languages: Vec<String>,
    /// When it was installed, or upgraded last.
    pub installed: Option<UtcTime>,
    /// When it was shut down last.
    pub last_shutdown: Option<UtcTime>,
}

/// Whose machine it is.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Computer {
    /// Its name.
    pub name: Option<String>,
    /// Whether it is a member of a domain, if that can be told.
    pub is_domain_member: Option<bool>,
    /// The domain, by its DNS name if there is one, or the workgroup.
    pub domain: Option<String>,
    /// Whether setup is still under way, as in an image that was generalized by Sysprep.
    pub setup_in_progress: bool,
}

/// The control sets: `Select`, and which are there.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ControlSets {
    /// The one that Windows ran with last.
    pub current: Option<u32>,
    /// The one that it starts with next.
    pub default: Option<u32>,
    /// The last one that a logon succeeded with.
    pub last_known_good: Option<u32>,
    /// The one that was given up; 0 for none.
    pub failed: Option<u32>,
    /// Those that there are.
    pub present: Vec<u32>,
}

impl ControlSets {
    pub(super) fn read(system: Registry<'_>) -> Self {
        let select = |name| system.number("Select", name);
        let root = system.subkeys("");
        let numbers = root.iter().filter_map(|(name, _)| {
            let digits = name
                .get(..10)
                .filter(|start| start.eq_ignore_ascii_case("ControlSet"));
            digits.and_then(|_| name.get(10..)?.parse().ok())
        });
        let mut present: Vec<u32> = numbers.collect();
        present.sort_unstable();
        Self {
            current: select("Current"),
            default: select("Default"),
            last_known_good: select("LastKnownGood"),
            failed: select("Failed"),
            present,
        }
    }

    /// The key of the set that counts: the current one, or, where that is missing, another.
    pub fn key(&self) -> Option<String> {
        let named = [self.current, self.default, self.last_known_good];
        let mut named = named.into_iter().flatten();
        let number = named
            .find(|number| self.present.contains(number))
            .or_else(|| self.present.first().copied())?;
        Some(format!("ControlSet{number:03}"))
    }
}

impl WindowsVersion {
    /// `set` is the key of the control set.
    pub(super) fn read(
        system: Option<(Registry<'_>, &str)>,
        software: Option<Registry<'_>>,
    ) -> Self {
        let mut version = software.map(Self::of_software).unwrap_or_default();
        let Some((system, set)) = system else {
            return version;
        };
        let environment = format!(r"{set}\Control\Session Manager\Environment");
        let architecture = system.text(&environment, "PROCESSOR_ARCHITECTURE");
        version.architecture = architecture.map(|name| match name.to_ascii_uppercase().as_str() {
            "AMD64" => "x64".to_owned(),
            "X86" => "x86".to_owned(),
            "ARM64" => "arm64".to_owned(),
            _ => name,
        });
        let languages = system.subkeys(&format!(r"{set}\Control\MUI\UILanguages"));
        version.languages = languages.into_iter().map(|(name, _)| name).collect();
        let shutdown = system.data(&format!(r"{set}\Control\Windows"), "ShutdownTime");
        let ticks = shutdown.and_then(|data| Some(u64::from_le_bytes(data.try_into().ok()?)));
        version.last_shutdown = ticks.map(UtcTime::from_file_time);
        version
    }

    fn of_software(software: Registry<'_>) -> Self {
        let text = |name| software.text(CURRENT_VERSION, name);
        let number = |name| software.number(CURRENT_VERSION, name);
        let build = text("CurrentBuildNumber").or_else(|| text("CurrentBuild"));
        let build = build.and_then(|build| build.parse().ok());
        let installation_type = text("InstallationType");
        let is_client = installation_type.as_deref() != Some("Server")
            && installation_type.as_deref() != Some("Server Core");
        let product = text("ProductName").map(|name| match name.strip_prefix("Windows 10") {
            // Windows 11 goes on calling itself Windows 10 there.
            Some(rest) if is_client && build >= Some(FIRST_WINDOWS_11) => {
                format!("Windows 11{rest}")
            }
            _ => name,
        });
        Self {
            product,
            edition: text("EditionID"),
            installation_type,
            version: text("DisplayVersion").or_else(|| text("ReleaseId")),
            build,
            revision: number("UBR"),
            installed: number("InstallDate")
                .filter(|seconds| *seconds > 0)
                .map(|seconds| UtcTime(seconds.into())),
            ..Self::default()
        }
    }

    /// Product, version and build in one line.
    pub fn title(&self) -> String {
        let product = self
            .product
            .as_deref()
            .unwrap_or("Windows of an unknown version");
        let mut title = product.to_owned();
        if let Some(version) = &self.version {
            title.push_str(&format!(" {version}"));
        }
        match (self.build, self.revision) {
            (Some(build), Some(revision)) => {
                title.push_str(&format!(" (build {build}.{revision})"))
            }
            (Some(build), None) => title.push_str(&format!(" (build {build})")),
            _ => {}
        }
        title
    }
}

impl Computer {
    pub(super) fn read(
        system: Option<(Registry<'_>, &str)>,
        security: Option<Registry<'_>>,
    ) -> Self {
        let mut computer = Self::default();
        if let Some((system, set)) = system {
            let name = format!(r"{set}\Control\ComputerName\ComputerName");
            computer.name = system.text(&name, "ComputerName");
            let tcpip = format!(r"{set}\Services\Tcpip\Parameters");
            computer.domain = system
                .text(&tcpip, "NV Domain")
                .or_else(|| system.text(&tcpip, "Domain"));
            computer.setup_in_progress = system.number("Setup", "SystemSetupInProgress") == Some(1);
        }
        // The local security authority has the last word: a DNS suffix alone joins no domain.
        if let Some(policy) = security.filter(|policy| policy.key("Policy").is_some()) {
            let sid = policy.data(r"Policy\PolPrDmS", "");
            let is_member = sid.is_some_and(|sid| !sid.is_empty());
            computer.is_domain_member = Some(is_member);
            let dns = policy
                .data(r"Policy\PolDnDDN", "")
                .and_then(|data| counted_text(&data));
            let flat = policy
                .data(r"Policy\PolPrDmN", "")
                .and_then(|data| counted_text(&data));
            computer.domain = dns.filter(|_| is_member).or(flat).or(computer.domain);
        }
        computer
    }
}

/// A UNICODE_STRING as the policy keeps it: length in bytes, room, position, then UTF-16.
fn counted_text(data: &[u8]) -> Option<String> {
    let length = u16::from_le_bytes(*data.first_chunk()?);
    let at = u32::from_le_bytes(*data.get(4..)?.first_chunk()?);
    let at = usize::try_from(at).ok()?;
    let bytes = data.get(at..)?.get(..length.into())?;
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
    Some(String::from_utf16_lossy(&units)).filter(|text| !text.is_empty())
}

const CURRENT_VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";

const FIRST_WINDOWS_11: u32 = 22_000;
