//! What the tests that start real processes have in common.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use acms_testbed::{
    backend::{
        Stop,
        local::{
            Hosts, ReceiverOptions,
            audit::{audit_receiver, audit_storage_point, root},
        },
    },
    checks::{CheckReport, check_all},
    cluster::{ClusterOptions, LocalCluster, Program},
    report::RunResult,
    trace::{Kind, Recorder, Template, Text, Trace, now_ns},
    workload::{Client, Published, Publisher},
};
use bytes::Bytes;
use std::{
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// The testbed's binary.
pub(crate) fn testbed() -> Command {
    Command::new(env!("CARGO_BIN_EXE_acms-testbed"))
}

/// `acms`, which the testbed's binary contains.
pub(crate) fn acms() -> Program {
    Program { command: vec![env!("CARGO_BIN_EXE_acms-testbed").into(), "acms".into()] }
}

/// A run of the binary: its results, if it came to its end, and what it printed.
pub(crate) struct Ran {
    pub(crate) output: Output,
    pub(crate) result: Option<RunResult>,
    pub(crate) dir: PathBuf,
    _home: TempDir,
}

/// Runs `acms-testbed run scenario args...` with these variables.
pub(crate) fn run(scenario: &str, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("results");
    let mut command = testbed();
    command.args(["run", scenario, "--out"]).arg(&dir).args(args).envs(env.iter().copied());
    let output = command.output().unwrap();
    let json = std::fs::read(dir.join("result.json")).ok();
    let result = json.map(|json| serde_json::from_slice(&json).unwrap());
    Ran { output, result, dir, _home: home }
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        let Output { status, stdout, stderr } = &self.output;
        format!("{status}\n{}\n{}", String::from_utf8_lossy(stdout), String::from_utf8_lossy(stderr))
    }

    #[track_caller]
    pub(crate) fn expect_result(&self) -> &RunResult {
        self.result.as_ref().unwrap_or_else(|| panic!("no result: {}", self.text()))
    }

    #[track_caller]
    pub(crate) fn expect_passed(&self) -> &RunResult {
        let result = self.expect_result();
        assert!(result.passed() && self.output.status.code() == Some(0), "{}", self.text());
        result
    }
}

/// A cluster with receivers that a test drives step by step.
pub(crate) struct Bench {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) recorder: Recorder,
    pub(crate) hosts: Hosts,
    pub(crate) publisher: Publisher,
    pub(crate) authorities: Vec<String>,
    home: TempDir,
}

impl Bench {
    /// Five storage points, with clocks off by so many microseconds, and receivers of everything.
    pub(crate) fn start(receivers: u32, clock_offsets_us: &[(u8, i64)]) -> Bench {
        let (home, recorder) = (tempfile::tempdir().unwrap(), Recorder::new());
        let options = ClusterOptions {
            recorder: Some(recorder.clone()),
            dir: Some(home.path().join("cluster")),
            clock_offsets_us: clock_offsets_us.iter().copied().collect(),
            ..ClusterOptions::new(5, acms())
        };
        let note = |process: &str, kind, cause: String| {
            recorder.note(&process.into(), 0, kind, Template { cause: Some(&cause), ..Template::default() })
        };
        note("testbed", Kind::Wall, SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().to_string());
        for (sp, ahead_us) in clock_offsets_us {
            note(&format!("sp{sp}"), Kind::Clock, ahead_us.to_string());
        }
        let mut hosts = Hosts::new(LocalCluster::start(options).unwrap());
        let options = ReceiverOptions::new(acms(), hosts.cluster.urls(), vec!["".parse().unwrap()]);
        let (of_each, below) = (|_| options.clone(), home.path().join("receivers"));
        hosts.start_receivers(receivers, 1, &below, of_each, &recorder, &Stop::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let publisher = Publisher::new("publisher", recorder.clone());
        let authorities = hosts.cluster.authorities();
        Bench { runtime, recorder, hosts, publisher, authorities, home }
    }

    /// Publishes at a storage point, counted from 1.
    pub(crate) fn publish(&self, sp: u8, path: &str, content: impl Into<Bytes>) -> Published {
        let authority = &self.authorities[usize::from(sp) - 1];
        let path = path.parse().unwrap();
        self.runtime.block_on(self.publisher.publish(authority, &path, Some(content.into()), now_ns()))
    }

    /// What a storage point serves under a path; `None` if it has nothing there.
    pub(crate) fn get(&self, sp: u8, path: &str) -> Option<Bytes> {
        let authority = &self.authorities[usize::from(sp) - 1];
        let answer = self.runtime.block_on(Client::default().get(authority, &format!("/v1/config/{path}"))).unwrap();
        assert!([200, 404].contains(&answer.status), "status {}", answer.status);
        (answer.status == 200).then_some(answer.body)
    }

    /// Waits until all storage points have the same root and all receivers the latest of everything.
    #[track_caller]
    pub(crate) fn converge(&self, within: Duration) {
        let begun_ns = now_ns();
        let everything = ["".parse().unwrap()];
        loop {
            let (behind, pairs) = self.recorder.behind(&self.hosts.live_receivers(), &everything);
            let roots = self
                .authorities
                .iter()
                .map(|authority| self.runtime.block_on(root(self.publisher.client(), authority)));
            let roots: Vec<_> = roots.collect();
            if behind == 0 && roots.iter().all(|root| root.is_some() && *root == roots[0]) {
                return;
            }
            let waited = Duration::from_nanos(now_ns() - begun_ns);
            assert!(waited < within, "after {waited:?}: {behind} of {pairs} behind, roots {roots:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Audits everything, stops everything, and judges the trace.
    pub(crate) fn finish(mut self) -> (Trace, Vec<CheckReport>) {
        // Roots are made up to a quarter of a second after the entries in them; the audit compares them.
        std::thread::sleep(Duration::from_millis(500));
        let audit = Template { cause: Some("audit"), ..Template::default() };
        self.hosts.note_ended();
        self.recorder.note(&"testbed".into(), 0, Kind::Phase, audit);
        for (i, authority) in self.authorities.iter().enumerate() {
            let name: Text = format!("sp{}", i + 1).into();
            self.runtime.block_on(audit_storage_point(self.publisher.client(), authority, &name, &self.recorder, 1));
        }
        for receiver in &self.hosts.receivers {
            audit_receiver(receiver.process.name(), &receiver.dirs[0], &self.recorder);
        }
        self.hosts.stop(Duration::from_secs(3));
        let trace = self.recorder.finish();
        let checks = check_all(&trace);
        (trace, checks)
    }
}

/// Panics, naming all of them, if a check did not hold.
#[track_caller]
pub(crate) fn assert_held(checks: &[CheckReport]) {
    let broken: Vec<_> =
        checks.iter().filter(|check| !check.held).map(|check| (check.name, &check.violations)).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}
