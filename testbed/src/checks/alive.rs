//! No process ends by itself: a crash that no fault caused is a bug, however well the rest copes with it.

use super::{CheckReport, Findings, facts::Facts};
use crate::trace::Kind;

const TITLE: &str = "no process ends unless it is told to";
const PROMISE: &str = "No process ends unless it is told to or killed.";

/// Every process that was started runs until the testbed ends it.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    for event in facts.trace.events() {
        match event.kind {
            Kind::Start => findings.looked_at(1),
            Kind::Exit if event.outcome.as_deref() == Some("unexpected") => {
                findings.violated(|| format!("ended by itself: {event}"));
            }
            _ => {}
        }
    }
    findings.report("alive", TITLE, PROMISE)
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

    #[test]
    fn only_unexpected_ends_are_violations() {
        let run = "1 sp1 start\n 2 sp1 exit outcome=killed\n 3 sp1#1 start\n 9 sp1#1 exit outcome=stopped";
        assert!(check(&Facts::of(&trace(run))).held);
        let report = check(&Facts::of(&trace("1 sp1 start\n 2 sp1 exit outcome=unexpected cause=signal:6")));
        assert!(!report.held && report.violations[0].contains("signal:6"));
        assert!(!check(&Facts::of(&trace("1 testbed phase"))).held);
    }
}
