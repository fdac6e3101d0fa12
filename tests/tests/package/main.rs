//! "I install the package on a plain Debian and start the unit, and the agent is in session with its
//! Connector." What can be seen without a machine is looked at here; `make test-deb` boots one.

#[cfg(feature = "debian")]
#[path = "../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
#[cfg(feature = "debian")]
#[path = "../prepare/disk.rs"]
#[expect(dead_code, reason = "the rest serves the tests of prepare")]
mod guest_disk;
#[cfg(feature = "debian")]
mod machine;
#[cfg(feature = "debian")]
#[path = "../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;
#[cfg(feature = "debian")]
#[path = "../connector/site.rs"]
#[expect(dead_code, reason = "the rest serves the tests of the Connector")]
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, anyhow, ensure};
use ce_tests::agent::binary;
use ce_tests::tool::{DPKG_DEB, LINTIAN, SYSTEMD_ANALYZE, output_of, said, text};

/// The package of the program under test, made once for all tests.
struct Package {
    folder: PathBuf,
}

impl Package {
    fn get() -> Result<&'static Self> {
        static PACKAGE: OnceLock<std::result::Result<Package, String>> = OnceLock::new();
        let package = PACKAGE.get_or_init(|| Self::build().map_err(|error| format!("{error:#}")));
        package.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn build() -> Result<Self> {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        let package = Self { folder };
        pages_into(&package.folder.join("pages"))?;
        package.build_into(&package.file())?;
        Ok(package)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("ce-agent.deb")
    }

    fn build_into(&self, output: &Path) -> Result<()> {
        let script = root().join("packaging/deb/build.sh");
        let mut command = Command::new(script);
        let pages = self.folder.join("pages");
        command.arg(binary()?).arg(pages).arg(output);
        run(&mut command)?;
        Ok(())
    }
}

/// The manual pages and completions, by the program that makes them. It is built first, unless the
/// programs under test are given.
fn pages_into(folder: &Path) -> Result<()> {
    if env::var_os("CE_AGENT").is_none() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "-p", "ce-agent"]);
        run(cargo.args(["--example", "pages"]).current_dir(root()))?;
    }
    let profile = env::current_exe()?;
    let profile = profile.ancestors().nth(2).context("no target folder")?;
    run(Command::new(profile.join("examples/pages")).arg(folder))?;
    Ok(())
}

/// What a command says, which has to go well.
fn run(command: &mut Command) -> Result<String> {
    let output = output_of(command)?;
    ensure!(output.status.success(), "{command:?}: {}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn unit() -> PathBuf {
    root().join("packaging/systemd/ce-agent.service")
}

#[test]
fn the_unit_is_exposed_by_less_than_two_of_ten() -> Result<()> {
    let threshold = "--threshold=20";
    let arguments = ["security", "--offline=true", "--no-pager", threshold];
    SYSTEMD_ANALYZE.run(arguments.iter().copied().chain([text(&unit())?]))?;
    // So that a change for the worse is seen: as root with its capabilities it is not good enough.
    let folder = tempfile::tempdir()?;
    let as_root = folder.path().join("ce-agent.service");
    let without = |line: &&str| {
        !["User=", "CapabilityBoundingSet="]
            .iter()
            .any(|f| line.starts_with(f))
    };
    let lines = fs::read_to_string(unit())?;
    let lines: Vec<_> = lines.lines().filter(without).collect();
    fs::write(&as_root, lines.join("\n"))?;
    let judged = SYSTEMD_ANALYZE.run(arguments.iter().copied().chain([text(&as_root)?]));
    ensure!(judged.is_err(), "{judged:?}");
    Ok(())
}

#[test]
fn systemd_understands_every_line_of_the_unit() -> Result<()> {
    // It looks for the program and the user, too, which are not here.
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ce-agent.service");
    let here = fs::read_to_string(unit())?.replace("/usr/bin/ce-agent", text(binary()?)?);
    fs::write(&path, here)?;
    let output = Command::new(SYSTEMD_ANALYZE.path()?)
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()?;
    let told = String::from_utf8(output.stderr)?;
    let of_ours: Vec<_> = told
        .lines()
        .filter(|line| line.contains("ce-agent.service"))
        .collect();
    ensure!(of_ours.is_empty(), "{told}");
    Ok(())
}

#[test]
fn the_same_program_gives_the_same_package() -> Result<()> {
    let package = Package::get()?;
    let again = package.folder.join("again.deb");
    package.build_into(&again)?;
    ensure!(fs::read(package.file())? == fs::read(again)?);
    Ok(())
}

#[test]
fn lintian_has_nothing_against_the_package() -> Result<()> {
    LINTIAN.run(["--fail-on", "error,warning", text(&Package::get()?.file())?])?;
    Ok(())
}

#[test]
fn the_package_holds_what_was_built_and_a_page_for_every_command() -> Result<()> {
    let package = Package::get()?;
    let unpacked = package.folder.join("unpacked");
    DPKG_DEB.run(["-R", text(&package.file())?, text(&unpacked)?])?;
    let package = unpacked;
    let own = package.join("usr/bin/ce-agent");
    let version = run(Command::new(&own).arg("--version"))?;
    ensure!(version == run(Command::new(binary()?).arg("--version"))?);
    let help = run(Command::new(&own).arg("--help"))?;
    let commands = help.split("Commands:\n").nth(1).context(help.clone())?;
    let commands = commands.lines().take_while(|line| line.starts_with("  "));
    let names: Vec<_> = commands
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    ensure!(names.len() > 8, "{help}");
    for name in names {
        let page = format!("usr/share/man/man1/ce-agent-{name}.1.gz");
        ensure!(package.join(&page).is_file(), "{page}");
    }
    // All of it is commentary: what is not said has its default.
    let config = fs::read_to_string(package.join("etc/ce-agent/config.toml"))?;
    ensure!(
        config
            .lines()
            .all(|line| line.is_empty() || line.starts_with('#'))
    );
    Ok(())
}

#[test]
fn every_field_that_the_packages_configuration_names_is_one() -> Result<()> {
    let config = fs::read_to_string(root().join("packaging/deb/config.toml"))?;
    // What follows a `#` without a blank is an example.
    let examples: Vec<_> = config
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|first: char| !first.is_whitespace()))
        .filter(|line| {
            !["client_", "token", "proxy_c", "ca_"]
                .iter()
                .any(|file| line.starts_with(file))
        })
        .collect();
    ensure!(examples.len() > 6, "{config}");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.toml");
    fs::write(&path, examples.join("\n"))?;
    let run = ce_tests::agent::ce_agent(["daemon", "--config", text(&path)?])?.run()?;
    // There is no CA, and nothing else is wrong with it.
    ensure!(run.status.code() == Some(2), "{}", run.stderr);
    ensure!(run.stderr.trim() == NO_CA, "{}", run.stderr);
    Ok(())
}

const NO_CA: &str = "error: ca: missing; the Connector is trusted by the CA in `ca` or `ca_file`";
