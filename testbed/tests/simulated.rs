//! The simulated world: each fault has its effect and is undone, the promises hold, and the seed decides all.

use acms_engine::protocol::{SpId, StoragePoint};
use acms_testbed::{
    backend::simulated::{self, Observer, Step, Summary},
    faults::FaultKind,
    judge::{Judge, Verdict},
    scenario::Scenario,
    trace::{Kind, Trace},
};
use std::collections::BTreeSet;

fn scenario(text: &str, seed: u64) -> Scenario {
    let text = format!("name = \"test\"\nbackend = \"simulated\"\nseed = {seed}\n{text}");
    Scenario::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn run(scenario: &Scenario) -> (Summary, Trace, Verdict) {
    let (mut judge, mut trace) = (Judge::new(), Trace::default());
    let summary = simulated::run(scenario, &mut (&mut judge, &mut trace)).unwrap_or_else(|error| panic!("{error}"));
    (summary, trace, judge.finish())
}

/// Every check but those that had nothing to look at.
fn held(verdict: &Verdict) {
    for check in &verdict.checks {
        assert!(check.held || check.not_exercised(), "{}: {}", check.name, check.violations.join("\n"));
    }
}

const SMALL: &str = "
    duration = \"20s\"
    [fleet]
    storage_points = 3
    receivers = 0
    [workload]
    files = 10
    size = \"1..3000\"
    updates_per_s = 3.0
    deletes = 0.1
    large = 0.05
";

fn with_fault(kind: &str, more: &str) -> String {
    format!("{SMALL}\n[[faults]]\nkind = \"{kind}\"\ntarget = \"sp2\"\nat = \"5s\"\nfor = \"6s\"\n{more}")
}

#[test]
fn each_attempt_of_a_quiet_cluster_has_its_outcome() {
    let (summary, trace, verdict) = run(&scenario(SMALL, 1));
    held(&verdict);
    assert!(summary.publications > 40, "{summary:?}");
    assert_eq!(trace.of(Kind::Outcome).count() as u64, summary.publications);
}

#[test]
fn the_seed_decides_all() {
    let faults = "
        [network]
        rtt = \"azure-50\"
        loss = 0.02
        duplicate = 0.02
        delivery = \"datagram\"
        [clocks]
        skew = \"2s\"
        [disk]
        jitter = 0.5
        [[faults]]
        kind = \"disk-torn\"
        target = \"sp*\"
        at = \"5s\"
        for = \"2s\"
        [[faults]]
        kind = \"disk-lost\"
        target = \"sp3\"
        at = \"10s\"
        for = \"2s\"";
    let text = format!("{SMALL}{faults}");
    let (first, again, other) = (run(&scenario(&text, 7)), run(&scenario(&text, 7)), run(&scenario(&text, 8)));
    held(&first.2);
    assert_eq!((first.2.hash, first.0), (again.2.hash, again.0));
    assert_ne!(first.2.hash, other.2.hash);
}

#[test]
fn every_fault_has_its_effect_and_is_undone() {
    let more = |kind: FaultKind| match kind {
        FaultKind::Partition => "peer = \"sp1\"\ndirection = \"in\"",
        FaultKind::Loss => "loss = 0.4",
        FaultKind::SlowLink => "rate = \"64KiB\"\ndelay = \"200ms\"",
        FaultKind::ClockJump | FaultKind::ClockSkew => "by = \"-7s\"",
        FaultKind::DiskRot => "count = 5",
        _ => "",
    };
    for kind in FaultKind::ALL.iter().copied().filter(|kind| !kind.name().starts_with("cache-")) {
        let (summary, trace, verdict) = run(&scenario(&with_fault(kind.name(), more(kind)), 3));
        let noted = |which: Kind| trace.of(which).filter(|event| event.outcome.as_deref() == Some(kind.name())).count();
        assert_eq!((noted(Kind::Fault), noted(Kind::FaultUndone)), (1, 1), "{kind}");
        assert_eq!(summary.faults.get(&kind), Some(&1), "{kind}");
        assert_eq!(summary.notes.len(), 1, "{kind}: {:?}", summary.notes);
        held(&verdict);
    }
}

#[test]
fn power_failures_everywhere_at_once_lose_nothing() {
    for seed in 0..10 {
        let fault = "[[faults]]\nkind = \"disk-torn\"\ntarget = \"sp*\"\nfor = \"1s\"\nat = ";
        let faults: Vec<String> = (1..6).map(|i| format!("{fault}\"{}s\"", 3 * i)).collect();
        let (summary, _, verdict) = run(&scenario(&format!("{SMALL}\n{}", faults.join("\n")), seed));
        held(&verdict);
        assert_eq!(summary.faults.get(&FaultKind::DiskTorn), Some(&15));
    }
}

#[derive(Default)]
struct Seen {
    steps: u64,
    storage_points: BTreeSet<SpId>,
    submitted: u64,
    ended: u64,
}

impl Observer for Seen {
    fn step(&mut self, _time_ns: u64, sp: SpId, step: Step<'_>, machine: &StoragePoint) {
        assert_eq!(machine.config().me, sp);
        self.steps += 1;
        self.storage_points.insert(sp);
        self.submitted += u64::from(matches!(step, Step::Submitted(..)));
        self.ended += u64::from(matches!(step, Step::Ended));
    }
}

#[test]
fn an_observer_sees_every_step_and_changes_nothing() {
    let scenario = scenario(&with_fault("kill", ""), 5);
    let (mut seen, mut trace) = (Seen::default(), Trace::default());
    let summary = simulated::run_observed(&scenario, &mut trace, &mut seen).unwrap();
    assert_eq!(trace.hash(), run(&scenario).2.hash);
    assert_eq!(seen.storage_points.len(), 3);
    assert!(seen.submitted <= summary.publications && seen.submitted > summary.publications / 2);
    assert_eq!(seen.ended, 4, "one was killed, all stop at the end");
    assert!(seen.steps > 1_000);
}
