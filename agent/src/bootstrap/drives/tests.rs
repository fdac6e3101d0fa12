use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ce_platform::Platform;
use tempfile::TempDir;

use super::super::{Discovery, Place};
use super::*;
use crate::host::firmware;

const CONFIG: &str = "connectors = ['c.example']\n";

/// A machine with drives that are files.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Puts the image that `make` makes in the place of the drive `name`.
    fn attach(&self, name: &str, make: impl FnOnce(&Path, &Path)) -> &Self {
        let files = tempfile::tempdir().unwrap();
        let node = self.0.path().join("dev").join(name);
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        make(files.path(), &node);
        let sysfs = self.0.path().join("sys/block").join(name);
        fs::create_dir_all(&sysfs).unwrap();
        let sectors = fs::metadata(&node).unwrap().len() / 512;
        fs::write(sysfs.join("size"), format!("{sectors}\n")).unwrap();
        self
    }

    fn search(&self) -> Result<Discovery, super::super::BootstrapError> {
        Place::in_tests(self.0.path()).search()
    }

    /// The text that is found, and the first note.
    fn finds(&self) -> (Option<String>, String) {
        let mut discovery = self.search().unwrap();
        let text = discovery.found.map(|found| found.text.to_string());
        (text, discovery.notes.pop().unwrap_or_default())
    }
}

fn put(folder: &Path, path: &str, content: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn run(program: &str, arguments: &[&str], files: &[&Path]) {
    let output = Command::new(program)
        .args(arguments)
        .args(files)
        .output()
        .unwrap_or_else(|error| panic!("{program} can't be run, see tests/setup.sh: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
}

/// A disc with `path` on it.
fn disc<'f>(
    options: &'f [&'f str],
    label: &'f str,
    path: &'f str,
    content: &'f str,
) -> impl FnOnce(&Path, &Path) + 'f {
    move |files, node| {
        put(files, path, content);
        let node = node.to_str().unwrap();
        let options = [&["-quiet", "-V", label, "-o", node], options].concat();
        run("genisoimage", &options, &[files]);
    }
}

/// A disk of FAT with `path` on it.
fn fat<'f>(
    mebibytes: u64,
    label: &'f str,
    path: &'f str,
    content: &'f str,
) -> impl FnOnce(&Path, &Path) + 'f {
    move |files, node| {
        put(files, path, content);
        File::create(node)
            .unwrap()
            .set_len(mebibytes << 20)
            .unwrap();
        run("mkfs.fat", &["-n", label], &[node]);
        let top = path.split('/').next().unwrap();
        let image = node.to_str().unwrap();
        run(
            "mcopy",
            &["-s", "-i", image],
            &[&files.join(top), Path::new("::/")],
        );
    }
}

const USER_DATA: &str = "openstack/latest/user_data";

#[test]
fn a_config_drive_and_a_seed_of_nocloud_are_found_on_disc_and_disk() {
    let joliet = &["-J", "-r"][..];
    for machine in [
        Machine::new().attach("sr0", disc(joliet, "config-2", USER_DATA, CONFIG)),
        Machine::new().attach("sr1", disc(&["-r"], "CIDATA", "user-data", CONFIG)),
        Machine::new().attach("vdb", fat(8, "CIDATA", "user-data", CONFIG)),
        Machine::new().attach("sdb", fat(64, "CONFIG-2", USER_DATA, CONFIG)),
    ]
    .map(|machine| machine.finds())
    {
        assert_eq!(machine, (Some(CONFIG.into()), String::new()));
    }
}

#[test]
fn drives_for_others_are_left_alone() {
    let machine = Machine::new();
    machine
        .attach("sr0", disc(&["-r"], "Debian", "user-data", CONFIG))
        .attach("sda", fat(8, "EFI", "user-data", CONFIG))
        .attach("sr1", |_, node| fs::write(node, []).unwrap())
        .attach("vda", |_, node| fs::write(node, [0xAA; 512]).unwrap());
    assert_eq!(machine.finds(), (None, String::new()));
    machine.attach(
        "sr2",
        disc(&["-r"], "cidata", "user-data", "#cloud-config\n"),
    );
    let (found, note) = machine.finds();
    assert!(found.is_none() && note.contains("a configuration of cloud-init"));
}

#[test]
fn the_disk_of_an_image_never_configures_the_agent() {
    // As large as images are, though it says that it is a seed.
    let machine = Machine::new();
    machine.attach("sdb", fat(65, "CIDATA", "user-data", CONFIG));
    assert_eq!(machine.finds(), (None, String::new()));
    // Nor one on a cloud, where nobody attaches such drives.
    let machine = Machine::new();
    machine.attach("sdb", fat(8, "CIDATA", "user-data", CONFIG));
    for platform in [Platform::Aws, Platform::Azure, Platform::Gcp] {
        let sys = machine.0.path().join("sys/class");
        if sys.exists() {
            fs::remove_dir_all(sys).unwrap();
        }
        firmware::tests::pretend(&machine.0.path().join("sys"), platform);
        assert_eq!(machine.finds().0, None, "{platform:?}");
    }
}

#[test]
fn two_drives_that_configure_are_one_too_many() {
    let machine = Machine::new();
    machine
        .attach("sr0", disc(&["-r"], "cidata", "user-data", CONFIG))
        .attach("vdb", fat(8, "CONFIG-2", USER_DATA, CONFIG));
    let error = machine.search().unwrap_err().to_string();
    assert!(
        error.contains("dev/sr0") && error.contains("dev/vdb"),
        "{error}"
    );
}

#[test]
fn a_drive_that_is_meant_for_us_and_broken_is_an_error() {
    let machine = Machine::new();
    machine.attach("vdb", fat(8, "CIDATA", "other", CONFIG));
    let (found, note) = machine.finds();
    assert!(
        found.is_none() && note.contains("there is no such file"),
        "{note}"
    );

    let long = "x".repeat((1 << 20) + 1);
    machine.attach("vdb", fat(8, "CIDATA", "user-data", &long));
    let error = crate::daemon::with_sources(&machine.search().unwrap_err());
    assert!(
        error.contains("1048577") || error.contains("1.0 MiB"),
        "{error}"
    );

    machine.attach("vdb", |files, node| {
        disc(&["-r"], "cidata", "user-data", CONFIG)(files, node);
        // Without its folders.
        File::options()
            .write(true)
            .open(node)
            .unwrap()
            .set_len(40 << 10)
            .unwrap();
    });
    let error = crate::daemon::with_sources(&machine.search().unwrap_err());
    assert!(
        error.starts_with("user-data on the drive cidata ("),
        "{error}"
    );
}

#[test]
fn custom_data_on_azures_disc_stands_in_for_user_data() {
    let environment = format!(
        "<Environment xmlns:wa='urn:wa'><wa:CustomData>{}</wa:CustomData></Environment>",
        STANDARD.encode(CONFIG)
    );
    let machine = Machine::new();
    machine.attach("sr0", disc(&["-udf"], "x", "ovf-env.xml", &environment));
    assert_eq!(machine.finds().0, None);
    firmware::tests::pretend(&machine.0.path().join("sys"), Platform::Azure);
    let (found, note) = machine.finds();
    assert_eq!(found.as_deref(), Some(CONFIG));
    assert!(note.contains("does not answer"), "{note}");
}
