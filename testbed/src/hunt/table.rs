//! What a hunt came to: how many seeds, how often each kind of anything occurred, which seeds failed.

use super::trial::{Tally, Violation};
use crate::{faults::FaultKind, scenario::Scenario};
use serde::Serialize;
use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

/// How often something occurred.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Count {
    /// In how many seeds.
    pub seeds: u64,
    /// How many times in all.
    pub times: u64,
}

/// What a check had to look at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CheckCount {
    /// In how many seeds it had something to look at.
    pub seeds: u64,
    /// How many events it judged.
    pub events: u64,
    /// In how many seeds some or all was not judged, for a stated reason.
    pub void: u64,
}

/// A seed that broke a promise.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// How, before it was shrunk.
    pub violation: Violation,
    /// All checks that failed with it.
    pub checks: Vec<String>,
    /// The command that makes the run again, before it was shrunk.
    pub again: String,
    /// Where its bundle is; none if there was no time to shrink it, or no room.
    pub bundle: Option<PathBuf>,
    /// Faults of the shrunk scenario.
    pub faults: usize,
    /// Publications of the shrunk scenario.
    pub publications: usize,
}

/// What a hunt came to.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// The scenario that was drawn from.
    pub hunt: String,
    /// The deliberate defect of the engine, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mutant: Option<String>,
    /// First seed, and the one after the last.
    pub seeds: (u64, u64),
    /// Seeds that were run.
    pub done: u64,
    /// Whether it ended before the last seed.
    pub interrupted: bool,
    /// How long it took, shrinking included.
    pub wall_s: f64,
    /// Seeds a minute.
    pub seeds_per_minute: f64,
    /// Virtual time in all.
    pub virtual_s: f64,
    /// Events in all.
    pub events: u64,
    /// By group (`fault`, `mode`, `quorum`, ...) and name.
    pub counts: BTreeMap<String, BTreeMap<String, Count>>,
    /// By check.
    pub checks: BTreeMap<String, CheckCount>,
    /// Names the traces of all seeds that came to their end: the same seeds give the same name, on any machine and
    /// with any number of jobs.
    pub traces: String,
    /// Seeds that broke a promise.
    pub failures: Vec<Failure>,
    #[serde(skip)]
    hashes: BTreeMap<u64, String>,
}

impl Report {
    /// Of a hunt that has not begun: all kinds of faults that may occur stand in the table.
    pub fn new(hunt: &str, mutant: Option<&str>, seeds: (u64, u64), kinds: &[FaultKind]) -> Report {
        let faults = kinds.iter().map(|kind| (kind.name().to_owned(), Count::default())).collect();
        let counts = BTreeMap::from([("fault".to_owned(), faults)]);
        let (hunt, mutant) = (hunt.to_owned(), mutant.map(str::to_owned));
        Report { hunt, mutant, seeds, counts, ..Report::default() }
    }

    /// Adds a seed.
    pub fn add(&mut self, scenario: &Scenario, tally: &Tally, trace_hash: String) {
        self.done += 1;
        self.hashes.insert(scenario.seed, trace_hash);
        self.events += tally.events;
        self.virtual_s += tally.end_ns as f64 / 1e9;
        for (kind, times) in &tally.faults {
            self.count("fault", kind, *times);
        }
        for (check, looked) in &tally.checks {
            let count = self.checks.entry(check.clone()).or_default();
            count.seeds += u64::from(looked.events > 0);
            count.events += looked.events;
            count.void += u64::from(looked.is_void);
        }
        for (outcome, times) in &tally.outcomes {
            self.count("outcome", outcome, *times);
        }
        let quorum = scenario.acms.quorum.to_string();
        self.count("quorum", quorum.split(':').next().unwrap_or_default(), 1);
        self.count("storage points", &scenario.fleet.storage_points.to_string(), 1);
        self.count("mode", &text(scenario.acms.mode), 1);
        self.count("order", &text(scenario.acms.order), 1);
        self.count("network", &scenario.network.rtt, 1);
        self.count("delivery", &text(scenario.network.delivery), 1);
    }

    fn count(&mut self, group: &str, name: &str, times: u64) {
        let count = self.counts.entry(group.to_owned()).or_default().entry(name.to_owned()).or_default();
        count.seeds += 1;
        count.times += times;
    }

    /// Ends it after `wall_s` seconds.
    pub fn finish(&mut self, wall_s: f64) {
        self.wall_s = (wall_s * 1000.0).round() / 1000.0;
        self.virtual_s = self.virtual_s.round();
        self.seeds_per_minute = if wall_s > 0.0 { (self.done as f64 / wall_s * 600.0).round() / 10.0 } else { 0.0 };
        self.failures.sort_by_key(|failure| failure.seed);
        let mut hasher = blake3::Hasher::new();
        for (seed, hash) in &self.hashes {
            hasher.update(format!("{seed} {hash}\n").as_bytes());
        }
        self.traces = hasher.finalize().to_hex()[..16].to_owned();
    }

    /// Kinds of faults that may occur and did not.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        let faults = self.counts.get("fault").into_iter().flatten();
        faults.filter(|(_, count)| count.times == 0).map(|(kind, _)| kind.as_str())
    }

    /// Checks that had nothing to look at in any seed: a hunt that holds them shows nothing.
    pub fn unexercised(&self) -> impl Iterator<Item = &str> {
        self.checks.iter().filter(|(_, count)| count.seeds == 0).map(|(check, _)| check.as_str())
    }

    /// Whether every check was exercised and held.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.unexercised().next().is_none()
    }

    /// Tab-separated lines, for people and for tools.
    pub fn lines(&self) -> String {
        let mut text = String::from("what\tname\tseeds\ttimes\n");
        for (group, names) in &self.counts {
            for (name, count) in names {
                let _ = writeln!(text, "{group}\t{name}\t{}\t{}", count.seeds, count.times);
            }
        }
        for (check, CheckCount { seeds, events, void }) in &self.checks {
            let _ = writeln!(text, "check\t{check}\t{seeds}\t{events}");
            if *void > 0 {
                let _ = writeln!(text, "check void\t{check}\t{void}\t");
            }
        }
        for check in self.unexercised() {
            let _ = writeln!(text, "failed\tnot exercised in any seed\t{check}\t");
        }
        for failure in &self.failures {
            let Failure { seed, checks, faults, publications, violation, again, bundle } = failure;
            let _ = writeln!(text, "failed\tseed {seed}\t{}\t{}", checks.join(" "), violation.told());
            let _ = writeln!(text, "again\tseed {seed}\t{again}");
            if let Some(bundle) = bundle {
                let _ = writeln!(text, "shrunk\tseed {seed}\t{faults} faults\t{publications} publications");
                let _ = writeln!(text, "replay\tseed {seed}\tacms-testbed replay {}", bundle.display());
            }
        }
        let (from, to) = self.seeds;
        let _ = writeln!(
            text,
            "{} of {} seeds ({from}..{to}) of {}{} in {:.1} s, {} a minute; {:.0} virtual seconds, {} events, traces {}; \
             {} failed",
            self.done,
            to - from,
            self.hunt,
            self.mutant.as_ref().map_or(String::new(), |mutant| format!(" with the mutant {mutant}")),
            self.wall_s,
            self.seeds_per_minute,
            self.virtual_s,
            self.events,
            self.traces,
            self.failures.len(),
        );
        text
    }
}

/// As it is written in scenarios.
fn text(value: impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{super::trial::Looked, *};

    #[test]
    fn a_hunt_that_exercised_a_check_in_no_seed_has_not_passed() {
        let scenario = Scenario::load("quickstart", &[]).unwrap();
        let mut report = Report::new("x", None, (0, 2), &[]);
        let tally = |events, is_void| Tally {
            checks: [("P1", Looked { events: 5, is_void: false }), ("P7", Looked { events, is_void })]
                .map(|(name, looked)| (name.to_owned(), looked))
                .into(),
            ..Tally::default()
        };
        report.add(&scenario, &tally(0, true), String::new());
        assert_eq!((report.unexercised().collect::<Vec<_>>(), report.passed()), (vec!["P7"], false));
        assert!(report.lines().contains("failed\tnot exercised in any seed\tP7"));
        report.add(&scenario, &tally(2, true), String::new());
        assert!(report.passed());
        assert_eq!(report.checks["P7"], CheckCount { seeds: 1, events: 2, void: 2 });
        assert!(report.lines().contains("check\tP1\t2\t10") && report.lines().contains("check void\tP7\t2"));
    }
}
