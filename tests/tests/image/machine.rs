//! An emulated machine that the image is started in.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_tests::tool::{CPIO, QEMU_SYSTEM, output_with_input, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A machine to be.
pub struct Plan {
    /// The agent's configuration, in TOML, that is put into the image.
    pub config: Option<String>,
    /// What is added to the kernel's command line.
    pub parameters: String,
    devices: Vec<String>,
    card: Option<String>,
    network: String,
    /// The program that qemu is run by, with its arguments.
    below: Vec<String>,
    folder: TempDir,
}

/// A machine that is on. It ends with the test.
pub struct Machine {
    qemu: Child,
    began: Instant,
    console: PathBuf,
    monitor: PathBuf,
    _folder: TempDir,
}

impl Plan {
    /// A machine with a network card and without disks.
    pub fn new(config: String) -> Result<Self> {
        let mut plan = Self::unconfigured()?;
        plan.config = Some(config);
        Ok(plan)
    }

    /// The same, whose image is as it is shipped: it has to find its configuration elsewhere.
    pub fn unconfigured() -> Result<Self> {
        Ok(Self {
            config: None,
            parameters: "ce.idle=600 ce.hold=1".into(),
            devices: Vec::new(),
            card: Some("virtio-net-pci".into()),
            network: "user".into(),
            below: Vec::new(),
            folder: tempfile::tempdir()?,
        })
    }

    /// With another network card, or none.
    pub fn card(mut self, card: Option<&str>) -> Self {
        self.card = card.map(str::to_owned);
        self
    }

    /// With another network behind the card, in qemu's words; qemu knows it as `network`.
    pub fn network(mut self, words: &str) -> Self {
        words.clone_into(&mut self.network);
        self
    }

    /// Has qemu run by another program, which gets its words behind these.
    pub fn below(mut self, words: Vec<String>) -> Self {
        self.below = words;
        self
    }

    /// With firmware that says this of the machine, in qemu's words.
    pub fn firmware(mut self, words: &str) -> Self {
        self.devices.extend(["-smbios".into(), words.into()]);
        self
    }

    /// With other parameters on the kernel's command line.
    pub fn parameters(mut self, parameters: &str) -> Self {
        self.parameters = parameters.into();
        self
    }

    /// With a clock that says this, in UTC, when it is switched on.
    pub fn clock(mut self, time: &str) -> Self {
        self.devices.extend(["-rtc".into(), format!("base={time}")]);
        self
    }

    /// With a device, in qemu's words.
    pub fn device(mut self, words: &str) -> Self {
        self.devices.extend(["-device".into(), words.into()]);
        self
    }

    /// With a disk that devices can be made of by its name.
    pub fn drive(self, name: &str, disk: &Path) -> Result<Self> {
        self.drive_of(name, disk, "raw")
    }

    /// The same of an image in one of qemu's formats.
    pub fn drive_of(mut self, name: &str, disk: &Path, format: &str) -> Result<Self> {
        let disk = text(disk)?;
        let words = format!("if=none,format={format},file={disk},id={name},cache=unsafe");
        self.devices.extend(["-drive".into(), words]);
        Ok(self)
    }

    /// Switches it on: the kernel of `image`, a folder of build.sh, is started by qemu, without
    /// firmware.
    pub fn start(self, image: &Path) -> Result<Machine> {
        let initrd = self.initrd(image)?;
        let parameters = format!("console=tty0 console=ttyS0 panic=10 {}", self.parameters);
        let words = [
            "-kernel".to_owned(),
            text(&image.join("vmlinuz"))?.to_owned(),
            "-initrd".to_owned(),
            text(&initrd)?.to_owned(),
            "-append".to_owned(),
            parameters,
        ];
        self.start_with(words.into())
    }

    /// Switches it on: UEFI looks for something to start on its devices. Configuration and parameters are
    /// those of the image.
    pub fn start_by_uefi(self) -> Result<Machine> {
        let variables = self.folder.path().join("variables.fd");
        fs::copy(VARIABLES, &variables).with_context(|| {
            format!("{VARIABLES}: install the package ovmf (or run `make setup`)")
        })?;
        let flash = |file: &str, more: &str| format!("if=pflash,format=raw,file={file}{more}");
        let words = [
            "-drive".into(),
            flash(CODE_OF_FIRMWARE, ",readonly=on"),
            "-drive".into(),
            flash(text(&variables)?, ""),
        ];
        self.start_with(words.into())
    }

    fn start_with(self, words: Vec<String>) -> Result<Machine> {
        let path = |name: &str| self.folder.path().join(name);
        let (console, monitor) = (path("console"), path("monitor"));
        // So that it can be read before qemu has begun.
        File::create(&console)?;
        let mut qemu = match &self.below[..] {
            [] => QEMU_SYSTEM.command()?,
            [program, words @ ..] => {
                let mut command = Command::new(program);
                command.args(words).arg(QEMU_SYSTEM.path()?);
                command
            }
        };
        qemu.args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
        ])
        .args(["-smp", "2", "-m", "512", "-nodefaults", "-display", "none"])
        // A host that stands still for minutes is no machine that hangs.
        .args(["-no-reboot", "-action", "watchdog=none", "-vga", "std"])
        .args(["-serial", &format!("file:{}", text(&console)?)])
        .args([
            "-qmp",
            &format!("unix:{},server=on,wait=off", text(&monitor)?),
        ])
        .args(words);
        if let Some(card) = &self.card {
            qemu.args([
                "-netdev",
                &format!("{},id=network", self.network),
                "-device",
            ])
            .arg(format!("{card},netdev=network"));
        }
        qemu.args(&self.devices);
        let began = Instant::now();
        let qemu = qemu.stdin(Stdio::null()).spawn().context("qemu")?;
        Ok(Machine {
            qemu,
            began,
            console,
            monitor,
            _folder: self.folder,
        })
    }

    /// The image's memory disk, with the configuration, if there is one, behind it in an archive of its own, which the
    /// kernel unpacks over the first.
    fn initrd(&self, image: &Path) -> Result<PathBuf> {
        let Some(content) = &self.config else {
            return Ok(image.join("initrd"));
        };
        let root = self.folder.path().join("root");
        let config = root.join("etc/ce-agent/config.toml");
        fs::create_dir_all(config.parent().context("no folder")?)?;
        fs::write(&config, content)?;
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600))?;
        let mut pack = CPIO.command()?;
        pack.args(["--create", "--format=newc", "--owner=+0:+0", "--quiet"])
            .current_dir(&root);
        let packed = output_with_input(&mut pack, b"etc/ce-agent/config.toml\n")?;
        let path = self.folder.path().join("initrd");
        let mut both = fs::read(image.join("initrd"))?;
        // Archives begin at a multiple of four (initramfs.buffer-format of the kernel).
        both.resize(both.len().next_multiple_of(4), 0);
        both.extend(packed.stdout);
        fs::write(&path, both)?;
        Ok(path)
    }
}

impl Machine {
    /// All that the console has said.
    pub fn console(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.console)?).into_owned())
    }

    /// The process that runs it.
    pub fn id(&self) -> u32 {
        self.qemu.id()
    }

    /// Waits until the console has said something; how long that took from the start.
    pub fn until_said(&mut self, text: &str) -> Result<Duration> {
        let until = Instant::now() + PATIENCE;
        loop {
            let console = self.console()?;
            if console.contains(text) {
                return Ok(self.began.elapsed());
            }
            if let Some(status) = self.qemu.try_wait()? {
                bail!("the machine went off ({status}) without saying `{text}`:\n{console}");
            }
            ensure!(Instant::now() < until, "no `{text}` in:\n{console}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the machine has switched itself off, and gives all that the console has said.
    pub fn until_off(&mut self) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.qemu.try_wait()? {
                let console = self.console()?;
                ensure!(status.success(), "qemu ended with {status}:\n{console}");
                ensure!(
                    console.contains("power off: ") && !console.contains("Kernel panic"),
                    "it did not switch itself off:\n{console}"
                );
                return Ok(console);
            }
            ensure!(Instant::now() < until, "it stays on:\n{}", self.console()?);
            sleep(Duration::from_millis(50));
        }
    }

    /// Attaches a SCSI disk while the machine runs; it has a controller `scsi`.
    pub fn attach(&self, name: &str, disk: &Path, words: &str) -> Result<()> {
        self.command(
            "blockdev-add",
            &json!({"driver": "raw", "node-name": name,
                    "file": {"driver": "file", "filename": disk}}),
        )?;
        let mut device = json!({"driver": "scsi-hd", "bus": "scsi.0", "drive": name});
        for (key, value) in words.split(',').filter_map(|word| word.split_once('=')) {
            device[key] = value.into();
        }
        self.command("device_add", &device)?;
        Ok(())
    }

    /// What stands on the screen, as the card has it in its memory, and what has been scrolled away.
    pub fn screen(&self) -> Result<String> {
        let file = self.console.with_extension("screen");
        // Rows of 80 letters, two bytes each, the second one being the colour. The card is told which row
        // is the first on the screen; it may be any.
        self.command(
            "pmemsave",
            &json!({"val": 0xb8000, "size": 0x8000, "filename": file}),
        )?;
        let cells = fs::read(&file)?;
        let letters: Vec<u8> = cells.chunks(2).map(|cell| cell[0]).collect();
        let rows = letters.chunks(80).map(String::from_utf8_lossy);
        Ok(rows.map(|row| format!("{}\n", row.trim_end())).collect())
    }

    /// A command of qemu's monitor (QMP).
    pub fn command(&self, name: &str, arguments: &Value) -> Result<Value> {
        let stream = UnixStream::connect(&self.monitor)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        let mut stream = stream;
        let mut ask = |question: Value| -> Result<Value> {
            writeln!(stream, "{question}")?;
            loop {
                let line = answers.next().context("qemu says no more")??;
                let answer: Value = serde_json::from_str(&line)?;
                if answer.get("error").is_some() {
                    bail!("{question}: {answer}");
                }
                if let Some(returned) = answer.get("return") {
                    return Ok(returned.clone());
                }
            }
        };
        ask(json!({"execute": "qmp_capabilities"}))?;
        ask(json!({"execute": name, "arguments": arguments}))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // One that is off already can't be killed.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// A file of zeros, for a disk that nothing is done with.
pub fn empty_disk(path: &Path, bytes: u64) -> Result<()> {
    Ok(File::create(path)?.set_len(bytes)?)
}

/// An emulated machine beside others, on a host that has other things to do.
const PATIENCE: Duration = Duration::from_secs(600);

const CODE_OF_FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
