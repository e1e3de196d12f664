//! Keeping a store's log short, as a loop: which step comes next, and when. A thread of the process walks it, and so does
//! the simulated storage point.

use crate::{
    protocol::{Duration, Hash, Instant, durable::InlineContent},
    store::{Maintenance, Step, Storage, StoreError, StoreFigures},
};

/// What was committed is looked at this often at least.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// The next turn, at once.
    Again,
    /// Commit these contents, then call [`Upkeep::copied`]; no turn before that.
    Copy(Vec<InlineContent>),
    /// The next turn, at this time.
    At(Instant),
}

/// The maintenance of a store, and what became of its last step.
pub struct Upkeep<S: Storage> {
    maintenance: Maintenance<S>,
}

impl<S: Storage> std::fmt::Debug for Upkeep<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("figures", &self.maintenance.figures()).finish_non_exhaustive()
    }
}

impl<S: Storage> Upkeep<S> {
    /// Of this store.
    pub fn new(maintenance: Maintenance<S>) -> Upkeep<S> {
        Upkeep { maintenance }
    }

    /// Takes a step. What goes wrong is tried again later, and nothing is lost by it.
    pub fn turn(&mut self, now: Instant) -> Turn {
        match self.maintenance.step(now) {
            Ok(Step::Again) => Turn::Again,
            Ok(Step::Copy(copies)) => Turn::Copy(copies),
            Ok(Step::Wait(until)) => Turn::At(until.min(now.after(LOOK_EVERY))),
            Err(error) => {
                tracing::warn!("no checkpoint, compaction or reuse of the log's segments: {error}");
                Turn::At(now.after(LOOK_EVERY))
            }
        }
    }

    /// The copies were committed, or why not.
    pub fn copied(&mut self, now: Instant, result: Result<(), StoreError>) -> Turn {
        match result {
            Ok(()) => Turn::Again,
            Err(error) => {
                tracing::warn!("the store is not compacted: {error}");
                self.maintenance.pause(now);
                Turn::At(now.after(LOOK_EVERY))
            }
        }
    }

    /// Contents that were found corrupt since the last call, with their bytes: the protocol has to hear of them.
    pub fn take_corrupt(&mut self) -> Vec<(Hash, u64)> {
        self.maintenance.take_corrupt()
    }

    /// Numbers for status and metrics.
    pub fn figures(&self) -> StoreFigures {
        self.maintenance.figures()
    }

    /// The process ends: see [`Maintenance::finish`].
    pub fn finish(&mut self, now: Instant) -> Result<(), StoreError> {
        self.maintenance.finish(now)
    }
}
