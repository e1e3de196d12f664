//! Calls that may take long: the interpreter goes on meanwhile, and Ctrl-C is seen.

use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};
use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

const SIGNALS_EVERY: Duration = Duration::from_millis(25);
/// How long an exception waits for what was begun to be undone; what takes longer is undone beside it.
const UNDO_FIRST: Duration = Duration::from_millis(50);
/// How long the interpreter's exit waits for it then.
const UNDO_AT_EXIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What is being undone.
static UNDOING: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Runs `work` on a thread of its own and returns what it returns.
///
/// If a signal's handler raises meanwhile (Ctrl-C), that is raised at once, and `work`, which must be bounded, ends by
/// itself.
pub(crate) fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    run(py, work, None::<fn()>)
}

/// As [`interruptible`], for work that must not be left half done: a signal makes it end by `abandon`, and what it made
/// all the same is dropped, before the interpreter exits.
pub(crate) fn undoable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    abandon: impl FnOnce(),
) -> PyResult<T> {
    run(py, work, Some(abandon))
}

fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    abandon: Option<impl FnOnce()>,
) -> PyResult<T> {
    let (sender, mut result) = sync_channel(1);
    // If nobody takes the result any more, it is dropped there.
    let thread = thread::Builder::new().name("acms call".to_owned()).spawn(move || drop(sender.send(work())))?;
    loop {
        let waited;
        (waited, result) = py.detach(move || (result.recv_timeout(SIGNALS_EVERY), result));
        match waited {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("a call of acms panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = py.check_signals() {
            if let Some(abandon) = abandon {
                abandon();
                drop(result);
                undo(py, thread)?;
            }
            return Err(raised);
        }
    }
}

/// Waits a moment for the thread's end; if it takes longer, the interpreter's exit waits for it.
fn undo(py: Python<'_>, thread: JoinHandle<()>) -> PyResult<()> {
    let thread = py.detach(|| {
        wait(UNDO_FIRST, || thread.is_finished());
        thread
    });
    if thread.is_finished() {
        return Ok(());
    }
    UNDOING.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    let at_exit = |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        arguments.py().detach(|| {
            let undoing = std::mem::take(&mut *UNDOING.lock().unwrap_or_else(PoisonError::into_inner));
            wait(UNDO_AT_EXIT, || undoing.iter().all(JoinHandle::is_finished));
        });
    };
    let at_exit = PyCFunction::new_closure(py, None, None, at_exit)?;
    py.import("atexit")?.call_method1("register", (at_exit,)).map(drop)
}

fn wait(at_most: Duration, done: impl Fn() -> bool) {
    let mut waited = Duration::ZERO;
    while !done() && waited < at_most {
        thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
}
