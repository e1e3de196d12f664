//! P7, honest freshness: nothing accepted before an as-of is missing where that as-of is claimed.
//!
//! A claim is an event `current` of a receiver or `as_of` of a storage point, with the as-of in true microseconds since
//! 1970 (event `wall` ties these to the trace's time). A publication was accepted at the first moment at which anyone
//! was told so. A claim is judged by all publications accepted more than epsilon (500 ms) before its as-of: the claimer
//! holds each, or a newer one of its path, when it makes the claim; what is not subscribed, hidden by another path (now, or by what the claimer holds), or
//! was said to be blocked is not missing. Nor may a claim be about a future more than epsilon away: what is accepted
//! between now and then would be missing.
//!
//! **The condition.** The promise is given only if each quorum has an SP whose clock is not fast by more than epsilon:
//! that is, if the SPs with faster clocks do not contain a quorum. Events `clock` say how far each clock is ahead, with
//! its drift. An as-of is never lowered, so a clock that was fast once counts as fast from then on; once the SPs that
//! ever were fast contain a quorum, claims are measured and no more judged, and the report says so. This asks less of
//! the system than the promise: it may excuse a run, and never accuses one wrongly.
//!
//! **What is known of a claimer** is what it said: `applied`, or `agreed` and `merged`; and after a restart what it said
//! that it has from its former life, `recovered`. Only who was restarted and says nothing of the kind may hold what was
//! submitted before, killed in between, and is not judged by that.
//!
//! Keeps 16 bytes for every accepted publication, and for each claimer how far it has been judged: it holds what it held
//! (that it does not go back is P4), so each pair of a publication and a claimer is looked at once, and again only while
//! the claimer lacks it.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Clocks, Facts, PathId, ProcessId, Seen, VersionId, names},
    metrics::histogram,
    trace::Kind,
};
use acms_engine::protocol::SpSet;
use hdrhistogram::Histogram;
use std::collections::BTreeSet;

const TITLE: &str = "honest freshness: nothing older than an as-of is missing";
const PROMISE: &str = "Nothing accepted before a receiver's as-of time is missing at that receiver, up to the clock \
                       error epsilon (500 ms), given that each quorum has a storage point whose clock is not fast by \
                       more than epsilon.";

/// How old and how wrong the claims were, in microseconds.
#[derive(Debug)]
pub(crate) struct Measured {
    /// How far receivers' as-ofs lay behind the true time of their claims.
    pub(crate) receivers: Histogram<u64>,
    /// The same of storage points.
    pub(crate) storage_points: Histogram<u64>,
    /// By how much receivers' as-ofs were wrong: from the acceptance of the oldest publication that was missing to the
    /// as-of.
    pub(crate) receiver_errors: Histogram<u64>,
    /// The same of storage points.
    pub(crate) sp_errors: Histogram<u64>,
    /// Claims of receivers and storage points.
    pub(crate) claims: u64,
    /// The greatest error of a receiver; 0 without any.
    pub(crate) receiver_error_us_max: u64,
    /// The greatest error of a storage point; 0 without any.
    pub(crate) sp_error_us_max: u64,
}

impl Default for Measured {
    fn default() -> Measured {
        Measured {
            receivers: histogram(),
            storage_points: histogram(),
            receiver_errors: histogram(),
            sp_errors: histogram(),
            claims: 0,
            receiver_error_us_max: 0,
            sp_error_us_max: 0,
        }
    }
}

/// How far a claimer has been judged.
#[derive(Clone, Debug, Default)]
struct Judged {
    /// So many of the accepted publications were looked at.
    to: usize,
    /// Those of them that it lacked, and for which it has not been accused.
    lacked: Vec<usize>,
}

/// Every claim of a receiver or storage point against all that had been accepted before it.
#[derive(Debug, Default)]
pub(crate) struct P7 {
    findings: Findings,
    measured: Measured,
    /// All that was accepted, in the order of time.
    accepted: Vec<(u64, VersionId)>,
    /// How far each process has been judged by these.
    judged: Vec<Judged>,
    blocked: BTreeSet<(ProcessId, PathId)>,
    /// The fast clocks that were last looked at, and whether they contain a quorum.
    fast: (SpSet, bool),
    /// Whether anyone could have made a claim.
    claimed_nothing: bool,
}

impl Check for P7 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        if let Some(version) = seen.version.filter(|_| seen.is_first_accepted) {
            self.accepted.push((event.time_ns, version));
        }
        match (event.kind, seen.path) {
            (Kind::Blocked, Some(path)) if facts.may_be_blocked(path) => {
                self.blocked.insert((seen.process, path));
            }
            (Kind::Applied, Some(path)) if !self.blocked.is_empty() => drop(self.blocked.remove(&(seen.process, path))),
            // What it has from its former life may be less than it had.
            (Kind::Recovered, None) => {
                if let Some(judged) = self.judged.get_mut(seen.process as usize) {
                    *judged = Judged::default();
                }
            }
            (Kind::Current | Kind::AsOf, _) => {
                let as_of_us = event.cause.as_deref().and_then(|cause| cause.parse().ok()).unwrap_or(0);
                match facts.clocks.true_us(event.time_ns) {
                    Some(now_us) if as_of_us > 0 => self.judge(seen, facts, as_of_us, now_us),
                    // Nothing is claimed: "nothing is missing from before 1970".
                    _ => self.claimed_nothing |= as_of_us == 0,
                }
            }
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if self.is_void(facts) {
            let fast = names(facts.clocks.fast());
            self.findings.void = Some(format!("not judged any more once {fast}, a quorum, had clocks too fast"));
        } else if self.findings.events == 0 && self.claimed_nothing {
            self.findings.void = Some("not judged: no as-of was ever above 0".to_owned());
        }
        self.findings.report("P7", TITLE, PROMISE)
    }
}

impl P7 {
    /// The measurements, of which nothing is left.
    pub(crate) fn take_measured(&mut self) -> Measured {
        std::mem::take(&mut self.measured)
    }

    /// Whether the condition is not met.
    fn is_void(&mut self, facts: &Facts) -> bool {
        let fast = facts.clocks.fast();
        if fast != self.fast.0 {
            self.fast = (fast, facts.quorum().is_some_and(|quorum| quorum.is_quorum(fast)));
        }
        self.fast.1 || facts.lost_too_many.is_some()
    }

    fn judge(&mut self, seen: &Seen<'_>, facts: &Facts, as_of_us: u64, now_us: u64) {
        const EPSILON_US: u64 = Clocks::ERROR_US_MAX;
        let (event, claimer) = (seen.event, seen.process as usize);
        let is_judged = !self.is_void(facts);
        let stale_us = now_us.saturating_sub(as_of_us).max(1);
        let is_receiver = facts.process(seen.process).is_receiver();
        let staleness = if is_receiver { &mut self.measured.receivers } else { &mut self.measured.storage_points };
        staleness.saturating_record(stale_us);
        self.measured.claims += 1;
        self.findings.looked_at(u64::from(is_judged));
        if is_judged && as_of_us > now_us + EPSILON_US {
            self.findings.violated(|| format!("claims the future: {event}, when it was {now_us}"));
        }
        if self.judged.len() <= claimer {
            self.judged.resize(claimer + 1, Judged::default());
        }
        let Judged { mut to, lacked } = std::mem::take(&mut self.judged[claimer]);
        let before = self.accepted[to..]
            .iter()
            .take_while(|(accepted_ns, _)| facts.clocks.true_us(*accepted_ns).unwrap_or(u64::MAX) < as_of_us);
        let new = to..to + before.count();
        to = new.end;
        let (mut error_us, mut still) = (0, Vec::new());
        for at in lacked.into_iter().chain(new) {
            let (accepted_ns, version) = self.accepted[at];
            if !lacks(facts, &self.blocked, seen.process, version) {
                continue;
            }
            // An as-of never falls, but who says so may be another life.
            let before_us = as_of_us.saturating_sub(facts.clocks.true_us(accepted_ns).unwrap_or(u64::MAX));
            error_us = error_us.max(before_us);
            if before_us <= EPSILON_US {
                still.push(at);
            } else if is_judged {
                let accepted = facts.show_accepted(version);
                self.findings.violated(|| format!("missing: {accepted}, {before_us} us before the as-of of {event}"));
            } else {
                // Measured on, and no more judged.
                still.push(at);
            }
        }
        self.judged[claimer] = Judged { to, lacked: still };
        if error_us > 0 {
            let errors = if is_receiver { &mut self.measured.receiver_errors } else { &mut self.measured.sp_errors };
            errors.saturating_record(error_us);
            let max =
                if is_receiver { &mut self.measured.receiver_error_us_max } else { &mut self.measured.sp_error_us_max };
            *max = error_us.max(*max);
        }
    }
}

/// Whether a process should have a version, or a newer one of its path, and has said nothing of the kind.
fn lacks(facts: &Facts, blocked: &BTreeSet<(ProcessId, PathId)>, process: ProcessId, id: VersionId) -> bool {
    let version = facts.version(id);
    if facts.uid(facts.held(process, version.path).kept) >= Some(version.uid) {
        return false;
    }
    let about = facts.process(process);
    if !about.has_said_recovered && about.life_ns > version.born_ns() {
        return false;
    }
    let is_hidden = || facts.is_hidden(version.path) || facts.is_hidden_from(process, id);
    let is_wanted = !about.is_receiver() || (facts.wants(process, version.path) && !is_hidden());
    is_wanted && !blocked.contains(&(process, version.path))
}

#[cfg(test)]
mod tests {
    use super::P7;
    use crate::checks::testing::{held, judge};

    /// True time is 1,000 s ahead of the trace's.
    const RUN: &str = "
        0 testbed wall cause=1000000000
        1 sp1 start
        1 sp2 start
        1 sp3 start
        1 receiver1 start
        1 receiver1 subscribe path=a
        2 publisher invoke key=k1 path=a/x hash=x
        3 sp1 agreed path=a/x uid=10.1.0 hash=x key=k1
        4 sp1 accepted path=a/x uid=10.1.0 key=k1 outcome=accepted
        5 publisher outcome key=k1 path=a/x uid=10.1.0 outcome=accepted";

    #[test]
    fn claims_with_all_that_was_accepted_hold() {
        let text = format!(
            "{RUN}
             5 receiver1 current cause=1003900000
             6 receiver1 applied path=a/x uid=10.1.0 hash=x
             7 receiver1 current cause=1006000000
             7 sp1 as_of cause=1006900000"
        );
        let report = judge::<P7>(&text);
        assert!(report.held, "{:?}", report.violations);
        assert_eq!(report.events, 3);
        let newer = text.replace("6 receiver1 applied path=a/x uid=10.1.0", "6 receiver1 applied path=a/x uid=11.1.0");
        assert!(held::<P7>(&newer).0);
        let other =
            text.replace("subscribe path=a", "subscribe path=b").replace("6 receiver1 applied", "6 receiver2 applied");
        assert!(held::<P7>(&other).0, "what is not subscribed is not missing");
    }

    #[test]
    fn what_is_missing_is_named_from_epsilon_on() {
        let (ok, why) = held::<P7>(&format!("{RUN}\n 6 receiver1 current cause=1004600000"));
        assert!(!ok && why.contains("missing") && why.contains("10.1.0") && why.contains("600000 us"), "{why}");
        assert!(held::<P7>(&format!("{RUN}\n 6 receiver1 current cause=1004400000")).0, "within epsilon");
        let (ok, why) = held::<P7>(&format!("{RUN}\n 6 sp2 as_of cause=1006000000"));
        assert!(!ok && why.contains("sp2 as_of"), "{why}");
        let (ok, why) = held::<P7>(&format!("{RUN}\n 6 sp1 as_of cause=1006600000"));
        assert!(!ok && why.contains("claims the future"), "{why}");
    }

    #[test]
    fn who_was_restarted_is_judged_only_by_what_was_submitted_since() {
        let restarted = "5 sp2 exit outcome=killed\n 6 sp2#1 start\n 7 sp2#1 as_of cause=1007000000";
        assert!(held::<P7>(&format!("{RUN}\n{restarted}")).0);
        let later = "
            8 publisher invoke key=k2 path=a/y hash=y
            9 sp1 accepted path=a/y uid=12.1.0 key=k2 outcome=accepted
            10 sp2#1 as_of cause=1010000000";
        let (ok, why) = held::<P7>(&format!("{RUN}\n{restarted}\n{later}"));
        assert!(!ok && why.contains("12.1.0"), "{why}");
    }

    #[test]
    fn who_says_what_it_recovered_is_judged_by_all() {
        let restarted = "
            4 sp2 agreed path=a/x uid=10.1.0 hash=x
            5 sp2 as_of cause=1005000000
            5 sp2 exit outcome=killed
            6 sp2#1 start
            6 sp2#1 recovered cause=1
            6 sp2#1 recovered path=a/x uid=10.1.0 hash=x
            7 sp2#1 as_of cause=1007000000";
        let (ok, why) = held::<P7>(&format!("{RUN}\n{restarted}"));
        assert!(ok, "{why}");
        let lost = restarted.replace("6 sp2#1 recovered path=a/x uid=10.1.0 hash=x", "");
        let (ok, why) = held::<P7>(&format!("{RUN}\n{lost}"));
        assert!(!ok && why.contains("missing") && why.contains("sp2#1"), "it forgot what it knew: {why}");
    }

    #[test]
    fn what_is_blocked_is_so_until_it_is_applied() {
        let run = "
            6 receiver1 blocked path=a/x cause=case
            7 receiver1 current cause=1007000000
            8 receiver1 applied path=a/x uid=10.1.0
            9 publisher invoke key=k2 path=a/x hash=y
            9 sp1 accepted path=a/x uid=12.1.0 key=k2 outcome=accepted";
        assert!(held::<P7>(&format!("{RUN}\n{run}")).0);
        let (ok, why) = held::<P7>(&format!("{RUN}\n{run}\n 11 receiver1 current cause=1011000000"));
        assert!(!ok && why.contains("12.1.0"), "{why}");
    }

    #[test]
    fn errors_are_measured_on_when_they_are_not_judged() {
        let fast = "1 sp1 clock cause=3600000000\n 1 sp2 clock cause=3600000000";
        let text = format!(
            "{RUN}\n{fast}\n 6 receiver1 current cause=1006000000\n 7 receiver1 current cause=1008000000
             8 sp2 as_of cause=1008000000\n 9 receiver1 applied path=a/x uid=10.1.0\n 10 receiver1 current cause=1010000000"
        );
        let freshness = crate::metrics::Metrics::of(&crate::checks::testing::trace(&text)).freshness;
        assert_eq!((freshness.receiver_errors, freshness.receiver_error_ms_max), (2, 4000.0));
        assert_eq!((freshness.storage_point_errors, freshness.error_ms_max), (1, 4000.0));
    }

    #[test]
    fn a_quorum_of_fast_clocks_voids_the_promise_and_one_fast_clock_does_not() {
        let wrong = "6 receiver1 current cause=3600000000";
        let clock = |sp: u8, ahead: &str| format!("1 sp{sp} clock cause={ahead}");
        let (ok, _) = held::<P7>(&format!("{RUN}\n{}\n{wrong}", clock(1, "3600000000")));
        assert!(!ok);
        let slow =
            format!("{RUN}\n{}\n{}\n{}\n{wrong}", clock(1, "3600000000"), clock(2, "-3600000000"), clock(3, "400000"));
        assert!(!held::<P7>(&slow).0);
        let fast = format!("{RUN}\n{}\n{}\n{wrong}", clock(1, "3600000000"), clock(2, "600000"));
        let report = judge::<P7>(&fast);
        assert!(report.held && report.note.unwrap().contains("sp1, sp2"));
    }

    #[test]
    fn without_claims_it_is_not_exercised() {
        assert!(!judge::<P7>(RUN).held);
        assert!(judge::<P7>(&format!("{RUN}\n 6 receiver1 current cause=0")).note.is_some());
    }
}
