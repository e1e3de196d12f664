//! Calls that may take long: the interpreter goes on meanwhile, and Ctrl-C is seen.

use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use std::{
    io::{self, Write as _},
    mem, process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const SIGNALS_EVERY: Duration = Duration::from_millis(25);
/// How long an exception waits for what was begun to be undone; what takes longer is undone beside it.
const UNDO_FIRST: Duration = Duration::from_millis(50);
/// For so long the interpreter's exit waits for it in silence.
const QUIET_AT_EXIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Work that must not be left half done.
struct Undoable {
    /// Makes it end.
    abandon: Box<dyn Fn() + Send + Sync>,
    thread: JoinHandle<()>,
    /// The process that has the thread: one that forks has a child without.
    process: u32,
}

/// What the interpreter's exit waits for.
static UNDER_WAY: Mutex<Vec<Arc<Undoable>>> = Mutex::new(Vec::new());
/// Whether the interpreter has been told to.
static WAITS_AT_EXIT: AtomicBool = AtomicBool::new(false);

/// Runs `work` on a thread of its own and returns what it returns.
///
/// If a signal's handler raises meanwhile (Ctrl-C), that is raised at once, and `work`, which must be bounded, ends by
/// itself.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    let (_, result) = start(work)?;
    follow(py, result)
}

/// As [`interruptible`], for work that must not be left half done: a signal makes it end by `abandon`, and what it made
/// all the same is dropped, before the interpreter exits. The exit itself does the same, whoever waits for it then.
pub(crate) fn undoable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    abandon: impl Fn() + Send + Sync + 'static,
) -> PyResult<T> {
    wait_at_exit(py)?;
    let (thread, result) = start(work)?;
    let begun = Arc::new(Undoable { abandon: Box::new(abandon), thread, process: process::id() });
    {
        let mut under_way = under_way();
        under_way.retain(|other| !other.thread.is_finished());
        under_way.push(Arc::clone(&begun));
    }
    let returned = follow(py, result);
    if returned.is_err() {
        (begun.abandon)();
        let deadline = Instant::now() + UNDO_FIRST;
        py.detach(|| {
            while !begun.thread.is_finished() && Instant::now() < deadline {
                thread::sleep(LOOK_EVERY);
            }
        });
    }
    returned
}

fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<(JoinHandle<()>, Receiver<T>)> {
    let (sender, result) = sync_channel(1);
    // If nobody takes the result any more, it is dropped there.
    let thread = thread::Builder::new().name("acms call".to_owned()).spawn(move || drop(sender.send(work())))?;
    Ok((thread, result))
}

/// Waits for the result, or until a signal's handler raises.
fn follow<T: Send>(py: Python<'_>, mut result: Receiver<T>) -> PyResult<T> {
    loop {
        let waited;
        (waited, result) = py.detach(move || (result.recv_timeout(SIGNALS_EVERY), result));
        match waited {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("a call of acms panicked")),
            Err(RecvTimeoutError::Timeout) => py.check_signals()?,
        }
    }
}

fn under_way() -> MutexGuard<'static, Vec<Arc<Undoable>>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the interpreter's exit wait for what is under way then.
fn wait_at_exit(py: Python<'_>) -> PyResult<()> {
    if WAITS_AT_EXIT.load(Ordering::Relaxed) {
        return Ok(());
    }
    let at_exit = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| end_all(arguments.py());
    let at_exit = PyCFunction::new_closure(py, None, None, at_exit)?;
    py.import("atexit")?.call_method1("register", (at_exit,))?;
    WAITS_AT_EXIT.store(true, Ordering::Relaxed);
    Ok(())
}

/// Abandons all that is under way and waits until it is undone, which is bounded; Ctrl-C cuts that short.
fn end_all(py: Python<'_>) {
    // What begins after this is registered anew.
    WAITS_AT_EXIT.store(false, Ordering::Relaxed);
    let mut ending = mem::take(&mut *under_way());
    ending.retain(|one| one.process == process::id());
    ending.iter().for_each(|one| (one.abandon)());
    let (begun, mut is_quiet) = (Instant::now(), true);
    while ending.iter().any(|one| !one.thread.is_finished()) {
        py.detach(|| thread::sleep(LOOK_EVERY));
        if py.check_signals().is_err() {
            tell("not all that was begun is undone: `acms-testbed clean` does the rest");
            return;
        }
        if is_quiet && begun.elapsed() >= QUIET_AT_EXIT {
            is_quiet = false;
            tell("still undoing what was begun; Ctrl-C leaves that to `acms-testbed clean`");
        }
    }
}

/// A closed terminal is no reason to panic.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "acms: {text}");
}
