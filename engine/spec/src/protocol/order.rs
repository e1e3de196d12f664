//! Submissions and the order query.

use crate::state::{Mistake::*, *};

impl Config {
    /// A publisher hands submission `p` to the SP `at`, which asks every SP for its greatest UID and for the key.
    pub fn submit(&self, s: &State, p: usize, at: usize) -> Option<State> {
        let in_turn = p == 0 || s.publications[p - 1].phase != Phase::Unborn;
        let unborn = s.publications[p].phase == Phase::Unborn;
        if !unborn || !in_turn || !has(self.accepting & s.serving(self.n), at) {
            return None;
        }
        let accepted_before = s.accepted();
        let known = s.greatest(accepted_before).and_then(|w| s.uid(w));
        let floor = known.filter(|_| self.order == Order::Fast);
        let mut t = s.clone();
        let phase = Phase::Asking;
        t.publications[p] = Publication { sp: at as Id, phase, floor, accepted_before, ..Default::default() };
        let earlier = s.publications[..p].iter().rev().find(|q| usize::from(q.sp) == at);
        if let Some(earlier) = earlier.filter(|_| self.makes(AnswersOfEarlierSubmission)) {
            t.publications[p].answered = earlier.answered;
            t.publications[p].floor = earlier.floor;
        }
        Some(t)
    }

    /// What `by` may name when it is asked for the key of `p`: a publication with it (two-phase: one for which the exchange
    /// has started), if it knows any.
    pub fn same_keys(&self, s: &State, p: usize, by: usize) -> Vec<Option<Id>> {
        let sp = &s.sps[by];
        let started = |q: &usize| {
            self.mode == Mode::Fused || has(sp.own_ever | sp.agreed, *q) || self.makes(FlawKeyCompletesUnstarted)
        };
        let dropped = if self.makes(FlawDropForgetsKey) { 0 } else { sp.dropped };
        let known = members(sp.keys | sp.writing | dropped).filter(|&q| self.keys[q] == self.keys[p]);
        let named: Vec<Option<Id>> = known.filter(started).map(|q| Some(q as Id)).collect();
        if named.is_empty() { vec![None] } else { named }
    }

    /// `by` answers the order query of `p`: the greatest UID that it holds durably or knows agreed, and one of
    /// [`same_keys`](Self::same_keys).
    pub fn answer_order_query(&self, s: &State, p: usize, by: usize, names: Option<Id>) -> Option<State> {
        let asking = &s.publications[p];
        let may_answer = has(s.serving(self.n), by) || self.makes(JoiningAnswersQueries);
        if asking.phase != Phase::Asking || self.order == Order::Fast || has(asking.answered, by) || !may_answer {
            return None;
        }
        let sp = &s.sps[by];
        let known = if self.makes(AnswerKnowsAgreedOnly) { sp.agreed } else { sp.held | sp.agreed };
        if !self.same_keys(s, p, by).contains(&names) {
            return None;
        }
        let mut t = s.clone();
        let asking = &mut t.publications[p];
        asking.answered |= one(by);
        asking.floor = asking.floor.max(s.greatest(known).and_then(|w| s.uid(w)));
        asking.same_key = asking.same_key.or(names);
        Some(t)
    }

    /// Whether the accepting SP of `p` may go on: a quorum has answered, itself among it.
    fn order_is_known(&self, s: &State, p: usize) -> bool {
        let Publication { phase, answered, sp, .. } = s.publications[p];
        let answered = self.order == Order::Fast || (has(answered, sp.into()) && self.counts_as_quorum(answered));
        phase == Phase::Asking && answered
    }

    /// The accepting SP takes a UID above all that it learned, makes the clock's ceiling durable, and sends the offer.
    /// Its clock may read anything (the hybrid clock only moves it up, never below the ceiling).
    pub fn take_uid(&self, s: &State, p: usize, time: u8) -> Option<State> {
        let asking = &s.publications[p];
        let sp = &s.sps[s.accepting(p)];
        let store = if self.makes(FlawUidWithoutStoreNumber) { 0 } else { sp.store };
        let uid = Some(Uid { time, sp: asking.sp, store });
        if !self.order_is_known(s, p) || asking.same_key.is_some() || time <= sp.clock || uid <= asking.floor {
            return None;
        }
        let mut t = s.clone();
        t.sps[s.accepting(p)].clock = time;
        let taken = &mut t.publications[p];
        (taken.phase, taken.uid) = (Phase::Offered, uid);
        taken.undecided = self.mode == Mode::TwoPhase;
        if !self.makes(AnswersOfEarlierSubmission) {
            (taken.answered, taken.floor) = (0, None);
        }
        Some(t)
    }

    /// A retry completes the publication `q` that has its key instead of making another: one that an answer named, or,
    /// without asking, one that its accepting SP itself knows. Of that SP it may also be one that is still undecided, or that
    /// another attempt there has found to be its own.
    pub fn complete_same_key(&self, s: &State, p: usize, q: usize) -> Option<State> {
        let Publication { phase, same_key, .. } = s.publications[p];
        let (at, wanted) = (s.accepting(p), Some(q as Id));
        let undecided = s.publications[q].undecided && s.accepting(q) == at && self.keys[q] == self.keys[p];
        let joins = |other: &Publication| {
            let same_key = other.phase == Phase::Completing(q as Id) && self.keys[q] == self.keys[p];
            same_key && usize::from(other.sp) == at
        };
        let known_here = undecided || s.publications.iter().any(joins) || self.same_keys(s, p, at).contains(&wanted);
        if phase != Phase::Asking || !(known_here || (same_key == wanted && self.order_is_known(s, p))) {
            return None;
        }
        let mut t = s.clone();
        t.publications[p].phase = Phase::Completing(q as Id);
        (t.publications[p].answered, t.publications[p].floor) = (0, None);
        Some(t)
    }

    /// The publisher is told *rejected*. Fused: before an offer has left. Two-phase: before the exchange has started,
    /// that is before the write of the own bit was asked for.
    pub fn reject(&self, s: &State, p: usize) -> Option<State> {
        let Publication { phase, undecided, rejected, sp, .. } = s.publications[p];
        let before_offer = phase == Phase::Asking;
        let late = match self.mode {
            Mode::Fused => self.makes(RejectedAfterOffer),
            Mode::TwoPhase => {
                undecided || (self.makes(RejectedAfterExchangeStarted) && !has(s.sps[usize::from(sp)].own, p))
            }
        };
        if rejected || !(before_offer || (phase == Phase::Offered && late)) {
            return None;
        }
        let mut t = s.clone();
        t.publications[p].undecided = false;
        if before_offer {
            t.publications[p] = Publication { phase: Phase::Over, sp, ..Default::default() };
        }
        t.publications[p].rejected = true;
        Some(t)
    }
}
