//! `ce-agent catalog`: what a prepare looks for and does, for people who have to answer for it.
//!
//! Neither command looks at a disk. `show` tells what the built-in catalogues come to for a pair of
//! platforms; `check` finds everything that is wrong with catalogues, the built-in ones or a folder
//! of edited ones, so that an edit can be tried without building the program.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use ce_platform::Catalog;
use ce_platform::catalog::Finding;
use serde_json::json;

use crate::cli::{CatalogCheckArgs, CatalogCommand, CatalogShowArgs, OutputOptions};
use crate::job::{ErrorCode, JobError};

/// Does what is asked for and returns the exit code.
pub(crate) fn run(command: &CatalogCommand, output: OutputOptions) -> u8 {
    let result = match command {
        CatalogCommand::Check(args) => check(args, output),
        CatalogCommand::Show(args) => show(args, output),
    };
    result.unwrap_or_else(|error| {
        // A reader that has gone away does not make it another failure.
        if output.json {
            print(&format!("{}\n", json!({ "error": error })));
        } else {
            drop(writeln!(io::stderr(), "error: {error}"));
        }
        error.code.exit_code()
    })
}

fn show(args: &CatalogShowArgs, output: OutputOptions) -> Result<u8, JobError> {
    let catalog =
        Catalog::builtin().map_err(|error| JobError::from_chain(ErrorCode::Internal, error))?;
    let shown = catalog.preparation(args.from, args.to).show();
    if output.json {
        print(&format!("{}\n", json!(shown)));
    } else {
        print(&shown.to_string());
    }
    Ok(0)
}

fn check(args: &CatalogCheckArgs, output: OutputOptions) -> Result<u8, JobError> {
    let (catalog, mut findings) = match &args.dir {
        None => Catalog::read(Catalog::builtin_files()),
        Some(dir) => {
            let Folder {
                texts,
                mut unreadable,
            } = read_folder(dir)?;
            let files = texts
                .iter()
                .map(|(name, text)| (name.as_str(), text.as_str()));
            let (catalog, findings) = Catalog::read(files);
            // That a file which can't be read is missing besides needs no telling.
            let is_told = |finding: &Finding| {
                finding.line.is_none() && unreadable.iter().any(|told| told.file == finding.file)
            };
            let findings: Vec<Finding> = findings
                .into_iter()
                .filter(|finding| !is_told(finding))
                .collect();
            unreadable.extend(findings);
            (catalog, unreadable)
        }
    };
    findings.extend(catalog.check());
    findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let is_good = findings.is_empty();
    if output.json {
        let items = catalog.items().count();
        let value = json!({ "good": is_good, "items": items, "findings": findings });
        print(&format!("{value}\n"));
    } else {
        let mut text: String = findings
            .iter()
            .map(|finding| format!("{finding}\n"))
            .collect();
        text.push_str(&match findings.len() {
            0 => format!("good: {} items\n", catalog.items().count()),
            1 => "NOT good: one thing is wrong\n".to_owned(),
            count => format!("NOT good: {count} things are wrong\n"),
        });
        print(&text);
    }
    Ok(u8::from(!is_good))
}

/// The files of a folder.
struct Folder {
    /// Their names, as catalogues have them, and what is in them.
    texts: Vec<(String, String)>,
    /// What there is to say of those that can't be read.
    unreadable: Vec<Finding>,
}

fn read_folder(dir: &Path) -> Result<Folder, JobError> {
    let (mut texts, mut unreadable) = (Vec::new(), Vec::new());
    for folder in ["", "citrix", "removal", "target"] {
        let path = dir.join(folder);
        let mut names = match list(&path) {
            Ok(names) => names,
            // Its catalogues are missing, which is told of each.
            Err(error) if !folder.is_empty() && error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(JobError::invalid(
                    "DIR",
                    format!("{}: {error}", path.display()),
                ));
            }
        };
        names.sort();
        for file in names {
            let name = if folder.is_empty() {
                file.clone()
            } else {
                format!("{folder}/{file}")
            };
            match read_text(&path.join(&file)) {
                Ok(text) => texts.push((name, text)),
                Err(error) => unreadable.push(Finding {
                    file: name,
                    line: None,
                    item: None,
                    message: error.to_string(),
                }),
            }
        }
    }
    Ok(Folder { texts, unreadable })
}

/// The names of the TOML files in a folder.
fn list(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".toml") {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

fn read_text(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "this is no file",
        ));
    }
    let mut text = String::new();
    file.take(LONGEST_CATALOG + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_CATALOG {
        let message = format!("longer than the {LONGEST_CATALOG} bytes that a catalogue can have");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// Prints to standard output. Whoever reads may have seen enough.
fn print(text: &str) {
    drop(io::stdout().lock().write_all(text.as_bytes()));
}

/// Many times the longest of those that are built in.
const LONGEST_CATALOG: u64 = 1 << 20;
