//! From TOML text to items, with everything that is wrong with it.
//!
//! serde stops at the first thing that it does not understand. Whoever edits a catalogue wants to
//! know all of them, so every table is read by itself, and a field that was refused is taken out
//! and the rest tried again.
//!
//! ```text
//!  text --> DeTable --> header                                 findings: file, line, what
//!                  \--> [[item]] --> [[item.service]] ... each --> Action
//!                               \--> the rest ------------------> Description
//! ```

use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::schema::{Action, Description, Protected, Sign};
use super::{CatalogKind, Finding, Item, Place, Step};
use crate::Platform;

/// What one file holds, as far as it could be read.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) items: Vec<Item>,
    pub(super) protected: Vec<(Place, Protected)>,
}

/// Reads the text of `file`. What is wrong with it goes to `findings`.
pub(super) fn read(
    file: &str,
    kind: CatalogKind,
    text: &str,
    findings: &mut Vec<Finding>,
) -> Document {
    let mut reader = Reader {
        file,
        kind,
        text,
        item: None,
        findings,
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    // What a broken text was recovered to is not what its author meant.
    if !errors.is_empty() {
        for error in errors {
            reader.report(error.span(), error.message());
        }
        return Document::default();
    }
    reader.document(root)
}

struct Reader<'a> {
    file: &'a str,
    kind: CatalogKind,
    text: &'a str,
    /// The id of the item that is being read.
    item: Option<String>,
    findings: &'a mut Vec<Finding>,
}

type Entry<'i> = (Spanned<std::borrow::Cow<'i, str>>, Spanned<DeValue<'i>>);

impl<'i> Reader<'i> {
    fn document(&mut self, root: Spanned<DeTable<'i>>) -> Document {
        let span = root.span();
        let mut document = Document::default();
        let (lists, head): (Vec<Entry<'i>>, Vec<Entry<'i>>) = root
            .into_inner()
            .into_iter()
            .partition(|(key, _)| matches!(key.get_ref().as_ref(), "item" | "group"));
        self.head(head, 0..span.start.min(self.text.len()));
        for (key, value) in lists {
            let is_group = key.get_ref() == "group";
            if is_group != (self.kind == CatalogKind::Protected) {
                let expected = if is_group { "[[item]]" } else { "[[group]]" };
                self.report(
                    Some(key.span()),
                    &format!("expected {expected} in this file"),
                );
                continue;
            }
            for (table, span) in self.tables(key.get_ref(), value) {
                if is_group {
                    document.protected.extend(self.group(table, span));
                } else {
                    document.items.extend(self.item(table, span));
                }
                self.item = None;
            }
        }
        document
    }

    fn head(&mut self, head: Vec<Entry<'i>>, span: Range<usize>) {
        match self.kind {
            CatalogKind::Removal(platform) | CatalogKind::Target(Some(platform)) => {
                let found: Option<PlatformHead> = self.table(head, span);
                if let Some(found) = found {
                    self.expect("platform", &found.platform, platform.name());
                    self.expect_schema(found.schema);
                }
            }
            CatalogKind::Target(None) => {
                let found: Option<PlatformHead> = self.table(head, span);
                if let Some(found) = found {
                    self.expect("platform", &found.platform, "every");
                    self.expect_schema(found.schema);
                }
            }
            CatalogKind::Citrix(component) => {
                let found: Option<ComponentHead> = self.table(head, span);
                if let Some(found) = found {
                    self.expect("component", &found.component, component);
                    self.expect_schema(found.schema);
                }
            }
            CatalogKind::Protected => {
                let found: Option<Head> = self.table(head, span);
                if let Some(found) = found {
                    self.expect_schema(found.schema);
                }
            }
        }
    }

    fn expect(&mut self, field: &str, found: &Spanned<String>, expected: &str) {
        if found.get_ref() != expected {
            let message = format!(
                "`{field}` is {:?}, expected {expected:?} in this file",
                found.get_ref()
            );
            self.report(Some(found.span()), &message);
        }
    }

    fn expect_schema(&mut self, found: Spanned<i64>) {
        if *found.get_ref() != SCHEMA {
            let message = format!(
                "`schema` is {}; this program knows schema {SCHEMA}",
                found.get_ref()
            );
            self.report(Some(found.span()), &message);
        }
    }

    fn group(&mut self, table: DeTable<'i>, span: Range<usize>) -> Option<(Place, Protected)> {
        let entries: Vec<Entry<'i>> = table.into_iter().collect();
        self.item = id_of(&entries);
        let place = self.place(&span);
        self.require(&entries, &span);
        self.table(entries, span).map(|group| (place, group))
    }

    fn item(&mut self, table: DeTable<'i>, span: Range<usize>) -> Option<Item> {
        let entries: Vec<Entry<'i>> = table.into_iter().collect();
        self.item = id_of(&entries);
        let place = self.place(&span);
        let found_before = self.findings.len();
        let (mut steps, mut detect, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in entries {
            let name = key.get_ref().clone();
            if !is_list(&name) {
                rest.push((key, value));
                continue;
            }
            for (table, span) in self.tables(&name, value) {
                let line = self.line(span.start);
                let entries = table.into_iter().collect();
                if name == "detect" {
                    detect.extend(self.table::<Sign>(entries, span));
                } else if let Some(action) = self.action(&name, entries, span) {
                    steps.push(Step { action, line });
                }
            }
        }
        steps.sort_by_key(|step| step.line);
        self.require(&rest, &span);
        let about: Option<Description> = self.table(rest, span);
        // An item of which a part is missing would be judged by what is left of it.
        if self.findings.len() > found_before {
            return None;
        }
        about.map(|about| Item {
            about,
            detect,
            steps,
            place,
        })
    }

    fn action(&mut self, name: &str, entries: Vec<Entry<'i>>, at: Range<usize>) -> Option<Action> {
        Some(match name {
            "boot-option" => Action::BootOption(self.table(entries, at)?),
            "boot-service" => Action::BootService(self.table(entries, at)?),
            "device" => Action::Device(self.table(entries, at)?),
            "file" => Action::File(self.table(entries, at)?),
            "filter" => Action::Filter(self.table(entries, at)?),
            "first-boot" => Action::FirstBoot(self.table(entries, at)?),
            "leave" => Action::Leave(self.table(entries, at)?),
            "loader" => Action::Loader(self.table(entries, at)?),
            "network-provider" => Action::NetworkProvider(self.table(entries, at)?),
            "package" => Action::Package(self.table(entries, at)?),
            "registry" => Action::Registry(self.table(entries, at)?),
            "run-entry" => Action::RunEntry(self.table(entries, at)?),
            "service" => Action::Service(self.table(entries, at)?),
            "task" => Action::Task(self.table(entries, at)?),
            _ => return None,
        })
    }

    /// The tables of a list of tables.
    fn tables(
        &mut self,
        name: &str,
        value: Spanned<DeValue<'i>>,
    ) -> Vec<(DeTable<'i>, Range<usize>)> {
        let span = value.span();
        let mut tables = Vec::new();
        let DeValue::Array(values) = value.into_inner() else {
            let message = format!("`{name}` is a list: its table has two brackets, [[...{name}]]");
            self.report(Some(span), &message);
            return tables;
        };
        for value in values {
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(table) => tables.push((table, span)),
                _ => self.report(Some(span), &format!("`{name}` is a list of tables")),
            }
        }
        tables
    }

    /// Reports every one of the fields that have to be there and are not.
    fn require(&mut self, entries: &[Entry<'i>], span: &Range<usize>) {
        for field in REQUIRED {
            if !entries.iter().any(|(key, _)| key.get_ref() == field) {
                self.report(Some(span.clone()), &format!("`{field}` is missing"));
            }
        }
    }

    /// Reads a table; reports every field that is refused, and returns what is good only.
    fn table<T: DeserializeOwned>(
        &mut self,
        mut entries: Vec<Entry<'i>>,
        span: Range<usize>,
    ) -> Option<T> {
        let mut refused = false;
        loop {
            let table: DeTable<'i> = entries.iter().cloned().collect();
            let table = Spanned::new(span.clone(), DeValue::Table(table));
            let error = match T::deserialize(ValueDeserializer::from(table)) {
                Ok(value) => return (!refused).then_some(value),
                Err(error) => error,
            };
            let culprit = error.span().and_then(|at| {
                entries
                    .iter()
                    .position(|(key, value)| covers(&key.span(), &at) || covers(&value.span(), &at))
            });
            let message = error.message();
            // What is wrong with the table as a whole after a field was refused is our doing. Of the
            // fields that every item has to have, `require` has told.
            let is_told = (refused && culprit.is_none())
                || REQUIRED
                    .iter()
                    .any(|field| message == format!("missing field `{field}`"));
            if !is_told {
                self.report(error.span().or(Some(span.clone())), message);
            }
            entries.remove(culprit?);
            refused = true;
        }
    }

    fn report(&mut self, at: Option<Range<usize>>, message: &str) {
        let message: Vec<&str> = message.lines().map(str::trim).collect();
        self.findings.push(Finding {
            file: self.file.to_owned(),
            line: at.map(|at| self.line(at.start)),
            item: self.item.clone(),
            message: message.join(" "),
        });
    }

    fn place(&self, span: &Range<usize>) -> Place {
        Place {
            file: self.file.to_owned(),
            line: self.line(span.start),
        }
    }

    /// The number of the line that this byte is in, from 1 on.
    fn line(&self, offset: usize) -> usize {
        let before = self.text.bytes().take(offset);
        1 + before.filter(|byte| *byte == b'\n').count()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    schema: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlatformHead {
    schema: Spanned<i64>,
    platform: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentHead {
    schema: Spanned<i64>,
    component: Spanned<String>,
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn id_of(entries: &[Entry<'_>]) -> Option<String> {
    let (_, id) = entries.iter().find(|(key, _)| key.get_ref() == "id")?;
    id.get_ref().as_str().map(str::to_owned)
}

fn is_list(name: &str) -> bool {
    LISTS.contains(&name)
}

/// The platform that a file name stands for.
pub(super) fn platform_of(stem: &str) -> Option<Platform> {
    Platform::ALL
        .into_iter()
        .find(|platform| platform.name() == stem)
}

/// The version of the format.
const SCHEMA: i64 = 1;

/// What every item and group has to say.
const REQUIRED: [&str; 4] = ["id", "title", "why", "evidence"];

/// The lists of an item: its actions and its signs.
const LISTS: [&str; 15] = [
    "boot-option",
    "boot-service",
    "detect",
    "device",
    "file",
    "filter",
    "first-boot",
    "leave",
    "loader",
    "network-provider",
    "package",
    "registry",
    "run-entry",
    "service",
    "task",
];
