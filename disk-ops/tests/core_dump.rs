//! Secrets and core dumps; in a process of its own, as it can't be taken back.

use ce_disk::sink::smb::forbid_core_dumps;
use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

#[test]
fn a_process_can_forbid_dumps_of_its_memory() {
    forbid_core_dumps().unwrap();
    let behavior = dumpable_behavior().unwrap();
    assert!(matches!(behavior, DumpableBehavior::NotDumpable));
    let limit = getrlimit(Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
}
