//! P2, agreement is final: once one storage point knows an agreement, all that stay up and connected learn it.
//!
//! Keeps the publications that became agreed within [`BOUND`], and those that someone still lacks. A storage point that
//! was restarted since a publication was submitted may have learned it without saying so (killed between knowing and
//! saying): of such publications only its index at the end is judged.

use super::{Check, CheckReport, Findings, bound_ns, lost_too_many, p6::BOUND};
use crate::{
    facts::{Facts, ProcessId, Seen, VersionId},
    trace::Kind,
};
use std::collections::VecDeque;

const TITLE: &str = "agreement is final: one knows, so all learn, and none forgets";
const PROMISE: &str = "Once any storage point knows agreement on a publication, every one that stays up and connected \
                       learns it or a newer one of its path, at the latest by the end; none ever un-learns it.";

/// While no fault goes on, every SP knows each agreement (or a newer one of the path) within [`BOUND`]; at the end no
/// audited SP has an entry older than the latest that any knew.
#[derive(Debug, Default)]
pub(crate) struct P2 {
    findings: Findings,
    /// By when everyone should know them.
    spreading: VecDeque<(u64, VersionId)>,
    /// When a link or a process last went or came, or a fault.
    disturbed_ns: u64,
}

impl Check for P2 {
    fn observe(&mut self, seen: &Seen<'_>, facts: &Facts) {
        let event = seen.event;
        match event.kind {
            Kind::Fault | Kind::FaultUndone | Kind::LinkUp | Kind::LinkDown => self.disturbed_ns = event.time_ns,
            Kind::Start | Kind::Exit if facts.process(seen.process).sp().is_some() => self.disturbed_ns = event.time_ns,
            _ => {}
        }
        if facts.audit_ns.is_some() {
            return;
        }
        if let Some(version) = seen.version.filter(|_| seen.is_first_agreed) {
            self.spreading.push_back((event.time_ns + bound_ns(), version));
        }
        while let Some((_, version)) = self.spreading.pop_front_if(|(due_ns, _)| *due_ns <= event.time_ns) {
            self.judge(facts, version);
        }
    }

    fn finish(mut self, facts: &Facts) -> CheckReport {
        if let Some(void) = lost_too_many(facts) {
            self.findings = Findings { void: Some(void), ..Findings::default() };
            return self.findings.report("P2", TITLE, PROMISE);
        }
        let audited = facts.audited_sps();
        for path in facts.paths_by_name() {
            let Some(latest) = facts.latest(path) else { continue };
            for sp in &audited {
                self.findings.looked_at(1);
                let (found, held) = (facts.found(*sp, path), facts.held(*sp, path).kept);
                if facts.uid(found) >= facts.uid(Some(latest)) {
                    continue;
                }
                let name = &facts.process(*sp).name;
                let found = found.map_or("nothing".to_owned(), |found| facts.show(found));
                let (wanted, latest) = (facts.uid(Some(latest)), facts.show(latest));
                if let Some(held) = held.filter(|held| facts.uid(Some(*held)) >= wanted) {
                    let held = facts.show(held);
                    self.findings.violated(|| format!("un-learned: {name} knew {held}, but ends with {found}"));
                } else {
                    self.findings.violated(|| format!("never learned: {latest}: {name} ends with {found}"));
                }
            }
        }
        self.findings.report("P2", TITLE, PROMISE)
    }
}

impl P2 {
    fn judge(&mut self, facts: &Facts, version: VersionId) {
        // Who knows a newer one of the path needs this one no more, and that has its own time.
        let latest = facts.path(facts.version(version).path).latest;
        if facts.uid(latest) > facts.uid(Some(version)) {
            return;
        }
        let lacking = lacking(facts, version);
        let is_quiet = facts.faults_open == 0 && self.disturbed_ns + bound_ns() <= facts.now_ns;
        if lacking.is_empty() {
            self.findings.looked_at(1);
        } else if is_quiet {
            self.findings.looked_at(1);
            let who: Vec<&str> = lacking.iter().map(|sp| &*facts.process(*sp).name).collect();
            self.findings.violated(|| {
                format!("not learned in {BOUND:?} without a fault: {} by {}", facts.show(version), who.join(", "))
            });
        } else {
            self.spreading.push_back((facts.now_ns + bound_ns(), version));
        }
    }
}

/// Who has run for as long as all was quiet, and has not said that it knows the publication or a newer one. Who was
/// restarted since it was submitted and does not say what it recovered may know it all the same.
fn lacking(facts: &Facts, id: VersionId) -> Vec<ProcessId> {
    let version = facts.version(id);
    let sps = facts.sps().filter(|(_, process)| process.is_started && process.is_up);
    let quiet_ns = facts.now_ns.saturating_sub(bound_ns());
    let since = sps.filter(|(_, process)| {
        process.life_ns <= version.born_ns() || (process.has_said_recovered && process.ran_since(quiet_ns))
    });
    since.map(|(sp, _)| sp).filter(|sp| facts.uid(facts.held(*sp, version.path).kept) < Some(version.uid)).collect()
}

#[cfg(test)]
mod tests {
    use super::P2;
    use crate::checks::testing::held;

    const RUN: &str = "
        1 sp1 start
        1 sp2 start
        1 sp3 start
        2 publisher invoke key=k1 path=a hash=x
        3 sp1 agreed path=a uid=10.1.0 hash=x key=k1
        3 sp2 agreed path=a uid=10.1.0 hash=x key=k1";
    const AUDIT: &str = "
        100 testbed phase cause=audit
        101 sp1 audit_sp path=a uid=10.1.0 hash=x
        101 sp1 audit_end outcome=complete
        101 sp2 audit_sp path=a uid=10.1.0 hash=x
        101 sp2 audit_end outcome=complete";

    #[test]
    fn what_all_learn_holds_also_by_a_newer_one_or_a_merge() {
        for third in ["4 sp3 agreed path=a uid=10.1.0 key=k1", "60 sp3 merged path=a uid=10.1.0"] {
            let (ok, why) = held::<P2>(&format!("{RUN}\n{third}\n 99 testbed usage\n{AUDIT}"));
            assert!(ok, "{third}: {why}");
        }
        let newer = "4 sp3 agreed path=a uid=11.1.0\n 5 sp1 agreed path=a uid=11.1.0\n 5 sp2 agreed path=a uid=11.1.0";
        let (ok, why) =
            held::<P2>(&format!("{RUN}\n{newer}\n 99 testbed usage\n{}", AUDIT.replace("10.1.0", "11.1.0")));
        assert!(ok, "{why}");
    }

    #[test]
    fn who_does_not_learn_is_named_unless_faults_excuse_it() {
        let (ok, why) = held::<P2>(&format!("{RUN}\n 99 testbed usage"));
        assert!(!ok && why.contains("not learned in 65s") && why.contains("by sp3"), "{why}");
        for excuse in [
            "4 testbed fault outcome=isolate cause=sp3",
            "40 sp3 link_down cause=sp1",
            "40 testbed fault outcome=kill cause=sp2\n 50 testbed fault_undone outcome=kill cause=sp2",
            "4 sp3 exit outcome=killed",
            "4 sp3 exit outcome=killed\n 5 sp3#1 start",
        ] {
            let (ok, why) = held::<P2>(&format!("{RUN}\n{excuse}\n 99 testbed usage\n{AUDIT}"));
            assert!(ok, "{excuse}: {why}");
        }
        let back = "4 sp3 exit outcome=killed\n 5 sp3#1 start\n 5 sp3#1 recovered cause=0\n 99 testbed usage\n 160 testbed usage";
        let (ok, why) = held::<P2>(&format!("{RUN}\n{back}"));
        assert!(!ok && why.contains("by sp3"), "it is back for long, and says that it had nothing: {why}");
        let late = "10 testbed fault outcome=isolate cause=sp3\n 20 testbed fault_undone outcome=isolate cause=sp3";
        let (ok, why) = held::<P2>(&format!("{RUN}\n{late}\n 99 testbed usage\n 160 testbed usage"));
        assert!(!ok && why.contains("not learned"), "{why}");
    }

    #[test]
    fn the_end_tells_what_was_never_learned_and_what_was_forgotten() {
        let empty = AUDIT.replace("101 sp2 audit_sp path=a uid=10.1.0 hash=x", "");
        let (ok, why) = held::<P2>(&format!("{RUN}\n{empty}"));
        assert!(!ok && why.contains("un-learned: sp2 knew"), "{why}");
        let third = AUDIT
            .replace("sp2", "sp3")
            .replace("101 sp3 audit_sp path=a uid=10.1.0", "101 sp3 audit_sp path=a uid=9.1.0");
        let (ok, why) = held::<P2>(&format!("{RUN}\n{third}"));
        assert!(!ok && why.contains("never learned") && why.contains("sp3 ends with"), "{why}");
    }

    #[test]
    fn without_agreements_it_is_not_exercised() {
        assert!(!held::<P2>("1 sp1 start").0);
    }
}
