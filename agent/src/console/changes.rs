//! What a prepare or a conversion did, or with `--plan` would do, for people to read.

use std::fmt::Write;

use ce_platform::plan::ChangeLine;

use super::Style;
use crate::job::{Artifacts, Status};

/// All changes under the item that asks for them, and what was proved.
pub(super) fn page(found: &Artifacts, status: Status, style: Style) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    if let Some(windows) = &found.windows {
        let named = [&windows.product, &windows.version, &windows.build];
        let named: Vec<&str> = named.into_iter().flatten().map(String::as_str).collect();
        let _ = writeln!(text, "{}", style.heading(&named.join(" ")));
    }
    let changes = found.changes.as_deref().unwrap_or_default();
    let mut heading = None;
    for change in changes {
        if heading.replace(&change.id) != Some(&change.id) {
            let _ = writeln!(text, "{}: {}", style.heading(&change.id), change.reason);
        }
        let _ = writeln!(
            text,
            "  {:<9} {}",
            word(change, found, status),
            change.title
        );
        if let Some(why) = &change.why {
            let _ = writeln!(text, "  {:<9} because {why}", "");
        }
    }
    let count = |outcome: &str| {
        let of_it = changes.iter().filter(|change| change.outcome == outcome);
        of_it.count()
    };
    let _ = writeln!(
        text,
        "{} {}, {} already so, {} deferred to the first boot, {} skipped",
        count("done"),
        if is_done(found, status) {
            "done"
        } else {
            "to do"
        },
        count("alreadySo"),
        count("deferred"),
        count("skipped"),
    );
    if let Some(proof) = &found.proof {
        let chains = [
            &proof.devices,
            &proof.services,
            &proof.filters,
            &proof.boot,
            &proof.recovery,
        ];
        let chains = chains.into_iter().flatten();
        let (held, all) = chains.fold((0, 0), |(held, all), chain| {
            (held + usize::from(chain.holds()), all + 1)
        });
        let _ = writeln!(
            text,
            "proved from the disk: {held} of {all} chains from a device or the firmware to its file \
             hold, and every one that has to"
        );
    }
    text
}

fn word(change: &ChangeLine, found: &Artifacts, status: Status) -> &'static str {
    match change.outcome {
        "done" if is_done(found, status) => "done",
        "done" => "to do",
        "alreadySo" => "is so",
        "deferred" => "deferred",
        _ => "skipped",
    }
}

/// A plan proves nothing: that tells it from what was done.
fn is_done(found: &Artifacts, status: Status) -> bool {
    status == Status::Complete && found.proof.is_some()
}
