//! P3, order: who was accepted before another's submission began has the smaller UID; the greatest UID is the latest.
//!
//! Keeps nothing beside the facts: each key has the greatest UID that was accepted when its first attempt began. A retry
//! may complete what an earlier attempt began, so the first attempt is what counts. With the fast order, of the cluster
//! or of one attempt, only the UIDs that publishers said they knew count.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, ProcessId, Seen},
    trace::Kind,
};

const TITLE: &str = "order: later ones have greater UIDs, and the greatest wins";
const PROMISE: &str = "Per path, the latest publication is the one with the greatest UID; and a publication whose \
                       submission began after another was accepted has the greater UID, by any clocks, on any paths; \
                       it has a greater one than its publisher knew.";

/// Strict order over all accepted and agreed publications; all audited SPs end with the same, greatest, of each path.
#[derive(Debug, Default)]
pub(crate) struct P3 {
    findings: Findings,
}

impl Check for P3 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        let is_accepted = event.kind == Kind::Outcome && event.outcome.as_deref() == Some("accepted");
        if !is_accepted && !seen.is_first_keyed {
            return;
        }
        let Some(key) = seen.key.and_then(|key| facts.key(key)) else { return };
        self.findings.looked_at(1);
        if let Some(before) = key.after.filter(|before| !key.is_fast && event.uid <= facts.uid(Some(*before))) {
            let (before, first) = (facts.show_accepted(before), key.first.as_ref().map(ToString::to_string));
            let first = first.unwrap_or_default();
            self.findings.violated(|| format!("its UID is not greater: {event} was begun by {first} after {before}"));
        }
        if let Some(known) = key.known.filter(|known| event.uid <= Some(*known)) {
            self.findings.violated(|| format!("not greater than the UID that its publisher knew: {known}: {event}"));
        }
    }

    /// An entry that no SP has any more is lost, which is P1's concern; here all SPs must name the greatest that is there.
    fn finish(mut self, facts: &Facts) -> CheckReport {
        let audited = facts.audited_sps();
        for path in facts.paths_by_name() {
            let found = audited.iter().map(|sp| (facts.found(*sp, path), *sp));
            let Some((Some(greatest), _)) = found.clone().max_by_key(|(found, _)| facts.uid(*found)) else { continue };
            for (found, sp) in found.filter(|(found, _)| facts.uid(*found) < facts.uid(Some(greatest))) {
                let (name, latest) = (&facts.process(sp).name, facts.show(greatest));
                let found = found.map_or("nothing".to_owned(), |found| facts.show(found));
                self.findings.violated(|| format!("not the latest: {name} has {found} instead of {latest}"));
            }
        }
        self.judge_roots(facts, &audited);
        self.findings.report("P3", TITLE, PROMISE)
    }
}

impl P3 {
    /// Equal entries make equal trees, which is how storage points and receivers know that they are equal.
    fn judge_roots(&mut self, facts: &Facts, audited: &[ProcessId]) {
        let roots = audited.iter().filter_map(|sp| Some((&facts.process(*sp).name, facts.process(*sp).root?)));
        let Some((first, root)) = roots.clone().next() else { return };
        for (name, other) in roots.filter(|(_, other)| *other != root) {
            self.findings.violated(|| format!("the roots differ: {first} has {root:?}, {name} {other:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::P3;
    use crate::checks::{CheckReport, testing::judge};

    fn report(text: &str) -> CheckReport {
        judge::<P3>(text)
    }

    #[test]
    fn sequential_publications_have_growing_uids() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted
             3 publisher invoke key=k2 path=b
             4 publisher outcome key=k2 path=b uid=11.2.0 outcome=accepted",
        );
        assert!(report.held, "{:?}", report.violations);
        assert_eq!(report.events, 2);
    }

    #[test]
    fn concurrent_ones_may_have_any_order() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             1 publisher invoke key=k2 path=b
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             3 publisher outcome key=k2 path=b uid=10.2.0 outcome=accepted",
        );
        assert!(report.held, "{:?}", report.violations);
    }

    #[test]
    fn a_later_submission_with_a_smaller_uid_is_named() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             3 publisher invoke key=k2 path=b
             4 publisher outcome key=k2 path=b uid=10.2.0 outcome=accepted",
        );
        assert!(!report.held);
        assert!(report.violations[0].contains("k2") && report.violations[0].contains("k1"), "{:?}", report.violations);
    }

    #[test]
    fn an_sp_that_ends_with_an_older_one_is_named() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             3 sp1 agreed path=a uid=11.1.0
             5 sp1 audit_sp path=a uid=11.1.0
             5 sp1 audit_end outcome=complete
             6 sp2 audit_sp path=a uid=10.1.0
             6 sp2 audit_end outcome=complete",
        );
        assert!(!report.held);
        assert!(report.violations[0].contains("sp2"), "{:?}", report.violations);
    }

    #[test]
    fn nothing_accepted_is_not_exercised() {
        assert!(!report("1 publisher invoke key=k1 path=a").held);
    }

    #[test]
    fn what_the_publisher_knew_is_smaller_in_the_fast_order_too_and_nothing_else_is_asked_of_it() {
        let first = "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted";
        let fast = "0 testbed config outcome=order cause=fast";
        let later = "3 publisher invoke key=k2 path=b
             4 publisher outcome key=k2 path=b uid=10.2.0 outcome=accepted";
        assert!(report(&format!("{fast}\n{first}\n{later}")).held);
        assert!(!report(&format!("{first}\n{later}")).held);
        let asked = later.replace("path=b\n", "path=b cause=sp2:80;order=fast\n");
        assert!(report(&format!("{first}\n{asked}")).held);
        let known = later.replace("path=b\n", "path=b uid=10.5.0\n");
        let report = report(&format!("{fast}\n{first}\n{known}"));
        assert!(!report.held && report.violations[0].contains("knew: 10.5.0"), "{:?}", report.violations);
    }

    #[test]
    fn who_asks_for_the_strict_order_gets_it_in_a_fast_cluster_too() {
        let report = report(
            "0 testbed config outcome=order cause=fast
             1 publisher invoke key=k1 path=a cause=sp1
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             3 publisher invoke key=k2 path=b cause=sp2;order=strict
             4 publisher outcome key=k2 path=b uid=10.2.0 outcome=accepted",
        );
        assert!(!report.held && report.violations[0].contains("not greater"), "{:?}", report.violations);
    }

    #[test]
    fn all_end_with_one_root() {
        let run = "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             5 sp1 audit_end outcome=complete hash=r
             6 sp2 audit_end outcome=complete hash=r";
        assert!(report(run).held);
        let other =
            report(&run.replace("6 sp2 audit_end outcome=complete hash=r", "6 sp2 audit_end outcome=complete hash=q"));
        assert!(!other.held && other.violations[0].contains("roots differ"), "{:?}", other.violations);
    }

    #[test]
    fn a_retry_may_complete_what_its_first_attempt_began() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a outcome=undetermined
             3 publisher invoke key=k2 path=b
             4 publisher outcome key=k2 path=b uid=11.2.0 outcome=accepted
             5 publisher invoke key=k1 path=a
             6 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted",
        );
        assert!(report.held, "{:?}", report.violations);
    }

    #[test]
    fn what_was_agreed_without_a_word_to_its_publisher_is_ordered_too() {
        let report = report(
            "1 publisher invoke key=k1 path=a
             2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
             3 publisher invoke key=k2 path=b
             4 publisher outcome key=k2 path=b outcome=undetermined
             5 sp1 agreed path=b uid=10.1.0 key=k2",
        );
        assert!(!report.held);
    }
}
