//! No process ends by itself, and none hangs: a crash that no fault caused is a bug, however well the rest copes with it,
//! and so is a storage point that never serves again. When the audit comes, every fault has been undone, every storage
//! point that lives tells its whole index, and nothing has been waited for in vain.
//!
//! Keeps nothing.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, Seen},
    trace::Kind,
};

const TITLE: &str = "no process ends unless it is told to, and none hangs";
const PROMISE: &str = "No process ends unless it is told to or killed; once faults have stopped every storage point serves, \
                       and all comes to rest in time.";

/// Every process that was started runs until the testbed ends it, and every storage point is audited completely.
#[derive(Debug, Default)]
pub(crate) struct Alive(Findings);

impl Check for Alive {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        match seen.event.kind {
            Kind::Start => self.0.looked_at(1),
            Kind::Exit if seen.event.outcome.as_deref() == Some("unexpected") => {
                self.0.violated(|| format!("ended by itself: {}", seen.event));
            }
            Kind::Unsettled => {
                self.0.looked_at(1);
                self.0.violated(|| format!("not settled: {}", seen.event));
            }
            Kind::Phase if facts.audit_ns == Some(seen.event.time_ns) && facts.faults_open > 0 => {
                self.0.violated(|| {
                    format!("a fault is not undone at the audit: {}: {}", facts.open_faults(), seen.event)
                });
            }
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if facts.audit_ns.is_some() {
            for (_, process) in facts.sps().filter(|(_, process)| process.is_started) {
                let name = &process.name;
                if !process.is_up {
                    self.0.violated(|| format!("it did not come back: {name} does not run at the audit"));
                } else if !process.is_audited {
                    self.0.violated(|| format!("it does not serve: {name} lives, but its audit is not complete"));
                }
            }
        }
        self.0.report("alive", TITLE, PROMISE)
    }
}

#[cfg(test)]
mod tests {
    use super::Alive;
    use crate::checks::testing::{held, judge};

    #[test]
    fn only_unexpected_ends_are_violations() {
        let run = "1 sp1 start\n 2 sp1 exit outcome=killed\n 3 sp1#1 start\n 9 sp1#1 exit outcome=stopped";
        assert!(judge::<Alive>(run).held);
        let report = judge::<Alive>("1 sp1 start\n 2 sp1 exit outcome=unexpected cause=signal:6");
        assert!(!report.held && report.violations[0].contains("signal:6"));
        assert!(!judge::<Alive>("1 testbed phase").held);
    }

    #[test]
    fn a_storage_point_that_never_serves_again_is_named() {
        let run = "1 sp1 start\n 1 sp2 start\n 9 testbed phase cause=audit\n 10 sp1 audit_end outcome=complete";
        let (ok, why) = held::<Alive>(&format!("{run}\n 10 sp2 audit_end outcome=complete"));
        assert!(ok, "{why}");
        for (lines, word) in [
            ("10 sp2 audit_end outcome=incomplete", "does not serve: sp2"),
            ("2 sp3 start", "does not serve: sp2"),
            ("2 sp2 exit outcome=killed", "did not come back: sp2"),
            ("2 testbed fault outcome=isolate cause=sp2", "not undone at the audit: isolate sp2"),
            ("8 testbed unsettled cause=roots", "not settled"),
        ] {
            let (ok, why) = held::<Alive>(&format!("{run}\n {lines}"));
            assert!(!ok && why.contains(word), "{lines}: {why}");
        }
        let undone = "10 sp2 audit_end outcome=complete\n 2 testbed fault_undone outcome=kill cause=sp2
            3 testbed fault outcome=kill cause=sp1\n 4 testbed fault_undone outcome=kill cause=sp1";
        let (ok, why) = held::<Alive>(&format!("{run}\n {undone}"));
        assert!(ok, "one that ended without having begun leaves none open: {why}");
        let (ok, why) = held::<Alive>(&format!("{run}\n {undone}\n 5 testbed fault outcome=kill cause=sp2"));
        assert!(!ok && why.contains("kill sp2"), "{why}");
    }
}
