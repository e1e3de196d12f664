//! The promises that every run must keep, each tested while the run goes on, in one pass over its events.
//!
//! One file for each promise. A check says how many events it looked at; one that had nothing to look at did not hold,
//! for a checker that saw nothing proves nothing. Violations name the events that contradict the promise. What the
//! checks know in common is kept once, in the run's facts; each file says what its check keeps beside that.

mod alive;
mod heals;
mod p1;
mod p2;
mod p3;
mod p4;
mod p5;
mod p6;
mod p7;
mod p8;
mod quorum;
mod refines;
#[cfg(test)]
pub(crate) mod testing;

pub use p6::BOUND as DELIVERY_BOUND;
pub(crate) use p7::Measured;

use crate::{
    facts::{self, Facts, Seen},
    trace::Trace,
};
use serde::Serialize;

const NOT_EXERCISED: &str = "not exercised";

/// Checks that are left out where the trace has nothing of what they are about. Simulated runs always have, but for the
/// last one: a scenario asks for it.
pub(crate) const TOLD_BY_SOME: [&str; 3] = ["quorum", "heals", REFINES];
pub(crate) const REFINES: &str = "refines";

/// Why P1 and P2 are not judged: disks were lost that left no quorum.
fn lost_too_many(facts: &Facts) -> Option<String> {
    let lost = facts::names(facts.lost_too_many?);
    Some(format!("not judged: the disks of {lost} were lost and left no quorum"))
}

/// The bound of delivery in the trace's unit.
fn bound_ns() -> u64 {
    u64::try_from(DELIVERY_BOUND.as_nanos()).unwrap_or(u64::MAX)
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct CheckReport {
    /// `P1` to `P8`, `quorum`, `heals`, `alive` or `refines`.
    pub name: &'static str,
    /// The promise in a few words.
    pub title: &'static str,
    /// The promise in words.
    pub promise: &'static str,
    /// Whether the trace exercised the promise and nothing broke it.
    pub held: bool,
    /// How many events (or pairs of events, or of receiver and path) were judged.
    pub events: u64,
    /// The first violations found, each naming its events, the seed and the command that replays it.
    pub violations: Vec<String>,
    /// How many violations there were in all.
    pub violations_total: u64,
    /// Why some or all was not judged: the promise has a condition, and the run did not meet it.
    pub note: Option<String>,
}

impl CheckReport {
    /// Whether there was nothing to judge.
    pub fn not_exercised(&self) -> bool {
        self.events == 0 && self.violations.first().is_none_or(|violation| violation.starts_with(NOT_EXERCISED))
    }

    /// Adds to each violation how to see it again.
    pub(crate) fn add_replay(&mut self, seed: Option<&str>, command: Option<&str>) {
        let seed = seed.map(|seed| format!("seed {seed}"));
        let command = command.filter(|command| !command.is_empty()).map(|command| format!("replay: {command}"));
        let words: Vec<String> = seed.into_iter().chain(command).collect();
        if !self.not_exercised() && !words.is_empty() {
            let suffix = format!(" ({})", words.join("; "));
            self.violations.iter_mut().for_each(|violation| violation.push_str(&suffix));
        }
    }
}

/// One promise, tested event by event.
pub(crate) trait Check: Default {
    /// The next event.
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts);

    /// The end of the trace.
    fn finish(self, facts: &Facts) -> CheckReport;
}

/// What a check has found so far.
#[derive(Debug, Default)]
struct Findings {
    events: u64,
    violations: Vec<String>,
    violations_total: u64,
    /// The promise's condition that the run did not meet.
    void: Option<String>,
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
        let Findings { events, mut violations, mut violations_total, void: note } = self;
        if events == 0 && violations_total == 0 && note.is_none() {
            violations.push(format!("{NOT_EXERCISED}: the trace has no event that this promise is about"));
            violations_total = 1;
        }
        CheckReport { name, title, promise, held: violations_total == 0, events, violations, violations_total, note }
    }
}

/// All promises that a trace of this version can tell about.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    p1: p1::P1,
    p2: p2::P2,
    p3: p3::P3,
    p4: p4::P4,
    p5: p5::P5,
    p6: p6::P6,
    p7: p7::P7,
    p8: p8::P8,
    quorum: quorum::HeldByQuorum,
    heals: heals::Heals,
    alive: alive::Alive,
    refines: refines::Refines,
}

impl Checks {
    /// The next event.
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        self.p1.observe(seen, facts);
        self.p2.observe(seen, facts);
        self.p3.observe(seen, facts);
        self.p4.observe(seen, facts);
        self.p5.observe(seen, facts);
        self.p6.observe(seen, facts);
        self.p7.observe(seen, facts);
        self.p8.observe(seen, facts);
        self.quorum.observe(seen, facts);
        self.heals.observe(seen, facts);
        self.alive.observe(seen, facts);
        self.refines.observe(seen, facts);
    }

    /// The end of the trace; `facts` have been finished. Also what P7 measured.
    pub(crate) fn finish(mut self, facts: &Facts) -> (Vec<CheckReport>, Measured) {
        let measured = self.p7.take_measured();
        let mut reports = vec![
            self.p1.finish(facts),
            self.p2.finish(facts),
            self.p3.finish(facts),
            self.p4.finish(facts),
            self.p5.finish(facts),
            self.p6.finish(facts),
            self.p7.finish(facts),
            self.p8.finish(facts),
            self.quorum.finish(facts),
            self.heals.finish(facts),
            self.alive.finish(facts),
            self.refines.finish(facts),
        ];
        // Not every backend tells what these are about.
        reports.retain(|report| !TOLD_BY_SOME.contains(&report.name) || report.events > 0 || !report.held);
        (reports, measured)
    }
}

/// Tests every promise on a trace that is at hand as a whole.
pub fn check_all(trace: &Trace) -> Vec<CheckReport> {
    crate::judge::Judge::of(trace).checks
}
