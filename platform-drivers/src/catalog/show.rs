//! A preparation in plain English, for a person to read and a program to take apart.

use std::fmt;

use serde::Serialize;

use super::schema::{Action, Area, FirstBoot, JobField, Provisioning, When};
use super::{Evidence, Item, Preparation, Step};
use crate::Platform;

mod words;

/// What a prepare looks for and does, in words.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The name of the platform that the image comes from; `None`: from any other.
    pub from: Option<&'static str>,
    /// The name of the platform that it goes to.
    pub to: &'static str,
    /// The groups that have something in them, in the order in which a person asks for them.
    pub groups: Vec<ShownGroup>,
}

/// Items of one kind.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownGroup {
    /// What they have in common.
    pub title: &'static str,
    /// The items.
    pub items: Vec<ShownItem>,
}

/// An item, with those of its actions that belong to the group.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownItem {
    /// Its id.
    pub id: String,
    /// What it is.
    pub title: String,
    /// Why it is dealt with.
    pub why: String,
    /// For which Windows and jobs; `None`: for all.
    pub when: Option<String>,
    /// What shows that it is there, as far as the catalogue says so.
    pub signs: Vec<String>,
    /// What is done.
    pub actions: Vec<ShownStep>,
    /// What shows that this is right, each with its kind before it.
    pub evidence: Vec<String>,
    /// What of the evidence is only said or concluded, without the word before it.
    pub not_verified: Vec<String>,
}

/// An action in words.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownStep {
    /// The kind of action, as catalogues call it.
    pub kind: &'static str,
    /// What is done.
    pub text: String,
}

pub(super) fn show(preparation: &Preparation<'_>) -> Shown {
    let mut groups = Vec::new();
    for group in GROUPS {
        let removal = preparation.removal.iter().map(|item| (Part::Removal, item));
        let target = preparation.target.iter().map(|item| (Part::Target, item));
        let citrix = preparation.citrix.iter().map(|item| (Part::Citrix, item));
        let items = removal.chain(target).chain(citrix);
        let items = items.filter_map(|(part, item)| {
            let mut steps: Vec<&Step> = item
                .steps
                .iter()
                .filter(|step| group_of(part, item, &step.action) == group)
                .collect();
            steps.sort_by_key(|step| step.action.phase());
            (!steps.is_empty()).then(|| shown(item, &steps))
        });
        let items: Vec<ShownItem> = items.collect();
        if !items.is_empty() {
            groups.push(ShownGroup {
                title: group.title(),
                items,
            });
        }
    }
    Shown {
        from: preparation.from.map(Platform::name),
        to: preparation.to.name(),
        groups,
    }
}

fn shown(item: &Item, steps: &[&Step]) -> ShownItem {
    let about = &item.about;
    let not_verified = about.evidence.iter().filter(|one| !one.kind.is_verified());
    ShownItem {
        id: about.id.to_string(),
        title: about.title.to_string(),
        why: about.why.to_string(),
        when: when(&about.when),
        signs: item.detect.iter().map(words::sign).collect(),
        actions: steps
            .iter()
            .map(|step| ShownStep {
                kind: words::kind(&step.action),
                text: words::action(&step.action),
            })
            .collect(),
        evidence: about.evidence.iter().map(Evidence::to_string).collect(),
        not_verified: not_verified.map(|one| one.text.clone()).collect(),
    }
}

/// Which list an item is in.
#[derive(Clone, Copy)]
enum Part {
    Citrix,
    Removal,
    Target,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Group {
    BootStorage,
    Network,
    TakenOut,
    BootConfiguration,
    Settings,
    Citrix,
    FirstBoot,
    Left,
}

impl Group {
    fn title(self) -> &'static str {
        match self {
            Self::BootStorage => "Boot storage",
            Self::Network => "Network",
            Self::TakenOut => "What is taken out",
            Self::BootConfiguration => "Boot configuration",
            Self::Settings => "Settings",
            Self::Citrix => "Citrix",
            Self::FirstBoot => "When Windows boots first",
            Self::Left => "What stays as it is",
        }
    }
}

fn group_of(part: Part, item: &Item, action: &Action) -> Group {
    match (part, action, item.about.area) {
        (_, Action::FirstBoot(_), _) => Group::FirstBoot,
        (_, Action::Leave(_), _) => Group::Left,
        (Part::Removal, ..) => Group::TakenOut,
        (Part::Citrix, ..) => Group::Citrix,
        (Part::Target, _, Some(Area::BootStorage)) => Group::BootStorage,
        (Part::Target, _, Some(Area::BootConfiguration)) => Group::BootConfiguration,
        (Part::Target, _, Some(Area::Network)) => Group::Network,
        (Part::Target, _, Some(Area::Settings) | None) => Group::Settings,
    }
}

fn when(when: &When) -> Option<String> {
    let asked = when.asked.map(|field| match field {
        JobField::DomainUnjoin | JobField::InstallMisa | JobField::XdEnableHdxPorts => {
            format!("if the job has {} = true", field.name())
        }
        JobField::XdControllers | JobField::XdPortNumber => {
            format!("if the job has {}", field.name())
        }
    });
    let provisioning = when.provisioning.map(|provisioning| {
        let name = match provisioning {
            Provisioning::Mcs => "Mcs",
            Provisioning::Pvs => "Pvs",
        };
        format!("if the job has provisioningType = {name}")
    });
    let conditions = [
        when.build.map(|build| build.to_string()),
        when.architecture
            .map(|name| format!("{name:?}").to_lowercase()),
        when.product.map(|name| format!("Windows {name:?}")),
        provisioning,
        asked,
    ];
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    (!conditions.is_empty()).then(|| conditions.join(", "))
}

/// As a text of lines that fit a terminal.
impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = |name: &str| name.parse().map_or("", Platform::title);
        let to = title(self.to);
        match self.from.map(title) {
            Some(from) if from == to => writeln!(f, "Preparing an image of {to} for {to}")?,
            Some(from) => writeln!(f, "Preparing an image from {from} for {to}")?,
            None => writeln!(f, "Preparing an image from any other platform for {to}")?,
        }
        for group in &self.groups {
            writeln!(f, "\n{}\n{}", group.title, "-".repeat(group.title.len()))?;
            for item in &group.items {
                write_item(f, item)?;
            }
        }
        Ok(())
    }
}

fn write_item(f: &mut fmt::Formatter<'_>, item: &ShownItem) -> fmt::Result {
    writeln!(f, "\n{} [{}]", item.title, item.id)?;
    paragraph(f, "  ", "  ", &item.why)?;
    if let Some(when) = &item.when {
        paragraph(f, "  only: ", "    ", when)?;
    }
    if !item.signs.is_empty() {
        let signs = item.signs.join(", or ");
        paragraph(f, "  known by: ", "    ", &signs)?;
    }
    for action in &item.actions {
        paragraph(f, "  - ", "    ", &action.text)?;
    }
    for text in &item.not_verified {
        paragraph(f, "  not verified: ", "    ", text)?;
    }
    Ok(())
}

/// Writes words in lines of at most [`WIDTH`] characters. A word that is longer has its own line.
fn paragraph(f: &mut fmt::Formatter<'_>, first: &str, rest: &str, text: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            writeln!(f, "{line}")?;
            rest.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(f, "{line}")
}

/// The step that installs something, in words.
fn first_boot(step: &FirstBoot) -> String {
    match step {
        FirstBoot::Install(file) => {
            format!("{file} of the driver bundle is installed, if it is there")
        }
        FirstBoot::Run(command) => format!("{command} is run"),
        FirstBoot::Uninstall(name) => {
            format!("the uninstaller of \"{name}\" is run, if the list of programs has it")
        }
        FirstBoot::UninstallUpgradeCode(code) => {
            format!("what Windows Installer knows under the upgrade code {code} is uninstalled")
        }
    }
}

/// Characters in a line of a terminal that nobody made wider.
const WIDTH: usize = 80;

const GROUPS: [Group; 8] = [
    Group::BootStorage,
    Group::Network,
    Group::TakenOut,
    Group::BootConfiguration,
    Group::Settings,
    Group::Citrix,
    Group::FirstBoot,
    Group::Left,
];
