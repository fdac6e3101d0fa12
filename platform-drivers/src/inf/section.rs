//! Sections and their lines, before anything is substituted, and how they are printed.

use std::collections::HashMap;
use std::fmt;

use super::error::LineNumber;

/// All sections of a file, in its order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sections {
    list: Vec<Section>,
    /// By name in lower case.
    index: HashMap<String, usize>,
}

/// What stands under one name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Section {
    /// As it is first written.
    pub name: String,
    /// Where it first begins.
    pub number: LineNumber,
    /// The lines of all its parts.
    pub lines: Vec<Line>,
    /// The places of lines by key in lower case.
    keys: HashMap<String, Vec<usize>>,
}

/// A line: `key = value, value`, or values alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    /// Where it begins.
    pub number: LineNumber,
    /// What stands before the first `=`.
    pub key: Option<String>,
    /// At least one, which may be empty.
    pub values: Vec<String>,
}

impl Sections {
    /// In the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Section> {
        self.list.iter()
    }

    /// The section of this name, in whatever case.
    pub fn find(&self, name: &str) -> Option<&Section> {
        self.list.get(*self.index.get(&fold(name))?)
    }

    /// The place of a section's lines: that of an earlier part if there is one.
    pub(super) fn open(&mut self, section: Section) -> usize {
        let next = self.list.len();
        let place = *self.index.entry(fold(&section.name)).or_insert(next);
        if place == next {
            self.list.push(section);
        }
        place
    }

    /// Adds to the section at a place that [`Self::open`] gave.
    pub(super) fn push(&mut self, place: usize, line: Line) {
        if let Some(section) = self.list.get_mut(place) {
            if let Some(key) = &line.key {
                let places = section.keys.entry(fold(key)).or_default();
                places.push(section.lines.len());
            }
            section.lines.push(line);
        }
    }
}

impl Section {
    pub(super) fn new(name: &str, number: LineNumber) -> Self {
        Self {
            name: name.to_owned(),
            number,
            lines: Vec::new(),
            keys: HashMap::new(),
        }
    }

    /// The lines with this key, in whatever case.
    pub fn with_key(&self, key: &str) -> impl Iterator<Item = &Line> + use<'_> {
        let places = self.keys.get(&fold(key));
        let places = places.into_iter().flatten();
        places.filter_map(|&place| self.lines.get(place))
    }
}

impl Line {
    /// A value that is there and not empty, from 0.
    pub fn value(&self, index: usize) -> Option<&str> {
        self.values
            .get(index)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// The same content in the plainest form: no comments, every line whole, quotes where needed.
/// Reading it again gives the same sections.
impl fmt::Display for Sections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for section in &self.list {
            writeln!(f, "[{}]", section.name)?;
            for line in &section.lines {
                if let Some(key) = &line.key {
                    write!(f, "{} = ", Quoted(key))?;
                }
                for (index, value) in line.values.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    // A line that is empty, or begins like a section, would be read as something else.
                    write!(f, "{comma}{}", Quoted(value))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// A field as it has to be written.
struct Quoted<'f>(&'f str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |found: char| {
            found.is_ascii_alphanumeric() || matches!(found, '_' | '.' | '%' | '$' | '-' | '&')
        };
        if !self.0.is_empty() && self.0.chars().all(is_plain) {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", self.0.replace('"', "\"\""))
        }
    }
}

/// The form in which names are compared.
pub(super) fn fold(name: &str) -> String {
    name.to_lowercase()
}
