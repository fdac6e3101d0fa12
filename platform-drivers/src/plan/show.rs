//! A plan in words, for people and programs to read.

use std::fmt;

use ce_regf::{RegValue, ValueType};
use serde::Serialize;

use super::draft::{number, texts};
use super::edit::RegistryEditKind;
use super::{Change, Edit, EditPlan, State};

/// One change of a plan in words: an entry of the artifact `changes` of a job.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeLine {
    /// The id of the catalogue's item.
    pub id: String,
    /// The change.
    pub title: String,
    /// What becomes of it: `done` (in a plan: is to be), `alreadySo`, `deferred` to the first boot, or
    /// `skipped`.
    pub outcome: &'static str,
    /// Why the item asks for it.
    pub reason: String,
    /// Why it is skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl ChangeLine {
    /// A change that is made, of the item `id`.
    pub fn done(id: &str, title: String, reason: impl Into<String>) -> Self {
        Self {
            id: id.to_owned(),
            title,
            outcome: "done",
            reason: reason.into(),
            why: None,
        }
    }

    /// A change that is not made, of the item `id`, and why.
    pub fn skipped(id: &str, title: String, reason: impl Into<String>, why: String) -> Self {
        Self {
            id: id.to_owned(),
            title,
            outcome: "skipped",
            reason: reason.into(),
            why: Some(why),
        }
    }
}

impl EditPlan {
    /// The plan in words, in the order in which it is carried out.
    pub fn changes(&self) -> Vec<ChangeLine> {
        let line = |edit: &Edit| {
            let (outcome, why) = match &edit.state {
                State::ToDo => ("done", None),
                State::AlreadySo => ("alreadySo", None),
                State::Deferred => ("deferred", None),
                State::Skipped { why } => ("skipped", Some(why.clone())),
            };
            ChangeLine {
                id: edit.item.clone(),
                title: edit.change.to_string(),
                outcome,
                reason: edit.change.reason().to_string(),
                why,
            }
        };
        self.edits.iter().map(line).collect()
    }
}

/// All edits in order, under the item that asks for them and its reason.
impl fmt::Display for EditPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for blocker in &self.blockers {
            writeln!(f, "{}: {blocker}", blocker.code())?;
        }
        let mut heading = None;
        for Edit {
            item,
            change,
            state,
        } in &self.edits
        {
            if heading.replace(item) != Some(item) {
                writeln!(f, "{item}: {}", change.reason())?;
            }
            match state {
                State::ToDo => writeln!(f, "  to do    {change}")?,
                State::AlreadySo => writeln!(f, "  is so    {change}")?,
                State::Deferred => writeln!(f, "  deferred {change}")?,
                State::Skipped { why } => writeln!(f, "  skipped  {change}: {why}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BootStore { key, change, .. } => registry(f, "BCD", key, change),
            Self::CopyLoader { from, to, .. } => write!(f, "EFI system partition: {to} = {from}"),
            Self::Delete { path, .. } => write!(f, "delete {path}"),
            Self::FirstBoot { step, .. } => step.fmt(f),
            Self::Registry(edit) => registry(f, edit.hive.file(), &edit.key, &edit.change),
            Self::Subject { what, .. } => f.write_str(what),
            Self::Task { path, .. } => write!(f, "disable task {path}"),
            Self::Write { path, content, .. } => {
                write!(f, "write {path} ({} bytes)", content.len())
            }
        }
    }
}

fn registry(
    f: &mut fmt::Formatter<'_>,
    hive: &str,
    key: &str,
    change: &RegistryEditKind,
) -> fmt::Result {
    let name = |name: &str| match name {
        "" => "(default)".to_owned(),
        name => name.to_owned(),
    };
    match change {
        RegistryEditKind::CreateKey => write!(f, "{hive} {key}: key"),
        RegistryEditKind::DeleteKey => write!(f, "{hive} {key}: delete key"),
        RegistryEditKind::DeleteValue { name: value } => {
            write!(f, "{hive} {key}: delete {}", name(value))
        }
        RegistryEditKind::SetValue {
            name: value,
            value: data,
        } => {
            write!(f, "{hive} {key}: {} = {}", name(value), Data(data))
        }
    }
}

/// The data of a value; long data is cut.
struct Data<'v>(&'v RegValue);

impl fmt::Display for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        match value.value_type {
            ValueType::DWORD | ValueType::QWORD => match number(value) {
                Some(number) => write!(f, "{number}"),
                None => f.write_str("a damaged number"),
            },
            ValueType::SZ | ValueType::EXPAND_SZ => write!(f, "{:?}", texts(value).concat()),
            ValueType::MULTI_SZ => write!(f, "{:?}", texts(value)),
            _ => {
                for byte in value.data.iter().take(MOST_BYTES) {
                    write!(f, "{byte:02x}")?;
                }
                match value.data.len() > MOST_BYTES {
                    true => write!(f, "... ({} bytes)", value.data.len()),
                    false => Ok(()),
                }
            }
        }
    }
}

const MOST_BYTES: usize = 16;
