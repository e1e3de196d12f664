//! A checker that cannot fail is no checker: deliberately broken engines must be caught, by the right check, in runs
//! that the honest engine passes. Built with the feature `mutants`; the variable `ACMS_MUTANT` chooses the defect.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::{
    backend::{Stop, simulated},
    hunt::{Budget, HuntOptions, catch, mutants},
    progress::Progress,
    report::RunResult,
    scenario::Scenario,
};
use common::run;

/// Runs a scenario with a defect, and without.
fn broken_and_honest(scenario: &str, mutant: &str, check: &str) {
    let ran = run(scenario, &[], &[("ACMS_MUTANT", mutant)]);
    let result = ran.expect_result();
    assert_eq!(ran.output.status.code(), Some(1), "{}", ran.text());
    assert!(result.failures().contains(&check), "{mutant} broke {:?}, not {check}", result.failures());
    let violation = &of(result, check).violations[0];
    println!("{scenario} with {mutant}: {:?} did not hold, for example {violation}", result.failures());

    let ran = run(scenario, &[], &[]);
    let result = ran.expect_passed();
    println!("{scenario} without it: {check} held over {} events", of(result, check).events);
}

fn of<'r>(result: &'r RunResult, check: &str) -> &'r acms_testbed::report::CheckResult {
    result.checks.iter().find(|found| found.name == check).unwrap()
}

/// The rarest takes some 2,700 seeds.
#[test]
fn the_hunt_catches_every_mutant() {
    let out = tempfile::tempdir().unwrap();
    let load = |name: &str| (Scenario::load(name, &[]).unwrap(), name.to_owned());
    let scenarios = ["refinement", "edge"].map(load);
    let options = HuntOptions {
        seeds: 0..5_000,
        jobs: 2,
        out: out.path().to_owned(),
        keep_going: false,
        command: String::new(),
        mutant: None,
        budget: Budget { runs: 0, ..Budget::default() },
        progress: Progress::silent(),
        stop: Stop::new(),
    };
    let backend =
        |scenario: &Scenario, sink: &mut dyn acms_testbed::trace::Sink| simulated::run(scenario, sink).map(drop);
    let (mut missed, mut refined) = (Vec::new(), 0);
    for name in mutants() {
        match catch(name, &scenarios, &options, &backend).unwrap() {
            Some(report) => {
                let checks = &report.failures[0].checks;
                println!("{name}: {}, {checks:?}", report.hunt);
                refined += usize::from(checks.iter().any(|check| check == "refines"));
            }
            None => missed.push(name),
        }
    }
    assert!(refined >= 20, "only {refined} of them take steps that the specification does not allow");
    assert!(mutants().len() >= 30 && missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn records_kept_in_user_memory_are_lost_and_p1_says_so() {
    broken_and_honest("blackout", "hold-records", "P1");
}

#[test]
fn a_receiver_that_goes_back_is_caught_by_p4() {
    broken_and_honest("stale-source", "receiver-goes-back", "P4");
}
