//! Measures a run while it goes on.

use super::{
    Availability, Freshness, Metrics, PhasePublish, Publish, Quantiles, Second,
    convergence::{Convergence, Regions},
    histogram,
    network::NetworkMeter,
    record_ns,
    resources::{Faults, Usages, hosts},
};
use crate::{
    checks::Measured,
    facts::{Clocks, Facts, Key, Seen},
    trace::{Kind, Text},
};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Attempts of one phase.
#[derive(Debug)]
struct PhaseMeter {
    counts: PhasePublish,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    first_due_ns: u64,
    last_outcome_ns: u64,
    /// When the last publication was accepted; before the first, when the phase of updates began.
    last_accepted_ns: Option<u64>,
    has_accepted: bool,
    longest_gap_ns: Option<u64>,
    timeline: Vec<Second>,
}

impl PhaseMeter {
    fn new(begin_ns: Option<u64>) -> PhaseMeter {
        PhaseMeter {
            counts: PhasePublish::default(),
            latency: histogram(),
            late: histogram(),
            first_due_ns: u64::MAX,
            last_outcome_ns: 0,
            last_accepted_ns: begin_ns,
            has_accepted: false,
            longest_gap_ns: None,
            timeline: Vec::new(),
        }
    }

    fn begin(&mut self, key: &Key, now_ns: u64) {
        self.counts.attempted += 1;
        self.first_due_ns = self.first_due_ns.min(key.attempt_due_ns);
        record_ns(&mut self.late, now_ns.saturating_sub(key.attempt_due_ns));
    }

    /// `begin_ns` is when the updates began, if these are they.
    fn end(&mut self, key: &Key, outcome: &str, now_ns: u64, begin_ns: Option<u64>) {
        self.last_outcome_ns = now_ns;
        let mut second = Second::default();
        match outcome {
            "accepted" => {
                self.counts.accepted += 1;
                second.accepted = 1;
                if key.heard.accepted == 1 {
                    record_ns(&mut self.latency, now_ns.saturating_sub(key.due_ns.unwrap_or(now_ns)));
                }
                self.has_accepted = true;
                if let Some(last_ns) = self.last_accepted_ns.replace(now_ns) {
                    self.longest_gap_ns = self.longest_gap_ns.max(Some(now_ns - last_ns));
                }
            }
            "rejected" => (self.counts.rejected, second.rejected) = (self.counts.rejected + 1, 1),
            _ => (self.counts.undetermined, second.undetermined) = (self.counts.undetermined + 1, 1),
        }
        let Some(begin_ns) = begin_ns else { return };
        let at = (now_ns.saturating_sub(begin_ns) / 1_000_000_000) as usize;
        if self.timeline.len() <= at {
            self.timeline.resize(at + 1, Second::default());
        }
        let sum = &mut self.timeline[at];
        sum.accepted += second.accepted;
        sum.rejected += second.rejected;
        sum.undetermined += second.undetermined;
    }

    fn finish(&mut self) -> PhasePublish {
        let mut counts = std::mem::take(&mut self.counts);
        let seconds = self.last_outcome_ns.saturating_sub(self.first_due_ns) as f64 / 1e9;
        let per_s = if seconds > 0.0 { counts.accepted as f64 / seconds } else { 0.0 };
        counts.per_s = (per_s * 1000.0).round() / 1000.0;
        counts.latency_ms = Quantiles::with_intervals(&self.latency);
        counts
    }

    fn availability(&self) -> Availability {
        // Attempts that were not accepted may be the last ones.
        let last = self.last_accepted_ns.map(|last_ns| self.last_outcome_ns.saturating_sub(last_ns));
        let longest = self.longest_gap_ns.max(last).filter(|_| self.has_accepted);
        Availability { longest_gap_ms: longest.map(|ns| (ns as f64 / 1e3).round() / 1e3) }
    }
}

/// Takes the events of a run in the order of time.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    begin_ns: Option<u64>,
    updates_ns: Option<u64>,
    phases: BTreeMap<String, PhaseMeter>,
    /// Of the updates; until they begin, of the load.
    convergence: Convergence,
    usages: Usages,
    faults: Faults,
    network: NetworkMeter,
}

impl Meter {
    /// Of hosts in these regions.
    pub(crate) fn in_regions(regions: BTreeMap<Text, Text>) -> Meter {
        Meter { convergence: Convergence::within(Regions::new(regions)), ..Meter::default() }
    }

    /// The next event.
    pub(crate) fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        self.begin_ns.get_or_insert(event.time_ns);
        self.network.observe(event);
        self.usages.observe_machine(event);
        match event.kind {
            Kind::Phase if event.cause.as_deref() == Some("updates") && self.updates_ns.is_none() => {
                self.updates_ns = Some(event.time_ns);
                self.convergence = self.convergence.afresh();
            }
            Kind::Invoke | Kind::Outcome => self.observe_attempt(seen, facts),
            Kind::Usage => self.usages.observe(seen.process, event, facts),
            Kind::Fault | Kind::FaultUndone => self.faults.observe(event),
            _ => {}
        }
        if let (true, Some(version)) = (seen.is_first_keyed || seen.is_first_accepted, seen.version)
            && let Some(key) = seen.key.and_then(|key| facts.key(key)).filter(|key| self.is_measured(facts, key))
        {
            // Whichever is known first, that it is agreed or that it is accepted, begins it; the other is no news.
            let is_old = if seen.is_first_keyed {
                facts.version(version).accepted_ns.is_some()
            } else {
                key.versions.contains(&version)
            };
            if !is_old {
                self.convergence.follow(facts, version, key.due_ns.unwrap_or(event.time_ns));
            }
        }
        self.convergence.observe(seen, facts);
    }

    fn is_measured(&self, facts: &Facts, key: &Key) -> bool {
        let measured = if self.updates_ns.is_some() { "updates" } else { "load" };
        key.first.is_some() && &*facts.phases[key.phase as usize] == measured
    }

    fn observe_attempt(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let Some(key) = seen.key.and_then(|key| facts.key(key)).filter(|key| key.first.is_some()) else { return };
        let (name, now_ns) = (&*facts.phases[key.phase as usize], seen.event.time_ns);
        let begin_ns = self.updates_ns.filter(|_| name == "updates");
        if !self.phases.contains_key(name) {
            self.phases.insert(name.to_owned(), PhaseMeter::new(begin_ns));
        }
        let phase = self.phases.get_mut(name).expect("it was made");
        if seen.event.kind == Kind::Invoke {
            phase.begin(key, now_ns);
        } else if let Some(outcome) = seen.event.outcome.as_deref() {
            phase.end(key, outcome, now_ns, begin_ns);
        }
    }

    /// The end of the trace.
    pub(crate) fn finish(mut self, facts: &Facts, measured: &Measured) -> Metrics {
        let begin_ns = self.begin_ns.unwrap_or(0);
        let mut publish = Publish::default();
        let latency_phase = if self.phases.contains_key("updates") { "updates" } else { "load" };
        publish.latency_phase = latency_phase.to_owned();
        for (name, phase) in &mut self.phases {
            let counts = phase.finish();
            publish.attempted += counts.attempted;
            publish.accepted += counts.accepted;
            publish.undetermined += counts.undetermined;
            publish.rejected += counts.rejected;
            publish.phases.insert(name.clone(), counts);
        }
        let chosen = self.phases.remove(latency_phase).unwrap_or_else(|| PhaseMeter::new(None));
        if let Some(counts) = publish.phases.get(latency_phase) {
            (publish.per_s, publish.latency_ms) = (counts.per_s, counts.latency_ms);
            publish.generator_late_ms = Quantiles::of(&chosen.late);
        }
        let (propagation, spread) = self.convergence.finish();
        let (network, round_trips) = self.network.finish();
        let mut histograms = vec![("publish-latency", chosen.latency.clone())];
        histograms.extend(spread);
        histograms.push(("staleness", measured.receivers.clone()));
        histograms.retain(|(_, histogram)| !histogram.is_empty());
        Metrics {
            wall_s: (facts.now_ns - begin_ns) as f64 / 1e9,
            hosts: hosts(facts),
            availability: chosen.availability(),
            freshness: freshness(measured),
            resources: self.usages.finish(facts),
            network,
            round_trips,
            faults: self.faults.finish(self.updates_ns.unwrap_or(begin_ns)),
            histograms,
            timeline: chosen.timeline,
            publish,
            propagation,
        }
    }
}

fn freshness(measured: &Measured) -> Freshness {
    let mut errors = measured.receiver_errors.clone();
    // Both have the same bounds and digits.
    let _ = errors.add(&measured.sp_errors);
    let ms = |us: u64| us as f64 / 1e3;
    let (receiver_error_ms_max, storage_point_error_ms_max) =
        (ms(measured.receiver_error_us_max), ms(measured.sp_error_us_max));
    Freshness {
        receiver_staleness_ms: Quantiles::of(&measured.receivers),
        storage_point_staleness_ms: Quantiles::of(&measured.storage_points),
        claims: measured.claims,
        epsilon_ms: Clocks::ERROR_US_MAX as f64 / 1e3,
        error_ms: Quantiles::of(&errors),
        error_ms_max: receiver_error_ms_max.max(storage_point_error_ms_max),
        receiver_errors: measured.receiver_errors.len(),
        receiver_error_ms_max,
        storage_point_errors: measured.sp_errors.len(),
        storage_point_error_ms_max,
    }
}
