//! Judges a run while it goes on: every check, all metrics and the trace's hash, in one pass over the events.

use crate::{
    checks::{CheckReport, check_all},
    metrics::Metrics,
    trace::{Event, Sink, Trace},
};
use acms_engine::protocol::Hash;

/// Takes the events of a run in the order of time, and judges them.
#[derive(Default, Debug)]
pub struct Judge {
    trace: Trace,
    replay: Option<String>,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The promises.
    pub checks: Vec<CheckReport>,
    /// What was measured.
    pub metrics: Metrics,
    /// Names the trace.
    pub hash: Hash,
    /// How many events there were.
    pub events: u64,
}

impl Verdict {
    /// Whether every check held.
    pub fn held(&self) -> bool {
        self.checks.iter().all(|check| check.held)
    }
}

impl Judge {
    /// Has seen nothing.
    pub fn new() -> Judge {
        Judge::default()
    }

    /// Violations name this command; without it, one made of the trace's own `config` events.
    #[must_use]
    pub fn replayed_by(mut self, command: impl Into<String>) -> Judge {
        self.replay = Some(command.into());
        self
    }

    /// The end of the run.
    pub fn finish(self) -> Verdict {
        Verdict {
            checks: check_all(&self.trace),
            metrics: Metrics::of(&self.trace),
            hash: self.trace.hash(),
            events: self.trace.events().len() as u64,
        }
    }
}

impl Sink for Judge {
    /// Panics if the event is earlier than the last one.
    fn record(&mut self, event: Event) {
        self.trace.record(event);
    }
}
