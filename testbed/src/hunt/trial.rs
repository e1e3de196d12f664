//! One scenario, run in virtual time and judged.

use crate::{
    backend::BackendError,
    judge::{Judge, Verdict},
    scenario::Scenario,
    trace::{Event, Kind, Sink, Trace},
};
use serde::{Deserialize, Serialize};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

/// A broken promise, or a broken invariant of the engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Violation {
    /// `P1` to `P8`, `alive`, or `panic`.
    pub check: String,
    /// The events that contradict it, or what the engine said.
    pub text: String,
}

/// What there was in a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Outcomes of attempts at publishing.
    pub outcomes: BTreeMap<String, u64>,
    /// Events of the trace.
    pub events: u64,
    /// Virtual time of the last event, in nanoseconds.
    pub end_ns: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What went wrong, the first of each check; empty if nothing did.
    pub violations: Vec<Violation>,
    /// Names the trace; empty if it came to no end.
    pub trace_hash: String,
    /// What there was in it.
    pub tally: Tally,
}

impl Sink for Tally {
    fn record(&mut self, event: Event) {
        self.events += 1;
        self.end_ns = event.time_ns;
        let counts = match event.kind {
            Kind::Fault => &mut self.faults,
            Kind::Outcome => &mut self.outcomes,
            _ => return,
        };
        if let Some(name) = event.outcome {
            *counts.entry(name.to_string()).or_default() += 1;
        }
    }
}

/// What brings a scenario about: the simulated backend, or in tests something simpler.
pub type Backend = dyn Fn(&Scenario, &mut dyn Sink) -> Result<(), BackendError> + Sync;

/// Runs `scenario` and judges it. A panic of the engine is a violation like any other.
pub fn trial(scenario: &Scenario, backend: &Backend) -> Result<Trial, BackendError> {
    judged(scenario, backend, &mut Nothing)
}

/// The same, and all events.
pub fn recorded(scenario: &Scenario, backend: &Backend) -> Result<(Trial, Trace), BackendError> {
    let mut trace = Trace::default();
    let trial = judged(scenario, backend, &mut trace)?;
    Ok((trial, trace))
}

struct Nothing;

impl Sink for Nothing {
    fn record(&mut self, _event: Event) {}
}

fn judged(scenario: &Scenario, backend: &Backend, also: &mut dyn Sink) -> Result<Trial, BackendError> {
    let mut tally = Tally::default();
    let mut judge = Judge::new().replayed_by(command(scenario));
    let ran = catching(|| backend(scenario, &mut ((&mut judge, &mut tally), also)));
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(error),
        Err(text) => {
            let violations = vec![Violation { check: "panic".to_owned(), text }];
            return Ok(Trial { violations, trace_hash: String::new(), tally });
        }
    }
    match catching(|| judge.finish()) {
        Ok(verdict) => Ok(Trial { violations: violations(&verdict), trace_hash: verdict.hash.to_string(), tally }),
        Err(text) => {
            let violations = vec![Violation { check: "panic".to_owned(), text }];
            Ok(Trial { violations, trace_hash: String::new(), tally })
        }
    }
}

/// The command that runs the seed again: not the bundle's, so that a violation's text does not depend on where that
/// lies.
fn command(scenario: &Scenario) -> String {
    let Scenario { name, seed, .. } = scenario;
    match name.strip_suffix(&format!("-{seed}")) {
        Some(hunt) => format!("acms-testbed hunt {hunt} --seeds {seed}"),
        None => format!("acms-testbed run {name} --backend simulated --seed {seed}"),
    }
}

/// A check that had nothing to look at is no failure here: not every seed has everything.
fn violations(verdict: &Verdict) -> Vec<Violation> {
    let failed = verdict.checks.iter().filter(|check| !check.held && !check.not_exercised());
    failed
        .map(|check| Violation {
            check: check.name.to_owned(),
            text: check.violations.first().cloned().unwrap_or_default(),
        })
        .collect()
}

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `work`; `Err` is what a panic in it said, and where. Such a panic is not printed.
fn catching<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if INSIDE.get() {
                SAID.set(Some(panic.to_string()));
            } else {
                usual(panic);
            }
        }));
    });
    INSIDE.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(false);
    result.map_err(|_| SAID.take().unwrap_or_else(|| "a panic that said nothing".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_violation_that_says_where() {
        let said = catching(|| -> u32 { panic!("broken {}", 7) }).unwrap_err();
        assert!(said.contains("broken 7") && said.contains("trial.rs"), "{said}");
        assert_eq!(catching(|| 3), Ok(3));
    }
}
