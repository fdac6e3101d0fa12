//! A registry as a tree of maps, to be compared with a hive that went through the same edits.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;

use ce_regf::{
    EditError, FileTime, Hive, HiveEditor, Key, KeyPath, Name, RegValue, SecurityDescriptor,
    ValueType,
};

/// A key: what is in it and below it.
#[derive(Clone, Debug)]
pub struct ModelKey {
    name: Name,
    class: Option<Name>,
    security: SecurityDescriptor,
    /// In the order they were first set.
    values: Vec<(Name, RegValue)>,
    /// By the name in upper case, which is the order a hive lists them in.
    subkeys: BTreeMap<Name, ModelKey>,
}

/// One edit.
#[derive(Clone, Debug)]
pub enum Op {
    CreateKey(KeyPath),
    DeleteKey(KeyPath),
    SetValue(KeyPath, Name, RegValue),
    DeleteValue(KeyPath, Name),
    SetClass(KeyPath, Option<Name>),
    SetSecurity(KeyPath, SecurityDescriptor),
    SaveAndReload,
}

impl ModelKey {
    /// The model of a hive that has only a root key.
    pub fn root(security: SecurityDescriptor) -> Self {
        Self::new(Name::default(), security)
    }

    fn new(name: Name, security: SecurityDescriptor) -> Self {
        Self {
            name,
            class: None,
            security,
            values: Vec::new(),
            subkeys: BTreeMap::new(),
        }
    }

    fn find(&mut self, path: &KeyPath) -> Option<&mut Self> {
        let mut key = self;
        for name in path.names() {
            key = key.subkeys.get_mut(&name.folded())?;
        }
        Some(key)
    }

    /// Panics where the hive's key differs from this one.
    pub fn assert_equals(&self, key: &Key<'_>) {
        let here = &self.name;
        assert_eq!(key.class_name().unwrap(), self.class, "class of {here}");
        assert_eq!(
            key.security_descriptor().unwrap(),
            self.security,
            "rights of {here}"
        );
        let values: Vec<(Name, RegValue)> = key
            .values()
            .unwrap()
            .map(|value| value.unwrap())
            .map(|value| (value.name().to_name(), value.to_reg_value().unwrap()))
            .collect();
        assert!(
            values == self.values,
            "values of {here}: {values:?}, expected {:?}",
            self.values
        );
        let subkeys: Vec<Key<'_>> = key.subkeys().unwrap().map(|key| key.unwrap()).collect();
        let names: Vec<Name> = subkeys.iter().map(|key| key.name().to_name()).collect();
        let expected: Vec<Name> = self.subkeys.values().map(|key| key.name.clone()).collect();
        assert_eq!(names, expected, "subkeys of {here}");
        for (model, key) in self.subkeys.values().zip(&subkeys) {
            model.assert_equals(key);
        }
    }
}

/// Does the same to a hive and its model. What the hive refuses for lack of room is not done to
/// the model either.
pub fn apply(op: &Op, hive: &mut Hive, model: &mut ModelKey, now: FileTime) {
    let mut editor = hive.edit(now).unwrap();
    match op {
        Op::CreateKey(path) => {
            let mut above = KeyPath::ROOT;
            for name in path.names() {
                let parent = model.find(&above).unwrap();
                let path = above.join(name);
                match editor.create_key(&path) {
                    Ok(created) => {
                        assert_eq!(created, !parent.subkeys.contains_key(&name.folded()));
                        let new = ModelKey::new(name.clone(), parent.security.clone());
                        parent.subkeys.entry(name.folded()).or_insert(new);
                    }
                    Err(EditError::Full { .. }) => break,
                    Err(error) => panic!("create {path}: {error}"),
                }
                above = path;
            }
        }
        Op::DeleteKey(path) => match path.split_last() {
            None => assert!(matches!(
                editor.delete_key(path),
                Err(EditError::Protected { .. })
            )),
            Some((above, name)) => {
                let deleted = editor.delete_key(path).unwrap();
                let removed = model
                    .find(&above)
                    .and_then(|key| key.subkeys.remove(&name.folded()));
                assert_eq!(deleted, removed.is_some(), "delete {path}");
            }
        },
        Op::SetValue(path, name, value) => {
            let result = editor.set_value(path, name, value);
            let Some(key) = model.find(path) else {
                assert!(
                    matches!(result, Err(EditError::NoSuchKey { .. })),
                    "{result:?}"
                );
                return;
            };
            let old = key.values.iter_mut().find(|(other, _)| other.matches(name));
            match (result, old) {
                (Err(EditError::Full { .. }), _) => {}
                (Err(error), _) => panic!("set {path} {name}: {error}"),
                (Ok(changed), Some((_, old))) => {
                    assert_eq!(changed, old != value);
                    *old = value.clone();
                }
                (Ok(changed), None) => {
                    assert!(changed);
                    key.values.push((name.clone(), value.clone()));
                }
            }
        }
        Op::DeleteValue(path, name) => {
            let deleted = editor.delete_value(path, name).unwrap();
            let values = model.find(path).map(|key| &mut key.values);
            let before = values.as_ref().map_or(0, |values| values.len());
            let after = values.map_or(0, |values| {
                values.retain(|(other, _)| !other.matches(name));
                values.len()
            });
            assert_eq!(deleted, after < before, "delete {path} {name}");
        }
        Op::SetClass(path, class) => {
            let result = editor.set_class_name(path, class.as_ref());
            match (result, model.find(path)) {
                (Ok(_), Some(key)) => key.class.clone_from(class),
                (Err(EditError::Full { .. }), Some(_)) => {}
                (Err(EditError::NoSuchKey { .. }), None) => {}
                (result, _) => panic!("class of {path}: {result:?}"),
            }
        }
        Op::SetSecurity(path, security) => {
            let result = editor.set_security(path, security);
            match (result, model.find(path)) {
                (Ok(changed), Some(key)) => {
                    assert_eq!(changed, key.security != *security);
                    key.security = security.clone();
                }
                (Err(EditError::Full { .. }), Some(_)) => {}
                (Err(EditError::NoSuchKey { .. }), None) => {}
                (result, _) => panic!("rights of {path}: {result:?}"),
            }
        }
        Op::SaveAndReload => {
            let limit = hive.growth_limit();
            let saved = hive.save(now).unwrap().bytes.to_vec();
            *hive = Hive::load(saved).unwrap();
            hive.limit_growth(limit);
        }
    }
}

/// Does an edit to a hive of which nothing is known; any error will do.
pub fn try_edit(op: &Op, editor: &mut HiveEditor<'_>) {
    let _ = match op {
        Op::CreateKey(path) => editor.create_key(path),
        Op::DeleteKey(path) => editor.delete_key(path),
        Op::SetValue(path, name, value) => editor.set_value(path, name, value),
        Op::DeleteValue(path, name) => editor.delete_value(path, name),
        Op::SetClass(path, class) => editor.set_class_name(path, class.as_ref()),
        Op::SetSecurity(path, security) => editor.set_security(path, security),
        Op::SaveAndReload => Ok(false),
    };
}

/// Edits out of random bytes, four for each.
pub fn ops(bytes: &[u8]) -> impl Iterator<Item = Op> {
    bytes.chunks_exact(4).map(|bytes| {
        let [what, place, name, size] = [bytes[0], bytes[1], bytes[2], bytes[3]];
        match what % 16 {
            0..=3 => Op::CreateKey(path(place)),
            4 => Op::DeleteKey(path(place)),
            5..=10 => Op::SetValue(path(place), value_name(name), value(what, size)),
            11 | 12 => Op::DeleteValue(path(place), value_name(name)),
            13 => Op::SetClass(path(place), (name > 64).then(|| value_name(name | 1))),
            14 => Op::SetSecurity(path(place), security(size)),
            _ => Op::SaveAndReload,
        }
    })
}

/// One of few paths up to three keys deep, spelt in changing case.
fn path(byte: u8) -> KeyPath {
    const NAMES: [&str; 6] = ["Alpha", "beta", "ÄÖ-Ключ", "z", "alphabet", "\u{10400}x"];
    let depth = usize::from(byte >> 6);
    let names = (0..depth).map(|level| {
        let name = NAMES[(usize::from(byte & 0x1F) * (level + 1) + level) % NAMES.len()];
        if byte & 0x20 == 0 {
            Name::from(name)
        } else {
            Name::from(name.to_uppercase())
        }
    });
    KeyPath::from_names(names)
}

fn value_name(byte: u8) -> Name {
    match byte % 8 {
        0 => Name::default(),
        1 => Name::from("Start"),
        2 => Name::from("START"),
        3 => Name::from("ImagePath"),
        4 => Name::from("Пуск"),
        5 => Name::from_units([0x41, 0xD800]),
        6 => Name::from("µÿ"),
        _ => Name::from("n".repeat(usize::from(byte))),
    }
}

/// A value of a length around the places where storage changes.
fn value(kind: u8, size: u8) -> RegValue {
    let len = match size % 8 {
        0..=3 => usize::from(size / 8),
        4 => 40 * usize::from(size / 8),
        5 => 16340 + usize::from(size / 8) % 8,
        6 => 16344 * 2 + usize::from(size / 8) % 4,
        _ => 3000 * usize::from(size / 8),
    };
    RegValue::new(ValueType::from_raw(u32::from(kind >> 4)), vec![size; len])
}

/// One of four descriptors that differ in the built-in one's group.
pub fn security(which: u8) -> SecurityDescriptor {
    let mut bytes = SecurityDescriptor::for_administrators().as_bytes().to_vec();
    let last = bytes.len() - 1;
    bytes[last] = which % 4;
    SecurityDescriptor::from_bytes(bytes).unwrap()
}
