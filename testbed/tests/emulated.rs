//! Real processes on an emulated network, and every fault that the local backend knows: each is seen to have its effect and
//! to be undone. Where namespaces may not be made there is no network, and what needs one is left out, which the run says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::{
    report::RunResult,
    trace::{self, Kind},
};
use common::{Ran, run};
use std::fs;

/// Runs a scenario of the test's own, all of whose promises must be kept.
fn run_text(text: &str) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("scenario.toml");
    fs::write(&file, text).unwrap();
    let ran = run(file.to_str().unwrap(), &["--seed", "3"], &[]);
    let result = ran.expect_result();
    // A machine that does other things may make the measurement invalid; the promises hold all the same.
    assert!(result.checks.iter().all(|check| check.held), "{}", ran.text());
    ran
}

fn has_network(result: &RunResult) -> bool {
    !result.notes.iter().any(|note| note.starts_with("left out: the network"))
}

/// That these faults, `kind target`, had their effect and were undone, and no others.
#[track_caller]
fn assert_undone(result: &RunResult, expected: &[&str]) {
    let mut got: Vec<String> = result.faults.iter().map(|fault| format!("{} {}", fault.kind, fault.target)).collect();
    got.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(got, expected, "{:?}", result.notes);
    assert!(result.faults.iter().all(|fault| fault.undone), "{:?}", result.faults);
}

#[test]
fn a_wide_area_is_as_wide_as_asked_and_its_links_fail_as_asked() {
    let ran = run_text(
        r#"
        name = "links"
        duration = "16s"
        fleet = { storage_points = 3, caches = 3, cache_tiers = 2, receivers = 8 }
        network = { rtt = "azure-50", loss = 0.0005, jitter = 0.05, congestion_control = "cubic" }
        workload = { files = 10, size = "200..40KiB", updates_per_s = 5 }
        [[faults]]
        kind = "isolate"
        target = "cache1"
        at = "1s"
        for = "3s"
        [[faults]]
        kind = "partition"
        target = "sp1"
        peer = "sp*"
        direction = "out"
        at = "3s"
        for = "3s"
        [[faults]]
        kind = "flap"
        target = "sp2"
        peer = "sp3"
        up = "500ms"
        down = "500ms"
        at = "6s"
        for = "3s"
        [[faults]]
        kind = "loss"
        target = "receiver2"
        direction = "in"
        loss = 0.2
        at = "8s"
        for = "4s"
        [[faults]]
        kind = "slow-link"
        target = "sp3"
        delay = "100ms"
        at = "12s"
        for = "3s"
        "#,
    );
    let result = ran.expect_result();
    assert_eq!((result.hosts.caches, result.hosts.receivers), (3, 8));
    if !has_network(result) {
        eprintln!("LEFT OUT: {:?}", result.notes);
        return;
    }
    assert_undone(result, &["isolate cache1", "partition sp1", "flap sp2", "loss receiver2", "slow-link sp3"]);
    assert!(result.notes.iter().any(|note| note.contains("cubic")), "{:?}", result.notes);
    let network = &result.network;
    assert!(network.pairs > 20 && network.probes > 500 && network.packets > 5000, "{network:?}");
    assert!(network.lost_packets > 0, "{network:?}");
    // Storage points far apart: acceptance needs a round trip between two of them at least.
    assert!(result.publish.latency_ms.p50.unwrap() > 50.0, "{:?}", result.publish.latency_ms);
    assert!(network.rtt_error_ms_p50.unwrap() < 5.0, "{network:?}");
}

#[test]
fn disks_clocks_and_processes_fail_as_asked() {
    let ran = run_text(
        r#"
        name = "troubles"
        duration = "20s"
        fleet = { storage_points = 5, receivers = 5 }
        clocks = { skew = "50ms", drift_ppm = 50 }
        workload = { files = 20, size = "200..4KiB", updates_per_s = 20 }
        [[faults]]
        kind = "disk-full"
        target = "receiver2"
        at = "1s"
        for = "3s"
        [[faults]]
        kind = "disk-slow"
        target = ["sp2", "receiver1"]
        delay = "100ms"
        at = "2s"
        for = "3s"
        [[faults]]
        kind = "crash-loop"
        target = "receiver5"
        at = "3s"
        for = "5s"
        [[faults]]
        kind = "clock-jump"
        target = "sp1"
        by = "30s"
        at = "5s"
        for = "3s"
        [[faults]]
        kind = "disk-fail"
        target = ["sp3", "receiver3"]
        at = "8s"
        for = "3s"
        [[faults]]
        kind = "clock-skew"
        target = "sp5"
        by = "-3s"
        at = "12s"
        for = "4s"
        [[faults]]
        kind = "disk-lost"
        target = "sp4"
        at = "14s"
        for = "3s"
        "#,
    );
    let result = ran.expect_passed();
    let expected = [
        "disk-full receiver2",
        "disk-slow sp2",
        "disk-slow receiver1",
        "crash-loop receiver5",
        "clock-jump sp1",
        "disk-fail sp3",
        "disk-fail receiver3",
        "clock-skew sp5",
        "disk-lost sp4",
    ];
    assert_undone(result, &expected);
    let trace = trace::read(&ran.dir.join("events.arrow")).unwrap();
    let starts = |name: &str| trace.of(Kind::Start).filter(|event| &*event.process == name).count();
    assert!(starts("receiver5") > 3 && starts("sp3") == 2 && starts("sp4") == 2 && starts("sp1") == 1);
    assert!(trace.of(Kind::Joined).any(|event| &*event.process == "sp4"), "its new store was filled");
}

#[test]
fn many_receivers_share_a_process() {
    let ran = run_text(
        r#"
        name = "crowd"
        duration = "3s"
        fleet = { storage_points = 3, caches = 2, receivers = 50, receivers_per_process = 20 }
        workload = { files = 10, size = "1KiB", updates_per_s = 10 }
        "#,
    );
    let result = ran.expect_passed();
    assert_eq!(result.hosts.receivers, 50);
    assert!(result.propagation.deliveries_made >= 50 * 20, "{:?}", result.propagation);
    let trace = trace::read(&ran.dir.join("events.arrow")).unwrap();
    let audited = trace.of(Kind::AuditEnd).filter(|event| event.process.starts_with("receiver"));
    assert_eq!(audited.count(), 50);
}
