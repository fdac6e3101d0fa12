//! Writes the manual pages and the completions of shells for `ce-agent` into a folder:
//! `cargo run -p ce-agent --example pages -- FOLDER`.
//!
//! They are made of the command line's own definition, so that they can't say anything else.

use std::path::PathBuf;
use std::{env, fs, io};

use ce_agent::cli::Cli;
use clap::CommandFactory;
use clap_complete::{Shell, generate_to};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("expected a folder"))?;
    fs::create_dir_all(&folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut Cli::command(), "ce-agent", &folder)?;
    }
    clap_mangen::generate_to(Cli::command(), &folder)
}
