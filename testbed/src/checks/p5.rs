//! P5, integrity: receivers expose only whole content of agreed publications.

use super::{
    CheckReport, Findings,
    facts::{Facts, is_receiver, version},
};
use crate::trace::{Event, Kind};
use std::collections::BTreeMap;

const TITLE: &str = "integrity: only whole content of agreed publications";
const PROMISE: &str = "A receiver only ever exposes whole, hash-verified content of an agreed publication.";

/// Everything verified, applied or found in a receiver's state is agreed, with that hash; every file found in its
/// directory has the hash that its state says, and every file that its state says is there.
pub(super) fn check(facts: &Facts<'_>) -> CheckReport {
    let mut findings = Findings::default();
    for (first, second) in &facts.contradictions {
        findings.violated(|| format!("one UID, two contents: {first} and {second}"));
    }
    let mut state: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    let mut files: BTreeMap<(&str, &str), &Event> = BTreeMap::new();
    for event in facts.trace.events().iter().filter(|event| is_receiver(&event.process)) {
        let Some(path) = event.path.as_deref() else { continue };
        match event.kind {
            Kind::Verified | Kind::Applied | Kind::Exposed => check_agreed(facts, event, &mut findings),
            Kind::AuditState => {
                check_agreed(facts, event, &mut findings);
                state.insert((&event.process, path), event);
            }
            Kind::AuditFile => drop(files.insert((&event.process, path), event)),
            _ => {}
        }
    }
    for (place, file) in &files {
        findings.looked_at(1);
        match state.get(place) {
            Some(entry) if !entry.is_deletion() && entry.hash == file.hash => {}
            Some(entry) => findings.violated(|| format!("{file} is not what the receiver's state says: {entry}")),
            None => findings.violated(|| format!("{file} is in no receiver's state, so of no agreed publication")),
        }
    }
    for (place, entry) in &state {
        if !entry.is_deletion() && !files.contains_key(place) {
            findings.violated(|| format!("the receiver's state has {entry}, but there is no such file"));
        }
    }
    findings.report("P5", TITLE, PROMISE)
}

fn check_agreed(facts: &Facts<'_>, event: &Event, findings: &mut Findings) {
    let Some(version) = version(event) else { return };
    findings.looked_at(1);
    match facts.agreed.get(&version) {
        None => findings.violated(|| format!("never agreed: {event}")),
        Some(agreed) if event.hash.is_some() && agreed.hash != event.hash => {
            findings.violated(|| format!("other content than agreed: {event}, but {agreed}"));
        }
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::checks::{facts::Facts, testing::trace};

    const RUN: &str = "
        1 sp1 agreed path=a uid=10.1.0 hash=x
        2 receiver1 verified path=a uid=10.1.0 hash=x
        3 receiver1 applied path=a uid=10.1.0 hash=x";
    const AUDIT: &str = "
        9 receiver1 audit_state path=a uid=10.1.0 hash=x
        9 receiver1 audit_file path=a hash=x";

    fn held(text: &str) -> (bool, String) {
        let trace = trace(text);
        let report = check(&Facts::of(&trace));
        (report.held, report.violations.join("\n"))
    }

    #[test]
    fn agreed_content_holds() {
        assert!(held(&format!("{RUN}{AUDIT}")).0);
        let deleted = "
            4 sp1 agreed path=a uid=11.1.0 hash=empty
            5 receiver1 applied path=a uid=11.1.0 hash=empty outcome=deleted
            9 receiver1 audit_state path=a uid=11.1.0 hash=empty outcome=deleted";
        assert!(held(&format!("{RUN}{deleted}")).0);
    }

    #[test]
    fn each_way_to_break_it_is_named() {
        for (line, word) in [
            ("2 receiver2 verified path=a uid=11.1.0 hash=x", "never agreed"),
            ("2 receiver2 verified path=a uid=10.1.0 hash=y", "other content"),
            ("2 sp2 agreed path=a uid=10.1.0 hash=y", "two contents"),
            ("9 receiver2 audit_file path=a hash=x", "in no receiver's state"),
            ("9 receiver2 audit_state path=a uid=10.1.0 hash=x", "no such file"),
            ("9 receiver1 audit_file path=a hash=torn", "not what the receiver's state says"),
            ("9 receiver1 audit_state path=a uid=10.1.0 hash=x outcome=deleted", "not what the receiver's state says"),
        ] {
            let (ok, why) = held(&format!("{RUN}{AUDIT}\n{line}"));
            assert!(!ok && why.contains(word), "{line}: {why}");
        }
    }

    #[test]
    fn without_receivers_it_is_not_exercised() {
        assert!(!held("1 sp1 agreed path=a uid=10.1.0 hash=x").0);
    }
}
