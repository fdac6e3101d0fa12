//! The checked-in code is what the `.proto` files say.

mod schema;

use std::fs;
use std::path::Path;

#[test]
fn the_checked_in_code_is_what_the_proto_files_say() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    tonic_prost_build::configure()
        .out_dir(scratch.path())
        .build_transport(false)
        // `Credentials` shows nothing; `src/lib.rs` has its `Debug`.
        .skip_debug([".ce.connector.v1.Credentials"])
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(schema::compiled())
        .expect("code for every message");
    let names = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names
    };
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/gen");
    let bless = std::env::var_os("CE_BLESS").is_some();
    for name in names(scratch.path()) {
        let fresh = fs::read_to_string(scratch.path().join(&name)).expect("generated code");
        if bless {
            fs::write(checked_in.join(&name), &fresh).expect("src/gen can be written");
        }
        let kept = fs::read_to_string(checked_in.join(&name)).unwrap_or_default();
        assert!(
            kept == fresh,
            "src/gen/{} is not what the .proto files say; run this test with CE_BLESS=1",
            name.display()
        );
    }
    assert_eq!(
        names(scratch.path()),
        names(&checked_in),
        "src/gen holds files that nothing generates"
    );
}
