//! Processes of a test on addresses of its own, which end with it.

use super::http::{ask, get};
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

pub(crate) const ACMS: &str = env!("CARGO_BIN_EXE_acms");
/// What does not happen in this time will not happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A process and what it says.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) events: mpsc::Receiver<serde_json::Value>,
}

impl Process {
    /// Starts `acms` with these arguments; its events come line by line.
    pub(crate) fn start(arguments: &[&str], log: &Path) -> Process {
        let mut command = Command::new(ACMS);
        command.args(arguments);
        Process::of(command, log)
    }

    /// The same for a command that hands its arguments on to `acms`.
    pub(crate) fn of(mut command: Command, log: &Path) -> Process {
        let mut child = command
            .args(["--exit-with-parent", "--events", "-"])
            .stdout(Stdio::piped())
            .stderr(File::create(log).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (sender, events) = mpsc::channel();
        // Somebody has to read, or the process stops.
        std::thread::spawn(move || {
            lines.for_each(|line| drop(sender.send(serde_json::from_str(&line).unwrap())));
        });
        Process { child, events }
    }

    /// Waits for an event of this kind.
    pub(crate) fn wait_for(&self, kind: &str) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("there is no event {kind:?}"));
            if event["kind"] == kind {
                return event;
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Tells it to stop, and gives how long that took and whether it ended well.
    pub(crate) fn terminate(&mut self) -> (Duration, bool) {
        let started = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        (started.elapsed(), status.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory and a range of loopback addresses.
pub(crate) struct World {
    dir: tempfile::TempDir,
    base: String,
    used: u16,
}

impl World {
    pub(crate) fn new(test: u8) -> World {
        let base = format!("127.{}.{}.", 120 + test, 1 + std::process::id() % 250);
        World { dir: tempfile::tempdir().unwrap(), base, used: 0 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An address that nobody uses.
    pub(crate) fn address(&mut self) -> String {
        self.used += 1;
        format!("{}100:{}", self.base, 7400 + self.used)
    }

    /// A cluster of one storage point, and its URL.
    pub(crate) fn storage_point(&self) -> (Process, String) {
        let init = Command::new(ACMS)
            .args(["init", self.path("c").to_str().unwrap(), "--cluster", "caches", "--storage-points", "1"])
            .args(["--address-base", &format!("{}0", self.base)])
            .output()
            .unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        self.storage_point_again()
    }

    /// The same after it has died.
    pub(crate) fn storage_point_again(&self) -> (Process, String) {
        let config = self.path("c/sp1/acms.toml");
        let process =
            Process::start(&["storage-point", "--config", config.to_str().unwrap()], &self.path("storage-point.log"));
        let ready = process.wait_for("ready");
        (process, format!("http://{}", ready["publish"].as_str().unwrap()))
    }

    /// A cache at an address of its own, and its URL.
    pub(crate) fn cache(&mut self, name: &str, sources: &[&str], more: &[&str]) -> (Process, String) {
        let address = self.address();
        (self.cache_at(name, &address, sources, more), format!("http://{address}"))
    }

    pub(crate) fn cache_at(&self, name: &str, address: &str, sources: &[&str], more: &[&str]) -> Process {
        let store = self.path(name);
        let mut arguments = vec!["cache", "--listen", address, "--store", store.to_str().unwrap(), "--source"];
        arguments.extend(sources);
        arguments.extend(more);
        let process = Process::start(&arguments, &self.path(&format!("{name}.log")));
        process.wait_for("ready");
        process
    }

    /// A receiver of everything into the directory `name`.
    pub(crate) fn receiver(&self, name: &str, sources: &[&str], more: &[&str]) -> Process {
        let into = self.path(name);
        let mut arguments = vec!["receive", "--into", into.to_str().unwrap(), "--subscribe", "", "--source"];
        arguments.extend(sources);
        arguments.extend(more);
        Process::start(&arguments, &self.path(&format!("{name}.log")))
    }

    /// Waits until a receiver has this content of a path.
    pub(crate) fn wait_for_file(&self, receiver: &str, path: &str, content: &[u8]) {
        let file = self.path(receiver).join(path);
        wait_until(&format!("{receiver} has {path}"), || fs::read(&file).is_ok_and(|found| found == content));
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it does not come to pass that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Publishes until it is accepted.
pub(crate) fn publish(url: &str, path: &str, content: &[u8]) {
    let answer = ask(url, "PUT", &format!("/v1/config/{path}"), &[], content);
    assert_eq!((answer.status, answer.header("acms-outcome")), (201, Some("accepted")), "{}", answer.text());
}

/// The cursor from which changes are to be followed now, as text.
pub(crate) fn cursor(url: &str) -> String {
    let snapshot = get(url, "/v1/snapshot").json();
    format!("{}.{}.{}", snapshot["sp"], snapshot["incarnation"].as_str().unwrap(), snapshot["sequence"])
}

/// Bytes without a pattern.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// The hash of a content, as its name.
pub(crate) fn hash(content: &[u8]) -> String {
    acms_engine::protocol::Hash::of(content).to_string()
}
