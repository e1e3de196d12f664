//! P5, integrity: receivers expose only whole content of agreed publications.
//!
//! Any publication ever agreed may be exposed, so none can be forgotten: that is why the facts grow by some 130 bytes
//! with each. Beside them this keeps what was exposed and is not yet known to be agreed, and each receiver's audit until
//! its end.

use super::{Check, CheckReport, Findings};
use crate::{
    facts::{Facts, PathId, ProcessId, Seen, VersionId},
    trace::{Event, Kind},
};
use acms_engine::protocol::Hash;
use std::collections::BTreeMap;

const TITLE: &str = "integrity: only whole content of agreed publications";
const PROMISE: &str = "A receiver only ever exposes whole, hash-verified content of an agreed publication.";

/// Hash, and whether the path was deleted: of that the hash is the one of no content at all.
type Content = (Option<Hash>, bool);

/// What an audit found of one path of one receiver.
#[derive(Debug, Default)]
struct Found {
    state: Option<Event>,
    file: Option<Event>,
}

/// Everything verified, applied or found in a receiver's state is agreed, with that hash; every file found in its
/// directory has the hash that its state says, and every file that its state says is there.
#[derive(Debug, Default)]
pub(crate) struct P5 {
    findings: Findings,
    /// Exposed, and not known to be agreed: the first event of each content, and how many there were.
    suspects: BTreeMap<(VersionId, Content), (Event, u64)>,
    audits: BTreeMap<ProcessId, BTreeMap<PathId, Found>>,
    /// When a storage point last died: it may have known what it had no time to say.
    died_ns: Option<u64>,
}

impl Check for P5 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        let process = facts.process(seen.process);
        match event.kind {
            Kind::Agreed | Kind::Merged | Kind::AuditSp => self.see_agreed(seen, facts),
            Kind::Recovered if process.sp().is_some() => self.see_agreed(seen, facts),
            Kind::Exit if process.sp().is_some() => self.died_ns = Some(event.time_ns),
            Kind::Verified | Kind::Applied | Kind::Exposed | Kind::AuditState | Kind::AuditFile | Kind::AuditEnd
                if process.is_receiver() =>
            {
                self.see_receiver(seen, facts);
            }
            _ => {}
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        for ((version, _), (event, count)) in std::mem::take(&mut self.suspects) {
            self.judge(facts, version, &event, count);
        }
        for found in std::mem::take(&mut self.audits).into_values() {
            self.judge_audit(facts, found);
        }
        self.findings.report("P5", TITLE, PROMISE)
    }
}

impl P5 {
    fn see_agreed(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let Some(id) = seen.version else { return };
        let (event, version) = (seen.event, facts.version(id));
        if seen.is_first_agreed {
            let known: Vec<_> = self.suspects.range((id, (None, false))..).map(|(key, _)| *key).collect();
            for key in known.into_iter().take_while(|(other, _)| *other == id) {
                let (exposed, count) = self.suspects.remove(&key).expect("it is there");
                let might_be_known = self.died_ns.is_some_and(|died_ns| died_ns >= version.born_ns());
                if !might_be_known && exposed.time_ns < event.time_ns {
                    self.findings.violated(|| format!("exposed before it was agreed: {exposed}, but {event}"));
                }
                self.judge(facts, id, &exposed, count);
            }
        } else if version.agreed.is_some() && version.differs(event.hash, event.is_deletion()) {
            self.findings.violated(|| format!("one UID, two contents: {} and {event}", facts.show(id)));
        }
    }

    fn see_receiver(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        if let Some(version) = seen.version {
            if facts.version(version).agreed.is_some() {
                self.judge(facts, version, event, 1);
            } else {
                self.suspects
                    .entry((version, (event.hash, event.is_deletion())))
                    .or_insert_with(|| (event.clone(), 0))
                    .1 += 1;
            }
        }
        match (event.kind, seen.path) {
            (Kind::AuditEnd, _) => {
                if let Some(found) = self.audits.remove(&seen.process) {
                    self.judge_audit(facts, found);
                }
            }
            (Kind::AuditState, Some(path)) => self.audit(seen.process, path).state = Some(event.clone()),
            (Kind::AuditFile, Some(path)) => self.audit(seen.process, path).file = Some(event.clone()),
            _ => {}
        }
    }

    fn audit(&mut self, process: ProcessId, path: PathId) -> &mut Found {
        self.audits.entry(process).or_default().entry(path).or_default()
    }

    fn judge(&mut self, facts: &Facts, id: VersionId, event: &Event, count: u64) {
        self.findings.looked_at(count);
        let version = facts.version(id);
        if version.agreed.is_none() {
            self.findings.violated(|| format!("never agreed: {event}"));
        } else if version.differs(event.hash, event.is_deletion()) {
            self.findings.violated(|| format!("other content than agreed: {event}, but {}", facts.show(id)));
        }
    }

    fn judge_audit(&mut self, facts: &Facts, found: BTreeMap<PathId, Found>) {
        for (path, found) in found {
            self.findings.looked_at(u64::from(found.file.is_some()));
            match (&found.state, &found.file) {
                (Some(state), Some(file)) if state.is_deletion() || state.hash != file.hash => {
                    self.findings.violated(|| format!("not what the receiver's state says: {file}, but {state}"));
                }
                (None, Some(file)) => {
                    self.findings.violated(|| format!("in no receiver's state, so of no agreed publication: {file}"))
                }
                // What another path hides is known, and has no file.
                (Some(state), None) if !state.is_deletion() && !facts.is_hidden(path) => {
                    self.findings.violated(|| format!("no such file: the receiver's state has {state}"));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::P5;
    use crate::checks::testing::held;

    const RUN: &str = "
        1 sp1 agreed path=a uid=10.1.0 hash=x
        2 receiver1 verified path=a uid=10.1.0 hash=x
        3 receiver1 applied path=a uid=10.1.0 hash=x";
    const AUDIT: &str = "
        9 receiver1 audit_state path=a uid=10.1.0 hash=x
        9 receiver1 audit_file path=a hash=x";

    #[test]
    fn agreed_content_holds() {
        assert!(held::<P5>(&format!("{RUN}{AUDIT}")).0);
        let deleted = "
            4 sp1 agreed path=a uid=11.1.0 hash=empty outcome=deleted
            5 receiver1 applied path=a uid=11.1.0 hash=empty outcome=deleted
            9 receiver1 audit_state path=a uid=11.1.0 hash=empty outcome=deleted";
        assert!(held::<P5>(&format!("{RUN}{deleted}")).0);
    }

    #[test]
    fn each_way_to_break_it_is_named() {
        for (line, word) in [
            ("2 receiver2 verified path=a uid=11.1.0 hash=x", "never agreed"),
            ("2 receiver2 verified path=a uid=10.1.0 hash=y", "other content"),
            ("2 sp2 agreed path=a uid=10.1.0 hash=y", "two contents"),
            ("2 receiver2 applied path=a uid=10.1.0 hash=x outcome=deleted", "other content"),
            ("2 sp2 merged path=a uid=10.1.0 hash=x outcome=deleted", "two contents"),
            ("4 receiver1 exposed path=a uid=10.1.0 hash=torn", "other content"),
            ("9 receiver2 audit_file path=a hash=x", "in no receiver's state"),
            ("9 receiver2 audit_state path=a uid=10.1.0 hash=x", "no such file"),
            ("9 receiver1 audit_file path=a hash=torn", "not what the receiver's state says"),
            ("9 receiver1 audit_state path=a uid=10.1.0 hash=x outcome=deleted", "not what the receiver's state says"),
        ] {
            let (ok, why) = held::<P5>(&format!("{RUN}{AUDIT}\n{line}"));
            assert!(!ok && why.contains(word), "{line}: {why}");
        }
    }

    #[test]
    fn without_receivers_it_is_not_exercised() {
        assert!(!held::<P5>("1 sp1 agreed path=a uid=10.1.0 hash=x").0);
    }

    #[test]
    fn what_was_exposed_before_it_was_agreed_is_named_unless_a_killed_storage_point_may_have_known() {
        let early = "
            1 sp1 start
            2 publisher invoke key=k1 path=a hash=x
            4 receiver1 verified path=a uid=10.1.0 hash=x
            5 sp1 agreed path=a uid=10.1.0 hash=x key=k1";
        let (ok, why) = held::<P5>(early);
        assert!(!ok && why.contains("before it was agreed"), "{why}");
        let killed = format!("{early}\n3 sp1 exit outcome=killed\n 3 sp1#1 start");
        assert!(held::<P5>(&killed).0);
        let by_quorum = "
            1 sp1 start
            4 receiver1 verified path=a uid=10.1.0 hash=x
            9 sp1 audit_sp path=a uid=10.1.0 hash=x";
        assert!(held::<P5>(by_quorum).0, "what the indices of a quorum hold is agreed");
        let (ok, why) = held::<P5>(&by_quorum.replace("hash=x\n", "hash=y\n"));
        assert!(!ok && why.contains("other content"), "{why}");
    }
}
