//! The storage points of `acms dev`: started, watched, started again, stopped. What they log is passed on line by line,
//! marked by who says it.

use super::{LogFormat, Program};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// One that has ended is started again after this: long enough to see what the others do without it.
const RESTART_AFTER: Duration = Duration::from_secs(5);
/// What does not stop when it is told to is killed.
const STOP_TIME: Duration = Duration::from_secs(5);

struct StoragePoint {
    config: PathBuf,
    child: Child,
    serves: Arc<AtomicBool>,
    ended: Option<Instant>,
}

/// All of them. They stop when this is dropped.
pub(super) struct Children<'a> {
    program: &'a Program,
    log_format: LogFormat,
    storage_points: BTreeMap<u8, StoragePoint>,
}

impl Children<'_> {
    pub(super) fn new(program: &Program, log_format: LogFormat) -> Children<'_> {
        Children { program, log_format, storage_points: BTreeMap::new() }
    }

    /// Starts one. Only the thread that lives as long as the process may do so: children end with it.
    pub(super) fn start(&mut self, id: u8, config: &Path) -> io::Result<()> {
        let mut command = self.program.command("storage-point");
        command.args(["--exit-with-parent", "--events", "-", "--config"]).arg(config);
        // Meant for one storage point, they would be the same for all.
        for name in ["ACMS_STORE", "ACMS_LISTEN_DELIVER", "ACMS_LISTEN_PUBLISH", "ACMS_LISTEN_PEER"] {
            command.env_remove(name);
        }
        command.env("ACMS_LOG_FORMAT", if self.log_format == LogFormat::Json { "json" } else { "text" });
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let serves = Arc::new(AtomicBool::new(false));
        if let Some(events) = child.stdout.take() {
            let serves = Arc::clone(&serves);
            thread::spawn(move || note_ready(events, &serves));
        }
        if let Some(log) = child.stderr.take() {
            let mark = if self.log_format == LogFormat::Json { String::new() } else { format!("sp{id} | ") };
            thread::spawn(move || pass_on(log, &mark));
        }
        let started = StoragePoint { config: config.to_owned(), child, serves, ended: None };
        self.storage_points.insert(id, started);
        Ok(())
    }

    pub(super) fn pid(&self, id: u8) -> Option<u32> {
        self.storage_points.get(&id).map(|one| one.child.id())
    }

    pub(super) fn all_serve(&self) -> bool {
        self.storage_points.values().all(|one| one.serves.load(Ordering::Acquire))
    }

    /// One that has ended, and how.
    pub(super) fn first_ended(&mut self) -> Option<String> {
        self.storage_points.iter_mut().find_map(|(id, one)| match one.child.try_wait() {
            Ok(Some(status)) => Some(format!("storage point {id} has ended: {status}")),
            _ => None,
        })
    }

    /// Notes which have ended, and starts those again that did so a while ago.
    pub(super) fn start_again(&mut self) {
        let mut due = Vec::new();
        for (id, one) in &mut self.storage_points {
            match one.ended {
                Some(at) if at.elapsed() >= RESTART_AFTER => due.push((*id, one.config.clone())),
                Some(_) => {}
                None => {
                    if let Ok(Some(status)) = one.child.try_wait() {
                        one.ended = Some(Instant::now());
                        tracing::warn!(
                            "storage point {id} has ended ({status}); it is started again after {RESTART_AFTER:?}"
                        );
                    }
                }
            }
        }
        for (id, config) in due {
            if let Err(error) = self.start(id, &config) {
                tracing::error!("storage point {id} cannot be started: {error}");
            }
        }
    }
}

impl Drop for Children<'_> {
    fn drop(&mut self) {
        for one in self.storage_points.values() {
            let _ = kill(Pid::from_raw(one.child.id() as i32), Signal::SIGTERM);
        }
        let until = Instant::now() + STOP_TIME;
        for one in self.storage_points.values_mut() {
            while matches!(one.child.try_wait(), Ok(None)) && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = one.child.kill();
            let _ = one.child.wait();
        }
    }
}

/// Reads events until they end: a storage point whose events nobody reads stops.
fn note_ready(events: impl Read, serves: &AtomicBool) {
    for line in BufReader::new(events).lines().map_while(Result::ok) {
        if line.contains("\"kind\":\"ready\"") {
            serves.store(true, Ordering::Release);
        }
    }
}

fn pass_on(log: impl Read, mark: &str) {
    for line in BufReader::new(log).lines().map_while(Result::ok) {
        // One write for each, so that lines of several storage points do not mix.
        let _ = io::stderr().lock().write_all(format!("{mark}{line}\n").as_bytes());
    }
}
