//! The promises that every run must keep, each tested over the trace in time linear in it (times a logarithm).
//!
//! One file for each promise. A check says how many events it looked at; one that had nothing to look at did not hold,
//! for a checker that saw nothing proves nothing. Violations name the events that contradict the promise.

mod alive;
mod facts;
mod p1;
mod p3;
mod p4;
mod p5;
mod p6;
mod p8;
#[cfg(test)]
pub(crate) mod testing;

pub use p6::BOUND as DELIVERY_BOUND;

use crate::trace::Trace;
use facts::Facts;
use serde::Serialize;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CheckReport {
    /// `P1` to `P8`, or `alive`.
    pub name: &'static str,
    /// The promise in a few words.
    pub title: &'static str,
    /// The promise in words.
    pub promise: &'static str,
    /// Whether the trace exercised the promise and nothing broke it.
    pub held: bool,
    /// How many events (or pairs of events, or of receiver and path) were judged.
    pub events: u64,
    /// The first violations found, each naming its events.
    pub violations: Vec<String>,
    /// How many violations there were in all.
    pub violations_total: u64,
}

impl CheckReport {
    /// Whether there was nothing to judge.
    pub fn not_exercised(&self) -> bool {
        self.events == 0
    }
}

/// What a check has found so far.
#[derive(Default)]
struct Findings {
    events: u64,
    violations: Vec<String>,
    violations_total: u64,
}

impl Findings {
    /// Violations told in full; the rest is only counted.
    const TOLD_MAX: usize = 20;

    fn looked_at(&mut self, events: u64) {
        self.events += events;
    }

    fn violated(&mut self, tell: impl FnOnce() -> String) {
        self.violations_total += 1;
        if self.violations.len() < Findings::TOLD_MAX {
            self.violations.push(tell());
        }
    }

    fn report(self, name: &'static str, title: &'static str, promise: &'static str) -> CheckReport {
        let Findings { events, mut violations, mut violations_total } = self;
        if events == 0 && violations_total == 0 {
            violations.push("not exercised: the trace has no event that this promise is about".to_owned());
            violations_total = 1;
        }
        CheckReport { name, title, promise, held: violations_total == 0, events, violations, violations_total }
    }
}

/// Tests every promise that a trace of this version can tell about.
pub fn check_all(trace: &Trace) -> Vec<CheckReport> {
    let facts = Facts::of(trace);
    vec![
        p1::check(&facts),
        p3::check(&facts),
        p4::check(&facts),
        p5::check(&facts),
        p6::check(&facts),
        p8::check(&facts),
        alive::check(&facts),
    ]
}
