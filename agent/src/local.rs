//! A job that someone runs by hand: words it, runs it, shows how it goes and what came of it.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use ce_disk::export::ImageFormat;
use ce_disk::sink::smb::SmbLocation;
use ce_disk::units::{BlockSize, ByteCount};
use ce_platform::plan::JobOptions;
use signal_hook::consts::{SIGINT, SIGTERM};
use zeroize::Zeroizing;

use crate::cli::{
    DiskArgs, ExportArgs, Format, FreeSpace, JobCommand, OutputOptions, PrepareAndPublishArgs,
    PrepareArgs, PublishArgs, PublishedArgs, RunArgs, SmbArgs,
};
use crate::config::state_folder;
use crate::console::Console;
use crate::job::{
    ConvertSpec, Destination, DiskSpec, ErrorCode, ExportSpec, Job, JobError, JobSpec, KnownHash,
    LocalOverrides, PrepareAndPublishSpec, PrepareSpec, PublishSpec, Reach, Request, ShareAccess,
    Status, Watch, Work, execute, guard_secrets, read_options,
};

/// Runs the job that a command asks for and returns the exit code.
pub(crate) fn run(command: &JobCommand, output: OutputOptions) -> u8 {
    let mut console = Console::new(output);
    let job = match worded(command) {
        Ok(spec) => supervise(&spec, &mut console),
        Err(error) => refused(operation_of(command), error),
    };
    console.finished(&job);
    job.error.map_or(0, |error| error.exit_code())
}

fn worded(command: &JobCommand) -> Result<JobSpec, JobError> {
    match command {
        JobCommand::Export(args) => Ok(JobSpec::local(
            disk_spec(&args.disk),
            Work::Export(export_spec(args)?),
        )),
        JobCommand::Hash(args) => Ok(JobSpec::local(disk_spec(&args.disk), Work::Hash)),
        JobCommand::Inspect(args) => Ok(JobSpec::local(disk_spec(&args.disk), Work::Inspect)),
        JobCommand::Prepare(args) => Ok(JobSpec::local(
            disk_spec(&args.disk),
            Work::Prepare(prepare_spec(args)?),
        )),
        JobCommand::Publish(args) => Ok(JobSpec::local(
            disk_spec(&args.disk),
            Work::Publish(publish_spec(args)?),
        )),
        JobCommand::PrepareAndPublish(args) => Ok(JobSpec::local(
            disk_spec(&args.prepare.disk),
            Work::PrepareAndPublish(prepare_and_publish_spec(args)?),
        )),
        JobCommand::ConvertToUefi(args) => Ok(JobSpec::local(
            disk_spec(&args.disk),
            Work::ConvertToUefi(ConvertSpec {
                plan_only: args.plan,
                scratch: args.scratch.clone().map_or_else(state_folder, Ok)?,
            }),
        )),
        JobCommand::Run(args) => requested(args),
    }
}

fn operation_of(command: &JobCommand) -> &'static str {
    match command {
        JobCommand::Export(_) => "export",
        JobCommand::Hash(_) => "hash",
        JobCommand::Inspect(_) => "inspect",
        JobCommand::Prepare(_) => "prepare",
        JobCommand::PrepareAndPublish(_) => "prepareAndPublish",
        JobCommand::Publish(_) => "publish",
        JobCommand::ConvertToUefi(_) => "convertToUefi",
        JobCommand::Run(_) => "run",
    }
}

fn disk_spec(args: &DiskArgs) -> DiskSpec {
    DiskSpec {
        path: args.disk.clone(),
        sector_size: args.sector_size,
        as_raw: args.raw,
        expected_size: None,
        awaited: None,
    }
}

fn export_spec(args: &ExportArgs) -> Result<ExportSpec, JobError> {
    let format = match (args.format, args.block_size) {
        (Format::Vhdx, block_size) => ImageFormat::Vhdx(block_size.unwrap_or_default()),
        (Format::Vhd, None) => ImageFormat::FixedVhd,
        (Format::Vhd, Some(_)) => {
            return Err(JobError::invalid(
                "--block-size",
                "a fixed VHD has no blocks",
            ));
        }
    };
    Ok(ExportSpec {
        destination: destination(&args.to, &args.smb)?,
        format,
        hash: args.hash,
        skip_free_space: args.free_space == FreeSpace::Skip,
        overwrite: args.image.overwrite,
        resume: args.image.resume,
        keep_partial: args.image.resume,
        verify: args.image.verify,
        checkpoint_every: args.image.checkpoint_every,
    })
}

fn publish_spec(args: &PublishArgs) -> Result<PublishSpec, JobError> {
    Ok(PublishSpec {
        image: published_image(&args.output)?,
        platform: args.platform,
    })
}

fn prepare_and_publish_spec(
    args: &PrepareAndPublishArgs,
) -> Result<PrepareAndPublishSpec, JobError> {
    if args.output.image.resume {
        let problem = "the disk is prepared anew in each run, so there is nothing to go on with";
        return Err(JobError::invalid("--resume", problem));
    }
    let prepare = prepare_spec(&args.prepare)?;
    Ok(PrepareAndPublishSpec {
        publish: PublishSpec {
            image: published_image(&args.output)?,
            platform: Some(prepare.to),
        },
        prepare,
        keep_prepared: args.keep_prepared,
    })
}

fn published_image(args: &PublishedArgs) -> Result<ExportSpec, JobError> {
    let destination = destination(&args.to, &args.smb)?;
    destination.expect_published_name("--to")?;
    Ok(ExportSpec {
        destination,
        format: ImageFormat::Vhdx(BlockSize::PROVISIONING),
        hash: args.hash,
        skip_free_space: args.free_space == FreeSpace::Skip,
        overwrite: args.image.overwrite,
        resume: args.image.resume,
        keep_partial: args.image.resume,
        verify: args.image.verify,
        checkpoint_every: args.image.checkpoint_every,
    })
}

fn prepare_spec(args: &PrepareArgs) -> Result<PrepareSpec, JobError> {
    let options = match &args.options {
        None => JobOptions::default(),
        Some(file) => read_options(&read_text(file, LONGEST_REQUEST)?)?,
    };
    Ok(PrepareSpec {
        to: args.platform,
        known_hash: args.md5.map(|md5| KnownHash {
            md5,
            hashed: args.hashed_bytes.map(ByteCount),
        }),
        options,
        convert_to_uefi: args.convert_to_uefi,
        drivers: args.drivers.clone(),
        plan_only: args.plan,
        scratch: args.scratch.clone().map_or_else(state_folder, Ok)?,
    })
}

/// The text of a small file.
fn read_text(file: &Path, limit: usize) -> Result<String, JobError> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", file.display());
        JobError::new(ErrorCode::InvalidRequest, message)
    };
    let mut text = String::new();
    let opened = fs::File::open(file).map_err(unreadable)?;
    opened
        .take(limit as u64 + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    match text.len() > limit {
        true => Err(JobError::invalid(
            &file.display().to_string(),
            format!("is longer than {limit} bytes"),
        )),
        false => Ok(text),
    }
}

fn destination(to: &str, smb: &SmbArgs) -> Result<Destination, JobError> {
    if Destination::is_share(to) {
        let location = SmbLocation::parse(to);
        let location = location.map_err(|error| JobError::invalid("--to", error))?;
        let share = access(smb, Vec::new()).share(location, None)?;
        return Ok(Destination::Share(Box::new(share)));
    }
    if let Some((scheme, _)) = to.split_once("://") {
        let problem = format!("this version of ce-agent cannot write to `{scheme}://`");
        return Err(JobError::invalid("--to", problem));
    }
    Ok(Destination::File(PathBuf::from(to)))
}

fn access(args: &SmbArgs, named_credentials: Vec<(String, PathBuf)>) -> ShareAccess {
    let from_environment = || env::var_os("CE_SMB_CREDENTIALS").map(PathBuf::from);
    ShareAccess {
        credentials: None,
        credentials_file: args.smb_credentials.clone().or_else(from_environment),
        named_credentials,
        security: args.security(),
        timeouts: args.timeouts(),
    }
}

fn requested(args: &RunArgs) -> Result<JobSpec, JobError> {
    let unreadable = |error: std::io::Error| {
        let message = format!("cannot read {}: {error}", args.request.display());
        JobError::new(ErrorCode::InvalidRequest, message)
    };
    // There may be a password in it.
    guard_secrets()?;
    // Reserved whole, so that it is never moved and left behind unwiped.
    let mut text = Zeroizing::new(String::with_capacity(LONGEST_REQUEST + 1));
    let limit = LONGEST_REQUEST as u64 + 1;
    if args.request.as_os_str() == "-" {
        // Without the buffer of standard input, which nobody wipes.
        let stdin = fs::File::from(
            std::io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(unreadable)?,
        );
        stdin.take(limit).read_to_string(&mut text)
    } else {
        let file = fs::File::open(&args.request).map_err(unreadable)?;
        file.take(limit).read_to_string(&mut text)
    }
    .map_err(unreadable)?;
    if text.len() > LONGEST_REQUEST {
        let message = format!("the request is longer than {LONGEST_REQUEST} bytes");
        return Err(JobError::new(ErrorCode::InvalidRequest, message));
    }
    let local = LocalOverrides {
        disk: args.disk.clone(),
        drivers: args.drivers.clone(),
        scratch: args.scratch.clone(),
        overwrite: args.image.overwrite,
        resume: args.image.resume,
        keep_partial: args.image.resume,
        verify: args.image.verify,
        checkpoint_every: args.image.checkpoint_every,
        reach: Reach::Local,
        access: access(&args.smb, args.credential.clone()),
        disk_wait: Duration::from_secs(args.disk_wait.into()),
    };
    Request::parse(&text)?.into_spec(local)
}

/// What is said of a job that could not even be worded.
fn refused(operation: &'static str, error: JobError) -> Job {
    Job::not_run(uuid::Uuid::new_v4().to_string(), operation, error)
}

/// Runs the job on a thread of its own, and meanwhile minds the clock, the signals and the console.
fn supervise(spec: &JobSpec, console: &mut Console) -> Job {
    let watch = Watch::default();
    if let Err(error) = stop_on_signals(&watch) {
        let message = format!("cannot watch for signals: {error}");
        return refused(
            spec.work.operation(),
            JobError::new(ErrorCode::Internal, message),
        );
    }
    let started = Instant::now();
    let mut timed_out = false;
    let mut job = thread::scope(|scope| {
        // Nothing is ever sent: the end of the worker closes the channel and so ends the wait.
        let (done, finished) = channel::<()>();
        let watch = &watch;
        let worker = scope.spawn(move || {
            let _done = done;
            execute(spec, watch)
        });
        while finished.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            console.progress(spec, watch);
            if !timed_out && spec.timeout.is_some_and(|limit| started.elapsed() >= limit) {
                timed_out = true;
                watch.cancel.request();
            }
        }
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    console.last_progress(spec, &watch);
    if timed_out && job.status == Status::Cancelled {
        job = job.into_timed_out(spec.timeout.unwrap_or_default());
    }
    job
}

/// The first signal asks the job to stop; a second one ends the program at once.
fn stop_on_signals(watch: &Watch) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, watch.cancel.flag())?;
        signal_hook::flag::register(signal, watch.cancel.flag())?;
    }
    Ok(())
}

const TICK: Duration = Duration::from_millis(100);

/// Far more than any request needs.
const LONGEST_REQUEST: usize = 1 << 20;
