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
//!
//! Under other names it is what the kernel runs: `modprobe` when it wants a module (for a file system, say),
//! `poweroff` and `reboot`.

use std::ffi::{OsStr, OsString};
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
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    match std::path::Path::new(&name)
        .file_name()
        .and_then(OsStr::to_str)
    {
        // When the hypervisor asks for it (orderly_poweroff of the kernel); and so may the agent.
        Some("poweroff" | "reboot") => ask_process_1(),
        Some("modprobe") => load_modules(arguments),
        _ => {
            eprintln!(
                "error: ce-init is process 1 of the image of the Compositing Engine, and runs as nothing else"
            );
            ExitCode::from(2)
        }
    }
}

fn ask_process_1() -> ExitCode {
    match kill_process(Pid::INIT, Signal::TERM) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: process 1 can't be told: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The kernel's words are `modprobe -q -- NAME`, and the name may be one that modules call themselves by
/// (`fs-ext4`). It asks for much that is not there, and takes no for an answer.
fn load_modules(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    let names = arguments.filter_map(|argument| argument.into_string().ok());
    let names: Vec<_> = names.filter(|name| !name.starts_with('-')).collect();
    let loaded = modules::Modules::read(&modules::folder_of(&release))
        .and_then(|mut modules| names.iter().try_for_each(|name| modules.load_as(name)));
    match loaded {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
