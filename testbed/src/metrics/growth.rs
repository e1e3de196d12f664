//! Counters that a run tells at the beginning of each phase.

use std::collections::BTreeMap;

/// The figures of a cause such as `arrived=900 late=1`.
pub(super) fn figures(cause: &str) -> impl Iterator<Item = (&str, u64)> {
    let words = cause.split(' ').filter_map(|word| word.split_once('='));
    words.filter_map(|(name, value)| Some((name, value.parse().ok()?)))
}

/// How much each has grown since the updates began.
#[derive(Debug, Default)]
pub(super) struct Growth {
    has_begun: bool,
    first: BTreeMap<String, u64>,
    last: BTreeMap<String, u64>,
}

impl Growth {
    /// Takes figures such as `arrived=900 late=1`, told before the updates or, from the moment of their beginning, since.
    pub(super) fn take(&mut self, figures: &str, in_updates: bool) {
        self.last = self::figures(figures).map(|(name, value)| (name.to_owned(), value)).collect();
        if !std::mem::replace(&mut self.has_begun, in_updates) {
            self.first = self.last.clone();
        }
    }

    /// By how much one has grown.
    pub(super) fn of(&self, name: &str) -> u64 {
        let first = self.first.get(name).copied().unwrap_or(0);
        self.last(name).saturating_sub(first)
    }

    /// What it was told to be last.
    pub(super) fn last(&self, name: &str) -> u64 {
        self.last.get(name).copied().unwrap_or(0)
    }
}
