//! No process ends by itself: a crash that no fault caused is a bug, however well the rest copes with it.
//!
//! Keeps nothing.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, Seen},
    trace::Kind,
};

const TITLE: &str = "no process ends unless it is told to";
const PROMISE: &str = "No process ends unless it is told to or killed.";

/// Every process that was started runs until the testbed ends it.
#[derive(Debug, Default)]
pub(crate) struct Alive(Findings);

impl Check for Alive {
    fn observe(&mut self, seen: &Seen<'_>, _facts: &Facts) {
        match seen.event.kind {
            Kind::Start => self.0.looked_at(1),
            Kind::Exit if seen.event.outcome.as_deref() == Some("unexpected") => {
                self.0.violated(|| format!("ended by itself: {}", seen.event));
            }
            _ => {}
        }
    }

    fn finish(self, _facts: &Facts) -> CheckReport {
        self.0.report("alive", TITLE, PROMISE)
    }
}

#[cfg(test)]
mod tests {
    use super::Alive;
    use crate::checks::testing::judge;

    #[test]
    fn only_unexpected_ends_are_violations() {
        let run = "1 sp1 start\n 2 sp1 exit outcome=killed\n 3 sp1#1 start\n 9 sp1#1 exit outcome=stopped";
        assert!(judge::<Alive>(run).held);
        let report = judge::<Alive>("1 sp1 start\n 2 sp1 exit outcome=unexpected cause=signal:6");
        assert!(!report.held && report.violations[0].contains("signal:6"));
        assert!(!judge::<Alive>("1 testbed phase").held);
    }
}
