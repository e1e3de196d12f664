//! Replication, and agreement by Vector Exchange.

use super::learn_store;
use crate::state::{Mistake::*, *};

impl Config {
    /// `at` has the manifest and content of `p`, hash-checked, from an offer or fetched from an SP whose bit is set,
    /// and asks for their write (fused: with the own bit). It does not take what is superseded in its own
    /// index.
    pub fn receive_offer(&self, s: &State, p: usize, at: usize) -> Option<State> {
        let sp = &s.sps[at];
        let done = match self.mode {
            Mode::Fused => sp.own | sp.writing_own,
            Mode::TwoPhase => sp.held | sp.writing,
        };
        let offered = s.publications[p].phase == Phase::Offered;
        let mut others = members(sp.keys | sp.writing).filter(|&q| q != p);
        if self.makes(AlternativeOneBitPerKey) && others.any(|q| self.keys[q] == self.keys[p]) {
            return None;
        }
        if !offered || !has(s.serving(self.n), at) || has(done, p) || s.has_newer(sp.agreed & sp.held, p) {
            return None;
        }
        let mut t = s.clone();
        t.sps[at].writing |= one(p);
        if self.mode == Mode::Fused || has(sp.agreed, p) {
            t.sps[at].writing_own |= one(p);
        }
        self.written(t, at, p)
    }

    /// A write was asked for. Without flush steps it is durable at once.
    fn written(&self, mut t: State, at: usize, p: usize) -> Option<State> {
        if self.makes(BitSentBeforeDurable) && has(t.sps[at].writing_own, p) {
            self.send_vector(&mut t, at, p);
        }
        if self.flushes { Some(t) } else { self.become_durable(&t, at, p) }
    }

    /// What `at` asked to write of `p` becomes durable; only then confirmation and own bit are sent. A commit of several publications is several of these steps.
    pub fn become_durable(&self, s: &State, at: usize, p: usize) -> Option<State> {
        let (held, own) = (s.sps[at].writing & one(p), s.sps[at].writing_own & one(p));
        if held | own == 0 {
            return None;
        }
        let mut t = s.clone();
        let sp = &mut t.sps[at];
        (sp.writing, sp.writing_own) = (sp.writing & !held, sp.writing_own & !own);
        let here = !sp.dropped | held;
        (sp.held, sp.keys, sp.own) = (sp.held | held, sp.keys | held, sp.own | own & here);
        sp.own_ever |= own;
        if held != 0 {
            t.publications[p].confirmed |= one(at);
        }
        if own & here != 0 {
            self.bit_is_set(&mut t, at, p);
        }
        Some(t)
    }

    /// Two-phase: the accepting SP, still undecided, sees that a quorum has confirmed, and asks for its own bit's
    /// write. A restart ends "undecided": presumed abort. Any SP does so once it holds what it knows agreed.
    pub fn start_exchange(&self, s: &State, p: usize, at: usize) -> Option<State> {
        let sp = &s.sps[at];
        let Publication { sp: accepting, undecided, confirmed, .. } = s.publications[p];
        let completes = |q: &Publication| q.phase == Phase::Completing(p as Id) && usize::from(q.sp) == at;
        let revived = self.makes(FlawKeyCompletesUnstarted) && s.publications.iter().any(completes);
        let may_start = (undecided && at == usize::from(accepting)) || revived;
        let not_yet = self.mode == Mode::TwoPhase && has(sp.held, p) && !has(sp.own | sp.writing_own, p);
        if !not_yet || !(has(sp.agreed, p) || may_start && self.counts_as_quorum(confirmed)) {
            return None;
        }
        let mut t = s.clone();
        t.publications[p].undecided = false;
        t.sps[at].writing_own |= one(p);
        self.written(t, at, p)
    }

    /// The own bit of `at` for `p` is durable: it enters the vector, and the vector is sent.
    pub(super) fn bit_is_set(&self, t: &mut State, at: usize, p: usize) {
        if !has(t.sps[at].agreed, p) {
            t.sps[at].bits[p] |= one(at);
            self.count(t, at, p);
        }
        self.send_vector(t, at, p);
    }

    /// `at` sends its vector for `p` to all.
    fn send_vector(&self, t: &mut State, at: usize, p: usize) {
        let bits = one(at) | if self.relay { t.sps[at].bits[p] } else { 0 };
        let mut stores = t.sps[at].stores;
        if self.makes(FlawVectorsCarryStoresOfSetBitsOnly) {
            (0..N).filter(|&y| !has(bits, y)).for_each(|y| stores[y] = 0);
        }
        let vector = Vector { publication: p as Id, bits, stores };
        put_vector(t, vector);
    }

    /// `at` sends its vector for `p` again, or its own bit alone; it may know of newer stores by now.
    pub fn send_again(&self, s: &State, at: usize, p: usize) -> Option<State> {
        let sp = &s.sps[at];
        if !self.headers || !has(s.serving(self.n), at) || !has(sp.own & !sp.agreed, p) {
            return None;
        }
        let mut t = s.clone();
        self.send_vector(&mut t, at, p);
        put_vector(&mut t, Vector { publication: p as Id, bits: one(at), stores: sp.stores });
        (t.vectors.len() != s.vectors.len()).then_some(t)
    }

    /// A message of any kind tells `at` of a newer store of `of`: all messages say which stores their sender knows.
    pub fn hear_of_store(&self, s: &State, at: usize, of: usize, store: u8) -> Option<State> {
        let news = store > s.sps[at].stores[of] && store <= s.sps[of].store && of != at;
        if !self.headers || !news || !has(s.serving(self.n), at) {
            return None;
        }
        let mut t = s.clone();
        learn_store(&mut t.sps[at], of, store);
        Some(t)
    }

    /// `at` receives a vector of a publication that it holds: it learns of newer stores, which voids the bits of
    /// older ones, ORs in the bits that are not void, and sends its vector if that changed. Two-phase: a set bit also
    /// says that the exchange has started, so `at` sets its own.
    pub fn receive_vector(&self, s: &State, at: usize, v: Vector) -> Option<State> {
        let p = usize::from(v.publication);
        if !has(s.serving(self.n), at) || v.bits == one(at) {
            return None;
        }
        let mut t = s.clone();
        (0..self.n).for_each(|y| learn_store(&mut t.sps[at], y, v.stores[y]));
        let sp = &mut t.sps[at];
        let valid = members(v.bits).filter(|&y| v.stores[y] == sp.stores[y]).fold(0, |set, y| set | one(y));
        let known = sp.bits[p];
        if has(sp.held, p) && !has(sp.agreed, p) && valid != 0 {
            sp.bits[p] |= valid;
            if self.mode == Mode::TwoPhase && !has(sp.own | sp.writing_own, p) {
                sp.writing_own |= one(p);
                t = self.written(t, at, p)?;
            }
            let changed = t.sps[at].bits[p] != known;
            self.count(&mut t, at, p);
            if changed && self.relay && has(t.sps[at].own, p) {
                self.send_vector(&mut t, at, p);
            }
        }
        (t != *s).then_some(t)
    }

    /// When the bits contain a quorum, the publication is agreed. Its vector is no longer needed here.
    fn count(&self, t: &mut State, at: usize, p: usize) {
        if self.counts_as_quorum(t.sps[at].bits[p]) {
            t.sps[at].agreed |= one(p);
            t.sps[at].bits[p] = if self.relay { t.sps[at].bits[p] } else { 0 };
            if !t.publications[p].accepted {
                t.publications[p].accepted = true;
                t.publications[p].accepted_at = t.now;
            }
        }
    }

    /// `at` is told "agreed p", in answer to a poorer vector of `p` or of an older publication of the path.
    pub fn learn_agreed(&self, s: &State, at: usize, p: usize) -> Option<State> {
        if !s.publications[p].accepted || has(s.sps[at].agreed, p) || !has(s.serving(self.n), at) {
            return None;
        }
        let mut t = s.clone();
        t.sps[at].agreed |= one(p);
        t.sps[at].bits[p] = 0;
        if has(t.sps[at].held & !t.sps[at].own, p) && self.mode == Mode::TwoPhase {
            t.sps[at].writing_own |= one(p);
            return self.written(t, at, p);
        }
        Some(t)
    }

    /// `at` drops a pending publication whose path has a greater agreed one *in its own index*. Its key stays. The drop
    /// is written lazily: after a crash the publication may be pending again.
    pub fn drop_superseded(&self, s: &State, at: usize, p: usize) -> Option<State> {
        let sp = &s.sps[at];
        let newer = if self.makes(DropWithoutAgreed) {
            sp.held
        } else if self.makes(FlawDropWithoutContent) {
            sp.agreed
        } else {
            self.index(s, at).map_or(0, one)
        };
        if !has(s.serving(self.n), at) || !has((sp.held | sp.writing) & !sp.agreed, p) || !s.has_newer(newer, p) {
            return None;
        }
        let mut t = s.clone();
        t.false_claim |= !s.has_newer(newer & s.accepted(), p);
        let sp = &mut t.sps[at];
        sp.dropped |= one(p);
        (sp.held, sp.own, sp.bits[p]) = (sp.held & !one(p), sp.own & !one(p), 0);
        sp.writing &= !one(p);
        sp.writing_own &= sp.keys | !one(p);
        if self.makes(FlawDropForgetsKey) {
            sp.keys &= !one(p);
        }
        Some(t)
    }
}

fn put_vector(t: &mut State, vector: Vector) {
    if let Err(place) = t.vectors.binary_search(&vector) {
        t.vectors.insert(place, vector);
    }
}
