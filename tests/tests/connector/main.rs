//! "I set up a small site with `ce-connector`, let agents in, give them work, and whatever breaks,
//! every job is done once and its result arrives." The real programs, over real TLS.

#[path = "../convert/disk.rs"]
#[expect(dead_code, reason = "the rest serves the tests of conversions")]
mod bios_disk;
#[path = "../convert/firmware.rs"]
#[expect(dead_code, reason = "the rest serves the tests of conversions")]
mod firmware;
#[path = "../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
#[path = "../prepare/disk.rs"]
#[expect(dead_code, reason = "the rest serves the tests of prepare")]
mod guest_disk;
#[path = "../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;

mod broken;
mod browser;
mod many;
mod page;
mod site;
mod strangers;
mod work;
