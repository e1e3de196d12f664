//! Child processes that tell events: started, stopped, killed and paused, each with proof.

use super::{
    disk::Disk,
    events::{self, Told},
    seccomp::{Hook, Listener, intercept},
};
use crate::{
    backend::{
        Stop,
        docker::{Container, ContainerChild, EngineError, program_inside},
    },
    network::router::Namespace,
    system::Program,
    trace::{Kind, Recorder, Template, Text},
};
use nix::{sys::signal::Signal, unistd::Pid};
use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, mpsc},
    time::Duration,
};

/// Why a process did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start {name} ({command}): {source}")]
    Spawn {
        /// Which.
        name: String,
        /// What was run.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("{name} ended before it was ready; its last words:\n{log}")]
    EndedEarly {
        /// Which.
        name: String,
        /// End of its log.
        log: String,
    },
    /// It runs, but is not ready.
    #[error("{name} was not ready within {within:?}; its last words:\n{log}")]
    NotReady {
        /// Which.
        name: String,
        /// How long it had.
        within: Duration,
        /// End of its log.
        log: String,
    },
    /// It is not running.
    #[error("{0} is not running")]
    NotRunning(String),
    /// A signal did not have its effect.
    #[error("{name}: {what}")]
    NoEffect {
        /// Which.
        name: String,
        /// What did not happen.
        what: String,
    },
    /// The container engine did not do what it was asked for.
    #[error("{name}: {error}")]
    Engine {
        /// Which.
        name: String,
        /// Why.
        error: EngineError,
    },
    /// The caller wants to end.
    #[error("interrupted")]
    Interrupted,
}

/// Where a process runs.
#[derive(Clone, Default, Debug)]
pub enum Place {
    /// On this machine's own network.
    #[default]
    Here,
    /// On a network of its own.
    On(Namespace),
    /// In a container.
    In(Arc<Container>),
}

/// How to start a process, as often as needed.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Its name in the trace.
    pub name: Text,
    /// The names of the receivers in it, if it is several.
    pub members: Vec<Text>,
    /// How to start `acms`.
    pub program: Program,
    /// Arguments of `acms`.
    pub args: Vec<OsString>,
    /// Variables beside the testbed's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// Where it runs.
    pub place: Place,
    /// Its disk, if that may be in trouble.
    pub disk: Option<Disk>,
}

/// A process that may be started, ended and started again.
#[derive(Debug)]
pub struct Process {
    launch: Launch,
    recorder: Option<Recorder>,
    running: Option<Running>,
    starts: u32,
}

#[derive(Debug)]
struct Running {
    child: AnyChild,
    ready: Readiness,
}

/// Whether a process is ready. Clones watch the same start of it.
#[derive(Clone, Debug)]
pub struct Readiness {
    name: Text,
    log: PathBuf,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Clone, Copy, Default, Debug)]
struct State {
    ready: bool,
    closed: bool,
}

/// Processor time and memory that a process has used so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// User and system time, in microseconds.
    pub cpu_us: u64,
    /// Most resident memory, in KiB.
    pub rss_kib_max: u64,
}

impl Readiness {
    /// Waits until the process is ready.
    pub fn wait(&self, within: Duration, stop: Option<&Stop>) -> Result<(), ProcessError> {
        const LOOK_EVERY: Duration = Duration::from_millis(20);
        let (state, changed) = &*self.state;
        let mut waited = Duration::ZERO;
        let mut state = state.lock().expect("nothing panics while it holds this");
        loop {
            if state.ready {
                return Ok(());
            }
            if state.closed {
                return Err(ProcessError::EndedEarly { name: self.name.to_string(), log: self.last_words() });
            }
            if stop.is_some_and(Stop::is_requested) {
                return Err(ProcessError::Interrupted);
            }
            if waited >= within {
                return Err(ProcessError::NotReady { name: self.name.to_string(), within, log: self.last_words() });
            }
            let (again, timeout) = changed.wait_timeout(state, LOOK_EVERY).expect("nothing panics while it holds this");
            state = again;
            if timeout.timed_out() {
                waited += LOOK_EVERY;
            }
        }
    }

    /// Waits until no event can come any more.
    fn wait_closed(&self, within: Duration) {
        let (state, changed) = &*self.state;
        let state = state.lock().expect("nothing panics while it holds this");
        drop(changed.wait_timeout_while(state, within, |state| !state.closed));
    }

    /// It is.
    pub(super) fn set_ready(&self) {
        self.set(|state| state.ready = true);
    }

    /// No event can come any more.
    pub(super) fn close(&self) {
        self.set(|state| state.closed = true);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.state;
        change(&mut state.lock().expect("nothing panics while it holds this"));
        changed.notify_all();
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
        if tail.trim().is_empty() { format!("(nothing in {})", self.log.display()) } else { tail }
    }
}

impl Process {
    /// A process that is not running yet.
    pub fn new(launch: Launch, recorder: Option<Recorder>) -> Process {
        Process { launch, recorder, running: None, starts: 0 }
    }

    /// Its name in the trace.
    pub fn name(&self) -> &Text {
        &self.launch.name
    }

    /// Where its standard error goes.
    pub fn log(&self) -> &PathBuf {
        &self.launch.log
    }

    /// Its id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.child.id())
    }

    /// Whether it was started and not seen to end.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Where it runs.
    pub(super) fn place(&self) -> &Place {
        &self.launch.place
    }

    /// Variables of its next start.
    pub fn set_env(&mut self, env: Vec<(OsString, OsString)>) {
        self.launch.env = env;
    }

    /// Starts it; the result tells when it is ready.
    pub fn start(&mut self) -> Result<Readiness, ProcessError> {
        let name = Text::clone(&self.launch.name);
        let shown = format!("{:?}", self.launch.program.command(&self.launch.args));
        let failed = |source| ProcessError::Spawn { name: name.to_string(), command: shown.clone(), source };
        let (events, told) = io::pipe().map_err(failed)?;
        let (mut child, listener) = self.launch.start(told.into()).map_err(failed)?;
        if let Some((disk, listener)) = self.launch.disk.as_ref().zip(listener) {
            disk.serve(&name, listener).map_err(failed)?;
        }
        let incarnation = self.starts;
        self.starts += 1;
        self.note_of_all(incarnation, Kind::Start, Template::default());
        let state = Arc::default();
        let ready = Readiness { name: Text::clone(&name), log: self.launch.log.clone(), state };
        let names = self.names().to_vec();
        let told = Told { events, ready: ready.clone(), names, incarnation, recorder: self.recorder.clone() };
        if let Err(source) = events::follow(told) {
            // Without a reader it would block on a full pipe; it has not told anything yet.
            let _ = child.signal(Signal::SIGKILL);
            let _ = child.wait();
            return Err(failed(source));
        }
        self.running = Some(Running { child, ready: ready.clone() });
        Ok(ready)
    }

    /// Waits until the running process is ready.
    pub fn wait_ready(&self, within: Duration, stop: Option<&Stop>) -> Result<(), ProcessError> {
        self.running()?.ready.wait(within, stop)
    }

    /// Kills it with SIGKILL; at return it is gone, and it died of that.
    pub fn kill(&mut self) -> Result<(), ProcessError> {
        self.note_usage();
        self.signal(Signal::SIGKILL)?;
        self.thaw();
        let status = self.reap("killed")?;
        if status.signal() != Some(Signal::SIGKILL as i32) {
            return Err(self.no_effect(format!("ended with {status} before it could be killed")));
        }
        Ok(())
    }

    /// Stops it from running until [`Process::resume`]; at return the kernel shows it stopped.
    pub fn pause(&mut self) -> Result<(), ProcessError> {
        if let Place::In(container) = &self.launch.place {
            return container.pause().map_err(|error| self.engine(error));
        }
        self.signal(Signal::SIGSTOP)?;
        self.wait_for_state("stopped by SIGSTOP", |state| state == 'T')
    }

    /// Lets it run again; at return the kernel shows it not stopped.
    pub fn resume(&mut self) -> Result<(), ProcessError> {
        if let Place::In(container) = &self.launch.place {
            return container.resume().map_err(|error| self.engine(error));
        }
        self.signal(Signal::SIGCONT)?;
        self.wait_for_state("continued by SIGCONT", |state| state != 'T')
    }

    /// Asks it to end (SIGTERM); at return it has, with status 0.
    pub fn stop_gracefully(&mut self, within: Duration) -> Result<(), ProcessError> {
        self.note_usage();
        self.signal(Signal::SIGTERM)?;
        if !self.wait_for_exit(within)? {
            return Err(self.no_effect(format!("did not end within {within:?} of SIGTERM")));
        }
        let status = self.reap("stopped")?;
        if !status.success() {
            return Err(self.no_effect(format!("ended with {status} on SIGTERM")));
        }
        // It is started again in a new container, as engines do it, with a new interface.
        match &self.launch.place {
            Place::In(container) => container.end().map_err(|error| self.engine(error)),
            _ => Ok(()),
        }
    }

    /// Records processor time and memory used so far.
    pub fn note_usage(&self) {
        let Some(Usage { cpu_us, rss_kib_max }) = self.pid().and_then(usage) else { return };
        let cause = format!("cpu_us={cpu_us} rss_kib_max={rss_kib_max}");
        self.note(self.starts - 1, Kind::Usage, Template { cause: Some(&cause), ..Template::default() });
    }

    /// Whether it ended though nobody told it to; then that is recorded.
    pub fn note_if_ended(&mut self) -> bool {
        self.note_if_ended_as("unexpected")
    }

    /// The same, of a process that had a reason to end.
    pub(super) fn note_if_ended_as(&mut self, outcome: &str) -> bool {
        let ended = self.running.as_mut().is_some_and(|running| running.child.has_ended());
        if ended {
            self.thaw();
        }
        ended && self.reap(outcome).is_ok()
    }

    /// What has been killed in a container that stands still ends when that goes on.
    fn thaw(&self) {
        if let Place::In(container) = &self.launch.place
            && container.resume().is_err()
        {
            // Then it ends with its container, if anything ends it.
            let _ = container.end();
        }
    }

    fn engine(&self, error: EngineError) -> ProcessError {
        ProcessError::Engine { name: self.launch.name.to_string(), error }
    }

    fn signal_if_running(&self, signal: Signal) {
        // A process that has just ended needs no signal.
        let _ = self.signal(signal);
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.running()?.child.signal(signal).map_err(|error| self.no_effect(format!("{signal}: {error}")))
    }

    fn wait_for_state(&self, what: &str, wanted: impl Fn(char) -> bool) -> Result<(), ProcessError> {
        let pid = self.running()?.child.id();
        for _ in 0..400 {
            if stat(pid).is_some_and(|stat| wanted(stat.state)) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(self.no_effect(format!("was not {what} within 2 s")))
    }

    /// Whether it ended within that time; it is not reaped.
    fn wait_for_exit(&mut self, within: Duration) -> Result<bool, ProcessError> {
        let mut waited = Duration::ZERO;
        loop {
            let name = self.launch.name.to_string();
            let running = self.running.as_mut().ok_or(ProcessError::NotRunning(name))?;
            if running.child.has_ended() {
                return Ok(true);
            }
            if waited >= within {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(5));
            waited += Duration::from_millis(5);
        }
    }

    /// Waits for the end of the process and of its events, and records it.
    fn reap(&mut self, outcome: &str) -> Result<ExitStatus, ProcessError> {
        let name = self.launch.name.to_string();
        let mut running = self.running.take().ok_or(ProcessError::NotRunning(name.clone()))?;
        let status = running.child.wait().map_err(|error| self.no_effect(format!("cannot be waited for: {error}")))?;
        // What it told before it ended is in the pipe; only a child of its own could keep that open.
        running.ready.wait_closed(Duration::from_secs(2));
        let cause = status.to_string();
        let template = Template { outcome: Some(outcome), cause: Some(&cause), ..Template::default() };
        self.note_of_all(self.starts - 1, Kind::Exit, template);
        Ok(status)
    }

    fn running(&self) -> Result<&Running, ProcessError> {
        self.running.as_ref().ok_or_else(|| ProcessError::NotRunning(self.launch.name.to_string()))
    }

    fn no_effect(&self, what: String) -> ProcessError {
        ProcessError::NoEffect { name: self.launch.name.to_string(), what }
    }

    /// The names in the trace that it speaks under.
    pub fn names(&self) -> &[Text] {
        if self.launch.members.is_empty() { std::slice::from_ref(&self.launch.name) } else { &self.launch.members }
    }

    fn note_of_all(&self, incarnation: u32, kind: Kind, template: Template<'_>) {
        if let Some(recorder) = &self.recorder {
            for name in self.names() {
                recorder.note(name, incarnation, kind, template);
            }
        }
    }

    fn note(&self, incarnation: u32, kind: Kind, template: Template<'_>) {
        if let Some(recorder) = &self.recorder {
            recorder.note(&self.launch.name, incarnation, kind, template);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            let _ = running.child.signal(Signal::SIGKILL);
            self.thaw();
            let _ = self.reap("killed");
        }
    }
}

/// Ends all of them: SIGTERM first, SIGKILL to those that have not ended after `grace`.
pub fn stop_all<'p>(processes: impl IntoIterator<Item = &'p mut Process>, grace: Duration) {
    let mut processes: Vec<_> = processes.into_iter().collect();
    processes.retain_mut(|process| process.is_running() && !process.note_if_ended());
    for process in &processes {
        process.signal_if_running(Signal::SIGTERM);
        process.signal_if_running(Signal::SIGCONT);
        process.thaw();
    }
    let mut left = grace;
    for process in processes {
        let begun_ns = crate::trace::now_ns();
        let ended = process.wait_for_exit(left).unwrap_or(true);
        left = left.saturating_sub(Duration::from_nanos(crate::trace::now_ns() - begun_ns));
        if !ended {
            process.signal_if_running(Signal::SIGKILL);
        }
        // Fails only for a process that is already gone.
        let _ = process.reap(if ended { "stopped" } else { "killed" });
    }
}

pub(super) struct Stat {
    pub(super) state: char,
    ticks: u64,
    /// When it was started, in ticks since the machine was.
    pub(super) started: u64,
}

/// `/proc/<pid>/stat`, as far as it is needed.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain anything, even parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    let state = fields.first()?.chars().next()?;
    Some(Stat { state, ticks: number(11)? + number(12)?, started: number(19)? })
}

fn usage(pid: u32) -> Option<Usage> {
    /// Linux shows times in units of 10 ms on every architecture.
    const TICK_US: u64 = 10_000;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let rss_kib_max = rss.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(Usage { cpu_us: stat(pid)?.ticks * TICK_US, rss_kib_max })
}

impl Launch {
    /// Starts it, with its events going to `told`. What its file system calls arrive at, if its disk may be in trouble.
    fn start(&self, told: OwnedFd) -> io::Result<(AnyChild, Option<Listener>)> {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        if let Place::In(container) = &self.place {
            let text = |word: &OsString| {
                word.clone().into_string().map_err(|word| io::Error::other(format!("{word:?} is no text")))
            };
            let command = program_inside().command.iter().chain(&self.args).map(text).collect::<io::Result<_>>()?;
            let env =
                self.env.iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect::<io::Result<_>>()?;
            let started = container.start(command, env, self.disk.is_some(), [told.as_fd(), log.as_fd()])?;
            return Ok((AnyChild::InContainer(started.child), started.listener));
        }
        let mut command = self.program.command(&self.args);
        command.stdin(Stdio::null()).stdout(told).stderr(log);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        // Of a process group of its own: Ctrl-C reaches the testbed alone, which then stops all in order.
        command.process_group(0);
        if let Place::On(namespace) = &self.place {
            namespace.enter(&mut command);
        }
        let hook = self.disk.as_ref().map(|_| intercept(&mut command)).transpose()?;
        let child = spawn(command)?;
        Ok((AnyChild::Here(child), hook.map(Hook::listener).transpose()?))
    }
}

/// A process that was started, wherever.
#[derive(Debug)]
enum AnyChild {
    Here(Child),
    InContainer(ContainerChild),
}

impl AnyChild {
    fn id(&self) -> u32 {
        match self {
            AnyChild::Here(child) => child.id(),
            AnyChild::InContainer(child) => child.id(),
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            AnyChild::Here(child) => Ok(nix::sys::signal::kill(Pid::from_raw(child.id().cast_signed()), signal)?),
            AnyChild::InContainer(child) => child.signal(signal),
        }
    }

    /// Whether it has ended, or there is nothing to wait for.
    fn has_ended(&mut self) -> bool {
        match self {
            AnyChild::Here(child) => !matches!(child.try_wait(), Ok(None)),
            AnyChild::InContainer(child) => child.has_ended().unwrap_or(true),
        }
    }

    fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            AnyChild::Here(child) => child.wait(),
            AnyChild::InContainer(child) => child.wait(),
        }
    }
}

type SpawnRequest = (Command, mpsc::SyncSender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process: a child that asks to die with its parent dies
/// with the *thread* that started it.
fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        let serve = move || {
            for (mut command, answer) in requests {
                // Who asked waits for the answer.
                let _ = answer.send(command.spawn());
            }
        };
        // If it cannot be started, its receiver is dropped and each request fails.
        let _ = std::thread::Builder::new().name("spawner".to_owned()).spawn(serve);
        sender
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    let (answer, answered) = mpsc::sync_channel(1);
    spawner.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in place of `acms`.
    fn script(dir: &std::path::Path, text: &str, recorder: &Recorder) -> Process {
        let program = Program { command: vec!["sh".into(), "-c".into(), text.into()] };
        let (args, env) = (Vec::new(), vec![("WORD".into(), "hello".into())]);
        let (members, log) = (Vec::new(), dir.join("log"));
        let launch = Launch { name: "sp1".into(), members, program, args, env, log, place: Place::Here, disk: None };
        Process::new(launch, Some(recorder.clone()))
    }

    const READY: &str = r#"echo '{"t":1,"kind":"ready"}'; "#;

    #[test]
    fn events_are_recorded_and_signals_have_their_effect() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new();
        let mut process = script(dir.path(), &format!("echo nonsense; {READY} exec sleep 60"), &recorder);
        process.start().unwrap().wait(Duration::from_secs(10), None).unwrap();
        process.pause().unwrap();
        assert_eq!(stat(process.pid().unwrap()).unwrap().state, 'T');
        process.resume().unwrap();
        assert!(!process.note_if_ended());
        process.kill().unwrap();
        assert!(!process.is_running());
        assert!(matches!(process.kill(), Err(ProcessError::NotRunning(_))));
        process.start().unwrap().wait(Duration::from_secs(10), None).unwrap();
        stop_all([&mut process], Duration::from_millis(1500));
        assert!(recorder.bad_lines() >= 1);
        let trace = recorder.finish();
        let shown: Vec<_> = trace.events().iter().map(|event| (event.kind, event.incarnation)).collect();
        for expected in [(Kind::Start, 0), (Kind::Ready, 0), (Kind::Exit, 0), (Kind::Start, 1), (Kind::Exit, 1)] {
            assert!(shown.contains(&expected), "{shown:?}");
        }
    }

    #[test]
    fn early_ends_and_silence_are_told_with_the_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new();
        let mut process = script(dir.path(), "echo $WORD world >&2; exit 3", &recorder);
        let error = process.start().unwrap().wait(Duration::from_secs(10), None).unwrap_err();
        assert!(error.to_string().contains("hello world"), "{error}");
        assert!(process.wait_for_exit(Duration::from_secs(5)).unwrap());
        assert!(process.note_if_ended());

        let mut process = script(dir.path(), "exec sleep 60", &recorder);
        let error = process.start().unwrap().wait(Duration::from_millis(50), None).unwrap_err();
        assert!(matches!(error, ProcessError::NotReady { .. }));
        let stop = Stop::new();
        stop.request();
        assert!(matches!(process.wait_ready(Duration::from_secs(9), Some(&stop)), Err(ProcessError::Interrupted)));
    }
}
