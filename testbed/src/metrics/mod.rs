//! What a trace measures: latencies, convergence, availability, resources.
//!
//! Latency counts from when an attempt was due, so that a stall is not hidden by the attempts that it held up. A
//! percentile without enough samples is absent.

mod convergence;
mod quantiles;

pub use quantiles::{Quantiles, hgrm};

use crate::trace::{Kind, Trace};
use acms_engine::protocol::Uid;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// All that is measured.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// From the first event to the last, in seconds.
    pub wall_s: f64,
    /// Who took part.
    pub hosts: HostCounts,
    /// Attempts and their outcomes.
    pub publish: Publish,
    /// How publications reached the receivers.
    pub propagation: Propagation,
    /// Whether publishing was possible at all times.
    pub availability: Availability,
    /// Processor and memory by role.
    pub resources: Resources,
    /// What went wrong on purpose.
    pub faults: Vec<FaultRecord>,
    /// Distributions in microseconds, by name.
    pub histograms: Vec<(&'static str, Histogram<u64>)>,
    /// Outcomes of each second of the updates.
    pub timeline: Vec<Second>,
}

/// How many hosts took part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HostCounts {
    /// Storage points.
    pub storage_points: u64,
    /// Caches.
    pub caches: u64,
    /// Receivers.
    pub receivers: u64,
}

/// Attempts at publishing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Publish {
    /// How many were begun.
    pub attempted: u64,
    /// How many were accepted.
    pub accepted: u64,
    /// How many have an unknown end.
    pub undetermined: u64,
    /// How many were refused.
    pub rejected: u64,
    /// Accepted ones a second, in the phase that `latency_phase` names.
    pub per_s: f64,
    /// From due to accepted, in the phase that `latency_phase` names.
    pub latency_ms: Quantiles,
    /// How long after they were due attempts began: what the generator adds itself.
    #[serde(default)]
    pub generator_late_ms: Quantiles,
    /// `updates`, or `load` if there were none.
    pub latency_phase: String,
    /// The same for each phase.
    pub phases: BTreeMap<String, PhasePublish>,
}

/// Attempts of one phase.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PhasePublish {
    /// How many were begun.
    pub attempted: u64,
    /// How many were accepted.
    pub accepted: u64,
    /// How many have an unknown end.
    pub undetermined: u64,
    /// How many were refused.
    pub rejected: u64,
    /// Accepted ones a second.
    pub per_s: f64,
    /// From due to accepted.
    pub latency_ms: Quantiles,
}

/// How publications reached the receivers.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Propagation {
    /// From due to verified in a receiver's memory, over all receivers and publications.
    pub per_receiver_ms: Quantiles,
    /// From due to durable in a receiver's directory.
    pub applied_ms: Quantiles,
    /// Until 50, 90, 99, 99.9 and 100 % of the live receivers had a publication or a newer one, over publications.
    pub convergence_ms: BTreeMap<String, Quantiles>,
    /// Pairs of a publication and a receiver that lived from its submission on.
    pub deliveries_expected: u64,
    /// How many of them were made.
    pub deliveries_made: u64,
}

/// Whether publishing was possible at all times.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Availability {
    /// The longest time without an accepted publication during the updates.
    pub longest_gap_ms: Option<f64>,
}

/// Processor and memory by role.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Storage points.
    pub storage_point: RoleUsage,
    /// Caches.
    pub cache: RoleUsage,
    /// Receivers.
    pub receiver: RoleUsage,
}

/// Processor and memory of all processes of a role.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RoleUsage {
    /// Of all together, in seconds; from the last reading before each end, 10 ms exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_s: Option<f64>,
    /// Of the one that had the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss_mib_max: Option<f64>,
    /// Bytes that were served over HTTP by the processes that ran at the end, each since its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_out: Option<u64>,
}

/// A fault that was injected.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FaultRecord {
    /// What.
    pub kind: String,
    /// Whom it hit.
    pub target: String,
    /// When, in seconds from the beginning of the updates.
    pub at_s: f64,
    /// How long it lasted, until the target was seen to be well.
    pub lasted_s: Option<f64>,
    /// Whether it was undone.
    pub undone: bool,
}

/// Outcomes of one second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Second {
    /// Accepted.
    pub accepted: u64,
    /// Rejected.
    pub rejected: u64,
    /// Undetermined.
    pub undetermined: u64,
}

/// One attempt at publishing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt<'t> {
    pub(crate) phase: &'t str,
    pub(crate) due_ns: u64,
    pub(crate) begun_ns: u64,
    pub(crate) path: &'t str,
    pub(crate) uid: Option<Uid>,
    pub(crate) outcome: Option<(&'t str, u64)>,
}

/// Microseconds in a histogram, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 3).expect("the bounds and three digits are legal")
}

pub(crate) fn record_ns(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record((ns / 1000).max(1));
}

impl Metrics {
    /// Measures `trace`.
    pub fn of(trace: &Trace) -> Metrics {
        let attempts = attempts(trace);
        let updates_ns =
            trace.of(Kind::Phase).find(|event| event.cause.as_deref() == Some("updates")).map(|e| e.time_ns);
        let (publish, latency) = publish(&attempts);
        let measured: Vec<Attempt<'_>> =
            attempts.values().filter(|attempt| attempt.phase == publish.latency_phase).copied().collect();
        let (propagation, per_receiver) = convergence::propagation(trace, &measured);
        let end_ns = trace.events().last().map_or(0, |event| event.time_ns);
        Metrics {
            wall_s: (end_ns - trace.start_ns()) as f64 / 1e9,
            hosts: hosts(trace),
            availability: availability(&measured, updates_ns),
            resources: resources(trace),
            faults: faults(trace, updates_ns.unwrap_or(trace.start_ns())),
            timeline: timeline(&measured, updates_ns),
            histograms: vec![("publish-latency", latency), ("propagation", per_receiver)],
            publish,
            propagation,
        }
    }

    /// The metric called `name` in expectations, such as `convergence_99_ms_p99`; `None` if there is no such name,
    /// `Some(None)` if it has not enough samples.
    pub fn value(&self, name: &str) -> Option<Option<f64>> {
        if name == "longest_gap_ms" {
            return Some(self.availability.longest_gap_ms);
        }
        let (distribution, quantile) = name.rsplit_once('_')?;
        let distribution = distribution.strip_suffix("_ms")?;
        let quantiles = match distribution {
            "publish_latency" => &self.publish.latency_ms,
            "propagation" => &self.propagation.per_receiver_ms,
            "applied" => &self.propagation.applied_ms,
            _ => self.propagation.convergence_ms.get(distribution.strip_prefix("convergence_")?)?,
        };
        quantiles.named(quantile)
    }
}

fn attempts(trace: &Trace) -> BTreeMap<&str, Attempt<'_>> {
    let mut phase = "";
    let mut due: BTreeMap<&str, u64> = BTreeMap::new();
    let mut attempts: BTreeMap<&str, Attempt<'_>> = BTreeMap::new();
    for event in trace.events() {
        if event.kind == Kind::Phase {
            phase = event.cause.as_deref().unwrap_or_default();
        }
        let Some(key) = event.publication.as_deref() else { continue };
        match event.kind {
            Kind::Scheduled => drop(due.insert(key, event.time_ns)),
            Kind::Invoke => {
                let due_ns = due.get(key).copied().unwrap_or(event.time_ns);
                let path = event.path.as_deref().unwrap_or_default();
                attempts
                    .insert(key, Attempt { phase, due_ns, begun_ns: event.time_ns, path, uid: None, outcome: None });
            }
            Kind::Outcome | Kind::Agreed => {
                let Some(attempt) = attempts.get_mut(key) else { continue };
                attempt.uid = attempt.uid.or(event.uid);
                if event.kind == Kind::Outcome {
                    attempt.outcome = event.outcome.as_deref().map(|outcome| (outcome, event.time_ns));
                }
            }
            _ => {}
        }
    }
    attempts
}

fn publish(attempts: &BTreeMap<&str, Attempt<'_>>) -> (Publish, Histogram<u64>) {
    let mut phases: BTreeMap<&str, Vec<&Attempt<'_>>> = BTreeMap::new();
    for attempt in attempts.values() {
        phases.entry(attempt.phase).or_default().push(attempt);
    }
    let mut publish = Publish::default();
    let latency_phase = if phases.contains_key("updates") { "updates" } else { "load" };
    publish.latency_phase = latency_phase.to_owned();
    let mut chosen = histogram();
    for (name, attempts) in phases {
        let (phase, latency) = phase_publish(&attempts);
        publish.attempted += phase.attempted;
        publish.accepted += phase.accepted;
        publish.undetermined += phase.undetermined;
        publish.rejected += phase.rejected;
        if name == latency_phase {
            publish.per_s = phase.per_s;
            publish.latency_ms = phase.latency_ms;
            chosen = latency;
            publish.generator_late_ms = generator_late(&attempts);
        }
        publish.phases.insert(name.to_owned(), phase);
    }
    (publish, chosen)
}

fn phase_publish(attempts: &[&Attempt<'_>]) -> (PhasePublish, Histogram<u64>) {
    let mut phase = PhasePublish { attempted: attempts.len() as u64, ..PhasePublish::default() };
    let mut latency = histogram();
    let first_ns = attempts.iter().map(|attempt| attempt.due_ns).min().unwrap_or(0);
    let mut last_ns = first_ns;
    for attempt in attempts {
        let Some((outcome, at_ns)) = attempt.outcome else { continue };
        last_ns = last_ns.max(at_ns);
        match outcome {
            "accepted" => {
                phase.accepted += 1;
                record_ns(&mut latency, at_ns.saturating_sub(attempt.due_ns));
            }
            "rejected" => phase.rejected += 1,
            _ => phase.undetermined += 1,
        }
    }
    let seconds = (last_ns - first_ns) as f64 / 1e9;
    phase.per_s = if seconds > 0.0 { (phase.accepted as f64 / seconds * 1000.0).round() / 1000.0 } else { 0.0 };
    phase.latency_ms = Quantiles::of(&latency);
    (phase, latency)
}

fn generator_late(attempts: &[&Attempt<'_>]) -> Quantiles {
    let mut late = histogram();
    attempts.iter().for_each(|attempt| record_ns(&mut late, attempt.begun_ns.saturating_sub(attempt.due_ns)));
    Quantiles::of(&late)
}

fn availability(attempts: &[Attempt<'_>], updates_ns: Option<u64>) -> Availability {
    let accepted = attempts.iter().filter_map(|attempt| attempt.outcome.filter(|(outcome, _)| *outcome == "accepted"));
    let mut times: Vec<u64> = accepted.map(|(_, at_ns)| at_ns).collect();
    if times.is_empty() {
        return Availability::default();
    }
    times.extend(updates_ns);
    times.sort_unstable();
    let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
    Availability { longest_gap_ms: longest.map(|ns| (ns as f64 / 1e3).round() / 1e3) }
}

fn timeline(attempts: &[Attempt<'_>], updates_ns: Option<u64>) -> Vec<Second> {
    let mut seconds = Vec::new();
    let Some(begin_ns) = updates_ns else { return seconds };
    for (outcome, at_ns) in attempts.iter().filter_map(|attempt| attempt.outcome) {
        let second = (at_ns.saturating_sub(begin_ns) / 1_000_000_000) as usize;
        if seconds.len() <= second {
            seconds.resize(second + 1, Second::default());
        }
        match outcome {
            "accepted" => seconds[second].accepted += 1,
            "rejected" => seconds[second].rejected += 1,
            _ => seconds[second].undetermined += 1,
        }
    }
    seconds
}

/// What part a process has, by its name.
fn role(process: &str) -> &str {
    process.trim_end_matches(|c: char| c.is_ascii_digit())
}

fn hosts(trace: &Trace) -> HostCounts {
    let started: BTreeSet<&str> = trace.of(Kind::Start).map(|event| &*event.process).collect();
    let count = |name: &str| started.iter().filter(|process| role(process) == name).count() as u64;
    HostCounts { storage_points: count("sp"), caches: count("cache"), receivers: count("receiver") }
}

fn resources(trace: &Trace) -> Resources {
    // The last reading of each figure in each life of a process.
    let mut last: BTreeMap<(&str, u32, &str), u64> = BTreeMap::new();
    for event in trace.of(Kind::Usage) {
        let figures = event.cause.as_deref().unwrap_or_default().split(' ').filter_map(|word| word.split_once('='));
        for (name, value) in figures {
            if let Ok(value) = value.parse() {
                last.insert((&event.process, event.incarnation, name), value);
            }
        }
    }
    let mut resources = Resources::default();
    for ((process, _, name), value) in last {
        let usage = match role(process) {
            "sp" => &mut resources.storage_point,
            "cache" => &mut resources.cache,
            "receiver" => &mut resources.receiver,
            _ => continue,
        };
        match name {
            "cpu_us" => *usage.cpu_s.get_or_insert(0.0) += value as f64 / 1e6,
            "rss_kib_max" => {
                let mib = value as f64 / 1024.0;
                usage.rss_mib_max = Some(usage.rss_mib_max.map_or(mib, |max| max.max(mib)));
            }
            "bytes_out" => *usage.bytes_out.get_or_insert(0) += value,
            _ => {}
        }
    }
    for usage in [&mut resources.storage_point, &mut resources.cache, &mut resources.receiver] {
        for figure in [&mut usage.cpu_s, &mut usage.rss_mib_max].into_iter().flatten() {
            *figure = (*figure * 100.0).round() / 100.0;
        }
    }
    resources
}

fn faults(trace: &Trace, begin_ns: u64) -> Vec<FaultRecord> {
    let mut faults: Vec<(u64, FaultRecord)> = Vec::new();
    for event in trace.events() {
        let (Some(kind), Some(target)) = (event.outcome.as_deref(), event.cause.as_deref()) else { continue };
        match event.kind {
            Kind::Fault => {
                let at_s = (event.time_ns as f64 - begin_ns as f64) / 1e9;
                let at_s = (at_s * 1000.0).round() / 1000.0;
                let (kind, target) = (kind.to_owned(), target.to_owned());
                faults.push((event.time_ns, FaultRecord { kind, target, at_s, lasted_s: None, undone: false }));
            }
            Kind::FaultUndone => {
                let open = |fault: &&mut (u64, FaultRecord)| {
                    !fault.1.undone && fault.1.kind == kind && fault.1.target == target
                };
                if let Some((from_ns, fault)) = faults.iter_mut().find(open) {
                    fault.undone = true;
                    fault.lasted_s = Some(((event.time_ns - *from_ns) as f64 / 1e6).round() / 1e3);
                }
            }
            _ => {}
        }
    }
    faults.into_iter().map(|(_, fault)| fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::trace;

    #[test]
    fn outcomes_latencies_gaps_and_faults_are_measured() {
        let trace = trace(
            "1 sp1 start
             1 sp2 start
             1 receiver1 start
             2 testbed phase cause=load
             2 publisher scheduled key=k1
             2 publisher invoke key=k1 path=a
             3 publisher outcome key=k1 uid=10.1.0 outcome=accepted
             10 testbed phase cause=updates
             10 publisher scheduled key=k2
             11 publisher invoke key=k2 path=a
             12 publisher outcome key=k2 uid=11.1.0 outcome=accepted
             12 testbed fault outcome=kill cause=sp2
             13 publisher invoke key=k3 path=a
             14 publisher outcome key=k3 outcome=rejected
             15 testbed fault_undone outcome=kill cause=sp2
             16 publisher invoke key=k4 path=a
             17 publisher outcome key=k4 outcome=accepted uid=12.1.0
             18 sp1 usage cause=cpu_us=1400000
             18 sp1 usage cause=cpu_us=1500000
             18 sp2 usage cause=cpu_us=500000
             18 sp2 usage cause=rss_kib_max=2048
             19 sp2 usage cause=bytes_out=7
             20 publisher invoke key=k5 path=a
             21 publisher outcome key=k5 outcome=undetermined",
        );
        let metrics = Metrics::of(&trace);
        let publish = &metrics.publish;
        assert_eq!((publish.attempted, publish.accepted, publish.rejected, publish.undetermined), (5, 3, 1, 1));
        assert_eq!(publish.latency_ms.samples, 2);
        assert_eq!(publish.latency_ms.max.map(f64::round), Some(2001.0), "from due, not from sent; three digits");
        assert_eq!(publish.latency_ms.p99, None);
        assert_eq!(metrics.availability.longest_gap_ms, Some(5000.0));
        assert_eq!(metrics.faults.len(), 1);
        assert_eq!((metrics.faults[0].at_s, metrics.faults[0].lasted_s), (2.0, Some(3.0)));
        assert_eq!((metrics.hosts.storage_points, metrics.hosts.receivers), (2, 1));
        assert_eq!(metrics.timeline[2].accepted, 1);
        let usage = &metrics.resources.storage_point;
        assert_eq!((usage.cpu_s, usage.rss_mib_max, usage.bytes_out), (Some(2.0), Some(2.0), Some(7)));
        assert_eq!(publish.generator_late_ms.max.map(f64::round), Some(1000.0));
        assert_eq!(metrics.wall_s, 20.0);
        assert_eq!(metrics.value("longest_gap_ms"), Some(Some(5000.0)));
        assert_eq!(metrics.value("publish_latency_ms_p99"), Some(None));
        assert_eq!(metrics.value("convergence_50_ms_p50").map(|value| value.is_some()), Some(false));
        assert_eq!(metrics.value("nonsense"), None);
    }
}
