//! The hybrid logical clock (after Lamport and Mattern) and its durable ceiling.
//!
//! Invariants: times that this SP takes grow strictly; none is at or above the ceiling, which is durable before any
//! message names one below it; after a restart the clock continues at the old ceiling.

use crate::protocol::{Duration, Micros};

/// How far above the clock a new ceiling is set ...
const RESERVE: Duration = Duration::from_secs(3);
/// ... and how little of that may be left before the next one is asked for.
const RESERVE_MIN: Duration = Duration::from_secs(1);

/// The clock that UIDs are taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HybridClock {
    last: Micros,
    ceiling_asked: Micros,
    ceiling: Micros,
}

impl HybridClock {
    /// Continues at the ceiling that the store recovered.
    pub fn recovered(ceiling: Micros) -> HybridClock {
        HybridClock { last: ceiling, ceiling_asked: ceiling, ceiling }
    }

    /// The greatest time taken or observed.
    pub fn last(&self) -> Micros {
        self.last
    }

    /// The time that a UID above `floor` would get now. Nothing moves.
    pub fn candidate(&self, wall: Micros, floor: Micros) -> Micros {
        wall.max(Micros(self.last.max(floor).0.saturating_add(1)))
    }

    /// Takes or observes `time`.
    pub fn advance(&mut self, time: Micros) {
        self.last = self.last.max(time);
    }

    /// A ceiling to make durable, if too little is left for times from `wall` on, or none for `last`.
    pub fn ceiling_to_ask(&mut self, wall: Micros) -> Option<Micros> {
        let from = wall.max(self.last);
        if self.ceiling_asked >= from.after(RESERVE_MIN) {
            return None;
        }
        self.ceiling_asked = from.after(RESERVE);
        Some(self.ceiling_asked)
    }

    /// `ceiling` is durable.
    pub fn ceiling_is_durable(&mut self, ceiling: Micros) {
        self.ceiling = self.ceiling.max(ceiling);
    }

    /// Whether a message may name `time`.
    pub fn may_name(&self, time: Micros) -> bool {
        time < self.ceiling
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_grow_whatever_the_wall_clock_says() {
        let mut clock = HybridClock::default();
        let mut last = Micros(0);
        for wall in [5, 5, 3, 100, 1, 1] {
            let time = clock.candidate(Micros(wall), Micros(0));
            assert!(time > last);
            clock.advance(time);
            last = time;
        }
    }

    #[test]
    fn a_candidate_moves_nothing() {
        let clock = HybridClock::default();
        assert_eq!(clock.candidate(Micros(10), Micros(50)), Micros(51));
        assert_eq!(clock.last(), Micros(0));
    }

    #[test]
    fn a_restart_continues_above_every_time_that_was_named() {
        let mut clock = HybridClock::default();
        let wall = Micros(1_000_000_000);
        let ceiling = clock.ceiling_to_ask(wall).expect("nothing is reserved yet");
        assert!(!clock.may_name(wall), "the ceiling is not durable yet");
        clock.ceiling_is_durable(ceiling);
        assert!(clock.may_name(wall));
        assert_eq!(clock.ceiling_to_ask(wall), None, "enough is left");
        let restarted = HybridClock::recovered(ceiling);
        assert!(restarted.candidate(Micros(0), Micros(0)) > ceiling);
    }
}
