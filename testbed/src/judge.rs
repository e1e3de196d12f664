//! Judges a run while it goes on: every check, all metrics and the trace's hash, in one pass over the events.

use crate::{
    checks::{CheckReport, Checks},
    facts::Facts,
    metrics::{Meter, Metrics},
    trace::{Event, Sink, Text, Trace, TraceHasher},
};
use acms_engine::protocol::Hash;
use std::collections::BTreeMap;

/// Takes the events of a run in the order of time, and judges them.
#[derive(Debug)]
pub struct Judge {
    facts: Facts,
    checks: Checks,
    meter: Meter,
    hasher: TraceHasher,
    events: u64,
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

    /// The checks that did not hold.
    pub fn broken(&self) -> impl Iterator<Item = &CheckReport> {
        self.checks.iter().filter(|check| !check.held)
    }
}

impl Default for Judge {
    fn default() -> Judge {
        Judge::new()
    }
}

impl Judge {
    /// Has seen nothing.
    pub fn new() -> Judge {
        Judge {
            facts: Facts::new(),
            checks: Checks::default(),
            meter: Meter::default(),
            hasher: TraceHasher::default(),
            events: 0,
            replay: None,
        }
    }

    /// Judges a trace that is at hand as a whole.
    pub fn of(trace: &Trace) -> Verdict {
        let mut judge = Judge::new();
        trace.events().iter().for_each(|event| judge.observe(event));
        judge.finish()
    }

    /// Violations name this command (an empty one: none); without it, one made of the trace's own `config` events.
    #[must_use]
    pub fn replayed_by(mut self, command: impl Into<String>) -> Judge {
        self.replay = Some(command.into());
        self
    }

    /// Hosts stand in these regions, which a trace does not tell.
    #[must_use]
    pub fn in_regions(mut self, regions: BTreeMap<Text, Text>) -> Judge {
        self.meter = Meter::in_regions(regions);
        self
    }

    /// The next event. Panics if it is earlier than the last one.
    pub fn observe(&mut self, event: &Event) {
        assert!(event.time_ns >= self.facts.now_ns, "not in the order of time: {event}");
        self.events += 1;
        self.hasher.update(event);
        let seen = self.facts.see(event);
        self.checks.observe(&seen, &self.facts);
        self.meter.observe(&seen, &self.facts);
    }

    /// The end of the run.
    pub fn finish(mut self) -> Verdict {
        self.facts.finish();
        let (mut checks, measured) = self.checks.finish(&self.facts);
        let settings = &self.facts.settings;
        let command = self.replay.or_else(|| settings.replay());
        for check in &mut checks {
            check.add_replay(settings.seed.as_deref(), command.as_deref());
            if let Some(bad) = &settings.bad {
                check.note.get_or_insert_with(|| bad.clone());
            }
        }
        let metrics = self.meter.finish(&self.facts, &measured);
        Verdict { checks, metrics, hash: self.hasher.finish(), events: self.events }
    }
}

impl Sink for Judge {
    /// Panics if the event is earlier than the last one.
    fn record(&mut self, event: Event) {
        self.observe(&event);
    }
}
