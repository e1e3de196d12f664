//! The `acms-testbed` binary; called as `acms-testbed acms ...` it is `acms` itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    acms_testbed::cli::main()
}
