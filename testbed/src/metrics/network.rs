//! How well the emulated network kept to its model.

use super::growth::{Growth, figures};
use crate::{
    network::router::tolerance_ns,
    trace::{Event, Kind, Text},
};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// More than this part of pairs or packets out of tolerance, or of pairs not measured, makes a measurement invalid, in percent.
const BAD_PCT_MAX: f64 = 1.0;

/// The greatest error that is told apart.
const ERROR_US_MAX: u64 = 60_000_000;

/// What the emulated network did; without one there are no pairs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NetworkResult {
    /// Pairs of hosts whose round trips were to be measured.
    #[serde(default)]
    pub pairs_asked: u64,
    /// Pairs of hosts whose round trips were measured.
    pub pairs: u64,
    /// Pairs whose median round trip was off by more than 2 ms or 2 % of what the model wanted.
    pub pairs_bad: u64,
    /// Round trips that were measured since the first update.
    #[serde(default)]
    pub probes: u64,
    /// Those of them that were off by more than 2 ms or 2 % of what the model wanted.
    #[serde(default)]
    pub probes_off_pct: Option<f64>,
    /// Median error of these round trips, each against what the model wanted of its two packets.
    pub rtt_error_ms_p50: Option<f64>,
    /// 99th percentile of their errors.
    pub rtt_error_ms_p99: Option<f64>,
    /// Packets that were carried, from the first update to the end.
    #[serde(default)]
    pub packets: u64,
    /// Packets that arrived later than the model says by more than 2 ms or 2 %.
    pub late_packets_pct: Option<f64>,
    /// Packets that the model lost.
    #[serde(default)]
    pub lost_packets: u64,
    /// Whether the measurement is valid.
    pub within_tolerance: bool,
}

impl Default for NetworkResult {
    /// Loopback has nothing to be wrong about.
    fn default() -> NetworkResult {
        NetworkResult {
            pairs_asked: 0,
            pairs: 0,
            pairs_bad: 0,
            probes: 0,
            probes_off_pct: None,
            rtt_error_ms_p50: None,
            rtt_error_ms_p99: None,
            packets: 0,
            late_packets_pct: None,
            lost_packets: 0,
            within_tolerance: true,
        }
    }
}

impl NetworkResult {
    /// Why a measurement on it means nothing, if it does not.
    pub fn invalid(&self) -> Option<String> {
        (!self.within_tolerance).then(|| {
            let faults = self.faults().join(", ");
            format!("the network was not what it was to be: {faults}; use a less busy machine, or a smaller fleet")
        })
    }

    /// What was out of tolerance.
    fn faults(&self) -> Vec<String> {
        let NetworkResult { pairs_asked, pairs, pairs_bad, packets, .. } = *self;
        let unmeasured = pairs_asked.saturating_sub(pairs);
        let late_pct = self.late_packets_pct.unwrap_or(0.0);
        let faults = [
            (pct(pairs_bad, pairs), format!("{pairs_bad} of {pairs} pairs were off by more than 2 ms or 2 %")),
            (pct(unmeasured, pairs_asked), format!("{unmeasured} of {pairs_asked} pairs were never measured")),
            (late_pct, format!("{late_pct:.1} % of {packets} packets were late")),
        ];
        faults.into_iter().filter(|(pct, _)| *pct > BAD_PCT_MAX).map(|(_, fault)| fault).collect()
    }
}

/// A round trip in microseconds.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    /// As the model wanted it.
    asked_us: u64,
    got_us: u64,
}

impl RoundTrip {
    fn error_us(self) -> u64 {
        self.got_us.abs_diff(self.asked_us)
    }

    fn is_off(self) -> bool {
        self.error_us() * 1000 > tolerance_ns(self.asked_us * 1000)
    }
}

fn pct(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 * 100.0 / all as f64 }
}

fn rounded(pct: f64) -> f64 {
    (pct * 1000.0).round() / 1000.0
}

/// So that what is above a limit stays above it; the little that is taken off is what floating point may have added.
fn rounded_up(pct: f64) -> f64 {
    (pct * 1000.0 - 1e-6).max(0.0).ceil() / 1000.0
}

/// Collects what is measured of the network.
#[derive(Debug, Default)]
pub(super) struct NetworkMeter {
    pairs_asked: u64,
    pairs: BTreeMap<(Text, Text), Vec<RoundTrip>>,
    /// All that were measured since the updates began.
    loaded: Vec<RoundTrip>,
    carried: Growth,
    stage: Stage,
}

/// What counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Stage {
    /// Before the fleet is there, round trips do.
    #[default]
    Before,
    /// While it starts and is loaded, as fast as it can be, nothing does.
    Starting,
    /// From the first update on everything does.
    Updates,
}

impl NetworkMeter {
    pub(super) fn observe(&mut self, event: &Event) {
        let cause = event.cause.as_deref().unwrap_or_default();
        match (event.kind, &event.outcome) {
            (Kind::Probe, Some(to)) => {
                let figures: BTreeMap<&str, u64> = figures(cause).collect();
                let (Some(asked), Some(got)) = (figures.get("asked_us"), figures.get("got_us")) else { return };
                if self.stage == Stage::Starting {
                    return;
                }
                let pair = (Text::clone(&event.process), Text::clone(to));
                let probe = RoundTrip { asked_us: *asked, got_us: *got };
                self.pairs.entry(pair).or_default().push(probe);
                self.loaded.extend((self.stage == Stage::Updates).then_some(probe));
            }
            (Kind::Probe, None) => {
                self.pairs_asked =
                    figures(cause).find_map(|(name, count)| (name == "pairs").then_some(count)).unwrap_or(0);
            }
            (Kind::Phase, _) if self.stage != Stage::Updates => {
                self.stage = if cause == "updates" { Stage::Updates } else { Stage::Starting };
            }
            (Kind::Carried, _) => self.carried.take(cause, self.stage == Stage::Updates),
            _ => {}
        }
    }

    /// What is said of it, and of each pair the round trip with the median error.
    pub(super) fn finish(mut self) -> (NetworkResult, Vec<(f64, f64)>) {
        let mut errors = Histogram::<u64>::new_with_max(ERROR_US_MAX, 3).expect("the bounds are good");
        let median = |probes: &mut Vec<RoundTrip>| {
            probes.sort_unstable_by_key(|probe| probe.error_us());
            probes[(probes.len() - 1) / 2]
        };
        let medians: Vec<RoundTrip> = self.pairs.values_mut().map(median).collect();
        let pairs_bad = medians.iter().filter(|probe| probe.is_off()).count() as u64;
        self.loaded.iter().for_each(|probe| errors.saturating_record(probe.error_us()));
        let off = self.loaded.iter().filter(|probe| probe.is_off()).count() as u64;
        let carried = |name: &str| self.carried.of(name);
        let (pairs, packets) = (self.pairs.len() as u64, carried("arrived"));
        let error_ms = |quantile| (!errors.is_empty()).then(|| errors.value_at_quantile(quantile) as f64 / 1e3);
        let late_pct = pct(carried("late"), packets);
        let pairs_asked = self.pairs_asked.max(pairs);
        let round_trips =
            medians.iter().map(|probe| (probe.asked_us as f64 / 1e3, probe.got_us as f64 / 1e3)).collect();
        let mut result = NetworkResult {
            pairs_asked,
            pairs,
            pairs_bad,
            probes: errors.len(),
            probes_off_pct: (!errors.is_empty()).then(|| rounded(pct(off, errors.len()))),
            rtt_error_ms_p50: error_ms(0.5),
            rtt_error_ms_p99: error_ms(0.99).filter(|_| errors.len() >= 1000),
            packets,
            late_packets_pct: (packets > 0).then(|| rounded_up(late_pct)),
            lost_packets: carried("lost"),
            within_tolerance: true,
        };
        result.within_tolerance = result.faults().is_empty();
        (result, round_trips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{metrics::Metrics, trace::Trace};

    fn network(lines: &[(&str, Kind, &str, &str)]) -> NetworkResult {
        let event = |(at, (process, kind, outcome, cause)): (usize, &(&str, Kind, &str, &str))| Event {
            outcome: (!outcome.is_empty()).then(|| (*outcome).into()),
            cause: Some((*cause).into()),
            ..Event::new(at as u64, &Text::from(*process), 0, *kind)
        };
        Metrics::of(&Trace::new(lines.iter().enumerate().map(event).collect())).network
    }

    #[test]
    fn pairs_are_judged_by_their_median_and_by_what_each_packet_was_to_take() {
        let got = network(&[
            ("sp1", Kind::Probe, "sp2", "asked_us=20000 got_us=20001"),
            ("testbed", Kind::Carried, "", "arrived=500 late=500 lost=1"),
            ("testbed", Kind::Phase, "", "load"),
            ("sp1", Kind::Probe, "sp4", "asked_us=20000 got_us=90000"),
            ("testbed", Kind::Phase, "", "updates"),
            ("sp1", Kind::Probe, "sp2", "asked_us=20000 got_us=20100"),
            ("sp1", Kind::Probe, "sp2", "asked_us=20000 got_us=90000"),
            ("sp1", Kind::Probe, "sp2", "asked_us=25000 got_us=25300"),
            ("sp1", Kind::Probe, "sp3", "asked_us=200000 got_us=203900"),
            ("testbed", Kind::Carried, "", "arrived=900 late=800 lost=2"),
            ("testbed", Kind::Carried, "", "arrived=1900 late=809 lost=9"),
        ]);
        assert_eq!((got.pairs, got.pairs_bad, got.probes, got.packets, got.lost_packets), (2, 0, 4, 1000, 7));
        assert_eq!((got.rtt_error_ms_p50, got.late_packets_pct), (Some(0.3), Some(0.9)));
        assert_eq!(got.probes_off_pct, Some(25.0));
        assert_eq!(got.rtt_error_ms_p99, None, "too few");
        assert!(got.within_tolerance);
    }

    #[test]
    fn a_network_out_of_tolerance_is_said_to_be() {
        let slow = [("sp1", Kind::Probe, "sp2", "asked_us=20000 got_us=22100")];
        let got = network(&slow);
        assert_eq!((got.pairs_bad, got.within_tolerance), (1, false));
        let late = [
            ("testbed", Kind::Phase, "", "updates"),
            ("testbed", Kind::Carried, "", "arrived=0 late=0"),
            ("testbed", Kind::Carried, "", "arrived=1000 late=11"),
        ];
        let got = network(&late);
        assert!(!got.within_tolerance);
        assert!(got.invalid().unwrap().contains("to be: 1.1 % of 1000 packets were late;"), "and nothing else");
        let just = [
            ("testbed", Kind::Phase, "", "updates"),
            ("testbed", Kind::Carried, "", "arrived=0 late=0"),
            ("testbed", Kind::Carried, "", "arrived=1000000 late=10001"),
        ];
        assert!(!network(&just).within_tolerance, "by one packet");
        assert_eq!(network(&[]), NetworkResult::default());
        let silent =
            [("testbed", Kind::Probe, "", "pairs=100"), ("sp1", Kind::Probe, "sp2", "asked_us=20000 got_us=20000")];
        let got = network(&silent);
        assert_eq!((got.pairs_asked, got.pairs, got.within_tolerance), (100, 1, false), "most have never answered");
    }
}
