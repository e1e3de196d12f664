//! `result.json`: the stable form of a run's results.

use crate::{
    checks::CheckReport,
    metrics::{
        Availability, FaultRecord, Freshness, HostCounts, Metrics, NetworkResult, Propagation, Publish, Resources,
    },
    scenario::Scenario,
};
use acms_engine::protocol::Hash;
use serde::{Deserialize, Serialize};

/// Number of the form of `result.json`; additions do not change it.
const SCHEMA: u32 = 1;

/// What came out of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// Number of this form.
    pub schema: u32,
    /// The scenario's name.
    pub scenario: String,
    /// What was tested.
    pub system: String,
    /// What ran it.
    pub backend: String,
    /// What all chance followed from.
    pub seed: u64,
    /// Of the source, if known.
    pub commit: String,
    /// From the first event to the last.
    pub wall_s: f64,
    /// Who took part.
    pub hosts: HostCounts,
    /// Attempts at publishing.
    pub publish: Publish,
    /// How publications reached the receivers.
    pub propagation: Propagation,
    /// Whether publishing was possible at all times.
    pub availability: Availability,
    /// How old and how honest as-of times were.
    #[serde(default)]
    pub freshness: Freshness,
    /// Processor and memory by role.
    pub resources: Resources,
    /// What the emulated network did.
    pub network: NetworkResult,
    /// Why the measurement means nothing, if it does not.
    #[serde(default)]
    pub invalid: Option<String>,
    /// What went wrong on purpose.
    pub faults: Vec<FaultRecord>,
    /// The promises.
    pub checks: Vec<CheckResult>,
    /// What the scenario expected.
    pub expectations: Vec<Expectation>,
    /// Names the trace.
    pub trace_hash: String,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// What a check found, as it stands in `result.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckResult {
    /// `P1` to `P8`, or `alive`.
    pub name: String,
    /// The promise in a few words.
    #[serde(default)]
    pub title: String,
    /// The promise in words.
    pub promise: String,
    /// Whether it was exercised and kept.
    pub held: bool,
    /// How many events were judged.
    pub events: u64,
    /// The first violations.
    pub violations: Vec<String>,
    /// How many there were in all.
    pub violations_total: u64,
    /// Why some or all was not judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A bound that the scenario sets on a metric.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Expectation {
    /// The metric.
    pub name: String,
    /// The most that it may be.
    pub at_most: f64,
    /// What it was; absent without enough samples.
    pub was: Option<f64>,
    /// Whether it was met.
    pub met: bool,
}

impl From<CheckReport> for CheckResult {
    fn from(report: CheckReport) -> CheckResult {
        let CheckReport { name, title, promise, held, events, violations, violations_total, note } = report;
        let (name, title, promise) = (name.into(), title.into(), promise.into());
        CheckResult { name, title, promise, held, events, violations, violations_total, note }
    }
}

impl RunResult {
    /// Results of `scenario` on `backend`.
    pub fn new(
        scenario: &Scenario,
        backend: &str,
        metrics: &Metrics,
        checks: Vec<CheckReport>,
        trace_hash: Hash,
        mut notes: Vec<String>,
    ) -> RunResult {
        let mut propagation = metrics.propagation.clone();
        if scenario.backend.is_real() && metrics.network.pairs == 0 {
            // All were on one machine's loopback.
            propagation.by_region.clear();
        }
        notes.extend(lateness(metrics));
        notes.extend(saturation(metrics));
        let expectations = scenario.expect.iter().map(|(name, at_most)| expectation(metrics, name, *at_most)).collect();
        RunResult {
            schema: SCHEMA,
            scenario: scenario.name.clone(),
            system: "acms".to_owned(),
            backend: backend.to_owned(),
            seed: scenario.seed,
            commit: commit(),
            wall_s: (metrics.wall_s * 1000.0).round() / 1000.0,
            hosts: metrics.hosts,
            publish: metrics.publish.clone(),
            propagation,
            availability: metrics.availability,
            freshness: metrics.freshness.clone(),
            resources: metrics.resources.clone(),
            network: metrics.network.clone(),
            invalid: metrics.network.invalid(),
            faults: metrics.faults.clone(),
            checks: checks.into_iter().map(CheckResult::from).collect(),
            expectations,
            trace_hash: trace_hash.to_string(),
            notes,
        }
    }

    /// Why the measurement means nothing, if it does not.
    pub fn invalid(&self) -> Option<String> {
        // Results of earlier versions do not say it in words.
        self.invalid.clone().or_else(|| self.network.invalid())
    }

    /// Whether every check held and every expectation was met.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.held) && self.expectations.iter().all(|expectation| expectation.met)
    }

    /// Names of the checks that did not hold and the expectations that were not met.
    pub fn failures(&self) -> Vec<&str> {
        let checks = self.checks.iter().filter(|check| !check.held).map(|check| check.name.as_str());
        checks.chain(self.expectations.iter().filter(|e| !e.met).map(|e| e.name.as_str())).collect()
    }
}

/// A generator that was late measured itself.
fn lateness(metrics: &Metrics) -> Option<String> {
    const LATE_MS: f64 = 50.0;
    let late = &metrics.publish.generator_late_ms;
    let worst = late.p99.or(late.max).filter(|worst| *worst > LATE_MS)?;
    let most = if late.p99.is_some() { "99 % of" } else { "the" };
    Some(format!("the generator was saturated: {most} attempts began up to {worst:.0} ms after they were due"))
}

/// A machine without time to spare measures itself.
fn saturation(metrics: &Metrics) -> Option<String> {
    const BUSY_PCT: f64 = 90.0;
    let machine = metrics.resources.machine.filter(|machine| machine.busy_pct + machine.stolen_pct > BUSY_PCT)?;
    Some(format!(
        "the machine was saturated: its {} processors were busy {:.0} % of the time, and {:.0} % was not theirs; times are \
         those of this machine, not of the system",
        machine.processors, machine.busy_pct, machine.stolen_pct
    ))
}

fn expectation(metrics: &Metrics, name: &str, at_most: f64) -> Expectation {
    let was = metrics.value(name).flatten();
    Expectation { name: name.to_owned(), at_most, was, met: was.is_some_and(|was| was <= at_most) }
}

/// The commit of the source tree that this was built from, as it was then (`build.rs`).
pub(crate) fn commit() -> String {
    env!("ACMS_COMMIT").to_owned()
}
