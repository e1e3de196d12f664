//! Agreement is more than a word: when the first one says that a publication is agreed or accepted, a quorum of stores
//! holds it durably.
//!
//! Only where storage points tell what they store (`stored`), as simulated ones do. Keeps nothing beside the facts.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, Seen, names},
    trace::Kind,
};

const TITLE: &str = "quorum: what is said to be agreed is held by a quorum";
const PROMISE: &str = "When a storage point first says that a publication is agreed, or a publisher is first told that it \
                       is accepted, a quorum of stores that were not replaced has it durably, with its content.";

/// At each first `agreed`, `merged` or `accepted` the storage points that said `stored`, with stores that are still
/// theirs, are a quorum.
#[derive(Debug, Default)]
pub(crate) struct HeldByQuorum {
    findings: Findings,
    is_blind: bool,
}

impl Check for HeldByQuorum {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        if event.kind == Kind::Stored && event.outcome.as_deref() == Some("content-missing") && !is_over(seen, facts) {
            self.findings.violated(|| format!("stored without its content: {event}"));
        }
        let (Some(id), Some(uid)) = (seen.version, event.uid) else { return };
        let is_first_accepted = seen.is_first_accepted && facts.version(id).agreed.is_none();
        if !(seen.is_first_agreed || is_first_accepted) || facts.lost_too_many.is_some() {
            return;
        }
        // An entry of a publication with several may have been seen before.
        if facts.same_uid(id).any(|other| facts.version(other).agreed.is_some()) {
            return;
        }
        if !facts.stores.are_told {
            self.is_blind = true;
            return;
        }
        let Some(quorum) = facts.quorum() else { return };
        self.findings.looked_at(1);
        let holders = facts.stores.of(uid);
        if !quorum.is_quorum(holders) {
            let holders = names(holders);
            self.findings.violated(|| format!("held by no quorum, only by {holders}: {event}"));
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if let Some(lost) = facts.lost_too_many {
            self.findings.void =
                Some(format!("not judged any more once {}, of each quorum one, had lost disks", names(lost)));
        } else if self.is_blind && self.findings.events == 0 {
            self.findings.void = Some("not judged: the storage points do not tell what they store".to_owned());
        }
        self.findings.report("quorum", TITLE, PROMISE)
    }
}

/// What was agreed or overtaken may have been let go of by all: nobody needs its content any more.
fn is_over(seen: &Seen<'_>, facts: &Facts) -> bool {
    let is_overtaken = seen.path.is_some_and(|path| facts.uid(facts.path(path).latest) > seen.event.uid);
    is_overtaken || seen.event.uid.is_some_and(|uid| facts.is_agreed(uid))
}

#[cfg(test)]
mod tests {
    use super::HeldByQuorum;
    use crate::checks::testing::{held, judge};

    const RUN: &str = "
        0 testbed config outcome=storage_points cause=3
        1 sp1 ready cause=0-1
        1 sp2 ready cause=0-1
        2 sp1 stored uid=10.1.0 cause=0
        3 sp2 stored uid=10.1.0 cause=0
        4 sp1 agreed path=a uid=10.1.0
        5 sp1 accepted path=a uid=10.1.0 key=k1 outcome=accepted";

    #[test]
    fn a_quorum_of_stores_holds_what_is_agreed() {
        let report = judge::<HeldByQuorum>(RUN);
        assert!(report.held && report.events == 1, "{:?}", report.violations);
    }

    #[test]
    fn what_less_than_a_quorum_has_is_named() {
        for (from, to) in [
            ("3 sp2 stored uid=10.1.0 cause=0", "9 sp2 stored uid=10.1.0 cause=0"),
            ("3 sp2 stored uid=10.1.0 cause=0", "3 sp2 stored uid=10.1.0 cause=0\n 3 sp2#1 ready cause=1-1"),
            ("3 sp2 stored uid=10.1.0 cause=0", "3 sp2 stored uid=11.1.0 cause=0"),
        ] {
            let (ok, why) = held::<HeldByQuorum>(&RUN.replace(from, to));
            assert!(!ok && why.contains("held by no quorum"), "{to}: {why}");
        }
        let missing = |uid: &str| {
            held::<HeldByQuorum>(&format!("{RUN}\n 6 sp3 stored path=a uid={uid} outcome=content-missing cause=0"))
        };
        let (ok, why) = missing("12.1.0");
        assert!(!ok && why.contains("without its content"), "{why}");
        assert!(missing("10.1.0").0 && missing("9.1.0").0, "it is agreed, or a newer one is");
    }

    #[test]
    fn a_store_that_was_filled_again_counts() {
        let again = "3 sp2 stored uid=10.1.0 cause=0
            3 testbed fault outcome=disk-lost cause=sp2
            3 sp2#1 stored uid=10.1.0 cause=1\n 3 sp2#1 ready cause=1-1";
        assert!(held::<HeldByQuorum>(&RUN.replace("3 sp2 stored uid=10.1.0 cause=0", again)).0);
    }

    #[test]
    fn a_store_that_is_replaced_counts_until_the_new_one_is_filled() {
        let displaced = "3 testbed fault outcome=store-replaced cause=sp2\n 3 displaced-sp2 stored uid=10.1.0 cause=0";
        assert!(held::<HeldByQuorum>(&RUN.replace("3 sp2 stored uid=10.1.0 cause=0", displaced)).0);
        let filled = format!("{displaced}\n 3 sp2#1 ready cause=1-1");
        assert!(!held::<HeldByQuorum>(&RUN.replace("3 sp2 stored uid=10.1.0 cause=0", &filled)).0);
    }

    #[test]
    fn where_nothing_is_told_it_is_void() {
        let report = judge::<HeldByQuorum>("1 sp1 start\n 4 sp1 agreed path=a uid=10.1.0");
        assert!(report.held && report.note.is_some());
        assert!(!judge::<HeldByQuorum>("1 sp1 start").held);
    }
}
