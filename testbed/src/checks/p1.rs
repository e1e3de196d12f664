//! P1, durability: an accepted publication is still there at the end, or a newer agreed one of its path is.
//!
//! Keeps nothing beside the facts: of each path the greatest UID that was accepted is enough, for who holds that or a
//! newer one holds a newer one of all others, too. The promise has a condition: the disks that are lost leave a quorum.

use super::{Check, CheckReport, Findings, lost_too_many};
use crate::{
    facts::{Facts, PathId, ProcessId, Seen, VersionId},
    trace::Kind,
};
use acms_engine::protocol::SpSet;

const TITLE: &str = "durability: nothing that was accepted is lost";
const PROMISE: &str = "An accepted publication, or a newer agreed one of its path, survives any crash and restart of \
                       any number of storage points, and the loss of disks that leaves a quorum.";

/// Every SP audited at the end holds every accepted publication or a newer agreed one of its path.
#[derive(Debug, Default)]
pub(crate) struct P1 {
    findings: Findings,
    accepted: u64,
}

impl Check for P1 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        // "Accepted" was promised whether or not the publisher lived to hear it.
        self.accepted += u64::from(seen.is_first_accepted);
        if !matches!(seen.event.kind, Kind::AuditSp | Kind::Unread) {
            return;
        }
        let (Some(path), Some(found)) = (seen.path, seen.version) else { return };
        let Some(promise) = facts.path(path).accepted else { return };
        let event = seen.event;
        if event.outcome.as_deref() == Some("content-differs") {
            self.findings.violated(|| format!("content lost: {}: {event}", facts.show_accepted(promise)));
        }
        // What a fault has damaged is mended once somebody reads it.
        if event.kind == Kind::Unread && !facts.is_rotted(seen.process, event.hash) {
            self.findings.violated(|| format!("content not readable: {}: {event}", facts.show_accepted(promise)));
        }
        if facts.version(found).differs(event.hash, event.is_deletion()) {
            self.findings.violated(|| format!("other content: {}: {event}", facts.show_accepted(promise)));
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if let Some(void) = lost_too_many(facts) {
            self.findings = Findings { void: Some(void), ..Findings::default() };
            return self.findings.report("P1", TITLE, PROMISE);
        }
        let audited = facts.audited_sps();
        let set: SpSet = audited.iter().filter_map(|id| facts.process(*id).sp()).collect();
        if !facts.quorum().is_some_and(|quorum| quorum.is_quorum(set)) {
            // Without a quorum's word there is nothing to judge by.
            return self.findings.report("P1", TITLE, PROMISE);
        }
        self.findings.looked_at(self.accepted);
        for path in facts.paths_by_name() {
            if let Some(promise) = facts.path(path).accepted {
                audited.iter().for_each(|sp| self.judge(facts, promise, path, *sp));
            }
        }
        self.findings.report("P1", TITLE, PROMISE)
    }
}

impl P1 {
    fn judge(&mut self, facts: &Facts, promise: VersionId, path: PathId, sp: ProcessId) {
        let (name, found) = (&facts.process(sp).name, facts.found(sp, path));
        let promised = || facts.show_accepted(promise);
        match found {
            None => self.findings.violated(|| format!("lost: {}: {name} has no entry of it at the end", promised())),
            Some(found) if facts.uid(Some(found)) < facts.uid(Some(promise)) => {
                let found = facts.show(found);
                self.findings.violated(|| format!("lost: {}: {name} has only an older one: {found}", promised()));
            }
            Some(found) if found != promise && facts.version(found).agreed.is_none() => {
                let found = facts.show(found);
                self.findings
                    .violated(|| format!("replaced by one that was never agreed: {}: {name} has {found}", promised()));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::P1;
    use crate::checks::testing::judge;

    const RUN: &str = "
        1 sp1 start
        1 sp2 start
        1 sp3 start
        2 publisher invoke key=k1 path=a hash=x
        3 sp1 agreed path=a uid=10.1.0 hash=x key=k1
        4 publisher outcome key=k1 path=a uid=10.1.0 hash=x outcome=accepted
        9 testbed phase cause=audit";
    const BOTH: &str = "
        10 sp1 audit_sp path=a uid=10.1.0 hash=x
        10 sp1 audit_end outcome=complete
        11 sp2 audit_sp path=a uid=10.1.0 hash=x
        11 sp2 audit_end outcome=complete";

    fn held(audits: &str) -> (bool, String) {
        crate::checks::testing::held::<P1>(&format!("{RUN}\n{audits}"))
    }

    #[test]
    fn a_content_that_cannot_be_read_is_lost_unless_a_fault_damaged_it() {
        let unread = "5 sp2 unread path=a uid=10.1.0 hash=x cause=404";
        let (ok, why) = held(&format!("{BOTH}\n{unread}"));
        assert!(!ok && why.contains("not readable"), "{why}");
        assert!(held(&format!("{BOTH}\n{unread}\n 4 sp2 rotted hash=x")).0);
        assert!(!held(&format!("{BOTH}\n{unread}\n 4 sp1 rotted hash=x")).0, "it was another's");
    }

    #[test]
    fn a_deletion_is_no_empty_content() {
        let (ok, why) = held(&BOTH.replace("hash=x", "hash=x outcome=deleted"));
        assert!(!ok && why.contains("other content"), "{why}");
    }

    #[test]
    fn holds_while_every_audited_sp_has_it_or_a_newer_agreed_one() {
        let (ok, why) = held(
            "10 sp1 audit_sp path=a uid=10.1.0 hash=x
             10 sp1 audit_end outcome=complete
             11 sp2 audit_sp path=a uid=12.1.0 hash=y
             11 sp2 audit_end outcome=complete
             8 sp2 agreed path=a uid=12.1.0 hash=y",
        );
        assert!(ok, "{why}");
    }

    #[test]
    fn a_lost_publication_is_named() {
        let (ok, why) = held(
            "10 sp1 audit_sp path=a uid=10.1.0 hash=x
             10 sp1 audit_end outcome=complete
             11 sp2 audit_end outcome=complete",
        );
        assert!(!ok);
        assert!(why.contains("lost") && why.contains("10.1.0") && why.contains("sp2"), "{why}");
    }

    #[test]
    fn an_older_one_an_unagreed_one_and_other_content_are_violations() {
        let end = "10 sp1 audit_end outcome=complete\n 10 sp2 audit_end outcome=complete";
        let same = "10 sp2 audit_sp path=a uid=10.1.0 hash=x";
        for (entry, word) in [
            ("10 sp1 audit_sp path=a uid=9.1.0 hash=x", "older"),
            ("10 sp1 audit_sp path=a uid=11.1.0 hash=x", "never agreed"),
            ("10 sp1 audit_sp path=a uid=10.1.0 hash=z", "other content"),
            ("10 sp1 audit_sp path=a uid=10.1.0 hash=x outcome=content-differs", "content lost"),
        ] {
            let (ok, why) = held(&format!("{entry}\n{same}\n{end}"));
            assert!(!ok && why.contains(word), "{entry}: {why}");
        }
    }

    #[test]
    fn without_audits_of_a_quorum_or_acceptances_it_is_not_exercised() {
        let (ok, why) = held("10 sp1 audit_sp path=a uid=10.1.0 hash=x\n 10 sp1 audit_end outcome=complete");
        assert!(!ok && why.contains("not exercised"), "{why}");
        assert!(!judge::<P1>("1 sp1 start\n 2 sp1 audit_end outcome=complete").held);
    }
    #[test]
    fn a_quorum_is_what_the_scenario_says() {
        let weighted = "0 testbed config outcome=storage_points cause=3
            0 testbed config outcome=quorum cause=weighted:1=3,2=1,3=1";
        let first = BOTH.lines().take(3).collect::<Vec<_>>().join("\n");
        assert!(!held(&first).0, "one of three is no majority");
        assert!(held(&format!("{weighted}\n{first}")).0, "sp1 alone is a quorum");
        let others = BOTH.replace("sp1", "sp3");
        let (ok, why) = held(&format!("{weighted}\n{others}"));
        assert!(!ok && why.contains("not exercised"), "{why}");
    }

    #[test]
    fn an_empty_replaced_store_is_named_unless_no_quorum_of_disks_was_left() {
        let lost = |sp: u8| format!("{} testbed fault outcome=disk-lost cause=sp{sp}", 4 + sp);
        let undone = |sp: u8| format!("{} testbed fault_undone outcome=disk-lost cause=sp{sp}", 4 + sp);
        let empty = "
            10 sp1 audit_end outcome=complete
            11 sp2 audit_sp path=a uid=10.1.0 hash=x
            11 sp2 audit_end outcome=complete";
        let replaced = format!("{}\n{}\n{}\n{}", lost(1), undone(1), lost(2), undone(2));
        assert!(held(&format!("{replaced}\n{BOTH}")).0);
        let (ok, why) = held(&format!("{replaced}\n{empty}"));
        assert!(!ok && why.contains("sp1 has no entry"), "{why}");
        let report = judge::<P1>(&format!("{RUN}\n{}\n{}\n{empty}", lost(1), lost(2)));
        assert!(report.held && report.not_exercised() && report.note.unwrap().contains("sp1, sp2"));
    }
}
