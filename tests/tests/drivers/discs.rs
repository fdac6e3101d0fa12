//! Discs, made by the tools that make them for vendors.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_tests::tool::{GENISOIMAGE, Tool, XORRISO, text};

use crate::desk::{Desk, files_below, import, imported};

/// What each kind of disc is made with.
const DISCS: [(&str, Tool, &[&str]); 7] = [
    ("Joliet", GENISOIMAGE, &["-quiet", "-J", "-joliet-long"]),
    ("Rock Ridge", GENISOIMAGE, &["-quiet", "-r"]),
    (
        "long plain names",
        GENISOIMAGE,
        &["-quiet", "-iso-level", "4", "-D"],
    ),
    (
        "UDF",
        GENISOIMAGE,
        &["-quiet", "-udf", "-allow-limited-size", "-D"],
    ),
    (
        "all of them",
        GENISOIMAGE,
        &["-quiet", "-udf", "-J", "-joliet-long", "-r"],
    ),
    ("xorriso", XORRISO, &["-as", "mkisofs", "-quiet"]),
    (
        "xorriso, Joliet",
        XORRISO,
        &["-as", "mkisofs", "-quiet", "-J", "-joliet-long"],
    ),
];

/// A folder as a vendor's disc has it: the package far down, under names that take up more than one
/// sector, beside a file of some size.
fn disc_folder(desk: &Desk) -> Result<PathBuf> {
    let top = desk.top.path().join("disc");
    let package = top.join("Windows Server 2022/amd64");
    fs::create_dir_all(&package)?;
    for name in ["vioscsi.inf", "vioscsi.sys", "vioscsi.cat"] {
        fs::copy(desk.folder().join(name), package.join(name))?;
    }
    for number in 0..60 {
        let name = format!("symbols of a driver that are of some length {number}.pdb");
        fs::write(package.join(name), [7; 100])?;
    }
    fs::write(top.join("guest tools.exe"), vec![0x5A; 300_000])?;
    fs::write(top.join("empty"), "")?;
    Ok(top)
}

fn make_disc(maker: Tool, options: &[&str], folder: &Path, disc: &Path) -> Result<()> {
    let arguments = ["-o", text(disc)?, text(folder)?];
    maker.run(options.iter().copied().chain(arguments))?;
    Ok(())
}

#[test]
fn packages_are_imported_from_discs_of_every_kind() -> Result<()> {
    let desk = Desk::new()?;
    let folder = disc_folder(&desk)?;
    let expected = imported(&folder, &desk.top.path().join("expected"))?;
    ensure!(expected.len() == 3, "{expected:?}");
    for (kind, maker, options) in DISCS {
        let disc = desk.top.path().join("drivers.iso");
        make_disc(maker, options, &folder, &disc)?;
        let bundle = desk.top.path().join(kind);
        let found = imported(&disc, &bundle).with_context(|| kind.to_owned())?;
        ensure!(found == expected, "{kind}: another bundle");
        fs::remove_file(disc)?;
    }
    Ok(())
}

#[test]
fn a_folder_that_is_too_deep_for_a_disc_is_found_where_it_was_moved_to() -> Result<()> {
    let desk = Desk::new()?;
    let top = desk.top.path().join("deep");
    let package = top.join("1/2/3/4/5/6/7/8/9");
    fs::create_dir_all(&package)?;
    for name in ["vioscsi.inf", "vioscsi.sys", "vioscsi.cat"] {
        fs::copy(desk.folder().join(name), package.join(name))?;
    }
    let expected = imported(&top, &desk.top.path().join("expected"))?;
    let disc = desk.top.path().join("deep.iso");
    make_disc(GENISOIMAGE, &["-quiet", "-r"], &top, &disc)?;
    let found = imported(&disc, &desk.top.path().join("bundle"))?;
    ensure!(found == expected, "another bundle");
    Ok(())
}

#[test]
fn a_disc_with_a_link_on_it_is_refused() -> Result<()> {
    let desk = Desk::new()?;
    symlink("/etc/passwd", desk.folder().join("secret.dll"))?;
    for options in [&["-quiet", "-r"][..], &["-quiet", "-r", "-udf"]] {
        let disc = desk.top.path().join("link.iso");
        make_disc(GENISOIMAGE, options, desk.folder(), &disc)?;
        let run = import(&disc, &desk.top.path().join("bundle"))?
            .with(["--json"])
            .run()?;
        // UDF of this tool leaves links out.
        match options.contains(&"-udf") {
            true => ensure!(run.status.success(), "{}", run.stdout),
            false => ensure!(
                run.status.code() == Some(1) && run.stdout.contains("links are not taken"),
                "{}",
                run.stdout
            ),
        }
        fs::remove_file(disc)?;
    }
    Ok(())
}

#[test]
fn a_disc_that_was_cut_short_is_refused_or_has_lost_nothing_that_matters() -> Result<()> {
    let desk = Desk::new()?;
    let folder = disc_folder(&desk)?;
    let expected = imported(&folder, &desk.top.path().join("expected"))?;
    for (kind, maker, options) in [DISCS[0], DISCS[1], DISCS[3]] {
        let disc = desk.top.path().join("drivers.iso");
        make_disc(maker, options, &folder, &disc)?;
        let whole = fs::read(&disc)?;
        let mut refused = 0;
        for part in 0..12 {
            fs::write(&disc, &whole[..whole.len() * part / 12])?;
            let bundle = desk.top.path().join(format!("{kind} {part}"));
            let run = import(&disc, &bundle)?.with(["--json"]).run()?;
            ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
            match run.status.code() {
                Some(0) => {
                    let mut found = files_below(&bundle)?;
                    found.sort();
                    ensure!(found == expected, "{kind} {part}: another bundle");
                }
                Some(1) => {
                    refused += 1;
                    ensure!(run.stdout.contains("DriverInvalid"), "{}", run.stdout);
                    ensure!(
                        files_below(&bundle)?.is_empty(),
                        "{kind} {part}: something is left"
                    );
                }
                other => anyhow::bail!("{kind} {part}: {other:?}: {}{}", run.stdout, run.stderr),
            }
        }
        ensure!(refused > 6, "{kind}: {refused} of 12 parts were refused");
        fs::remove_file(disc)?;
    }
    Ok(())
}
