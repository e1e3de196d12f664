//! `acms receive`: keeps a directory equal to the latest agreed publications of what it subscribes to.

use std::process::ExitCode;

/// Arguments of `acms receive`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs until it is stopped.
pub fn run(_args: Args) -> ExitCode {
    eprintln!("acms receive: not part of this build");
    ExitCode::from(2)
}
