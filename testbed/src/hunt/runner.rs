//! Runs seeds on several threads, and shrinks what fails.

use super::{
    bundle::{self, About, BundleError},
    draw::draw,
    mutants::choose_mutant,
    shrink::{Budget, shrink},
    table::{Failure, Report},
    trial::{Backend, Tally, Trial, Violation, trial, trial_again_by, unexercised},
};
use crate::{
    backend::{BackendError, Stop},
    faults::FaultKind,
    progress::Progress,
    scenario::{BackendName, Scenario, ScenarioError},
    trace::now_ns,
};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
};

/// How a hunt goes.
#[derive(Clone, Debug)]
pub struct HuntOptions {
    /// Which seeds.
    pub seeds: Range<u64>,
    /// How many run at once.
    pub jobs: usize,
    /// Where bundles go, one directory for each failing seed.
    pub out: PathBuf,
    /// Goes on after a failing seed.
    pub keep_going: bool,
    /// The command line of this hunt, without its seeds: what is to be typed to see a seed again.
    pub command: String,
    /// The deliberate defect of the engine; only in builds that have them.
    pub mutant: Option<String>,
    /// How much effort shrinking a seed may take.
    pub budget: Budget,
    /// Where people see how it goes.
    pub progress: Progress,
    /// Ends it early.
    pub stop: Stop,
}

/// Why there was no hunt, or why it ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HuntError {
    /// A seed could not be run.
    #[error("seed {seed}: {error}")]
    Seed {
        /// Which.
        seed: u64,
        /// Why.
        error: BackendError,
    },
    /// A bundle could not be written.
    #[error("seed {seed}: its bundle could not be written: {error}")]
    Bundle {
        /// Which.
        seed: u64,
        /// Why.
        error: BundleError,
    },
    /// What is hunted on cannot be simulated.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// There is no such mutant here.
    #[error("{0}")]
    Mutant(String),
}

/// What became of a seed.
struct Done {
    scenario: Scenario,
    tally: Tally,
    trace_hash: String,
    failure: Option<Failure>,
}

/// Runs the seeds. A scenario with bounds (`[hunt]`) is drawn from for each; of any other only the seed changes.
pub fn hunt(scenario: &Scenario, options: &HuntOptions, backend: &Backend) -> Result<Report, HuntError> {
    choose_mutant(options.mutant.as_deref())?;
    let mut base = scenario.clone();
    base.backend = BackendName::Simulated;
    base.validate()?;
    let Range { start, end } = options.seeds;
    let kinds: &[FaultKind] = base.hunt.as_ref().map_or(&[], |bounds| &bounds.fault_kinds);
    let mut report = Report::new(&base.name, options.mutant.as_deref(), (start, end), kinds);
    let begun_ns = now_ns();
    let total = end.saturating_sub(start);
    options.progress.phase(&format!("hunting {}: seeds {start}..{end}", base.name));
    let (next, is_over) = (AtomicU64::new(start), AtomicBool::new(false));
    let mut error = None;
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..options.jobs.max(1) {
            let (send, base, next, is_over) = (send.clone(), &base, &next, &is_over);
            scope.spawn(move || work(base, options, backend, next, is_over, &send));
        }
        drop(send);
        for done in receive {
            match done {
                Ok(done) => take(&mut report, done, options),
                Err(problem) => {
                    is_over.store(true, Ordering::Relaxed);
                    error.get_or_insert(problem);
                }
            }
            options.progress.at(report.done, total, "seeds");
        }
    });
    options.progress.finish();
    report.interrupted = options.stop.is_requested();
    report.finish((now_ns() - begun_ns) as f64 / 1e9);
    error.map_or(Ok(report), Err)
}

fn take(report: &mut Report, done: Done, options: &HuntOptions) {
    report.add(&done.scenario, &done.tally, done.trace_hash);
    if let Some(failure) = done.failure {
        let Failure { seed, violation, faults, publications, bundle, .. } = &failure;
        let replay = bundle.as_ref().map_or(String::new(), |bundle| {
            format!("\n  {faults} faults, {publications} publications: acms-testbed replay {}", bundle.display())
        });
        options.progress.note(&format!("seed {seed}: {}: {}{replay}", violation.check, violation.text));
        report.failures.push(failure);
    }
}

/// One thread: takes seeds until there are none.
fn work(
    base: &Scenario,
    options: &HuntOptions,
    backend: &Backend,
    next: &AtomicU64,
    is_over: &AtomicBool,
    send: &mpsc::Sender<Result<Done, HuntError>>,
) {
    if let Err(error) = choose_mutant(options.mutant.as_deref()) {
        let _ = send.send(Err(error));
        return;
    }
    while !is_over.load(Ordering::Relaxed) && !options.stop.is_requested() {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= options.seeds.end {
            return;
        }
        let done = one(base, seed, options, backend);
        let ends = done.as_ref().map_or(true, |done| done.failure.is_some() && !options.keep_going);
        if ends {
            is_over.store(true, Ordering::Relaxed);
        }
        if send.send(done).is_err() {
            return;
        }
    }
}

fn one(base: &Scenario, seed: u64, options: &HuntOptions, backend: &Backend) -> Result<Done, HuntError> {
    let scenario = match &base.hunt {
        Some(bounds) => draw(&base.name, bounds, seed),
        None => Scenario { seed, ..base.clone() },
    };
    let again = format!("{} --seeds {seed}", options.command);
    let tried = trial_again_by(&scenario, backend, &again).map_err(|error| HuntError::Seed { seed, error })?;
    let Trial { mut violations, tally, trace_hash } = tried;
    // A drawn run has everything; a defect may keep it from showing that.
    let must_show = base.hunt.is_some() && options.mutant.is_none();
    violations.extend(Some(&tally).filter(|_| must_show).and_then(|tally| unexercised(scenario.refine, tally)));
    let is_own_fault = || honest_fails(&scenario, options, backend);
    let Some(violation) = violations.first().cloned().filter(|_| options.mutant.is_none() || !is_own_fault()) else {
        return Ok(Done { scenario, tally, trace_hash, failure: None });
    };
    let mut checks: Vec<String> = violations.into_iter().map(|violation| violation.check).collect();
    checks.dedup();
    let mut failure = Failure {
        seed,
        violation,
        checks,
        again,
        bundle: None,
        faults: scenario.faults.len(),
        publications: scenario.workload.publications.len(),
    };
    if !options.stop.is_requested() {
        reduce(base, &scenario, &mut failure, options, backend)?;
    }
    Ok(Done { scenario, tally, trace_hash, failure: Some(failure) })
}

/// Whether the engine without the mutant fails, too: then the mutant is not what was caught.
fn honest_fails(scenario: &Scenario, options: &HuntOptions, backend: &Backend) -> bool {
    let honest = choose_mutant(None).ok().and_then(|()| trial(scenario, backend).ok());
    // It was there when the hunt began.
    let _ = choose_mutant(options.mutant.as_deref());
    honest.is_none_or(|honest| !honest.violations.is_empty())
}

/// Shrinks a failing scenario, as long as it fails in the same way and only with the mutant, and writes the bundle.
fn reduce(
    base: &Scenario,
    scenario: &Scenario,
    failure: &mut Failure,
    options: &HuntOptions,
    backend: &Backend,
) -> Result<(), HuntError> {
    let wanted = failure.violation.clone();
    let mut fails = |candidate: &Scenario| -> Option<Violation> {
        if options.stop.is_requested() {
            return None;
        }
        let found = trial(candidate, backend).ok()?.violations;
        let found = found.into_iter().find(|violation| violation.is_like(&wanted))?;
        // On the way to something small it must not become the honest engine's failure.
        (options.mutant.is_none() || !honest_fails(candidate, options, backend)).then_some(found)
    };
    // What shows nothing would shrink to nothing.
    let budget = if wanted.check == "exercised" { Budget { runs: 0, ..options.budget } } else { options.budget };
    let shrunk = shrink(scenario, wanted.clone(), budget, &mut fails);
    let mut about = About::new(&base.name, failure.seed, options.mutant.as_deref(), shrunk.violation);
    (about.shrink_runs, about.is_minimal) = (shrunk.runs, shrunk.is_minimal);
    let dir = options.out.join(directory(&scenario.name, failure.seed, options.mutant.as_deref()));
    let bundle = bundle::write(&dir, &shrunk.scenario, scenario, about, backend)
        .map_err(|error| HuntError::Bundle { seed: failure.seed, error })?;
    (failure.faults, failure.publications) = (bundle.about.faults, bundle.about.publications);
    failure.bundle = Some(dir);
    Ok(())
}

fn directory(name: &str, seed: u64, mutant: Option<&str>) -> PathBuf {
    let with_seed = if name.ends_with(&format!("-{seed}")) { name.to_owned() } else { format!("{name}-{seed}") };
    Path::new(&mutant.map_or(with_seed.clone(), |mutant| format!("{mutant}-{with_seed}"))).to_owned()
}
