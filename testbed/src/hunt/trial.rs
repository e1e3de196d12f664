//! One scenario, run in virtual time and judged.

use crate::{
    backend::BackendError,
    checks::{CheckReport, REFINES, TOLD_BY_SOME},
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
    /// The name of a check, `panic`, or `exercised`: the run did not put to the proof what it should have.
    pub check: String,
    /// In which way, a colon, and the events that contradict it; or what the engine said.
    pub text: String,
}

impl Violation {
    /// The way in which it is broken: what two violations have in common that are one bug's. Of a panic it is where.
    pub fn class(&self) -> &str {
        let end = if self.check == "panic" { '\n' } else { ':' };
        self.text.split(end).next().unwrap_or_default()
    }

    /// Whether another is broken in the same way.
    pub fn is_like(&self, other: &Violation) -> bool {
        self.check == other.check && self.class() == other.class()
    }

    /// What it says, without how to see it again.
    pub fn told(&self) -> &str {
        self.text.rsplit_once(" (seed ").map_or(&self.text, |(told, _)| told)
    }
}

/// What a check had to look at in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Looked {
    /// How many events it judged.
    pub events: u64,
    /// Whether some or all was not judged, because the promise has a condition that the run did not meet.
    pub is_void: bool,
}

/// What there was in a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Faults that took effect, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Outcomes of attempts at publishing.
    pub outcomes: BTreeMap<String, u64>,
    /// What each check had to look at; empty if the run came to no end.
    #[serde(default)]
    pub checks: BTreeMap<String, Looked>,
    /// Events of the trace.
    pub events: u64,
    /// Virtual time of the last event, in nanoseconds.
    pub end_ns: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What went wrong, by check, the first of each way; empty if nothing did.
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
    trial_again_by(scenario, backend, "")
}

/// The same; violations name the command that makes the run again.
pub fn trial_again_by(scenario: &Scenario, backend: &Backend, command: &str) -> Result<Trial, BackendError> {
    judged(scenario, backend, command, &mut Nothing)
}

/// The same, and all events.
pub fn recorded(scenario: &Scenario, backend: &Backend, command: &str) -> Result<(Trial, Trace), BackendError> {
    let mut trace = Trace::default();
    let trial = judged(scenario, backend, command, &mut trace)?;
    Ok((trial, trace))
}

struct Nothing;

impl Sink for Nothing {
    fn record(&mut self, _event: Event) {}
}

fn judged(scenario: &Scenario, backend: &Backend, command: &str, also: &mut dyn Sink) -> Result<Trial, BackendError> {
    let mut tally = Tally::default();
    let mut judge = Judge::new().replayed_by(command);
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
        Ok(verdict) => {
            let looked = |check: &CheckReport| Looked { events: check.events, is_void: check.note.is_some() };
            tally.checks = verdict.checks.iter().map(|check| (check.name.to_owned(), looked(check))).collect();
            Ok(Trial { violations: violations(&verdict), trace_hash: verdict.hash.to_string(), tally })
        }
        Err(text) => {
            let violations = vec![Violation { check: "panic".to_owned(), text }];
            Ok(Trial { violations, trace_hash: String::new(), tally })
        }
    }
}

/// A check that had nothing to look at is no failure of a run: not every scenario has everything. A drawn one has
/// ([`unexercised`]).
fn violations(verdict: &Verdict) -> Vec<Violation> {
    let mut found: Vec<Violation> = Vec::new();
    for check in verdict.checks.iter().filter(|check| !check.held && !check.not_exercised()) {
        for text in &check.violations {
            let violation = Violation { check: check.name.to_owned(), text: text.clone() };
            if !found.iter().any(|known| known.is_like(&violation)) {
                found.push(violation);
            }
        }
    }
    found
}

/// What a run that should put every promise to the proof did not; none if it came to no end, which is a violation
/// anyway. `refine`: it should have been compared with the specification, too.
pub(super) fn unexercised(refine: bool, tally: &Tally) -> Option<Violation> {
    let idle = |(_, looked): &(&String, &Looked)| looked.events == 0 && !looked.is_void;
    let mut missing: Vec<&str> = tally.checks.iter().filter(idle).map(|(name, _)| name.as_str()).collect();
    let is_told = |name: &str| name != REFINES || refine;
    let untold = |name: &str| is_told(name) && !tally.checks.is_empty() && !tally.checks.contains_key(name);
    missing.extend(TOLD_BY_SOME.into_iter().filter(|name| untold(name)));
    if !tally.checks.is_empty() && !tally.outcomes.contains_key("accepted") {
        missing.push("no publication was accepted");
    }
    let text = || format!("not exercised: {}", missing.join(", "));
    (!missing.is_empty()).then(|| Violation { check: "exercised".to_owned(), text: text() })
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

    #[test]
    fn violations_are_alike_if_they_are_broken_in_the_same_way() {
        let of = |check: &str, text: &str| Violation { check: check.to_owned(), text: text.to_owned() };
        let lost = of("P6", "never delivered: receiver1 does not have [3 a] (seed 7; replay: x)");
        assert!(lost.is_like(&of("P6", "never delivered: receiver2")));
        assert!(
            !lost.is_like(&of("P6", "not the latest: receiver2")) && !lost.is_like(&of("P2", "never delivered: x"))
        );
        assert_eq!(lost.told(), "never delivered: receiver1 does not have [3 a]");
        let panic = of("panic", "panicked at engine/src/a.rs:7:3:\nsp1 is gone");
        assert!(panic.is_like(&of("panic", "panicked at engine/src/a.rs:7:3:\nsp2 is gone")));
        assert!(!panic.is_like(&of("panic", "panicked at engine/src/a.rs:9:3:\nsp1 is gone")));
    }

    #[test]
    fn a_run_that_shows_nothing_is_named() {
        let mut tally = Tally::default();
        assert_eq!(unexercised(false, &tally), None, "it came to no end");
        let looked = |events, is_void| Looked { events, is_void };
        tally.checks.insert("P1".to_owned(), looked(3, false));
        tally.checks.insert("P7".to_owned(), looked(0, true));
        tally.checks.insert("heals".to_owned(), looked(1, false));
        assert!(unexercised(false, &tally).unwrap().text.contains("not exercised: quorum"));
        tally.checks.insert("quorum".to_owned(), looked(1, false));
        assert!(unexercised(false, &tally).unwrap().text.contains("accepted"));
        tally.outcomes.insert("accepted".to_owned(), 1);
        assert_eq!(unexercised(false, &tally), None);
        assert_eq!(unexercised(true, &tally).unwrap().text, "not exercised: refines");
        tally.checks.insert("P4".to_owned(), looked(0, false));
        assert_eq!(unexercised(false, &tally).unwrap().text, "not exercised: P4");
    }
}
