//! Programs of others that the tests ask for their opinion.

use std::process::{Command, Output};

/// Runs a program that must be there and must be content.
pub fn run(package: &str, program: &str, arguments: &[&str]) -> String {
    let output = try_run(package, program, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{errors}"
    );
    text
}

/// Runs a program that must be there, whatever it says.
pub fn try_run(package: &str, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!("{program} can't be run ({error}): install the Debian package {package}")
        })
}
