//! The `acms` commands.
//!
//! Exit codes: 0 done (accepted, found), 1 rejected or not found, 2 wrong usage or no storage point can be reached,
//! 3 undetermined.

pub mod receive;
pub mod storage_point;

use clap::{Parser, Subcommand};
use std::{ffi::OsString, io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// ACMS: replicates, agrees on and delivers configuration files.
#[derive(Parser, Debug)]
#[command(name = "acms", version, propagate_version = true)]
struct Cli {
    /// Print one JSON object per line instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// How the log on standard error looks; ACMS_LOG chooses what it says (error, warn, info, debug, module=level).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "ACMS_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run one storage point.
    StoragePoint(storage_point::Args),
    /// Keep a directory equal to the latest agreed publications.
    Receive(receive::Args),
}

/// The `acms` binary.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

/// `acms` with these arguments, the program's name first: for programs that contain it and run themselves again as it.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let _ = cli.json;
    log_to_stderr(cli.log_format);
    match cli.command {
        Command::StoragePoint(args) => storage_point::run(args),
        Command::Receive(args) => receive::run(args),
    }
}

/// Sends the log to standard error, at the levels that `ACMS_LOG` names (default: `info`). Only the first call counts.
pub fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_env("ACMS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let builder = builder.with_ansi(std::io::stderr().is_terminal());
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
