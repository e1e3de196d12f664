//! `acms storage-point`: one storage point of a cluster.

use std::process::ExitCode;

/// Arguments of `acms storage-point`.
#[derive(clap::Args, Debug)]
pub struct Args {}

/// Runs until it is stopped.
pub fn run(_args: Args) -> ExitCode {
    eprintln!("acms storage-point: not part of this build");
    ExitCode::from(2)
}
