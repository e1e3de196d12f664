//! The simulated world: what it must show whatever the seed, and that the seed decides all.

use acms_testbed::{
    backend::simulated::{self, Summary},
    faults::FaultKind,
    judge::{Judge, Verdict},
    scenario::Scenario,
};

fn scenario(text: &str, seed: u64) -> Scenario {
    let text = format!("name = \"test\"\nbackend = \"simulated\"\nseed = {seed}\n{text}");
    Scenario::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}"))
}

fn run(scenario: &Scenario) -> (Summary, Verdict) {
    let mut judge = Judge::new();
    let summary = simulated::run(scenario, &mut judge).unwrap_or_else(|error| panic!("{error}"));
    (summary, judge.finish())
}

/// Without receivers nobody is promised delivery.
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
    updates_per_s = 3.0
    deletes = 0.1
";

#[test]
fn a_quiet_cluster_accepts_everything() {
    let (summary, verdict) = run(&scenario(SMALL, 1));
    held(&verdict);
    assert!(summary.publications > 40, "{summary:?}");
    assert_eq!(verdict.metrics.publish.accepted, summary.publications);
}

#[test]
fn the_seed_decides_all() {
    let text = format!("{SMALL}\n[[faults]]\nkind = \"kill\"\ntarget = \"sp2\"\nat = \"5s\"\nfor = \"3s\"");
    let (first, again, other) = (run(&scenario(&text, 7)), run(&scenario(&text, 7)), run(&scenario(&text, 8)));
    assert_eq!((first.1.hash, first.0), (again.1.hash, again.0));
    assert_ne!(first.1.hash, other.1.hash);
}

#[test]
fn a_killed_storage_point_comes_back() {
    let text = format!("{SMALL}\n[[faults]]\nkind = \"kill\"\ntarget = \"sp2\"\nat = \"5s\"\nfor = \"3s\"");
    let (summary, verdict) = run(&scenario(&text, 3));
    held(&verdict);
    assert_eq!(summary.faults.get(&FaultKind::Kill), Some(&1));
}
