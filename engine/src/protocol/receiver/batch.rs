//! Which entries are applied together, and which files they hide and reveal.
//!
//! Of two live paths where one is a proper prefix of the other, the one with the smaller UID is hidden.

use super::{
    holdings::{Holdings, Stuck, Supply, Want, ancestors, below},
    io::{Action, Applied, BatchId, Change, Content, Event, Held, Output, Presence},
};
use crate::protocol::{Path, Uid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most entries of a batch.
pub(super) const BATCH_COUNT_MAX: usize = 256;

/// A batch that is being applied.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) id: BatchId,
    changes: BTreeMap<Path, InBatch>,
}

#[derive(Debug)]
struct InBatch {
    entry: Held,
    removes: bool,
    /// None for a file that is only hidden by another one of the batch.
    want: Option<Want>,
}

impl Batch {
    /// What `path` will have.
    pub(super) fn entry(&self, path: &str) -> Option<&Held> {
        self.changes.get(path).map(|change| &change.entry)
    }

    /// The orders of its entries.
    pub(super) fn orders(&self) -> BTreeSet<u64> {
        self.changes.values().filter_map(|change| change.want.as_ref().map(|want| want.order)).collect()
    }

    /// Gives the entry of `path` another order; returns its order before, if it has one.
    pub(super) fn reorder(&mut self, path: &Path, order: u64) -> Option<u64> {
        let want = self.changes.get_mut(path)?.want.as_mut()?;
        want.again = true;
        Some(std::mem::replace(&mut want.order, order))
    }
}

impl<T> Holdings<T> {
    /// UID of the live file of this path.
    fn live(&self, path: &str, batch: &BTreeMap<Path, Want>) -> Option<Uid> {
        if let Some(want) = batch.get(path) {
            return (!want.entry.flags.deleted).then_some(want.entry.uid);
        }
        if let Some(held) = self.held.get(path) {
            return (!held.flags.deleted).then_some(held.uid);
        }
        self.above.get(path).and_then(|(uid, deleted)| (!deleted).then_some(*uid))
    }

    fn hidden_in(&self, path: &str, uid: Uid, batch: &BTreeMap<Path, Want>) -> bool {
        let newer = |other: &str| self.live(other, batch).is_some_and(|other| other > uid);
        ancestors(path).any(newer)
            || below(&self.held, path).any(|(other, _)| newer(other.as_str()))
            || below(batch, path).any(|(other, _)| newer(other.as_str()))
    }

    /// Whether a live file `path` of this UID is hidden by what is held.
    pub(super) fn is_hidden(&self, path: &str, uid: Uid) -> bool {
        self.hidden_in(path, uid, &BTreeMap::new())
    }

    /// Makes the next batch of what is ready.
    pub(super) fn take_batch(&mut self, out: &mut VecDeque<Output>) -> Option<(BatchId, Vec<Change>)> {
        let paths: Vec<Path> = self.ready.iter().take(BATCH_COUNT_MAX).cloned().collect();
        let taken: BTreeMap<Path, Want> =
            paths.into_iter().filter_map(|path| self.take_want(&path).map(|want| (path, want))).collect();
        let mut actions: BTreeMap<Path, (Action, Presence)> = BTreeMap::new();
        let mut hidden: BTreeMap<Path, Held> = BTreeMap::new();
        for (path, want) in &taken {
            let Some(action) = self.action(want, &taken) else { continue };
            if !want.entry.flags.deleted {
                let others = ancestors(path.as_str()).filter_map(|other| self.held.get_key_value(other));
                for (other, held) in others.chain(below(&self.held, path.as_str())) {
                    let shown = held.presence != Presence::Hidden && !held.flags.deleted;
                    if shown && held.uid < want.entry.uid && !taken.contains_key(other) {
                        hidden.insert(other.clone(), Held { presence: Presence::Hidden, ..held.clone() });
                    }
                }
            }
            let presence = if action == Action::Hide { Presence::Hidden } else { Presence::Whole };
            actions.insert(path.clone(), (action, presence));
        }
        let (mut removals, mut others, mut changes) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (path, entry) in hidden {
            changes.insert(path.clone(), InBatch { entry: entry.clone(), removes: true, want: None });
            removals.push(Change { path, entry, action: Action::Hide });
        }
        for (path, mut want) in taken {
            let Some((action, presence)) = actions.remove(&path) else {
                self.requeue(want);
                continue;
            };
            let entry = &want.entry;
            let entry = Held { uid: entry.uid, hash: entry.hash, size: entry.size, flags: entry.flags, presence };
            let removes = matches!(action, Action::Delete | Action::Hide);
            if let (Action::Hide, Supply::Ready(Content::Staged(id))) = (&action, &want.supply) {
                out.push_back(Output::Discard(*id));
            }
            want.supply = Supply::None;
            changes.insert(path.clone(), InBatch { entry: entry.clone(), removes, want: Some(want) });
            (if removes { &mut removals } else { &mut others }).push(Change { path, entry, action });
        }
        // Removals first and deepest first, so that directories are empty when a file takes their place.
        removals.sort_by(|a, b| b.path.cmp(&a.path));
        removals.append(&mut others);
        if removals.is_empty() {
            return None;
        }
        let id = self.next_batch();
        self.applying = Some(Batch { id, changes });
        Some((id, removals))
    }

    /// What to do for a ready entry; none if its content must be fetched after all.
    fn action(&self, want: &Want, batch: &BTreeMap<Path, Want>) -> Option<Action> {
        let entry = &want.entry;
        if entry.flags.deleted {
            return Some(Action::Delete);
        }
        if self.hidden_in(entry.path.as_str(), entry.uid, batch) {
            return Some(Action::Hide);
        }
        match &want.supply {
            Supply::Ready(content) => Some(Action::Write(content.clone())),
            Supply::Same => {
                let held = self.held.get(&entry.path)?;
                let same = held.hash == entry.hash && held.presence == Presence::Whole && !held.flags.deleted;
                let mode = held.flags.executable == entry.flags.executable;
                same.then_some(if mode { Action::Record } else { Action::SetMode })
            }
            Supply::Queued | Supply::Fetching(_) | Supply::None => None,
        }
    }

    /// The batch has been applied, as far as it could be.
    pub(super) fn applied(&mut self, id: BatchId, results: Vec<(Path, Applied)>, out: &mut VecDeque<Output>) {
        let Some(mut batch) = self.applying.take_if(|batch| batch.id == id) else { return };
        let mut results: BTreeMap<Path, Applied> = results.into_iter().collect();
        let failed =
            |(path, change): (&Path, &InBatch)| change.want.is_none() && results.get(path) != Some(&Applied::Done);
        // Then what is in the way is the receiver's own, and the disk's failure.
        let hiding_failed = batch.changes.iter().any(failed);
        let (mut tried, mut missing) = (Vec::new(), Vec::new());
        while let Some((path, InBatch { entry, removes, want })) = batch.changes.pop_first() {
            tried.push(path.clone());
            let result = results.remove(&path).unwrap_or_else(|| Applied::Failed("no result".into()));
            match (result, want) {
                (Applied::Done, want) => {
                    self.freed |= removes;
                    if let Some(want) = want {
                        self.open.remove(&want.order);
                        let Held { uid, hash, flags, .. } = entry;
                        if entry.presence == Presence::Whole {
                            let event = Event::Applied { path: path.clone(), uid, hash, deleted: flags.deleted };
                            out.push_back(Output::Event(event));
                        }
                    }
                    self.hold(path, entry);
                }
                (_, None) => {
                    missing
                        .extend(self.held.get(&path).is_some_and(|h| h.presence == Presence::Missing).then_some(path));
                }
                (Applied::Blocked(cause), Some(want)) if hiding_failed => {
                    self.not_applied(path, want, Applied::Failed(cause), out);
                }
                (result, Some(want)) => self.not_applied(path, want, result, out),
            }
        }
        missing.iter().for_each(|path| self.want_again(path));
        tried.iter().for_each(|path| self.settle(path));
    }

    /// An entry of a batch is not in place. If a newer one of its path has come meanwhile, that one is to be waited for.
    fn not_applied(&mut self, path: Path, want: Want, result: Applied, out: &mut VecDeque<Output>) {
        match &result {
            Applied::Blocked(cause) if !want.was_blocked => {
                out.push_back(Output::Event(Event::Blocked { path: path.clone(), cause: cause.clone() }));
            }
            Applied::Failed(cause) => {
                let cause = format!("{path} cannot be applied: {cause}");
                out.push_back(Output::Event(Event::Problem { cause }));
            }
            Applied::Lost => self.miss(&path),
            Applied::Blocked(_) | Applied::Done => {}
        }
        if self.hand_over(&path, want.order, want.again) {
            return;
        }
        if result == Applied::Lost {
            return self.requeue(want);
        }
        let is_blocked = matches!(result, Applied::Blocked(_));
        if is_blocked {
            self.open.remove(&want.order);
        }
        self.stuck.insert(path, Stuck { entry: want.entry, order: want.order, is_blocked });
    }

    /// Whether a held file is hidden and should not be, or the other way round.
    fn is_unsettled(&self, path: &Path, held: &Held) -> bool {
        let hidden = held.presence == Presence::Hidden;
        !held.flags.deleted && held.presence != Presence::Missing && hidden != self.is_hidden(path.as_str(), held.uid)
    }

    /// `path` may have changed: what it hides has to go, and what nothing hides any more is wanted again.
    pub(super) fn settle(&mut self, path: &Path) {
        let others = ancestors(path.as_str()).filter_map(|other| self.held.get_key_value(other));
        let others = others.chain(self.held.get_key_value(path)).chain(below(&self.held, path.as_str()));
        let unsettled = others.filter(|(other, held)| self.is_unsettled(other, held));
        let unsettled: Vec<Path> = unsettled.map(|(other, _)| other.clone()).collect();
        unsettled.iter().for_each(|other| self.want_again(other));
    }

    /// At the start: files may be missing, and what hid a file, or should have, may have changed just before the end.
    pub(super) fn settle_recovered(&mut self) {
        let is_missing = |path: &Path, held: &Held| held.presence == Presence::Missing || self.is_unsettled(path, held);
        let missing = self.held.iter().filter(|(path, held)| is_missing(path, held));
        let missing: Vec<Path> = missing.map(|(path, _)| path.clone()).collect();
        missing.iter().for_each(|path| self.miss(path));
    }
}

impl Change {
    /// The staged content that the change brings, if it does.
    pub fn staged(&self) -> Option<super::io::StagedId> {
        match &self.action {
            Action::Write(Content::Staged(id)) => Some(*id),
            _ => None,
        }
    }
}
