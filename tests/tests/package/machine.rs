//! A plain Debian under QEMU, in which the package is installed and started as anyone would, and which
//! finds its configuration on a disc.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{GENISOIMAGE, MKE2FS, QEMU_SYSTEM, text};
use serde_json::{Value, json};

use crate::share::{PASSWORD, Setup};
use crate::site::{Site, has_ended};
use crate::{Package, guest, guest_disk, root};

/// The machine. It ends with this.
struct Machine<'s> {
    qemu: Child,
    site: &'s Site,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl<'s> Machine<'s> {
    /// Boots it with `script` for what it does first, `seed` on a disc, and disks of these names.
    fn boot(site: &'s Site, script: &str, seed: &str, disks: &[&str]) -> Result<Self> {
        let package = Package::get()?;
        let payload = site.path("payload");
        fs::create_dir(&payload)?;
        fs::copy(package.file(), payload.join("ce-agent.deb"))?;
        fs::write(payload.join("run.sh"), script)?;
        // As large as it has to be for a program with what debuggers want in it.
        let payload_disk = site.path("payload.ext4");
        let arguments = ["-q", "-t", "ext4", "-d", text(&payload)?];
        MKE2FS.run(arguments.into_iter().chain([text(&payload_disk)?, "256M"]))?;
        let seeds = site.path("seed");
        fs::create_dir(&seeds)?;
        fs::write(seeds.join("user-data"), seed)?;
        let disc = site.path("seed.iso");
        GENISOIMAGE.run([
            "-quiet",
            "-r",
            "-V",
            "cidata",
            "-o",
            text(&disc)?,
            text(&seeds)?,
        ])?;

        let debian = root().join("target/debian");
        let base = debian.join("root.ext4");
        ensure!(base.is_file(), "{}: run `make test-deb`", base.display());
        let mut qemu = Command::new(QEMU_SYSTEM.path()?);
        qemu.args([
            "-machine",
            "pc,accel=tcg",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "1024",
        ]);
        qemu.args(["-display", "none", "-no-reboot", "-nodefaults"]);
        let console = format!("file:{}", text(&site.path("console.log"))?);
        qemu.args(["-serial", &console]);
        qemu.arg("-kernel").arg(debian.join("vmlinuz"));
        qemu.arg("-initrd").arg(debian.join("initrd.img"));
        qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet"]);
        qemu.args([
            "-nic",
            "user,model=virtio-net-pci",
            "-device",
            "virtio-scsi-pci",
        ]);
        let mut attach = |path: &Path, keeps: bool, device: &str| -> Result<()> {
            let name = path.file_name().and_then(|name| name.to_str());
            let id = name.context("no name")?.replace('.', "-");
            let snapshot = if keeps { "off" } else { "on" };
            let drive = format!(
                "if=none,id={id},format=raw,snapshot={snapshot},file={}",
                text(path)?
            );
            qemu.args(["-drive", &drive, "-device", &format!("{device},drive={id}")]);
            Ok(())
        };
        attach(&base, false, "virtio-blk-pci")?;
        attach(&payload_disk, false, "virtio-blk-pci")?;
        attach(&disc, false, "scsi-cd")?;
        for disk in disks {
            let device = format!("scsi-hd,serial={disk}");
            attach(&site.path("disks").join(disk), true, &device)?;
        }
        let qemu = qemu.stdin(Stdio::null()).spawn()?;
        Ok(Self { qemu, site })
    }

    fn console(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.site.path("console.log"))?).into_owned())
    }

    /// Waits until the console has said something, and gives all of it.
    fn until_said(&mut self, expected: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let said = self.console().unwrap_or_default();
            if said.contains(expected) {
                return Ok(said);
            }
            ensure!(self.qemu.try_wait()?.is_none(), "the machine ended: {said}");
            ensure!(Instant::now() < until, "no `{expected}` in {said}");
            sleep(Duration::from_millis(100));
        }
    }

    /// The end of a job.
    fn ended(&self, request: &Value) -> Result<Value> {
        let job = self.site.submit(request)?;
        let until = Instant::now() + PATIENCE;
        loop {
            let shown = self.site.show(&job)?;
            if has_ended(&shown) {
                return Ok(shown);
            }
            ensure!(Instant::now() < until, "{shown:#}\n{}", self.console()?);
            sleep(Duration::from_millis(200));
        }
    }

    fn complete(&self, request: &Value) -> Result<Value> {
        let ended = self.ended(request)?;
        ensure!(
            ended["status"] == "complete",
            "{ended:#}\n{}",
            self.console()?
        );
        Ok(ended)
    }
}

#[test]
fn an_installed_and_started_package_serves_its_connector() -> Result<()> {
    let server = Setup::default().start();
    // QEMU's network leads there from 10.0.2.2.
    let site = Site::reached_as("127.0.0.1", "10.0.2.2")?;
    site.keep_credentials(&server)?;
    let export = site.disk("EXPORT", 64 * MIB)?;
    let prepare = site.path("disks/PREPARE");
    let windows = guest::Guest::of(Platform::Vsphere, Platform::Azure);
    guest_disk::make(&windows, &prepare)?;
    let (exported_md5, md5) = (
        oracle::md5_of_file(&export)?,
        oracle::md5_of_file(&prepare)?,
    );

    let port = site.agents.port();
    let seed = format!(
        "connectors = ['10.0.2.2:{port}']\nca = '''{}'''\ntoken = '{}'\n\
         [jobs]\nsmb_hosts = ['10.0.2.2']\ndisk_wait = 0\n",
        fs::read_to_string(site.path("site/ca.pem"))?,
        site.said(&["token", "new", "ce-1"])?.trim()
    );
    let mut machine = Machine::boot(&site, SCRIPT, &seed, &["EXPORT", "PREPARE"])?;
    let said = machine.until_said("CE: end of script")?;
    ensure!(said.contains("CE: before: inactive enabled"), "{said}");
    ensure!(said.contains("CE: started: 0"), "{said}");
    ensure!(said.contains("CE: user: ce-agent"), "{said}");
    ensure!(said.contains("CE: mode: 640 root ce-agent"), "{said}");
    ensure!(said.contains("CE: security: 0"), "{said}");
    ensure!(said.contains("CE: page: 0"), "{said}");
    site.until_connected("ce-1")?;

    let location = format!("smb://10.0.2.2:{}/share/folder", server.port());
    let exported = machine.complete(&json!({
        "operation": "export",
        "disk": {"serial": "EXPORT"},
        "outputStorageLocation": {"location": location, "credentialId": "backup"},
        "outputImageFilename": "image",
        "hashDisk": true,
    }))?;
    ensure!(
        exported["artifacts"]["md5Hash"] == exported_md5,
        "{exported:#}"
    );
    ensure!(server.folder().join("folder/image.vhdx").is_file());

    // Through the process that writes NTFS.
    let prepared = machine.complete(&json!({
        "operation": "prepare",
        "platform": "azure",
        "disk": {"serial": "PREPARE"},
        "md5Hash": md5,
    }))?;
    ensure!(
        prepared["artifacts"]["proof"]["failures"] == json!([]),
        "{prepared:#}"
    );
    ensure!(oracle::md5_of_file(&prepare)? != md5, "nothing was changed");

    for (disk, code) in [
        (json!({"deviceName": "vda"}), "DiskIsOwn"),
        (json!({"deviceName": "vdb"}), "DiskBusy"),
        (json!({"serial": "NONE"}), "DiskNotFound"),
        (json!({"path": "/etc/shadow"}), "InvalidRequest"),
    ] {
        let refused = machine.ended(&json!({"operation": "inspect", "disk": disk}))?;
        ensure!(refused["error"]["code"] == code, "{code}: {refused:#}");
    }
    let diagnostics = machine.complete(&json!({"operation": "diagnostics"}))?;
    let bundle = &diagnostics["artifacts"]["diagnostics"]["content"];
    ensure!(bundle.as_str().is_some_and(|text| text.starts_with("H4sI")));
    ensure!(!machine.console()?.contains(PASSWORD));
    Ok(())
}

/// As anyone would do it. What is looked at is said on the console.
const SCRIPT: &str = r#"
say() { echo "CE: $*"; }
export DEBIAN_FRONTEND=noninteractive
apt-get install -qq -y --no-install-recommends /payload/ce-agent.deb
say before: $(systemctl is-active ce-agent) $(systemctl is-enabled ce-agent)
systemctl start ce-agent
say started: $?
systemctl status --no-pager --lines=30 ce-agent
say user: $(ps -o user= -p $(systemctl show -P MainPID ce-agent) 2>/dev/null ||
    stat -c %U /proc/$(systemctl show -P MainPID ce-agent))
say mode: $(stat -c '%a %U %G' /etc/ce-agent/config.toml)
systemd-analyze security --no-pager --threshold=20 ce-agent >/dev/null
say security: $?
zcat /usr/share/man/man1/ce-agent-daemon.1.gz | grep -q 'ce-agent'
say page: $?
say end of script
journalctl --no-pager --follow --unit ce-agent --output cat &
wait
"#;

/// Long, as a processor is emulated, and others may be busy.
const PATIENCE: Duration = Duration::from_secs(1200);
