//! P3, order: who was accepted before another's submission began has the smaller UID; the greatest UID is the latest.

use super::{
    CheckReport, Findings,
    facts::{Facts, version},
};
use crate::trace::{Event, Kind};
use std::collections::BTreeMap;

const TITLE: &str = "order: later ones have greater UIDs, and the greatest wins";
const PROMISE: &str = "Per path, the latest publication is the one with the greatest UID; and a publication whose \
                       submission began after another was accepted has the greater UID, by any clocks, on any paths.";

/// Strict order over all accepted publications, and every audited SP's entry is the greatest of its path.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    check_strict_order(facts, &mut findings);
    check_greatest_wins(facts, &mut findings);
    findings.report("P3", TITLE, PROMISE)
}

fn check_strict_order<'t>(facts: &Facts<'t>, findings: &mut Findings) {
    let mut greatest: Option<&'t Event> = None;
    let mut accepted_before: BTreeMap<&'t str, Option<&'t Event>> = BTreeMap::new();
    for event in facts.trace.events() {
        let Some(key) = event.publication.as_deref() else { continue };
        match event.kind {
            Kind::Invoke => drop(accepted_before.insert(key, greatest)),
            Kind::Outcome if event.outcome.as_deref() == Some("accepted") => {
                findings.looked_at(1);
                if let Some(before) = accepted_before.get(key).copied().flatten()
                    && event.uid <= before.uid
                {
                    findings
                        .violated(|| format!("{event} began after {before} was accepted, yet its UID is not greater"));
                }
                if greatest.is_none_or(|greatest| greatest.uid < event.uid) {
                    greatest = Some(event);
                }
            }
            _ => {}
        }
    }
}

/// An entry that no SP has any more is lost, which is P1's concern; here all SPs must name the greatest that is there.
fn check_greatest_wins<'t>(facts: &Facts<'t>, findings: &mut Findings) {
    let mut greatest: BTreeMap<&'t str, &'t Event> = BTreeMap::new();
    for (_, index) in facts.audited_sps() {
        for (path, event) in index.into_iter().flatten() {
            let is_agreed = version(event).is_some_and(|version| facts.agreed.contains_key(&version));
            let known = greatest.entry(path).or_insert(event);
            if is_agreed && known.uid < event.uid {
                *known = event;
            }
        }
    }
    for (sp, index) in facts.audited_sps() {
        for (path, greatest) in &greatest {
            let held = index.and_then(|index| index.get(path));
            if held.is_none_or(|held| held.uid < greatest.uid) {
                let held = held.map_or("nothing".to_owned(), ToString::to_string);
                findings.violated(|| format!("the latest of {path} is {greatest}, but {sp} has {held}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{CheckReport, facts::Facts, testing::trace};

    fn report(text: &str) -> CheckReport {
        check(&Facts::of(&trace(text)))
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
}
