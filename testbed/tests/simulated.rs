//! The simulated world: each fault has its effect and is undone, the promises hold, and the seed decides all.

use acms_engine::protocol::{Message, SpId, StoragePoint};
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
fn a_quiet_cluster_refuses_nothing() {
    for mode in ["fused", "two-phase"] {
        let (summary, trace, verdict) = run(&scenario(&format!("{SMALL}\n[acms]\nmode = \"{mode}\""), 1));
        held(&verdict);
        assert!(summary.publications > 40, "{summary:?}");
        let outcomes: Vec<_> = trace.of(Kind::Outcome).collect();
        assert_eq!(outcomes.len() as u64, summary.publications);
        // One that meets a newer one of its path on the way is superseded, and nothing else goes wrong.
        let accepted = outcomes.iter().filter(|event| event.outcome.as_deref() == Some("accepted")).count();
        assert!(accepted * 10 > outcomes.len() * 9, "{accepted} of {}", outcomes.len());
        assert!(outcomes.iter().all(|event| event.outcome.as_deref() != Some("rejected")));
    }
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

#[test]
fn a_list_of_publications_is_all_that_is_published() {
    let list = "
        duration = \"5s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a/b\"
        size = \"100\"
        key = \"k\"
        [[workload.publications]]
        at = \"2s\"
        to = \"sp2\"
        path = \"a/b\"
        size = \"70000\"
        known = true
        [[workload.publications]]
        at = \"3s\"
        to = \"sp3\"
        path = \"a/b\"
        deleted = true
        order = \"fast\"";
    let (summary, trace, verdict) = run(&scenario(list, 1));
    held(&verdict);
    assert_eq!(summary.publications, 6, "and a probe at each storage point");
    let told: Vec<_> = trace.of(Kind::Outcome).map(|event| (event.publication.as_deref(), event.uid)).collect();
    assert_eq!(told[0].0, Some("k"));
    let known: Vec<_> = trace.of(Kind::Invoke).take(3).map(|event| event.uid).collect();
    assert_eq!(known, [None, told[0].1, None]);
    let audited: Vec<_> = trace.of(Kind::AuditSp).filter(|event| event.path.as_deref() == Some("a/b")).collect();
    assert_eq!(audited.len(), 3);
    assert!(audited.iter().all(|event| event.is_deletion() && event.uid == told[2].1));
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
    assert_eq!(seen.ended, 7, "one was killed, all lose their power once, all stop at the end");
    assert!(seen.steps > 1_000);
}

/// Counts the parts of contents that reach one storage point.
struct Parts(SpId, u64);

impl Observer for Parts {
    fn step(&mut self, _time_ns: u64, sp: SpId, step: Step<'_>, _machine: &StoragePoint) {
        self.1 += u64::from(sp == self.0 && matches!(step, Step::Message(_, Message::ContentChunk { .. })));
    }
}

/// Found by the simulator: each refused part asked for four more.
#[test]
fn a_full_disk_does_not_ask_for_the_same_content_without_end() {
    let text = "
        duration = \"8s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a\"
        size = \"600000\"
        [[faults]]
        kind = \"disk-full\"
        target = \"sp2\"
        at = \"500ms\"
        for = \"6s\"";
    let (mut parts, mut judge) = (Parts(SpId(2), 0), Judge::new());
    simulated::run_observed(&scenario(text, 1), &mut judge, &mut parts).unwrap();
    held(&judge.finish());
    assert!((6..40).contains(&parts.1), "{} parts of a content of three", parts.1);
}

/// Found by the simulator: what gave way to a newer publication before its content had come was waited for without end.
#[test]
fn what_is_dropped_while_a_new_store_is_filled_does_not_hold_it_up() {
    // sp1 tells the new store of sp5 of a publication whose content takes long; the others tell it, later, of a newer one.
    let text = "
        duration = \"30s\"
        [fleet]
        storage_points = 5
        receivers = 0
        [[workload.publications]]
        at = \"2500ms\"
        to = \"sp1\"
        path = \"a\"
        size = \"1MiB\"
        [[workload.publications]]
        at = \"5s\"
        to = \"sp2\"
        path = \"a\"
        size = \"100\"
        [[faults]]
        kind = \"disk-lost\"
        target = \"sp5\"
        at = \"1s\"
        for = \"2s\"
        [[faults]]
        kind = \"slow-link\"
        target = \"sp1\"
        direction = \"out\"
        rate = \"64KiB\"
        at = \"2400ms\"
        for = \"20s\"
        [[faults]]
        kind = \"slow-link\"
        target = [\"sp2\", \"sp3\", \"sp4\"]
        peer = \"sp5\"
        direction = \"out\"
        delay = \"1500ms\"
        at = \"2s\"
        for = \"10s\"";
    let (summary, trace, verdict) = run(&scenario(text, 1));
    held(&verdict);
    assert!(summary.notes.is_empty(), "{:?}", summary.notes);
    let of_new_store = |kind: Kind| trace.of(kind).find(|event| &*event.process == "sp5" && event.incarnation == 1);
    let (dropped, ready) = (of_new_store(Kind::Dropped).unwrap(), of_new_store(Kind::Ready).unwrap());
    assert!(dropped.time_ns < ready.time_ns && ready.time_ns < 12_000_000_000, "{dropped} {ready}");
}

/// Parts of a content are written in the order in which they came, whatever each takes.
#[test]
fn large_contents_travel_without_a_pause() {
    let text = "
        duration = \"5s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [disk]
        jitter = 1.0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a\"
        size = \"3MiB\"";
    for seed in 0..5 {
        let (_, trace, verdict) = run(&scenario(text, seed));
        held(&verdict);
        let last = trace.of(Kind::Agreed).filter(|event| event.path.as_deref() == Some("a")).last().unwrap();
        let begun = trace.of(Kind::Invoke).next().unwrap();
        assert!(last.time_ns - begun.time_ns < 1_000_000_000, "{begun} {last}");
    }
}
