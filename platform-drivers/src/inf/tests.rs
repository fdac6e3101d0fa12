//! What Windows makes of INF text.

mod files;
mod install;
mod registry;

use ce_regf::RegValue;
use proptest::prelude::*;

use super::*;

#[test]
fn a_package_as_shipped_is_followed_to_its_end() {
    let inf = parse(VIOSTOR);
    let version = inf.version();
    assert_eq!(version.provider.as_deref(), Some("Red Hat, Inc."));
    assert_eq!(
        version.catalog_for(Architecture::Amd64),
        Some("viostor.cat")
    );
    assert!(version.lockdown);
    let driver = version.driver.unwrap();
    assert_eq!(driver.version, [100, 91, 104, 22500]);
    assert_eq!(driver.date.to_string(), "2022-08-18");

    let plan = plan(&inf, r"pci\ven_1af4&dev_1042");
    assert_eq!(plan.section, "scsi_inst");
    assert_eq!(plan.feature_score, 0xFF);
    let [copy] = &plan.copies[..] else {
        panic!("{:?}", plan.copies)
    };
    assert_eq!(copy.source, "viostor.sys");
    assert_eq!(
        copy.destination,
        Destination::Volume(r"Windows\System32\drivers\viostor.sys".into())
    );
    assert_eq!(copy.flags, 2);

    let service = plan.function_driver().unwrap();
    assert_eq!(service.name, "viostor");
    assert!(service.is_boot_start() && service.is_driver());
    assert_eq!(service.image_path, r"System32\drivers\viostor.sys");
    assert_eq!(service.load_order_group.as_deref(), Some("SCSI miniport"));
    assert_eq!(
        set(&service.registry, r"Parameters\PnpInterface", "5"),
        Some(RegValue::dword(1))
    );
    let log = service.event_log.as_ref().unwrap();
    assert_eq!((log.log.as_str(), log.name.as_str()), ("System", "viostor"));
    assert_eq!(
        set(&log.registry, "", "EventMessageFile"),
        Some(RegValue::expand_sz(r"%SystemRoot%\System32\IoLogMsg.dll"))
    );

    let interrupts = r"Interrupt Management\MessageSignaledInterruptProperties";
    assert_eq!(
        set(&plan.registry, interrupts, "MessageNumberLimit"),
        Some(RegValue::dword(256))
    );
    assert!(plan.registry.iter().any(|change| change.key == interrupts
        && change.root == RegistryRoot::Device
        && change.action == RegistryAction::CreateKey));
    assert!(plan.unresolved.is_empty() && plan.left_to_windows.is_empty());
}

#[test]
fn the_hardware_id_of_one_line_goes_before_the_compatible_id_of_another() {
    let inf = parse(&with_models(
        "first = A, ID\\ONE, ID\\TWO\nsecond = B, ID\\TWO\n[A]\n[B]\n",
    ));
    assert_eq!(plan(&inf, r"ID\TWO").section, "B");
    assert_eq!(plan(&inf, r"ID\ONE").section, "A");
    let wrong = inf.plan(r"ID\THREE", &windows_10(), &InfLibrary::default());
    assert!(matches!(
        wrong.unwrap_err().kind,
        InfErrorKind::NoSuchDevice { .. }
    ));
}

#[test]
fn the_install_section_for_the_machine_goes_before_the_one_for_all() {
    let text = with_models("d = A, ID\\A\n[A]\n[A.NT]\n[a.ntAMD64]\n[A.NTarm64]\n");
    assert_eq!(plan(&parse(&text), r"ID\A").section, "a.ntAMD64");
    let text = with_models("d = A, ID\\A\n[A]\n[A.NT]\n[A.NTarm64]\n");
    assert_eq!(plan(&parse(&text), r"ID\A").section, "A.NT");
    let text = with_models("d = A, ID\\A\n[A.NTarm64]\n");
    let refused = parse(&text).plan(r"ID\A", &windows_10(), &InfLibrary::default());
    assert_eq!(
        refused.unwrap_err().to_string(),
        "line 6: [M.NTamd64] names the section [A], which is not in the file"
    );
}

#[test]
fn lines_are_taken_apart_as_setupapi_does() {
    for (text, key, values) in [
        ("ab=cd", Some("ab"), vec!["cd"]),
        ("ab=cd,ef,gh", Some("ab"), vec!["cd", "ef", "gh"]),
        ("ab", None, vec!["ab"]),
        ("ab,cd=ef", None, vec!["ab", "cd=ef"]),
        ("=cd,ef", Some(""), vec!["cd", "ef"]),
        ("ab=", Some("ab"), vec![""]),
        (" a b\t=  c d , e ", Some("a b"), vec!["c d", "e"]),
        ("ab=a=b", Some("ab"), vec!["a=b"]),
        // Quotes
        (r#"ab="c, d;e""#, Some("ab"), vec!["c, d;e"]),
        (r#"ab="c""d""#, Some("ab"), vec![r#"c"d"#]),
        (r#"ab="c"d" e""#, Some("ab"), vec!["cd e"]),
        (r#"ab=" c " "#, Some("ab"), vec![" c "]),
        (r#""ab=cd""#, None, vec!["ab=cd"]),
        (r#""a"b="c",d"#, Some("ab"), vec!["c", "d"]),
        ("ab=\"cd,ef", Some("ab"), vec!["cd,ef"]),
        // Comments
        ("ab=cd ; ef, gh", Some("ab"), vec!["cd"]),
        ("ab=cd;\\", Some("ab"), vec!["cd"]),
        // Backslashes
        ("ab=c\\d", Some("ab"), vec!["c\\d"]),
        ("ab=cd\\", Some("ab"), vec!["cd\\"]),
        ("ab=cd,\\\n   ef", Some("ab"), vec!["cd", "ef"]),
        ("ab=cd,\\  \r\n   ef", Some("ab"), vec!["cd", "ef"]),
        ("ab=cd, \\ ; why\n ef", Some("ab"), vec!["cd", "ef"]),
        ("ab=c\\\nd", Some("ab"), vec!["cd"]),
        ("ab=\"c\"\\\n\"d\"", Some("ab"), vec!["cd"]),
        (r#"ab="c:\","d""#, Some("ab"), vec!["c:\\", "d"]),
    ] {
        // At the end of the file, where a backslash continues nothing.
        let inf = parse(&format!("{HEADER}[S]\n{text}"));
        let section = inf.sections().find("s").unwrap();
        let [line] = &section.lines[..] else {
            panic!("{text}: {:?}", section.lines)
        };
        assert_eq!(line.key.as_deref(), key, "{text}");
        assert_eq!(line.values, values, "{text}");
    }
}

#[test]
fn sections_of_one_name_are_one_and_their_names_have_no_case() {
    let inf = parse(&format!("{HEADER}[One]\na=1\n[Two] ; two\n[ oNE ]\nb=2\n"));
    let one = inf.sections().find("ONE").unwrap();
    assert_eq!(one.lines.len(), 2);
    assert_eq!((one.name.as_str(), one.number), ("One", LineNumber(3)));
    assert_eq!(one.with_key("B").next().unwrap().number, LineNumber(7));
}

#[test]
fn what_windows_refuses_is_refused_with_its_line() {
    let long = "x".repeat(256);
    for (text, expected) in [
        ("", "no INF"),
        ("[Version]\n", "line 1: no INF"),
        ("\n[Version]\nSignature=\"$Linux$\"", "line 3: no INF"),
        (
            "; c\nabc\n[Version]",
            "line 2: expected a [section], found \"abc\"",
        ),
        (
            "[Version]\nSignature=$CHICAGO$\n[ab\n",
            "line 3: expected `]`",
        ),
        (
            &format!("[Version]\nSignature=$chicago$\n\n[{long}]"),
            "line 4: a section name of 256 characters",
        ),
        (
            "[Version]\nSignature=$chicago$\nDriverVer=13/01/2020,1.0",
            "line 3: DriverVer: expected mm/dd/yyyy,a.b.c.d",
        ),
        (
            "[Version]\nSignature=$chicago$\nDriverVer=02/29/2023,1.0",
            "line 3: DriverVer",
        ),
        (
            "[Version]\nSignature=$chicago$\nClassGuid=4d36e97b",
            "line 3: ClassGuid: expected a GUID in braces",
        ),
        (
            "[Version]\nSignature=$chicago$\nCatalogFile=..\\x.cat",
            "line 3: the catalogue",
        ),
        ("[Version]\nSignature=$chicago$\na=\0", "line 3: a NUL"),
    ] {
        let error = Inf::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}

#[test]
fn text_is_read_in_the_encodings_that_infs_have() {
    let text = format!("{HEADER}[Strings]\nname=\"Ger\u{e4}t \u{2122}\"\n");
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_mark = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
    let ansi: Vec<u8> = text
        .chars()
        .map(|found| match found {
            '\u{2122}' => 0x99,
            other => u8::try_from(u32::from(other)).unwrap(),
        })
        .collect();
    for (bytes, encoding) in [
        (with_mark(&[0xFF, 0xFE], &utf16), TextEncoding::Utf16),
        (utf16, TextEncoding::Utf16),
        (
            with_mark(&[0xEF, 0xBB, 0xBF], text.as_bytes()),
            TextEncoding::Utf8,
        ),
        (text.clone().into_bytes(), TextEncoding::Utf8),
        (ansi, TextEncoding::Ansi),
    ] {
        let inf = Inf::parse(&bytes).unwrap();
        assert_eq!(inf.encoding(), encoding);
        assert_eq!(inf.strings().find("NAME"), Some("Ger\u{e4}t \u{2122}"));
    }
}

#[test]
fn names_in_percent_signs_are_strings_directories_or_stay() {
    let inf = parse(&format!(
        "{HEADER}[Strings]\nA = \"x, %B%\"\nB = y\nA = second\n12x = z\n"
    ));
    let expand = |text| inf.strings().expand(text, LineNumber(1)).unwrap();
    for (text, expected) in [
        ("%a%", "x, %B%"),
        ("-%A%-%b%-", "-x, %B%-y-"),
        ("%%SystemRoot%%", "%SystemRoot%"),
        ("%SystemRoot%", "%SystemRoot%"),
        ("%12%\\a.sys", r"C:\Windows\System32\drivers\a.sys"),
        ("%16425%", r"C:\Windows\SysWOW64"),
        ("%13%\\a.sys", r"%13%\a.sys"),
        ("%12x%", "z"),
        ("%99%", "%99%"),
        ("50%", "50%"),
        ("", ""),
    ] {
        assert_eq!(expand(text), expected, "{text}");
    }
}

#[test]
fn strings_come_from_the_section_of_the_language_if_there_is_one() {
    let text = format!(
        "{HEADER}[Strings]\na=base\nb=only\n[Strings.0407]\na=deutsch\n[Strings.0c0a]\na=es\n"
    );
    let of = |language| {
        let inf = parse(&text).in_language(LanguageId(language));
        let find = |name| inf.strings().find(name).unwrap().to_owned();
        (find("a"), find("b"))
    };
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(of(0x0409), pair("base", "only"));
    assert_eq!(of(0x0407), pair("deutsch", "only"));
    assert_eq!(of(0x0807), pair("deutsch", "only"), "German of Switzerland");
    assert_eq!(of(0x0C0A), pair("es", "only"));
}

#[test]
fn an_inf_that_asks_for_more_than_any_driver_is_refused_soon() {
    let mut text = with_models("d = A, ID\\A\n[A]\n");
    for _ in 0..2000 {
        text.push_str("AddReg = R, R, R, R, R, R, R, R\n");
    }
    text.push_str("[R]\n");
    text.push_str(&"HKR,,n,,v\n".repeat(10_000));
    let error = parse(&text).plan(r"ID\A", &windows_10(), &InfLibrary::default());
    assert!(matches!(
        error.unwrap_err().kind,
        InfErrorKind::TooMuch { .. }
    ));

    let long = "x".repeat(4000);
    let many = "%s%".repeat(1000);
    let text = with_models(&format!("d = A, {many}\n[A]\n[Strings]\ns = {long}\n"));
    let error = parse(&text).models(&windows_10()).unwrap_err();
    assert!(
        matches!(error.kind, InfErrorKind::TooMuch { .. }),
        "{error}"
    );
}

proptest! {
    #[test]
    fn text_printed_and_read_again_has_the_same_sections(
        lines in proptest::collection::vec("[ -~\u{e9}\t]{0,24}", 0..24)
    ) {
        let text = format!("{HEADER}[S]\n{}\n", lines.join("\n"));
        // Not every line of printable characters is one of an INF: a section may be left open.
        if let Ok(inf) = Inf::parse(text.as_bytes()) {
            let printed = inf.sections().to_string();
            let again = Inf::parse(printed.as_bytes()).expect("its own text");
            prop_assert_eq!(content(&again), content(&inf));
        }
    }

    #[test]
    fn a_field_in_quotes_is_read_as_it_was(field in "[^\n\r\0\u{1a}]{0,40}") {
        let quoted = field.replace('"', "\"\"");
        let inf = parse(&format!("{HEADER}[S]\nkey = \"{quoted}\", next\n"));
        let line = &inf.sections().find("S").unwrap().lines[0];
        prop_assert_eq!(&line.values, &[field, "next".to_owned()]);
    }

    #[test]
    fn the_models_chosen_are_those_of_the_highest_version_that_is_not_above(
        listed in proptest::collection::btree_set(version_and_machine(), 1..8),
        order in any::<u64>(),
        is_new in any::<bool>(),
    ) {
        let running = if is_new { (10, 0, 17763) } else { (6, 3, 9600) };
        let mut listed: Vec<_> = listed.into_iter().collect();
        let expected = listed
            .iter()
            .filter(|(version, build, machine)| {
                *machine == "amd64" && *version <= (running.0, running.1) && *build <= running.2
            })
            .max();
        let expected = expected.map(|found| format!("I{}", decoration(found)));
        // In whatever order they are listed.
        let places = listed.len();
        listed.rotate_left(usize::try_from(order).unwrap_or(0) % places);
        let mut text = format!("{HEADER}[Manufacturer]\nM = M");
        for found in &listed {
            text.push_str(&format!(", {}", decoration(found)));
        }
        for name in listed.iter().map(decoration) {
            text.push_str(&format!("\n[M.{name}]\nd = I{name}, ID\\A\n[I{name}]"));
        }
        let (major, minor, build) = running;
        let version = WindowsVersion { major, minor, build };
        let target = WindowsTarget { version, ..windows_10() };
        let plan = parse(&text).plan(r"ID\A", &target, &InfLibrary::default());
        prop_assert_eq!(plan.ok().map(|plan| plan.section), expected);
    }

    #[test]
    fn the_lines_of_errors_are_lines_of_the_file(
        tail in "(\\[|\\]|=|,|\"|%|\\\\|;|\n|S|AddReg|CopyFiles|HKR|1| ){0,60}"
    ) {
        let text = with_models(&format!("d = S, ID\\A\n[S]\n{tail}\n"));
        let count = u32::try_from(text.lines().count()).unwrap();
        let result = Inf::parse(text.as_bytes())
            .and_then(|inf| inf.plan(r"ID\A", &windows_10(), &InfLibrary::default()));
        if let Err(InfError { line: Some(line), .. }) = result {
            prop_assert!((1..=count).contains(&line.0), "{} of {}", line, count);
        }
    }
}

/// Version, build (0: none) and machine of a models section. Builds stand with version 10.0 only.
type Listed = ((u32, u32), u32, &'static str);

fn version_and_machine() -> impl Strategy<Value = Listed> {
    let machine = prop::sample::select(vec!["amd64", "arm64", "x86"]);
    let old = prop::sample::select(vec![(5, 1), (6, 0), (6, 1), (6, 2), (6, 3), (7, 0)]);
    let build = prop::sample::select(vec![0, 14393, 17763, 22000, 26100]);
    prop_oneof![
        (old, Just(0), machine.clone()),
        (Just((10, 0)), build, machine),
    ]
}

fn decoration(&((major, minor), build, machine): &Listed) -> String {
    match build {
        0 => format!("NT{machine}.{major}.{minor}"),
        _ => format!("NT{machine}.{major}.{minor}...{build}"),
    }
}

type Fields = (Option<String>, Vec<String>);

fn content(inf: &Inf) -> Vec<(String, Vec<Fields>)> {
    inf.sections()
        .iter()
        .map(|section| {
            let lines = section.lines.iter();
            let lines = lines.map(|line| (line.key.clone(), line.values.clone()));
            (section.name.clone(), lines.collect())
        })
        .collect()
}

fn parse(text: &str) -> Inf {
    Inf::parse(text.as_bytes()).unwrap()
}

fn plan(inf: &Inf, hardware_id: &str) -> InstallPlan {
    inf.plan(hardware_id, &windows_10(), &InfLibrary::default())
        .unwrap()
}

/// The change that one line of an `AddReg` section makes. It is the tenth of its file.
fn add_reg(line: &str) -> Result<RegistryChange, InfError> {
    let text = with_models(&format!("d = A, ID\\A\n[A]\nAddReg = R\n[R]\n{line}\n"));
    let plan = parse(&text).plan(r"ID\A", &windows_10(), &InfLibrary::default())?;
    let [change] = &plan.registry[..] else {
        panic!("{:?}", plan.registry)
    };
    Ok(change.clone())
}

fn set(changes: &[RegistryChange], key: &str, wanted: &str) -> Option<RegValue> {
    changes.iter().find_map(|change| match &change.action {
        RegistryAction::Set { name, value, .. } if change.key == key && name == wanted => {
            Some(value.clone())
        }
        _ => None,
    })
}

fn windows_10() -> WindowsTarget {
    WindowsTarget {
        architecture: Architecture::Amd64,
        version: WindowsVersion {
            major: 10,
            minor: 0,
            build: 17763,
        },
        product_type: ProductType::Server,
        suites: 0,
    }
}

/// The lines of a models section for amd64, which begin in line 6, and whatever follows.
fn with_models(lines: &str) -> String {
    format!("{HEADER}[Manufacturer]\nM = M, NTamd64\n[M.NTamd64]\n{lines}")
}

/// Two lines.
const HEADER: &str = "[Version]\nSignature=\"$Windows NT$\"\n";

/// The form in which storage drivers for virtual machines ship.
const VIOSTOR: &str = r#"
[Version]
Signature="$Windows NT$"
Class=SCSIAdapter
ClassGUID={4D36E97B-E325-11CE-BFC1-08002BE10318}
Provider=%VENDOR%
DriverVer = 08/18/2022,100.91.104.22500
CatalogFile=viostor.cat
PnpLockdown=1
[SourceDisksNames]
1 = %DiskId1%,,,""
[SourceDisksFiles]
viostor.sys = 1,,
[DestinationDirs]
DefaultDestDir = 10
viostor_Files_Driver = 12
[Manufacturer]
%VENDOR%   = VioStor,NTamd64.6.3
[VioStor.NTamd64.6.3]
%Desc% = scsi_inst, PCI\VEN_1AF4&DEV_1001&SUBSYS_00021AF4&REV_00, PCI\VEN_1AF4&DEV_1001
%Desc% = scsi_inst, PCI\VEN_1AF4&DEV_1042&SUBSYS_11001AF4&REV_01, PCI\VEN_1AF4&DEV_1042
[viostor_Files_Driver]
viostor.sys,,,2
[scsi_inst]
CopyFiles=viostor_Files_Driver
[scsi_inst.Services]
AddService = viostor, 0x00000002 , scsi_Service_Inst, scsi_EventLog_Inst
[scsi_Service_Inst]
ServiceType    = %SERVICE_KERNEL_DRIVER%
StartType      = 0
ErrorControl   = 1
ServiceBinary  = %12%\viostor.sys
LoadOrderGroup = SCSI miniport
AddReg         = pnpsafe_pci_addreg
[scsi_inst.HW]
AddReg         = pnpsafe_pci_addreg_msix
[scsi_EventLog_Inst]
AddReg = scsi_EventLog_AddReg
[scsi_EventLog_AddReg]
HKR,,EventMessageFile,%REG_EXPAND_SZ%,"%%SystemRoot%%\System32\IoLogMsg.dll"
HKR,,TypesSupported,%REG_DWORD%,7
[pnpsafe_pci_addreg]
HKR, "Parameters\PnpInterface", "5", %REG_DWORD%, 0x00000001
[pnpsafe_pci_addreg_msix]
HKR, "Interrupt Management\MessageSignaledInterruptProperties",, 0x00000010
HKR, "Interrupt Management\MessageSignaledInterruptProperties", MessageNumberLimit, 0x00010001, 256
[Strings]
VENDOR = "Red Hat, Inc."
diskId1 = "Disk"
Desc = "Red Hat VirtIO SCSI controller"
REG_EXPAND_SZ  = 0x00020000
REG_DWORD      = 0x00010001
SERVICE_KERNEL_DRIVER  = 1
"#;
