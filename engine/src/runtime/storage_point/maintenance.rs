//! The maintenance thread: checkpoints and compaction, in steps, beside the commit thread.

use crate::{
    protocol::durable::InlineContent,
    runtime::clock,
    store::{DirStorage, Maintenance, Step, StoreError, StoreFigures},
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// What was committed is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Contents to be committed, and whether they were.
pub(super) type Copies = (Vec<InlineContent>, Sender<Result<(), StoreError>>);

/// The way to the maintenance thread.
#[derive(Debug)]
pub(super) struct MaintenanceThread {
    stop: Sender<()>,
    figures: Arc<Mutex<StoreFigures>>,
    thread: JoinHandle<Maintenance<DirStorage>>,
}

impl MaintenanceThread {
    /// Moves contents by `copy`, which hands them to the commit thread; false: that has ended.
    pub(super) fn start(
        mut maintenance: Maintenance<DirStorage>,
        copy: impl Fn(Copies) -> bool + Send + 'static,
    ) -> io::Result<MaintenanceThread> {
        let (stop, stopped) = channel();
        let figures = Arc::new(Mutex::new(maintenance.figures()));
        let theirs = Arc::clone(&figures);
        let thread = thread::Builder::new().name("maintenance".into()).spawn(move || {
            run(&mut maintenance, &stopped, &theirs, &copy);
            maintenance
        })?;
        Ok(MaintenanceThread { stop, figures, thread })
    }

    /// Numbers for status and metrics.
    pub(super) fn figures(&self) -> StoreFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread. `None`: it has panicked.
    pub(super) fn stop(self) -> Option<Maintenance<DirStorage>> {
        drop(self.stop);
        self.thread.join().ok()
    }
}

fn run(
    maintenance: &mut Maintenance<DirStorage>,
    stopped: &Receiver<()>,
    figures: &Mutex<StoreFigures>,
    copy: &impl Fn(Copies) -> bool,
) {
    loop {
        let now = clock::monotonic();
        let wait = match maintenance.step(now) {
            Ok(Step::Again) => Duration::ZERO,
            Ok(Step::Wait(until)) => until.since(now).min(LOOK_EVERY),
            Ok(Step::Copy(copies)) => {
                let (sender, copied) = channel();
                match copy((copies, sender)).then(|| copied.recv()) {
                    Some(Ok(Ok(()))) => Duration::ZERO,
                    Some(Ok(Err(error))) => {
                        tracing::warn!("the store is not compacted: {error}");
                        maintenance.pause(now);
                        LOOK_EVERY
                    }
                    // The commit thread has ended, and says why itself.
                    _ => return,
                }
            }
            Err(error) => {
                tracing::warn!("no checkpoint, compaction or reuse of the log's segments: {error}");
                LOOK_EVERY
            }
        };
        *figures.lock().unwrap_or_else(PoisonError::into_inner) = maintenance.figures();
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}
