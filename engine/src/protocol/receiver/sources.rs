//! Which source a receiver turns to, and when.

use crate::protocol::{Duration, Hash, random::Random};

/// First and smallest back-off.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Greatest back-off (promise P6 counts on it).
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The sources in this receiver's own order.
#[derive(Debug)]
pub(super) struct Sources {
    order: Vec<usize>,
    at: usize,
    backoff: Duration,
}

impl Sources {
    /// Orders `sources` by rendezvous hashing: every receiver has its own order, and the loss of a source spreads its
    /// receivers over all others.
    pub(super) fn new(id: &str, sources: &[String]) -> Sources {
        let weight = |source: &String| Hash::of(format!("{id}\0{source}").as_bytes());
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_cached_key(|at| std::cmp::Reverse(weight(&sources[*at])));
        Sources { order, at: 0, backoff: BACKOFF_MIN }
    }

    /// The source of choice.
    pub(super) fn current(&self) -> usize {
        self.order[self.at]
    }

    /// All of them, the best first.
    pub(super) fn order(&self) -> &[usize] {
        &self.order
    }

    /// Another one is to be the current one.
    pub(super) fn turn_to(&mut self, source: usize) {
        self.at = self.order.iter().position(|other| *other == source).unwrap_or(self.at);
    }

    /// The current one is of no use: goes on to the next and says how long to wait before (decorrelated jitter).
    pub(super) fn fail(&mut self, random: &mut Random) -> Duration {
        self.at = (self.at + 1) % self.order.len();
        let span = (self.backoff * 3).saturating_sub(BACKOFF_MIN).as_micros() as u64;
        let drawn = BACKOFF_MIN + Duration::from_micros(random.below(span + 1));
        self.backoff = drawn.min(BACKOFF_MAX);
        self.backoff
    }

    /// The current one has proved useful.
    pub(super) fn succeed(&mut self) {
        self.backoff = BACKOFF_MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|i| format!("http://127.0.0.{i}:7400")).collect()
    }

    #[test]
    fn a_fleet_spreads_and_a_lost_sources_share_spreads_too() {
        let sources = names(5);
        let (mut first, mut second_after_0) = ([0; 5], [0; 5]);
        for i in 0..1_000 {
            let chosen = Sources::new(&format!("r{i}"), &sources);
            first[chosen.order[0]] += 1;
            if chosen.order[0] == 0 {
                second_after_0[chosen.order[1]] += 1;
            }
        }
        assert!(first.iter().all(|count| (140..=260).contains(count)), "{first:?}");
        assert!(second_after_0[1..].iter().all(|count| *count >= 25), "{second_after_0:?}");
    }

    #[test]
    fn back_off_grows_to_its_bound_and_starts_again() {
        let (mut sources, mut random) = (Sources::new("r", &names(2)), Random::new(1));
        let waits: Vec<Duration> = (0..200).map(|_| sources.fail(&mut random)).collect();
        assert!(waits[0] <= Duration::from_millis(150));
        assert!(waits.iter().all(|wait| (BACKOFF_MIN..=BACKOFF_MAX).contains(wait)));
        assert!(waits.contains(&BACKOFF_MAX));
        sources.succeed();
        assert!(sources.fail(&mut random) <= Duration::from_millis(150));
    }
}
