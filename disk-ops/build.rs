//! Links libntfs-3g statically, with the calls of `native/ce_ntfs.h` compiled against its headers.

use std::process::ExitCode;

fn main() -> ExitCode {
    match link_ntfs_3g() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!(
                "libntfs-3g {EXPECTED} is needed (Debian: apt-get install ntfs-3g-dev). Another \
                 version may write volumes differently: run the tests in tests/tests/ntfs_write \
                 with it before EXPECTED in disk-ops/build.rs is changed.\n{error}"
            );
            ExitCode::FAILURE
        }
    }
}

fn link_ntfs_3g() -> Result<(), pkg_config::Error> {
    println!("cargo::rerun-if-changed=native");
    // pkg-config would have it linked as a shared library; what is linked is said here.
    let library = pkg_config::Config::new()
        .exactly_version(EXPECTED)
        .cargo_metadata(false)
        .probe("libntfs-3g")?;
    cc::Build::new()
        .file("native/ce_ntfs.c")
        .includes(&library.include_paths)
        .std("gnu11")
        .flag_if_supported("-fstack-protector-strong")
        .define("_FORTIFY_SOURCE", "2")
        .opt_level(2)
        .warnings(true)
        .extra_warnings(true)
        .warnings_into_errors(true)
        .compile("ce_ntfs");
    // Not `link_paths`, which leaves out the folders that a linker searches by itself: rustc does
    // not search them for static libraries.
    let folder = pkg_config::get_variable("libntfs-3g", "libdir")?;
    println!("cargo::rustc-link-search=native={folder}");
    println!("cargo::rustc-link-lib=static=ntfs-3g");
    println!("cargo::rustc-env=CE_NTFS_3G_VERSION={EXPECTED}");
    Ok(())
}

/// The version that the tests have passed with.
const EXPECTED: &str = "2022.10.3";
