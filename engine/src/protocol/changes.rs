//! What changed when: the feed that cursors point into.
//!
//! Of each path the last change is kept, for a while and within a bound of memory. A cursor older than that is told
//! to walk the tree.

use crate::{
    mutant::{self, Mutant},
    protocol::{Duration, Instant, Path, Prefix},
};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that a kept change costs beside its path.
const COST: usize = 160;

/// The changes of the last while.
#[derive(Debug)]
pub struct ChangeFeed {
    current: u64,
    oldest: u64,
    minted_at: Instant,
    by_sequence: BTreeMap<(u64, Path), ()>,
    of_path: BTreeMap<Path, u64>,
    mintings: VecDeque<(u64, Instant)>,
    bytes: usize,
    kept: Duration,
    bytes_max: usize,
}

impl ChangeFeed {
    /// Empty; changes are kept for `kept` and within `bytes_max`.
    pub fn new(now: Instant, kept: Duration, bytes_max: usize) -> ChangeFeed {
        ChangeFeed {
            current: 1,
            oldest: 1,
            minted_at: now,
            by_sequence: BTreeMap::new(),
            of_path: BTreeMap::new(),
            mintings: VecDeque::new(),
            bytes: 0,
            kept,
            bytes_max,
        }
    }

    /// The last sequence.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// When it was minted.
    pub fn minted_at(&self) -> Instant {
        self.minted_at
    }

    /// Mints a sequence, at which `paths` changed.
    pub fn mint(&mut self, now: Instant, paths: &[Path]) -> u64 {
        self.current += 1;
        self.minted_at = now;
        for path in paths {
            if let Some(earlier) = self.of_path.insert(path.clone(), self.current) {
                self.forget(earlier, path);
            }
            if self.by_sequence.insert((self.current, path.clone()), ()).is_none() {
                self.bytes += COST + path.as_str().len();
            }
        }
        self.mintings.push_back((self.current, now));
        self.expire(now);
        self.current
    }

    /// Whether all changes after `sequence` are here.
    pub fn reaches(&self, sequence: u64) -> bool {
        (self.oldest..=self.current).contains(&sequence)
    }

    /// Paths that concern `prefix` and changed after `sequence`.
    pub fn since<'a>(&'a self, sequence: u64, prefix: &'a Prefix) -> impl Iterator<Item = &'a Path> {
        let first = self.by_sequence.iter().rev().take_while(move |((at, _), ())| *at > sequence);
        let concerned = first.map(|((_, path), ())| path).filter(|path| prefix.concerns(path));
        concerned.skip(usize::from(mutant::active(Mutant::CursorSkipsEntry) && self.changed_since(sequence) > 1))
    }

    fn changed_since(&self, sequence: u64) -> usize {
        self.by_sequence.iter().rev().take_while(|((at, _), ())| *at > sequence).take(2).count()
    }

    fn forget(&mut self, sequence: u64, path: &Path) {
        if self.by_sequence.remove(&(sequence, path.clone())).is_some() {
            self.bytes -= COST + path.as_str().len();
        }
    }

    fn expire(&mut self, now: Instant) {
        while let Some(&(sequence, at)) = self.mintings.front() {
            if now.since(at) <= self.kept && self.bytes <= self.bytes_max {
                return;
            }
            self.mintings.pop_front();
            self.oldest = sequence;
            while let Some(entry) = self.by_sequence.first_entry() {
                if entry.key().0 > sequence {
                    break;
                }
                let ((_, path), ()) = entry.remove_entry();
                self.bytes -= COST + path.as_str().len();
                self.of_path.remove(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        text.parse().expect("a path")
    }

    fn since(feed: &ChangeFeed, sequence: u64, prefix: &str) -> Vec<String> {
        let prefix = prefix.parse().expect("a prefix");
        let mut paths: Vec<String> = feed.since(sequence, &prefix).map(ToString::to_string).collect();
        paths.sort();
        paths
    }

    #[test]
    fn of_each_path_the_last_change_is_kept() {
        let mut feed = ChangeFeed::new(Instant(0), Duration::from_secs(90), 1 << 20);
        let start = feed.current();
        feed.mint(Instant(1), &[path("a/x"), path("b")]);
        let middle = feed.current();
        feed.mint(Instant(2), &[path("a/x")]);
        assert_eq!(since(&feed, start, ""), ["a/x", "b"]);
        assert_eq!(since(&feed, middle, ""), ["a/x"]);
        assert_eq!(since(&feed, start, "b"), ["b"]);
        assert_eq!(since(&feed, feed.current(), ""), Vec::<String>::new());
    }

    #[test]
    fn a_file_above_a_prefix_concerns_it() {
        let mut feed = ChangeFeed::new(Instant(0), Duration::from_secs(90), 1 << 20);
        let start = feed.current();
        feed.mint(Instant(1), &[path("a"), path("ab")]);
        assert_eq!(since(&feed, start, "a/b"), ["a"]);
    }

    #[test]
    fn old_cursors_no_longer_reach() {
        let mut feed = ChangeFeed::new(Instant(0), Duration::from_secs(1), 1 << 20);
        let start = feed.current();
        feed.mint(Instant(0), &[path("a")]);
        let first = feed.current();
        feed.mint(Instant(3_000_000_000), &[path("b")]);
        assert!(!feed.reaches(start));
        assert!(feed.reaches(first), "everything after it is still here");
        assert_eq!(since(&feed, first, ""), ["b"]);
        assert!(!feed.reaches(feed.current() + 1), "a cursor ahead means nothing here");
    }

    #[test]
    fn memory_is_bounded() {
        let mut feed = ChangeFeed::new(Instant(0), Duration::from_secs(90), 1_000);
        for i in 0..100 {
            feed.mint(Instant(i), &[path(&format!("f{i}"))]);
        }
        assert!(feed.bytes <= 1_000);
        assert!(!feed.reaches(1));
        assert!(feed.reaches(feed.current()));
    }
}
