//! The program as people use it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::stage::Program;

#[test]
fn a_connector_is_made_served_asked_and_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    assert!(good(at, &["init", "site", "--name", "connector.example"]).contains("next: "));
    let again = run(at, &["init", "site"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("holds a Connector already"));

    let absent = run(at, &["list", "--dir", "site"]);
    assert!(String::from_utf8_lossy(&absent.stderr).contains("does not run"));
    let program = Program::start(&at.join("site"));

    good(at, &["agent", "--dir", "site", "add", "ce-1"]);
    for name in ["ca.pem", "client.pem", "client.key"] {
        let facts = fs::metadata(at.join("agent-ce-1").join(name)).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&facts) & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert!(good(at, &["agent", "--dir", "site", "list"]).starts_with("ce-1 "));
    let token = good(at, &["token", "--dir", "site", "new", "ce-2"]);
    assert_eq!(token.trim().len(), 64);

    fs::write(at.join("job.json"), r#"{"operation":"inspect"}"#).unwrap();
    let submitted = good(
        at,
        &["submit", "--dir", "site", "job.json", "--agent", "ce-1"],
    );
    let id = submitted.trim();
    assert!(good(at, &["list", "--dir", "site"]).contains(id));
    assert_eq!(
        good(at, &["cancel", "--dir", "site", id]).trim(),
        "cancelled"
    );
    assert!(good(at, &["show", "--dir", "site", id]).contains(r#""code": "Cancelled""#));
    assert_eq!(good(at, &["logs", "--dir", "site", id, "--follow"]), "");
    let none = run(at, &["show", "--dir", "site", "none"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no job `none`"));

    good(at, &["agent", "--dir", "site", "remove", "ce-1"]);
    assert_eq!(good(at, &["agent", "--dir", "site", "list"]), "");
    program.kill();
}

#[test]
fn commands_are_not_served_where_others_could_listen() {
    let folder = tempfile::tempdir().unwrap();
    good(folder.path(), &["init", "site"]);
    let refused = run(
        folder.path(),
        &["serve", "--dir", "site", "--admin", "0.0.0.0:0"],
    );
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("is not of the loopback"), "{told}");
}

fn run(at: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ce-connector"))
        .args(arguments)
        .current_dir(at)
        .output()
        .unwrap()
}

fn good(at: &Path, arguments: &[&str]) -> String {
    let output = run(at, arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}
