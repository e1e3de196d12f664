//! A command that is run when something has changed: one at a time, with a time limit, again after a failure.

use super::child;
use crate::protocol::{Duration, Instant};
use mio::Waker;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver as Incoming, channel},
    },
    thread::{Builder, JoinHandle},
};

/// Time between tries of a command that fails.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How long a command that has had its time may take to end itself.
const GRACE: Duration = Duration::from_secs(2);
/// How often its end is looked for, once it has run for a while.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a run of the command gets.
#[derive(Debug)]
pub(super) struct Call {
    /// Variables beside those of this process.
    pub(super) variables: Vec<(&'static str, String)>,
    /// Its standard input.
    pub(super) input: Vec<u8>,
}

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// What went wrong; none if it exited with 0.
    pub(super) failure: Option<String>,
    pub(super) took: Duration,
}

/// A command, and its run if there is one.
#[derive(Debug)]
pub(super) struct Hook {
    command: String,
    limit: Duration,
    waker: Arc<Waker>,
    running: Option<Running>,
    /// After a failure: not before this.
    not_before: Option<Instant>,
    retry_after: Duration,
}

#[derive(Debug)]
struct Running {
    began: Instant,
    result: Incoming<Option<String>>,
    cancelled: Arc<AtomicBool>,
    /// None: it could not be started.
    thread: Option<JoinHandle<()>>,
}

impl Hook {
    /// `command` is given to `sh -c`. `waker` is woken when a run is over.
    pub(super) fn new(command: String, limit: Duration, waker: Arc<Waker>) -> Hook {
        Hook { command, limit, waker, running: None, not_before: None, retry_after: RETRY_MIN }
    }

    /// Whether it could be run now.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        self.running.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    /// Whether it runs, or how it ended has not been taken yet.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When it could be run again after its failure.
    pub(super) fn free_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.running.is_none())
    }

    /// Runs the command. It must be free.
    pub(super) fn run(&mut self, now: Instant, call: Call) {
        self.run_by(Builder::new().name("command".into()), now, call);
    }

    fn run_by(&mut self, builder: Builder, now: Instant, call: Call) {
        let (sender, result) = channel();
        let unstarted = sender.clone();
        let cancelled = Arc::new(AtomicBool::new(false));
        let (command, limit, waker) = (self.command.clone(), self.limit, Arc::clone(&self.waker));
        let is_cancelled = Arc::clone(&cancelled);
        let thread = builder.spawn(move || {
            let failure = match start(&command, call) {
                Ok(child) => supervise(child, limit, &is_cancelled),
                Err(error) => Some(format!("it cannot be started: {error}")),
            };
            let _ = sender.send(failure);
            let _ = waker.wake();
        });
        if let Err(error) = &thread {
            // It has failed like one that ran, so what it was to be told is told again.
            let _ = unstarted.send(Some(format!("it cannot be started: {error}")));
            let _ = self.waker.wake();
        }
        self.running = Some(Running { began: now, result, cancelled, thread: thread.ok() });
    }

    /// The run, if it has ended since.
    pub(super) fn take_ran(&mut self, now: Instant) -> Option<Ran> {
        let failure = self.running.as_ref()?.result.try_recv().ok()?;
        let Running { began, thread, .. } = self.running.take()?;
        let _ = thread.map(JoinHandle::join);
        if failure.is_some() {
            self.not_before = Some(now.after(self.retry_after));
            self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        } else {
            (self.not_before, self.retry_after) = (None, RETRY_MIN);
        }
        Some(Ran { failure, took: now.since(began) })
    }
}

impl Drop for Hook {
    /// Ends the run.
    fn drop(&mut self) {
        if let Some(Running { cancelled, thread, .. }) = self.running.take() {
            cancelled.store(true, Ordering::Relaxed);
            let _ = thread.map(JoinHandle::join);
        }
    }
}

fn start(command: &str, call: Call) -> io::Result<Child> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).envs(call.variables);
    // A file, so that nobody waits for a command that does not read.
    let input = nix::sys::memfd::memfd_create("changes", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)?;
    let mut input = File::from(input);
    input.write_all(&call.input)?;
    input.rewind()?;
    // Standard output may be the event stream.
    shell.stdin(input).stdout(Stdio::from(io::stderr()));
    child::spawn(shell)
}

/// Waits for the end of a command, or ends it and all that it has started. Gives what went wrong.
fn supervise(mut child: Child, limit: Duration, cancelled: &AtomicBool) -> Option<String> {
    let began = std::time::Instant::now();
    let group = Pid::from_raw(child.id().cast_signed());
    let (mut pause, mut ended_at) = (Duration::from_millis(1), None);
    loop {
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(_)) if ended_at.is_some() => {
                let _ = killpg(group, Signal::SIGKILL);
                return Some(format!("it was ended after {limit:?}"));
            }
            Ok(Some(status)) => return (!status.success()).then(|| told(status)),
            Err(error) => return Some(error.to_string()),
        }
        let is_cancelled = cancelled.load(Ordering::Relaxed);
        match ended_at {
            None if is_cancelled || began.elapsed() >= limit => {
                let _ = killpg(group, Signal::SIGTERM);
                ended_at = Some(std::time::Instant::now());
            }
            Some(at) if at.elapsed() >= GRACE => drop(killpg(group, Signal::SIGKILL)),
            _ => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

fn told(status: ExitStatus) -> String {
    format!("it ended with {status}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use mio::{Events, Poll, Token};

    #[test]
    fn a_command_for_which_there_is_no_thread_has_failed_and_can_be_run_again() {
        let now = Instant(1_000_000_000);
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut hook = Hook::new("true".into(), Duration::from_secs(60), waker);
        // A stack as long as all addresses that a process has.
        let builder = Builder::new().stack_size(1 << 47);
        hook.run_by(builder, now, Call { variables: Vec::new(), input: Vec::new() });
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert!(!events.is_empty(), "the loop takes note of it");
        let ran = hook.take_ran(now).unwrap();
        assert!(ran.failure.unwrap().contains("cannot be started"));
        let again = hook.free_at().unwrap();
        assert!(!hook.is_running() && !hook.is_free(now) && hook.is_free(again));
        assert_eq!(again, now.after(RETRY_MIN));
    }
}
