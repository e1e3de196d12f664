//! Which of a receiver's first few sources is the nearest. Now and then each is asked for its snapshot, one after the
//! other, and the time that this takes is compared. Nothing else depends on the answers.

use crate::protocol::{Duration, api::Snapshot, random::Random};
use std::collections::VecDeque;

/// So many sources of a receiver's order are compared, and the one that it follows.
const SOURCES_MAX: usize = 3;
/// The first time of a source may have a connection made for it.
const TIMES: usize = 2;
/// A source is nearer if it takes less than 3/4 of the time, and this much less: others are as good, and moving costs.
const NEARER_BY: Duration = Duration::from_millis(1);
/// A source whose as-of is this much behind another's is cut off, however near it is.
const BEHIND_US: u64 = 10_000_000;
/// Time until the first look, once something is reached.
const SOON: Duration = Duration::from_secs(1);
/// Time between two looks.
const AGAIN: Duration = Duration::from_secs(600);

/// Time until the next look, drawn so that a fleet does not look all at once.
pub(super) fn wait(random: &mut Random, is_first: bool) -> Duration {
    let least = if is_first { SOON } else { AGAIN };
    least + Duration::from_micros(random.below(least.as_micros() as u64 + 1))
}

#[derive(Clone, Debug)]
struct Measured {
    source: usize,
    took: Duration,
    as_of_us: u64,
}

/// A look at several sources.
#[derive(Debug)]
pub(super) struct Look {
    current: usize,
    /// Sources to ask, each as often as it is named.
    left: VecDeque<usize>,
    measured: Vec<Measured>,
}

impl Look {
    /// At the first few of `order`, by one who follows `current`.
    pub(super) fn new(order: &[usize], current: usize) -> Look {
        let few = order.iter().copied().take(SOURCES_MAX).filter(|source| *source != current);
        let left = std::iter::once(current).chain(few).flat_map(|source| [source; TIMES]).collect();
        Look { current, left, measured: Vec::new() }
    }

    /// The next source to ask for its snapshot.
    pub(super) fn next(&mut self) -> Option<usize> {
        self.left.pop_front()
    }

    /// A source has answered.
    pub(super) fn answered(&mut self, source: usize, took: Duration, snapshot: &Snapshot) {
        let as_of_us = snapshot.as_of_us;
        match self.measured.iter_mut().find(|measured| measured.source == source) {
            Some(measured) => {
                measured.took = measured.took.min(took);
                measured.as_of_us = measured.as_of_us.max(as_of_us);
            }
            None => self.measured.push(Measured { source, took, as_of_us }),
        }
    }

    /// A source is of no use now.
    pub(super) fn failed(&mut self, source: usize) {
        self.left.retain(|left| *left != source);
        self.measured.retain(|measured| measured.source != source);
    }

    /// The source to move to, once all have been asked. One that does not answer itself is left when a request fails,
    /// not here.
    pub(super) fn better(&self) -> Option<usize> {
        let current = self.measured.iter().find(|measured| measured.source == self.current)?;
        let newest = self.measured.iter().map(|measured| measured.as_of_us).max()?;
        let is_fresh = |measured: &&Measured| measured.as_of_us.saturating_add(BEHIND_US) >= newest;
        let best = self.measured.iter().filter(is_fresh).min_by_key(|measured| measured.took)?;
        let nearer = best.took * 4 < current.took * 3 && best.took + NEARER_BY <= current.took;
        (best.source != self.current && (nearer || !is_fresh(&current))).then_some(best.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn better(answers: &[(usize, u64, u64)]) -> Option<usize> {
        let mut look = Look::new(&[2, 0, 1, 3], 3);
        let mut asked = Vec::new();
        while let Some(source) = look.next() {
            asked.push(source);
            match answers.iter().find(|(answering, ..)| *answering == source) {
                Some((_, took_ms, as_of_s)) => {
                    let snapshot = Snapshot {
                        cluster: "demo".into(),
                        sp: 1,
                        incarnation: Default::default(),
                        sequence: 1,
                        root: crate::protocol::Hash::of(b""),
                        as_of_us: as_of_s * 1_000_000,
                        issued_at_us: 0,
                    };
                    // The first time brings a handshake.
                    let handshake = if asked.iter().filter(|other| **other == source).count() == 1 { 2 } else { 1 };
                    look.answered(source, Duration::from_millis(took_ms * handshake), &snapshot);
                }
                None => look.failed(source),
            }
        }
        assert!(asked.starts_with(&[3]) && asked.iter().all(|source| [0, 1, 2, 3].contains(source)), "{asked:?}");
        look.better()
    }

    #[test]
    fn a_receiver_moves_to_what_is_clearly_nearer_or_not_cut_off() {
        assert_eq!(better(&[(3, 80, 100), (2, 50, 100), (0, 20, 100), (1, 90, 100)]), Some(0));
        assert_eq!(better(&[(3, 80, 100), (2, 70, 100), (0, 65, 100)]), None, "not clearly");
        assert_eq!(better(&[(3, 1, 100), (2, 0, 100)]), Some(2));
        assert_eq!(better(&[(3, 80, 100), (0, 20, 80), (1, 40, 95)]), Some(1), "source 0 is cut off");
        assert_eq!(better(&[(3, 10, 60), (0, 90, 100)]), Some(0), "what it follows is cut off");
        assert_eq!(better(&[(0, 20, 100)]), None, "what it follows does not answer: its requests will tell");
        assert_eq!(better(&[(3, 80, 100)]), None);
    }

    #[test]
    fn looks_are_spread() {
        let mut random = Random::new(1);
        for _ in 0..100 {
            assert!((SOON..=SOON * 2).contains(&wait(&mut random, true)));
            assert!((AGAIN..=AGAIN * 2).contains(&wait(&mut random, false)));
        }
    }
}
