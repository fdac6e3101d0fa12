//! Keys, their lists and their values.

use std::cmp::Ordering;

use super::{Check, Severity};
use crate::edit::hint_of;
use crate::error::{Defect, DefectKind};
use crate::format::{KEY_HIVE_ENTRY, KeyNode, MAX_DEPTH};
use crate::key::Key;
use crate::name::SEPARATOR;
use crate::subkeys::{Leaf, LeafKind, SubkeyList};
use crate::units::CellOffset;
use crate::value::{Storage, Value};

/// A key that was met in a list.
struct Met {
    at: CellOffset,
    /// The key whose list it was; none for the root.
    parent: Option<CellOffset>,
    depth: usize,
}

/// The longest things a key was seen to hold.
#[derive(Default)]
struct Longest {
    subkey_name: usize,
    value_name: usize,
    value_data: u32,
}

impl Check<'_> {
    /// All keys from the root on.
    pub(super) fn keys(&mut self) {
        let root = match self.hive.root() {
            Ok(root) => root.offset(),
            Err(error) => {
                self.error(CellOffset::new(0), error);
                return;
            }
        };
        let mut open = Vec::new();
        if self.claim(root, DefectKind::KeyNode, root) {
            open.push(Met {
                at: root,
                parent: None,
                depth: 0,
            });
        }
        while let Some(met) = open.pop() {
            match Key::at(self.hive, met.at) {
                Ok(key) => self.key(&key, &met, &mut open),
                Err(error) => self.error(met.at, error),
            }
        }
    }

    fn key(&mut self, key: &Key<'_>, met: &Met, open: &mut Vec<Met>) {
        let at = key.offset();
        let node = key.node();
        self.identity(key, met);
        if node.class_len.get() > 0
            && let Some(class) = CellOffset::from_raw(node.class.get())
            && self.claim(class, DefectKind::ClassName, at)
            && let Err(error) = key.class_name()
        {
            self.error(at, error);
        }
        *self
            .security_users
            .entry(CellOffset::new(node.security.get()))
            .or_default() += 1;

        let mut longest = Longest::default();
        self.values(key, &mut longest);
        if met.depth >= MAX_DEPTH && key.subkey_count() > 0 {
            self.defect(
                at,
                DefectKind::KeyNode,
                "at most 512 levels of keys",
                "more".into(),
            );
            return;
        }
        let first = open.len();
        self.subkeys(key, met.depth, open, &mut longest);
        // The last one pushed is looked at first; list them in their own order.
        if let Some(children) = open.get_mut(first..) {
            children.reverse();
        }
        self.longest(at, node, &longest);
    }

    fn identity(&mut self, key: &Key<'_>, met: &Met) {
        let at = key.offset();
        let is_entry = key.node().flags.get() & KEY_HIVE_ENTRY != 0;
        match met.parent {
            None if !is_entry => {
                let found = format!("flags {:#06x}", key.node().flags);
                self.warning(at, DefectKind::KeyNode, "the flag of a root key", found);
            }
            None => {}
            Some(parent) => {
                let link = key.node().parent.get();
                if link != parent.get() {
                    let expected = format!("the parent's offset {parent}");
                    self.defect(at, DefectKind::ParentLink, &expected, format!("{link:#x}"));
                }
                if is_entry {
                    let found = format!("flags {:#06x}", key.node().flags);
                    self.warning(at, DefectKind::KeyNode, "no flag of a root key", found);
                }
                if key.name().is_empty() || key.name().units().any(|unit| unit == SEPARATOR) {
                    let found = format!("\"{}\"", key.name());
                    let expected = "a name that is not empty and has no backslash";
                    self.defect(at, DefectKind::KeyNode, expected, found);
                }
            }
        }
    }

    fn subkeys(&mut self, key: &Key<'_>, depth: usize, open: &mut Vec<Met>, longest: &mut Longest) {
        let at = key.offset();
        let node = key.node();
        let head = match (
            node.subkey_count.get(),
            CellOffset::from_raw(node.subkeys.get()),
        ) {
            (0, _) => return,
            (count, None) => {
                let expected = format!("a list of {count} subkeys");
                self.defect(at, DefectKind::SubkeyList, &expected, "no list".into());
                return;
            }
            (_, Some(head)) => head,
        };
        // Before it is read: a list that many keys refer to is read once.
        if !self.claim(head, DefectKind::SubkeyList, at) {
            return;
        }
        let list = match SubkeyList::read(self.hive, node) {
            Ok(list) => list,
            Err(error) => return self.error(at, error),
        };
        if list.len() != key.subkey_count() {
            let expected = format!("{} subkeys in the list", key.subkey_count());
            self.defect(
                at,
                DefectKind::SubkeyList,
                &expected,
                list.len().to_string(),
            );
        }
        let mut previous: Option<Key<'_>> = None;
        for leaf in &list.leaves {
            if leaf.at != head && !self.claim(leaf.at, DefectKind::SubkeyList, at) {
                continue;
            }
            for element in 0..leaf.count {
                let Some((child, hint)) = self.element(leaf, element, at) else {
                    continue;
                };
                if !self.claim(child, DefectKind::KeyNode, at) {
                    continue;
                }
                open.push(Met {
                    at: child,
                    parent: Some(at),
                    depth: depth + 1,
                });
                // An unsound node is reported when its turn comes.
                let Ok(child) = Key::at(self.hive, child) else {
                    continue;
                };
                longest.subkey_name = longest.subkey_name.max(child.name().len() * 2);
                self.hint(leaf, &child, hint, at);
                if let Some(previous) = previous
                    && previous.name().order_of(child.name()) != Ordering::Less
                {
                    let expected = format!("a name that follows \"{}\"", previous.name());
                    let found = format!("\"{}\"", child.name());
                    self.defect(child.offset(), DefectKind::KeyOrder, &expected, found);
                }
                previous = Some(child);
            }
        }
    }

    fn element(
        &mut self,
        leaf: &Leaf,
        element: u16,
        key: CellOffset,
    ) -> Option<(CellOffset, Option<[u8; 4]>)> {
        let read = match leaf.kind {
            LeafKind::Plain => leaf
                .element(self.hive, u32::from(element))
                .map(|at| Some((at?, None))),
            LeafKind::Fast | LeafKind::Hash => leaf.hinted(self.hive).map(|elements| {
                let element = elements.get(usize::from(element))?;
                Some((CellOffset::new(element.key.get()), Some(element.hint)))
            }),
        };
        match read {
            Ok(found) => found,
            Err(error) => {
                self.error(key, error);
                None
            }
        }
    }

    fn hint(&mut self, leaf: &Leaf, child: &Key<'_>, hint: Option<[u8; 4]>, key: CellOffset) {
        let Some(hint) = hint else { return };
        let expected = hint_of(leaf.kind, &child.name().to_name());
        if hint == expected {
            return;
        }
        // Windows finds a key by its hash, but only orders by the first characters.
        let severity = match leaf.kind {
            LeafKind::Hash => Severity::Error,
            LeafKind::Fast | LeafKind::Plain => Severity::Warning,
        };
        let defect = Defect::new(
            leaf.at.in_file(),
            DefectKind::SubkeyList,
            format!("{expected:02x?} as the hint of \"{}\"", child.name()),
            format!("{hint:02x?}"),
        );
        self.finding(severity, key, defect);
    }

    fn values(&mut self, key: &Key<'_>, longest: &mut Longest) {
        let at = key.offset();
        let list = match key.value_list() {
            Ok(list) => list,
            Err(error) => return self.error(at, error),
        };
        if let Some(cell) = list.at
            && !self.claim(cell, DefectKind::ValueList, at)
        {
            return;
        }
        for value in (0..list.len()).filter_map(|position| list.get(position)) {
            if !self.claim(value, DefectKind::Value, at) {
                continue;
            }
            match Value::at(self.hive, value) {
                Ok(value) => self.value(&value, at, longest),
                Err(error) => self.error(at, error),
            }
        }
    }

    fn value(&mut self, value: &Value<'_>, key: CellOffset, longest: &mut Longest) {
        longest.value_name = longest.value_name.max(value.name().len() * 2);
        let storage = match value.storage() {
            Ok(storage) => storage,
            Err(error) => return self.error(key, error),
        };
        longest.value_data = longest.value_data.max(value.data_len());
        match storage {
            Storage::Nothing | Storage::Resident(_) => {}
            Storage::Cell(at, _) => {
                self.claim(at, DefectKind::ValueData, key);
            }
            Storage::Segments(at, segments) => {
                let owned = self.claim(at, DefectKind::BigData, key)
                    && self.claim(segments.list, DefectKind::BigData, key)
                    && segments
                        .cells()
                        .all(|cell| self.claim(cell, DefectKind::BigData, key));
                if owned && let Err(error) = value.data() {
                    self.error(key, error);
                }
            }
        }
    }

    /// What a key says of its longest parts sizes the buffers of those who ask.
    fn longest(&mut self, at: CellOffset, node: &KeyNode, longest: &Longest) {
        let fields = [
            (
                "subkey name",
                u64::from(node.max_subkey_name.get()),
                wide(longest.subkey_name),
            ),
            (
                "value name",
                u64::from(node.max_value_name.get()),
                wide(longest.value_name),
            ),
            (
                "value data",
                u64::from(node.max_value_data.get()),
                u64::from(longest.value_data),
            ),
        ];
        for (part, said, found) in fields {
            if said < found {
                let expected = format!("{found} as the length of the longest {part}");
                self.warning(at, DefectKind::KeyNode, &expected, said.to_string());
            }
        }
    }

    pub(super) fn defect(
        &mut self,
        at: CellOffset,
        kind: DefectKind,
        expected: &str,
        found: String,
    ) {
        self.finding(
            Severity::Error,
            at,
            Defect::new(at.in_file(), kind, expected, found),
        );
    }

    fn warning(&mut self, at: CellOffset, kind: DefectKind, expected: &str, found: String) {
        self.finding(
            Severity::Warning,
            at,
            Defect::new(at.in_file(), kind, expected, found),
        );
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
