//! As-of: the time before which nothing accepted is missing here (promise P7).
//!
//! Once a second a storage point asks its peers what they have. Whatever a quorum had when it was asked, and is agreed or
//! superseded here by now, covers all that was accepted before the question: an accepted publication has its bits at a
//! quorum, which shares a member with those asked. Invariants: only replies to the round under way count; what is
//! awaited is awaited whatever its UID; as-of becomes visible once it is durable, with a root that contains all of it.

use crate::{
    mutant::{self, Mutant},
    protocol::{
        Durable, Duration, Hash, Instant, Message, Micros, SpId, SpSet, StoragePoint, Uid,
        exchange::{Hold, OwnBit},
        io::{Event, PeerSeen},
        message::{AsOf, LISTED_MAX, RequestId},
        storage_point::Written,
    },
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A round that does not come to its end makes way for another.
const PATIENCE: Duration = Duration::from_secs(5);
/// Publications remembered to have entered the index since earlier roots.
const RECENT_MAX: usize = LISTED_MAX / 2;
/// A reply brings about so many questions for what was stored and never heard of again.
const ASKED_MAX: usize = 64;

/// What a storage point knows of its freshness, and what entered its index of late.
#[derive(Debug)]
pub(super) struct Freshness {
    as_of: Micros,
    asked: Micros,
    round: Option<Round>,
    next_at: Instant,
    /// Of each peer, a root of which everything is here.
    merged: BTreeMap<SpId, Hash>,
    /// Earlier roots, oldest first, each with what entered the index between it and the next one.
    steps: VecDeque<(Hash, Vec<Uid>)>,
    steps_len: usize,
    /// The last root; none before the first.
    root: Option<Hash>,
    /// What entered the index since the last root.
    since_root: Vec<Uid>,
}

#[derive(Debug)]
struct Round {
    request: RequestId,
    since: Instant,
    /// min(own clock at the start, each replier's clock - round trip).
    bound: Micros,
    replied: SpSet,
    /// Peers whose roots are still being walked.
    merging: SpSet,
    roots: BTreeMap<SpId, Hash>,
    waits_for: BTreeSet<Uid>,
}

impl Freshness {
    pub(super) fn new(now: Instant) -> Freshness {
        Freshness {
            as_of: Micros(0),
            asked: Micros(0),
            round: None,
            next_at: now,
            merged: BTreeMap::new(),
            steps: VecDeque::new(),
            steps_len: 0,
            root: None,
            since_root: Vec::new(),
        }
    }

    /// As-of, what was last asked to be written of it, and the round under way.
    pub(super) fn inspect(&self) -> (Micros, Micros, Option<RequestId>) {
        (self.as_of, self.asked, self.round.as_ref().map(|round| round.request))
    }

    pub(super) fn recover(&mut self, as_of: Micros) {
        self.as_of = self.as_of.max(as_of);
        self.asked = self.as_of;
    }

    /// Everything agreed so far is in `root`.
    pub(super) fn root_was_minted(&mut self, root: Hash) {
        let entered = std::mem::take(&mut self.since_root);
        match self.root.replace(root) {
            Some(before) if before != root => {
                self.steps_len += entered.len();
                self.steps.push_back((before, entered));
            }
            _ => {}
        }
        while self.steps_len > RECENT_MAX || self.steps.len() > RECENT_MAX {
            let Some((_, oldest)) = self.steps.pop_front() else { return };
            self.steps_len -= oldest.len();
        }
    }

    /// What entered the index after `base` was its root, if that is remembered.
    fn entered_after(&self, base: Hash) -> Option<impl Iterator<Item = Uid> + '_> {
        let from = match Some(base) == self.root {
            true => self.steps.len(),
            false => self.steps.iter().rposition(|(root, _)| *root == base)?,
        };
        let steps = self.steps.range(from..).flat_map(|(_, entered)| entered);
        Some(steps.chain(&self.since_root).copied())
    }
}

impl StoragePoint {
    /// Nothing accepted before this time is missing in the root served.
    pub(super) fn as_of(&self) -> Micros {
        self.freshness.as_of
    }

    pub(super) fn entered_since_root(&mut self, uid: Uid) {
        self.freshness.since_root.push(uid);
    }

    pub(super) fn refresh_at(&self) -> Option<Instant> {
        let patience = self.freshness.round.as_ref().map(|round| round.since.after(PATIENCE));
        self.is_serving().then(|| patience.unwrap_or(self.freshness.next_at))
    }

    /// Begins a round if one is due.
    pub(super) fn refresh(&mut self) {
        if self.refresh_at().is_none_or(|at| at > self.now.instant) {
            return;
        }
        let request = self.new_request();
        let listed = self.with_own_bit();
        let before = self.freshness.round.take();
        let mut round = Round {
            request,
            since: self.now.instant,
            bound: self.now.wall,
            replied: SpSet::EMPTY,
            merging: SpSet::EMPTY,
            roots: BTreeMap::new(),
            waits_for: listed.into_iter().collect(),
        };
        if let (true, Some(before)) = (mutant::active(Mutant::AsOfRepliesOfEarlierRequest), before) {
            (round.replied, round.merging) = (before.replied, before.merging);
        }
        self.freshness.round = Some(round);
        self.freshness.next_at = self.now.instant.after(self.config.limits.as_of_round);
        let connected: Vec<SpId> = self.connected().collect();
        connected.into_iter().for_each(|peer| self.ask_as_of(peer));
        self.finish_round();
    }

    /// Asks a peer, in the round that is under way.
    pub(super) fn ask_as_of(&mut self, peer: SpId) {
        let Some(round) = &self.freshness.round else { return };
        let (request, merged) = (round.request, self.freshness.merged.get(&peer).copied().unwrap_or_default());
        if let Some(state) = self.peers.get_mut(&peer) {
            state.asked = Some((request, self.now.instant));
        }
        self.send(peer, Message::AsOfRequest { request, merged });
    }

    /// Pending publications with the own bit.
    fn with_own_bit(&self) -> Vec<Uid> {
        let own = |uid: &Uid| self.publications.get(uid).is_some_and(|publication| publication.own == OwnBit::Set);
        self.resends.iter().map(|(_, uid)| *uid).filter(own).collect()
    }

    pub(super) fn answer_as_of_request(&mut self, from: SpId, request: RequestId, merged: Hash) {
        let pending = self.with_own_bit();
        let only_pending = mutant::active(Mutant::AsOfListsPendingOnly);
        if self.freshness.since_root.len() + pending.len() > LISTED_MAX / 2 && !only_pending {
            self.mint_sequence();
            self.mint_root();
        }
        let (root, clock) = (self.freshness.root.unwrap_or_default(), self.now.wall);
        let known = self.freshness.entered_after(merged).is_some() && !only_pending;
        let base = if known { merged } else { root };
        let entered = self.freshness.entered_after(base).into_iter().flatten().filter(|_| !only_pending);
        // What has been forgotten since gave way to something that is in the base or listed.
        let is_known = |uid: &Uid| self.publications.contains_key(uid);
        let listed: BTreeSet<Uid> = entered.filter(is_known).chain(pending).collect();
        // Too many to list: no reply, and as-of stands still at the asker until there are fewer.
        if listed.len() <= LISTED_MAX {
            let reply = AsOf { base, root, listed: listed.into_iter().collect(), clock };
            self.send(from, Message::AsOfReply { request, reply });
        }
    }

    pub(super) fn take_as_of_reply(&mut self, from: SpId, request: RequestId, reply: AsOf) {
        self.note_clock(from, reply.clock);
        self.note_seen(from, request, reply.clock);
        let any_request = mutant::active(Mutant::AsOfRepliesOfEarlierRequest);
        let now = self.now.instant;
        let settled: Vec<Uid> = reply.listed.iter().copied().filter(|uid| self.is_settled(*uid)).collect();
        let Some(round) = &mut self.freshness.round else { return };
        if (round.request != request && !any_request) || round.replied.contains(from) {
            return;
        }
        round.replied = round.replied.union(SpSet::one(from));
        round.roots.insert(from, reply.root);
        round.waits_for.extend(reply.listed.iter().filter(|uid| settled.binary_search(uid).is_err()));
        if !mutant::active(Mutant::AsOfIgnoresRepliersClocks) {
            let round_trip = now.since(round.since).as_micros() as u64;
            round.bound = round.bound.min(Micros(reply.clock.0.saturating_sub(round_trip)));
        }
        let walked = self.freshness.merged.get(&from) == Some(&reply.base) || reply.base == self.index.root();
        let mut asked = 0;
        for uid in reply.listed {
            match self.publications.get(&uid) {
                None => self.want(uid, from, false),
                // `two-phase`: stored, and no vector has come. None is sent from here, so nobody would say that it is agreed.
                Some(one) if one.hold == Hold::Durable && one.own == OwnBit::Clear && !self.is_settled(uid) => {
                    if asked < ASKED_MAX {
                        asked += 1;
                        self.send(from, Message::PublicationRequest { uid });
                    }
                }
                Some(_) => {}
            }
        }
        if !walked {
            if let Some(round) = &mut self.freshness.round {
                round.merging = round.merging.union(SpSet::one(from));
            }
            self.start_merge(from, reply.base);
        }
        self.finish_round();
    }

    /// Looks at how long a reply took and what its clock says: for people, nothing depends on it.
    fn note_seen(&mut self, from: SpId, request: RequestId, clock: Micros) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&from)
            && let Some((_, asked_at)) = peer.asked.take_if(|(asked, _)| *asked == request)
        {
            let round_trip = now.instant.since(asked_at);
            let then = clock.after(round_trip / 2);
            peer.seen = Some(PeerSeen { round_trip, clock_offset_us: then.0.wrapping_sub(now.wall.0) as i64 });
        }
    }

    /// Whether `uid` is agreed here with its content, or superseded: what is read now of its paths is not older.
    pub fn is_settled(&self, uid: Uid) -> bool {
        self.publications.get(&uid).is_some_and(|one| one.is_indexed() || one.superseded_by.is_some())
    }

    /// A publication of a peer's index, newer than the entry here, is on its way.
    pub(super) fn await_merged(&mut self, from: SpId, uid: Uid) {
        if let Some(round) = self.freshness.round.as_mut().filter(|round| round.merging.contains(from)) {
            round.waits_for.insert(uid);
        }
    }

    /// `newest`, agreed, supersedes `uid`, which is not here.
    pub(super) fn await_instead(&mut self, uid: Uid, newest: Uid) {
        let is_settled = self.is_settled(newest);
        if let Some(round) = self.freshness.round.as_mut()
            && round.waits_for.remove(&uid)
        {
            if !is_settled {
                round.waits_for.insert(newest);
            }
            self.finish_round();
        }
    }

    /// `uid` is agreed or superseded here.
    pub(super) fn settled(&mut self, uid: Uid) {
        if let Some(round) = &mut self.freshness.round
            && round.waits_for.remove(&uid)
        {
            self.finish_round();
        }
    }

    /// All of `peer`'s index has been looked at.
    pub(super) fn merge_is_done(&mut self, peer: SpId) {
        if let Some(round) = &mut self.freshness.round
            && round.merging.contains(peer)
        {
            round.merging = round.merging.minus(SpSet::one(peer));
            self.finish_round();
        }
    }

    /// The walk down `peer`'s index ended early: its reply does not count, and its root is not one that was merged.
    pub(super) fn merge_failed(&mut self, peer: SpId) {
        self.merges.remove(&peer);
        if let Some(round) = self.freshness.round.as_mut().filter(|round| round.merging.contains(peer)) {
            let failed = SpSet::one(peer);
            (round.merging, round.replied) = (round.merging.minus(failed), round.replied.minus(failed));
            round.roots.remove(&peer);
        }
    }

    /// With a quorum, and everything awaited agreed or superseded here, as-of rises.
    fn finish_round(&mut self) {
        let Some(round) = &self.freshness.round else { return };
        let enough = self.quorum.is_quorum(round.replied.minus(round.merging).union(SpSet::one(self.config.me)));
        let ignores_above = mutant::active(Mutant::AsOfIgnoresUidsAboveIt);
        let is_settled = match ignores_above {
            true => round.waits_for.iter().all(|uid| uid.micros > round.bound.0),
            false => round.waits_for.is_empty(),
        };
        if !is_settled || !(enough || mutant::active(Mutant::AsOfFromTooFew)) {
            return;
        }
        let Some(round) = self.freshness.round.take() else { return };
        let merged = round.roots.into_iter().filter(|(peer, _)| !round.merging.contains(*peer));
        self.freshness.merged.extend(merged);
        if round.bound > self.freshness.asked {
            self.freshness.asked = round.bound;
            self.persist(Durable::AsOf { micros: round.bound }, Some(Written::AsOf(round.bound)));
        }
    }

    /// As-of is durable, after all that it speaks of: it is served, with a root that has all of it.
    pub(super) fn as_of_is_durable(&mut self, micros: Micros) {
        self.mint_sequence();
        self.mint_root();
        self.freshness.as_of = self.freshness.as_of.max(micros);
        self.event(Event::AsOf { micros });
    }
}
