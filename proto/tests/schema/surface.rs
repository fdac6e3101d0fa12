//! What of the `.proto` files others rely on, one line for each thing, and whether a later state of
//! the files still offers it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

/// Everything that a peer can rely on.
///
/// The key says where something is (`field ce.connector.v1.Ack 1`), the value what it is
/// (`sequence uint64`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Surface {
    offered: BTreeMap<String, String>,
    /// Keys of numbers that are reserved.
    reserved: BTreeSet<String>,
    /// Names that are reserved, each with its message or enum.
    reserved_names: BTreeSet<String>,
}

impl Surface {
    /// What `files` offer.
    pub fn of(files: &FileDescriptorSet) -> Self {
        let mut surface = Self::default();
        for file in &files.file {
            let package = file.package();
            for message in &file.message_type {
                surface.message(package, message);
            }
            for values in &file.enum_type {
                surface.values(package, values);
            }
            for service in &file.service {
                let path = format!("{package}.{}", service.name());
                for method in &service.method {
                    let stream = |streaming| if streaming { "stream " } else { "" };
                    surface.offered.insert(
                        format!("call {path} {}", method.name()),
                        format!(
                            "({}{}) returns ({}{})",
                            stream(method.client_streaming()),
                            method.input_type(),
                            stream(method.server_streaming()),
                            method.output_type(),
                        ),
                    );
                }
            }
        }
        surface
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    pub fn from_text(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let offered = lines.map(|line| {
            let (key, value) = line.split_once(" = ").expect("`key = value` in every line");
            (key.to_owned(), value.to_owned())
        });
        Self {
            offered: offered.collect(),
            ..Self::default()
        }
    }

    /// One line for each thing, sorted. What is reserved is not in it: it is offered to nobody.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.offered {
            writeln!(text, "{key} = {value}").expect("a String takes everything");
        }
        text
    }

    /// Adds what `other` has and this has not.
    pub fn add(&mut self, other: &Self) {
        for (key, value) in &other.offered {
            let entry = self.offered.entry(key.clone());
            entry.or_insert_with(|| value.clone());
        }
    }

    /// Whether `other` offers something that this does not.
    pub fn lacks(&self, other: &Self) -> bool {
        other
            .offered
            .keys()
            .any(|key| !self.offered.contains_key(key))
    }

    /// Everything for which `later` breaks what this promised.
    pub fn broken_by(&self, later: &Self) -> Vec<String> {
        let mut broken = Vec::new();
        for (key, promised) in &self.offered {
            match later.offered.get(key) {
                Some(offered) if offered == promised => {}
                Some(offered) => broken.push(format!("{key} was `{promised}`, is `{offered}`")),
                None if !later.has_reserved(key, promised) => {
                    broken.push(format!("{key} (`{promised}`) is gone and not reserved"));
                }
                None => {}
            }
        }
        broken
    }

    fn has_reserved(&self, key: &str, promised: &str) -> bool {
        let Some(owner) = key
            .strip_prefix("field ")
            .or_else(|| key.strip_prefix("value "))
            .and_then(|rest| rest.split(' ').next())
        else {
            // Messages, enums and calls can't be reserved.
            return false;
        };
        let name = promised.split(' ').next().unwrap_or_default();
        self.reserved.contains(key) && self.reserved_names.contains(&format!("{owner} {name}"))
    }

    fn message(&mut self, parent: &str, message: &DescriptorProto) {
        let path = format!("{parent}.{}", message.name());
        self.offered
            .insert(format!("message {path}"), "there".into());
        for field in &message.field {
            let key = format!("field {path} {}", field.number());
            self.offered.insert(key, described(message, field));
        }
        for range in &message.reserved_range {
            // The end of a message's range is exclusive.
            self.reserve("field", &path, range.start()..range.end());
        }
        for name in &message.reserved_name {
            self.reserved_names.insert(format!("{path} {name}"));
        }
        for nested in &message.nested_type {
            self.message(&path, nested);
        }
        for values in &message.enum_type {
            self.values(&path, values);
        }
    }

    fn values(&mut self, parent: &str, values: &EnumDescriptorProto) {
        let path = format!("{parent}.{}", values.name());
        self.offered.insert(format!("enum {path}"), "there".into());
        for value in &values.value {
            let key = format!("value {path} {}", value.number());
            self.offered.insert(key, value.name().to_owned());
        }
        for range in &values.reserved_range {
            // The end of an enum's range is inclusive.
            self.reserve("value", &path, range.start()..range.end().saturating_add(1));
        }
        for name in &values.reserved_name {
            self.reserved_names.insert(format!("{path} {name}"));
        }
    }

    fn reserve(&mut self, kind: &str, path: &str, numbers: std::ops::Range<i32>) {
        assert!(
            numbers.len() < 1000,
            "{path} reserves too much: {numbers:?}"
        );
        let keys = numbers.map(|number| format!("{kind} {path} {number}"));
        self.reserved.extend(keys);
    }
}

/// A field's name (first, always), type, cardinality and oneof.
fn described(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    let mut text = format!("{} {kind}", field.name());
    if field.label() == Label::Repeated {
        text.push_str(" repeated");
    }
    if field.proto3_optional() {
        text.push_str(" optional");
    } else if let Some(index) = field.oneof_index {
        let oneof = usize::try_from(index)
            .ok()
            .and_then(|at| message.oneof_decl.get(at));
        write!(
            text,
            " in {}",
            oneof.expect("an index of the message's own").name()
        )
        .expect("a String takes everything");
    }
    text
}
