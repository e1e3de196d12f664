//! P8, honest outcome: each attempt has exactly one outcome, and what it says is true.

use super::{
    CheckReport, Findings,
    facts::{Facts, version},
};
use crate::trace::{Event, Kind};
use std::collections::{BTreeMap, BTreeSet};

const TITLE: &str = "honest outcome: one for each attempt, and a true one";
const PROMISE: &str = "A publisher gets exactly one of accepted (agreed and kept), rejected (will never be agreed) and \
                       undetermined; never accepted for something lost, never rejected for something that appears.";

#[derive(Default)]
struct Attempt<'t> {
    invokes: Vec<&'t Event>,
    outcomes: Vec<&'t Event>,
    /// What storage points say they told the publisher.
    told: Vec<&'t Event>,
}

/// One outcome per attempt; accepted ones were agreed under that key's UID and content; rejected keys never were.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    let mut attempts: BTreeMap<&str, Attempt<'_>> = BTreeMap::new();
    let mut agreed_keys: BTreeMap<&str, &Event> = BTreeMap::new();
    for event in facts.trace.events() {
        let Some(key) = event.publication.as_deref() else { continue };
        match event.kind {
            Kind::Invoke => attempts.entry(key).or_default().invokes.push(event),
            Kind::Outcome => attempts.entry(key).or_default().outcomes.push(event),
            Kind::Accepted | Kind::Rejected | Kind::Undetermined => attempts.entry(key).or_default().told.push(event),
            Kind::Agreed | Kind::Merged => drop(agreed_keys.entry(key).or_insert(event)),
            _ => {}
        }
    }
    // An SP that was killed at the wrong moment may not have said "agreed", but what became agreed is in some index.
    let indexed: BTreeSet<_> =
        facts.indices.values().flat_map(BTreeMap::values).filter_map(|event| version(event)).collect();
    for (key, attempt) in &attempts {
        findings.looked_at(attempt.outcomes.len() as u64);
        check_one_outcome(&mut findings, key, attempt);
        for outcome in attempt.outcomes.iter().chain(&attempt.told) {
            match outcome.outcome.as_deref() {
                Some("accepted") => check_accepted(facts, &mut findings, attempt, outcome),
                Some("rejected") => {
                    if let Some(agreed) = agreed_keys.get(key) {
                        findings.violated(|| format!("rejected, yet agreed: {outcome}, but {agreed}"));
                    } else if version(outcome).is_some_and(|version| indexed.contains(&version)) {
                        findings.violated(|| format!("rejected, yet in an index at the end: {outcome}"));
                    }
                }
                Some("undetermined") => {}
                _ => findings.violated(|| format!("an outcome that is none: {outcome}")),
            }
        }
    }
    findings.report("P8", TITLE, PROMISE)
}

fn check_one_outcome(findings: &mut Findings, key: &str, attempt: &Attempt<'_>) {
    // Events without an attempt are of publishers outside the testbed.
    let (Some(invoke), [first, ..]) = (attempt.invokes.first(), attempt.outcomes.as_slice()) else {
        if let Some(invoke) = attempt.invokes.first() {
            findings.violated(|| format!("no outcome: {invoke}"));
        } else if let Some(outcome) = attempt.outcomes.first() {
            findings.violated(|| format!("an outcome without an attempt: {outcome}"));
        }
        return;
    };
    if attempt.invokes.len() != 1 || attempt.outcomes.len() != 1 {
        let (invokes, outcomes) = (attempt.invokes.len(), attempt.outcomes.len());
        findings.violated(|| format!("{invokes} attempts and {outcomes} outcomes under key {key}: {invoke} {first}"));
    }
    for told in &attempt.told {
        // The publisher may not have heard; but it cannot have heard something else.
        if first.outcome != told.outcome && first.outcome.as_deref() != Some("undetermined") {
            findings.violated(|| format!("told otherwise than heard: {told}, but {first}"));
        }
    }
}

fn check_accepted(facts: &Facts<'_>, findings: &mut Findings, attempt: &Attempt<'_>, outcome: &Event) {
    let Some(version) = version(outcome) else {
        return findings.violated(|| format!("accepted without a name: {outcome}"));
    };
    let Some(agreed) = facts.agreed.get(&version) else {
        return findings.violated(|| format!("accepted, but never agreed: {outcome}"));
    };
    let handed_in = attempt.invokes.first().and_then(|invoke| invoke.hash);
    if handed_in.is_some() && agreed.hash.is_some() && handed_in != agreed.hash {
        findings.violated(|| format!("accepted with other content than was handed in: {outcome}, but {agreed}"));
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

    fn held(text: &str) -> (bool, String) {
        let trace = trace(text);
        let report = check(&Facts::of(&trace));
        (report.held, report.violations.join("\n"))
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
            ("10 publisher outcome key=k2 path=a outcome=rejected", "2 outcomes"),
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
}
