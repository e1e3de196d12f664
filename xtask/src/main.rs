//! The commands that people and CI run: `cargo xtask demo | test | lint | bench | fuzz`.
//!
//! What a command needs and does not find is installed from the package registries into the workspace (`target/tools`,
//! `.venv`). What only the distribution has goes into the system, by root alone and with apt-get: nginx and Varnish, which
//! tests of caches need and whose daemons are not started, and Python or its venv module. Others are told what is missing.
//! Each step prints its time, and a failed one how to repeat it.

mod commands;
mod fuzz;
mod python;
mod step;
mod system;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The commands that people and CI run.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything and publish real files to a fleet on this machine while a storage point is killed.
    Demo {
        /// Passed on to `acms-testbed run quickstart`, for example `--set workload.tree=DIR`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run all tests: of the Rust crates, of the checkers by broken builds, of the Python package.
    Test {
        /// Only these parts.
        #[arg(long, value_enum)]
        only: Vec<commands::Part>,
    },
    /// Check format, lints, documentation, dependencies, and the Python code.
    Lint,
    /// Run the benchmarks; bench/README.md says what they measure.
    Bench {
        /// Passed on to the criterion benches, for example the name of one.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the fuzz targets of engine/fuzz, from their saved corpora, and print what they covered.
    Fuzz {
        /// Only this one.
        target: Option<String>,
        /// Of each target.
        #[arg(long, default_value_t = 10_000_000)]
        executions: u64,
        /// Minimise and save the corpora afterwards
        #[arg(long)]
        save: bool,
    },
}

fn main() -> ExitCode {
    let steps = step::Steps::new();
    let done = match Arguments::parse().command {
        Command::Demo { arguments } => commands::demo(&steps, &arguments),
        Command::Test { only } => commands::test(&steps, &only),
        Command::Lint => commands::lint(&steps),
        Command::Bench { arguments } => commands::bench(&steps, &arguments),
        Command::Fuzz { target, executions, save } => fuzz::run(&steps, target.as_deref(), executions, save),
    };
    steps.print_summary();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\n{failure}");
            ExitCode::FAILURE
        }
    }
}
