//! Dependencies point one way: the formats know nothing of the disk, the disk nothing of jobs, and
//! only the agent is asynchronous.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

#[test]
fn format_crates_stand_alone() -> Result<()> {
    let workspace = Workspace::read()?;
    for format in ["ce-vhdx", "ce-regf"] {
        let reached = workspace.reachable(format)?;
        let ours: Vec<_> = reached
            .iter()
            .filter(|name| name.starts_with("ce-"))
            .collect();
        assert!(ours.is_empty(), "{format} depends on {ours:?}");
        assert!(!reached.contains("tokio"), "{format} depends on tokio");
    }
    Ok(())
}

#[test]
fn no_library_depends_on_an_async_runtime_or_on_policy() -> Result<()> {
    let workspace = Workspace::read()?;
    let libraries = ["ce-vhdx", "ce-regf", "ce-disk", "ce-platform"];
    for library in libraries
        .into_iter()
        .filter(|name| workspace.members.contains(*name))
    {
        let direct = workspace.direct(library)?;
        for policy in ["tokio", "clap", "anyhow", "tonic", "ce-proto", "ce-agent"] {
            assert!(!direct.contains(policy), "{library} depends on {policy}");
        }
    }
    Ok(())
}

#[test]
fn only_the_agent_and_the_tests_depend_on_the_wire_types() -> Result<()> {
    let workspace = Workspace::read()?;
    let allowed = ["ce-agent", "ce-tests", "ce-connector", "ce-proto"];
    for member in workspace
        .members
        .iter()
        .filter(|name| !allowed.contains(&name.as_str()))
    {
        assert!(
            !workspace.direct(member)?.contains("ce-proto"),
            "{member} depends on ce-proto"
        );
    }
    Ok(())
}

#[test]
fn process_1_stands_alone() -> Result<()> {
    let workspace = Workspace::read()?;
    let reached = workspace.reachable("ce-init")?;
    let ours: Vec<_> = reached
        .iter()
        .filter(|name| name.starts_with("ce-"))
        .collect();
    assert!(ours.is_empty(), "ce-init depends on {ours:?}");
    Ok(())
}

#[test]
fn the_program_does_not_contain_its_tests() -> Result<()> {
    let workspace = Workspace::read()?;
    for member in workspace
        .members
        .iter()
        .filter(|name| name.as_str() != "ce-tests")
    {
        assert!(
            !workspace.reachable(member)?.contains("ce-tests"),
            "{member} depends on ce-tests"
        );
    }
    Ok(())
}

/// Who depends on whom, without dev-dependencies.
struct Workspace {
    members: BTreeSet<String>,
    depends: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    fn read() -> Result<Self> {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--locked", "--offline"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let name_of: BTreeMap<&str, &str> = list(&metadata["packages"])?
            .iter()
            .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
            .collect();
        let name = |id: &Value| {
            let id = id.as_str().unwrap_or_default();
            name_of
                .get(id)
                .map(|name| (*name).to_owned())
                .context("a package without a name")
        };
        let mut depends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"])? {
            let all = depends.entry(name(&node["id"])?).or_default();
            for dependency in list(&node["deps"])? {
                let kinds = list(&dependency["dep_kinds"])?;
                if kinds.iter().any(|kind| kind["kind"] != "dev") {
                    all.insert(name(&dependency["pkg"])?);
                }
            }
        }
        let members = list(&metadata["workspace_members"])?
            .iter()
            .map(name)
            .collect::<Result<_>>()?;
        Ok(Self { members, depends })
    }

    fn direct(&self, package: &str) -> Result<&BTreeSet<String>> {
        self.depends
            .get(package)
            .with_context(|| format!("no package {package}"))
    }

    fn reachable(&self, package: &str) -> Result<BTreeSet<String>> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&str> = self.direct(package)?.iter().map(String::as_str).collect();
        while let Some(name) = next.pop() {
            if reached.insert(name.to_owned()) {
                next.extend(self.direct(name)?.iter().map(String::as_str));
            }
        }
        Ok(reached)
    }
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().context("cargo metadata has another shape")
}
