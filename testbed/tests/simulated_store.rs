//! The simulated storage points' disks: what fails and what rots has its effect, and the promises hold.

use acms_testbed::{
    backend::simulated::{self, Summary},
    faults::FaultKind,
    judge::{Judge, Verdict},
    scenario::Scenario,
    trace::{Event, Kind, Trace},
};

fn run(text: &str, seed: u64) -> (Summary, Trace, Verdict) {
    let text = format!("name = \"test\"\nbackend = \"simulated\"\nseed = {seed}\n{text}");
    let scenario = Scenario::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let (mut judge, mut trace) = (Judge::new(), Trace::default());
    let summary = simulated::run(&scenario, &mut (&mut judge, &mut trace)).unwrap_or_else(|error| panic!("{error}"));
    (summary, trace, judge.finish())
}

/// Every check but those that had nothing to look at.
fn held(verdict: &Verdict) {
    for check in &verdict.checks {
        assert!(check.held || check.not_exercised(), "{}: {}", check.name, check.violations.join("\n"));
    }
}

const LARGE: &str = "
    duration = \"20s\"
    [fleet]
    storage_points = 3
    receivers = 4
    subscribe = [\"\"]
    [workload]
    files = 5
    size = \"100KiB..400KiB\"
    updates_per_s = 1.0
";

fn fault(kind: &str, at: &str, lasts: &str, more: &str) -> String {
    let lasts = if lasts.is_empty() { String::new() } else { format!("for = \"{lasts}\"\n") };
    format!("[[faults]]\nkind = \"{kind}\"\ntarget = \"sp2\"\nat = \"{at}\"\n{lasts}{more}\n")
}

/// How the processes of a host ended: outcome and cause.
fn exits(trace: &Trace, host: &str) -> Vec<(String, String)> {
    let text =
        |text: &Option<_>| text.as_ref().map_or_else(String::new, |text: &acms_testbed::trace::Text| text.to_string());
    // Not the loss of all power with which every run ends.
    let is_blackout = |event: &Event| event.cause.as_deref() == Some("power lost");
    let of_host = trace.of(Kind::Exit).filter(|event| &*event.process == host && !is_blackout(event));
    of_host.map(|event| (text(&event.outcome), text(&event.cause))).collect()
}

#[test]
fn rot_of_large_contents_is_found_when_they_are_asked_for_in_the_next_life() {
    for seed in 0..4 {
        let rot = fault("disk-rot", "5s", "", "count = 20");
        let (summary, trace, verdict) = run(&format!("{LARGE}{rot}{}", fault("kill", "6s", "1s", "")), seed);
        held(&verdict);
        assert_eq!(summary.faults.get(&FaultKind::DiskRot), Some(&1));
        let differs = trace.of(Kind::AuditSp).filter(|event| event.outcome.as_deref() == Some("content-differs"));
        assert_eq!(differs.count(), 0);
    }
}

#[test]
fn a_disk_that_fails_while_a_process_starts_ends_it_as_the_fault_wants() {
    let faults = format!("{}{}", fault("kill", "5s", "2s", ""), fault("disk-fail", "6s", "4s", ""));
    for seed in 0..3 {
        let (summary, trace, verdict) = run(&format!("{LARGE}{faults}"), seed);
        held(&verdict);
        assert_eq!(summary.faults.get(&FaultKind::DiskFail), Some(&1));
        let exits = exits(&trace, "sp2");
        let (outcome, cause) = &exits[1];
        assert!(exits.len() == 3 && outcome == "killed" && cause.contains("os error 5"), "{exits:?}");
    }
}

#[test]
fn a_disk_that_fails_ends_a_process_that_writes_and_all_is_well_afterwards() {
    for seed in 0..3 {
        let (summary, trace, verdict) = run(&format!("{LARGE}{}", fault("disk-fail", "5s", "6s", "")), seed);
        held(&verdict);
        assert_eq!(summary.faults.get(&FaultKind::DiskFail), Some(&1));
        let exits = exits(&trace, "sp2");
        assert!(exits.len() == 2 && exits[0].1.contains("os error 5"), "{exits:?}");
        let noted = |which: Kind| trace.of(which).filter(|event| event.outcome.as_deref() == Some("disk-fail")).count();
        assert_eq!((noted(Kind::Fault), noted(Kind::FaultUndone)), (1, 1));
    }
}
