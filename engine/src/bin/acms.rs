//! The `acms` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    acms_engine::cli::main()
}
