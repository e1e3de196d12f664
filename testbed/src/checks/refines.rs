//! The engine refines the specification.
//!
//! Only where a scenario asks for it. Keeps nothing: the backend has replayed the run, and says what came of it.

use super::{Check, CheckReport, Findings, REFINES};
use crate::{
    facts::{Facts, Seen},
    trace::Kind,
};

const TITLE: &str = "refines: every step is one that the specification allows";
const PROMISE: &str = "Every step of every storage point is zero or more steps of the protocol's executable specification, \
                       and after it both know the same.";

/// The replay was not stopped by a step that the specification does not allow.
#[derive(Debug, Default)]
pub(crate) struct Refines {
    findings: Findings,
    is_told: bool,
}

impl Check for Refines {
    fn observe(&mut self, seen: &Seen<'_>, _facts: &Facts) {
        let event = seen.event;
        if event.kind != Kind::Refined {
            return;
        }
        self.is_told = true;
        if event.outcome.as_deref() == Some("allowed") {
            let steps = event.cause.as_deref().and_then(|cause| cause.split(' ').next()?.parse().ok());
            self.findings.looked_at(steps.unwrap_or(0));
        } else {
            self.findings.looked_at(1);
            self.findings.violated(|| format!("a step that the specification does not allow: {event}"));
        }
    }

    fn finish(mut self, _facts: &Facts) -> CheckReport {
        if !self.is_told {
            self.findings.void = Some("not judged: the scenario does not ask for it".to_owned());
        }
        self.findings.report(REFINES, TITLE, PROMISE)
    }
}

#[cfg(test)]
mod tests {
    use super::Refines;
    use crate::checks::testing::{held, judge};

    #[test]
    fn a_step_that_is_not_allowed_is_named() {
        let report = judge::<Refines>("9 testbed refined outcome=allowed cause=37");
        assert!(report.held && report.events == 37);
        let (ok, why) = held::<Refines>("9 testbed refined outcome=not-allowed cause=why");
        assert!(!ok && why.contains("does not allow") && why.contains("why"), "{why}");
    }

    #[test]
    fn where_nobody_asks_it_is_void() {
        let report = judge::<Refines>("1 sp1 start");
        assert!(report.held && report.note.is_some());
    }
}
