//! The maintenance thread: checkpoints and compaction, in steps, beside the commit thread.

use crate::{
    protocol::Duration,
    runtime::{
        clock,
        storage_point::{
            commit::Copies,
            completion::{Completion, Completions},
            upkeep::{Turn, Upkeep},
        },
    },
    store::{DirStorage, Maintenance, StoreFigures},
};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// The way to the maintenance thread.
#[derive(Debug)]
pub(super) struct MaintenanceThread {
    stop: Sender<()>,
    figures: Arc<Mutex<StoreFigures>>,
    thread: JoinHandle<Upkeep<DirStorage>>,
}

impl MaintenanceThread {
    /// Moves contents by `copy`, which hands them to the commit thread; false: that has ended.
    pub(super) fn start(
        maintenance: Maintenance<DirStorage>,
        copy: impl Fn(Copies) -> bool + Send + 'static,
        completions: Completions,
    ) -> io::Result<MaintenanceThread> {
        let (stop, stopped) = channel();
        let figures = Arc::new(Mutex::new(maintenance.figures()));
        let theirs = Arc::clone(&figures);
        let mut upkeep = Upkeep::new(maintenance);
        let thread = thread::Builder::new().name("maintenance".into()).spawn(move || {
            run(&mut upkeep, &stopped, &theirs, &copy, &completions);
            upkeep
        })?;
        Ok(MaintenanceThread { stop, figures, thread })
    }

    /// Numbers for status and metrics.
    pub(super) fn figures(&self) -> StoreFigures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the thread. `None`: it has panicked.
    pub(super) fn stop(self) -> Option<Upkeep<DirStorage>> {
        drop(self.stop);
        self.thread.join().ok()
    }
}

fn run(
    upkeep: &mut Upkeep<DirStorage>,
    stopped: &Receiver<()>,
    figures: &Mutex<StoreFigures>,
    copy: &impl Fn(Copies) -> bool,
    completions: &Completions,
) {
    loop {
        let now = clock::monotonic();
        let mut turn = upkeep.turn(now);
        for (hash, size) in upkeep.take_corrupt() {
            completions.send(Completion::Damaged { hash, size });
        }
        if let Turn::Copy(copies) = turn {
            let (sender, copied) = channel();
            // Without an answer the commit thread has ended, and says why itself.
            let Some(Ok(result)) = copy((copies, sender)).then(|| copied.recv()) else { return };
            turn = upkeep.copied(now, result);
        }
        *figures.lock().unwrap_or_else(PoisonError::into_inner) = upkeep.figures();
        let wait = match turn {
            Turn::At(at) => at.since(now),
            Turn::Again | Turn::Copy(_) => Duration::ZERO,
        };
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}
