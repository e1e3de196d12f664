//! The command lines `acms` and `acms-testbed`, run by this process.

use acms_testbed::system::Program;
use pyo3::prelude::*;
use std::{ffi::OsString, process::ExitCode};

/// Runs the command `acms` and returns its exit code.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<u8> {
    let program = acms_of_this_interpreter(py)?;
    command(py, || acms_engine::cli::run_as(program.command, arguments))
}

/// Runs the command `acms-testbed` and returns its exit code.
#[pyfunction]
pub(crate) fn testbed_main(py: Python<'_>, arguments: Vec<OsString>) -> PyResult<u8> {
    let program = acms_of_this_interpreter(py)?;
    command(py, || acms_testbed::cli::run_with(arguments, program))
}

/// How children are started: `python -m acms`.
pub(crate) fn acms_of_this_interpreter(py: Python<'_>) -> PyResult<Program> {
    let interpreter = py.import("sys")?.getattr("executable")?.extract::<OsString>()?;
    // -P: a directory named acms where the program happens to run is not the package.
    Ok(Program { command: vec![interpreter, "-P".into(), "-m".into(), "acms".into()] })
}

fn command(py: Python<'_>, run: impl FnOnce() -> ExitCode + Send) -> PyResult<u8> {
    // Python's own handler of Ctrl-C only takes a note that nobody would read.
    let signal = py.import("_signal")?;
    signal.call_method1("signal", (signal.getattr("SIGINT")?, signal.getattr("SIG_DFL")?))?;
    let code = py.detach(run);
    Ok((0..u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap_or(u8::MAX))
}
