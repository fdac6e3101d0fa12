//! The store that is made, held against that of a real machine, element by element.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ce_platform::bcd::{BootConfiguration, Device, GptPlace, OldStore};
use ce_regf::{FileTime, Hive};
use uuid::{Uuid, uuid};

fn corpus(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names no folder");
    let path = PathBuf::from(folder).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every value below `Objects`, by its path. Strings end where their first NUL is: some were written
/// with two.
fn values(store: &Hive) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let objects = store.root().unwrap().subkey("Objects").unwrap().unwrap();
    for object in objects.subkeys().unwrap() {
        let object = object.unwrap();
        let name = object.name().to_string();
        let description = object.subkey("Description").unwrap().unwrap();
        let kind = description.value("Type").unwrap().unwrap();
        found.insert(name.clone(), ("Type".into(), kind.data().unwrap().to_vec()));
        let elements = object.subkey("Elements").unwrap().unwrap();
        for element in elements.subkeys().unwrap() {
            let element = element.unwrap();
            let value = element.value("Element").unwrap().unwrap();
            let data = match value.string() {
                Ok(text) => text.into_bytes(),
                Err(_) => value.data().unwrap().to_vec(),
            };
            let kind = format!("{:?}", value.value_type());
            found.insert(format!("{name}\\{}", element.name()), (kind, data));
        }
    }
    found
}

#[test]
fn the_store_is_that_of_a_real_machine_with_the_same_partitions() {
    let real = Hive::load(corpus("bcd/BCD-installed-efi")).unwrap();
    let disk = uuid!("0b2394a9-095e-487d-8d48-719ecd4d78ca");
    let place = |partition: Uuid| GptPlace { disk, partition };
    let old = OldStore::read(&real, |device| match device {
        Device::Gpt(place) => Some(place),
        _ => None,
    });
    assert!(old.has_recovery());
    let configuration = BootConfiguration {
        efi_system: place(uuid!("36be3955-63bf-4068-a6ab-00195cca3a22")),
        windows: place(uuid!("8e0f2c38-e4ea-47ba-b7fc-9d8c74dccf0b")),
        folder: r"\Windows".into(),
        description: "another".into(),
        locale: "xx-XX".into(),
        is_server: true,
        old,
        loader: Uuid::nil(),
        resume: Uuid::nil(),
    };
    let now = FileTime::from_ticks(133_752_744_000_000_000);
    let made = Hive::load(configuration.store(now).unwrap()).unwrap();
    let (mut real, mut made) = (values(&real), values(&made));
    // What the firmware of that machine had beside Windows.
    let of_firmware: Vec<String> = real
        .iter()
        .filter(|(_, (kind, data))| kind == "Type" && data == &0x101F_FFFF_u32.to_le_bytes())
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(of_firmware.len(), 3);
    real.retain(|path, _| !of_firmware.iter().any(|object| path.starts_with(object)));
    let order = r"{a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba}\24000001";
    assert!(real.remove(order).is_some() && made.remove(order).is_some());
    for (path, value) in &real {
        assert_eq!(made.get(path), Some(value), "{path}");
    }
    for path in made.keys() {
        assert!(real.contains_key(path), "{path} is in no real store");
    }
}
