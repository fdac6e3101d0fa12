//! The catalogues: what every platform leaves behind in Windows, and what every platform needs.
//!
//! They are data, in `catalog/`, compiled in; `catalog/README.md` explains the format to those who
//! write them. Nothing here looks at a disk: a plan is made of a catalogue and an inspection.
//!
//! ```text
//!  catalog/removal/PLATFORM.toml --+
//!  catalog/target/PLATFORM.toml ---+--> read --> Catalog --> preparation(from, to) --> a plan
//!  catalog/target/every.toml ------+               |                  \--> show: English, JSON
//!  catalog/citrix/COMPONENT.toml --+               +--> check: what contradicts what
//!  catalog/protected.toml ---------+
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::LazyLock;

use serde::Serialize;

use crate::Platform;

mod check;
mod read;
pub mod schema;
mod show;
pub mod value;

pub use self::schema::{Action, Description, Protected, Sign};
pub use self::show::{Shown, ShownGroup, ShownItem, ShownStep};
pub use self::value::Evidence;

/// The catalogues, read.
#[derive(Debug, Default)]
pub struct Catalog {
    removal: BTreeMap<Platform, Vec<Item>>,
    target: BTreeMap<Platform, Vec<Item>>,
    every_target: Vec<Item>,
    citrix: BTreeMap<&'static str, Vec<Item>>,
    protected: Vec<(Place, Protected)>,
    /// Targets of whose catalogue a part could not be read: what is missing there may be that part.
    partly_read: BTreeSet<Platform>,
}

/// One thing that a platform leaves behind or needs, with what is done about it.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it says of itself.
    pub about: Description,
    /// What shows that it is there. An inspection names it by them, and first-boot steps of an item
    /// with signs are left out when there is none; other actions change only what is there.
    pub detect: Vec<Sign>,
    /// What is done, in the order of the file.
    pub steps: Vec<Step>,
    /// Where it stands.
    pub place: Place,
}

/// An action and the line that it stands in.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// The line in the item's file.
    pub line: usize,
}

/// A place in a catalogue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The file, below the folder of the catalogues, with `/`.
    pub file: String,
    /// The line, from 1 on.
    pub line: usize,
}

/// Something that is wrong with a catalogue.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The file, below the folder of the catalogues, with `/`.
    pub file: String,
    /// The line, from 1 on; `None` when it is about the file as a whole.
    pub line: Option<usize>,
    /// The id of the item, if it has one.
    pub item: Option<String>,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// `file:line: id: message`
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(item) = &self.item {
            write!(f, ": {item}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Catalogues that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} wrong in the catalogues, first {}", self.count(), self.first())]
pub struct CatalogError {
    /// All that is wrong; never empty.
    pub findings: Vec<Finding>,
}

impl CatalogError {
    fn count(&self) -> String {
        match self.findings.len() {
            1 => "one thing is".to_owned(),
            count => format!("{count} things are"),
        }
    }

    fn first(&self) -> String {
        let first = self.findings.first();
        first.map(Finding::to_string).unwrap_or_default()
    }
}

/// What a file of the catalogues is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CatalogKind {
    /// A Citrix component, by name.
    Citrix(&'static str),
    /// What no removal may touch.
    Protected,
    /// What a platform leaves behind.
    Removal(Platform),
    /// What a platform, or (`None`) every platform, needs.
    Target(Option<Platform>),
}

impl CatalogKind {
    /// The kind of the file of this name (`removal/aws.toml`); `None` for a name that no
    /// catalogue has.
    pub fn of_file(name: &str) -> Option<Self> {
        match name.strip_suffix(".toml")?.split_once('/') {
            None if name == "protected.toml" => Some(Self::Protected),
            Some(("citrix", stem)) => COMPONENTS
                .into_iter()
                .find(|known| *known == stem)
                .map(Self::Citrix),
            Some(("removal", stem)) => read::platform_of(stem).map(Self::Removal),
            Some(("target", "every")) => Some(Self::Target(None)),
            Some(("target", stem)) => {
                read::platform_of(stem).map(|platform| Self::Target(Some(platform)))
            }
            _ => None,
        }
    }
}

impl Catalog {
    /// The catalogues that are compiled in.
    ///
    /// # Errors
    ///
    /// [`CatalogError`] when they cannot be read, which a test of this crate rules out.
    pub fn builtin() -> Result<&'static Self, &'static CatalogError> {
        static BUILTIN: LazyLock<Result<Catalog, CatalogError>> = LazyLock::new(|| {
            let (catalog, findings) = Catalog::read(BUILTIN_FILES);
            if findings.is_empty() {
                Ok(catalog)
            } else {
                Err(CatalogError { findings })
            }
        });
        BUILTIN.as_ref()
    }

    /// The files that are compiled in: their names below the folder of the catalogues, and texts.
    pub fn builtin_files() -> impl Iterator<Item = (&'static str, &'static str)> {
        BUILTIN_FILES.into_iter()
    }

    /// Reads files, given by name (`removal/aws.toml`) and text. What is wrong with them alone is
    /// found; what contradicts each other, [`check`](Self::check) finds.
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Self, Vec<Finding>) {
        let (mut catalog, mut findings) = (Self::default(), Vec::new());
        let mut missing: Vec<&str> = BUILTIN_FILES.iter().map(|(name, _)| *name).collect();
        for (name, text) in files {
            let about_file = |message: &str| Finding {
                file: name.to_owned(),
                line: None,
                item: None,
                message: message.to_owned(),
            };
            let Some(kind) = CatalogKind::of_file(name) else {
                findings.push(about_file("no catalogue has this name"));
                continue;
            };
            let Some(expected) = missing.iter().position(|missing| *missing == name) else {
                findings.push(about_file("this file was there already"));
                continue;
            };
            missing.remove(expected);
            let found_before = findings.len();
            let document = read::read(name, kind, text, &mut findings);
            if let CatalogKind::Target(platform) = kind
                && findings.len() > found_before
            {
                let all = || Platform::ALL.to_vec();
                catalog
                    .partly_read
                    .extend(platform.map_or_else(all, |one| vec![one]));
            }
            match kind {
                CatalogKind::Citrix(component) => {
                    catalog.citrix.insert(component, document.items);
                }
                CatalogKind::Protected => catalog.protected = document.protected,
                CatalogKind::Removal(platform) => {
                    catalog.removal.insert(platform, document.items);
                }
                CatalogKind::Target(None) => catalog.every_target = document.items,
                CatalogKind::Target(Some(platform)) => {
                    catalog.target.insert(platform, document.items);
                }
            }
        }
        findings.extend(missing.into_iter().map(|name| Finding {
            file: name.to_owned(),
            line: None,
            item: None,
            message: "this catalogue is missing".to_owned(),
        }));
        (catalog, findings)
    }

    /// What contradicts each other, or would break the target: for every file, every target and
    /// every pair of platforms. Sorted by file and line.
    pub fn check(&self) -> Vec<Finding> {
        check::check(self)
    }

    /// What this platform leaves behind, those items included that are kept for some target.
    pub fn removal(&self, from: Platform) -> impl Iterator<Item = &Item> {
        self.removal.iter().flat_map(move |(platform, items)| {
            let is_own = *platform == from;
            items
                .iter()
                .filter(move |item| is_own || item.about.also_from.contains(&from))
        })
    }

    /// What this platform needs, with what every platform needs.
    pub fn target(&self, to: Platform) -> impl Iterator<Item = &Item> {
        let own = self.target.get(&to).into_iter().flatten();
        self.every_target.iter().chain(own)
    }

    /// The Citrix components, by name, and what is done about each.
    pub fn citrix(&self) -> impl Iterator<Item = (&'static str, &[Item])> {
        let components = self.citrix.iter();
        components.map(|(name, items)| (*name, items.as_slice()))
    }

    /// What no removal may touch, whatever the platforms.
    pub fn protected(&self) -> impl Iterator<Item = &Protected> {
        self.protected.iter().map(|(_, group)| group)
    }

    /// What a prepare of an image for `to` looks for and does.
    ///
    /// Without `from`, the leftovers of all platforms but `to` are looked for: an image may have
    /// been on several. What `to` itself put into an image is never taken out, nor what another
    /// platform left that `to` needs.
    pub fn preparation(&self, from: Option<Platform>, to: Platform) -> Preparation<'_> {
        let sources: Vec<Platform> = Platform::ALL
            .into_iter()
            .filter(|platform| *platform != to && from.is_none_or(|from| from == *platform))
            .collect();
        let removal = self.removal.iter().flat_map(|(platform, items)| {
            let sources = &sources;
            items.iter().filter(move |item| {
                let left_by =
                    |source: &Platform| source == platform || item.about.also_from.contains(source);
                sources.iter().any(left_by) && !item.about.keep_for.contains(&to)
            })
        });
        Preparation {
            from,
            to,
            removal: removal.collect(),
            target: self.target(to).collect(),
            citrix: self.citrix.values().flatten().collect(),
        }
    }

    /// Every item, file by file.
    pub fn items(&self) -> impl Iterator<Item = &Item> {
        let removal = self.removal.values().flatten();
        let target = self.target.values().flatten();
        let citrix = self.citrix.values().flatten();
        removal
            .chain(target)
            .chain(&self.every_target)
            .chain(citrix)
    }
}

/// What a prepare looks for and does, for one pair of platforms.
#[derive(Debug)]
pub struct Preparation<'c> {
    /// Where the image comes from; `None`: from any other platform.
    pub from: Option<Platform>,
    /// Where it is to run.
    pub to: Platform,
    /// What is taken out.
    pub removal: Vec<&'c Item>,
    /// What the target needs.
    pub target: Vec<&'c Item>,
    /// What is done about Citrix components that are there.
    pub citrix: Vec<&'c Item>,
}

impl<'c> Preparation<'c> {
    /// Every item: removal, then target, then Citrix.
    pub fn items(&self) -> impl Iterator<Item = &'c Item> {
        let items = self.removal.iter().chain(&self.target).chain(&self.citrix);
        items.copied()
    }

    /// Every action in the order in which they are to be done: by [phase](Action::phase), within
    /// a phase removal, then target, then Citrix.
    pub fn steps(&self) -> Vec<(&'c Item, &'c Step)> {
        let mut steps: Vec<_> = self
            .items()
            .flat_map(|item| item.steps.iter().map(move |step| (item, step)))
            .collect();
        steps.sort_by_key(|(_, step)| step.action.phase());
        steps
    }

    /// The same in words, for people and programs to read.
    pub fn show(&self) -> Shown {
        show::show(self)
    }
}

/// The Citrix components that have a catalogue.
const COMPONENTS: [&str; 3] = ["mcs", "pvs", "vda"];

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../catalog/", $name)))),*]
    };
}

/// The files that are compiled in: name and text.
const BUILTIN_FILES: [(&str, &str); 17] = files![
    "citrix/mcs.toml",
    "citrix/pvs.toml",
    "citrix/vda.toml",
    "protected.toml",
    "removal/aws.toml",
    "removal/azure.toml",
    "removal/gcp.toml",
    "removal/nutanix.toml",
    "removal/vsphere.toml",
    "removal/xenserver.toml",
    "target/aws.toml",
    "target/azure.toml",
    "target/every.toml",
    "target/gcp.toml",
    "target/nutanix.toml",
    "target/vsphere.toml",
    "target/xenserver.toml",
];
