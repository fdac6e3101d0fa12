//! "I want to know what a prepare would do to my image, and I want to change a catalogue".

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn what_a_prepare_does_is_told_in_words_and_as_json() -> Result<()> {
    let run = ce_agent(["catalog", "show", "--from", "VMware", "--to", "Azure"])?.expect_code(0)?;
    for told in [
        "Preparing an image from VMware vSphere for Azure",
        "service VMTools (vmtoolsd.exe or VMwareService.exe): disabled",
        "driver storvsc (storvsc.sys, part of Windows, group Base)",
        "not verified: ",
    ] {
        ensure!(run.stdout.contains(told), "{told}\n{}", run.stdout);
    }
    let run = ce_agent(["catalog", "show", "--to", "aws", "--json"])?.expect_code(0)?;
    let value: Value = serde_json::from_str(&run.stdout)?;
    assert_eq!(value["from"], Value::Null);
    let groups = value["groups"].as_array().context("groups")?;
    let titles: Vec<&str> = groups
        .iter()
        .filter_map(|group| group["title"].as_str())
        .collect();
    ensure!(
        titles.contains(&"Boot storage") && titles.contains(&"What is taken out"),
        "{titles:?}"
    );
    Ok(())
}

#[test]
fn a_platform_that_there_is_not_is_wrong_usage() -> Result<()> {
    let run = ce_agent(["catalog", "show", "--to", "os2"])?.expect_code(2)?;
    ensure!(
        run.stderr.contains("none of aws, azure, gcp"),
        "{}",
        run.stderr
    );
    ce_agent(["catalog", "show", "--from", "aws"])?.expect_code(2)?;
    Ok(())
}

#[test]
fn the_built_in_catalogues_and_a_copy_of_them_are_good() -> Result<()> {
    let run = ce_agent(["catalog", "check"])?.expect_code(0)?;
    ensure!(run.stdout.starts_with("good: "), "{}", run.stdout);
    let edited = Edited::new()?;
    let run = ce_agent(["catalog", "check", edited.path()?])?.expect_code(0)?;
    ensure!(run.stdout.starts_with("good: "), "{}", run.stdout);
    Ok(())
}

#[test]
fn everything_wrong_with_an_edit_is_told_at_once_with_file_and_line() -> Result<()> {
    let edited = Edited::new()?;
    edited.replace(
        "removal/azure.toml",
        "title    = \"Azure VM Agent\"",
        "titel = \"Azure VM Agent\"",
    )?;
    edited.replace(
        "removal/vsphere.toml",
        "name = \"GISvc\"",
        "name = \"vmbus\"",
    )?;
    edited.replace("target/aws.toml", "VEN_1D0F&DEV_EC20", "VEN_1D0F&DEV_EC2")?;
    fs::remove_file(edited.0.path().join("citrix/pvs.toml"))?;
    fs::write(edited.0.path().join("target/os2.toml"), "")?;
    fs::write(edited.0.path().join("removal/gcp.toml"), [0xff, 0xfe])?;

    let run = ce_agent(["catalog", "check", edited.path()?])?.expect_code(1)?;
    for told in [
        "removal/azure.toml:7: azure.agent: `title` is missing",
        "removal/azure.toml:9: azure.agent: unknown field `titel`",
        "vsphere.tools-programs: service vmbus is protected",
        "is no hardware id of its bus",
        "citrix/pvs.toml: this catalogue is missing",
        "target/os2.toml: no catalogue has this name",
        "removal/gcp.toml: stream did not contain valid UTF-8",
    ] {
        ensure!(run.stdout.contains(told), "{told}\n{}", run.stdout);
    }
    ensure!(
        !run.stdout
            .contains("removal/gcp.toml: this catalogue is missing"),
        "{}",
        run.stdout
    );
    // It is there, and cannot be read.
    ensure!(!run.stdout.contains("no network adapter"), "{}", run.stdout);
    ensure!(run.stdout.ends_with("things are wrong\n"), "{}", run.stdout);

    let json = ce_agent(["catalog", "check", edited.path()?, "--json"])?.expect_code(1)?;
    let value: Value = serde_json::from_str(&json.stdout)?;
    assert_eq!(value["good"], Value::Bool(false));
    let findings = value["findings"].as_array().context("findings")?;
    // One line for each, and one with the verdict.
    assert_eq!(findings.len() + 1, run.stdout.lines().count());
    Ok(())
}

#[test]
fn a_folder_that_there_is_not_is_wrong_usage() -> Result<()> {
    let run = ce_agent(["catalog", "check", "/nonexistent/catalog"])?.expect_code(2)?;
    ensure!(
        run.stderr.contains("DIR: /nonexistent/catalog"),
        "{}",
        run.stderr
    );
    Ok(())
}

/// A copy of the project's catalogues, to be changed.
struct Edited(TempDir);

impl Edited {
    fn new() -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../platform-drivers/catalog");
        let copy = tempfile::tempdir()?;
        for folder in ["", "citrix", "removal", "target"] {
            fs::create_dir_all(copy.path().join(folder))?;
            for entry in fs::read_dir(source.join(folder))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(
                        entry.path(),
                        copy.path().join(folder).join(entry.file_name()),
                    )?;
                }
            }
        }
        Ok(Self(copy))
    }

    fn path(&self) -> Result<&str> {
        self.0.path().to_str().context("a path that is no text")
    }

    fn replace(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.0.path().join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(
            text.matches(from).count() == 1,
            "{file} has to have {from} once"
        );
        fs::write(path, text.replace(from, to))?;
        Ok(())
    }
}
