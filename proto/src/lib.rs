//! The messages between an agent and its Connector, version 1.
//!
//! ```text
//!  proto/ce/connector/v1/*.proto --- tests/generated.rs (protox) ---> src/gen/ce.connector.v1.rs
//!              |
//!              +-------------------- tests/compatibility.rs --------> released/v1.txt
//! ```
//!
//! The contract is in the `.proto` files; every field is explained there, and so in [`v1`]. This
//! crate holds wire types only: what they mean together is checked by whoever receives them. What
//! is generated is checked in, so that a build needs neither `protoc` nor a build script.
//!
//! Bytes from the wire are hostile. Decoding is bounded by [`MAX_MESSAGE_BYTES`], which both sides
//! have to set on their tonic client and server; the bounds of single fields, which the `.proto`
//! files name, are for the receiver to check.
#![forbid(unsafe_code)]

use std::fmt;

use zeroize::Zeroize;

/// Package `ce.connector.v1`.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated; tests/generated.rs says whether it is up to date"
)]
pub mod v1 {
    include!("gen/ce.connector.v1.rs");
}

/// The revision of the protocol that these types are of. It counts up with every addition to the
/// `.proto` files; README.md has the rules, and a list of what each revision added.
pub const PROTOCOL_REVISION: u32 = 2;

/// The largest message either side may send, encoded, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The longest certificate request in a `Hello`, in bytes.
pub const MAX_CERTIFICATE_REQUEST_BYTES: usize = 4096;

/// The metadata key under which an agent without a certificate sends its one-time token, as
/// `Bearer <token>`. It is no field of a message so that it can be checked before anything of a
/// message is decoded, and so that no dump of messages can show it.
pub const TOKEN_METADATA_KEY: &str = "authorization";

/// Whether `id` can name a job, an agent or an agent's state: 1 to 64 of `a-z A-Z 0-9 . _ -`, and
/// not a dot first, so that it can be a file's name as it is.
pub fn is_valid_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=64).contains(&id.len()) && id.bytes().all(allowed) && !id.starts_with('.')
}

impl v1::JobRequest {
    /// The lowest revision of the protocol that knows everything in the request: what
    /// `StartJob.required_revision` has to say of it. An agent that is older would do the job without
    /// what it does not know.
    pub fn required_revision(&self) -> u32 {
        // Every field by name: one that is added has to be thought of here.
        let Self {
            operation: _,
            platform: _,
            disk: _,
            output_storage_location: _,
            output_image_filename: _,
            output_format: _,
            hash_disk: _,
            md5_hash: _,
            hashed_bytes: _,
            free_space: _,
            provisioning_type: _,
            xd_reconfigure: _,
            domain_unjoin: _,
            install_misa: _,
            network: _,
            timeout_seconds: _,
            convert_to_uefi,
            keep_prepared,
        } = self;
        match convert_to_uefi.is_some() || keep_prepared.is_some() {
            true => 2,
            false => 1,
        }
    }
}

impl fmt::Debug for v1::Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Drop for v1::Credentials {
    fn drop(&mut self) {
        self.password.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let start = v1::StartJob {
            credentials: Some(v1::Credentials {
                domain: "EXAMPLE".into(),
                username: "writer".into(),
                password: "hunter2".into(),
            }),
            ..Default::default()
        };
        let message = v1::ConnectorMessage {
            sequence: 1,
            body: Some(v1::connector_message::Body::StartJob(start)),
        };
        let shown = format!("{message:?} {message:#?}");
        assert!(shown.contains("Credentials(..)"));
        assert!(!shown.contains("hunter2") && !shown.contains("writer"));
    }

    #[test]
    fn a_request_needs_no_newer_agent_than_its_fields_do() {
        let plain = v1::JobRequest {
            operation: Some(v1::Operation::Prepare.into()),
            timeout_seconds: Some(1),
            ..Default::default()
        };
        assert_eq!(plain.required_revision(), 1);
        // Saying no is saying something: an agent that does not know the field can't tell.
        let converted = v1::JobRequest {
            convert_to_uefi: Some(false),
            ..plain.clone()
        };
        assert_eq!(converted.required_revision(), 2);
        let kept = v1::JobRequest {
            keep_prepared: Some(true),
            ..plain
        };
        assert_eq!(kept.required_revision(), 2);
    }

    #[test]
    fn an_id_can_be_the_name_of_a_file_and_of_nothing_else() {
        for good in ["a", "job-17.b_C", &"x".repeat(64)] {
            assert!(is_valid_id(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(65),
        ] {
            assert!(!is_valid_id(bad), "{bad:?}");
        }
    }
}
