//! What a trace measures: latencies, convergence, availability, resources.
//!
//! Latency counts from when an attempt was due, so that a stall is not hidden by the attempts that it held up. A
//! percentile without enough samples is absent. All is measured while the run goes on; what is kept grows with the fleet,
//! with the publications that have not reached all of it, and with the seconds of the run.

mod convergence;
mod growth;
mod meter;
mod network;
mod quantiles;
mod resources;

pub(crate) use meter::Meter;

pub use network::NetworkResult;
pub use quantiles::{Intervals, Quantiles, hgrm};

use crate::trace::Trace;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    /// How old and how honest as-of times were.
    pub freshness: Freshness,
    /// Processor and memory by role.
    pub resources: Resources,
    /// How well the emulated network kept to its model.
    pub network: NetworkResult,
    /// What went wrong on purpose.
    pub faults: Vec<FaultRecord>,
    /// Of each pair of hosts, one round trip as the model wanted it and as it was, in milliseconds: the one with the median
    /// error.
    pub round_trips: Vec<(f64, f64)>,
    /// Distributions in microseconds, by name; none that is empty.
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
    /// How many publications had receivers enough for each of these parts; `convergence_ms` has samples of those that reached it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub convergence_of: BTreeMap<String, u64>,
    /// From due to verified, of the receivers in each region, where these are known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_region: BTreeMap<String, Quantiles>,
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

/// How old and how honest as-of times were, against the true time of when they were told.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Freshness {
    /// How far receivers' as-of times lay behind.
    pub receiver_staleness_ms: Quantiles,
    /// How far storage points' as-of times lay behind.
    pub storage_point_staleness_ms: Quantiles,
    /// How often an as-of was told.
    pub claims: u64,
    /// Of those that were wrong: from the acceptance of the oldest publication that was missing to the as-of.
    pub error_ms: Quantiles,
    /// The greatest of these; 0 if none was wrong.
    pub error_ms_max: f64,
    /// Epsilon of promise P7: what clocks that are sound may bring about.
    #[serde(default)]
    pub epsilon_ms: f64,
    /// How often a receiver's as-of was wrong.
    #[serde(default)]
    pub receiver_errors: u64,
    /// By how much at most.
    #[serde(default)]
    pub receiver_error_ms_max: f64,
    /// How often a storage point's as-of was wrong.
    #[serde(default)]
    pub storage_point_errors: u64,
    /// By how much at most.
    #[serde(default)]
    pub storage_point_error_ms_max: f64,
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
    /// Everything on the machine, from the first update to the end, where it is real.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineUsage>,
}

/// What a machine's processors spent their time on.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct MachineUsage {
    /// How many it has.
    pub processors: u64,
    /// The part of their time in which they worked.
    pub busy_pct: f64,
    /// The part in which they were wanted, and lent to other machines.
    pub stolen_pct: f64,
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

/// Microseconds in a histogram, with three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    const HOUR_US: u64 = 3_600_000_000;
    Histogram::new_with_bounds(1, HOUR_US, 3).expect("the bounds and three digits are legal")
}

pub(crate) fn record_ns(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record((ns / 1000).max(1));
}

impl Metrics {
    /// Measures a trace that is at hand as a whole.
    pub fn of(trace: &Trace) -> Metrics {
        crate::judge::Judge::of(trace).metrics
    }

    /// The metric called `name` in expectations, such as `convergence_99_ms_p99`; `None` if there is no such name,
    /// `Some(None)` if it has not enough samples.
    pub fn value(&self, name: &str) -> Option<Option<f64>> {
        if name == "longest_gap_ms" {
            return Some(self.availability.longest_gap_ms);
        }
        if name == "as_of_error_ms_max" {
            return Some((self.freshness.claims > 0).then_some(self.freshness.error_ms_max));
        }
        let (distribution, quantile) = name.rsplit_once('_')?;
        let distribution = distribution.strip_suffix("_ms")?;
        let quantiles = match distribution {
            "publish_latency" => &self.publish.latency_ms,
            "propagation" => &self.propagation.per_receiver_ms,
            "applied" => &self.propagation.applied_ms,
            "staleness" => &self.freshness.receiver_staleness_ms,
            _ => self.propagation.convergence_ms.get(distribution.strip_prefix("convergence_")?)?,
        };
        quantiles.named(quantile)
    }
}

/// The names that [`Metrics::value`] knows.
pub(crate) fn expectation_names() -> impl Iterator<Item = String> {
    let convergence = convergence::FRACTIONS.iter().map(|(name, ..)| format!("convergence_{name}"));
    let distributions = ["publish_latency", "propagation", "applied", "staleness"].map(str::to_owned);
    let quantiled = distributions.into_iter().chain(convergence);
    let quantiled = quantiled.flat_map(|name| ["p50", "p90", "p99", "p999", "max"].map(|of| format!("{name}_ms_{of}")));
    ["longest_gap_ms", "as_of_error_ms_max"].map(str::to_owned).into_iter().chain(quantiled)
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
             10 testbed machine cause=processors=2;busy=100;idle=0;stolen=0
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
             20 testbed machine cause=processors=2;busy=190;idle=6;stolen=4
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
        let machine = metrics.resources.machine.unwrap();
        assert_eq!((machine.processors, machine.busy_pct, machine.stolen_pct), (2, 90.0, 4.0));
        assert_eq!(publish.generator_late_ms.max.map(f64::round), Some(1000.0));
        assert_eq!(metrics.wall_s, 20.0);
        assert_eq!(metrics.value("longest_gap_ms"), Some(Some(5000.0)));
        assert_eq!(metrics.value("publish_latency_ms_p99"), Some(None));
        assert_eq!(metrics.value("convergence_50_ms_p50").map(|value| value.is_some()), Some(false));
        assert_eq!(metrics.value("nonsense"), None);
    }

    #[test]
    fn a_gap_may_last_to_the_end() {
        let trace = trace(
            "1 sp1 start
             10 testbed phase cause=updates
             10 publisher scheduled key=k1
             10 publisher invoke key=k1 path=a
             11 publisher outcome key=k1 uid=10.1.0 outcome=accepted
             12 publisher scheduled key=k2
             12 publisher invoke key=k2 path=a
             31 publisher outcome key=k2 outcome=undetermined
             40 testbed phase cause=quiesce",
        );
        assert_eq!(Metrics::of(&trace).availability.longest_gap_ms, Some(20_000.0));
    }
}
