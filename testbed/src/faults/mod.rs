//! Faults: what goes wrong, when, and the proof that it did and that it was undone.

mod kind;
pub(crate) mod links;
pub(crate) mod replies;

pub use kind::{BadFault, FaultKind, Parameter, Role};

use crate::scenario::Fault;
use std::time::Duration;

/// One step of a plan: a fault begins or ends at a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When, counted from the first update.
    pub at: Duration,
    /// Which host.
    pub host: String,
    /// What.
    pub kind: FaultKind,
    /// Its place in the scenario's list.
    pub fault: usize,
    /// Whether it begins, else it is undone.
    pub begins: bool,
}

/// One fault at one host, from beginning to end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Occurrence {
    /// The fault's place in the scenario's list.
    pub fault: usize,
    /// Which host.
    pub host: String,
    /// When it begins, counted from the first update.
    pub begins: Duration,
    /// When it ends.
    pub ends: Duration,
}

/// What `faults` come to; each ends by the end of the updates at the latest, a restart without a length at once.
pub fn occurrences(faults: &[Fault], hosts: &[String], duration: Duration) -> Vec<Occurrence> {
    let mut all = Vec::new();
    for (index, fault) in faults.iter().enumerate() {
        let begins = fault.at.0.min(duration);
        let ends = match (fault.lasts, fault.kind) {
            (Some(lasts), _) => begins.saturating_add(lasts.0).min(duration),
            (None, FaultKind::Restart) => begins,
            (None, _) => duration,
        };
        let hit = fault.target.select(hosts);
        all.extend(hit.into_iter().map(|host| Occurrence { fault: index, host: host.to_owned(), begins, ends }));
    }
    all
}

/// The steps of `faults` in the order of time.
pub fn plan(faults: &[Fault], hosts: &[String], duration: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    for Occurrence { fault, host, begins, ends } in occurrences(faults, hosts, duration) {
        let kind = faults[fault].kind;
        steps.push(Step { at: begins, host: host.clone(), kind, fault, begins: true });
        steps.push(Step { at: ends, host, kind, fault, begins: false });
    }
    // A fault that ends where it begins keeps its order: the sort is stable.
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    fn fault(kind: FaultKind, target: &str, at_s: u64, lasts_s: Option<u64>) -> Fault {
        let span = |seconds| Span(Duration::from_secs(seconds));
        Fault::new(kind, target, span(at_s), lasts_s.map(span))
    }

    #[test]
    fn every_fault_begins_and_ends() {
        let hosts = ["sp1", "sp2", "receiver1"].map(String::from);
        let faults = [
            fault(FaultKind::Kill, "sp*", 5, Some(3)),
            fault(FaultKind::Pause, "receiver1", 2, None),
            fault(FaultKind::Restart, "sp1", 3, None),
        ];
        let steps = plan(&faults, &hosts, Duration::from_secs(7));
        let shown: Vec<_> = steps.iter().map(|step| (step.at.as_secs(), &*step.host, step.begins)).collect();
        assert_eq!(
            shown,
            [
                (2, "receiver1", true),
                (3, "sp1", true),
                (3, "sp1", false),
                (5, "sp1", true),
                (5, "sp2", true),
                (7, "sp1", false),
                (7, "sp2", false),
                (7, "receiver1", false)
            ]
        );
        assert!(steps.iter().all(|step| faults[step.fault].kind == step.kind));
    }
}
