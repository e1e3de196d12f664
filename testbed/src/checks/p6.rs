//! P6, delivery: when faults stop, every live receiver comes to hold the latest of all it subscribed to, in time.

use super::{
    CheckReport, Findings,
    facts::{Facts, is_receiver, version},
};
use crate::trace::{Event, Kind};
use acms_engine::protocol::Prefix;
use std::{collections::BTreeMap, time::Duration};

const TITLE: &str = "delivery: every live receiver ends with the latest, in time";
const PROMISE: &str = "When faults stop, every live receiver holds the latest agreed publication of every subscribed, \
                       visible path, within one back-off, one resend, one merge and one hold interval and the transfers.";

/// One back-off (5 s), one resend interval (5 s), one merge interval (20 s), one hold (25 s), and 10 s for transfers.
pub const BOUND: Duration = Duration::from_secs(5 + 5 + 20 + 25 + 10);

/// Every live receiver's final state has the latest agreed UID of each subscribed path, applied within [`BOUND`] of its
/// agreement or of the end of the last fault.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    let mut subscriptions: BTreeMap<&str, Vec<Prefix>> = BTreeMap::new();
    let mut state: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    let mut applied: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    for event in facts.trace.events().iter().filter(|event| is_receiver(&event.process)) {
        let Some(path) = event.path.as_deref() else { continue };
        match event.kind {
            Kind::Subscribe => {
                subscriptions.entry(&event.process).or_default().extend(path.parse::<Prefix>());
            }
            Kind::AuditState => drop(state.insert((&event.process, path), event)),
            Kind::Applied => {
                // The first that reaches the latest is what counts; while they grow, that is the last to differ.
                let known = applied.entry((&event.process, path)).or_insert(event);
                if known.uid < event.uid {
                    *known = event;
                }
            }
            _ => {}
        }
    }
    for receiver in &facts.live_receivers {
        if !facts.audited.contains(receiver) {
            findings.violated(|| format!("{receiver} lives, but its audit is not complete"));
            continue;
        }
        for (path, latest) in &facts.latest {
            if !subscriptions.get(receiver).is_some_and(|prefixes| prefixes.iter().any(|prefix| prefix.covers(path))) {
                continue;
            }
            findings.looked_at(1);
            judge(facts, &mut findings, latest, state.get(&(*receiver, *path)), receiver);
            judge_time(facts, &mut findings, latest, applied.get(&(*receiver, *path)));
        }
    }
    findings.report("P6", TITLE, PROMISE)
}

fn judge(facts: &Facts<'_>, findings: &mut Findings, latest: &Event, held: Option<&&Event>, receiver: &str) {
    let Some(held) = held else {
        return findings.violated(|| format!("never delivered: {receiver} does not have {latest}"));
    };
    let is_newer_agreed = version(held).is_some_and(|version| facts.agreed.contains_key(&version));
    if held.uid < latest.uid || (held.uid > latest.uid && !is_newer_agreed) {
        findings.violated(|| format!("not the latest: {held} instead of {latest}"));
    }
}

fn judge_time(facts: &Facts<'_>, findings: &mut Findings, latest: &Event, applied: Option<&&Event>) {
    // What only the audit knows to be agreed has no time of agreement.
    let Some(applied) = applied.filter(|applied| applied.uid == latest.uid && latest.kind != Kind::AuditSp) else {
        return;
    };
    let from_ns = latest.time_ns.max(facts.faults_end_ns);
    let took = Duration::from_nanos(applied.time_ns.saturating_sub(from_ns));
    if took > BOUND {
        findings.violated(|| format!("late: {applied} came {took:?} after {latest} and the last fault"));
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

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
        let trace = trace(&format!("{RUN}\n{text}"));
        let report = check(&Facts::of(&trace));
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
        assert!(!check(&Facts::of(&trace("2 sp1 agreed path=etc/a uid=10.1.0"))).held);
    }
}
