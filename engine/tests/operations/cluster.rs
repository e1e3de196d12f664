//! Storage points as processes, and commands run beside them.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

pub(crate) const ACMS: &str = env!("CARGO_BIN_EXE_acms");
/// What has not come by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `acms` without what the tests' own environment says.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(ACMS);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ACMS_")) {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null());
    command
}

pub(crate) fn acms(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

/// What a command that must succeed prints.
pub(crate) fn printed(args: &[&str]) -> String {
    let output = acms(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    text(&output.stdout)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A process whose lines are read as they come; it ends with this.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Reads its standard output; somebody has to, or a storage point stops.
    pub(crate) fn start(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout: ChildStdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Process { child, lines }
    }

    /// Its next line; none if it has ended.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line within {PATIENCE:?}"),
        }
    }

    /// The next line with this in it.
    pub(crate) fn line_with(&self, what: &str) -> Option<String> {
        std::iter::from_fn(|| self.line()).find(|line| line.contains(what))
    }

    /// Whether it says nothing for so long.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        matches!(self.lines.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Storage points on addresses of their own.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    base: String,
    running: Vec<Option<Process>>,
}

impl Cluster {
    /// `test` is a number that no other test has.
    pub(crate) fn start(test: u8, count: usize) -> Cluster {
        let mut cluster = Cluster::lay_out(test, count);
        (1..=count).for_each(|sp| cluster.spawn(sp, ACMS, &[]));
        (1..=count).for_each(|sp| cluster.wait_ready(sp));
        cluster
    }

    pub(crate) fn lay_out(test: u8, count: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("127.{}.{}.", 120 + test, 1 + std::process::id() % 250);
        let place = dir.path().join("c");
        let (number, zero) = (count.to_string(), format!("{base}0"));
        printed(&["init", place.to_str().unwrap(), "--storage-points", &number, "--address-base", &zero]);
        Cluster { dir, base, running: (0..count).map(|_| None).collect() }
    }

    pub(crate) fn config(&self, sp: usize) -> PathBuf {
        self.dir.path().join(format!("c/sp{sp}/acms.toml"))
    }

    pub(crate) fn url(&self, sp: usize) -> String {
        format!("http://{}{sp}:7400", self.base)
    }

    pub(crate) fn log(&self, sp: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("log{sp}"))).unwrap_or_default()
    }

    pub(crate) fn spawn(&mut self, sp: usize, program: &str, environment: &[(&str, &str)]) {
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join(format!("log{sp}"))).unwrap();
        let mut command = Command::new(program);
        command.args(["storage-point", "--exit-with-parent", "--events", "-", "--config"]).arg(self.config(sp));
        command.envs(environment.iter().copied()).stderr(log);
        self.running[sp - 1] = Some(Process::start(&mut command));
    }

    pub(crate) fn wait_ready(&self, sp: usize) {
        let process = self.running[sp - 1].as_ref().unwrap();
        assert!(process.line_with("\"kind\":\"ready\"").is_some(), "sp{sp} has ended; log: {}", self.log(sp));
    }

    pub(crate) fn start_sp(&mut self, sp: usize) {
        self.spawn(sp, ACMS, &[]);
        self.wait_ready(sp);
    }

    pub(crate) fn kill(&mut self, sp: usize) {
        self.running[sp - 1] = None;
    }

    /// Has `sp` end in its own time.
    pub(crate) fn stop(&mut self, sp: usize) {
        let mut process = self.running[sp - 1].take().unwrap();
        kill(Pid::from_raw(process.child.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(process.child.wait().unwrap().code(), Some(0), "sp{sp}: {}", self.log(sp));
    }

    /// Publishes `text` at `sp` and gives the UID.
    pub(crate) fn publish(&self, sp: usize, path: &str, text: &str) -> String {
        let file = self.dir.path().join("content");
        fs::write(&file, text).unwrap();
        let line = printed(&["publish", "--to", &self.url(sp), path, file.to_str().unwrap()]);
        line.trim().rsplit(' ').next().unwrap().to_owned()
    }
}
