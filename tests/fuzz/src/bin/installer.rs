//! Reads the tables of MSI packages of any bytes.
//!
//! Oracle: nothing panics or takes long. There are no more rows than a table has bytes, and a second
//! look sees the same.

#![no_main]

use std::io::{Cursor, Read};

use ce_platform::bundle::msi::InstallerPackage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut package) = InstallerPackage::open(Cursor::new(bytes)) else {
        return;
    };
    let wanted = ["Directory", "Directory_Parent", "DefaultDir"];
    if let Ok(rows) = package.rows("Directory", wanted) {
        assert!(rows.len() <= bytes.len());
        let again = package.rows("Directory", wanted);
        assert_eq!(again.expect("the same table"), rows);
    }
    let media = package.rows("Media", ["Cabinet"]).unwrap_or_default();
    for name in media.iter().flatten().flatten().take(4) {
        if let Ok(stream) = package.stream(name.trim_start_matches('#')) {
            let mut content = Vec::new();
            // It may end before its length says.
            drop(stream.take(1 << 20).read_to_end(&mut content));
            assert!(content.len() <= bytes.len());
        }
    }
});
