//! Receivers and caches in the simulated world.

use acms_testbed::{
    backend::simulated::{self, Summary},
    faults::FaultKind,
    judge::{Judge, Verdict},
    scenario::Scenario,
};

fn run(text: &str, seed: u64) -> (Summary, Verdict) {
    let text = format!("name = \"test\"\nbackend = \"simulated\"\nseed = {seed}\n{text}");
    let scenario = Scenario::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut judge = Judge::new();
    let summary = simulated::run(&scenario, &mut judge).unwrap_or_else(|error| panic!("{error}"));
    (summary, judge.finish())
}

fn held(verdict: &Verdict) {
    for check in &verdict.checks {
        assert!(check.held, "{}: {}", check.name, check.violations.join("\n"));
    }
}

fn fault(kind: &str, target: &str, at_s: u64, for_s: u64) -> String {
    format!("\n[[faults]]\nkind = \"{kind}\"\ntarget = \"{target}\"\nat = \"{at_s}s\"\nfor = \"{for_s}s\"\n")
}

const DIRECT: &str = "
    duration = \"20s\"
    [fleet]
    storage_points = 3
    receivers = 8
    [workload]
    files = 12
    size = \"0..200KiB\"
    updates_per_s = 4.0
    deletes = 0.1
";

const CACHED: &str = "
    duration = \"30s\"
    [fleet]
    storage_points = 3
    caches = 4
    cache_tiers = 2
    receivers = 20
    [network]
    rtt = \"azure-50\"
    jitter = 0.05
    [workload]
    files = 12
    size = \"100..20KiB\"
    updates_per_s = 4.0
    deletes = 0.1
";

#[test]
fn receivers_follow_storage_points() {
    let (_, verdict) = run(DIRECT, 1);
    held(&verdict);
    let propagation = &verdict.metrics.propagation;
    assert_eq!(propagation.deliveries_made, propagation.deliveries_expected);
    assert!(propagation.deliveries_made > 8 * 50, "{}", propagation.deliveries_made);
}

#[test]
fn receivers_follow_tiers_of_caches_over_measured_round_trips() {
    let (_, verdict) = run(CACHED, 2);
    held(&verdict);
    let median = verdict.metrics.propagation.per_receiver_ms.p50;
    assert!((50.0..2_000.0).contains(&median.unwrap()), "{median:?} ms");
}

#[test]
fn the_seed_decides_all() {
    let text = format!("{CACHED}{}", fault("cache-corrupt", "cache1", 5, 5));
    let (first, again, other) = (run(&text, 7), run(&text, 7), run(&text, 8));
    assert_eq!((first.1.hash, first.0), (again.1.hash, again.0));
    assert_ne!(first.1.hash, other.1.hash);
}

#[test]
fn receivers_bear_what_processes_links_and_disks_do() {
    for kind in ["kill", "pause", "restart", "crash-loop", "isolate", "flap", "disk-slow", "disk-torn"] {
        let text = format!("{DIRECT}{}{}", fault(kind, "receiver*", 5, 3), fault("kill", "sp1", 10, 3));
        let (summary, verdict) = run(&text, 3);
        held(&verdict);
        let kind: FaultKind = kind.parse().unwrap();
        assert!(summary.faults.get(&kind).is_some_and(|count| *count >= 4), "{kind}: {:?}", summary.faults);
    }
}

#[test]
fn receivers_bear_what_caches_do() {
    for kind in ["kill", "isolate", "cache-corrupt", "cache-truncate", "cache-stale", "cache-rollback"] {
        let text = format!("{CACHED}{}", fault(kind, "cache3", 8, 12));
        let (summary, verdict) = run(&text, 4);
        held(&verdict);
        let kind: FaultKind = kind.parse().unwrap();
        assert_eq!(summary.faults.get(&kind), Some(&1), "{kind}: {:?}", summary.faults);
    }
}

/// Broken receivers and feeds, and the promise that each breaks.
#[cfg(feature = "mutants")]
#[test]
fn broken_receivers_are_caught() {
    use acms_engine::mutant::{self, Mutant};
    let power = format!("{DIRECT}{}{}", fault("disk-torn", "receiver*", 5, 1), fault("disk-torn", "receiver*", 10, 1));
    // Were all replies damaged, receivers would leave before they fetch a content.
    let corrupt = format!("{CACHED}{}part = 0.3\n", fault("cache-corrupt", "cache*", 18, 12));
    let rollback = fault("cache-rollback", "cache*", 15, 10) + &fault("kill", "receiver*", 18, 2);
    let rollback = format!("{CACHED}{rollback}");
    let burst = format!("{DIRECT}{}", fault("pause", "receiver*", 5, 3));
    for (mutant, check, text) in [
        (Mutant::RenameBeforeFlush, "P5", &power),
        (Mutant::UnverifiedHash, "P5", &corrupt),
        (Mutant::CursorSkipsEntry, "P6", &burst),
        (Mutant::ReceiverGoesBack, "P4", &rollback),
    ] {
        held(&run(text, 1).1);
        let caught = (1..=10).find(|seed| {
            mutant::choose(Some(mutant));
            let (_, verdict) = run(text, *seed);
            mutant::choose(None);
            verdict.checks.iter().any(|broken| broken.name == check && !broken.held)
        });
        println!("{}: {check}, seed {caught:?}", mutant.name());
        assert!(caught.is_some(), "{} does not break {check}", mutant.name());
    }
}
