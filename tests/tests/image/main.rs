//! "I start the image of the Compositing Engine beside a disk; it finds its Connector, does its job, and
//! switches itself off. Whatever is wrong, I read it on the console and at the Connector."
//!
//! The real image, built of the programs under test, in a machine that qemu emulates: nothing of the
//! host but its processor's time is used, no root and no KVM.

#[path = "../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
#[path = "../prepare/disk.rs"]
#[expect(dead_code, reason = "the rest serves the tests of prepare")]
mod guest_disk;
#[path = "../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;
#[path = "../connector/site.rs"]
#[expect(dead_code, reason = "the rest serves the tests of the Connector")]
mod site;

#[cfg(feature = "device")]
mod addresses;
mod built;
mod cloud;
mod configuration;
#[expect(dead_code, reason = "the rest serves the tests of the formats")]
mod machine;
mod refusals;
mod scratch;
mod work;
