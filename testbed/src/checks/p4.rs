//! P4, monotone receivers: what a receiver applies to a path never has a smaller UID than what it applied before.
//!
//! Keeps nothing beside the facts, which know what each receiver holds, over its restarts.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, Seen},
    trace::Kind,
};

const TITLE: &str = "monotone receivers: none goes back to an older version";
const PROMISE: &str = "A receiver never goes back to a smaller UID on a path, across restarts and changes of source.";

/// Per receiver and path, no UID applied, nor at last the one found in its state, is below one applied before.
#[derive(Debug, Default)]
pub(crate) struct P4 {
    findings: Findings,
}

impl Check for P4 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        if !matches!(event.kind, Kind::Applied | Kind::Recovered | Kind::AuditState)
            || !facts.process(seen.process).is_receiver()
        {
            return;
        }
        let Some(version) = seen.version else { return };
        self.findings.looked_at(1);
        if let Some(before) = seen.before.kept.filter(|before| facts.uid(Some(*before)) > facts.uid(Some(version))) {
            self.findings.violated(|| format!("went back: from {} to {event}", facts.show(before)));
        }
    }

    fn finish(self, _facts: &Facts) -> CheckReport {
        self.findings.report("P4", TITLE, PROMISE)
    }
}

#[cfg(test)]
mod tests {
    use super::P4;
    use crate::checks::testing::judge;

    #[test]
    fn growing_uids_hold_per_receiver_and_path_across_restarts() {
        let report = judge::<P4>(
            "1 receiver1 applied path=a uid=10.1.0
             1 receiver1 applied path=b uid=3.1.0
             1 receiver2 applied path=a uid=5.1.0
             3 receiver1 exit
             4 receiver1#1 applied path=a uid=10.1.0
             5 receiver1#1 applied path=a uid=11.1.0
             6 receiver1#1 audit_state path=a uid=11.1.0",
        );
        assert!(report.held, "{:?}", report.violations);
        assert_eq!(report.events, 6);
    }

    #[test]
    fn a_step_back_is_named_even_across_a_restart_or_in_the_audit() {
        for back in [
            "4 receiver1#1 applied path=a uid=9.1.0",
            "4 receiver1#1 recovered path=a uid=9.1.0",
            "4 receiver1 audit_state path=a uid=9.1.0",
        ] {
            let report = judge::<P4>(&format!("1 receiver1 applied path=a uid=10.1.0\n{back}"));
            assert!(!report.held);
            assert!(report.violations[0].contains("10.1.0") && report.violations[0].contains("9.1.0"));
        }
    }

    #[test]
    fn without_receivers_it_is_not_exercised() {
        assert!(!judge::<P4>("1 sp1 start").held);
    }

    #[test]
    fn each_step_below_the_greatest_is_named() {
        let report = judge::<P4>(
            "1 receiver1 applied path=a uid=10.1.0
             2 receiver1 applied path=a uid=8.1.0
             3 receiver1#1 applied path=a uid=9.1.0",
        );
        assert_eq!(report.violations_total, 2, "8 to 9 is not forwards: it had 10");
    }

    #[test]
    fn a_receiver_whose_disk_was_lost_begins_anew() {
        let report = judge::<P4>(
            "1 receiver1 applied path=a uid=10.1.0
             2 testbed fault outcome=disk-lost cause=receiver1
             3 receiver1#1 applied path=a uid=9.1.0",
        );
        assert!(report.held, "{:?}", report.violations);
    }
}
