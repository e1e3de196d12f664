//! Crashes, lost disks, and the joining of a replaced store.

use super::learn_store;
use crate::state::{Mistake::*, *};

/// What of the lazy writes survives a crash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Of these publications: the agreed mark, or the bits of others, or that it was dropped.
    pub of: Set,
    /// Stores learned since the last write.
    pub stores: bool,
}

impl Config {
    /// What may survive a crash of `at`: any part of its lazy writes. Where learned stores are lost, the bits learned with
    /// them are, too.
    pub fn lazy_writes(&self, s: &State, at: usize) -> Vec<Kept> {
        let sp = &s.sps[at];
        let with_bits = (0..P).filter(|&p| sp.bits[p] & !one(at) != 0).fold(0, |set, p| set | one(p));
        let subsets = |set: Set| (0..=set).filter(move |subset| subset & !set == 0);
        let marks = (sp.agreed & !sp.marks) | sp.dropped;
        let kept = subsets(marks | with_bits).map(|of| Kept { of, stores: true });
        let without = if self.makes(StoreLearnedLazily) { marks | with_bits } else { marks };
        let lost = subsets(without).map(|of| Kept { of, stores: false }).filter(|_| sp.stores != sp.stores_durable);
        kept.chain(lost).collect()
    }

    /// `at` crashes and restarts from what is durable, and of the lazy writes from those that had become so just in time.
    pub fn crash(&self, s: &State, at: usize, kept: Kept) -> Option<State> {
        if s.crashes == self.crashes {
            return None;
        }
        let mut t = s.clone();
        let sp = &mut t.sps[at];
        (sp.writing, sp.writing_own, sp.ask) = (0, 0, Ask::default());
        let agreed = sp.agreed & (kept.of | sp.marks);
        for p in members((sp.agreed & !agreed) | (sp.held & !sp.agreed & !kept.of)) {
            sp.bits[p] = if has(sp.own, p) { one(at) } else { 0 };
        }
        sp.agreed = agreed;
        let again = sp.dropped & sp.keys & !kept.of;
        members(again & sp.own_ever).for_each(|p| sp.bits[p] = one(at));
        (sp.held, sp.own, sp.dropped) = (sp.held | again, sp.own | again & sp.own_ever, 0);
        if !kept.stores {
            sp.stores = sp.stores_durable;
        }
        sp.stores_durable = sp.stores;
        if self.makes(NoClockCeiling) {
            sp.clock = 0;
        }
        sp.join = sp.join.map(|_| Join::default());
        if sp.root.is_some_and(|root| !has(agreed, root.into())) {
            let newest = t.greatest(agreed & t.sps[at].held);
            t.sps[at].root = newest.map(|p| p as Id);
        }
        self.forget_submissions(&mut t, at);
        if t == *s {
            return None;
        }
        t.crashes += 1;
        Some(t)
    }

    /// The submissions that `at` was working on lose their accepting SP; their publishers know nothing.
    fn forget_submissions(&self, t: &mut State, at: usize) {
        let stored = t.sps[at].held & !t.sps[at].own;
        let of_it = |publication: &Publication| usize::from(publication.sp) == at;
        for (p, publication) in t.publications.iter_mut().enumerate().filter(|(_, publication)| of_it(publication)) {
            publication.undecided = self.makes(RestartStartsExchange) && has(stored, p);
            if publication.phase == Phase::Asking {
                *publication = Publication { phase: Phase::Over, sp: at as Id, ..Default::default() };
            }
        }
    }

    /// The disk of `at` is lost, and `acms replace` makes a new store. Only as long as the others are a quorum.
    pub fn lose_disk(&self, s: &State, at: usize) -> Option<State> {
        if s.losses == self.losses || !self.is_quorum(s.serving(self.n) & !one(at)) {
            return None;
        }
        let mut t = s.clone();
        t.losses += 1;
        let mut fresh = StoragePoint { store: s.sps[at].store + 1, join: Some(Join::default()), ..Default::default() };
        fresh.stores[at] = fresh.store;
        fresh.stores_durable = fresh.stores;
        t.sps[at] = fresh;
        self.forget_submissions(&mut t, at);
        Some(t)
    }

    /// `by` durably records the new store of the joining SP `of`, which voids the bits of the old one, and replies
    /// with all that it holds, its clock and the stores that it knows.
    pub fn reply_to_join(&self, s: &State, of: usize, by: usize) -> Option<State> {
        let join = s.sps[of].join?;
        if has(join.replied, by) || !has(s.serving(self.n), by) {
            return None;
        }
        let mut t = s.clone();
        if !self.makes(JoinKeepsOldStoreId) {
            learn_store(&mut t.sps[by], of, s.sps[of].store);
            t.sps[by].stores_durable = t.sps[by].stores;
        }
        let replier = t.sps[by];
        let seen = members(replier.held | replier.agreed).filter_map(|p| s.uid(p)).map(|uid| uid.time).max();
        let StoragePoint { held, own, own_ever, keys, agreed, clock, .. } = replier;
        let stores = if self.makes(FlawJoinRepliesWithoutStoreIds) { [0; N] } else { replier.stores };
        let clock = clock.max(seen.unwrap_or(0));
        let mut join = join;
        join.take(&Join { replied: one(by), held, own, own_ever, keys, agreed, clock, stores });
        t.sps[of].join = Some(join);
        Some(t)
    }

    /// A join request of an earlier store of `of` arrives late. An SP answers it with "void": nothing happens. If store
    /// ids had no order, it would be recorded.
    pub fn late_join_request(&self, s: &State, of: usize, to: usize) -> Option<State> {
        let known = s.sps[to].stores[of];
        if !self.makes(FlawStoreIdsWithoutOrder) || of == to || known < 2 || !has(s.serving(self.n), to) {
            return None;
        }
        let mut t = s.clone();
        (t.sps[to].stores[of], t.sps[to].stores_durable[of]) = (known - 1, known - 1);
        (0..P).for_each(|p| t.sps[to].bits[p] &= !one(of));
        Some(t)
    }

    /// A quorum of the others has replied: the joining SP stores all that with its own bits (two-phase: its own bit
    /// where a replier has set one), then serves, and sends its vectors.
    pub fn finish_join(&self, s: &State, at: usize) -> Option<State> {
        let join = s.sps[at].join?;
        if !(self.is_quorum(join.replied) || (self.makes(JoinFromTooFew) && join.replied != 0)) {
            return None;
        }
        let mut t = s.clone();
        let sp = &mut t.sps[at];
        sp.join = None;
        (sp.held, sp.keys, sp.agreed) = (join.held, join.keys, join.agreed);
        sp.own = match self.mode {
            Mode::Fused => join.held,
            Mode::TwoPhase if self.makes(FlawJoinSetsBitsOnUnstarted) => join.held,
            Mode::TwoPhase => join.own,
        };
        sp.own_ever = sp.own | join.own_ever;
        sp.clock = join.clock;
        (0..N).for_each(|y| sp.stores[y] = sp.stores[y].max(join.stores[y]));
        sp.stores_durable = sp.stores;
        let (held, own) = (sp.held, sp.own);
        members(held).for_each(|p| t.publications[p].confirmed |= one(at));
        members(own).for_each(|p| self.bit_is_set(&mut t, at, p));
        Some(t)
    }
}
