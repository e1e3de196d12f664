//! P1, durability: an accepted publication is still there at the end, or a newer agreed one of its path is.

use super::{
    CheckReport, Findings,
    facts::{Facts, Version, version},
};
use crate::trace::{Event, Kind};
use std::collections::BTreeMap;

const TITLE: &str = "durability: nothing that was accepted is lost";
const PROMISE: &str = "An accepted publication, or a newer agreed one of its path, survives any crash and restart of \
                       any number of storage points.";

/// Every SP audited at the end holds every accepted publication or a newer agreed one of its path.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    // "Accepted" was promised whether or not the publisher lived to hear it.
    let promised = facts.trace.events().iter().filter(|event| {
        matches!(event.kind, Kind::Outcome | Kind::Accepted) && event.outcome.as_deref() == Some("accepted")
    });
    let mut accepted: BTreeMap<Version<'_>, &Event> = BTreeMap::new();
    for event in promised {
        if let Some(version) = version(event) {
            accepted.entry(version).or_insert(event);
        }
    }
    let audited = facts.audited_sps().count();
    if audited < facts.quorum() {
        return findings.report("P1", TITLE, PROMISE);
    }
    for (version, promise) in accepted {
        findings.looked_at(1);
        for (sp, index) in facts.audited_sps() {
            let held = index.and_then(|index| index.get(version.0)).copied();
            judge(facts, &mut findings, promise, version, sp, held);
        }
    }
    findings.report("P1", TITLE, PROMISE)
}

fn judge<'t>(
    facts: &Facts<'t>,
    findings: &mut Findings,
    promise: &Event,
    (path, uid): Version<'_>,
    sp: &str,
    held: Option<&'t Event>,
) {
    let Some(held) = held else {
        return findings.violated(|| format!("lost: {promise}: {sp} has no entry of {path} at the end"));
    };
    match held.uid {
        Some(found) if found < uid => {
            findings.violated(|| format!("lost: {promise}: {sp} has only an older one at the end: {held}"));
        }
        Some(found) if found == uid => {
            if promise.hash.is_some() && held.hash != promise.hash {
                findings.violated(|| format!("other content: {promise}: {sp} has {held}"));
            }
        }
        _ => {
            if version(held).and_then(|version| facts.agreed_hash(version)).is_none() {
                findings.violated(|| format!("replaced by one that was never agreed: {promise}: {held}"));
            }
        }
    }
    if held.outcome.as_deref() == Some("content-differs") {
        findings.violated(|| format!("content lost: {promise}: {held}"));
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

    const RUN: &str = "
        1 sp1 start
        1 sp2 start
        1 sp3 start
        2 publisher invoke key=k1 path=a hash=x
        3 sp1 agreed path=a uid=10.1.0 hash=x key=k1
        4 publisher outcome key=k1 path=a uid=10.1.0 hash=x outcome=accepted
        9 testbed phase cause=audit";

    fn held(audits: &str) -> (bool, String) {
        let trace = trace(&format!("{RUN}\n{audits}"));
        let report = check(&Facts::of(&trace));
        (report.held, report.violations.join("\n"))
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
        let trace = trace("1 sp1 start\n 2 sp1 audit_end outcome=complete");
        assert!(!check(&Facts::of(&trace)).held);
    }
}
