//! User data of a machine: one text for whoever wants it, which often is cloud-init.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

use super::{BootstrapError, Found, Look};

/// The configuration in user data as a whole, if it is one.
///
/// # Errors
///
/// It is for nobody else, and no text.
pub(super) fn look_into(
    origin: &str,
    mut data: Zeroizing<Vec<u8>>,
) -> Result<Look, BootstrapError> {
    if data.iter().all(u8::is_ascii_whitespace) {
        return Ok(Look::NotHere);
    }
    if let Some((_, whose)) = FOREIGN.iter().find(|(mark, _)| data.starts_with(mark)) {
        return Ok(Look::PassedOver(format!("{origin}: this is {whose}")));
    }
    match String::from_utf8(std::mem::take(&mut *data)) {
        Ok(text) => Ok(Look::Found(Found::at(origin.to_owned(), text.into()))),
        Err(error) => {
            error.into_bytes().zeroize();
            Err(BootstrapError::Garbled {
                origin: origin.to_owned(),
                problem: "is no text in UTF-8",
            })
        }
    }
}

/// What Base64, with or without line ends, stands for.
///
/// # Errors
///
/// It is none.
pub(super) fn from_base64(
    origin: &str,
    encoded: &[u8],
) -> Result<Zeroizing<Vec<u8>>, BootstrapError> {
    let compact: Zeroizing<Vec<u8>> = encoded
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect::<Vec<_>>()
        .into();
    let data = STANDARD.decode(&*compact);
    // The error would show a byte of what may be a secret.
    data.map(Zeroizing::new)
        .map_err(|_| BootstrapError::Garbled {
            origin: origin.to_owned(),
            problem: "is not Base64",
        })
}

/// How cloud-init and Ignition tell their kinds of user data, and gzip.
const FOREIGN: [(&[u8], &str); 13] = [
    (b"#!", "a script for cloud-init"),
    (b"#cloud-", "a configuration of cloud-init"),
    (b"#include", "a list for cloud-init"),
    (b"#part-handler", "a program for cloud-init"),
    (b"#upstart-job", "a job for cloud-init"),
    (b"## template: jinja", "a template for cloud-init"),
    (b"Content-Type:", "a message for cloud-init"),
    (b"MIME-Version:", "a message for cloud-init"),
    (b"From ", "a message for cloud-init"),
    (b"\x1f\x8b", "compressed, as cloud-init takes it"),
    (b"{", "JSON, as Ignition takes it"),
    (b"<script>", "a script for a Windows"),
    (b"<powershell>", "a script for a Windows"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn look(data: &[u8]) -> Result<Look, BootstrapError> {
        look_into("here", data.to_vec().into())
    }

    #[test]
    fn what_is_for_others_is_passed_over() {
        for data in [
            "#cloud-config\nusers: []\n",
            "#!/bin/sh\n",
            "{\"ignition\": {}}",
            "Content-Type: multipart/mixed",
            "## template: jinja\n#cloud-config",
        ] {
            assert!(
                matches!(look(data.as_bytes()), Ok(Look::PassedOver(_))),
                "{data}"
            );
        }
        for data in ["", " \r\n"] {
            assert!(matches!(look(data.as_bytes()), Ok(Look::NotHere)));
        }
        let Ok(Look::Found(found)) = look(b"# ours\nconnectors = []\n") else {
            panic!()
        };
        assert_eq!(&*found.text, "# ours\nconnectors = []\n");
        assert!(look(b"token = '\xff'").is_err());
    }

    #[test]
    fn base64_may_have_line_ends_and_is_otherwise_exact() {
        assert_eq!(&**from_base64("x", b"YWJj\r\nZA==\n").unwrap(), b"abcd");
        for wrong in [&b"YWJ"[..], b"YWJj*", b"YW=Jj", b"s3cret\xff"] {
            let error = from_base64("here", wrong).unwrap_err().to_string();
            assert_eq!(error, "here is not Base64");
        }
    }
}
