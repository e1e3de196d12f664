//! Faults: what goes wrong, when, and the proof that it did and that it was undone.

use crate::scenario::Fault;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, time::Duration};

/// A way to go wrong that this version can bring about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum FaultKind {
    /// `kill -9`; undone by starting the process again.
    Kill,
    /// SIGSTOP; undone by SIGCONT.
    Pause,
    /// SIGTERM and a graceful end; undone by starting the process again.
    Restart,
}

/// Faults that a scenario may name one day.
const NOT_YET: [&str; 15] = [
    "isolate",
    "partition",
    "flap",
    "loss",
    "slow-link",
    "disk-full",
    "disk-slow",
    "disk-fail",
    "disk-lost",
    "clock-skew",
    "clock-jump",
    "cache-corrupt",
    "cache-truncate",
    "cache-stale",
    "cache-rollback",
];

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Kill => "kill",
            FaultKind::Pause => "pause",
            FaultKind::Restart => "restart",
        })
    }
}

/// A text names no fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadFault {
    /// No such fault.
    #[error("unknown fault `{0}`, expected one of `kill`, `pause`, `restart`")]
    Unknown(String),
    /// A fault that this version cannot bring about.
    #[error("fault kind `{0}`: not available in this version")]
    NotYet(String),
}

impl FromStr for FaultKind {
    type Err = BadFault;

    fn from_str(name: &str) -> Result<FaultKind, BadFault> {
        match name {
            "kill" => Ok(FaultKind::Kill),
            "pause" => Ok(FaultKind::Pause),
            "restart" => Ok(FaultKind::Restart),
            _ if NOT_YET.contains(&name) => Err(BadFault::NotYet(name.to_owned())),
            _ => Err(BadFault::Unknown(name.to_owned())),
        }
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FaultKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<FaultKind, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One step of a plan: a fault begins or ends at a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// When, counted from the first update.
    pub at: Duration,
    /// Which host.
    pub host: String,
    /// What.
    pub kind: FaultKind,
    /// Whether it begins, else it is undone.
    pub begins: bool,
}

/// The steps of `faults` in the order of time; each fault ends by the end of the updates at the latest,
/// a restart without a length at once.
pub fn plan(faults: &[Fault], hosts: &[String], duration: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    for fault in faults {
        let begin = fault.at.0.min(duration);
        let end = match (fault.lasts, fault.kind) {
            (Some(lasts), _) => begin.saturating_add(lasts.0).min(duration),
            (None, FaultKind::Restart) => begin,
            (None, _) => duration,
        };
        for host in fault.target.select(hosts) {
            let step = |at, begins| Step { at, host: host.to_owned(), kind: fault.kind, begins };
            steps.push(step(begin, true));
            steps.push(step(end, false));
        }
    }
    // A fault that ends where it begins keeps its order: the sort is stable.
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Span, Target};

    fn fault(kind: FaultKind, target: &str, at_s: u64, lasts_s: Option<u64>) -> Fault {
        let span = |seconds| Span(Duration::from_secs(seconds));
        Fault { kind, target: Target::One(target.into()), at: span(at_s), lasts: lasts_s.map(span) }
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
    }
}
