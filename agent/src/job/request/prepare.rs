//! The fields of a request that a prepare has, and the file of options that stands for some of them
//! on the command line.

use std::path::PathBuf;

use ce_disk::export::Md5Digest;
use ce_disk::units::ByteCount;
use ce_platform::Platform;
use ce_platform::catalog::schema::Provisioning;
use ce_platform::plan::{self, JobOptions};
use serde::Deserialize;

use super::{Fields, LocalOverrides, Request};
use crate::config::state_folder;
use crate::job::spec::{ConvertSpec, KnownHash, PrepareSpec};
use crate::job::{ErrorCode, JobError};

/// What a prepare is asked for, of the right types.
#[derive(Debug, Default)]
pub(super) struct PrepareFields {
    md5_hash: Option<String>,
    hashed_bytes: Option<u64>,
    convert_to_uefi: Option<bool>,
    options: OptionFields,
}

/// What is wanted beyond the platform.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct OptionFields {
    provisioning_type: Option<ProvisioningType>,
    xd_reconfigure: Option<XdReconfigure>,
    domain_unjoin: Option<bool>,
    install_misa: Option<bool>,
    network: Option<Network>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum ProvisioningType {
    Mcs,
    Pvs,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct XdReconfigure {
    #[serde(default)]
    controllers: Vec<String>,
    port_number: Option<u16>,
    enable_hdx_ports: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
enum Network {
    Keep,
    Dhcp,
}

/// Their names.
pub(super) const PREPARE_FIELDS: [&str; 8] = [
    "md5Hash",
    "hashedBytes",
    "convertToUefi",
    "provisioningType",
    "xdReconfigure",
    "domainUnjoin",
    "installMisa",
    "network",
];

impl PrepareFields {
    pub(super) fn take(fields: &mut Fields<'_>) -> Self {
        Self {
            md5_hash: fields.take("md5Hash"),
            hashed_bytes: fields.take("hashedBytes"),
            convert_to_uefi: fields.take("convertToUefi"),
            options: OptionFields {
                provisioning_type: fields.take("provisioningType"),
                xd_reconfigure: fields.take("xdReconfigure"),
                domain_unjoin: fields.take("domainUnjoin"),
                install_misa: fields.take("installMisa"),
                network: fields.take("network"),
            },
        }
    }
}

impl OptionFields {
    /// The options, or every problem with them: the field, and what is wrong with it.
    fn check(self) -> Result<JobOptions, Vec<(&'static str, String)>> {
        let mut problems = Vec::new();
        let xd = self.xd_reconfigure;
        let controllers = xd.as_ref().map_or(Vec::new(), |xd| xd.controllers.clone());
        for name in &controllers {
            if !is_host_name(name) {
                let problem = format!("`{name}` is no name of a host");
                problems.push(("xdReconfigure.controllers", problem));
            }
        }
        let port_number = xd.as_ref().and_then(|xd| xd.port_number);
        if port_number == Some(0) {
            problems.push(("xdReconfigure.portNumber", "is 0".to_owned()));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(JobOptions {
            provisioning: self.provisioning_type.map(|kind| match kind {
                ProvisioningType::Mcs => Provisioning::Mcs,
                ProvisioningType::Pvs => Provisioning::Pvs,
            }),
            domain_unjoin: self.domain_unjoin.unwrap_or(false),
            install_misa: self.install_misa.unwrap_or(false),
            controllers,
            port_number,
            enable_hdx_ports: xd.and_then(|xd| xd.enable_hdx_ports).unwrap_or(false),
            network: match self.network {
                Some(Network::Dhcp) => plan::Network::Dhcp,
                Some(Network::Keep) | None => plan::Network::Keep,
            },
        })
    }
}

/// Whether it can be the name or address of a machine: it goes into a list with spaces between.
fn is_host_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    !name.is_empty() && name.len() <= 253 && name.bytes().all(is_plain)
}

/// Reads a file of options.
///
/// # Errors
///
/// `InvalidRequest`, with every problem.
pub(crate) fn read_options(text: &str) -> Result<JobOptions, JobError> {
    let options: OptionFields =
        serde_json::from_str(text).map_err(|error| JobError::invalid("--options", error))?;
    options.check().map_err(|problems| {
        let problems: Vec<String> = problems
            .into_iter()
            .map(|(field, problem)| format!("{field}: {problem}"))
            .collect();
        JobError::new(ErrorCode::InvalidRequest, problems.join("; "))
    })
}

impl Request {
    pub(super) fn checked_prepare(
        &mut self,
        to: Option<Platform>,
        local: &LocalOverrides,
    ) -> Option<PrepareSpec> {
        if to.is_none() {
            self.problem_if_absent("platform", "say where the disk is to run");
        }
        let fields = std::mem::take(&mut self.prepare);
        let md5 = fields.md5_hash.and_then(|text| {
            let md5 = Md5Digest::from_hex(&text);
            if md5.is_none() {
                self.problem("md5Hash", "an MD5 has 32 hexadecimal digits");
            }
            md5
        });
        if fields.hashed_bytes.is_some() && !self.given.contains(&"md5Hash") {
            self.problem(
                "hashedBytes",
                "says how much `md5Hash` covers, and there is none",
            );
        }
        if fields.hashed_bytes == Some(0) {
            self.problem("hashedBytes", "is 0");
        }
        let options = match fields.options.check() {
            Ok(options) => Some(options),
            Err(problems) => {
                for (field, problem) in problems {
                    self.problem(field, problem);
                }
                None
            }
        };
        let scratch = self.scratch(local)?;
        Some(PrepareSpec {
            to: to?,
            known_hash: md5.map(|md5| KnownHash {
                md5,
                hashed: fields.hashed_bytes.map(ByteCount),
            }),
            options: options?,
            convert_to_uefi: fields.convert_to_uefi.unwrap_or(false),
            drivers: local.drivers.clone(),
            plan_only: false,
            scratch,
        })
    }

    pub(super) fn checked_convert(&mut self, local: &LocalOverrides) -> Option<ConvertSpec> {
        self.refuse_output("convertToUefi");
        Some(ConvertSpec {
            plan_only: false,
            scratch: self.scratch(local)?,
        })
    }

    fn scratch(&mut self, local: &LocalOverrides) -> Option<PathBuf> {
        let scratch = local.scratch.clone().map_or_else(state_folder, Ok);
        scratch.map_err(|error| self.problem("scratch", error)).ok()
    }
}
