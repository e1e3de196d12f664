//! `acms storage-point`: one storage point of a cluster.

use super::{check, log, output::Output};
use crate::runtime::{
    config::{Overrides, StoragePointConfig},
    events::EventStream,
    process, storage_point,
};
use std::{path::PathBuf, process::ExitCode};

/// Arguments of `acms storage-point`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration file; `acms init` writes one for each storage point
    #[arg(long, env = "ACMS_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Do not run; say what is wrong with the configuration, the store and the addresses
    #[arg(long)]
    check: bool,
    /// With --check: also print each setting, and whether it is from the file, a variable, a flag, or a default
    #[arg(long, short, requires = "check")]
    verbose: bool,
    /// Write events as lines of JSON to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    events: Option<String>,
    /// End when the process that started this one ends
    #[arg(long)]
    exit_with_parent: bool,
    #[command(flatten)]
    overrides: Overrides,
}

/// Runs until it is stopped.
pub(super) fn run(args: Args, output: Output) -> ExitCode {
    if args.check {
        return check::run(&args.config, &args.overrides, args.verbose, output);
    }
    match try_run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acms storage-point: {error}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let config = StoragePointConfig::load(&args.config, &args.overrides)?;
    log::set_sp(config.me.0);
    if args.exit_with_parent {
        process::exit_with_parent()?;
    }
    let events = match &args.events {
        Some(target) => {
            EventStream::open(target).map_err(|error| format!("cannot write events to {target}: {error}"))?
        }
        None => EventStream::none(),
    };
    storage_point::run(config, events)?;
    Ok(())
}
