//! P4, monotone receivers: what a receiver applies to a path never has a smaller UID than what it applied before.

use super::{
    CheckReport, Findings,
    facts::{Facts, is_receiver, version},
};
use crate::trace::{Event, Kind};
use std::collections::BTreeMap;

const TITLE: &str = "monotone receivers: none goes back to an older version";
const PROMISE: &str = "A receiver never goes back to a smaller UID on a path, across restarts and changes of source.";

/// Per receiver and path, the UIDs applied, and at last the one found in its state, never go down.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    let mut last: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    for event in facts.trace.events() {
        if !matches!(event.kind, Kind::Applied | Kind::AuditState) || !is_receiver(&event.process) {
            continue;
        }
        let Some((path, uid)) = version(event) else { continue };
        findings.looked_at(1);
        let known = last.entry((&event.process, path)).or_insert(event);
        if known.uid > Some(uid) {
            findings.violated(|| format!("went back on {path}: from {known} to {event}"));
        }
        *known = event;
    }
    findings.report("P4", TITLE, PROMISE)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

    #[test]
    fn growing_uids_hold_per_receiver_and_path_across_restarts() {
        let trace = trace(
            "1 receiver1 applied path=a uid=10.1.0
             1 receiver1 applied path=b uid=3.1.0
             1 receiver2 applied path=a uid=5.1.0
             3 receiver1 exit
             4 receiver1#1 applied path=a uid=10.1.0
             5 receiver1#1 applied path=a uid=11.1.0
             6 receiver1#1 audit_state path=a uid=11.1.0",
        );
        let report = check(&Facts::of(&trace));
        assert!(report.held, "{:?}", report.violations);
        assert_eq!(report.events, 6);
    }

    #[test]
    fn a_step_back_is_named_even_across_a_restart_or_in_the_audit() {
        for back in ["4 receiver1#1 applied path=a uid=9.1.0", "4 receiver1 audit_state path=a uid=9.1.0"] {
            let trace = trace(&format!("1 receiver1 applied path=a uid=10.1.0\n{back}"));
            let report = check(&Facts::of(&trace));
            assert!(!report.held);
            assert!(report.violations[0].contains("10.1.0") && report.violations[0].contains("9.1.0"));
        }
    }

    #[test]
    fn without_receivers_it_is_not_exercised() {
        assert!(!check(&Facts::of(&trace("1 sp1 start"))).held);
    }
}
