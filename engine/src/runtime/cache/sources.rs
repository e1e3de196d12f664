//! Which of the sources is asked: the same one until it fails, so that cursors go on meaning something; then the next one
//! that is not known to be down.

use crate::{
    client::Url,
    protocol::{Duration, Hash, Instant, random::Random},
};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A source as it is known here.
#[derive(Clone, Copy, Debug)]
pub(super) struct SourceState {
    pub(super) failures_total: u64,
    down_until: Option<Instant>,
    backoff: Duration,
}

impl SourceState {
    /// Whether it is to be asked.
    pub(super) fn is_up(&self, now: Instant) -> bool {
        self.down_until.is_none_or(|until| until <= now)
    }
}

/// All sources.
#[derive(Debug)]
pub(super) struct Sources {
    states: Vec<SourceState>,
    /// Numbers of the sources in the order of preference, which differs from cache to cache.
    order: Vec<usize>,
    /// Place of the current one in that order.
    at: usize,
    random: Random,
}

impl Sources {
    /// None has failed yet. `name`: of this cache.
    pub(super) fn new(name: &str, urls: &[Url], seed: u64) -> Sources {
        let mut order: Vec<usize> = (0..urls.len()).collect();
        order.sort_by_cached_key(|number| Hash::of(format!("{name}\0{}", urls[*number]).as_bytes()));
        let state = SourceState { failures_total: 0, down_until: None, backoff: BACKOFF_MIN };
        Sources { states: vec![state; urls.len()], order, at: 0, random: Random::new(seed) }
    }

    /// A number for the name of another copy: few, so that caches keep few, and not always the same.
    pub(super) fn draw_copy(&mut self) -> u64 {
        1 + self.random.below(1 << 16)
    }

    /// The number of the current source.
    pub(super) fn current(&self) -> usize {
        self.order[self.at]
    }

    /// All of them, by number.
    pub(super) fn states(&self) -> &[SourceState] {
        &self.states
    }

    /// Whom to ask who is not among `tried`.
    pub(super) fn choose(&self, now: Instant, tried: &[usize]) -> Option<usize> {
        let from_current = self.order.iter().cycle().skip(self.at).take(self.order.len());
        from_current.copied().find(|number| !tried.contains(number) && self.states[*number].is_up(now))
    }

    /// A source has answered.
    pub(super) fn succeeded(&mut self, number: usize) {
        let state = &mut self.states[number];
        (state.down_until, state.backoff) = (None, BACKOFF_MIN);
    }

    /// A source has failed: it is left alone for a while, decorrelated between caches. Whether it was the current one.
    pub(super) fn failed(&mut self, number: usize, now: Instant) -> bool {
        let state = &mut self.states[number];
        state.failures_total += 1;
        // Requests that were under way together fail together: that is one failure.
        if state.is_up(now) {
            let room = (state.backoff * 3).saturating_sub(BACKOFF_MIN).as_micros() as u64;
            let backoff = BACKOFF_MIN + Duration::from_micros(self.random.below(room + 1));
            state.backoff = backoff.min(BACKOFF_MAX);
            state.down_until = Some(now.after(state.backoff));
        }
        let was_current = self.current() == number;
        if was_current {
            self.at = (self.at + 1) % self.order.len();
        }
        was_current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(count: u16) -> Vec<Url> {
        (0..count).map(|n| format!("http://127.0.0.1:{}", 1000 + n).parse().unwrap()).collect()
    }

    #[test]
    fn the_current_source_is_asked_until_it_fails_and_then_left_alone_for_a_while() {
        let mut now = Instant(1_000_000_000);
        let mut sources = Sources::new("cache", &urls(3), 1);
        let first = sources.choose(now, &[]).unwrap();
        assert_eq!(first, sources.current());
        let second = sources.choose(now, &[first]).unwrap();
        assert!(sources.failed(first, now));
        assert_eq!((sources.choose(now, &[]), sources.current()), (Some(second), second));
        let third = sources.choose(now, &[second]).unwrap();
        assert!(sources.failed(second, now) && sources.failed(third, now));
        assert_eq!(sources.choose(now, &[]), None, "all are down");
        now = now.after(BACKOFF_MAX);
        assert_eq!(sources.choose(now, &[]), Some(first));
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            sources.failed(first, now);
            let until = sources.states()[first].down_until.unwrap();
            longest = longest.max(until.since(now));
            now = until;
        }
        assert!(longest > Duration::from_secs(1) && longest <= BACKOFF_MAX, "{longest:?}");
        sources.succeeded(first);
        assert!(sources.states()[first].is_up(now));
    }

    #[test]
    fn caches_spread_over_the_sources() {
        let urls = urls(5);
        let first = |n: u32| Sources::new(&format!("cache {n}"), &urls, 0).current();
        let mut counts = [0; 5];
        (0..500).for_each(|n| counts[first(n)] += 1);
        assert!(counts.iter().all(|count| (60..150).contains(count)), "{counts:?}");
    }
}
