//! Reads catalogues and PE files of any bytes.
//!
//! Oracle: nothing panics or takes long. Every member is found by its own hash.

#![no_main]

use ce_platform::package::{CatalogFile, PeFile};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

fuzz_target!(|bytes: &[u8]| {
    if let Some(pe) = PeFile::parse(bytes) {
        assert_eq!(pe.digest::<Sha256>(bytes).len(), 32);
    }
    if let Ok(catalog) = CatalogFile::parse(bytes) {
        for member in &catalog.members {
            assert!(catalog.lists(&[member.hash]));
        }
        assert!(!catalog.signer.name.is_empty() || catalog.signer.issuers.len() < 9);
    }
});
