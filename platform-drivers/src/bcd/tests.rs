//! Stores that are made, read back, and what is taken from old ones.

use ce_regf::{Hive, RegScript};

use super::*;

const NOW: FileTime = FileTime::from_ticks(133_752_744_000_000_000);
const DISK: Uuid = uuid!("0b2394a9-095e-487d-8d48-719ecd4d78ca");
const EFI_SYSTEM: Uuid = uuid!("36be3955-63bf-4068-a6ab-00195cca3a22");
const WINDOWS: Uuid = uuid!("8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b");
const RECOVERY: Uuid = uuid!("6cdfcd69-de75-4490-8f99-5a84bf264917");
const SIGNATURE: u32 = 0x8BAD_F00D;
const RECOVERY_AT: u64 = 241 << 20;

fn place(partition: Uuid) -> GptPlace {
    GptPlace {
        disk: DISK,
        partition,
    }
}

fn configuration(old: OldStore) -> BootConfiguration {
    BootConfiguration {
        efi_system: place(EFI_SYSTEM),
        windows: place(WINDOWS),
        folder: r"\Windows".into(),
        description: "Windows 10".into(),
        locale: "de-DE".into(),
        is_server: false,
        old,
        loader: Uuid::from_u128(1),
        resume: Uuid::from_u128(2),
    }
}

fn store(configuration: &BootConfiguration) -> Hive {
    let store = Hive::load(configuration.store(NOW).unwrap()).unwrap();
    let report = store.check();
    assert!(
        report.is_sound() && report.findings.is_empty(),
        "{report:?}"
    );
    store
}

fn element(store: &Hive, object: Uuid, number: u32) -> RegValue {
    let path = format!(r"Objects\{}\Elements\{number:08x}", ObjectId(object));
    let key = store.root().unwrap().subkey(&*path).unwrap();
    let key = key.unwrap_or_else(|| panic!("no {path}"));
    let value = key.value("Element").unwrap().unwrap();
    value.to_reg_value().unwrap()
}

/// A partition of an MBR disk, as a store of a BIOS names it.
fn mbr_element(signature: u32, start: u64) -> Vec<u8> {
    let mut element = vec![0; 88];
    element[16] = 6;
    element[24] = 0x48;
    element[32..40].copy_from_slice(&start.to_le_bytes());
    element[52] = 1;
    element[56..60].copy_from_slice(&signature.to_le_bytes());
    element
}

/// `Winre.wim` there, as a disk in memory.
fn ram_disk(options: Uuid, partition: &[u8]) -> Vec<u8> {
    let mut element = options.to_bytes_le().to_vec();
    for number in [0_u32, 1, 0xB8, 0, 3, 0, 0, 0, 0, 0, 1, 0x90, 5] {
        element.extend(number.to_le_bytes());
    }
    element.extend(&partition[16..]);
    let path = "\\Recovery\\WindowsRE\\Winre.wim\0".encode_utf16();
    element.extend(path.flat_map(u16::to_le_bytes));
    element
}

const OLD_LOADER: Uuid = uuid!("11111111-2222-3333-4444-555555555555");
const OLD_RECOVERY: Uuid = uuid!("66666666-2222-3333-4444-555555555555");
const OLD_OPTIONS: Uuid = uuid!("77777777-2222-3333-4444-555555555555");

/// A store of a BIOS.
fn old_hive() -> Hive {
    let recovery = mbr_element(SIGNATURE, RECOVERY_AT);
    let objects = [
        Object::new(well_known::BOOT_MANAGER, kind::BOOT_MANAGER)
            .with(
                element::DEFAULT_OR_RESUME,
                RegValue::sz(&ObjectId(OLD_LOADER).to_string()),
            )
            .with(element::TIMEOUT, RegValue::binary(5_u64.to_le_bytes())),
        Object::new(OLD_LOADER, kind::LOADER)
            .with(element::DESCRIPTION, RegValue::sz("Gold image"))
            .with(element::LOCALE, RegValue::sz("fr-FR"))
            .with(element::NX, RegValue::binary(3_u64.to_le_bytes()))
            .with(0x1600_0046, RegValue::binary([1]))
            .with(
                element::RECOVERY_SEQUENCE,
                RegValue::multi_sz([ObjectId(OLD_RECOVERY).to_string()]),
            ),
        Object::new(OLD_RECOVERY, kind::LOADER)
            .with(
                element::DEVICE,
                RegValue::binary(ram_disk(OLD_OPTIONS, &recovery)),
            )
            .with(
                element::OS_DEVICE,
                RegValue::binary(ram_disk(OLD_OPTIONS, &recovery)),
            )
            .with(
                element::PATH,
                RegValue::sz(r"\windows\system32\winload.exe"),
            ),
        Object::new(OLD_OPTIONS, kind::DEVICE)
            .with(0x3100_0003, RegValue::binary(recovery))
            .with(0x3200_0004, RegValue::sz(r"\Recovery\WindowsRE\boot.sdi")),
    ];
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_3, &security, NOW).unwrap();
    let mut editor = hive.edit(NOW).unwrap();
    for object in objects {
        let key = format!(r"Objects\{}", object.id);
        let description = format!(r"{key}\Description");
        editor.create_key(&*description).unwrap();
        let kind = RegValue::dword(object.kind);
        editor.set_value(&*description, "Type", &kind).unwrap();
        for (number, value) in object.elements {
            let key = format!(r"{key}\Elements\{number:08X}");
            editor.create_key(&*key).unwrap();
            editor.set_value(&*key, "Element", &value).unwrap();
        }
    }
    hive
}

fn new_place(device: Device) -> Option<GptPlace> {
    let recovery = Device::Mbr {
        signature: SIGNATURE,
        start: RECOVERY_AT,
    };
    (device == recovery).then(|| place(RECOVERY))
}

#[test]
fn a_store_that_is_made_starts_windows_from_its_partition() {
    let store = store(&configuration(OldStore::default()));
    let manager = well_known::BOOT_MANAGER;
    let loader = Uuid::from_u128(1);
    assert_eq!(
        element(&store, manager, element::DEFAULT_OR_RESUME),
        RegValue::sz("{00000000-0000-0000-0000-000000000001}")
    );
    for (object, number, partition) in [
        (manager, element::DEVICE, EFI_SYSTEM),
        (well_known::MEMORY_TESTER, element::DEVICE, EFI_SYSTEM),
        (loader, element::DEVICE, WINDOWS),
        (loader, element::OS_DEVICE, WINDOWS),
    ] {
        let found = Device::of(&element(&store, object, number).data);
        assert_eq!(found, Some(Device::Gpt(place(partition))));
    }
    assert_eq!(
        element(&store, loader, element::PATH),
        RegValue::sz(r"\Windows\system32\winload.efi")
    );
    let root = store.root().unwrap();
    let recovery = format!(r"Objects\{}\Elements\14000008", ObjectId(loader));
    assert!(root.subkey(&*recovery).unwrap().is_none());
}

#[test]
fn what_was_chosen_in_the_store_of_the_bios_is_kept() {
    let old = OldStore::read(&old_hive(), new_place);
    assert!(old.has_recovery());
    let store = store(&configuration(old));
    let texts = [
        (OLD_LOADER, element::DESCRIPTION, "Gold image"),
        (OLD_LOADER, element::LOCALE, "fr-FR"),
        (
            OLD_RECOVERY,
            element::PATH,
            r"\windows\system32\winload.efi",
        ),
        (OLD_OPTIONS, 0x3200_0004, r"\Recovery\WindowsRE\boot.sdi"),
    ];
    for (object, number, text) in texts {
        assert_eq!(element(&store, object, number), RegValue::sz(text));
    }
    let nx = RegValue::binary(3_u64.to_le_bytes());
    assert_eq!(element(&store, OLD_LOADER, element::NX), nx);
    let timeout = RegValue::binary(5_u64.to_le_bytes());
    assert_eq!(
        element(&store, well_known::BOOT_MANAGER, element::TIMEOUT),
        timeout
    );
    let root = store.root().unwrap();
    // Without a meaning, or a harmful one, for UEFI.
    let graphics = format!(r"Objects\{}\Elements\16000046", ObjectId(OLD_LOADER));
    assert!(root.subkey(&*graphics).unwrap().is_none());
}

#[test]
fn the_recovery_environment_is_named_on_the_new_disk() {
    let store = store(&configuration(OldStore::read(&old_hive(), new_place)));
    for (object, number) in [
        (OLD_RECOVERY, element::DEVICE),
        (OLD_RECOVERY, element::OS_DEVICE),
        (OLD_OPTIONS, 0x3100_0003),
    ] {
        let found = element(&store, object, number).data;
        assert_eq!(Device::of(&found), Some(Device::Gpt(place(RECOVERY))));
    }
    let found = element(&store, OLD_RECOVERY, element::DEVICE).data;
    let expected = ram_disk(OLD_OPTIONS, &place(RECOVERY).element());
    assert_eq!(found, expected);
    assert_eq!(device::options(&found), Some(OLD_OPTIONS));
}

#[test]
fn a_recovery_environment_elsewhere_is_left_out() {
    let old = OldStore::read(&old_hive(), |_| None);
    assert!(!old.has_recovery());
    assert_eq!(old.loader, Some(OLD_LOADER));
}

#[test]
fn an_old_store_that_passes_off_well_known_objects_as_its_own_is_not_followed() {
    let manager = ObjectId(well_known::BOOT_MANAGER);
    let text = format!(
        "Windows Registry Editor Version 5.00\n\n[Objects\\{manager}\\Description]\n\
         \"Type\"=dword:10200003\n[Objects\\{manager}\\Elements\\23000003]\n\"Element\"=\"{manager}\"\n"
    );
    let script = RegScript::parse(text.as_bytes(), &ce_regf::KeyPath::from("")).unwrap();
    let mut hive = old_hive();
    hive.edit(NOW).unwrap().import(&script).unwrap();
    assert_eq!(OldStore::read(&hive, new_place), OldStore::default());
}

#[test]
fn a_device_element_is_understood_whole_or_not_at_all() {
    let whole = ram_disk(OLD_OPTIONS, &mbr_element(SIGNATURE, RECOVERY_AT));
    let partition = mbr_element(SIGNATURE, RECOVERY_AT);
    for (element, least) in [(whole, 140), (partition, 88)] {
        for length in 0..element.len() {
            let is_understood = Device::of(&element[..length]).is_some();
            assert_eq!(is_understood, length >= least, "{length}");
        }
        for at in 0..element.len() {
            let mut changed = element.clone();
            changed[at] ^= 0xFF;
            // It may name another place, but never takes more than there is.
            let _ = device::moved(&changed, |_| Some(place(RECOVERY)));
        }
    }
}
