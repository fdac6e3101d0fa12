//! "Whatever goes wrong, I am told what it was, my disk is as it was, and no half image passes for
//! a whole one."

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Finished, Invocation, binary, ce_agent};
use ce_tests::disk::DiskBuilder;
use ce_tests::oracle::{self, Comparison, Format};
use ce_tests::pattern::{MIB, Noise, Pattern, TIB};
use ce_tests::tool::{SETPRIV, UNSHARE, text};
use rustix::process::Signal;
use tempfile::TempDir;

#[test]
fn a_missing_disk_is_named() -> Result<()> {
    let desk = Desk::new()?;
    let (code, message) = desk.fails_with("export of no disk")?;
    assert_eq!(code, "DiskNotFound", "{message}");
    assert!(message.contains("disk.raw"), "{message}");
    desk.left_nothing()
}

#[test]
fn a_disk_that_may_not_be_read_is_refused() -> Result<()> {
    let desk = Desk::with_disk(MIB, Pattern::Dense)?;
    fs::set_permissions(&desk.disk, Permissions::from_mode(0o000))?;
    let run = as_ordinary_user(&desk, desk.export()?)?.run()?;
    let (code, message) = failed(&run)?;
    assert_eq!(code, "DiskReadFailed", "{message}");
    assert!(message.contains("disk.raw"), "{message}");
    desk.left_nothing()
}

#[test]
fn a_folder_is_not_a_disk() -> Result<()> {
    let desk = Desk::new()?;
    fs::create_dir(&desk.disk)?;
    let (_, message) = desk.fails_with("export of a folder")?;
    assert!(message.contains("disk.raw"), "{message}");
    desk.left_nothing()
}

#[test]
fn an_empty_file_is_not_a_disk() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::new(0).build(&desk.disk)?;
    let (code, message) = desk.fails_with("export of an empty file")?;
    assert_eq!(code, "DiskInvalid", "{message}");
    assert!(message.contains("empty"), "{message}");
    desk.left_nothing()
}

#[test]
fn a_file_that_is_no_whole_number_of_sectors_is_refused_with_its_size() -> Result<()> {
    for size in [1, 511, 513, MIB + 100] {
        let desk = Desk::new()?;
        DiskBuilder::new(size).build(&desk.disk)?;
        let (code, message) = desk.fails_with("export of an odd size")?;
        assert_eq!(code, "DiskInvalid", "{message}");
        assert!(
            message.contains(&size.to_string()),
            "{size} is not in: {message}"
        );
        desk.left_nothing()?;
    }
    Ok(())
}

#[test]
fn more_than_64_tib_do_not_fit_into_an_image() -> Result<()> {
    // ext4 ends at 16 TiB; the kernel's memory file system takes any length.
    let desk = Desk::in_folder(TempDir::new_in("/dev/shm")?);
    DiskBuilder::new(64 * TIB + MIB).build(&desk.disk)?;
    for format in ["vhdx", "vhd"] {
        let (_, message) = failed(&desk.export()?.with(["--format", format]).run()?)?;
        assert!(
            message.contains("64.0 TiB"),
            "the limit is not named: {message}"
        );
        desk.left_nothing()?;
    }
    Ok(())
}

#[test]
fn the_output_may_not_be_the_source_by_any_of_its_names() -> Result<()> {
    let desk = Desk::with_disk(3 * MIB, Pattern::Dense)?;
    let before = fs::read(&desk.disk)?;
    let same = desk.disk.clone();
    let hard = desk.folder.path().join("hard");
    fs::hard_link(&desk.disk, &hard)?;
    let soft = desk.folder.path().join("soft");
    symlink(&desk.disk, &soft)?;
    let roundabout = desk.folder.path().join(".").join("disk.raw");
    for output in [same, hard, soft, roundabout] {
        for overwrite in [false, true] {
            let arguments = [
                "export",
                text(&desk.disk)?,
                "--to",
                text(&output)?,
                "--json",
            ];
            let mut run = ce_agent(arguments)?;
            if overwrite {
                run = run.with(["--overwrite"]);
            }
            failed(&run.run()?)
                .with_context(|| format!("{} overwrite: {overwrite}", output.display()))?;
            assert!(fs::read(&desk.disk)? == before, "the source was changed");
        }
    }
    assert_eq!(desk.names()?, ["disk.raw", "hard", "soft"]);
    Ok(())
}

#[test]
fn an_image_that_is_there_stays_unless_overwriting_is_asked_for() -> Result<()> {
    let desk = Desk::with_disk(3 * MIB, Pattern::Dense)?;
    fs::write(&desk.image, "precious")?;
    let (code, message) = desk.fails_with("export over a file")?;
    assert_eq!(code, "OutputExists", "{message}");
    assert_eq!(fs::read(&desk.image)?, b"precious");

    desk.export()?.with(["--overwrite"]).expect_code(0)?;
    oracle::qemu_check(&desk.image)?;
    assert_eq!(desk.names()?, ["disk.raw", "image.vhdx"]);
    Ok(())
}

#[test]
fn a_failed_overwrite_leaves_the_old_image() -> Result<()> {
    let desk = Desk::new()?;
    fs::write(&desk.disk, [1; 1000])?;
    fs::write(&desk.image, "precious")?;
    failed(&desk.export()?.with(["--overwrite"]).run()?)?;
    assert_eq!(fs::read(&desk.image)?, b"precious");
    Ok(())
}

#[test]
fn a_missing_output_folder_is_named_before_anything_is_read() -> Result<()> {
    let desk = Desk::with_disk(MIB, Pattern::Dense)?;
    let output = desk.folder.path().join("nowhere").join("image.vhdx");
    let arguments = [
        "export",
        text(&desk.disk)?,
        "--to",
        text(&output)?,
        "--json",
    ];
    let (_, message) = failed(&ce_agent(arguments)?.run()?)?;
    assert!(message.contains("nowhere"), "{message}");
    desk.left_nothing()
}

#[test]
fn a_full_file_system_is_reported_and_left_clean() -> Result<()> {
    let desk = Desk::with_disk(24 * MIB, Pattern::Dense)?;
    let mount = desk.folder.path().join("small");
    fs::create_dir(&mount)?;
    let mut wrapper = vec![OsString::from(UNSHARE.path()?), "--mount".into()];
    if !rustix::process::geteuid().is_root() {
        wrapper.extend(["--user".into(), "--map-root-user".into()]);
    }
    // What is left on the small file system is gone with it, so it is listed from inside.
    let script = "mount -t tmpfs -o size=8m small \"$0\" || exit 99
        \"$@\"; code=$?; ls -A \"$0\" >\"$0.left\"; exit $code";
    wrapper.extend([
        "sh".into(),
        "-c".into(),
        script.into(),
        mount.clone().into(),
    ]);
    let output = mount.join("image.vhdx");
    let arguments = [
        "export",
        text(&desk.disk)?,
        "--to",
        text(&output)?,
        "--json",
    ];
    let run = ce_agent(arguments)?.below(wrapper).run()?;
    ensure!(
        run.status.code() != Some(99),
        "this test mounts a small tmpfs, which needs root or user namespaces: {}",
        run.stderr
    );
    let (code, message) = failed(&run)?;
    assert_eq!(code, "OutputNoSpace", "{message}");
    assert!(message.contains("image.vhdx"), "{message}");
    assert_eq!(fs::read_to_string(mount.with_extension("left"))?, "");
    Ok(())
}

#[test]
fn a_write_that_fails_half_way_is_reported_and_left_clean() -> Result<()> {
    let desk = Desk::with_disk(24 * MIB, Pattern::Dense)?;
    // No file of this process may pass 12 MiB: the kernel answers EFBIG.
    let script = "trap '' XFSZ; ulimit -f 24576; exec \"$0\" \"$@\"";
    let run = desk.export()?.below(["sh", "-c", script]).run()?;
    let (_, message) = failed(&run)?;
    assert!(message.contains("image.vhdx"), "{message}");
    desk.left_nothing()
}

#[test]
fn a_killed_export_never_leaves_anything_that_passes_for_an_image() -> Result<()> {
    let kills = if ce_tests::is_long() { 200 } else { 24 };
    let desk = Desk::with_disk(96 * MIB, Pattern::Dense)?;
    desk.export()?.with(["--hash"]).expect_code(0)?;
    let whole = fs::metadata(&desk.image)?.len();
    fs::remove_file(&desk.image)?;

    let mut cut_short = 0;
    for round in 0..kills {
        let running = desk.export()?.with(["--hash"]).start()?;
        // Spread evenly over what is written, from nothing to the last byte.
        wait_for_length(&desk, whole * round / (kills - 1))?;
        running.signal(Signal::KILL)?;
        running.finish()?;
        for name in desk.names()? {
            if name == "disk.raw" {
                continue;
            }
            let found = desk.folder.path().join(&name);
            let is_image = oracle::qemu_opens(&found, Format::Vhdx)?.is_ok();
            ensure!(
                is_image || name != "image.vhdx",
                "kill {round} left something else than an image under the final name"
            );
            if is_image {
                // The kill came after the last write: then it has to be all there.
                let pair = ((&*desk.disk, Format::Raw), (&*found, Format::Vhdx));
                assert_eq!(oracle::qemu_compare(pair.0, pair.1)?, Comparison::Identical);
                fs::remove_file(found)?;
                continue;
            }
            cut_short += 1;
            if fs::metadata(&found)?.len() > 0 {
                let guess = oracle::qemu_info(&found)?.format;
                assert_ne!(guess, "vhdx", "qemu takes {name} for an image");
            }
            // The same bytes under a name that promises an image are refused by our reader too.
            let posing = desk.folder.path().join("posing.vhdx");
            fs::rename(&found, &posing)?;
            failed(&ce_agent(["hash", text(&posing)?, "--json"])?.run()?)
                .with_context(|| format!("our reader on {name} after kill {round}"))?;
            fs::remove_file(posing)?;
        }
    }
    ensure!(
        cut_short >= kills / 2,
        "only {cut_short} of {kills} kills hit a partial file"
    );
    // After all that an export still works.
    desk.export()?.expect_code(0)?;
    oracle::qemu_check(&desk.image)
}

#[test]
fn what_a_killed_export_left_does_not_stop_the_next() -> Result<()> {
    let desk = Desk::with_disk(96 * MIB, Pattern::Dense)?;
    let running = desk.export()?.start()?;
    wait_for_output(&desk)?;
    running.signal(Signal::KILL)?;
    running.finish()?;
    desk.export()?.expect_code(0)?;
    oracle::qemu_check(&desk.image)?;
    assert_eq!(desk.names()?, ["disk.raw", "image.vhdx"]);
    Ok(())
}

#[test]
fn an_interrupted_export_says_so_and_removes_what_it_wrote() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM] {
        let desk = Desk::with_disk(192 * MIB, Pattern::Dense)?;
        let running = desk.export()?.with(["--hash"]).start()?;
        wait_for_output(&desk)?;
        running.signal(signal)?;
        let run = running.finish()?;
        assert_eq!(run.status.code(), Some(130), "{signal:?}: {}", run.stderr);
        let job = run.job()?;
        assert_eq!(
            (&job["status"], &job["error"]["code"]),
            (&"cancelled".into(), &"Cancelled".into())
        );
        desk.left_nothing()?;
    }
    Ok(())
}

#[test]
fn a_truncated_image_is_refused_at_every_length() -> Result<()> {
    let desk = Desk::with_image(12 * MIB)?;
    let whole = fs::read(&desk.image)?;
    let mut lengths = vec![1, 7, 8, 511, 512, 64 << 10, 65_537, 192 << 10, 256 << 10];
    lengths.extend([MIB, 2 * MIB, 3 * MIB + 1, 4 * MIB, whole.len() as u64 - 1]);
    for length in lengths {
        let cut = desk.folder.path().join("cut.vhdx");
        fs::write(&cut, &whole[..usize::try_from(length)?])?;
        let run = ce_agent(["hash", text(&cut)?, "--json"])?.run()?;
        failed(&run).with_context(|| format!("an image cut to {length} bytes"))?;
    }
    Ok(())
}

#[test]
fn an_image_with_damaged_structures_is_read_right_or_refused() -> Result<()> {
    let rounds = if ce_tests::is_long() { 2000 } else { 60 };
    let desk = Desk::with_image(4 * MIB)?;
    let expected = oracle::md5_of_file(&desk.disk)?;
    let whole = fs::read(&desk.image)?;
    let damaged = desk.folder.path().join("damaged.vhdx");
    // File identifier, both headers, both region tables: all below the first 256 KiB, all but the
    // identifier's text under a checksum.
    let structures = [
        (0, 8),
        (64 << 10, 4096),
        (128 << 10, 4096),
        (192 << 10, 128),
        (256 << 10, 128),
    ];
    let mut refused = 0;
    for round in 0..rounds {
        let noise = Noise::new(round).bytes(0, 16);
        let (start, length) = structures[usize::from(noise[0]) % structures.len()];
        let place = start + usize::from(u16::from_le_bytes([noise[1], noise[2]])) % length;
        let mut bytes = whole.clone();
        bytes[place] ^= noise[3] | 1;
        // Both copies, so that the other can't stand in.
        if let Some(other) = [(64 << 10, 128 << 10), (192 << 10, 256 << 10)]
            .into_iter()
            .find(|(first, _)| (*first..first + (64 << 10)).contains(&place))
            .filter(|_| noise[4].is_multiple_of(2))
            .map(|(first, second)| place - first + second)
        {
            bytes[other] ^= noise[3] | 1;
        }
        fs::write(&damaged, bytes)?;
        let run = ce_agent(["hash", text(&damaged)?, "--json"])?.run()?;
        if run.status.success() {
            assert_eq!(run.md5_hash()?, expected, "round {round}, byte {place}");
        } else {
            failed(&run).with_context(|| format!("round {round}, byte {place}"))?;
            refused += 1;
        }
    }
    ensure!(
        refused > rounds / 10,
        "only {refused} of {rounds} damaged images were refused"
    );
    Ok(())
}

#[test]
fn a_differencing_image_is_refused_by_the_name_of_its_parent() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("raw");
    DiskBuilder::filled(4 * MIB, Pattern::Dense, 1).build(&raw)?;
    let child = folder.path().join("child.vhdx");
    oracle::qemu_convert(
        (&raw, Format::Raw),
        (&child, Format::Vhdx),
        "subformat=dynamic",
    )?;
    make_differencing(&child, r".\golden-image.vhdx")?;
    for arguments in [
        vec!["hash", text(&child)?, "--json"],
        vec![
            "export",
            text(&child)?,
            "--to",
            text(&folder.path().join("out.vhdx"))?,
            "--json",
        ],
    ] {
        let (_, message) = failed(&ce_agent(arguments)?.run()?)?;
        assert!(message.contains("golden-image.vhdx"), "{message}");
    }
    assert!(!folder.path().join("out.vhdx").exists());
    Ok(())
}

/// A folder with a source and the place its image goes to.
struct Desk {
    disk: PathBuf,
    image: PathBuf,
    folder: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        Ok(Self::in_folder(tempfile::tempdir()?))
    }

    fn in_folder(folder: TempDir) -> Self {
        let (disk, image) = (
            folder.path().join("disk.raw"),
            folder.path().join("image.vhdx"),
        );
        Self {
            disk,
            image,
            folder,
        }
    }

    fn with_disk(size: u64, pattern: Pattern) -> Result<Self> {
        let desk = Self::new()?;
        DiskBuilder::filled(size, pattern, size).build(&desk.disk)?;
        Ok(desk)
    }

    fn with_image(size: u64) -> Result<Self> {
        let desk = Self::with_disk(size, Pattern::Dense)?;
        desk.export()?.expect_code(0)?;
        Ok(desk)
    }

    fn export(&self) -> Result<Invocation> {
        ce_agent([
            "export",
            text(&self.disk)?,
            "--to",
            text(&self.image)?,
            "--json",
        ])
    }

    fn fails_with(&self, what: &'static str) -> Result<(String, String)> {
        failed(&self.export()?.run()?).context(what)
    }

    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.folder.path())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Nothing but the source, if even that, stands in the folder.
    fn left_nothing(&self) -> Result<()> {
        let mut names = self.names()?;
        names.retain(|name| name != "disk.raw" && name != "ce-agent");
        ensure!(names.is_empty(), "left behind: {names:?}");
        Ok(())
    }
}

/// Code and message of a run that failed in good order: an exit code of the contract, a job that
/// says `failed`, no panic.
fn failed(run: &Finished) -> Result<(String, String)> {
    let code = run.status.code();
    ensure!(
        matches!(code, Some(1..=3)),
        "{} instead of a failure\n{}{}",
        run.status,
        run.stdout,
        run.stderr
    );
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let job = run.job()?;
    ensure!(job["status"] == "failed", "{job}");
    let (code, message) = run.error()?;
    ensure!(
        code != "Internal",
        "an internal error instead of a reason: {message}"
    );
    Ok((code, message))
}

/// The same call by a user who may not override file permissions.
fn as_ordinary_user(desk: &Desk, call: Invocation) -> Result<Invocation> {
    if !rustix::process::geteuid().is_root() {
        return Ok(call);
    }
    // The build folder may be closed to that user, the desk is not.
    let copy = desk.folder.path().join("ce-agent");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
    fs::set_permissions(desk.folder.path(), Permissions::from_mode(0o777))?;
    let setpriv = SETPRIV.path()?;
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let wrapper = [setpriv.into_os_string()]
        .into_iter()
        .chain(nobody.map(OsString::from));
    Ok(call.from_copy(copy).below(wrapper))
}

fn wait_for_output(desk: &Desk) -> Result<()> {
    let begin = Instant::now();
    while desk.names()?.len() < 2 {
        ensure!(
            begin.elapsed() < Duration::from_secs(20),
            "no output appeared"
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until the output has `length` bytes or the final name is there.
fn wait_for_length(desk: &Desk, length: u64) -> Result<()> {
    let begin = Instant::now();
    let partial = desk.folder.path().join("image.vhdx.partial");
    let so_far = || fs::metadata(&partial).map_or(0, |found| found.len());
    while so_far() < length && !desk.image.exists() {
        ensure!(
            begin.elapsed() < Duration::from_secs(20),
            "the output did not grow to {length} bytes"
        );
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// Turns a dynamic VHDX into a differencing one: the flag of MS-VHDX 2.6.2.1 and the parent locator
/// of 2.6.2.6, with the one key a reader needs to name the parent.
fn make_differencing(path: &Path, parent: &str) -> Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let regions = bytes_at(&file, 192 << 10, 16 + 2 * 32)?;
    let metadata_guid = guid(0x8B7C_A206_4790_4B9A_B8FE_575F_050F_886E);
    let region = regions[16..]
        .chunks(32)
        .find(|entry| entry[..16] == metadata_guid)
        .context("no metadata region")?;
    let region = u64::from_le_bytes(region[16..24].try_into()?);

    let count = u16::from_le_bytes(bytes_at(&file, region + 10, 2)?.as_slice().try_into()?);
    let parameters_guid = guid(0xCAA1_6737_FA36_4D43_B3B6_33F0_AA44_E76B);
    for number in 0..u64::from(count) {
        let entry = bytes_at(&file, region + 32 + 32 * number, 32)?;
        if entry[..16] == parameters_guid {
            let offset = u64::from(u32::from_le_bytes(entry[16..20].try_into()?));
            // Flags follow the block size; bit 1 is HasParent.
            file.write_all_at(&[2, 0, 0, 0], region + offset + 4)?;
        }
    }

    let wide = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<u8>>()
    };
    let (key, value) = (wide("relative_path"), wide(parent));
    let mut locator = guid(0xB04A_EFB7_D19E_4A81_B789_25B8_E944_5913).to_vec();
    locator.extend([0, 0, 1, 0]);
    let key_offset = 20 + 12;
    locator.extend(u32::to_le_bytes(key_offset));
    locator.extend(u32::to_le_bytes(key_offset + u32::try_from(key.len())?));
    locator.extend(u16::to_le_bytes(u16::try_from(key.len())?));
    locator.extend(u16::to_le_bytes(u16::try_from(value.len())?));
    locator.extend(key);
    locator.extend(value);

    let place = 512_u32 << 10;
    file.write_all_at(&locator, region + u64::from(place))?;
    let mut entry = guid(0xA8D3_5F2D_B30B_454D_ABF7_D3D8_4834_AB0C).to_vec();
    entry.extend(place.to_le_bytes());
    entry.extend(u32::try_from(locator.len())?.to_le_bytes());
    // IsRequired alone: a parent locator is neither the user's nor the virtual disk's.
    entry.extend([4, 0, 0, 0, 0, 0, 0, 0]);
    file.write_all_at(&entry, region + 32 + 32 * u64::from(count))?;
    file.write_all_at(&(count + 1).to_le_bytes(), region + 10)?;
    Ok(())
}

fn bytes_at(file: &File, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn guid(value: u128) -> [u8; 16] {
    uuid::Uuid::from_u128(value).to_bytes_le()
}
