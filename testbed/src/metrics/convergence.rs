//! How publications spread: when each receiver had each publication, or a newer one of its path.
//!
//! Keeps the publications that are still spreading, each with a time for every receiver that has it.

use super::{Propagation, Quantiles, histogram, record_ns};
use crate::{
    facts::{Facts, Held, PathId, ProcessId, Seen, VersionId},
    trace::{Kind, Text},
};
use acms_engine::protocol::Uid;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;

/// Parts of the fleet whose time is measured, in thousandths, how many receivers that needs, and what their distribution is
/// called.
pub(super) const FRACTIONS: [(&str, u64, usize, &str); 5] = [
    ("50", 500, 1, "convergence-50"),
    ("90", 900, 10, "convergence-90"),
    ("99", 990, 100, "convergence-99"),
    ("99.9", 999, 1000, "convergence-99.9"),
    ("100", 1000, 1, "convergence-100"),
];

/// A publication on its way to the receivers that run since it was due.
#[derive(Debug)]
struct Spreading {
    uid: Uid,
    due_ns: u64,
    /// How long each receiver took that has it.
    latencies_ns: Vec<u64>,
    /// Receivers that have not verified it.
    outstanding: u64,
    /// Receivers that have not applied it.
    not_applied: u64,
}

/// All publications of the measured phase.
#[derive(Debug)]
pub(super) struct Convergence {
    spreading: BTreeMap<PathId, Vec<Spreading>>,
    per_receiver: Histogram<u64>,
    applied: Histogram<u64>,
    fractions: [Histogram<u64>; 5],
    /// Publications with enough receivers for each part, whether or not it was reached.
    measured: [u64; 5],
    regions: Regions,
    expected: u64,
    made: u64,
}

/// Receivers by region, as far as that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Regions {
    /// The region of each host.
    of: BTreeMap<Text, Text>,
    /// Looked up once for each process.
    found: BTreeMap<ProcessId, Option<Text>>,
    per_receiver: BTreeMap<Text, Histogram<u64>>,
}

impl Regions {
    /// Where hosts stand.
    pub(super) fn new(of: BTreeMap<Text, Text>) -> Regions {
        Regions { of, ..Regions::default() }
    }

    fn record(&mut self, facts: &Facts, receiver: ProcessId, ns: u64) {
        if self.of.is_empty() {
            return;
        }
        let of = &self.of;
        let found = self.found.entry(receiver).or_insert_with(|| of.get(&facts.process(receiver).name).cloned());
        if let Some(region) = found {
            if !self.per_receiver.contains_key(region) {
                self.per_receiver.insert(Text::clone(region), histogram());
            }
            record_ns(self.per_receiver.get_mut(region).expect("it is there"), ns);
        }
    }
}

impl Default for Convergence {
    fn default() -> Convergence {
        Convergence {
            spreading: BTreeMap::new(),
            per_receiver: histogram(),
            applied: histogram(),
            fractions: FRACTIONS.map(|_| histogram()),
            measured: [0; 5],
            regions: Regions::default(),
            expected: 0,
            made: 0,
        }
    }
}

impl Convergence {
    /// Has seen nothing, of receivers in these regions.
    pub(super) fn within(regions: Regions) -> Convergence {
        Convergence { regions, ..Convergence::default() }
    }

    /// The same hosts, of which nothing has been seen.
    pub(super) fn afresh(&self) -> Convergence {
        Convergence::within(Regions::new(self.regions.of.clone()))
    }

    /// Begins to follow a publication that is agreed or accepted.
    pub(super) fn follow(&mut self, facts: &Facts, id: VersionId, due_ns: u64) {
        let version = facts.version(id);
        let spreading = self.spreading.entry(version.path).or_default();
        if spreading.iter().any(|known| known.uid == version.uid) {
            return;
        }
        let (latencies_ns, outstanding, not_applied) = (Vec::new(), 0, 0);
        let mut new = Spreading { uid: version.uid, due_ns, latencies_ns, outstanding, not_applied };
        for (receiver, process) in facts.processes() {
            if !process.is_receiver() || !process.ran_since(due_ns) || !facts.wants(receiver, version.path) {
                continue;
            }
            // It may have been overtaken before anybody told that it is agreed.
            let held = facts.held(receiver, version.path);
            if facts.uid(held.verified) >= Some(version.uid) {
                let ns = held.verified_ns.saturating_sub(due_ns);
                new.latencies_ns.push(ns);
                record_ns(&mut self.per_receiver, ns);
                self.regions.record(facts, receiver, ns);
            } else {
                new.outstanding += 1;
            }
            new.not_applied += u64::from(facts.uid(held.kept) < Some(version.uid));
        }
        spreading.push(new);
        self.settle(version.path);
    }

    pub(super) fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        if let Some(receiver) = seen.went_down.filter(|process| facts.process(*process).is_receiver()) {
            self.take_out(facts, receiver);
        }
        let (Kind::Verified | Kind::Applied, Some(path)) = (seen.event.kind, seen.path) else { return };
        let Some(spreading) = self.spreading.get_mut(&path) else { return };
        let process = facts.process(seen.process);
        if !process.is_receiver() || !facts.wants(seen.process, path) {
            return;
        }
        let (uid, Held { verified, kept, .. }) = (seen.event.uid, seen.before);
        let before = facts.uid(if seen.event.kind == Kind::Verified { verified } else { kept });
        let mut is_settled = false;
        for publication in spreading.iter_mut() {
            let is_new = before < Some(publication.uid) && uid >= Some(publication.uid);
            if !is_new || !process.ran_since(publication.due_ns) {
                continue;
            }
            let ns = seen.event.time_ns.saturating_sub(publication.due_ns);
            if seen.event.kind == Kind::Verified {
                record_ns(&mut self.per_receiver, ns);
                self.regions.record(facts, seen.process, ns);
                publication.latencies_ns.push(ns);
                publication.outstanding = publication.outstanding.saturating_sub(1);
            } else {
                record_ns(&mut self.applied, ns);
                publication.not_applied = publication.not_applied.saturating_sub(1);
            }
            is_settled |= publication.is_settled();
        }
        if is_settled {
            self.settle(path);
        }
    }

    /// A receiver that goes down is not expected to get what it does not have.
    fn take_out(&mut self, facts: &Facts, receiver: ProcessId) {
        let up_since_ns = facts.process(receiver).up_since_ns;
        let mut settled = Vec::new();
        for (path, spreading) in &mut self.spreading {
            if !facts.wants(receiver, *path) {
                continue;
            }
            let held = facts.held(receiver, *path);
            for publication in spreading.iter_mut().filter(|publication| up_since_ns <= publication.due_ns) {
                let lacks = |held| u64::from(facts.uid(held) < Some(publication.uid));
                publication.outstanding = publication.outstanding.saturating_sub(lacks(held.verified));
                publication.not_applied = publication.not_applied.saturating_sub(lacks(held.kept));
            }
            settled.push(*path);
        }
        settled.into_iter().for_each(|path| self.settle(path));
    }

    /// Sums up what has reached all.
    fn settle(&mut self, path: PathId) {
        let Some(spreading) = self.spreading.get_mut(&path) else { return };
        let settled: Vec<Spreading> = spreading.extract_if(.., |publication| publication.is_settled()).collect();
        if spreading.is_empty() {
            self.spreading.remove(&path);
        }
        settled.into_iter().for_each(|publication| self.sum_up(publication));
    }

    fn sum_up(&mut self, publication: Spreading) {
        let Spreading { mut latencies_ns, outstanding, .. } = publication;
        let expected = latencies_ns.len() as u64 + outstanding;
        self.expected += expected;
        self.made += latencies_ns.len() as u64;
        latencies_ns.sort_unstable();
        let kept = self.fractions.iter_mut().zip(&mut self.measured);
        for ((_, thousandths, receivers_min, _), (histogram, measured)) in FRACTIONS.iter().zip(kept) {
            if expected < *receivers_min as u64 {
                continue;
            }
            *measured += 1;
            let needed = (expected * thousandths).div_ceil(1000) as usize;
            if let Some(ns) = needed.checked_sub(1).and_then(|i| latencies_ns.get(i)) {
                record_ns(histogram, *ns);
            }
        }
    }

    /// Propagation, and its distributions, by name.
    pub(super) fn finish(mut self) -> (Propagation, Vec<(&'static str, Histogram<u64>)>) {
        let left: Vec<Spreading> = std::mem::take(&mut self.spreading).into_values().flatten().collect();
        left.into_iter().for_each(|publication| self.sum_up(publication));
        let named = FRACTIONS.iter().zip(&self.fractions);
        let propagation = Propagation {
            per_receiver_ms: Quantiles::of(&self.per_receiver),
            applied_ms: Quantiles::of(&self.applied),
            convergence_ms: named
                .map(|((name, ..), histogram)| ((*name).to_owned(), Quantiles::with_intervals(histogram)))
                .collect(),
            convergence_of: FRACTIONS
                .iter()
                .zip(self.measured)
                .map(|((name, ..), measured)| ((*name).to_owned(), measured))
                .collect(),
            by_region: self
                .regions
                .per_receiver
                .iter()
                .map(|(region, histogram)| (region.to_string(), Quantiles::of(histogram)))
                .collect(),
            deliveries_expected: self.expected,
            deliveries_made: self.made,
        };
        let all = [("propagation", self.per_receiver), ("applied", self.applied)];
        let convergence = FRACTIONS.iter().map(|(.., file)| *file).zip(self.fractions);
        (propagation, all.into_iter().chain(convergence).collect())
    }
}

impl Spreading {
    fn is_settled(&self) -> bool {
        self.outstanding == 0 && self.not_applied == 0
    }
}

#[cfg(test)]
mod tests {
    use crate::{checks::testing::trace, metrics::Metrics};

    const RUN: &str = "
        1 receiver1 start
        1 receiver1 subscribe path=a
        1 receiver2 start
        1 receiver2 subscribe path=a
        1 receiver3 start
        1 receiver3 subscribe path=b
        10 testbed phase cause=updates
        10 publisher invoke key=k1 path=a/x
        11 publisher outcome key=k1 uid=10.1.0 outcome=accepted
        12 receiver1 verified path=a/x uid=10.1.0
        13 publisher invoke key=k2 path=a/x
        14 publisher outcome key=k2 uid=11.1.0 outcome=accepted
        15 receiver2 verified path=a/x uid=11.1.0
        16 receiver1 verified path=a/x uid=11.1.0";

    #[test]
    fn a_newer_one_counts_and_only_subscribers_are_expected() {
        let propagation = Metrics::of(&trace(RUN)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (4, 4));
        let max = |name: &str| propagation.convergence_ms[name].max.unwrap().round();
        assert_eq!(max("100"), 5001.0, "receiver2 had k1 by k2, five seconds after k1 was due");
        assert_eq!(propagation.convergence_ms["50"].p50.unwrap().round(), 2001.0);
        assert_eq!(propagation.convergence_ms["99"].samples, 0, "99 % of two receivers is not a thing");
    }

    #[test]
    fn receivers_that_are_down_are_not_expected_to_have_anything() {
        let down = format!("{RUN}\n14 receiver2 exit\n 14 receiver2#1 start\n");
        let propagation = Metrics::of(&trace(&down)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (2, 2));
        let lost = RUN.replace("16 receiver1 verified path=a/x uid=11.1.0", "");
        let propagation = Metrics::of(&trace(&lost)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (4, 3));
        assert_eq!(propagation.convergence_ms["100"].samples, 1);
    }

    #[test]
    fn who_was_paused_while_it_spread_is_not_expected_and_an_overtaken_one_counts_from_the_newer() {
        let paused = format!(
            "{RUN}\n14 testbed fault outcome=pause cause=receiver2\n 15 testbed fault_undone outcome=pause cause=receiver2"
        );
        let propagation = Metrics::of(&trace(&paused)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (2, 2));
        // k1 became known only after k2 had spread: both receivers have had a newer one.
        let overtaken = format!(
            "{}\n 17 publisher outcome key=k1 uid=10.1.0 outcome=accepted",
            RUN.replace("11 publisher outcome key=k1 uid=10.1.0 outcome=accepted", "")
        );
        let propagation = Metrics::of(&trace(&overtaken)).propagation;
        assert_eq!((propagation.deliveries_expected, propagation.deliveries_made), (4, 4));
        assert_eq!(
            propagation.convergence_ms["100"].max.unwrap().round(),
            6001.0,
            "receiver1 verified k1 at 12, k2 at 16"
        );
    }
}
