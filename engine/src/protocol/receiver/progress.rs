//! How far a receiver has come: the last snapshot of which it holds all that it subscribes to.
//!
//! Invariant (P7): as-of never falls, also across restarts, as it is durable before it is said.

use super::io::{BatchId, Event, Output, Reached};
use crate::protocol::{Prefix, api::Snapshot};
use std::collections::VecDeque;

/// What is being made durable.
#[derive(Debug)]
struct Noting {
    batch: BatchId,
    /// The mark that the batch reaches if all of it is applied; none for a snapshot that was reached before.
    mark: Option<u64>,
    snapshot: Snapshot,
    /// The batch has no entries.
    is_alone: bool,
}

#[derive(Debug)]
pub(super) struct Progress {
    prefixes: Vec<Prefix>,
    as_of_us: u64,
    /// The last one that is durable.
    noted: Option<Snapshot>,
    /// Reached, and to be noted.
    pending: Option<Snapshot>,
    noting: Option<Noting>,
    /// The disk has refused: it is asked again later.
    pub(super) has_failed: bool,
}

impl Progress {
    /// Goes on where `recovered` ends. What was said of fewer paths than are subscribed to now says nothing of these.
    pub(super) fn new(prefixes: Vec<Prefix>, recovered: Option<Reached>) -> Progress {
        let covers = |reached: &Reached| {
            let covered = |prefix: &Prefix| reached.prefixes.iter().any(|before| before.covers(prefix.as_str()));
            prefixes.iter().all(covered)
        };
        let noted = recovered.filter(covers).map(|reached| reached.snapshot);
        let as_of_us = noted.as_ref().map_or(0, |snapshot| snapshot.as_of_us);
        Progress { prefixes, as_of_us, noted, pending: None, noting: None, has_failed: false }
    }

    /// Whether something is being made durable.
    pub(super) fn is_noting(&self) -> bool {
        self.noting.is_some()
    }

    /// The snapshot with the receiver's own as-of, which its own raises if it `may_rise`.
    fn with_own_as_of(&self, snapshot: Snapshot, may_rise: bool) -> Snapshot {
        let as_of_us = if may_rise { self.as_of_us.max(snapshot.as_of_us) } else { self.as_of_us };
        Snapshot { as_of_us, ..snapshot }
    }

    /// All of `snapshot` is applied.
    pub(super) fn reach(&mut self, snapshot: Snapshot, may_rise: bool, out: &mut VecDeque<Output>) {
        let snapshot = self.with_own_as_of(snapshot, may_rise);
        self.as_of_us = snapshot.as_of_us;
        let same = |noted: &Snapshot| (noted.cursor(), noted.as_of_us) == (snapshot.cursor(), snapshot.as_of_us);
        match self.noted.as_ref().is_some_and(same) && !self.is_noting() {
            true => out.push_back(Output::Event(Event::Current { snapshot })),
            false => self.pending = Some(snapshot),
        }
    }

    /// What `batch` makes durable with its last write: the mark that it reaches if all of it is applied, with its
    /// snapshot, or else what was reached before.
    pub(super) fn note_with(
        &mut self,
        batch: BatchId,
        foreseen: Option<(u64, Snapshot)>,
        may_rise: bool,
    ) -> Option<Reached> {
        let (mark, snapshot) = match foreseen {
            Some((mark, snapshot)) => (Some(mark), self.with_own_as_of(snapshot, may_rise)),
            None => (None, self.pending.take()?),
        };
        self.noting = Some(Noting { batch, mark, snapshot: snapshot.clone(), is_alone: false });
        Some(Reached { snapshot, prefixes: self.prefixes.clone() })
    }

    /// What was reached and waits to be noted, with a batch of no entries.
    pub(super) fn note_alone(&mut self, batch: BatchId) -> Option<Reached> {
        if self.has_failed {
            return None;
        }
        let reached = self.note_with(batch, None, false);
        self.noting.iter_mut().for_each(|noting| noting.is_alone = true);
        reached
    }

    /// `batch` is over. Says what it has made durable, if that is reached: `marks` were, by the batch.
    pub(super) fn noted(
        &mut self,
        batch: BatchId,
        is_noted: bool,
        marks: Vec<(u64, Snapshot)>,
        may_rise: bool,
        out: &mut VecDeque<Output>,
    ) {
        let noting = self.noting.take_if(|noting| noting.batch == batch);
        if let Some(Noting { snapshot, .. }) = noting.as_ref().filter(|_| is_noted) {
            self.noted = Some(snapshot.clone());
            self.has_failed = false;
        }
        let mut done = None;
        match noting {
            Some(Noting { mark, .. }) if is_noted && mark.is_some() => done = mark,
            Some(Noting { snapshot, .. }) if is_noted => out.push_back(Output::Event(Event::Current { snapshot })),
            Some(Noting { mark: None, snapshot, is_alone, .. }) => {
                self.has_failed = is_alone;
                self.pending.get_or_insert(snapshot);
            }
            _ => {}
        }
        // What came before the mark is said with it.
        let before = done.filter(|done| marks.iter().any(|(mark, _)| mark == done));
        if before.is_some() {
            self.pending = None;
        }
        for (mark, snapshot) in marks {
            if before.is_none_or(|before| mark >= before) {
                self.reach(snapshot, may_rise, out);
            }
        }
    }

    /// Says so without any right to.
    pub(super) fn say_wrongly(&mut self, snapshot: Snapshot, out: &mut VecDeque<Output>) {
        let snapshot = self.with_own_as_of(snapshot, true);
        self.as_of_us = snapshot.as_of_us;
        out.push_back(Output::Event(Event::Current { snapshot }));
    }
}
