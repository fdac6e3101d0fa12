//! Every check of the catalogues, made to fire by an edit that it is there for. Without an edit none
//! does: `tests/catalog.rs`.

use ce_platform::Catalog;
use ce_platform::catalog::Finding;

#[test]
fn an_id_stands_once() {
    let found = Edit::new()
        .replace("removal/gcp.toml", "\"gcp.vss\"", "\"gcp.guest-agent\"")
        .only_finding();
    assert!(
        found
            .message
            .contains("this id is taken, in removal/gcp.toml:"),
        "{found}"
    );
    assert_eq!(found.item.as_deref(), Some("gcp.guest-agent"));
    let found = Edit::new()
        .replace("removal/gcp.toml", "\"gcp.vss\"", "\"protected.boot\"")
        .only_finding();
    assert!(found.message.contains("this id is taken"), "{found}");
}

#[test]
fn every_item_gives_its_reason_and_its_evidence() {
    let edit = Edit::new().append(
        "removal/aws.toml",
        "[[item]]\nid = \"aws.x\"\nleave = [{ inf = \"x.inf\" }]",
    );
    let found = edit.findings();
    for field in ["title", "why", "evidence"] {
        let message = format!("`{field}` is missing");
        assert!(
            found.iter().any(|one| one.message == message),
            "{field}: {found:?}"
        );
    }
    assert_eq!(found.len(), 3);

    let found = Edit::new()
        .item("removal/aws.toml", "leave = [{ inf = \"x.inf\" }]", "")
        .only_finding();
    assert!(found.message.contains("`evidence` is empty"), "{found}");
    for (field, wrong) in [("why", "\"\""), ("title", "\" x\""), ("why", "\"a\\nb\"")] {
        let edit = Edit::new().append(
            "removal/aws.toml",
            &format!(
                "[[item]]\nid = \"aws.x\"\n{}\n{field} = {wrong}\nevidence = [\"doc: x\"]\nleave = [{{ inf = \"x.inf\" }}]",
                if field == "why" { "title = \"x\"" } else { "why = \"x\"" }
            ),
        );
        let found = edit.only_finding();
        assert!(
            found.message.contains("says nothing") || found.message.contains("spaces around"),
            "{found}"
        );
    }
}

#[test]
fn an_item_does_something() {
    let found = Edit::new()
        .item("removal/aws.toml", "", "doc: x")
        .only_finding();
    assert!(found.message.contains("nothing is done"), "{found}");
}

#[test]
fn fields_and_actions_stand_in_the_catalogues_that_they_are_for() {
    for (file, text, told) in [
        (
            "removal/aws.toml",
            "area = \"network\"\nleave = [{ inf = \"x.inf\" }]",
            "`area` goes with",
        ),
        (
            "target/aws.toml",
            "leave = [{ inf = \"x.inf\" }]",
            "`area` goes with",
        ),
        (
            "citrix/vda.toml",
            "keep-for = [\"aws\"]\nleave = [{ inf = \"x.inf\" }]",
            "`keep-for` and `also-from`",
        ),
        (
            "removal/aws.toml",
            "also-from = [\"aws\"]\nleave = [{ inf = \"x.inf\" }]",
            "the platform of this file",
        ),
        (
            "target/aws.toml",
            "area = \"network\"\ndetect = [{ service = \"x\" }]\nleave = [{ inf = \"x.inf\" }]",
            "`detect` goes with",
        ),
        (
            "removal/aws.toml",
            "when = { asked = \"domainUnjoin\" }\nleave = [{ inf = \"x.inf\" }]",
            "`provisioning` and `asked`",
        ),
        (
            "target/aws.toml",
            "area = \"network\"\npackage = [{ inf = \"x.inf\" }]",
            "takes nothing out",
        ),
        (
            "target/aws.toml",
            "area = \"network\"\nservice = [{ name = \"x\", kind = \"program\", action = \"disable\" }]",
            "takes nothing out",
        ),
        (
            "removal/aws.toml",
            "boot-service = [{ name = \"x\", group = \"x\", images = [\"x.sys\"], inbox = \"always\" }]",
            "makes a target ready",
        ),
        (
            "removal/aws.toml",
            "service = [{ name = \"x\", kind = \"program\", action = \"manual\" }]",
            "makes a target ready",
        ),
        (
            "removal/aws.toml",
            "registry = [{ hive = \"software\", key = \"x\", value = \"x\", action = \"set\", from-job = \"domainUnjoin\" }]",
            "`from-job` goes with",
        ),
        (
            "target/aws.toml",
            "area = \"network\"\nboot-service = [{ name = \"x\", group = \"x\", images = [], inbox = \"always\" }]",
            "each need an entry",
        ),
        (
            "target/aws.toml",
            "area = \"network\"\ndevice = [{ title = \"x\", ids = [], role = \"other\", driver = \"x\", infs = [\"x.inf\"], inbox = \"always\", need = \"wanted\" }]",
            "each need an entry",
        ),
    ] {
        let found = Edit::new().item(file, text, "doc: x").only_finding();
        assert!(found.message.contains(told), "{text}: {found}");
        assert_eq!(found.item.as_deref(), Some("test.item"), "{text}");
    }
}

#[test]
fn a_service_that_is_a_filter_is_stripped_from_the_filters_by_the_same_item() {
    for (kind, filter, told) in [
        (
            "class-filter",
            "",
            "not before as a filter of a device class",
        ),
        (
            "class-filter",
            "filter = [{ driver = \"x\", scope = \"every-device\", position = \"both\" }]",
            "of a device class",
        ),
        ("device-filter", "", "not before as a filter of devices"),
        (
            "device-filter",
            "filter = [{ driver = \"x\", scope = \"every-class\", position = \"both\" }]",
            "of devices",
        ),
        (
            "class-filter",
            "filter = [{ driver = \"y\", scope = \"every-class\", position = \"both\" }]",
            "of a device class",
        ),
        (
            "driver",
            "filter = [{ driver = \"x\", scope = \"every-class\", position = \"both\" }]",
            "its kind has to be",
        ),
    ] {
        let text = format!(
            "service = [{{ name = \"x\", kind = \"{kind}\", action = \"disable\" }}]\n{filter}"
        );
        let found = Edit::new()
            .item("removal/aws.toml", &text, "doc: x")
            .only_finding();
        assert!(found.message.contains(told), "{kind} {filter}: {found}");
    }
    let text = "service = [{ name = \"x\", kind = \"class-filter\", action = \"disable\" }]\n\
                filter = [{ driver = \"X\", scope = \"{4d36e97d-e325-11ce-bfc1-08002be10318}\", position = \"upper\" }]";
    assert_eq!(
        Edit::new()
            .item("removal/aws.toml", text, "doc: x")
            .findings(),
        []
    );
}

#[test]
fn one_item_deals_with_a_thing_whichever_files_name_it() {
    for (file, text, told) in [
        (
            "removal/aws.toml",
            "service = [{ name = \"vmtools\", kind = \"program\", action = \"delete\" }]",
            "service vmtools",
        ),
        (
            "removal/gcp.toml",
            "package = [{ inf = \"VMCI.inf\" }]",
            "package vmci.inf",
        ),
        (
            "removal/gcp.toml",
            "task = [{ path = 'gcestartup', action = \"delete\" }]",
            "task gcestartup",
        ),
        (
            "removal/gcp.toml",
            "run-entry = [{ name = \"VMware Tools\" }]",
            "run entry vmware tools",
        ),
        (
            "removal/gcp.toml",
            "network-provider = [{ name = \"VMHGFS\" }]",
            "network provider vmhgfs",
        ),
        (
            "removal/gcp.toml",
            "filter = [{ driver = \"xenfilt\", scope = \"every-class\", position = \"upper\" }]",
            "filter xenfilt of every class",
        ),
        (
            "removal/gcp.toml",
            "first-boot = [{ uninstall = \"VMware Tools\" }]",
            "first-boot step vmware tools",
        ),
        (
            "citrix/vda.toml",
            "file = [{ path = 'mcsDIF.vhdx', kind = \"file\" }]",
            "file mcsdif.vhdx",
        ),
        (
            "target/aws.toml",
            "area = \"boot-storage\"\nboot-service = [{ name = \"PCI\", group = \"x\", images = [\"pci.sys\"], inbox = \"always\" }]",
            "boot service pci",
        ),
        (
            "target/aws.toml",
            "area = \"settings\"\nregistry = [{ hive = \"system\", key = 'ControlSet\\Control\\Power', value = \"hibernateEnabled\", action = \"set\", dword = 0 }]",
            "value system\\controlset\\control\\power!hibernateenabled",
        ),
        (
            "target/gcp.toml",
            "area = \"boot-configuration\"\nboot-option = [{ object = \"ems-settings\", element = \"15000022\", name = \"emsport\", integer = 2 }]",
            "boot option",
        ),
        (
            "target/gcp.toml",
            "area = \"boot-configuration\"\nloader = [{ from = 'EFI\\Microsoft\\Boot\\bootmgfw.efi', to = 'efi\\boot\\BOOTX64.EFI' }]",
            "loader efi",
        ),
    ] {
        let findings = Edit::new().item(file, text, "doc: x").findings();
        let is_told = |one: &Finding| {
            one.message.contains(told) && one.message.contains("is dealt with already, by ")
        };
        assert!(findings.iter().any(is_told), "{text}: {findings:#?}");
    }
}

#[test]
fn nothing_of_windows_is_removed_whatever_the_platforms() {
    for (text, told) in [
        (
            "service = [{ name = \"VMBus\", kind = \"driver\", action = \"disable\" }]",
            "service vmbus is protected: Hyper-V",
        ),
        (
            "service = [{ name = \"vmgid\", kind = \"driver\", action = \"delete\" }]",
            "service vmgid is protected",
        ),
        (
            "service = [{ name = \"vmicheartbeat\", kind = \"program\", action = \"delete\" }]",
            "service vmicheartbeat is protected",
        ),
        (
            "service = [{ name = \"stornvme\", kind = \"driver\", action = \"disable\" }]",
            "service stornvme is protected",
        ),
        (
            "service = [{ name = \"wmiApSrv\", kind = \"program\", action = \"delete\" }]",
            "service wmiapsrv is protected",
        ),
        (
            "service = [{ name = \"pvscsi\", kind = \"driver\", action = \"disable\" }]",
            "kept-on-purpose",
        ),
        (
            "filter = [{ driver = \"partmgr\", scope = \"every-class\", position = \"both\" }]",
            "filter partmgr of every class is protected",
        ),
        (
            "filter = [{ driver = \"mouclass\", scope = \"every-class\", position = \"both\" }]",
            "is protected",
        ),
        (
            "network-provider = [{ name = \"LanmanWorkstation\" }]",
            "is protected",
        ),
        (
            "package = [{ inf = \"wvmbus.inf\" }]",
            "package wvmbus.inf is protected",
        ),
        ("package = [{ inf = \"LSI_SAS.inf\" }]", "is protected"),
        (
            "file = [{ path = 'Windows', kind = \"folder\" }]",
            "is protected",
        ),
        (
            "file = [{ path = 'WINDOWS\\system32\\Drivers', kind = \"folder\" }]",
            "is protected",
        ),
        (
            "file = [{ path = 'Program Files\\Citrix', kind = \"folder\" }]",
            "is protected",
        ),
        (
            "registry = [{ hive = \"system\", key = 'ControlSet\\Control', action = \"delete-key\" }]",
            "is protected",
        ),
        (
            "registry = [{ hive = \"system\", key = 'ControlSet', action = \"delete-key\" }]",
            "is protected",
        ),
        (
            "registry = [{ hive = \"system\", key = 'ControlSet\\Services\\VMBUS', action = \"delete-key\" }]",
            "is protected",
        ),
        (
            "registry = [{ hive = \"software\", key = 'Microsoft', action = \"delete-key\" }]",
            "is protected",
        ),
    ] {
        let findings = Edit::new()
            .item("removal/aws.toml", text, "doc: x")
            .findings();
        assert!(
            findings.iter().any(|one| one.message.contains(told)),
            "{text}: {findings:#?}"
        );
    }
    // What is below such a place is another thing.
    let text = "file = [{ path = 'Program Files\\Citrix\\XenTools', kind = \"folder\" }]\n\
                registry = [{ hive = \"system\", key = 'ControlSet\\Services\\XEN\\Old', action = \"delete-key\" }]";
    assert_eq!(
        Edit::new()
            .item("removal/aws.toml", text, "doc: x")
            .findings(),
        []
    );
}

#[test]
fn nothing_that_a_target_boots_with_is_ever_removed() {
    // Without its `keep-for`, the removal of virtio would break Google Cloud.
    let findings = Edit::new()
        .replace(
            "removal/nutanix.toml",
            "keep-for  = [\"gcp\", \"nutanix\"]\n",
            "",
        )
        .findings();
    let told: Vec<&str> = findings.iter().map(|one| one.message.as_str()).collect();
    for platform in ["Google Cloud", "Nutanix AHV"] {
        let start = format!("{platform} needs service vioscsi (");
        assert!(told.iter().any(|one| one.starts_with(&start)), "{told:#?}");
    }
    assert_eq!(told.len(), 2, "{told:#?}");

    for (text, told) in [
        (
            "package = [{ inf = \"vioscsi.inf\" }]",
            "Google Cloud needs package vioscsi.inf",
        ),
        (
            "package = [{ inf = \"netkvm.inf\" }]",
            "Nutanix AHV needs package netkvm.inf",
        ),
        (
            "file = [{ path = 'Windows\\System32\\drivers\\vioscsi.sys', kind = \"file\" }]",
            "needs file vioscsi.sys",
        ),
        (
            "filter = [{ driver = \"netkvm\", scope = \"every-class\", position = \"both\" }]",
            "needs service netkvm",
        ),
        (
            "registry = [{ hive = \"system\", key = 'ControlSet\\Services\\gvnic', action = \"delete-key\" }]",
            "Google Cloud needs service gvnic",
        ),
    ] {
        let findings = Edit::new()
            .item("removal/vsphere.toml", text, "doc: x")
            .findings();
        assert!(
            findings.iter().any(|one| one.message.contains(told)),
            "{text}: {findings:#?}"
        );
    }
    let kept = "keep-for = [\"gcp\", \"nutanix\"]\npackage = [{ inf = \"vioscsi.inf\" }]";
    assert_eq!(
        Edit::new()
            .item("removal/vsphere.toml", kept, "doc: x")
            .findings(),
        []
    );
}

#[test]
fn what_one_item_leaves_no_other_removes() {
    for (text, told) in [
        (
            "service = [{ name = \"bnistack\", kind = \"driver\", action = \"disable\" }]",
            "pvs.target-device leaves this",
        ),
        (
            "filter = [{ driver = \"cfsdep2\", scope = \"every-class\", position = \"both\" }]",
            "pvs.target-device leaves this",
        ),
        (
            "file = [{ path = 'Packages', kind = \"folder\" }]",
            "azure.kept leaves this",
        ),
        (
            "package = [{ inf = \"GVNIC.inf\" }]",
            "gcp.kept leaves this",
        ),
    ] {
        let file = if told.starts_with("azure") {
            "removal/azure.toml"
        } else {
            "removal/gcp.toml"
        };
        let findings = Edit::new().item(file, text, "doc: x").findings();
        assert!(
            findings.iter().any(|one| one.message.contains(told)),
            "{text}: {findings:#?}"
        );
    }
}

#[test]
fn a_target_says_what_windows_boots_from() {
    let minimal = "schema = 1\nplatform = \"aws\"\n[[item]]\nid = \"to-aws.x\"\narea = \"settings\"\n\
                   title = \"x\"\nwhy = \"x\"\nevidence = [\"doc: x\"]\nleave = [{ inf = \"x.inf\" }]\n";
    let findings = Edit::new().whole("target/aws.toml", minimal).findings();
    let told: Vec<&str> = findings.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        told,
        [
            "no network adapter",
            "no storage controller: nothing says what Windows boots from"
        ]
    );

    let found = Edit::new()
        .replace(
            "target/gcp.toml",
            "boot-service = [{ name = \"vioscsi\"",
            "boot-service = [{ name = \"viostor\"",
        )
        .only_finding();
    assert!(
        found.message.contains("vioscsi has no boot-service"),
        "{found}"
    );

    let found = Edit::new()
        .replace(
            "target/vsphere.toml",
            "images = [\"pvscsi.sys\", \"pvscsii.sys\"], inbox = \">=22621\"",
            "images = [\"pvscsi.sys\"], inbox = \"never\"",
        )
        .only_finding();
    assert!(
        found
            .message
            .contains("as a device's driver and from the driver bundle as a boot-service"),
        "{found}"
    );

    let findings = Edit::new()
        .replace(
            "target/every.toml",
            r"to = 'EFI\Boot\bootx64.efi'",
            r"to = 'EFI\Boot\other.efi'",
        )
        .findings();
    assert_eq!(findings.len(), 6, "{findings:#?}");
    assert!(
        findings
            .iter()
            .all(|one| one.message.contains("nothing puts a loader"))
    );
}

#[test]
fn no_two_items_of_a_pair_want_different_things() {
    for (file, text, told) in [
        // Another value for the same name.
        (
            "removal/azure.toml",
            "registry = [{ hive = \"system\", key = 'ControlSet\\Control\\CrashControl', value = \"autoreboot\", action = \"set\", dword = 1 }]",
            "this contradicts",
        ),
        // Set by one and deleted by the other.
        (
            "removal/aws.toml",
            "registry = [{ hive = \"system\", key = 'ControlSet\\Services\\partmgr\\Parameters', value = \"SanPolicy\", action = \"delete-value\" }]",
            "this contradicts",
        ),
        // Set, in a key that another deletes.
        (
            "removal/vsphere.toml",
            "registry = [{ hive = \"system\", key = 'ControlSet\\Services\\vioscsi\\Parameters', action = \"delete-key\" }]",
            "deletes this key",
        ),
        // An option of the boot loader.
        (
            "target/every.toml",
            "area = \"boot-configuration\"\nboot-option = [{ object = \"default-loader\", element = \"260000b0\", name = \"ems\", boolean = false }]",
            "this contradicts",
        ),
    ] {
        let findings = Edit::new().item(file, text, "doc: x").findings();
        assert!(
            findings.iter().any(|one| one.message.contains(told)),
            "{text}: {findings:#?}"
        );
    }
    // Of two that are for different Windows, only one happens.
    let text = "when = { architecture = \"x86\" }\narea = \"boot-configuration\"\n\
                loader = [{ from = 'EFI\\Microsoft\\Boot\\other.efi', to = 'EFI\\Boot\\bootia32.efi' }]";
    assert_eq!(
        Edit::new()
            .item("target/every.toml", text, "doc: x")
            .findings(),
        []
    );
}

#[test]
fn everything_that_cannot_be_read_is_told_with_its_line() {
    for (text, told) in [
        (
            "colour = \"red\"\nleave = [{ inf = \"x.inf\" }]",
            "unknown field `colour`",
        ),
        (
            "service = [{ name = \"vm*\", kind = \"driver\", action = \"disable\" }]",
            "is no name of a service: it is one name, exact",
        ),
        (
            "service = [{ name = \"x\", kind = \"driver\", action = \"remove\" }]",
            "unknown variant `remove`",
        ),
        (
            "service = [{ name = \"x\", kind = \"driver\" }]",
            "missing field `action`",
        ),
        (
            "service = [{ name = \"x\", kind = \"driver\", action = \"disable\", image = [\"*.sys\"] }]",
            "begins with its *",
        ),
        (
            "[item.service]\nname = \"x\"",
            "is a list: its table has two brackets",
        ),
        ("service = [1]", "is a list of tables"),
        ("package = [{ inf = 'a\\x.inf' }]", "is no name of a file"),
        (
            "filter = [{ driver = \"x\", scope = \"{4d36e97d}\", position = \"both\" }]",
            "is no GUID in braces",
        ),
        (
            "file = [{ path = 'Windows\\..\\x', kind = \"file\" }]",
            "is no name of a file",
        ),
        (
            "file = [{ path = '\\x', kind = \"file\" }]",
            "begins with a backslash",
        ),
        (
            "file = [{ path = 'C:\\x', kind = \"file\" }]",
            "cannot stand in a name",
        ),
        (
            "leave = [{ inf = \"x.inf\", service = \"x\" }]",
            "exactly one of `service`, `inf` and `file`",
        ),
        (
            "detect = [{ hive = \"software\" }]\nleave = [{ inf = \"x.inf\" }]",
            "`hive` with `key`",
        ),
        (
            "first-boot = [{}]",
            "exactly one of `install`, `run`, `uninstall`",
        ),
        (
            "when = { build = \"10\" }\nleave = [{ inf = \"x.inf\" }]",
            "names no builds",
        ),
        (
            "keep-for = [\"os2\"]\nleave = [{ inf = \"x.inf\" }]",
            "is none of aws, azure",
        ),
        (
            "registry = [{ hive = \"system\", key = 'CurrentControlSet\\Control\\x', action = \"delete-key\" }]",
            "names one control set",
        ),
        (
            "registry = [{ hive = \"system\", key = 'Software\\x', action = \"delete-key\" }]",
            "a `key` of `system` begins with ControlSet",
        ),
        (
            "registry = [{ hive = \"software\", key = 'ControlSet\\x', action = \"delete-key\" }]",
            "belongs to `system`",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x\\\\y', action = \"delete-key\" }]",
            "between single backslashes",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"set\", value = \"y\" }]",
            "`set` needs exactly one of",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-value\", value = \"y\", dword = 1 }]",
            "goes with `set` only",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-value\" }]",
            "`value` is missing",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-key\", value = \"y\" }]",
            "`delete-key` takes no `value`",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"remove-entry\", value = \"y\" }]",
            "`entry` goes with",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-values-starting\", value = \"y\" }]",
            "at least 8 characters",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"set\", value = \"y\", dword = 1, only-if-empty = true }]",
            "`only-if-empty` goes with",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-key\", only-if-key = true }]",
            "`only-if-key` goes with",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"delete-key\", only-if = [\"y\"] }]",
            "`only-if` goes with",
        ),
        (
            "registry = [{ hive = \"software\", key = 'x', action = \"set\", value = \"y\", dword = 4294967296 }]",
            "invalid value",
        ),
        (
            "boot-option = [{ object = \"boot-manager\", element = \"2500000A\", name = \"x\", integer = 1 }]",
            "eight hex digits in lower case",
        ),
        (
            "boot-option = [{ object = \"boot-manager\", element = \"25000004\", name = \"x\", boolean = true }]",
            "expected one of `boolean`",
        ),
    ] {
        let edit = Edit::new().item("removal/aws.toml", text, "doc: x");
        let first_line = edit.text("removal/aws.toml").lines().count() - text.lines().count();
        let found = edit.only_finding();
        assert!(found.message.contains(told), "{text}: {found}");
        assert!(
            found.line.is_some_and(|line| line + 7 > first_line),
            "{text}: {found}"
        );
        assert_eq!(found.item.as_deref(), Some("test.item"), "{text}");
    }
}

#[test]
fn several_things_wrong_with_one_table_are_told_together() {
    let text = "service = [{ nam = \"x\", kind = \"drivr\", action = \"disabl\" }, { name = \"y\", kind = 7, action = \"disable\" }]\n\
                colour = 1\nwhen = { build = \"x\" }";
    let findings = Edit::new()
        .item("removal/aws.toml", text, "hearsay: x")
        .findings();
    let told: Vec<&str> = findings.iter().map(|one| one.message.as_str()).collect();
    for expected in [
        "unknown field `nam`",
        "unknown variant `drivr`",
        "unknown variant `disabl`",
        "wanted string or table",
        "unknown field `colour`",
        "names no builds",
        "is no evidence",
    ] {
        assert!(
            told.iter().any(|one| one.contains(expected)),
            "{expected}: {told:#?}"
        );
    }
    assert_eq!(told.len(), 7, "{told:#?}");
}

#[test]
fn every_mistake_of_toml_itself_is_told() {
    let findings = Edit::new()
        .append("removal/aws.toml", "[[item]\nid = \nkey == 1\n")
        .findings();
    assert!(findings.len() >= 2, "{findings:#?}");
    let lines: std::collections::BTreeSet<_> = findings.iter().map(|one| one.line).collect();
    assert!(lines.len() >= 2, "{findings:#?}");
}

#[test]
fn a_file_says_what_it_is_about() {
    for (file, from, to, told) in [
        (
            "removal/aws.toml",
            "schema   = 1",
            "schema   = 2",
            "this program knows schema 1",
        ),
        (
            "removal/aws.toml",
            "schema   = 1\n",
            "",
            "missing field `schema`",
        ),
        (
            "removal/aws.toml",
            "platform = \"aws\"",
            "platform = \"gcp\"",
            "`platform` is \"gcp\", expected \"aws\"",
        ),
        (
            "target/every.toml",
            "platform = \"every\"",
            "platform = \"aws\"",
            "expected \"every\"",
        ),
        (
            "citrix/pvs.toml",
            "component = \"pvs\"",
            "component = \"vda\"",
            "expected \"pvs\"",
        ),
        (
            "citrix/pvs.toml",
            "component = \"pvs\"",
            "component = \"pvs\"\nplatform = \"aws\"",
            "unknown field `platform`",
        ),
        (
            "protected.toml",
            "schema = 1",
            "schema = 0",
            "this program knows schema 1",
        ),
    ] {
        let found = Edit::new().replace(file, from, to).only_finding();
        assert!(found.message.contains(told), "{file}: {found}");
    }
    let group = "[[group]]\nid = \"a\"\ntitle = \"a\"\nwhy = \"a\"\nevidence = []";
    let found = Edit::new().append("removal/aws.toml", group).only_finding();
    assert!(found.message.contains("expected [[item]]"), "{found}");
    let found = Edit::new().append("protected.toml", group).only_finding();
    assert!(found.message.contains("`evidence` is empty"), "{found}");
}

#[test]
fn a_catalogue_that_is_missing_unknown_or_there_twice_is_told() {
    let files: Vec<_> = Catalog::builtin_files().collect();
    let (_, findings) = Catalog::read(files.iter().copied().skip(1));
    assert_eq!(findings.len(), 1);
    assert_eq!(
        findings[0].to_string(),
        format!("{}: this catalogue is missing", files[0].0)
    );
    let (_, findings) = Catalog::read(
        files
            .iter()
            .copied()
            .chain([files[0], ("removal/os2.toml", "")]),
    );
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            format!("{}: this file was there already", files[0].0),
            "removal/os2.toml: no catalogue has this name".to_owned(),
        ]
    );
}

#[test]
fn the_example_of_the_readme_is_good_and_the_mistake_in_it_is_told_as_it_says() {
    let readme = include_str!("../catalog/README.md");
    let (_, example) = readme.split_once("   ```toml\n   [[item]]").unwrap();
    let (example, rest) = example.split_once("   ```\n").unwrap();
    let example = format!("[[item]]{example}");
    let edit = || Edit::new().append("removal/vsphere.toml", &example);
    assert_eq!(edit().findings(), []);

    let filter = example
        .lines()
        .find(|line| line.trim_start().starts_with("filter "));
    let found = edit()
        .replace("removal/vsphere.toml", filter.unwrap(), "")
        .only_finding();
    assert!(rest.contains(&found.message), "{found}");
}

/// The built-in catalogues with an edit.
struct Edit(Vec<(&'static str, String)>);

impl Edit {
    fn new() -> Self {
        Self(
            Catalog::builtin_files()
                .map(|(name, text)| (name, text.to_owned()))
                .collect(),
        )
    }

    fn text(&self, file: &str) -> &str {
        &self.0.iter().find(|(name, _)| *name == file).unwrap().1
    }

    fn whole(mut self, file: &str, text: &str) -> Self {
        let known = self.0.iter_mut().find(|(name, _)| *name == file);
        text.clone_into(&mut known.unwrap().1);
        self
    }

    fn replace(self, file: &str, from: &str, to: &str) -> Self {
        let text = self.text(file);
        assert_eq!(text.matches(from).count(), 1, "{file}: {from}");
        let text = text.replace(from, to);
        self.whole(file, &text)
    }

    fn append(self, file: &str, more: &str) -> Self {
        let text = format!("{}\n{more}\n", self.text(file));
        self.whole(file, &text)
    }

    /// One more item, called `test.item`, with this evidence, and `text` in it.
    fn item(self, file: &str, text: &str, evidence: &str) -> Self {
        let evidence = if evidence.is_empty() {
            String::new()
        } else {
            format!("\"{evidence}\"")
        };
        let item = format!(
            "[[item]]\nid = \"test.item\"\ntitle = \"x\"\nwhy = \"x\"\nevidence = [{evidence}]\n{text}"
        );
        self.append(file, &item)
    }

    fn findings(&self) -> Vec<Finding> {
        let files = self.0.iter().map(|(name, text)| (*name, text.as_str()));
        let (catalog, mut findings) = Catalog::read(files);
        findings.extend(catalog.check());
        findings
    }

    fn only_finding(&self) -> Finding {
        let mut findings = self.findings();
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }
}
