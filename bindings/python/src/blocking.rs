//! Calls that may take long: the interpreter goes on meanwhile, and Ctrl-C is seen.

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use std::{
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::Duration,
};

const SIGNALS_EVERY: Duration = Duration::from_millis(50);
/// How long what was begun has to be undone before the interpreter goes on and may exit.
const UNDO: Duration = Duration::from_secs(5);

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
/// all the same is dropped before the exception is raised.
pub(crate) fn undoable<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    abandon: impl FnOnce() + Send,
) -> PyResult<T> {
    run(py, work, Some(abandon))
}

fn run<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
    abandon: Option<impl FnOnce() + Send>,
) -> PyResult<T> {
    let (sender, mut result) = sync_channel(1);
    // Nobody may be there to take the result any more.
    thread::Builder::new().name("acms call".to_owned()).spawn(move || drop(sender.send(work())))?;
    loop {
        let waited;
        (waited, result) = py.detach(|| (result.recv_timeout(SIGNALS_EVERY), result));
        match waited {
            Ok(value) => return Ok(value),
            Err(RecvTimeoutError::Disconnected) => return Err(PyRuntimeError::new_err("a call of acms panicked")),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Err(raised) = py.check_signals() {
            if let Some(abandon) = abandon {
                py.detach(move || {
                    abandon();
                    drop(result.recv_timeout(UNDO));
                });
            }
            return Err(raised);
        }
    }
}
