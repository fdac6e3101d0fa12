//! `ce-init`: process 1 of the Compositing Engine's image.
//!
//! ```text
//!  kernel --> mounts --> modules <-- uevents        a thread loads what the hardware asks for
//!                           |
//!                        network                    links up, DHCP kept alive, name servers
//!                           |
//!                         clock                     not before the image was built, then SNTP
//!                           |
//!                      ce-agent daemon              started, watched, restarted
//!                           |
//!                       power off                   dismissed, idle for too long, or given up
//! ```
//!
//! It does nothing to disks and knows nothing of jobs: what the agent does is told by the agent, with
//! the protocol of sd_notify(3). There is no shell, no login and no way in. Everything ends in power
//! off: also a panic, and a machine that hangs is reset by its watchdog.

use std::process::ExitCode;

use rustix::process::{Pid, Signal, getpid, kill_process};

mod agent;
mod clock;
mod command_line;
mod console;
mod filesystems;
mod machine;
mod modules;
mod network;
mod notice;
mod power;
mod power_button;
mod status;
mod supervisor;
mod uevent;
mod watchdog;

fn main() -> ExitCode {
    if getpid() == Pid::INIT {
        std::panic::set_hook(Box::new(|panic| power::after_panic(&panic.to_string())));
        let ending = machine::run();
        power::off(&ending);
    }
    // The kernel runs /sbin/poweroff when the hypervisor asks for it (orderly_poweroff), and so may
    // the agent.
    let name = std::env::args_os().next().unwrap_or_default();
    let is_power_off = std::path::Path::new(&name)
        .file_name()
        .is_some_and(|name| name == "poweroff" || name == "reboot");
    if !is_power_off {
        eprintln!(
            "error: ce-init is process 1 of the image of the Compositing Engine, and runs as nothing else"
        );
        return ExitCode::from(2);
    }
    match kill_process(Pid::INIT, Signal::TERM) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: process 1 can't be told: {error}");
            ExitCode::FAILURE
        }
    }
}
