//! Submissions and the order query: how a submission gets a UID above everything accepted before it began.
//!
//! One query serves all submissions that arrived before it left. Invariant: until a UID is taken nothing has left this
//! SP, neither its clock nor its ceiling has moved on the submission's behalf, and it can be rejected for good.

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Duration, Entry, Instant, Manifest, Message, Micros, Mode, Order, Outcome, Reason, SpId, SpSet, StoragePoint, Uid,
    attempts::{Attempt, Awaited, Waiting},
    durable::{INLINE_LEN_MAX, InlineContent},
    exchange::Hold,
    io::{Event, Submission, Ticket},
    keys::Key,
    message::RequestId,
    outcome::ids,
};
use std::{collections::BTreeMap, sync::Arc};

/// Order queries without a quorum's answers that may be out at once; further submissions wait and share the next one.
const QUERIES_MAX: usize = 4;

/// An order query that is out.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) request: RequestId,
    /// By place: the first attempt of each submission. Some of them wait no more.
    pub(super) places: Vec<Ticket>,
    /// How many still wait.
    open: usize,
    /// `fast` asks for clocks only, not for keys.
    asks_keys: bool,
    /// A quorum has answered; what still waits, waits for clocks.
    has_quorum: bool,
    greatest: Uid,
    clocks: BTreeMap<SpId, Micros>,
    /// Publications under the keys asked for, by place.
    held: BTreeMap<u32, (Uid, SpId)>,
}

/// A submission's answer is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TicketState {
    /// It has no UID yet.
    Waiting { deadline: Instant },
    /// It is this publication (perhaps one that is still to be fetched).
    Named { deadline: Instant, uid: Uid },
}

enum Verdict {
    Take(Uid),
    Complete(Uid, Option<SpId>),
    Reject(Reason),
    NeedMoreClocks,
}

impl StoragePoint {
    /// A publisher handed in a publication. Its outcome comes as an event, exactly one.
    pub fn submit(&mut self, now: crate::protocol::Now, submission: Submission) -> Ticket {
        self.begin(now);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let deadline = now.instant.after(self.config.limits.publish);
        self.tickets.insert(ticket, TicketState::Waiting { deadline });
        self.deadlines.insert((deadline, ticket));
        if let Err(reason) = self.admit(ticket, submission) {
            self.finish(ticket, Outcome::Rejected { reason });
        }
        ticket
    }

    fn admit(&mut self, ticket: Ticket, submission: Submission) -> Result<(), Reason> {
        let key = key_of(&submission);
        // Before anything that refuses: what this SP knows under the key is true whatever state it is in.
        if let Some(key) = key
            && let Some(uid) = self.known_under(key)
        {
            let Submission { entries, contents, .. } = submission;
            return self.complete(ticket, uid, Attempt { key: Some(key), entries: &entries, contents });
        }
        if self.is_closing() {
            return Err(Reason::ShuttingDown);
        }
        if self.join.is_some() {
            return Err(Reason::Joining);
        }
        if self.tickets.len() > self.config.limits.submissions_max {
            return Err(Reason::Overloaded { waiting: self.tickets.len() - 1 });
        }
        if let Some((until, detail)) = &self.store_refuses
            && self.now.instant < *until
        {
            return Err(Reason::Store { detail: detail.clone() });
        }
        for entry in &submission.entries {
            let comes_along = submission.contents.iter().any(|content| content.hash == entry.hash);
            if entry.size <= INLINE_LEN_MAX && entry.size > 0 && !comes_along && !self.contents.contains(&entry.hash) {
                return Err(Reason::ContentMissing { hash: entry.hash });
            }
        }
        if let Some(first) = key.and_then(|key| self.waiting.under(key)) {
            if !same_entries(&first.submission.entries, &submission.entries) {
                return Err(Reason::KeyConflict { uid: None });
            }
            first.tickets.push(ticket);
            return Ok(());
        }
        for entry in submission.entries.iter().filter(|entry| !entry.flags.deleted) {
            if let Some(existing) = self.index.clash(&entry.path) {
                return Err(Reason::PathClash { existing });
            }
        }
        self.reserve_times();
        self.waiting.insert(ticket, submission, key);
        Ok(())
    }

    /// The publication that this SP knows under a key of a publisher.
    pub(super) fn named_by(&self, publisher: &str, key: &str) -> Option<Uid> {
        self.named(Key::new(publisher, key))
    }

    /// The publication that this SP knows under a key: one whose exchange has begun, or its own that still may.
    fn named(&self, key: Key) -> Option<Uid> {
        self.keys.of(key).or_else(|| self.deciding.of(key))
    }

    /// What an attempt comes to whose content the store has refused. Where its key names a publication here, that may be
    /// agreed all the same.
    pub fn outcome_of_refused(&self, publisher: &str, key: Option<&str>, detail: String) -> Outcome {
        let reason = Reason::Store { detail };
        match key.and_then(|key| self.named_by(publisher, key)).filter(|uid| self.may_name(*uid)) {
            Some(uid) => Outcome::Undetermined { uid: Some(uid), superseded_by: None, reason },
            None => Outcome::Rejected { reason },
        }
    }

    /// The publication that an attempt under `key` is. While the store is being filled, only one whose fate is known.
    fn known_under(&self, key: Key) -> Option<Uid> {
        let uid = self.named(key).or_else(|| self.awaited.under(key))?;
        let is_settled = |uid: &Uid| {
            let known = self.publications.get(uid);
            known.is_some_and(|one| one.superseded_by.is_some() || (one.agreed && one.hold == Hold::Durable))
        };
        Some(uid).filter(|uid| self.join.is_none() || is_settled(uid))
    }

    /// All that waits goes with one query.
    pub(super) fn start_query(&mut self) {
        let lack_quorum = self.queries.values().filter(|query| !query.has_quorum);
        if !self.waiting.has_fresh() || lack_quorum.count() >= QUERIES_MAX || !self.is_serving() {
            return;
        }
        let fresh = self.waiting.take_fresh();
        let is_fast = |first: &Ticket| {
            let order = self.waiting.get(*first).and_then(|waiting| waiting.submission.order);
            order.unwrap_or(self.config.order) == Order::Fast
        };
        let (fast, strict): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_fast);
        if !strict.is_empty() {
            let greatest = match mutant::active(Mutant::AnswerKnowsAgreedOnly) {
                true => self.greatest_agreed(),
                false => self.greatest,
            };
            self.ask(strict, Order::Strict, greatest, BTreeMap::from([(self.config.me, self.now.wall)]));
        }
        if !fast.is_empty() {
            self.try_fast(fast);
        }
    }

    /// A query about these: `strict` asks all, `fast` only where what was heard before is not enough.
    fn ask(&mut self, places: Vec<Ticket>, order: Order, greatest: Uid, clocks: BTreeMap<SpId, Micros>) {
        let request = self.new_request();
        self.waiting.ask(&places, request);
        let query = Query {
            request,
            open: places.len(),
            places,
            asks_keys: order == Order::Strict,
            has_quorum: false,
            greatest,
            clocks,
            held: BTreeMap::new(),
        };
        let message = self.message(&query);
        if order == Order::Strict {
            self.send_to_all(&message);
        }
        self.queries.insert(request, query);
        self.try_to_order(request);
        if order == Order::Fast && self.queries.contains_key(&request) {
            self.send_to_all(&message);
        }
    }

    fn message(&self, query: &Query) -> Message {
        let key = |first: &Ticket| {
            let waiting = self.waiting.get(*first)?;
            let Submission { publisher, key, .. } = &waiting.submission;
            Some((publisher.clone(), key.clone().unwrap_or_default()))
        };
        // Places of what waits no more must not move.
        let keys = query.places.iter().filter(|_| query.asks_keys).map(|first| key(first).unwrap_or_default());
        Message::OrderQuery { request: query.request, keys: keys.collect() }
    }

    pub(super) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId { starts: self.starts, number: self.next_request }
    }

    /// `fast` asks nobody: the clocks heard last say whether a quorum would store the publication. Where they do not say
    /// so, it asks for clocks.
    fn try_fast(&mut self, places: Vec<Ticket>) {
        let wall = self.now.wall.0 as i64;
        let heard =
            self.peers.iter().filter_map(|(sp, peer)| Some((*sp, Micros((wall + peer.clock_offset_us?) as u64))));
        let clocks = heard.chain([(self.config.me, self.now.wall)]).collect();
        self.ask(places, Order::Fast, Uid::ZERO, clocks);
    }

    /// A peer has (again) connected: it gets the queries that wait for it, and says its clock.
    pub(super) fn ask_again(&mut self, peer: SpId) {
        let waits_for_it = |query: &&Query| !query.clocks.contains_key(&peer);
        let open: Vec<Message> = self.queries.values().filter(waits_for_it).map(|query| self.message(query)).collect();
        if open.is_empty() {
            let request = self.new_request();
            self.send(peer, Message::OrderQuery { request, keys: Vec::new() });
        }
        open.into_iter().for_each(|message| self.send(peer, message));
    }

    pub(super) fn answer_order_query(&mut self, from: SpId, request: RequestId, keys: &[(String, String)]) {
        if !self.is_serving() && !mutant::active(Mutant::JoiningAnswersQueries) {
            return;
        }
        let find = |(i, (publisher, key)): (usize, &(String, String))| {
            Some((i as u32, self.keys.of(Key::new(publisher, key))?))
        };
        let held = keys.iter().enumerate().filter_map(find).filter(|(_, uid)| self.may_name(*uid));
        let holds = held.collect();
        let agreed_only = mutant::active(Mutant::AnswerKnowsAgreedOnly);
        let greatest = if agreed_only { self.greatest_agreed() } else { self.greatest };
        let clock = self.now.wall;
        self.send(from, Message::OrderAnswer { request, greatest, clock, holds });
    }

    fn greatest_agreed(&self) -> Uid {
        let agreed = self.publications.iter().rev().find(|(_, publication)| publication.agreed);
        agreed.map_or(Uid::ZERO, |(uid, _)| *uid)
    }

    pub(super) fn take_order_answer(
        &mut self,
        from: SpId,
        request: RequestId,
        greatest: Uid,
        clock: Micros,
        holds: &[(u32, Uid)],
    ) {
        self.note_clock(from, clock);
        let asked = |query: &&mut Query| {
            let earlier = mutant::active(Mutant::AnswersOfEarlierQuery) && request < query.request;
            query.request == request || earlier
        };
        let Some(query) = self.queries.values_mut().find(asked) else { return };
        let request = query.request;
        query.greatest = query.greatest.max(greatest);
        query.clocks.insert(from, clock);
        query.held.extend(holds.iter().map(|(place, uid)| (*place, (*uid, from))));
        self.try_to_order(request);
    }

    /// A peer has said what its wall clock says.
    pub(super) fn note_clock(&mut self, from: SpId, clock: Micros) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.clock_offset_us = Some((clock.0 as i64).wrapping_sub(self.now.wall.0 as i64));
        }
    }

    /// With answers from a quorum: a UID for each submission of the query, or what else becomes of it.
    fn try_to_order(&mut self, request: RequestId) {
        let answered = self.queries.get(&request).map(Query::answered);
        if !answered.is_some_and(|answered| self.counts_as_quorum(answered)) {
            return;
        }
        let Some(mut query) = self.queries.remove(&request) else { return };
        (query.open, query.has_quorum) = (0, true);
        for (place, first) in query.places.iter().enumerate() {
            let Some(waiting) = self.waiting.get(*first) else { continue };
            let verdict = self.judge(&query, place as u32, &waiting.submission);
            if let Verdict::NeedMoreClocks = verdict {
                query.open += 1;
                continue;
            }
            let Some(waiting) = self.waiting.remove(*first) else { continue };
            match verdict {
                Verdict::Take(uid) => self.take_uid(uid, waiting),
                Verdict::Complete(uid, from) => self.complete_all(uid, from, waiting),
                Verdict::Reject(reason) => self.reject_all(waiting, &reason),
                Verdict::NeedMoreClocks => {}
            }
        }
        if query.open > 0 {
            self.queries.insert(request, query);
        }
    }

    fn judge(&self, query: &Query, place: u32, submission: &Submission) -> Verdict {
        if let Some((uid, from)) = query.held.get(&place) {
            return Verdict::Complete(*uid, Some(*from));
        }
        if let Some(uid) = key_of(submission).and_then(|key| self.named(key)) {
            return Verdict::Complete(uid, None);
        }
        let own = if mutant::active(Mutant::AnswerKnowsAgreedOnly) { Uid::ZERO } else { self.greatest };
        let floor = query.greatest.max(own).max(submission.known.unwrap_or(Uid::ZERO));
        let time = self.clock.candidate(self.now.wall, Micros(floor.micros));
        let half = self.config.max_drift / 2;
        let near = |clock: &Micros| clock.after(half) >= time;
        let ready: SpSet = query.clocks.iter().filter(|(_, clock)| near(clock)).map(|(sp, _)| *sp).collect();
        let too_far_here = self.now.wall.after(self.config.max_drift) < time;
        let all_said = query.clocks.len() == self.config.members.len();
        match self.quorum.is_quorum(ready) && !too_far_here {
            true => {
                let unnumbered = mutant::active(Mutant::UidWithoutStoreNumber);
                let store = if unnumbered { 0 } else { self.config.store.number };
                Verdict::Take(Uid { micros: time.0, sp: self.config.me, store })
            }
            false if all_said || too_far_here => Verdict::Reject(self.clock_ahead(query, time)),
            false => Verdict::NeedMoreClocks,
        }
    }

    fn clock_ahead(&self, query: &Query, time: Micros) -> Reason {
        let mut clocks: Vec<Micros> = query.clocks.values().copied().collect();
        clocks.sort_unstable_by(|a, b| b.cmp(a));
        let place = (self.quorum.fewest() - 1).min(clocks.len() - 1);
        Reason::ClockAhead { ahead: Duration::from_micros(time.0.saturating_sub(clocks[place].0)) }
    }

    /// The submission becomes the publication `uid`.
    fn take_uid(&mut self, uid: Uid, waiting: Waiting) {
        self.clock.advance(Micros(uid.micros));
        self.reserve_times();
        let Submission { publisher, key, entries, contents, .. } = waiting.submission;
        let manifest = Arc::new(Manifest { uid, publisher, key, entries, unknown: Vec::new() });
        for ticket in &waiting.tickets {
            self.name(*ticket, uid);
        }
        self.offer(manifest, contents, waiting.tickets);
    }

    pub(super) fn name(&mut self, ticket: Ticket, uid: Uid) {
        if let Some(state) = self.tickets.get_mut(&ticket) {
            *state = TicketState::Named { deadline: state.deadline(), uid };
        }
    }

    fn complete_all(&mut self, uid: Uid, from: Option<SpId>, waiting: Waiting) {
        let key = key_of(&waiting.submission);
        let Submission { entries, mut contents, .. } = waiting.submission;
        for ticket in waiting.tickets {
            let attempt = Attempt { key, entries: &entries, contents: std::mem::take(&mut contents) };
            if let Err(reason) = self.complete(ticket, uid, attempt) {
                self.finish(ticket, Outcome::Rejected { reason });
            }
        }
        if let Some(from) = from.filter(|_| !self.publications.contains_key(&uid)) {
            self.want(uid, from, false);
        }
    }

    /// The attempt `ticket` is the publication `uid`, which its key names already.
    fn complete(&mut self, ticket: Ticket, uid: Uid, attempt: Attempt<'_>) -> Result<(), Reason> {
        let Some(publication) = self.publications.get_mut(&uid) else {
            self.name(ticket, uid);
            self.awaited.insert(uid, ticket, attempt);
            return Ok(());
        };
        if !same_entries(&publication.manifest.entries, attempt.entries) {
            return Err(Reason::KeyConflict { uid: Some(uid) });
        }
        let outcome = match publication.superseded_by {
            Some(by) => {
                Outcome::Undetermined { uid: Some(uid), superseded_by: Some(by), reason: Reason::Superseded { by } }
            }
            None if publication.agreed && publication.hold == Hold::Durable => Outcome::Accepted { uid },
            None => {
                publication.tickets.push(ticket);
                self.name(ticket, uid);
                if mutant::active(Mutant::KeyCompletesUnstarted) {
                    self.set_own_bit(uid);
                }
                self.hand_in(uid, &attempt.contents);
                return Ok(());
            }
        };
        self.finish(ticket, outcome);
        Ok(())
    }

    /// An attempt brings the contents of `uid`: those that are missing here need not be fetched.
    fn hand_in(&mut self, uid: Uid, contents: &[InlineContent]) {
        let Some(publication) = self.publications.get(&uid).filter(|one| one.hold == Hold::Fetching) else { return };
        let missing = |entry: &&Entry| publication.missing.contains(&entry.hash);
        let missing: Vec<Entry> = publication.manifest.entries.iter().filter(missing).cloned().collect();
        for Entry { hash, size, .. } in missing {
            let inline = contents.iter().find(|content| content.hash == hash).cloned();
            if inline.is_some() || size > INLINE_LEN_MAX {
                self.content_was_handed_in(uid, hash, inline);
            }
        }
    }

    /// The publication that attempts under its key waited for is here.
    pub(super) fn complete_those_that_waited(&mut self, uid: Uid) {
        let Some(Awaited { attempts, mut contents, .. }) = self.awaited.remove(uid) else { return };
        for (ticket, entries) in attempts {
            let attempt = Attempt { key: None, entries: &entries, contents: std::mem::take(&mut contents) };
            if let Err(reason) = self.complete(ticket, uid, attempt) {
                self.finish(ticket, Outcome::Rejected { reason });
            }
        }
    }

    fn reject_all(&mut self, waiting: Waiting, reason: &Reason) {
        for ticket in waiting.tickets {
            self.finish(ticket, Outcome::Rejected { reason: reason.clone() });
        }
    }

    /// Tells the publisher.
    pub(super) fn finish(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(state) = self.tickets.remove(&ticket) else { return };
        self.deadlines.remove(&(state.deadline(), ticket));
        match outcome {
            Outcome::Accepted { .. } => self.status.accepted_total += 1,
            Outcome::Rejected { .. } => self.status.rejected_total += 1,
            Outcome::Undetermined { .. } => self.status.undetermined_total += 1,
        }
        self.event(Event::Outcome { ticket, outcome });
    }

    /// Submissions whose time is over: *rejected* while nothing has left, else *undetermined*. Time counts from when a peer
    /// last asked for a part of a large content.
    pub(super) fn expire_tickets(&mut self) {
        while let Some(&(at, ticket)) = self.deadlines.first() {
            if at > self.now.instant {
                return;
            }
            match self.tickets.get(&ticket) {
                Some(TicketState::Waiting { .. }) => self.give_up_waiting(ticket),
                Some(&TicketState::Named { uid, .. }) => match self.travels_until(uid) {
                    Some(deadline) if deadline > self.now.instant => {
                        self.deadlines.remove(&(at, ticket));
                        self.deadlines.insert((deadline, ticket));
                        self.tickets.insert(ticket, TicketState::Named { deadline, uid });
                    }
                    _ => self.give_up_named(ticket, uid),
                },
                None => {
                    self.deadlines.remove(&(at, ticket));
                }
            }
        }
    }

    /// `two-phase`, before the exchange has begun: it never will, so all attempts are rejected. Else: undetermined.
    fn give_up_named(&mut self, ticket: Ticket, uid: Uid) {
        self.awaited.give_up(uid, ticket);
        let publication = self.publications.get_mut(&uid);
        let too_late = mutant::active(match self.config.mode {
            Mode::Fused => Mutant::RejectedAfterOffer,
            Mode::TwoPhase => Mutant::RejectedAfterExchangeStarted,
        });
        if publication.as_ref().is_some_and(|publication| publication.undecided) {
            return self.abort(uid);
        }
        let (holders, agreed) = publication.map_or((SpSet::EMPTY, false), |publication| {
            publication.tickets.retain(|other| *other != ticket);
            (publication.bits, publication.agreed)
        });
        let outcome = match too_late {
            // Its content has not come here yet.
            _ if agreed => Outcome::Accepted { uid },
            true => Outcome::Rejected { reason: self.no_quorum(holders) },
            false => {
                let reason = Reason::NoAgreement { holders: ids(holders) };
                let uid = Some(uid).filter(|uid| self.may_name(*uid));
                Outcome::Undetermined { uid, superseded_by: None, reason }
            }
        };
        self.finish(ticket, outcome);
    }

    /// `two-phase`: too few have confirmed in time. Presumed abort: nobody begins the exchange from now on, so nobody
    /// needs to hear of the publication any more. Those that have stored it keep it until a newer one of its paths is
    /// agreed: they confirmed it, and cannot know that this SP has not begun.
    fn abort(&mut self, uid: Uid) {
        self.decide(uid);
        self.unschedule_resend(uid);
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        let (tickets, confirmed) = (std::mem::take(&mut publication.tickets), publication.confirmed);
        let manifest = Arc::clone(&publication.manifest);
        let reason = self.no_quorum(confirmed);
        // The key may name another publication here by now, of an attempt at another SP.
        let key = manifest.key.as_ref().map(|key| Key::new(&manifest.publisher, key));
        let other = key.and_then(|key| self.keys.of(key)).filter(|other| *other != uid);
        for ticket in tickets {
            let refused = other.map(|other| {
                let attempt = Attempt { key, entries: &manifest.entries, contents: Vec::new() };
                self.complete(ticket, other, attempt)
            });
            match refused {
                Some(Ok(())) => {}
                Some(Err(reason)) => self.finish(ticket, Outcome::Rejected { reason }),
                None => self.finish(ticket, Outcome::Rejected { reason: reason.clone() }),
            }
        }
    }

    /// The first attempt takes those that joined it along: they are one publication, which will now never be.
    fn give_up_waiting(&mut self, ticket: Ticket) {
        let nobody = self.no_quorum(SpSet::one(self.config.me));
        let Some(waiting) = self.waiting.remove(ticket) else {
            return self.finish(ticket, Outcome::Rejected { reason: nobody });
        };
        let query = waiting.query.and_then(|request| self.queries.get_mut(&request));
        let Some(query) = query else { return self.complete_or_reject(waiting, &nobody) };
        query.open -= 1;
        let (request, answered) = (query.request, query.answered());
        if query.open == 0 {
            self.queries.remove(&request);
        }
        let reason = match self.quorum.is_quorum(answered) {
            true => Reason::ClockAhead { ahead: self.config.max_drift / 2 },
            false => self.no_quorum(answered),
        };
        self.complete_or_reject(waiting, &reason);
    }

    /// The key may have come to name a publication here meanwhile, by an attempt at another SP.
    fn complete_or_reject(&mut self, waiting: Waiting, reason: &Reason) {
        match key_of(&waiting.submission).and_then(|key| self.named(key)) {
            Some(uid) => self.complete_all(uid, None, waiting),
            None => self.reject_all(waiting, reason),
        }
    }

    fn no_quorum(&self, answered: SpSet) -> Reason {
        Reason::NoQuorum { answered: ids(answered), needed: self.quorum.fewest(), members: self.config.members.len() }
    }
}

impl Query {
    pub(super) fn answered(&self) -> SpSet {
        self.clocks.keys().copied().collect()
    }
}

impl TicketState {
    fn deadline(self) -> Instant {
        match self {
            TicketState::Waiting { deadline } | TicketState::Named { deadline, .. } => deadline,
        }
    }
}

fn key_of(submission: &Submission) -> Option<Key> {
    submission.key.as_ref().map(|key| Key::new(&submission.publisher, key))
}

fn same_entries(a: &[Entry], b: &[Entry]) -> bool {
    let same = |a: &Entry, b: &Entry| (&a.path, a.hash, a.flags) == (&b.path, b.hash, b.flags);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Config, Durable, Flags, Hash, Limits, Now, QuorumSystem, StoreId,
        io::{Output, WriteId},
        message::Vector,
    };
    use std::time::Duration;

    const WALL: u64 = 1_000_000_000_000;

    fn at(ms: u64) -> Now {
        Now { instant: Instant(ms * 1_000_000), wall: Micros(WALL + ms * 1_000) }
    }

    /// Storage point 1 of `n`, connected to all others; with them it has nothing under way.
    fn one_of(n: u8) -> StoragePoint {
        let config = Config {
            cluster: "test".into(),
            epoch: 1,
            me: SpId(1),
            store: StoreId { number: 0, nonce: 1 },
            members: (1..=n).map(SpId).collect(),
            mode: Mode::Fused,
            order: Order::Strict,
            quorum: QuorumSystem::default(),
            max_drift: Duration::from_secs(3_600),
            limits: Limits::default(),
        };
        let mut sp = StoragePoint::new(config, 1, Vec::new(), at(0)).expect("a good configuration");
        flush(&mut sp, at(0));
        (2..=n).for_each(|peer| sp.handle_connected(at(0), SpId(peer)));
        flush(&mut sp, at(0));
        sp
    }

    fn outputs(sp: &mut StoragePoint) -> Vec<Output> {
        std::iter::from_fn(|| sp.poll_output()).collect()
    }

    fn writes(outputs: &[Output]) -> Vec<WriteId> {
        let write = |output: &Output| match output {
            Output::Persist { id, .. } => Some(*id),
            _ => None,
        };
        outputs.iter().filter_map(write).collect()
    }

    /// All writes become durable, and what comes of that.
    fn flush(sp: &mut StoragePoint, now: Now) -> Vec<Output> {
        let mut seen = Vec::new();
        loop {
            let new = outputs(sp);
            let writes = writes(&new);
            seen.extend(new);
            if writes.is_empty() {
                return seen;
            }
            writes.into_iter().for_each(|id| sp.handle_persisted(now, id));
        }
    }

    fn submission(path: &str) -> Submission {
        let content = InlineContent { hash: Hash::of(b"1"), bytes: "1".into() };
        let (hash, path) = (content.hash, path.parse().expect("a path"));
        let entry = Entry { path, hash, size: 1, content_type: String::new(), flags: Flags::default() };
        Submission {
            publisher: "test".into(),
            key: None,
            known: None,
            order: None,
            entries: vec![entry],
            contents: vec![content],
        }
    }

    /// Answers the query that is among `asked`, for storage point 2.
    fn answer(sp: &mut StoragePoint, now: Now, asked: &[Output]) {
        let request = asked.iter().find_map(|output| match output {
            Output::Send { message: Message::OrderQuery { request, keys }, .. } if !keys.is_empty() => Some(*request),
            _ => None,
        });
        let request = request.expect("a query is out");
        let answer = Message::OrderAnswer { request, greatest: Uid::ZERO, clock: now.wall, holds: Vec::new() };
        sp.handle_message(now, SpId(2), answer);
    }

    fn sent(outputs: &[Output], is_it: impl Fn(&Message) -> bool) -> Vec<SpId> {
        let to = |output: &Output| match output {
            Output::Send { to, message } if is_it(message) => Some(*to),
            _ => None,
        };
        outputs.iter().filter_map(to).collect()
    }

    #[test]
    fn what_the_store_refused_before_its_offer_could_leave_is_rejected_and_never_leaves() {
        let mut sp = one_of(3);
        // Past the ceiling that the start may have asked for.
        let now = at(60_000);
        sp.submit(now, submission("a"));
        let asked = outputs(&mut sp);
        let mut refused = writes(&asked);
        answer(&mut sp, now, &asked);
        let mut taken = outputs(&mut sp);
        assert!(sent(&taken, |message| matches!(message, Message::Offer { .. })).is_empty());
        refused.extend(writes(&taken));
        refused.into_iter().for_each(|id| sp.handle_refused(now, id, "full"));
        taken = flush(&mut sp, now);
        let outcome = taken.iter().find_map(|output| match output {
            Output::Event(Event::Outcome { outcome, .. }) => Some(outcome),
            _ => None,
        });
        assert!(matches!(outcome, Some(Outcome::Rejected { reason: Reason::Store { .. } })), "{outcome:?}");
        sp.handle_timeout(at(62_000));
        taken.extend(flush(&mut sp, at(62_000)));
        assert!(sent(&taken, |message| matches!(message, Message::Offer { .. })).is_empty());
    }

    #[test]
    fn a_relay_goes_with_a_commit_once_it_has_waited_half_its_time() {
        let mut sp = one_of(7);
        let offered = |sp: &mut StoragePoint, now: Now, path: &str, micros: u64| {
            let uid = Uid { micros: WALL + micros, sp: SpId(2), store: 0 };
            let Submission { publisher, entries, contents, .. } = submission(path);
            let manifest = Arc::new(Manifest { uid, publisher, key: None, entries, unknown: Vec::new() });
            sp.valid_bits = sp.config.members.iter().copied().collect();
            sp.handle_message(now, SpId(2), Message::Offer { manifest, contents, agreed: false });
            uid
        };
        let uid = offered(&mut sp, at(10), "a", 1);
        flush(&mut sp, at(10));
        let is_of = |message: &Message| matches!(message, Message::Vector(vector) if vector.uid == uid);
        sp.handle_message(at(10), SpId(3), Message::Vector(Vector { uid, bits: SpSet::one(SpId(3)) }));
        offered(&mut sp, at(11), "b", 2);
        assert!(sent(&flush(&mut sp, at(11)), is_of).is_empty(), "too early: others have it from 3 itself");
        offered(&mut sp, at(13), "c", 3);
        let to = sent(&flush(&mut sp, at(13)), is_of);
        assert_eq!(to, [2, 3, 4, 5, 6, 7].map(SpId), "with this commit; nobody is known to have heard both bits");
    }

    #[test]
    fn what_is_agreed_is_settled_only_with_its_content() {
        let mut sp = one_of(3);
        let uid = Uid { micros: WALL + 1, sp: SpId(2), store: 0 };
        let Submission { publisher, entries, contents, .. } = submission("a");
        let manifest = Arc::new(Manifest { uid, publisher, key: None, entries, unknown: Vec::new() });
        sp.handle_message(at(10), SpId(2), Message::Offer { manifest, contents, agreed: true });
        assert!(sp.publication(uid).is_some_and(|known| known.agreed), "a peer has said so");
        assert!(!sp.is_settled(uid) && sp.lookup(&"a".parse().unwrap()).is_none(), "a read would not find it");
        flush(&mut sp, at(10));
        assert!(sp.is_settled(uid) && sp.lookup(&"a".parse().unwrap()).is_some_and(|entry| entry.uid == uid));
    }

    #[test]
    fn a_refused_ceiling_is_asked_for_again_after_a_while() {
        let mut sp = one_of(3);
        let asks_for_it = |outputs: &[Output]| {
            let of_it = |record: &Durable| matches!(record, Durable::Ceiling { .. });
            outputs.iter().any(|output| matches!(output, Output::Persist { records, .. } if records.iter().any(of_it)))
        };
        sp.submit(at(60_000), submission("a"));
        let asked = outputs(&mut sp);
        assert!(asks_for_it(&asked));
        writes(&asked).into_iter().for_each(|id| sp.handle_refused(at(60_000), id, "full"));
        assert!(!asks_for_it(&outputs(&mut sp)), "a full disk would be asked without end");
        sp.handle_timeout(at(61_500));
        let again = outputs(&mut sp);
        assert!(asks_for_it(&again));
        writes(&again).into_iter().for_each(|id| sp.handle_persisted(at(61_500), id));
        sp.submit(at(61_600), submission("b"));
        assert!(!asks_for_it(&outputs(&mut sp)), "it is durable");
    }

    #[test]
    fn what_is_agreed_is_accepted_though_its_content_is_on_its_way() {
        let mut sp = one_of(3);
        let uid = Uid { micros: WALL + 1, sp: SpId(2), store: 0 };
        let Submission { publisher, entries, .. } = submission("a");
        let manifest = Arc::new(Manifest { uid, publisher, key: None, entries, unknown: Vec::new() });
        sp.handle_message(at(10), SpId(2), Message::Offer { manifest, contents: Vec::new(), agreed: true });
        flush(&mut sp, at(10));
        let known = sp.publication(uid).expect("it was offered");
        assert!(known.agreed && known.outcome.outcome.as_deref() == Some("accepted"), "{known:?}");
        assert!(!sp.is_settled(uid), "its content is missing");
    }
}
