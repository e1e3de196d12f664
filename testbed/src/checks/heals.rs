//! Once all faults have stopped, the system is as good as new: publishing works at each storage point, and every as-of
//! moves on.
//!
//! A run that says so in its phases publishes a probe at each storage point (phase `probe`) after all has come to rest.
//! Keeps one number for each process.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, ProcessId, Seen, names},
    trace::Kind,
};
use acms_engine::protocol::SpSet;
use std::collections::BTreeMap;

const TITLE: &str = "healing: after the faults each storage point accepts, and every as-of moves on";
const PROMISE: &str = "Once faults have stopped, a publication at any storage point is accepted, and the as-of of every \
                       storage point and receiver passes the end of the faults, in time.";

/// Each storage point has accepted a probe; the last as-of of each live storage point and receiver is at least the true
/// time at which the last fault ended, as the slowest clock shows it.
#[derive(Debug, Default)]
pub(crate) struct Heals {
    findings: Findings,
    is_probed: bool,
    accepted: SpSet,
    as_of_us: BTreeMap<ProcessId, u64>,
}

impl Check for Heals {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        match event.kind {
            Kind::Phase => self.is_probed |= event.cause.as_deref() == Some("probe"),
            Kind::Outcome if self.is_probed && event.outcome.as_deref() == Some("accepted") => {
                if let (Some(uid), Some("probe")) = (event.uid, facts.phases.last().map(|phase| &**phase)) {
                    self.accepted = self.accepted.union(SpSet::one(uid.sp));
                }
            }
            Kind::AsOf | Kind::Current => {
                let as_of_us = event.cause.as_deref().and_then(|cause| cause.parse().ok()).unwrap_or(0);
                let known = self.as_of_us.entry(seen.process).or_default();
                *known = as_of_us.max(*known);
            }
            // What it claimed in another life it may have forgotten.
            Kind::Start => drop(self.as_of_us.remove(&seen.process)),
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if !self.is_probed {
            self.findings.void = Some("not judged: no probes were published after the faults".to_owned());
            return self.findings.report("heals", TITLE, PROMISE);
        }
        let started = facts.sps().filter(|(_, process)| process.is_started && process.is_up);
        let started: SpSet = started.filter_map(|(_, process)| process.sp()).collect();
        self.findings.looked_at(started.len() as u64);
        let deaf = started.minus(self.accepted);
        if deaf != SpSet::EMPTY {
            self.findings.violated(|| format!("no probe was accepted: at {}", names(deaf)));
        }
        let slow_us = facts.clocks.slowest_us(facts.now_ns).min(0).unsigned_abs();
        let Some(wanted_us) = facts.clocks.true_us(facts.faults_end_ns).map(|us| us.saturating_sub(slow_us)) else {
            return self.findings.report("heals", TITLE, PROMISE);
        };
        for (id, process) in facts.processes().filter(|(_, process)| process.is_started && process.is_up) {
            if process.sp().is_none() && !(process.is_receiver() && facts.has_subscribed(id)) {
                continue;
            }
            self.findings.looked_at(1);
            let as_of_us = self.as_of_us.get(&id).copied().unwrap_or(0);
            if as_of_us < wanted_us {
                let name = &process.name;
                self.findings.violated(|| {
                    format!("its as-of stands still: {name} ends with {as_of_us}, the last fault ended at {wanted_us}")
                });
            }
        }
        self.findings.report("heals", TITLE, PROMISE)
    }
}

#[cfg(test)]
mod tests {
    use super::Heals;
    use crate::checks::testing::{held, judge};

    /// True time is 1,000 s ahead of the trace's.
    const RUN: &str = "
        0 testbed wall cause=1000000000
        1 sp1 start
        1 receiver1 start
        1 receiver1 subscribe path=a
        5 testbed fault outcome=kill cause=sp1
        6 testbed fault_undone outcome=kill cause=sp1
        8 testbed phase cause=probe
        8 publisher invoke key=p1 path=a/p
        9 publisher outcome key=p1 path=a/p uid=20.1.0 outcome=accepted
        10 sp1 as_of cause=1007000000
        11 receiver1 current cause=1006500000";

    #[test]
    fn who_accepts_and_moves_on_holds() {
        let report = judge::<Heals>(RUN);
        assert!(report.held && report.events == 3, "{:?}", report.violations);
        let slow = RUN.replace("cause=1007000000", "cause=1003000000").replace("cause=1006500000", "cause=1002000000");
        assert!(held::<Heals>(&format!("{slow}\n 2 sp1 clock cause=-5000000")).0, "a slow clock holds as-ofs back");
    }

    #[test]
    fn who_does_not_is_named() {
        for (from, to, word) in [
            ("uid=20.1.0 outcome=accepted", "outcome=rejected", "no probe was accepted: at sp1"),
            ("1007000000", "1005000000", "stands still: sp1"),
            ("11 receiver1 current cause=1006500000", "", "stands still: receiver1"),
            ("10 sp1 as_of", "10 sp1 as_of cause=1007000000\n 11 sp1#1 start\n 10 sp2 as_of", "stands still: sp1"),
        ] {
            let (ok, why) = held::<Heals>(&RUN.replace(from, to));
            assert!(!ok && why.contains(word), "{to}: {why}");
        }
    }

    #[test]
    fn without_probes_it_is_void() {
        assert!(judge::<Heals>("1 sp1 start").note.is_some());
    }
}
