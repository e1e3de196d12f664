//! Pacing of commits: when much waits, a commit that begins a little later carries more.

use std::time::{Duration, Instant};

/// Spaces out the commits of a busy log.
#[derive(Clone, Debug)]
pub struct Pacer {
    interval: Duration,
    waiting_min: usize,
    last: Option<Instant>,
}

impl Default for Pacer {
    /// About 1,500 commits a second once 8 records wait.
    fn default() -> Pacer {
        Pacer::new(Duration::from_micros(667), 8)
    }
}

impl Pacer {
    /// Commits begin at least `interval` apart while `waiting_min` or more records wait.
    pub fn new(interval: Duration, waiting_min: usize) -> Pacer {
        Pacer { interval, waiting_min, last: None }
    }

    /// How long to go on gathering before the next commit, given how many records wait.
    pub fn delay(&self, now: Instant, waiting: usize) -> Duration {
        match self.last {
            Some(last) if waiting >= self.waiting_min => self.interval.saturating_sub(now.duration_since(last)),
            _ => Duration::ZERO,
        }
    }

    /// A commit begins.
    pub fn begun(&mut self, now: Instant) {
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_busy_log_is_paced() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Duration::from_millis(1), 8);
        assert_eq!(pacer.delay(start, 100), Duration::ZERO);
        pacer.begun(start);
        assert_eq!(pacer.delay(start, 7), Duration::ZERO);
        assert_eq!(pacer.delay(start + Duration::from_micros(400), 8), Duration::from_micros(600));
        assert_eq!(pacer.delay(start + Duration::from_millis(2), 8), Duration::ZERO);
    }
}
