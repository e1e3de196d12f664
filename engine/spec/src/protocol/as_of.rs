//! The as-of: up to when nothing accepted is missing here.

use crate::state::{Mistake::*, *};

impl Config {
    fn clock_of(&self, s: &State, x: usize) -> i8 {
        s.now as i8 + self.skew[x]
    }

    /// `at` notes its clock and its own pending publications, and asks every peer.
    pub fn ask_as_of(&self, s: &State, at: usize) -> Option<State> {
        let sp = &s.sps[at];
        if s.asks == self.asks || sp.join.is_some() {
            return None;
        }
        let mut t = s.clone();
        t.asks += 1;
        let pending = sp.own & !sp.agreed;
        let fresh = Ask { open: true, replied: 0, waits_for: pending, since: s.now, bound: self.clock_of(s, at) };
        t.sps[at].ask = match self.makes(AsOfRepliesOfEarlierRequest) {
            true => Ask { replied: sp.ask.replied, waits_for: pending | sp.ask.waits_for, ..fresh },
            false => fresh,
        };
        Some(t)
    }

    /// `by` replies with its root, every publication with its own bit that is newer than that root, and its clock.
    pub fn reply_as_of(&self, s: &State, to: usize, by: usize) -> Option<State> {
        let ask = s.sps[to].ask;
        if !ask.open || has(ask.replied, by) || !has(s.serving(self.n), by) {
            return None;
        }
        let sp = &s.sps[by];
        let hidden = if self.makes(FlawAsOfListsPendingOnly) { sp.agreed } else { 0 };
        let newer_than_root = |&p: &usize| s.uid(p) > s.root_uid(by);
        let listed = members(sp.own & !hidden).filter(newer_than_root).fold(0, |set, p| set | one(p));
        let round_trip = (s.now - ask.since) as i8;
        let mut t = s.clone();
        let ask = &mut t.sps[to].ask;
        ask.replied |= one(by);
        ask.waits_for |= sp.root.map_or(0, |w| one(w.into())) | listed;
        if !self.makes(AsOfIgnoresRepliersClocks) {
            ask.bound = ask.bound.min(self.clock_of(s, by) - round_trip);
        }
        Some(t)
    }

    /// With a quorum, and everything in W agreed or superseded here with content, `at` writes root and as-of in one
    /// commit.
    pub fn raise_as_of(&self, s: &State, at: usize) -> Option<State> {
        let Ask { open, replied, waits_for, bound, .. } = s.sps[at].ask;
        let enough = self.is_quorum(replied | one(at)) || self.makes(AsOfFromTooFew);
        let here = s.sps[at].agreed & s.sps[at].held;
        let above = |p: usize| s.uid(p).is_some_and(|uid| uid.time as i8 > bound);
        let settled =
            |p: usize| has(here, p) || s.has_newer(here, p) || (self.makes(AsOfIgnoresUidsAboveIt) && above(p));
        if !open || !enough || !members(waits_for).all(settled) {
            return None;
        }
        let mut t = self.mint_root(s, at).unwrap_or_else(|| s.clone());
        t.sps[at].as_of = s.sps[at].as_of.max(bound.max(0) as u8);
        t.sps[at].ask = Ask::default();
        t.sps[at].marks |= here;
        Some(t)
    }

    /// Real time passes.
    pub fn tick(&self, s: &State) -> Option<State> {
        let mut t = s.clone();
        t.now += 1;
        (t.now <= self.ticks).then_some(t)
    }
}
