//! What is put off to the first boot: installers of a bundle, what the job asks Citrix components for,
//! and that one prepare's script does not take another one's work for done.

#[path = "prepare/guest.rs"]
#[expect(dead_code, reason = "the rest is for all pairs of platforms")]
mod guest;

use std::fs;

use ce_platform::Platform;
use ce_platform::bundle::installers_in;
use ce_platform::catalog::schema::Provisioning;
use ce_platform::inspect::{Inspection, platform_of};
use ce_platform::plan::{EditPlan, FirstBootStep, State};
use guest::{Draft, Guest, SETS, catalog};

const SCRIPT: &str = r"Windows\ce-agent\first-boot.cmd";

fn vda() -> Guest {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    draft.service("BrokerAgent", 0x10, 2, "BrokerAgent.exe", "");
    draft
        .software
        .push_str("[Citrix\\VirtualDesktopAgent]\n\"ListOfDDCs\"=\"old.example.com\"\n");
    draft.guest()
}

fn plan(guest: &Guest) -> EditPlan {
    guest.plan(&catalog().preparation(Some(Platform::Vsphere), Platform::Azure))
}

/// The guest after a prepare for Azure, and the script on it.
fn prepared(guest: &Guest) -> (Guest, String) {
    let preparation = catalog().preparation(Some(Platform::Vsphere), Platform::Azure);
    let (_, files) = guest.prepared(&preparation);
    let after = guest.written(&files);
    let script = String::from_utf8(after.windows[SCRIPT].clone()).unwrap();
    (after, script)
}

#[test]
fn an_installer_that_the_job_asks_for_is_put_beside_the_script_and_run_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("citrix");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("MISA.msi"), b"installer").unwrap();
    fs::write(below.join("other.msi"), b"another one").unwrap();
    let mut guest = vda();
    guest.installers = installers_in(folder.path()).unwrap();
    assert_eq!(guest.installers.len(), 2);
    let command = r#"msiexec.exe /i "%~dp0misa.msi" /qn /norestart"#;

    let (after, script) = prepared(&guest);
    assert!(!script.contains(".msi\" /qn"), "nobody asked: {script}");
    assert!(!after.windows.contains_key(r"Windows\ce-agent\misa.msi"));

    guest.options.install_misa = true;
    guest.options.provisioning = Some(Provisioning::Mcs);
    let (after, script) = prepared(&guest);
    assert!(script.contains(command), "{script}");
    assert_eq!(after.windows[r"Windows\ce-agent\misa.msi"], b"installer");
    let deferred = plan(&guest);
    let step = FirstBootStep::Install("misa.msi".into());
    assert!(
        deferred
            .first_boot()
            .any(|(item, found)| item == "mcs.agent" && *found == step)
    );
    let again = plan(&after);
    let left: Vec<String> = again.to_do().map(|edit| edit.change.to_string()).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn an_installer_that_no_bundle_has_is_told() {
    let mut guest = vda();
    guest.options.install_misa = true;
    guest.options.provisioning = Some(Provisioning::Mcs);
    let plan = plan(&guest);
    let mut edits = plan.edits.iter().filter(|edit| edit.item == "mcs.agent");
    let state = &edits.next().unwrap().state;
    assert!(
        matches!(state, State::Skipped { why } if why.contains("no bundle")),
        "{state:?}"
    );
    let (_, script) = prepared(&guest);
    assert!(!script.contains("misa.msi"), "{script}");
}

#[test]
fn leaving_the_domain_ends_with_the_error_of_windows() {
    let mut guest = vda();
    guest.options.domain_unjoin = true;
    guest.options.enable_hdx_ports = true;
    let (_, script) = prepared(&guest);
    let mut lines = script.lines();
    let line = lines
        .find(|line| line.contains("UnjoinDomainOrWorkgroup"))
        .unwrap();
    // No policy keeps a command from running as it does a script, and its result is the exit code.
    assert!(
        line.contains("-NoProfile -NonInteractive -Command"),
        "{line}"
    );
    assert!(
        line.contains("exit (") && line.contains(").ReturnValue\""),
        "{line}"
    );
    assert!(
        !line.replace("%SystemRoot%", "").contains('%') || line.contains("%LOG%"),
        "{line}"
    );
    assert!(
        script.contains("/reconfigure /enable_hdx_ports"),
        "{script}"
    );
    let plan = plan(&guest);
    let items: Vec<&str> = plan.first_boot().map(|(item, _)| item).collect();
    assert!(
        items.contains(&"vda.domain") && items.contains(&"vda.hdx-ports"),
        "{items:?}"
    );
}

#[test]
fn what_an_earlier_script_has_done_is_done_again() {
    let mut guest = vda();
    let marks =
        ["network.done", "vsphere.uninstall.done"].map(|mark| format!(r"Windows\ce-agent\{mark}"));
    let log = r"Windows\ce-agent\first-boot.log".to_owned();
    for file in marks.iter().chain([&log]) {
        guest.windows.insert(file.clone(), b"done".to_vec());
    }
    let (after, script) = prepared(&guest);
    for mark in &marks {
        assert!(!after.windows.contains_key(mark), "{mark}");
    }
    assert!(after.windows.contains_key(&log));
    // And the script leaves none behind.
    let (_, end) = script.split_once("sc.exe delete ce-first-boot").unwrap();
    assert!(end.contains(r#"del /q "%~dp0*.done""#), "{end}");
    assert_eq!(plan(&after).to_do().count(), 0);
}

#[test]
fn the_service_is_in_every_control_set_and_starts_by_itself_once_more_at_most_twice() {
    let (after, script) = prepared(&vda());
    let system = after.hive("SYSTEM");
    for set in SETS {
        let key = system
            .root()
            .unwrap()
            .subkey(format!(r"{set}\Services\ce-first-boot").as_str());
        let key = key.unwrap().unwrap();
        let number = |name: &str| key.value(name).unwrap().unwrap().dword().unwrap();
        assert_eq!(
            (number("Type"), number("Start"), number("ErrorControl")),
            (16, 2, 0)
        );
        assert!(key.value("Attempts").unwrap().is_none());
    }
    assert!(script.contains("%ATTEMPT% LSS 3 exit /b 1"), "{script}");
    for never in ["shutdown", "Restart-Computer", "-ExecutionPolicy", ".ps1"] {
        assert!(!script.contains(never), "{never}: {script}");
    }
}

#[test]
fn until_windows_has_run_an_image_comes_from_where_it_was_prepared_from() {
    let (from, to) = (Platform::Nutanix, Platform::Aws);
    let preparation = catalog().preparation(Some(from), to);
    let (_, files) = Guest::of(from, to).prepared(&preparation);
    let after = Guest::of(from, to).written(&files);
    let inspection = Inspection::of(&after.hives());
    // The driver of the adapter is what AWS images have, and the agents of Nutanix are off.
    assert_eq!(platform_of(&inspection.components), Some(to));
    assert_eq!(inspection.platform(), Some(from));
    assert_eq!(inspection.platform_for(to), Some(from));
    assert_eq!(inspection.platform_for(Platform::Azure), None);

    let preparation = catalog().preparation(None, to);
    let (_, files) = Guest::of(from, to).prepared(&preparation);
    let after = Guest::of(from, to).written(&files);
    let inspection = Inspection::of(&after.hives());
    assert_eq!(platform_of(&inspection.components), Some(to));
    assert_eq!(inspection.platform_for(to), None);
}
