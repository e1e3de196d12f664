//! Scenarios: read, and run in this process with children of this interpreter.

use crate::{blocking::undoable, command::acms_of_this_interpreter, error::exception};
use acms_testbed::{
    backend::Stop,
    progress::Progress,
    run::{RunError, RunOptions, run},
    scenario::Scenario,
};
use pyo3::{exceptions::PyKeyboardInterrupt, prelude::*};
use std::path::PathBuf;

/// The scenario as TOML, with defaults and settings.
#[pyfunction]
pub(crate) fn resolve_scenario(py: Python<'_>, source: &str, settings: Vec<(String, String)>) -> PyResult<String> {
    Ok(load(py, source, &settings)?.to_toml())
}

/// Ends a run early, from any thread.
#[pyclass(module = "acms._acms", frozen)]
#[derive(Default)]
pub(crate) struct RawStop(Stop);

#[pymethods]
impl RawStop {
    #[new]
    fn new() -> RawStop {
        RawStop::default()
    }

    fn request(&self) {
        self.0.request();
    }
}

/// Runs a scenario to its end, or until `stop` is requested, and returns the directory of its results.
#[pyfunction]
pub(crate) fn run_scenario(
    py: Python<'_>,
    source: &str,
    settings: Vec<(String, String)>,
    out: Option<PathBuf>,
    progress: bool,
    stop: &RawStop,
) -> PyResult<PathBuf> {
    let scenario = load(py, source, &settings)?;
    let stop = stop.0.clone();
    let options = RunOptions {
        out,
        progress: if progress { Progress::on_stderr() } else { Progress::silent() },
        stop: stop.clone(),
        ..RunOptions::new(acms_of_this_interpreter(py)?)
    };
    match undoable(py, move || run(&scenario, options), move || stop.request())? {
        Ok(finished) => Ok(finished.dir),
        Err(RunError::Interrupted) => Err(PyKeyboardInterrupt::new_err(())),
        Err(error) => Err(exception(py, "RunFailed", (error.to_string(),))),
    }
}

fn load(py: Python<'_>, source: &str, settings: &[(String, String)]) -> PyResult<Scenario> {
    Scenario::load(source, settings).map_err(|error| exception(py, "ScenarioError", (error.to_string(),)))
}
