//! Says when a receiver has become stale: its as-of is further behind the wall clock than it may be.

use crate::protocol::{Duration, Instant, Micros, Now};

/// A change of state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// What was accepted since its as-of may be missing for longer than allowed.
    Stale,
    /// No more.
    Fresh,
}

/// The alarm of one receiver.
#[derive(Debug)]
pub(super) struct Alarm {
    after: Duration,
    /// The last as-of; at first the start, so that a receiver has its time to come to anything.
    as_of: Micros,
    is_stale: bool,
    /// When to look.
    at: Option<Instant>,
}

impl Alarm {
    pub(super) fn new(after: Duration, now: Now) -> Alarm {
        Alarm { after, as_of: now.wall, is_stale: false, at: Some(now.instant.after(after)) }
    }

    /// When [`look`](Alarm::look) is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// How old the as-of is.
    pub(super) fn age(&self, now: Now) -> Duration {
        Duration::from_micros(now.wall.0.saturating_sub(self.as_of.0))
    }

    /// The receiver's as-of is this now.
    pub(super) fn note(&mut self, now: Now, as_of_us: u64) -> Option<Turn> {
        self.as_of = Micros(as_of_us);
        self.look(now)
    }

    /// Compares as-of and clock. Clocks may jump: what counts is how they stand now.
    pub(super) fn look(&mut self, now: Now) -> Option<Turn> {
        let age = self.age(now);
        let is_stale = age >= self.after;
        self.at = (!is_stale).then(|| now.instant.after(self.after.saturating_sub(age)));
        match (std::mem::replace(&mut self.is_stale, is_stale), is_stale) {
            (false, true) => Some(Turn::Stale),
            (true, false) => Some(Turn::Fresh),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_of_that_stands_still_is_told_once_and_so_is_that_it_goes_on() {
        let at = |seconds: u64| Now { instant: Instant(seconds * 1_000_000_000), wall: Micros(seconds * 1_000_000) };
        let mut alarm = Alarm::new(Duration::from_secs(60), at(1_000));
        assert_eq!(alarm.due(), Some(at(1_060).instant));
        assert_eq!(alarm.note(at(1_030), 1_020_000_000), None);
        assert_eq!(alarm.due(), Some(at(1_080).instant));
        assert_eq!(alarm.look(at(1_079)), None);
        assert_eq!(alarm.look(at(1_080)), Some(Turn::Stale));
        assert_eq!((alarm.look(at(1_090)), alarm.due()), (None, None));
        // What is still too old changes nothing.
        assert_eq!(alarm.note(at(1_100), 1_030_000_000), None);
        assert_eq!(alarm.note(at(1_100), 1_099_000_000), Some(Turn::Fresh));
        assert_eq!(alarm.due(), Some(at(1_159).instant));
    }
}
