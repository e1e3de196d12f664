//! Real processes on an emulated network, and every fault that the local backend knows: each is seen to have its effect and
//! to be undone. Where namespaces may not be made there is no network, and what needs one is left out, which the run says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::{
    report::RunResult,
    trace::{self, Event, Kind},
};
use common::{Ran, run, testbed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    process::Stdio,
    time::Duration,
};

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
        kind = "partition"
        target = "receiver4"
        peer = "cache*"
        at = "11s"
        for = "2s"
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
    let expected =
        ["isolate cache1", "partition sp1", "flap sp2", "loss receiver2", "partition receiver4", "slow-link sp3"];
    assert_undone(result, &expected);
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
        workload = { files = 20, size = "200..4KiB", updates_per_s = 20, retried = 0.2, known = 0.3, fast = 0.1, large = 0.02 }
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
    let invoked: Vec<_> = trace.of(Kind::Invoke).filter(|event| event.publication.is_some()).collect();
    let keys: BTreeSet<_> = invoked.iter().map(|event| event.publication.clone()).collect();
    assert!(invoked.len() > keys.len() + 20, "{} attempts under {} keys", invoked.len(), keys.len());
    assert!(invoked.iter().any(|event| event.uid.is_some()), "some named what they knew");
    let is_fast = |event: &&&Event| event.cause.as_deref().is_some_and(|cause| cause.contains("order=fast"));
    assert!(invoked.iter().filter(is_fast).count() > 10);
}

#[test]
fn replies_of_caches_go_wrong_as_asked_and_receivers_are_not_fooled() {
    let ran = run_text(
        r#"
        name = "replies"
        duration = "22s"
        fleet = { storage_points = 3, caches = 4, receivers = 8 }
        workload = { files = 10, size = "200..40KiB", updates_per_s = 10 }
        [[faults]]
        kind = "cache-corrupt"
        target = "cache1"
        part = 0.5
        at = "1s"
        for = "4s"
        [[faults]]
        kind = "cache-truncate"
        target = "cache2"
        at = "3s"
        for = "3s"
        [[faults]]
        kind = "cache-stale"
        target = "cache*"
        at = "7s"
        for = "5s"
        [[faults]]
        kind = "cache-rollback"
        target = "cache*"
        at = "14s"
        for = "5s"
        # Receivers that begin anew read the snapshot, which is what an old reply is of.
        [[faults]]
        kind = "restart"
        target = "receiver*"
        at = "9s"
        for = "500ms"
        [[faults]]
        kind = "restart"
        target = "receiver*"
        at = "16s"
        for = "500ms"
        "#,
    );
    let result = ran.expect_passed();
    for kind in ["cache-corrupt", "cache-truncate", "cache-stale", "cache-rollback"] {
        let mut of_kind = result.faults.iter().filter(|fault| fault.kind == kind).peekable();
        assert!(of_kind.peek().is_some(), "{kind} did no harm: {:?}", result.notes);
        assert!(of_kind.all(|fault| fault.undone), "{:?}", result.faults);
    }
}

#[test]
fn publications_that_are_listed_are_all_that_there_is() {
    let ran = run_text(
        r#"
        name = "listed"
        duration = "4s"
        fleet = { storage_points = 3, receivers = 2 }
        [[workload.publications]]
        at = "500ms"
        to = "sp2"
        path = "a/first"
        size = "100KiB"
        key = "once"
        [[workload.publications]]
        at = "1500ms"
        to = "sp3"
        path = "a/first"
        size = "100KiB"
        key = "once"
        [[workload.publications]]
        at = "2s"
        to = "sp1"
        path = "a/second"
        known = true
        "#,
    );
    let publish = &ran.expect_passed().publish;
    assert_eq!((publish.attempted, publish.accepted), (3, 3), "{publish:?}");
    let trace = trace::read(&ran.dir.join("events.arrow")).unwrap();
    let uids: Vec<_> = trace.of(Kind::Outcome).filter_map(|event| event.uid).collect();
    assert!(uids.len() == 3 && uids[0] == uids[1] && uids[2] > uids[1], "{uids:?}");
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

/// A machine that stops the testbed now and then: publications begin late, and so do packets.
#[test]
fn a_run_that_measured_a_starved_testbed_says_so() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("scenario.toml");
    let text = r#"
        name = "starved"
        duration = "8s"
        fleet = { storage_points = 3, receivers = 3 }
        network = { rtt = "azure-50" }
        workload = { files = 5, size = "1KiB", updates_per_s = 40 }
        expect = { publish_latency_ms_p999 = 60000 }
    "#;
    fs::write(&file, text).unwrap();
    let mut command = testbed();
    command.arg("run").arg(&file).arg("--out").arg(home.path().join("results"));
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(running.id().cast_signed());
    let mut said = BufReader::new(running.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("updates a second")), "it never got so far");
    let reader = std::thread::spawn(move || said.for_each(drop));
    for _ in 0..8 {
        kill(pid, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        kill(pid, Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(400));
    }
    let output = running.wait_with_output().unwrap();
    reader.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let result = fs::read(home.path().join("results/result.json")).unwrap();
    let result: RunResult = serde_json::from_slice(&result).unwrap();
    assert!(result.notes.iter().any(|note| note.contains("the generator was saturated")), "{:?}", result.notes);
    // Some hundred publications do not tell the slowest of a thousand.
    assert!(text.contains("too few samples") && !result.expectations[0].met, "{text}");
    if has_network(&result) {
        assert!(text.contains("INVALID: the network was not what it was to be"), "{text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
}

#[test]
fn people_may_look_around_in_a_fleet() {
    let home = tempfile::tempdir().unwrap();
    let with = |args: &[&str]| {
        let mut command = testbed();
        command.args(args).env("TMPDIR", home.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let none = with(&["exec", "sp1", "true"]).output().unwrap();
    assert_eq!(none.status.code(), Some(2));
    let sizes = ["--set", "fleet.receivers=2", "--set", "fleet.caches=1", "--set", "network.rtt=azure-50"];
    let mut up = with(&[&["up", "smoke"][..], &sizes].concat()).spawn().unwrap();
    let mut said = BufReader::new(up.stderr.take().unwrap()).lines().map_while(Result::ok);
    let is_up = said.any(|line| line.contains("all hosts are there"));
    assert!(is_up);
    let exec = |args: &[&str]| {
        let output = with(&[&["exec"][..], args].concat()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, why) = exec(&["sp9", "true"]);
    assert!(code == Some(2) && why.contains("no host is called sp9"), "{why}");
    assert_eq!(exec(&["sp1", "sh", "-c", "exit 7"]).0, Some(7));
    let interfaces = |host: &str| exec(&[host, "cat", "/proc/net/dev"]).1;
    let is_on_network = interfaces("sp1").contains("wan:");
    assert_eq!(interfaces("receiver2").contains("wan:"), is_on_network);
    kill(Pid::from_raw(up.id().cast_signed()), Signal::SIGINT).unwrap();
    said.for_each(drop);
    let output = up.wait_with_output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{table}");
    let names: Vec<&str> = table.lines().filter_map(|line| line.split('\t').next()).collect();
    for name in ["host", "sp1", "sp3", "cache1", "receiver2"] {
        assert!(names.contains(&name), "{table}");
    }
    assert_eq!(names.contains(&"publisher1"), is_on_network, "{table}");
    assert!(fs::read_dir(home.path()).unwrap().next().is_none(), "something is left");
}
