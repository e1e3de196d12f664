//! Small runs with real processes on this machine, from the command line, and their ends before time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{run, testbed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    process::{Child, Output, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_small_fleet_survives_kills_and_ends_identical() {
    let ran = run("smoke", &["--seed", "7"], &[]);
    let result = ran.expect_passed();
    assert_eq!((result.seed, result.hosts.storage_points, result.hosts.receivers), (7, 5, 5));
    assert!(result.faults.len() == 2 && result.faults.iter().all(|fault| fault.undone), "{:?}", result.faults);
    assert!(result.publish.accepted > 40 && result.propagation.deliveries_made > 100);
    assert!(result.checks.iter().all(|check| check.held && check.events > 0), "{:?}", result.checks);
    for name in ["report.html", "scenario.toml", "publish-latency.hgrm", "propagation.hgrm", "events.arrow"] {
        assert!(fs::metadata(ran.dir.join(name)).unwrap().len() > 100, "{name}");
    }
    let summary = String::from_utf8(ran.output.stdout.clone()).unwrap();
    assert!(summary.contains("PASSED") && summary.contains("kill of sp2"), "{summary}");

    // The stored trace is judged alike, and results can be shown side by side.
    let check = testbed().arg("check").arg(&ran.dir).output().unwrap();
    let text = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.success() && text.contains(&result.trace_hash), "{text}");
    let report = testbed().arg("report").args([&ran.dir, &ran.dir]).output().unwrap();
    assert!(report.status.success() && String::from_utf8(report.stdout).unwrap().contains("acceptance p50"));
}

#[test]
fn pauses_and_restarts_are_survived_too() {
    let faults = r#"faults=[{ kind = "restart", target = "sp3", at = "1s" },
        { kind = "pause", target = ["sp1", "receiver2"], at = "1s", for = "2s" }]"#;
    let ran = run("smoke", &["--set", "duration=4s", "--set", faults], &[]);
    let result = ran.expect_passed();
    let mut faults: Vec<_> = result.faults.iter().map(|fault| (&*fault.kind, &*fault.target, fault.undone)).collect();
    faults.sort_unstable();
    assert_eq!(faults, [("pause", "receiver2", true), ("pause", "sp1", true), ("restart", "sp3", true)]);
}

#[test]
fn a_missed_expectation_fails_the_run() {
    let short =
        ["--set", "duration=1s", "--set", "faults=[]", "--set", "fleet.receivers=1", "--set", "workload.files=3"];
    let ran = run("smoke", &[&short[..], &["--set", "expect.publish_latency_ms_max=0.001"]].concat(), &[]);
    assert_eq!(ran.output.status.code(), Some(1), "{}", ran.text());
    assert!(ran.text().contains("FAILED: publish_latency_ms_max"), "{}", ran.text());
}

#[test]
fn what_cannot_be_run_says_why_and_exits_2() {
    for (args, why) in [
        (&["run", "smoke", "--set", "fleet.recievers=3"][..], "did you mean `receivers`"),
        (&["run", "no-such-scenario"], "no scenario is called"),
        (&["run", "quickstart", "--set", "workload.tree=/no/such/tree"], "cannot read the tree"),
        (&["check", "/no/such/trace"], "No such file"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let output = testbed().args(args).current_dir(home.path()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains(why), "{args:?}: {text}");
    }
}

/// A run that is in the middle of its work, and its children. Dropping it kills it.
struct Running {
    testbed: Child,
    children: Vec<i32>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.testbed.kill();
        let _ = self.testbed.wait();
    }
}

fn running(home: &std::path::Path) -> Running {
    let mut command = testbed();
    command.args(["run", "smoke", "--set", "duration=60s", "--out"]).arg(home.join("results"));
    command.env("TMPDIR", home).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running { testbed: command.spawn().unwrap(), children: Vec::new() };
    let deadline = Instant::now() + Duration::from_secs(30);
    while running.children.len() < 10 {
        assert!(Instant::now() < deadline, "only {} children", running.children.len());
        std::thread::sleep(Duration::from_millis(20));
        running.children = children(running.testbed.id());
    }
    running
}

fn children(parent: u32) -> Vec<i32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Gone, or dead and only waiting for its parent to look.
fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.ok().and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'))).unwrap_or(true)
}

#[test]
fn ctrl_c_tears_everything_down() {
    ends_in_order_by(Signal::SIGINT);
}

#[test]
fn so_does_a_terminal_that_is_closed() {
    // Where these tests run without one (`nohup`), it means nothing.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    if u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1 {
        println!("LEFT OUT: SIGHUP is ignored here");
        return;
    }
    ends_in_order_by(Signal::SIGHUP);
}

/// Nothing is left of a run that gets this signal.
fn ends_in_order_by(signal: Signal) {
    let home = tempfile::tempdir().unwrap();
    let mut run = running(home.path());
    let asked = Instant::now();
    let pid = Pid::from_raw(run.testbed.id().cast_signed());
    kill(pid, signal).unwrap();
    if signal == Signal::SIGHUP {
        // As shells and the kernel send it: more than once.
        std::thread::sleep(Duration::from_millis(50));
        kill(pid, signal).unwrap();
    }
    assert_eq!(run.testbed.wait().unwrap().code(), Some(130));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(run.children.iter().all(|pid| has_ended(*pid)), "a child is left");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_of_a_killed_testbed_is_left_once_it_is_cleaned_up() {
    let home = tempfile::tempdir().unwrap();
    let mut run = running(home.path());
    let clean = || testbed().arg("clean").env("TMPDIR", home.path()).output().unwrap();
    // An engine that may not be asked is no concern of this test.
    let undone = |output: &Output| -> Vec<String> {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().filter(|line| !line.starts_with("not looked for\t")).map(str::to_owned).collect()
    };
    assert_eq!(undone(&clean()), Vec::<String>::new(), "a run that goes on is left alone");
    run.testbed.kill().unwrap();
    run.testbed.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !run.children.iter().all(|pid| has_ended(*pid)) {
        assert!(Instant::now() < deadline, "a child is left");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(home.path().join("results").exists());
    let cleaned = clean();
    let lines = undone(&cleaned);
    assert!(cleaned.status.success() && lines.iter().all(|line| line.starts_with("removed\t")), "{lines:?}");
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}
