//! Submissions and the order query: how a submission gets a UID above everything accepted before it began.
//!
//! One query serves all submissions that arrived before it left. Invariant: until a UID is taken nothing has left this
//! SP, neither its clock nor its ceiling has moved on the submission's behalf, and it can be rejected for good.

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Duration, Entry, Instant, Manifest, Message, Micros, Order, Outcome, Reason, SpId, SpSet, StoragePoint, Uid,
    durable::INLINE_LEN_MAX,
    exchange::Hold,
    io::{Event, Submission, Ticket},
    message::RequestId,
    outcome::ids,
};
use std::{collections::BTreeMap, sync::Arc};

/// Order queries that may be out at once; further submissions wait and share the next one.
const QUERIES_MAX: usize = 4;

/// A submission that has no UID yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The first attempt and those that joined it under its key.
    pub(super) tickets: Vec<Ticket>,
    pub(super) submission: Submission,
}

/// An order query that is out.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) request: RequestId,
    pub(super) waiting: Vec<Waiting>,
    greatest: Uid,
    clocks: BTreeMap<SpId, Micros>,
    /// Publications under the keys asked for, by place in the query; `None` once places no longer mean anything.
    held: Option<BTreeMap<u32, (Uid, SpId)>>,
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
        if let Some(key) = &submission.key {
            if let Some(uid) = self.named_by(&submission.publisher, key) {
                return self.complete(ticket, uid, &submission.entries);
            }
            if let Some(first) = self.waiting_under(&submission.publisher, key) {
                if !same_entries(&first.submission.entries, &submission.entries) {
                    return Err(Reason::KeyConflict { uid: None });
                }
                first.tickets.push(ticket);
                return Ok(());
            }
        }
        for entry in submission.entries.iter().filter(|entry| !entry.flags.deleted) {
            if let Some(existing) = self.index.clash(&entry.path) {
                return Err(Reason::PathClash { existing });
            }
        }
        self.reserve_times();
        self.waiting.push(Waiting { tickets: vec![ticket], submission });
        Ok(())
    }

    /// The publication that this SP knows under a key: one whose exchange has begun, or its own that still may.
    pub(super) fn named_by(&self, publisher: &str, key: &str) -> Option<Uid> {
        self.keys.of(publisher, key).or_else(|| self.deciding.of(publisher, key))
    }

    fn waiting_under(&mut self, publisher: &str, key: &str) -> Option<&mut Waiting> {
        let queries = self.queries.iter_mut().flat_map(|query| query.waiting.iter_mut());
        let is_it = |waiting: &&mut Waiting| {
            waiting.submission.key.as_deref() == Some(key) && waiting.submission.publisher == publisher
        };
        queries.chain(self.waiting.iter_mut()).find(is_it)
    }

    /// All that waits goes with one query.
    pub(super) fn start_query(&mut self) {
        if self.waiting.is_empty() || self.queries.len() >= QUERIES_MAX || !self.is_serving() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        let is_fast = |waiting: &Waiting| waiting.submission.order.unwrap_or(self.config.order) == Order::Fast;
        let (fast, strict): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_fast);
        if !strict.is_empty() {
            self.ask(strict);
        }
        if !fast.is_empty() {
            self.try_fast(fast);
        }
    }

    fn ask(&mut self, waiting: Vec<Waiting>) {
        let request = self.new_request();
        let query = Query {
            request,
            waiting,
            greatest: if mutant::active(Mutant::AnswerKnowsAgreedOnly) {
                self.greatest_agreed()
            } else {
                self.greatest
            },
            clocks: BTreeMap::from([(self.config.me, self.now.wall)]),
            held: Some(BTreeMap::new()),
        };
        self.send_to_all(&query.message());
        self.queries.push(query);
        self.try_to_order(request);
    }

    pub(super) fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId { starts: self.starts, number: self.next_request }
    }

    /// `fast` asks nobody; the clocks heard last say whether a quorum would store the publication. Where too few
    /// clocks were ever heard, it asks like `strict`.
    fn try_fast(&mut self, waiting: Vec<Waiting>) {
        let wall = self.now.wall.0 as i64;
        let heard =
            self.peers.iter().filter_map(|(sp, peer)| Some((*sp, Micros((wall + peer.clock_offset_us?) as u64))));
        let clocks: BTreeMap<SpId, Micros> = heard.chain([(self.config.me, self.now.wall)]).collect();
        if !self.quorum.is_quorum(clocks.keys().copied().collect()) {
            return self.ask(waiting);
        }
        let query =
            Query { request: self.new_request(), waiting, greatest: Uid::ZERO, clocks, held: Some(BTreeMap::new()) };
        let request = query.request;
        self.queries.push(query);
        self.try_to_order(request);
    }

    /// A peer has (again) connected: it gets the queries that wait for it, and says its clock.
    pub(super) fn ask_again(&mut self, peer: SpId) {
        let open: Vec<Message> =
            self.queries.iter().filter(|query| !query.clocks.contains_key(&peer)).map(Query::message).collect();
        if open.is_empty() {
            let request = self.new_request();
            self.send(peer, Message::OrderQuery { request, keys: Vec::new() });
        }
        open.into_iter().for_each(|message| self.send(peer, message));
    }

    pub(super) fn answer_order_query(&mut self, from: SpId, request: RequestId, keys: &[(String, String)]) {
        if !self.is_serving() {
            return;
        }
        let find = |(i, (publisher, key)): (usize, &(String, String))| Some((i as u32, self.keys.of(publisher, key)?));
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
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.clock_offset_us = Some((clock.0 as i64).wrapping_sub(self.now.wall.0 as i64));
        }
        let asked = |query: &&mut Query| {
            let earlier = mutant::active(Mutant::AnswersOfEarlierQuery) && request < query.request;
            query.request == request || earlier
        };
        let Some(query) = self.queries.iter_mut().find(asked) else { return };
        let request = query.request;
        query.greatest = query.greatest.max(greatest);
        query.clocks.insert(from, clock);
        if let Some(held) = &mut query.held {
            held.extend(holds.iter().map(|(place, uid)| (*place, (*uid, from))));
        }
        self.try_to_order(request);
    }

    /// With answers from a quorum: a UID for each submission of the query, or what else becomes of it.
    fn try_to_order(&mut self, request: RequestId) {
        let Some(place) = self.queries.iter().position(|query| query.request == request) else { return };
        if !self.counts_as_quorum(self.queries[place].answered()) {
            return;
        }
        let mut query = self.queries.swap_remove(place);
        let mut keep = Vec::new();
        for (index, waiting) in std::mem::take(&mut query.waiting).into_iter().enumerate() {
            if waiting.tickets.is_empty() {
                continue;
            }
            match self.judge(&query, index as u32, &waiting.submission) {
                Verdict::NeedMoreClocks => keep.push(waiting),
                Verdict::Take(uid) => self.take_uid(uid, waiting),
                Verdict::Complete(uid, from) => self.complete_all(uid, from, waiting),
                Verdict::Reject(reason) => self.reject_all(waiting, &reason),
            }
        }
        if !keep.is_empty() {
            // The places have moved. A key that was agreed before this query began was found by the quorum.
            query.held = None;
            query.waiting = keep;
            self.queries.push(query);
        }
    }

    fn judge(&self, query: &Query, index: u32, submission: &Submission) -> Verdict {
        if let Some((uid, from)) = query.held.as_ref().and_then(|held| held.get(&index)) {
            return Verdict::Complete(*uid, Some(*from));
        }
        let named = submission.key.as_ref().and_then(|key| self.named_by(&submission.publisher, key));
        if let Some(uid) = named {
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
        for ticket in waiting.tickets {
            if let Err(reason) = self.complete(ticket, uid, &waiting.submission.entries) {
                self.finish(ticket, Outcome::Rejected { reason });
            }
        }
        if let Some(from) = from.filter(|_| !self.publications.contains_key(&uid)) {
            self.want(uid, from, false);
        }
    }

    /// The attempt `ticket` is the publication `uid`, which its key names already.
    fn complete(&mut self, ticket: Ticket, uid: Uid, entries: &[Entry]) -> Result<(), Reason> {
        let Some(publication) = self.publications.get_mut(&uid) else {
            self.name(ticket, uid);
            self.completing.entry(uid).or_default().push((ticket, entries.to_vec()));
            return Ok(());
        };
        if !same_entries(&publication.manifest.entries, entries) {
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
                return Ok(());
            }
        };
        self.finish(ticket, outcome);
        Ok(())
    }

    /// The publication that attempts under its key waited for is here.
    pub(super) fn complete_those_that_waited(&mut self, uid: Uid) {
        for (ticket, entries) in self.completing.remove(&uid).unwrap_or_default() {
            if self.tickets.contains_key(&ticket)
                && let Err(reason) = self.complete(ticket, uid, &entries)
            {
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

    /// Submissions whose time is over: *rejected* while nothing has left, else *undetermined*.
    pub(super) fn expire_tickets(&mut self) {
        while let Some(&(at, ticket)) = self.deadlines.first() {
            if at > self.now.instant {
                return;
            }
            match self.tickets.get(&ticket) {
                Some(TicketState::Waiting { .. }) => self.give_up_waiting(ticket),
                Some(&TicketState::Named { uid, .. }) => self.give_up_named(ticket, uid),
                None => {
                    self.deadlines.remove(&(at, ticket));
                }
            }
        }
    }

    /// `two-phase`, before the exchange has begun: it never will, so all attempts are rejected. Else: undetermined.
    fn give_up_named(&mut self, ticket: Ticket, uid: Uid) {
        if let Some(attempts) = self.completing.get_mut(&uid) {
            attempts.retain(|(other, _)| *other != ticket);
        }
        let publication = self.publications.get_mut(&uid);
        let too_late =
            mutant::active(Mutant::RejectedAfterOffer) || mutant::active(Mutant::RejectedAfterExchangeStarted);
        if publication.as_ref().is_some_and(|publication| publication.undecided) {
            return self.abort(uid);
        }
        let holders = publication.map_or(SpSet::EMPTY, |publication| {
            publication.tickets.retain(|other| *other != ticket);
            publication.bits
        });
        let outcome = match too_late {
            true => Outcome::Rejected { reason: self.no_quorum(holders) },
            false => {
                let reason = Reason::NoAgreement { holders: ids(holders) };
                let uid = Some(uid).filter(|uid| self.may_name(*uid));
                Outcome::Undetermined { uid, superseded_by: None, reason }
            }
        };
        self.finish(ticket, outcome);
    }

    /// `two-phase`: too few have confirmed in time. Presumed abort: nobody begins the exchange from now on.
    fn abort(&mut self, uid: Uid) {
        self.decide(uid);
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        let (tickets, confirmed) = (std::mem::take(&mut publication.tickets), publication.confirmed);
        let reason = self.no_quorum(confirmed);
        for ticket in tickets {
            self.finish(ticket, Outcome::Rejected { reason: reason.clone() });
        }
    }

    /// The first attempt takes those that joined it along: they are one publication, which will now never be.
    fn give_up_waiting(&mut self, ticket: Ticket) {
        let is_it = |waiting: &Waiting| waiting.tickets.contains(&ticket);
        if let Some(place) = self.waiting.iter().position(is_it) {
            let waiting = self.waiting.remove(place);
            return self.reject_all(waiting, &self.no_quorum(SpSet::one(self.config.me)));
        }
        let mut found = None;
        for query in &mut self.queries {
            if let Some(place) = query.waiting.iter().position(is_it) {
                // The places of the others in the query must not move.
                let emptied =
                    Submission { entries: Vec::new(), contents: Vec::new(), ..query.waiting[place].submission.clone() };
                let left = Waiting { tickets: Vec::new(), submission: emptied };
                found = Some((std::mem::replace(&mut query.waiting[place], left), query.answered()));
            }
        }
        self.queries.retain(|query| query.waiting.iter().any(|waiting| !waiting.tickets.is_empty()));
        if let Some((waiting, answered)) = found {
            let reason = match self.quorum.is_quorum(answered) {
                true => Reason::ClockAhead { ahead: self.config.max_drift / 2 },
                false => self.no_quorum(answered),
            };
            self.reject_all(waiting, &reason);
        }
    }

    fn no_quorum(&self, answered: SpSet) -> Reason {
        Reason::NoQuorum { answered: ids(answered), needed: self.quorum.fewest(), members: self.config.members.len() }
    }
}

impl Query {
    fn message(&self) -> Message {
        let key = |waiting: &Waiting| {
            let Submission { publisher, key, .. } = &waiting.submission;
            (publisher.clone(), key.clone().unwrap_or_default())
        };
        Message::OrderQuery { request: self.request, keys: self.waiting.iter().map(key).collect() }
    }

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

fn same_entries(a: &[Entry], b: &[Entry]) -> bool {
    let same = |a: &Entry, b: &Entry| (&a.path, a.hash, a.flags) == (&b.path, b.hash, b.flags);
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}
