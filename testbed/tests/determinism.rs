//! One seed, one trace: twice in a process, in another process, in debug and release builds, on every machine.
//!
//! `tests/pinned/traces.txt` holds the hashes; `UPDATE_EXPECT=1` writes those of this build there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::{
    backend::simulated,
    hunt::{Report, draw, trial},
    scenario::Scenario,
};
use common::testbed;
use std::{fmt::Write as _, path::PathBuf};

const SEEDS: std::ops::Range<u64> = 1..4;

/// The hashes of the seeds' traces, a line each, and the name that a hunt gives all of them.
fn traces() -> String {
    let bounds = Scenario::load("storm", &[]).unwrap().hunt.unwrap();
    let mut report = Report::new("storm", None, (SEEDS.start, SEEDS.end), &bounds.fault_kinds);
    let mut text = String::new();
    for seed in SEEDS {
        let scenario = draw("storm", &bounds, seed);
        let trial = trial(&scenario, &|scenario, sink| simulated::run(scenario, sink).map(drop)).unwrap();
        assert!(trial.violations.is_empty(), "seed {seed}: {:?}", trial.violations);
        writeln!(text, "storm seed {seed}: {} events, trace {}", trial.tally.events, trial.trace_hash).unwrap();
        report.add(&scenario, &trial.tally, trial.trace_hash);
    }
    report.finish(1.0);
    writeln!(text, "together {}", report.traces).unwrap();
    text
}

#[test]
fn a_seed_gives_one_trace_here_and_everywhere() {
    let first = traces();
    assert_eq!(first, traces(), "twice in a process");
    let lines: Vec<&str> = first.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert!(lines.iter().enumerate().all(|(i, line)| !lines[..i].contains(line)), "other seeds, other traces: {first}");

    let (out, seeds) = (tempfile::tempdir().unwrap(), format!("{}..{}", SEEDS.start, SEEDS.end));
    let mut command = testbed();
    command.args(["hunt", "storm", "--quiet", "--json", "--jobs", "2", "--shrink-runs", "0", "--keep-going"]);
    let output = command.args(["--seeds", &seeds, "--out"]).arg(out.path()).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(format!("together {}", report["traces"].as_str().unwrap()), first.lines().last().unwrap());

    let pinned = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/pinned/traces.txt");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(pinned.parent().unwrap()).unwrap();
        std::fs::write(&pinned, &first).unwrap();
    }
    let expected = std::fs::read_to_string(&pinned).unwrap_or_default();
    assert_eq!(first, expected, "another build or machine, or a change: UPDATE_EXPECT=1 accepts what is found");
}
