//! "I write the image straight to a share": the same image, safely, under its name, or a reason.

#[path = "../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;
mod smb_desk;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Finished, ce_agent};
use ce_tests::pattern::{MIB, Pattern};
use ce_tests::tool::text;

use share::{PASSWORD, Setup};
use smb_desk::{Desk, failure};

#[test]
fn an_image_on_a_share_is_the_one_that_a_local_export_writes() -> Result<()> {
    for setup in [
        Setup::default(),
        Setup::default().global("server signing = mandatory"),
        Setup::default().global("smb encrypt = required"),
        Setup::default().share("smb encrypt = required"),
    ] {
        let desk = Desk::new(setup.start(), 40 * MIB, Pattern::HalfZero)?;
        for (name, format) in [("image.vhdx", "vhdx"), ("image.vhd", "vhd")] {
            let options = ["--hash", "--verify", "--format", format];
            let export = desk.export(&format!("share/{name}"))?.with(options);
            let run = export.expect_code(0)?;
            desk.expect_image(&run, name, &["--format", format])?;
            let job = run.job()?;
            ensure!(job["artifacts"]["verified"] == true, "{job}");
            let url = desk.server.url(&format!("share/{name}"));
            ensure!(job["artifacts"]["outputImage"] == url, "{job}");
            ensure!(job["warnings"] == serde_json::json!([]), "{job}");
        }
        ensure!(
            desk.names()? == ["image.vhd", "image.vhdx"],
            "{:?}",
            desk.names()?
        );
    }
    Ok(())
}

#[test]
fn an_export_to_a_share_fits_into_96_mib() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 300 * MIB, Pattern::Dense)?;
    let options = ["--hash", "--verify"];
    let run = desk
        .export("share/image.vhdx")?
        .with(options)
        .expect_code(0)?;
    let peak = run.cost.peak_memory;
    ensure!(peak <= 96 * MIB, "{} MiB", peak / MIB);
    Ok(())
}

#[test]
fn a_job_brings_its_credentials_or_names_them() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 8 * MIB, Pattern::Dense)?;
    let named = desk.folder.path().join("smb.json");
    let user = desk.server.user();
    for (name, credentials, options) in [
        (
            "inline",
            serde_json::json!({"credentials": {"username": user, "password": PASSWORD}}),
            vec![],
        ),
        (
            "named",
            serde_json::json!({"credentialId": "cred-7"}),
            vec![
                "--credential".to_owned(),
                format!("cred-7={}", text(&named)?),
            ],
        ),
    ] {
        let mut location = credentials;
        location["location"] = desk.server.url("share/jobs").into();
        let request = serde_json::json!({
            "operation": "export", "platform": "azure", "disk": {"path": text(&desk.disk)?},
            "outputStorageLocation": location, "outputImageFilename": name, "hashDisk": true
        });
        let file = desk.folder.path().join("request.json");
        fs::write(&file, request.to_string())?;
        let run = ce_agent(["run", text(&file)?, "--json"])?
            .with(&options)
            .expect_code(0)?;
        desk.expect_image(&run, &format!("jobs/{name}.vhdx"), &[])?;
        shows_no_secret(&run)?;
    }
    Ok(())
}

#[test]
fn names_arrive_as_they_are_written_or_are_refused() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), MIB, Pattern::Dense)?;
    let long = format!("{}.vhdx", "n".repeat(250));
    for name in ["Größe – 日本 💾.vhdx", "a b#c%41+;&.vhdx", long.as_str()] {
        let run = desk
            .export(&format!("share/ü %2e/{name}"))?
            .with(["--hash"])
            .expect_code(0)?;
        desk.expect_image(&run, &format!("ü %2e/{name}"), &[])?;
    }
    let longer = format!("n{long}");
    for name in [
        "../x.vhdx",
        "a/../../x.vhdx",
        "CON",
        "nul.vhdx",
        "a?.vhdx",
        r"..\x",
        "a.",
        &longer,
    ] {
        let (code, message) = failure(&desk.export(&format!("share/{name}"))?.run()?, 2)?;
        ensure!(
            code == "InvalidRequest" && message.contains("--to"),
            "{name}: {message}"
        );
    }
    ensure!(desk.names()? == ["ü %2e"], "{:?}", desk.names()?);
    Ok(())
}

#[test]
fn what_stands_against_an_export_is_told_apart() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), MIB, Pattern::Dense)?;
    let code = |path: &str| -> Result<String> { Ok(failure(&desk.export(path)?.run()?, 1)?.0) };
    ensure!(code("nosuch/x.vhdx")? == "SmbShareNotFound");
    ensure!(code("forbidden/x.vhdx")? == "SmbAccessDenied");
    fs::write(desk.server.folder().join("there.vhdx"), b"precious")?;
    ensure!(code("share/there.vhdx")? == "OutputExists");
    ensure!(fs::read(desk.server.folder().join("there.vhdx"))? == b"precious");
    let export = desk
        .export("share/there.vhdx")?
        .with(["--hash", "--overwrite"]);
    desk.expect_image(&export.expect_code(0)?, "there.vhdx", &[])?;

    let nobody = desk.export_to("smb://127.0.0.1:1/share/x.vhdx")?.run()?;
    let (code, message) = failure(&nobody, 1)?;
    ensure!(
        code == "SmbUnreachable" && message.contains("refuses"),
        "{message}"
    );
    let unknown = desk
        .export_to("smb://no-such-host.invalid/share/x.vhdx")?
        .run()?;
    let (code, message) = failure(&unknown, 1)?;
    ensure!(
        code == "SmbUnreachable" && message.contains("resolved"),
        "{message}"
    );
    Ok(())
}

#[test]
fn a_share_that_can_only_be_read_is_left_alone() -> Result<()> {
    let server = Setup::default().share("read only = yes").start();
    let desk = Desk::new(server, MIB, Pattern::Dense)?;
    let (code, message) = failure(&desk.export("share/x.vhdx")?.run()?, 1)?;
    ensure!(
        code == "SmbAccessDenied" && message.contains("NT_STATUS"),
        "{code}: {message}"
    );
    Ok(())
}

#[test]
fn a_share_that_is_too_small_is_named_with_the_figures() -> Result<()> {
    let server = Setup::default().tmpfs(24 << 20).start();
    let desk = Desk::new(server, 64 * MIB, Pattern::Dense)?;
    // A VHD has a known length, a VHDX runs full on the way.
    for (name, format, needed) in [
        ("image.vhd", "vhd", "67109376 bytes (64.0 MiB) needed"),
        ("image.vhdx", "vhdx", "needed"),
    ] {
        let export = desk
            .export(&format!("share/{name}"))?
            .with(["--format", format]);
        let (code, message) = failure(&export.run()?, 1)?;
        ensure!(code == "SmbNoSpace", "{code}: {message}");
        ensure!(
            message.contains(needed) && message.contains("free"),
            "{message}"
        );
        ensure!(desk.names()?.is_empty(), "{:?}", desk.names()?);
    }
    Ok(())
}

#[test]
fn a_connection_that_would_not_be_encrypted_is_refused_unless_that_is_allowed() -> Result<()> {
    let server = Setup::default().global("smb encrypt = off").start();
    let desk = Desk::new(server, MIB, Pattern::Dense)?;
    let export = desk.export("share/image.vhdx")?.with(["--hash"]);
    let (code, message) = failure(&export.run()?, 1)?;
    ensure!(
        code == "SmbProtocol" && message.contains("not encrypted"),
        "{message}"
    );
    ensure!(desk.names()?.is_empty());
    let run = export
        .with(["--smb-encryption", "if-demanded"])
        .expect_code(0)?;
    desk.expect_image(&run, "image.vhdx", &[])
}

#[test]
fn a_server_that_is_too_old_is_refused_unless_that_is_allowed() -> Result<()> {
    let server = Setup::default()
        .global("server max protocol = SMB2_10")
        .start();
    let desk = Desk::new(server, MIB, Pattern::Dense)?;
    let export = desk.export("share/image.vhdx")?.with(["--hash"]);
    let (code, message) = failure(&export.run()?, 1)?;
    ensure!(
        code == "SmbProtocol" && message.contains("older"),
        "{message}"
    );
    let weaker = [
        "--smb-min-dialect",
        "2.1",
        "--smb-encryption",
        "if-demanded",
    ];
    desk.expect_image(&export.with(weaker).expect_code(0)?, "image.vhdx", &[])
}

#[test]
fn a_wrong_password_is_tried_once_and_never_shown() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), MIB, Pattern::Dense)?;
    desk.write_credentials("smb.json", "Wrong-Pass2")?;
    let export = desk.export("share/x.vhdx")?;
    let run = export.with(["-v", "-v", "--resume"]).run()?;
    let (code, _) = failure(&run, 1)?;
    ensure!(code == "SmbAuthFailed", "{code}");
    shows_no_secret(&run)?;
    let log = desk.server.log();
    let tried = log
        .matches("FAILED with error NT_STATUS_WRONG_PASSWORD")
        .count();
    ensure!(tried == 1, "tried {tried} times");
    Ok(())
}

#[test]
fn no_process_shows_the_password() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 200 * MIB, Pattern::Dense)?;
    let options = ["-v", "-v", "--hash"];
    let running = desk.export("share/image.vhdx")?.with(options).start()?;
    let mut seen = 0;
    for _ in 0..50 {
        for entry in fs::read_dir("/proc")?.flatten() {
            for name in ["cmdline", "environ"] {
                let shown = fs::read(entry.path().join(name)).unwrap_or_default();
                let shown = String::from_utf8_lossy(&shown);
                ensure!(
                    !shown.contains(PASSWORD),
                    "{:?} shows it in {name}",
                    entry.path()
                );
                seen += usize::from(shown.contains(text(&desk.disk)?));
            }
        }
    }
    let run = running.finish()?;
    ensure!(run.status.success(), "{}", run.stderr);
    ensure!(seen > 0, "the process was not looked at");
    shows_no_secret(&run)
}

#[test]
fn credentials_that_others_can_read_are_refused() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), MIB, Pattern::Dense)?;
    let path = desk.folder.path().join("smb.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let (code, message) = failure(&desk.export("share/x.vhdx")?.run()?, 2)?;
    ensure!(
        code == "InvalidRequest" && message.contains("0644"),
        "{message}"
    );
    let none = ce_agent([
        "export",
        text(&desk.disk)?,
        "--to",
        "smb://127.0.0.1/s/x.vhdx",
        "--json",
    ])?;
    let (_, message) = failure(&none.run()?, 2)?;
    ensure!(message.contains("CE_SMB_CREDENTIALS"), "{message}");
    Ok(())
}

fn shows_no_secret(run: &Finished) -> Result<()> {
    for secret in [PASSWORD, "Wrong-Pass2"] {
        ensure!(!run.stdout.contains(secret), "on standard output");
        ensure!(!run.stderr.contains(secret), "on standard error");
    }
    run.stdout.lines().last().context("no output").map(|_| ())
}
