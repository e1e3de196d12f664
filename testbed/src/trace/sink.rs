//! Where the events of a run go as they happen.

use super::{Event, Trace};

/// Takes the events of a run, one by one, in the order of their times.
pub trait Sink {
    /// The next event; its time is not before the last one's.
    fn record(&mut self, event: Event);
}

impl Sink for Vec<Event> {
    fn record(&mut self, event: Event) {
        self.push(event);
    }
}

/// Panics if the event is earlier than the last one.
impl Sink for Trace {
    fn record(&mut self, event: Event) {
        assert!(
            self.events.last().is_none_or(|last| last.time_ns <= event.time_ns),
            "not in the order of time: {event}"
        );
        self.events.push(event);
    }
}

/// Each event goes to both.
impl<A: Sink, B: Sink> Sink for (A, B) {
    fn record(&mut self, event: Event) {
        self.0.record(event.clone());
        self.1.record(event);
    }
}

impl<S: Sink + ?Sized> Sink for &mut S {
    fn record(&mut self, event: Event) {
        (**self).record(event);
    }
}
