//! With a folder and a raw file of the real world.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::block::{BlockError, RawFile, Writable};
use crate::scratch::{ScratchFolder, ScratchFolderError};

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("disk.raw"), old_content()).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn disk(&self) -> Writable<RawFile> {
        RawFile::open_writable(&self.path("disk.raw"), None).unwrap()
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(ScratchFolder::open(&self.path("state/scratch")).unwrap())
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.path("disk.raw")).unwrap()
    }

    fn left(&self) -> Vec<String> {
        self.scratch().names().unwrap()
    }
}

fn write_edits(disk: &impl BlockWrite) {
    for (offset, bytes) in edits() {
        disk.write_at(ByteOffset(offset as u64), &bytes).unwrap();
    }
}

#[test]
fn a_raw_file_is_changed_by_a_commit_and_by_nothing_before_it() {
    let files = Files::new();
    let transaction = Transaction::begin(files.disk(), files.scratch(), None).unwrap();
    write_edits(transaction.disk());
    assert_eq!(files.content(), old_content());
    // The changes are in a file that has no name.
    assert_eq!(files.left(), ["lock"]);
    transaction
        .commit(&Cancel::default(), &Progress::default())
        .unwrap();
    assert_eq!(files.content(), new_content());
    assert_eq!(files.left(), ["lock"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&files.path("state/scratch")), 0o700);
    assert_eq!(mode(&files.path("state/scratch/lock")), 0o600);
}

#[test]
fn a_file_that_somebody_else_has_written_to_is_not_committed_to() {
    let files = Files::new();
    let transaction = Transaction::begin(files.disk(), files.scratch(), None).unwrap();
    write_edits(transaction.disk());
    let mut theirs = old_content();
    theirs[70_000] ^= 1;
    fs::write(files.path("disk.raw"), &theirs).unwrap();
    let error = transaction
        .commit(&Cancel::default(), &Progress::default())
        .unwrap_err();
    assert!(
        matches!(error, CommitError::Disk(BlockError::Touched { .. })),
        "{error}"
    );
    assert_eq!(files.content(), theirs);
    assert_eq!(files.left(), ["lock"]);
}

#[test]
fn a_scratch_that_others_can_write_to_is_refused() {
    let files = Files::new();
    let open = files.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let error = ScratchFolder::open(&open).unwrap_err();
    assert!(
        matches!(error, ScratchFolderError::NotOwn { .. }),
        "{error}"
    );
    let error = ScratchFolder::open_existing(&files.path("none")).unwrap_err();
    assert!(matches!(error, ScratchFolderError::Io { .. }), "{error}");
    let error = ScratchFolder::open(&files.path("disk.raw")).unwrap_err();
    assert!(matches!(error, ScratchFolderError::Io { .. }), "{error}");
}

#[test]
fn a_journal_that_somebody_else_can_have_put_there_is_not_read() {
    let files = Files::new();
    let scratch = files.scratch();
    let planted = files.path("state/scratch/planted.journal");
    let expect_refusal = |what: &str| {
        let error = Transaction::begin(files.disk(), Arc::clone(&scratch), None).unwrap_err();
        assert!(matches!(error, BeginError::Scratch(_)), "{what}: {error}");
        let recovery = Recovery::open(Arc::clone(&scratch)).unwrap();
        assert!(recovery.journals().is_err(), "{what}");
        drop(recovery);
        fs::remove_file(&planted).unwrap();
    };
    fs::write(&planted, "").unwrap();
    fs::set_permissions(&planted, fs::Permissions::from_mode(0o666)).unwrap();
    expect_refusal("writable by all");
    symlink(files.path("disk.raw"), &planted).unwrap();
    expect_refusal("a link");
    fs::hard_link(files.path("disk.raw"), &planted).unwrap();
    expect_refusal("a second name");
    fs::set_permissions(files.path("disk.raw"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(files.path("disk.raw"), &planted).unwrap();
    expect_refusal("a second name of an own file");
    assert_eq!(files.content(), old_content());
}

#[test]
fn two_runs_share_neither_scratch_nor_disk() {
    let files = Files::new();
    let first = Transaction::begin(files.disk(), files.scratch(), None).unwrap();
    let same_disk = RawFile::open_writable(&files.path("disk.raw"), None);
    assert!(same_disk.is_err());
    fs::write(files.path("other.raw"), old_content()).unwrap();
    let other = RawFile::open_writable(&files.path("other.raw"), None).unwrap();
    let error = Transaction::begin(other, files.scratch(), None).unwrap_err();
    assert!(matches!(error, BeginError::Busy { .. }), "{error}");
    drop(first);
    Transaction::begin(files.disk(), files.scratch(), None).unwrap();
}

#[test]
fn changes_have_half_of_the_room_and_no_more() {
    let files = Files::new();
    let scratch = files.scratch();
    let available = scratch.available().unwrap();
    let transaction = Transaction::begin(files.disk(), scratch, None).unwrap();
    let limit = transaction.disk().limit().0;
    // Others may write to the same file system.
    assert!(limit.abs_diff(available.0 / 2) < 1 << 30, "{limit}");
}
