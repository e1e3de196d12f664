//! P6, delivery: when faults stop, every live receiver comes to hold the latest of all it subscribed to, in time.
//!
//! Judged while the run goes on: what became known as agreed is at all its live subscribers [`BOUND`] later, unless faults,
//! deaths or links that went and came lie in between. Then it is looked at again, as long as it is the latest of its path.
//! And judged at the end: there everything is demanded.
//!
//! Keeps of each path what is due, and what came later than the bound after its agreement: whether faults excuse that is
//! known at the end.

use super::{Check, CheckReport, Findings, bound_ns};
use crate::{
    facts::{Facts, PathId, ProcessId, Seen, VersionId},
    trace::{Event, Kind},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

const TITLE: &str = "delivery: every live receiver ends with the latest, in time";
const PROMISE: &str = "When faults stop, every live receiver holds the latest agreed publication of every subscribed, \
                       visible path, within one back-off, one resend, one merge and one hold interval and the transfers.";

/// One back-off (5 s), one resend interval (5 s), one merge interval (20 s), one hold (25 s), and 10 s for transfers.
pub const BOUND: Duration = Duration::from_secs(5 + 5 + 20 + 25 + 10);

/// Every live receiver's final state has the latest agreed UID of each subscribed path, applied within [`BOUND`] of its
/// agreement, of the end of the last fault, or of the receiver's own start.
#[derive(Debug, Default)]
pub(crate) struct P6 {
    findings: Findings,
    /// The last that came late to a receiver's path.
    late: BTreeMap<(ProcessId, PathId), (VersionId, Event)>,
    /// Paths that receivers said they cannot hold.
    blocked: BTreeSet<(ProcessId, PathId)>,
    /// When subscribers should have them.
    due: VecDeque<(u64, VersionId)>,
    /// When a fault, a link, a storage point or a cache last came or went.
    disturbed_ns: u64,
}

impl Check for P6 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        self.look_again(seen, facts);
        let (Some(path), true) = (seen.path, facts.process(seen.process).is_receiver()) else { return };
        match (event.kind, seen.version) {
            (Kind::Applied, Some(version)) if facts.uid(seen.before.kept) < event.uid => {
                // The first that reaches the latest is what counts; what was agreed only later is not late.
                let agreed = facts.version(version).agreed;
                if agreed.is_some_and(|agreed| is_late(agreed.time_ns, event.time_ns)) {
                    self.late.insert((seen.process, path), (version, event.clone()));
                } else if !self.late.is_empty() {
                    self.late.remove(&(seen.process, path));
                }
                if !self.blocked.is_empty() {
                    self.blocked.remove(&(seen.process, path));
                }
            }
            (Kind::Blocked, _) if facts.may_be_blocked(path) => drop(self.blocked.insert((seen.process, path))),
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        let latest: Vec<(PathId, VersionId)> = facts
            .paths_by_name()
            .into_iter()
            .filter(|path| !facts.is_hidden(*path))
            .filter_map(|path| Some((path, facts.latest(path)?)))
            .collect();
        let live =
            facts.processes().filter(|(_, process)| process.is_receiver() && process.is_started && process.is_up);
        for (_, process) in live {
            if !process.is_audited {
                self.findings.violated(|| format!("its audit is not complete: {} lives", process.name));
            }
        }
        for (path, latest) in latest {
            for (receiver, process) in facts.subscribers(path) {
                if process.is_up && process.is_audited && !self.blocked.contains(&(receiver, path)) {
                    self.findings.looked_at(1);
                    self.judge(facts, receiver, path, latest);
                }
            }
        }
        self.findings.report("P6", TITLE, PROMISE)
    }
}

fn is_late(from_ns: u64, to_ns: u64) -> bool {
    Duration::from_nanos(to_ns.saturating_sub(from_ns)) > BOUND
}

impl P6 {
    /// What is due is judged, if all was quiet for long enough.
    fn look_again(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        match event.kind {
            Kind::Fault | Kind::FaultUndone | Kind::LinkUp | Kind::LinkDown => self.disturbed_ns = event.time_ns,
            Kind::Start | Kind::Exit if !facts.process(seen.process).is_receiver() => self.disturbed_ns = event.time_ns,
            _ => {}
        }
        if facts.audit_ns.is_some() {
            return;
        }
        if let Some(version) = seen.version.filter(|_| seen.is_first_agreed) {
            self.due.push_back((event.time_ns + bound_ns(), version));
            if facts.version(version).is_deletion {
                // What was hidden by it comes to light.
                let path = facts.version(version).path;
                let shown = facts.above_and_below(path).filter_map(|path| facts.path(path).latest);
                self.due.extend(shown.map(|version| (event.time_ns + bound_ns(), version)));
            }
        }
        while let Some((_, version)) = self.due.pop_front_if(|(due_ns, _)| *due_ns <= event.time_ns) {
            let path = facts.version(version).path;
            if facts.path(path).latest != Some(version) {
                // The newer one has a time of its own.
                continue;
            }
            if facts.faults_open > 0 || self.disturbed_ns + bound_ns() > event.time_ns {
                self.due.push_back((event.time_ns + bound_ns(), version));
            } else if !facts.is_hidden(path) {
                self.judge_due(facts, path, version);
            }
        }
    }

    /// All who subscribe to it and have run for long enough have it.
    fn judge_due(&mut self, facts: &Facts, path: PathId, version: VersionId) {
        let since_ns = facts.now_ns.saturating_sub(bound_ns());
        for (receiver, process) in facts.subscribers(path).filter(|(_, process)| process.ran_since(since_ns)) {
            self.findings.looked_at(1);
            let held = facts.held(receiver, path).kept;
            let excused = || self.blocked.contains(&(receiver, path)) || facts.is_hidden_from(receiver, version);
            if facts.uid(held) < facts.uid(Some(version)) && !excused() {
                let (name, latest, now_ns) = (&process.name, facts.show(version), facts.now_ns);
                self.findings.violated(|| {
                    format!("not delivered in {BOUND:?} without a fault: {name} does not have {latest} at {now_ns} ns")
                });
            }
        }
    }

    fn judge(&mut self, facts: &Facts, receiver: ProcessId, path: PathId, latest: VersionId) {
        let process = facts.process(receiver);
        let Some(held) = facts.found(receiver, path) else {
            return self
                .findings
                .violated(|| format!("never delivered: {} does not have {}", process.name, facts.show(latest)));
        };
        let is_newer_agreed = facts.version(held).agreed.is_some() && facts.uid(Some(held)) > facts.uid(Some(latest));
        if held != latest && !is_newer_agreed {
            let (held, latest) = (facts.show(held), facts.show(latest));
            return self
                .findings
                .violated(|| format!("not the latest: {} has {held} instead of {latest}", process.name));
        }
        let Some((_, applied)) = self.late.get(&(receiver, path)).filter(|(version, _)| *version == latest) else {
            return;
        };
        let agreed = facts.version(latest).agreed;
        // What only the audit knows to be agreed has no time of agreement.
        let Some(agreed) = agreed.filter(|agreed| agreed.kind != Kind::AuditSp) else { return };
        let from_ns = agreed.time_ns.max(facts.faults_end_ns).max(process.life_ns);
        if is_late(from_ns, applied.time_ns) {
            let took = Duration::from_nanos(applied.time_ns - from_ns);
            let latest = facts.show(latest);
            self.findings.violated(|| format!("late: {applied} came {took:?} after {latest} and the last fault"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::P6;
    use crate::checks::testing::judge;

    const RUN: &str = "
        1 receiver1 start
        1 receiver1 subscribe path=etc
        1 receiver2 start
        1 receiver2 subscribe path=other
        2 sp1 agreed path=etc/a uid=10.1.0
        2 sp1 agreed path=else/b uid=11.1.0
        3 sp1 agreed path=etc/a uid=12.1.0
        90 testbed phase cause=audit
        92 receiver1 audit_end outcome=complete
        92 receiver2 audit_end outcome=complete";

    fn held(text: &str) -> (bool, u64, String) {
        let report = judge::<P6>(&format!("{RUN}\n{text}"));
        (report.held, report.events, report.violations.join("\n"))
    }

    #[test]
    fn the_latest_of_each_subscribed_path_holds() {
        let (ok, events, why) = held(
            "4 receiver1 applied path=etc/a uid=12.1.0
             91 receiver1 audit_state path=etc/a uid=12.1.0",
        );
        assert!(ok, "{why}");
        assert_eq!(events, 1);
    }

    #[test]
    fn missing_old_and_late_entries_are_named() {
        let audit = "91 receiver1 audit_state path=etc/a uid=12.1.0";
        for (lines, word) in [
            (String::new(), "never delivered"),
            ("91 receiver1 audit_state path=etc/a uid=10.1.0".to_owned(), "not the latest"),
            ("91 receiver1 audit_state path=etc/a uid=13.1.0".to_owned(), "not the latest"),
            (format!("80 receiver1 applied path=etc/a uid=12.1.0\n{audit}"), "late"),
            (format!("1 receiver3 start\n{audit}"), "audit is not complete"),
        ] {
            let (ok, _, why) = held(&lines);
            assert!(!ok && why.contains(word), "{lines}: {why}");
        }
    }

    #[test]
    fn the_bound_counts_from_the_last_fault_and_only_live_receivers_count() {
        let (ok, _, why) = held(
            "30 testbed fault_undone
             80 receiver1 applied path=etc/a uid=12.1.0
             91 receiver1 audit_state path=etc/a uid=12.1.0
             1 receiver3 start
             1 receiver3 subscribe path=etc
             20 receiver3 exit",
        );
        assert!(ok, "{why}");
    }

    #[test]
    fn without_live_receivers_it_is_not_exercised() {
        assert!(!judge::<P6>("2 sp1 agreed path=etc/a uid=10.1.0").held);
    }

    #[test]
    fn hidden_paths_and_what_was_agreed_during_the_audit_are_not_demanded() {
        let state = "91 receiver1 audit_state path=etc/a uid=12.1.0";
        let (ok, _, why) = held(&format!(
            "3 sp1 agreed path=etc/b uid=13.1.0\n 4 sp1 agreed path=etc/b/c uid=14.1.0\n{state}
             91 receiver1 audit_state path=etc/b/c uid=14.1.0"
        ));
        assert!(ok, "{why}");
        let (ok, _, why) = held(&format!("{state}\n 91 sp1 agreed path=etc/z uid=15.1.0"));
        assert!(ok, "{why}");
        let (ok, _, why) = held(&format!("3 sp1 agreed path=etc/z uid=15.1.0\n{state}"));
        assert!(!ok && why.contains("never delivered"), "{why}");
    }

    #[test]
    fn blocked_paths_block_only_themselves() {
        let (ok, _, why) = held(
            "3 sp1 agreed path=etc/B uid=13.1.0
             3 sp1 agreed path=etc/b uid=12.1.0
             4 receiver1 blocked path=etc/B cause=case
             91 receiver1 audit_state path=etc/b uid=12.1.0
             91 receiver1 audit_state path=etc/a uid=12.1.0",
        );
        assert!(ok, "{why}");
        let (ok, _, why) = held(
            "0 testbed config outcome=backend cause=simulated
             4 receiver1 blocked path=etc/a cause=whim",
        );
        assert!(!ok && why.contains("never delivered"), "nothing is in its way: {why}");
    }

    #[test]
    fn who_is_stuck_in_a_quiet_stretch_is_named_though_it_recovers() {
        let run = "
            1 receiver1 start
            1 receiver1 subscribe path=etc
            1 receiver2 start
            1 receiver2 subscribe path=etc
            100 sp1 agreed path=etc/a uid=10.1.0
            101 receiver1 applied path=etc/a uid=10.1.0";
        let end = "
            3000 receiver2 applied path=etc/a uid=10.1.0
            3000 testbed fault outcome=kill cause=sp1
            3001 testbed fault_undone outcome=kill cause=sp1
            4000 testbed phase cause=audit
            4001 receiver1 audit_state path=etc/a uid=10.1.0
            4001 receiver2 audit_state path=etc/a uid=10.1.0
            4001 receiver1 audit_end outcome=complete
            4001 receiver2 audit_end outcome=complete";
        let check = |lines: &str| crate::checks::testing::held::<P6>(&format!("{run}\n{lines}\n{end}"));
        let (ok, why) = check("170 testbed usage");
        assert!(!ok && why.contains("without a fault: receiver2"), "{why}");
        for excuse in [
            "102 receiver2 applied path=etc/a uid=10.1.0\n 170 testbed usage",
            "140 sp1 link_down\n 170 testbed usage",
            "90 testbed fault outcome=isolate cause=sp2\n 2999 testbed fault_undone outcome=isolate cause=sp2",
            "140 receiver2 exit\n 141 receiver2#1 start\n 170 testbed usage\n 171 receiver2#1 applied path=etc/a uid=10.1.0",
        ] {
            let (ok, why) = check(excuse);
            assert!(ok, "{excuse}: {why}");
        }
        let (ok, why) = check("140 sp1 link_down\n 170 testbed usage\n 240 testbed usage");
        assert!(!ok && why.contains("without a fault"), "it is looked at again: {why}");
    }
}
