//! "The orchestrator words the job": requests in JSON, as `ce-agent run` takes them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::disk::DiskBuilder;
use ce_tests::oracle;
use ce_tests::pattern::{MIB, Pattern, TIB};
use ce_tests::tool::text;
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn an_export_is_done_as_the_request_says() -> Result<()> {
    let desk = Desk::new(Pattern::HalfZero)?;
    let mut request = desk.request()?;
    request["subscriptionId"] = json!("of the orchestrator");
    request["hashDisk"] = json!(true);
    request["disk"] = json!({"lun": 0, "sizeBytes": desk.size});
    let job = desk.run(&request)?.expect_code(0)?.job()?;
    let image = desk.folder.path().join("golden.vhdx");
    assert_eq!(job["operation"], "export");
    assert_eq!(job["artifacts"]["outputImage"], text(&image)?);
    assert_eq!(
        job["artifacts"]["md5Hash"],
        oracle::md5_of_file(&desk.disk)?
    );
    assert_eq!(job["warnings"], json!([]));
    oracle::qemu_check(&image)?;

    // Nothing is replaced that the request does not know of.
    let (code, _) = desk.run(&request)?.expect_code(1)?.error()?;
    assert_eq!(code, "OutputExists");
    desk.run(&request)?.with(["--overwrite"]).expect_code(0)?;
    Ok(())
}

#[test]
fn a_request_can_name_the_disk_by_its_path() -> Result<()> {
    let desk = Desk::new(Pattern::Dense)?;
    let mut request = desk.request()?;
    request["disk"] = json!({"path": text(&desk.disk)?});
    request["outputFormat"] = json!("VhdDiskFormat");
    let file = desk.write(&request)?;
    ce_agent(["run", text(&file)?, "--json"])?.expect_code(0)?;
    ensure!(desk.folder.path().join("golden.vhd").exists());
    Ok(())
}

#[test]
fn a_disk_of_another_size_is_not_the_one_that_is_meant() -> Result<()> {
    let desk = Desk::new(Pattern::Dense)?;
    let mut request = desk.request()?;
    request["disk"] = json!({"lun": 3, "sizeBytes": desk.size + 512});
    let (code, message) = desk.run(&request)?.expect_code(1)?.error()?;
    assert_eq!(code, "DiskNotFound", "{message}");
    ensure!(message.contains(&desk.size.to_string()), "{message}");
    desk.left_nothing()
}

#[test]
fn an_inspection_tells_the_partitions() -> Result<()> {
    let desk = Desk::new(Pattern::Dense)?;
    fs::remove_file(&desk.disk)?;
    DiskBuilder::windows_layout(400 * MIB, Vec::new()).build(&desk.disk)?;
    let job = desk
        .run(&json!({"operation": "inspect"}))?
        .expect_code(0)?
        .job()?;
    let disk = &job["artifacts"]["disk"];
    assert_eq!(disk["partitionTable"], "GPT", "{disk}");
    assert_eq!(disk["partitions"][0]["type"], "EFI system", "{disk}");
    assert_eq!(disk["partitions"][0]["start"], MIB, "{disk}");
    Ok(())
}

#[test]
fn a_request_with_faults_is_refused_with_all_of_them() -> Result<()> {
    let desk = Desk::new(Pattern::Dense)?;
    let mut request = desk.request()?;
    request["hashdisk"] = json!(true);
    request["outputImageFilename"] = json!("../golden");
    request["platform"] = json!("mainframe");
    let (code, message) = desk.run(&request)?.expect_code(2)?.error()?;
    assert_eq!(code, "InvalidRequest");
    for fault in ["hashdisk", "`hashDisk`", "outputImageFilename", "mainframe"] {
        ensure!(message.contains(fault), "{fault} is not in: {message}");
    }
    for (text, said) in [("{", "JSON"), ("[1]", "JSON"), ("{}", "operation")] {
        let file = desk.folder.path().join("request.json");
        fs::write(&file, text)?;
        let run = ce_agent(["run", self::text(&file)?, "--disk", self::text(&desk.disk)?])?;
        let run = run.expect_code(2)?;
        ensure!(run.stderr.contains(said), "{}", run.stderr);
        fs::remove_file(file)?;
    }
    desk.left_nothing()
}

#[test]
fn a_job_that_takes_too_long_is_stopped_and_says_so() -> Result<()> {
    let desk = Desk::new(Pattern::Dense)?;
    // A hole that MD5 needs the better part of an hour for.
    fs::File::create(&desk.disk)?.set_len(2 * TIB)?;
    let mut request = desk.request()?;
    request["hashDisk"] = json!(true);
    request["timeoutSeconds"] = json!(1);
    let begin = Instant::now();
    let run = desk.run(&request)?.expect_code(1)?;
    assert_eq!(run.error()?.0, "Timeout");
    assert_eq!(run.job()?["status"], "failed");
    ensure!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    desk.left_nothing()
}

/// A folder with a disk in it.
struct Desk {
    disk: PathBuf,
    size: u64,
    folder: TempDir,
}

impl Desk {
    fn new(pattern: Pattern) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        let size = 16 * MIB;
        DiskBuilder::filled(size, pattern, 5).build(&disk)?;
        Ok(Self { disk, size, folder })
    }

    fn request(&self) -> Result<Value> {
        Ok(json!({
            "operation": "export",
            "platform": "vSphere",
            "outputStorageLocation": {"location": text(self.folder.path())?},
            "outputImageFilename": "golden",
        }))
    }

    fn write(&self, request: &Value) -> Result<PathBuf> {
        let file = self.folder.path().join("request.json");
        fs::write(&file, request.to_string())?;
        Ok(file)
    }

    fn run(&self, request: &Value) -> Result<Invocation> {
        let file = self.write(request)?;
        ce_agent(["run", text(&file)?, "--disk", text(&self.disk)?, "--json"])
    }

    fn left_nothing(&self) -> Result<()> {
        for entry in fs::read_dir(self.folder.path())? {
            let name = entry?.file_name();
            ensure!(
                name == "disk.raw" || name == "request.json",
                "{name:?} is left"
            );
        }
        Ok(())
    }
}
