//! The index, and catching up by merging it.

use crate::state::*;

impl Config {
    /// The entry that `at` serves: of the publications that it holds and knows agreed, the one with the greatest UID.
    /// In as-of configurations the root may lag behind that.
    pub fn index(&self, s: &State, at: usize) -> Option<usize> {
        if self.asks > 0 { s.sps[at].root.map(usize::from) } else { s.greatest(s.sps[at].agreed & s.sps[at].held) }
    }

    /// `at` writes a new root.
    pub fn mint_root(&self, s: &State, at: usize) -> Option<State> {
        let newest = s.greatest(s.sps[at].agreed & s.sps[at].held);
        if self.asks == 0 || newest.and_then(|p| s.uid(p)) <= s.root_uid(at) {
            return None;
        }
        let mut t = s.clone();
        t.sps[at].root = newest.map(|p| p as Id);
        Some(t)
    }

    /// Index merging: `at` takes the entry of `from` if its UID is greater, with content.
    pub fn merge_index(&self, s: &State, at: usize, from: usize) -> Option<State> {
        let both_serve = has(s.serving(self.n), at) && has(s.serving(self.n), from);
        let theirs = self.index(s, from).filter(|_| self.merging && both_serve)?;
        if self.index(s, at).and_then(|p| s.uid(p)) >= s.uid(theirs) || has(s.sps[at].agreed & s.sps[at].held, theirs) {
            return None;
        }
        let mut t = s.clone();
        let sp = &mut t.sps[at];
        (sp.held, sp.keys) = (sp.held | one(theirs), sp.keys | one(theirs));
        (sp.own, sp.own_ever) = (sp.own | one(theirs), sp.own_ever | one(theirs));
        (sp.agreed, sp.bits[theirs]) = (sp.agreed | one(theirs), 0);
        Some(t)
    }
}
