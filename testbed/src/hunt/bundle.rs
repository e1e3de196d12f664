//! A failing run in a directory: what was run, how it failed, and all its events.
//!
//! `scenario.toml` runs again (by `replay`, or by `run`); `bundle.json` says what to expect of it; `drawn.toml` is what
//! the seed drew before it was shrunk; `events.arrow` is the trace, if the run came to its end.

use super::trial::{Backend, Trial, Violation, recorded};
use crate::{
    backend::BackendError,
    report::commit,
    scenario::{Scenario, ScenarioError},
    trace::{self, TraceFileError},
};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Number of the form of `bundle.json`; additions do not change it.
const SCHEMA: u32 = 1;

/// What a bundle says about its scenario.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct About {
    /// Number of this form.
    pub schema: u32,
    /// Which hunt found it.
    pub hunt: String,
    /// The seed that drew it.
    pub seed: u64,
    /// Of the source, if known.
    pub commit: String,
    /// Of the testbed.
    pub version: String,
    /// The deliberate defect of the engine, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// How it failed.
    pub violation: Violation,
    /// Names the trace.
    pub trace_hash: String,
    /// Faults of the shrunk scenario.
    pub faults: usize,
    /// Publications of the shrunk scenario.
    pub publications: usize,
    /// Runs that shrinking took.
    pub shrink_runs: u32,
    /// Whether nothing more could be left out; else the budget ended first.
    pub is_minimal: bool,
}

/// A failing run.
#[derive(Clone, PartialEq, Debug)]
pub struct Bundle {
    /// What was run.
    pub scenario: Scenario,
    /// How it failed.
    pub about: About,
}

/// Why a bundle could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A file could not be written or read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `bundle.json` is none.
    #[error("{path}: not a bundle: {source}")]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// Its scenario cannot be used.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The trace could not be written.
    #[error(transparent)]
    Trace(#[from] TraceFileError),
    /// The last run of what was shrunk could not be made.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path, source }
}

impl About {
    /// Of a violation that `hunt` found with `seed`; what the run came to follows.
    pub fn new(hunt: &str, seed: u64, mutant: Option<&str>, violation: Violation) -> About {
        About {
            schema: SCHEMA,
            hunt: hunt.to_owned(),
            seed,
            commit: commit(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mutant: mutant.map(str::to_owned),
            violation,
            trace_hash: String::new(),
            faults: 0,
            publications: 0,
            shrink_runs: 0,
            is_minimal: false,
        }
    }
}

/// Runs `scenario` once more and writes all there is to know about it into `dir`.
pub fn write(
    dir: &Path,
    scenario: &Scenario,
    drawn: &Scenario,
    mut about: About,
    backend: &Backend,
) -> Result<Bundle, BundleError> {
    fs::create_dir_all(dir).map_err(io_error(dir))?;
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(io_error(&path))
    };
    let (trial, trace) = recorded(scenario, backend, &format!("acms-testbed replay {}", dir.display()))?;
    about.trace_hash.clone_from(&trial.trace_hash);
    about.faults = scenario.faults.len();
    about.publications = scenario.workload.publications.len();
    // As this last run tells it, with the command that sees it again.
    if let Some(violation) = trial.violations.iter().find(|violation| violation.told() == about.violation.told()) {
        about.violation = violation.clone();
    }
    file("scenario.toml", scenario.to_toml())?;
    file("drawn.toml", drawn.to_toml())?;
    trace::write(&trace, &dir.join("events.arrow"))?;
    let json = serde_json::to_string_pretty(&about).expect("a bundle has only texts as keys");
    // Last: a directory without it is no bundle.
    file("bundle.json", json + "\n")?;
    Ok(Bundle { scenario: scenario.clone(), about })
}

/// Reads the bundle in `dir`; a path to its `bundle.json` does as well.
pub fn read(dir: &Path) -> Result<Bundle, BundleError> {
    let dir = if dir.is_file() { dir.parent().unwrap_or(dir) } else { dir };
    let path = dir.join("bundle.json");
    let json = fs::read(&path).map_err(io_error(&path))?;
    let about: About = serde_json::from_slice(&json).map_err(|source| BundleError::Json { path, source })?;
    let path = dir.join("scenario.toml");
    let text = fs::read_to_string(&path).map_err(io_error(&path))?;
    let scenario = Scenario::parse(&path.display().to_string(), &text, &[])?;
    Ok(Bundle { scenario, about })
}

/// What came of running a bundle again.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The run.
    pub trial: Trial,
    /// Whether it is the same trace.
    pub same_trace: bool,
    /// Whether the same check failed with the same words.
    pub same_violation: bool,
}

/// Whether two violations say the same, wherever their bundles lie.
pub fn is_same(one: &Violation, other: &Violation) -> bool {
    one.check == other.check && one.told() == other.told()
}

/// Whether a bundle was written by a build of another commit than this one, which may behave otherwise.
pub fn is_of_another_commit(about: &About) -> bool {
    about.commit != commit()
}

/// Runs a bundle again.
pub fn replay(bundle: &Bundle, backend: &Backend) -> Result<Replayed, BackendError> {
    let trial = super::trial::trial(&bundle.scenario, backend)?;
    let same_trace = trial.trace_hash == bundle.about.trace_hash;
    let same_violation = trial.violations.iter().any(|violation| is_same(violation, &bundle.about.violation));
    Ok(Replayed { trial, same_trace, same_violation })
}
