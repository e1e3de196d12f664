//! The promises as checks of one state. "Accepted" is taken in its strongest sense: as soon
//! as any SP knows a publication agreed, for from then on a publisher may be told so.

use crate::state::*;

impl Config {
    /// The first promise that `s` breaks.
    pub fn broken(&self, s: &State) -> Option<&'static str> {
        let checks: [(&str, bool); 10] = [
            ("P1 accepted is durable", self.accepted_is_durable(s)),
            ("P3 accepted before begins below", self.order_is_kept(s)),
            ("P5 index has agreed only", self.index_is_agreed(s)),
            ("P7 as-of is honest", self.as_of_is_honest(s)),
            ("P8 rejected is never agreed", s.publications.iter().all(|p| !(p.rejected && p.accepted))),
            ("P8 superseded is true", !s.false_claim),
            ("P8 key finds the accepted", self.key_finds_the_accepted(s)),
            ("not promised: one agreed per key", self.one_agreed_per_key(s)),
            ("UIDs are unique", self.uids_are_unique(s)),
            ("bits mean durable", self.bits_mean_durable(s)),
        ];
        checks.iter().find(|(_, held)| !held).map(|(name, _)| *name)
    }

    /// P1. No quorum of SPs with complete stores lacks the newest accepted publication: every quorum that will ever be
    /// asked, or survives, has it.
    fn accepted_is_durable(&self, s: &State) -> bool {
        s.greatest(s.accepted()).is_none_or(|newest| {
            let lacking = members(s.serving(self.n)).filter(|&x| !has(s.sps[x].held, newest));
            !self.is_quorum(lacking.fold(0, |set, x| set | one(x)))
        })
    }

    /// P3. What was accepted before a submission began has a smaller UID than it.
    fn order_is_kept(&self, s: &State) -> bool {
        let named = s.publications.iter().filter(|p| p.uid.is_some());
        named.into_iter().all(|p| members(p.accepted_before).all(|q| s.uid(q) < p.uid))
    }

    /// P5 as far as agreement goes: an index entry is an agreed publication, held here.
    fn index_is_agreed(&self, s: &State) -> bool {
        members(s.serving(self.n))
            .filter_map(|x| self.index(s, x).map(|p| (x, p)))
            .all(|(x, p)| s.publications[p].accepted && has(s.sps[x].held, p))
    }

    /// P7. What was accepted before an SP's as-of is in its root, or a newer one is.
    fn as_of_is_honest(&self, s: &State) -> bool {
        members(s.serving(self.n)).all(|x| {
            let before = |&p: &usize| s.publications[p].accepted_at < s.sps[x].as_of;
            members(s.accepted()).filter(before).all(|p| s.uid(p) <= s.root_uid(x))
        })
    }

    /// P8. A retry that begins after the publication of its key was accepted does not make another (strict only).
    fn key_finds_the_accepted(&self, s: &State) -> bool {
        let twin = |p: usize| members(s.publications[p].accepted_before).any(|q| self.keys[q] == self.keys[p]);
        self.order == Order::Fast || (0..self.submissions).all(|p| s.uid(p).is_none() || !twin(p))
    }

    /// Not a promise: an attempt and its retry that run at the same time may both become agreed.
    fn one_agreed_per_key(&self, s: &State) -> bool {
        let twins = |p: usize, q: usize| p != q && self.keys[p] == self.keys[q];
        let agreed = s.accepted();
        !self.makes(Mistake::ClaimOneAgreedPerKey) || !members(agreed).any(|p| members(agreed).any(|q| twins(p, q)))
    }

    fn uids_are_unique(&self, s: &State) -> bool {
        (0..P).all(|p| (0..p).all(|q| s.uid(p).is_none() || s.uid(p) != s.uid(q)))
    }

    /// A bit of a store that still exists says that this store has the publication, or that a newer one is agreed.
    fn bits_mean_durable(&self, s: &State) -> bool {
        s.vectors.iter().all(|v| {
            let current = |&y: &usize| v.stores[y] == s.sps[y].store && s.sps[y].join.is_none();
            let p = usize::from(v.publication);
            let durable = |y: usize| has(s.sps[y].own & s.sps[y].held, p);
            members(v.bits).filter(current).all(durable) || s.has_newer(s.accepted(), p)
        })
    }

    /// P2 and P6, as far as safety can say it: once faults and submissions stop and messages arrive, every SP serves
    /// the newest agreed publication, and (fused) nothing that an SP holds stays pending (as-of would stand still).
    pub fn heals(&self, s: &State) -> bool {
        let mut s = s.clone();
        while let Some((_, next)) = self.healing(&s).into_iter().next() {
            s = next;
        }
        let newest = s.greatest(s.accepted()).and_then(|p| s.uid(p));
        let pending = |x: usize| self.mode == Mode::Fused && members(s.sps[x].own).any(|p| s.uid(p) > newest);
        (0..self.n).all(|x| self.index(&s, x).and_then(|p| s.uid(p)) == newest && !pending(x))
    }
}
