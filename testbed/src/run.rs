//! A run from scenario to results on disk.

use crate::{
    backend::{
        Backend, BackendError, Context, Stop, docker::DockerBackend, local::LocalBackend, simulated::SimulatedBackend,
    },
    judge::{Judge, Verdict},
    metrics::hgrm,
    progress::Progress,
    report::{RunResult, page},
    results::{self, NotFree},
    scenario::{BackendName, Scenario},
    system::Program,
    trace::{Event, Sink, TraceFileError, TraceWriter},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// What a run needs beside its scenario.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where results go; by default `out/<name>-<time>`. It may have those of an earlier run, which are removed, and nothing
    /// else.
    pub out: Option<PathBuf>,
    /// How to start `acms`.
    pub program: Program,
    /// Where people see how it goes.
    pub progress: Progress,
    /// Ends the run early.
    pub stop: Stop,
    /// Keep the stores and directories of all hosts.
    pub keep: bool,
    /// Hosts of an emulated network whose packets are written to `<host>.pcap` among the results.
    pub pcap: Vec<String>,
}

impl RunOptions {
    /// A silent run.
    pub fn new(program: Program) -> RunOptions {
        RunOptions {
            out: None,
            program,
            progress: Progress::silent(),
            stop: Stop::new(),
            keep: false,
            pcap: Vec::new(),
        }
    }
}

/// A run that came to its end, whatever its checks say.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The results.
    pub result: RunResult,
    /// Where `result.json`, `events.arrow`, `*.hgrm` and `report.html` are.
    pub dir: PathBuf,
}

/// Why a scenario could not be run. Nothing that was started is left.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Someone asked for it.
    #[error("interrupted; everything that was started has been stopped")]
    Interrupted,
    /// Packets of a host were wanted that is not there.
    #[error("no packets of {0}: no host is called so (sp1.., cache1.., receiver1..)")]
    NoSuchHost(String),
    /// Results are to go where something else is.
    #[error(
        "{} has {}, which is no result of a run: give a directory of its own, as runs replace and remove what is there",
        .dir.display(), .has.display()
    )]
    NotFree {
        /// Where.
        dir: PathBuf,
        /// What is there.
        has: PathBuf,
    },
    /// It could not be started or carried on.
    #[error("{error}{}", .logs.as_ref().map_or(String::new(), |logs| format!("\nlogs of the processes are in {}", logs.display())))]
    Backend {
        /// Why.
        error: BackendError,
        /// Where the processes' logs were kept.
        logs: Option<PathBuf>,
    },
    /// Results could not be written.
    #[error("cannot write results to {path}: {source}")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The trace could not be written.
    #[error(transparent)]
    Trace(#[from] TraceFileError),
}

/// Runs `scenario`, judges its trace and writes the results.
pub fn run(scenario: &Scenario, options: RunOptions) -> Result<Finished, RunError> {
    let dir = options.out.unwrap_or_else(|| PathBuf::from("out").join(format!("{}-{}", scenario.name, stamp())));
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Write { path, source }
    };
    if let Some(stranger) = options.pcap.iter().find(|host| !scenario.hosts().contains(host)) {
        return Err(RunError::NoSuchHost(stranger.clone()));
    }
    results::make_free(&dir).map_err(|error| match error {
        NotFree::Has(has) => RunError::NotFree { dir: dir.clone(), has },
        NotFree::Io(source) => RunError::Write { path: dir.clone(), source },
    })?;
    let logs = dir.join(results::LOGS);
    let captures = options.pcap.into_iter().map(|host| (host.clone(), dir.join(format!("{host}.pcap"))));
    let context = Context {
        program: options.program,
        progress: options.progress.clone(),
        stop: options.stop,
        keep: options.keep,
        logs: Some(logs.clone()),
        captures: captures.collect(),
        linger: None,
    };
    let backend = backend(scenario.backend);
    let trace = dir.join(results::TRACE);
    let again = dir.join(results::SCENARIO);
    let judge = Judge::new().replayed_by(repeat(&again)).in_regions(scenario.region_names());
    let mut judged = Judged { judge, writer: TraceWriter::create(&trace)? };
    let notes = backend.run(scenario, &context, &mut judged).map_err(|error| {
        options.progress.finish();
        // A trace without its end is none.
        let _ = fs::remove_file(&trace);
        if matches!(error, BackendError::Interrupted) {
            let _ = results::remove(&dir);
            return RunError::Interrupted;
        }
        let logs = logs.is_dir().then_some(logs);
        RunError::Backend { error, logs }
    })?;
    options.progress.phase("judging");
    judged.writer.finish()?;
    let Verdict { checks, metrics, hash, .. } = judged.judge.finish();
    let result = RunResult::new(scenario, backend.name(), &metrics, checks, hash, notes);
    let file = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(write(&path))
    };
    file(results::SCENARIO, scenario.to_toml())?;
    for (name, histogram) in &metrics.histograms {
        file(&format!("{name}.hgrm"), hgrm(histogram))?;
    }
    file(results::PAGE, page(&result, &metrics, &scenario.to_toml(), &repeat(&again)))?;
    let json = serde_json::to_string_pretty(&result).expect("results have only texts as keys");
    file(results::LAST, json + "\n")?;
    options.progress.finish();
    Ok(Finished { result, dir })
}

/// The command that runs a scenario's file again.
fn repeat(scenario: &Path) -> String {
    format!("acms-testbed run {}", scenario.display())
}

/// Judges events and writes them down as they come.
struct Judged {
    judge: Judge,
    writer: TraceWriter,
}

impl Sink for Judged {
    fn record(&mut self, event: Event) {
        self.judge.observe(&event);
        self.writer.record(event);
    }
}

/// What runs scenarios under this name.
pub(crate) fn backend(name: BackendName) -> Box<dyn Backend> {
    match name {
        BackendName::Local => Box::new(LocalBackend),
        BackendName::Simulated => Box::new(SimulatedBackend),
        BackendName::Docker => Box::new(DockerBackend),
    }
}

/// Seconds since 1970: unique enough for a directory's name, and sorts by time.
pub(crate) fn stamp() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
