//! P8, honest outcome: each attempt has exactly one outcome, and what it says is true.
//!
//! Attempts under one key are told apart by counting, at each storage point: each has one outcome and makes at most one
//! publication, a rejected one none; a UID names the storage point that made it. Keeps beside the facts (which keep a key
//! for 24 h after its last event, as storage points do) what was accepted, or named as what superseded something, and is
//! not yet known to be agreed.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, Key, PathId, Seen, VersionId},
    trace::{Event, Kind},
};
use acms_engine::protocol::Uid;
use std::collections::BTreeMap;

const TITLE: &str = "honest outcome: one for each attempt, and a true one";
const PROMISE: &str = "A publisher gets exactly one of accepted (agreed and kept), rejected (will never be agreed) and \
                       undetermined; never accepted for something lost, never rejected for something that appears; under \
                       one key a retry finds what was agreed before it began.";

/// One outcome per attempt; accepted ones were agreed under that key's UID and content; rejected ones never were; one
/// key, one publication, unless attempts overlapped.
#[derive(Debug, Default)]
pub(crate) struct P8 {
    findings: Findings,
    /// Accepted, and not yet known to be agreed.
    unproven: BTreeMap<VersionId, Event>,
    /// Said to have superseded something, and not yet known to be agreed.
    superseding: BTreeMap<(PathId, Uid), Event>,
}

impl Check for P8 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        for key in &facts.forgotten {
            self.judge_key(key);
        }
        match event.kind {
            Kind::Outcome => self.see_outcome(seen, facts),
            Kind::Accepted | Kind::Rejected | Kind::Undetermined => self.see_told(seen, facts),
            Kind::Agreed | Kind::Merged => self.see_agreed(seen, facts),
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        facts.keys().for_each(|key| self.judge_key(key));
        for (version, event) in std::mem::take(&mut self.unproven) {
            if facts.version(version).agreed.is_none() {
                self.findings.violated(|| format!("accepted, but never agreed: {event}"));
            }
        }
        for ((path, uid), event) in std::mem::take(&mut self.superseding) {
            if !is_agreed(facts, path, uid) {
                self.findings.violated(|| format!("superseded by what was never agreed: {event}"));
            }
        }
        self.findings.report("P8", TITLE, PROMISE)
    }
}

impl P8 {
    fn see_outcome(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        let Some(key) = seen.key.and_then(|key| facts.key(key)) else { return };
        self.findings.looked_at(1);
        let outcomes = key.heard.total() + key.unheard_of;
        if key.invokes == 0 {
            self.findings.violated(|| format!("an outcome without an attempt: {event}"));
        } else if outcomes > key.invokes {
            let (invokes, text) = (key.invokes, &key.text);
            self.findings
                .violated(|| format!("more outcomes than attempts: {outcomes} of {invokes} under key {text}: {event}"));
        }
        match event.outcome.as_deref() {
            Some("accepted" | "rejected" | "undetermined") => {}
            _ => self.findings.violated(|| format!("an outcome that is none: {event}")),
        }
        self.judge_told(key);
        self.judge_outcome(seen, facts, key);
    }

    fn see_told(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let Some(key) = seen.key.and_then(|key| facts.key(key)) else { return };
        self.judge_told(key);
        let (event, teller) = (seen.event, (seen.process, seen.event.incarnation));
        if event.kind == Kind::Rejected && !key.is_mixed && key.agreed_by.contains(&teller) {
            let known = facts.show(key.versions[0]);
            self.findings.violated(|| format!("rejected by one who knew it agreed: {event}, but {known}"));
        }
        self.judge_outcome(seen, facts, key);
    }

    /// While there is only one attempt, what was told and what was heard are about that one.
    fn judge_told(&mut self, key: &Key) {
        let (Some(told), Some(heard), true) = (&key.last_told, &key.last_outcome, key.invokes == 1) else { return };
        // The publisher may not have heard; but it cannot have heard something else.
        if told.outcome != heard.outcome && heard.outcome.as_deref() != Some("undetermined") {
            self.findings.violated(|| format!("told otherwise than heard: {told}, but {heard}"));
        }
    }

    fn judge_outcome(&mut self, seen: &Seen<'_>, facts: &Facts, key: &Key) {
        let event = seen.event;
        match (event.outcome.as_deref(), seen.version) {
            (Some("accepted"), None) => self.findings.violated(|| format!("accepted without a name: {event}")),
            (Some("accepted"), Some(version)) => {
                self.judge_name(seen, facts, version);
                if facts.version(version).agreed.is_some() {
                    self.judge_content(facts, key, version, event);
                } else {
                    self.unproven.entry(version).or_insert_with(|| event.clone());
                }
            }
            (Some("rejected"), _) => self.judge_rejected(key, event),
            (Some("undetermined"), _) => {
                if let (Some(path), Some(uid)) = (seen.path, superseding(event))
                    && !is_agreed(facts, path, uid)
                {
                    self.superseding.entry((path, uid)).or_insert_with(|| event.clone());
                }
            }
            _ => {}
        }
    }

    /// A UID is one publication's, so of one key.
    fn judge_name(&mut self, seen: &Seen<'_>, facts: &Facts, id: VersionId) {
        let event = seen.event;
        let key_of = |id: VersionId| facts.version(id).key;
        let is_other = |id: VersionId| key_of(id).is_some() && seen.key.is_some() && key_of(id) != seen.key;
        let others = facts.same_uid(id).filter(|other| facts.version(*other).agreed.is_some());
        if let Some(other) = std::iter::once(id).chain(others).find(|id| is_other(*id)) {
            let other = facts.show(other);
            self.findings.violated(|| format!("one UID, two publications: {event}, and {other}"));
        }
    }

    fn see_agreed(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let (event, Some(version)) = (seen.event, seen.version) else { return };
        self.judge_name(seen, facts, version);
        if seen.is_first_agreed
            && let Some(accepted) = self.unproven.remove(&version)
            && let Some(key) = accepted.publication.as_ref().and_then(|key| facts.key_called(key))
        {
            self.judge_content(facts, key, version, &accepted);
        }
        let Some(key) = seen.key.and_then(|key| facts.key(key)).filter(|_| seen.is_first_keyed) else { return };
        self.judge_rejected(key, event);
        if key.publications < 2 {
            return;
        }
        let others = key.versions.iter().filter(|other| **other != version).map(|other| facts.version(*other));
        let mut same_path = others.filter(|other| Some(other.path) == seen.path);
        if !key.is_mixed && same_path.any(|other| other.differs(event.hash, event.is_deletion())) {
            self.findings.violated(|| format!("one key, two contents: {event}, and {}", facts.show(key.versions[0])));
        }
        if !key.is_fast && key.invokes > 0 && key.publications > key.invokes_when_agreed.max(1) {
            let known = facts.show(key.versions[0]);
            self.findings.violated(|| {
                format!("a second publication of a key that was agreed before the retry began: {event}, but {known}")
            });
        }
    }

    /// Each attempt makes at most one publication, and a rejected one none.
    fn judge_rejected(&mut self, key: &Key, event: &Event) {
        let attempts = key.invokes.max(key.told.total());
        let mut rejected = key.heard.rejected.max(key.told.rejected);
        let mut is_broken = rejected > 0 && key.publications + rejected > attempts;
        // Each storage point makes at most one publication of each attempt there.
        let places = key.places.iter().filter(|_| key.are_places_known);
        for place in places.filter(|place| place.rejected > 0 && place.publications + place.rejected > place.invokes) {
            (is_broken, rejected) = (true, place.rejected);
        }
        if is_broken {
            let of = [&key.last_told, &key.last_outcome].into_iter().flatten();
            let of = of.filter(|event| event.outcome.as_deref() == Some("rejected")).map(ToString::to_string).next();
            let (of, publications) = (of.unwrap_or_default(), key.publications);
            self.findings.violated(|| {
                format!("rejected, yet agreed: {of}: of {attempts} attempts {rejected} were rejected, and {publications} agreed: {event}")
            });
        }
    }

    fn judge_content(&mut self, facts: &Facts, key: &Key, id: VersionId, event: &Event) {
        let version = facts.version(id);
        if key.first.is_some() && !key.is_mixed && version.differs(key.hash, key.is_deletion) {
            let agreed = facts.show(id);
            self.findings.violated(|| format!("accepted with other content than was handed in: {event}, but {agreed}"));
        }
    }

    /// Nothing more comes of this key.
    fn judge_key(&mut self, key: &Key) {
        // Events without an attempt are of publishers outside the testbed.
        let Some(first) = &key.first else { return };
        if key.heard.total() + key.unheard_of < key.invokes {
            self.findings.violated(|| format!("no outcome: {first}"));
        }
        // With a word of the storage points for each attempt, nobody heard what none told.
        let is_told = key.told.total() >= key.invokes && key.invokes > 1;
        if is_told && (key.heard.accepted > key.told.accepted || key.heard.rejected > key.told.rejected) {
            let (heard, told) = (key.heard, key.told);
            self.findings.violated(|| format!("told otherwise than heard: {told:?}, but {heard:?}: {first}"));
        }
    }
}

fn is_agreed(facts: &Facts, path: PathId, uid: Uid) -> bool {
    facts.version_named(path, uid).is_some_and(|version| facts.version(version).agreed.is_some())
}

/// What an outcome says to have superseded its publication.
fn superseding(event: &Event) -> Option<Uid> {
    event.cause.as_deref()?.split_once("superseded by ")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::P8;
    use crate::checks::testing;

    fn held(text: &str) -> (bool, String) {
        testing::held::<P8>(text)
    }

    const HONEST: &str = "
        1 publisher invoke key=k1 path=a hash=x
        2 sp1 agreed path=a uid=10.1.0 hash=x key=k1
        3 sp1 accepted path=a uid=10.1.0 key=k1 outcome=accepted
        4 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted
        5 publisher invoke key=k2 path=a hash=y
        6 publisher outcome key=k2 path=a outcome=rejected
        7 publisher invoke key=k3 path=a hash=z
        8 publisher outcome key=k3 path=a outcome=undetermined
        9 sp2 agreed path=a uid=12.1.0 hash=z key=k3";

    #[test]
    fn honest_outcomes_hold() {
        let (ok, why) = held(HONEST);
        assert!(ok, "{why}");
    }

    #[test]
    fn each_dishonesty_is_named() {
        for (lines, word) in [
            ("10 publisher invoke key=k4 path=a", "no outcome"),
            ("10 publisher outcome key=k4 path=a outcome=rejected", "without an attempt"),
            ("10 publisher outcome key=k2 path=a outcome=rejected", "more outcomes than attempts"),
            ("10 sp1 agreed path=a uid=13.1.0 key=k2", "rejected, yet agreed"),
            ("10 sp1 rejected path=a key=k1 outcome=rejected", "told otherwise"),
            (
                "10 publisher invoke key=k4 path=a\n 11 publisher outcome key=k4 path=a uid=14.1.0 outcome=accepted",
                "never agreed",
            ),
            (
                "10 publisher invoke key=k4 path=a hash=q\n 11 sp1 agreed path=a uid=14.1.0 hash=r key=k4
                 12 publisher outcome key=k4 path=a uid=14.1.0 outcome=accepted",
                "other content",
            ),
            ("10 publisher invoke key=k4 path=a\n 11 publisher outcome key=k4 path=a outcome=maybe", "is none"),
        ] {
            let (ok, why) = held(&format!("{HONEST}\n{lines}"));
            assert!(!ok && why.contains(word), "{lines}: {why}");
        }
    }

    #[test]
    fn without_attempts_it_is_not_exercised() {
        assert!(!held("2 sp1 agreed path=a uid=10.1.0").0);
    }

    const RETRIED: &str = "
        1 publisher invoke key=k1 path=a hash=x
        2 publisher outcome key=k1 path=a outcome=undetermined
        3 publisher invoke key=k1 path=a hash=x
        4 publisher outcome key=k1 path=a uid=11.2.0 outcome=accepted
        4 sp2 agreed path=a uid=11.2.0 hash=x key=k1";

    #[test]
    fn a_retry_has_an_outcome_of_its_own_and_a_rejected_one_leaves_the_key_free() {
        assert!(held(RETRIED).0);
        let rejected = RETRIED.replace("outcome=undetermined", "outcome=rejected");
        let (ok, why) = held(&rejected);
        assert!(ok, "{why}");
        let (ok, why) = held(&format!("{rejected}\n 5 sp1 agreed path=a uid=10.1.0 hash=x key=k1"));
        assert!(
            !ok && why.contains("rejected, yet agreed"),
            "two publications, and one of two attempts was rejected: {why}"
        );
        let (ok, why) = held(&format!("{RETRIED}\n 5 publisher invoke key=k1 path=a hash=x"));
        assert!(!ok && why.contains("no outcome"), "{why}");
    }

    #[test]
    fn overlapping_attempts_may_make_two_publications_and_later_ones_may_not() {
        let overlapping = "
            1 publisher invoke key=k1 path=a hash=x
            2 publisher invoke key=k1 path=a hash=x
            3 sp1 agreed path=a uid=10.1.0 hash=x key=k1
            3 sp2 agreed path=a uid=11.2.0 hash=x key=k1
            4 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted
            5 publisher outcome key=k1 path=a uid=11.2.0 outcome=accepted";
        let (ok, why) = held(overlapping);
        assert!(ok, "{why}");
        let (ok, why) = held(&overlapping.replace("uid=11.2.0 hash=x", "uid=11.2.0 hash=y"));
        assert!(!ok && why.contains("one key, two contents"), "{why}");
        let late = overlapping.replace("2 publisher invoke", "4 publisher invoke").replace("3 sp2", "5 sp2");
        let (ok, why) = held(&late);
        assert!(!ok && why.contains("before the retry began"), "{why}");
        let fast = "0 testbed config outcome=order cause=fast";
        assert!(held(&format!("{fast}\n{late}")).0, "the fast order does not look keys up elsewhere");
    }

    #[test]
    fn a_rejected_attempt_and_an_agreed_one_are_told_apart_by_where_they_were_made() {
        let run = "
            1 publisher invoke key=k1 path=a hash=x cause=sp1
            2 sp1 rejected key=k1 path=a outcome=rejected
            2 publisher outcome key=k1 path=a outcome=rejected
            3 publisher invoke key=k1 path=a hash=x cause=sp2
            4 publisher outcome key=k1 path=a outcome=undetermined";
        assert!(held(&format!("{run}\n 5 sp2 agreed path=a uid=11.2.0 hash=x key=k1")).0);
        let (ok, why) = held(&format!("{run}\n 5 sp2 agreed path=a uid=11.1.0 hash=x key=k1"));
        assert!(!ok && why.contains("rejected, yet agreed"), "sp1 has rejected it: {why}");
    }

    #[test]
    fn who_knows_that_a_key_is_agreed_does_not_reject_it() {
        let run = "
            1 publisher invoke key=k1 path=a hash=x cause=sp1
            2 sp1 agreed path=a uid=11.1.0 hash=x key=k1
            2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted
            3 publisher invoke key=k1 path=a hash=x cause=sp1
            4 publisher outcome key=k1 path=a outcome=rejected";
        let (ok, why) = held(&format!("{run}\n 4 sp1 rejected key=k1 path=a outcome=rejected"));
        assert!(!ok && why.contains("who knew it agreed"), "{why}");
        let other = run.replace("path=a hash=x cause=sp1\n            4", "path=a hash=y cause=sp1\n            4");
        assert!(held(&format!("{other}\n 4 sp1 rejected key=k1 path=a outcome=rejected")).0, "another content");
        let there = run.replace("cause=sp1\n            4", "cause=sp2\n            4");
        let (ok, why) = held(&format!("{there}\n 4 sp2 rejected key=k1 path=a outcome=rejected"));
        assert!(ok, "one who does not know: {why}");
    }

    #[test]
    fn a_uid_is_of_one_publication() {
        let run = "
            1 publisher invoke key=k1 path=a hash=x
            1 publisher invoke key=k2 path=a hash=x
            2 sp1 agreed path=a uid=11.1.0 hash=x key=k1
            2 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted";
        let other = "3 publisher outcome key=k2 path=a outcome=undetermined";
        assert!(held(&format!("{run}\n{other}")).0);
        for lines in [
            "3 publisher outcome key=k2 path=a uid=11.1.0 outcome=accepted".to_owned(),
            format!("{other}\n 4 sp2 agreed path=a uid=11.1.0 hash=x key=k2"),
            format!("{other}\n 4 sp2 agreed path=b uid=11.1.0 hash=x key=k2"),
        ] {
            let (ok, why) = held(&format!("{run}\n{lines}"));
            assert!(!ok && why.contains("one UID, two publications"), "{lines}: {why}");
        }
        assert!(
            held(&format!("{run}\n{other}\n 4 sp2 agreed path=b uid=11.1.0 hash=x key=k1")).0,
            "of several entries"
        );
    }

    #[test]
    fn what_superseded_it_is_agreed() {
        let run = "
            1 publisher invoke key=k1 path=a hash=x
            2 publisher outcome key=k1 path=a outcome=undetermined cause=superseded;by;11.1.0";
        let (ok, why) = held(run);
        assert!(!ok && why.contains("never agreed"), "{why}");
        assert!(!held(&format!("{run}\n 3 sp1 agreed path=b uid=11.1.0")).0, "on another path");
        for line in ["1 sp1 agreed path=a uid=11.1.0", "3 sp1 agreed path=a uid=11.1.0"] {
            let (ok, why) = held(&format!("{run}\n{line}"));
            assert!(ok, "{line}: {why}");
        }
    }

    #[test]
    fn a_deletion_is_no_empty_content() {
        let run = "
            1 publisher invoke key=k1 path=a hash=x outcome=deleted
            2 sp1 agreed path=a uid=11.1.0 hash=x key=k1 outcome=deleted
            3 publisher outcome key=k1 path=a uid=11.1.0 outcome=accepted";
        let (ok, why) = held(run);
        assert!(ok, "{why}");
        let (ok, why) = held(&run.replace("key=k1 outcome=deleted", "key=k1"));
        assert!(!ok && why.contains("other content"), "{why}");
    }

    #[test]
    fn a_key_is_judged_and_forgotten_after_a_day() {
        let (ok, why) =
            held(&format!("{HONEST}\n 10 publisher invoke key=k4 path=a\n 90000 publisher scheduled key=k5"));
        assert!(!ok && why.contains("no outcome"), "{why}");
        let retried = format!(
            "{HONEST}\n 80000 publisher invoke key=k1 path=a hash=x
            80001 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted\n 100000 testbed usage"
        );
        let (ok, why) = held(&retried);
        assert!(ok, "{why}");
    }
}
