//! The storage point: one state machine, its parts in files of their own.
//!
//! [`order`](super::order) finds a UID for a submission, [`exchange`](super::exchange) replicates the publication and
//! agrees on it, [`transfer`](super::transfer) fetches contents, [`merge`](super::merge) catches up by index merging,
//! [`freshness`](super::freshness) finds out as of when nothing is missing, [`join`](super::join) fills a new store,
//! [`retention`](super::retention) lets go; [`index`](super::index) and [`changes`](super::changes) are what it serves.
//! This file holds what they share: writes, peers, timers.
//!
//! Invariants: nothing that a message or an outcome depends on is sent before it is durable; a set bit of this SP means
//! that it holds manifest and contents durably; outputs of one cycle leave after the sequence with its entries was
//! minted, so that a publisher reads what it wrote.

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Config, Durable, Duration, Hash, Instant, Message, Now, Path, SpId, SpSet, StoreId, Uid,
    api::Incarnation,
    attempts::{AwaitedSet, WaitingSet},
    changes::ChangeFeed,
    clock::HybridClock,
    config::ConfigError,
    contents::HeldContents,
    exchange::{Hold, Publication},
    freshness::Freshness,
    index::Index,
    io::{Event, Output, PeerSeen, Status, Ticket, WriteId},
    join::Join,
    keys::Keys,
    merge::{Merge, WantedSet},
    message::{Header, RequestId},
    order::{Query, TicketState},
    quorum::Quorum,
    random::Random,
    transfer::Transfers,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long lazy records may wait for a commit to travel with.
const LAZY: Duration = Duration::from_millis(50);
/// A root is announced to peers this often at most.
const ANNOUNCE: Duration = Duration::from_secs(1);

/// What becomes true when a write is durable.
#[derive(Clone, Debug)]
pub(super) enum Written {
    Started,
    Ceiling(crate::protocol::Micros),
    Held(Uid),
    OwnBit(Uid),
    Store(SpId, u32),
    AsOf(crate::protocol::Micros),
    Joined,
}

/// A write under way: what becomes true, and the records that must be asked for again should it fail.
#[derive(Debug, Default)]
struct Write {
    done: Vec<Written>,
    again: Vec<Durable>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) connected: bool,
    /// Its wall clock minus ours, when it last said.
    pub(super) clock_offset_us: Option<i64>,
    /// The as-of request that it was asked last, and when.
    pub(super) asked: Option<(RequestId, Instant)>,
    pub(super) seen: Option<PeerSeen>,
    pub(super) root: Option<Hash>,
    pub(super) differs_since: Option<Instant>,
}

impl Peer {
    /// What is known of a peer beyond its link.
    fn outlasting(&self) -> Peer {
        Peer { clock_offset_us: self.clock_offset_us, seen: self.seen, ..Peer::default() }
    }
}

/// One SP.
#[derive(Debug)]
pub struct StoragePoint {
    pub(super) config: Config,
    pub(super) quorum: Quorum,
    config_hash: [u8; 8],
    pub(super) now: Now,
    pub(super) random: Random,
    pub(super) starts: u32,
    started: bool,
    /// A newer store of this SP exists: this one takes part in nothing any more.
    void: bool,
    closing: bool,
    /// This store is not filled yet.
    pub(super) join: Option<Join>,
    /// Peers with new stores whose ids are not durable here yet, and what they ask.
    pub(super) waiting_joins: BTreeMap<SpId, (RequestId, Uid)>,
    pub(super) clock: HybridClock,
    pub(super) stores: BTreeMap<SpId, StoreId>,
    /// Greatest store number of each SP that is known durably.
    pub(super) stores_durable: BTreeMap<SpId, u32>,
    /// SPs whose bits in the frame being handled are of the stores known here.
    pub(super) valid_bits: SpSet,
    pub(super) peers: BTreeMap<SpId, Peer>,

    /// Greatest UID held durably or known agreed.
    pub(super) greatest: Uid,
    pub(super) publications: BTreeMap<Uid, Publication>,
    pub(super) pending_of_path: BTreeMap<Path, BTreeSet<Uid>>,
    pub(super) keys: Keys,
    /// `two-phase`: keys of this SP's own publications that it may still reject.
    pub(super) deciding: Keys,
    /// Earlier versions of each path whose contents are kept, oldest first.
    pub(super) versions: BTreeMap<Path, VecDeque<Uid>>,
    /// Contents needed no more, and when they may go.
    pub(super) releases: VecDeque<(Instant, Uid)>,
    pub(super) retired: VecDeque<Uid>,
    pub(super) resends: BTreeSet<(Instant, Uid)>,
    pub(super) relays: BTreeSet<Uid>,
    pub(super) relay_at: Option<Instant>,
    pub(super) awaiting_ceiling: Vec<(Uid, Message)>,

    pub(super) waiting: WaitingSet,
    pub(super) queries: BTreeMap<RequestId, Query>,
    pub(super) next_request: u64,
    pub(super) next_ticket: u64,
    pub(super) tickets: BTreeMap<Ticket, TicketState>,
    pub(super) deadlines: BTreeSet<(Instant, Ticket)>,
    pub(super) awaited: AwaitedSet,

    pub(super) contents: HeldContents,
    pub(super) transfers: Transfers,
    pub(super) wanted: WantedSet,
    pub(super) merges: BTreeMap<SpId, Merge>,
    pub(super) freshness: Freshness,

    pub(super) index: Index,
    pub(super) feed: ChangeFeed,
    changed: BTreeSet<Path>,
    pub(super) root_sequence: u64,
    ahead_since: Option<Instant>,
    last_insert: Instant,
    announced_at: Instant,
    announced: Hash,

    pub(super) outputs: VecDeque<Output>,
    batch: Vec<Durable>,
    batch_done: Vec<Written>,
    lazy: Vec<Durable>,
    lazy_since: Option<Instant>,
    writes: BTreeMap<WriteId, Write>,
    next_write: u64,
    cycle_open: bool,
    pub(super) store_refuses: Option<(Instant, String)>,
    pub(super) status: Status,
}

impl StoragePoint {
    /// From what its store recovered. Its first output persists that it has started; it connects to peers only once
    /// [`has_started`](Self::has_started), and answers readers and publishers only while
    /// [`is_serving`](Self::is_serving): a store that `acms replace` made is filled first.
    pub fn new(config: Config, seed: u64, recovered: Vec<Durable>, now: Now) -> Result<StoragePoint, ConfigError> {
        config.validate()?;
        let others = config.members.iter().filter(|sp| **sp != config.me);
        let hash = config.hash().0;
        let limits = &config.limits;
        let mut sp = StoragePoint {
            quorum: Quorum::new(&config.quorum, &config.members)?,
            config_hash: std::array::from_fn(|i| hash[i]),
            now,
            random: Random::new(seed),
            starts: 0,
            started: false,
            void: false,
            closing: false,
            join: None,
            waiting_joins: BTreeMap::new(),
            clock: HybridClock::default(),
            stores: BTreeMap::from([(config.me, config.store)]),
            stores_durable: BTreeMap::new(),
            valid_bits: SpSet::EMPTY,
            peers: others.map(|sp| (*sp, Peer::default())).collect(),
            greatest: Uid::ZERO,
            publications: BTreeMap::new(),
            pending_of_path: BTreeMap::new(),
            keys: Keys::default(),
            deciding: Keys::default(),
            versions: BTreeMap::new(),
            releases: VecDeque::new(),
            retired: VecDeque::new(),
            resends: BTreeSet::new(),
            relays: BTreeSet::new(),
            relay_at: None,
            awaiting_ceiling: Vec::new(),
            waiting: WaitingSet::default(),
            queries: BTreeMap::new(),
            // Requests of an earlier store of this SP must not be answered to this one.
            next_request: u64::from(config.store.number) << 40,
            next_ticket: 0,
            tickets: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            awaited: AwaitedSet::default(),
            contents: HeldContents::default(),
            transfers: Transfers::default(),
            wanted: WantedSet::default(),
            merges: BTreeMap::new(),
            freshness: Freshness::new(now.instant),
            index: Index::new(limits.roots_kept),
            feed: ChangeFeed::new(now.instant, limits.changes_kept, limits.changes_bytes_max),
            changed: BTreeSet::new(),
            root_sequence: 1,
            ahead_since: None,
            last_insert: now.instant,
            announced_at: now.instant,
            announced: Hash::default(),
            outputs: VecDeque::new(),
            batch: Vec::new(),
            batch_done: Vec::new(),
            lazy: Vec::new(),
            lazy_since: None,
            writes: BTreeMap::new(),
            next_write: 0,
            cycle_open: true,
            store_refuses: None,
            status: Status::default(),
            config,
        };
        sp.recover(recovered);
        sp.starts += 1;
        sp.persist(Durable::Started { starts: sp.starts }, Some(Written::Started));
        Ok(sp)
    }

    /// Replays the log.
    fn recover(&mut self, recovered: Vec<Durable>) {
        let mut ceiling = crate::protocol::Micros(0);
        let mut joined = self.config.store.number == 0;
        for record in recovered {
            match record {
                Durable::Started { starts } => self.starts = self.starts.max(starts),
                Durable::Ceiling { micros } => ceiling = ceiling.max(micros),
                Durable::Store { sp, store } => self.recover_store(sp, store),
                Durable::Held { manifest, own_bit, .. } => self.recover_held(manifest, own_bit),
                Durable::OwnBit { uid } => self.recover_own_bit(uid),
                Durable::Agreed { uid } => self.recover_agreed(uid),
                Durable::Dropped { uid, superseded_by } => self.forget_pending(uid, superseded_by),
                Durable::AsOf { micros } => self.freshness.recover(micros),
                Durable::Joined => joined = true,
                Durable::Released { uid } => self.recover_released(uid),
                Durable::Forgotten { uid } => self.recover_forgotten(uid),
            }
        }
        if !joined {
            self.join = Some(Join::default());
        }
        if mutant::active(Mutant::NoClockCeiling) {
            ceiling = crate::protocol::Micros(0);
        }
        self.clock = HybridClock::recovered(ceiling);
        self.index.mint_root(self.now.instant);
        // After it: what was recovered is in the new root and in none before it.
        self.freshness.root_was_minted(self.index.root());
        self.ahead_since = None;
        self.changed.clear();
        // A store that is not filled sends no bit.
        if self.join.is_none() {
            self.schedule_recovered();
        }
    }

    /// Whether the start is durable, so that this SP may speak to its peers.
    pub fn has_started(&self) -> bool {
        self.started && !self.void
    }

    /// Whether it takes submissions and answers readers and questions of its peers: it has started, and its store is
    /// filled.
    pub fn is_serving(&self) -> bool {
        self.started && !self.void && self.join.is_none()
    }

    /// Which life of this SP this is.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation { store: self.config.store.number, starts: self.starts }
    }

    /// The configuration that it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The greatest store number known of each SP, this one's own among them.
    pub fn store_numbers(&self) -> impl Iterator<Item = (SpId, u32)> + '_ {
        self.stores.iter().map(|(sp, store)| (*sp, store.number))
    }

    /// The header of every frame sent now.
    pub fn header(&self) -> Header {
        Header {
            epoch: self.config.epoch,
            config: self.config_hash,
            from: self.config.me,
            store: self.config.store,
            stores: self
                .stores
                .iter()
                .filter(|(sp, _)| **sp != self.config.me && !mutant::active(Mutant::VectorsCarryStoresOfSetBitsOnly))
                .map(|(sp, id)| (*sp, *id))
                .collect(),
        }
    }

    // ---- Inputs ---------------------------------------------------------------------------------------------------

    /// The link to `peer` is up: both sides have said hello with equal configuration.
    pub fn handle_connected(&mut self, now: Now, peer: SpId) {
        self.begin(now);
        if !self.has_started() {
            return;
        }
        let Some(state) = self.peers.get_mut(&peer) else { return };
        *state = Peer { connected: true, ..state.outlasting() };
        if self.join.is_some() {
            return self.ask_to_join(peer);
        }
        self.greet(peer);
    }

    /// What a peer that has just connected needs to know: root, open questions, pending vectors.
    fn greet(&mut self, peer: SpId) {
        // The peer merges with this root, so it must have everything that is agreed here.
        self.mint_sequence();
        self.mint_root();
        let root = self.index.root();
        self.send(peer, Message::Root { root });
        self.ask_again(peer);
        self.ask_as_of(peer);
        self.exchange_with(peer);
    }

    /// The link to `peer` is down.
    pub fn handle_disconnected(&mut self, now: Now, peer: SpId) {
        self.begin(now);
        if let Some(state) = self.peers.get_mut(&peer) {
            *state = state.outlasting();
        }
        self.merge_failed(peer);
        self.leave_source(peer);
    }

    /// A frame has come: call this once, then [`handle_message`](Self::handle_message) for each of its messages.
    /// False: drop the frame, its sender is no member or has another configuration.
    pub fn handle_header(&mut self, now: Now, header: &Header) -> bool {
        self.begin(now);
        if header.epoch != self.config.epoch
            || header.config != self.config_hash
            || !self.peers.contains_key(&header.from)
        {
            let detail = "a frame of another configuration was dropped".to_owned();
            self.event(Event::PeerProblem { peer: header.from, detail });
            return false;
        }
        let said = header.stores.iter().copied().chain([(header.from, header.store)]);
        let overlooks_others = mutant::active(Mutant::JoinRepliesWithoutStoreIds) && self.join.is_some();
        let overlooks_sender = mutant::active(Mutant::JoinKeepsOldStoreId);
        for (sp, store) in said.clone() {
            let is_overlooked =
                (overlooks_others && sp != header.from) || (overlooks_sender && self.stores.contains_key(&sp));
            if !is_overlooked {
                self.learn_store(sp, store);
            }
        }
        self.valid_bits = said.filter(|(sp, store)| self.stores.get(sp) == Some(store)).map(|(sp, _)| sp).collect();
        if overlooks_sender {
            self.valid_bits = self.valid_bits.union(SpSet::one(header.from));
        }
        self.valid_bits.contains(header.from) && !self.void
    }

    /// A message of the frame whose header was handled last.
    pub fn handle_message(&mut self, now: Now, from: SpId, message: Message) {
        self.begin(now);
        if !self.peers.contains_key(&from) || !self.has_started() {
            return;
        }
        if self.join.is_some() {
            return self.handle_message_while_joining(from, message);
        }
        match message {
            Message::OrderQuery { request, keys } => self.answer_order_query(from, request, &keys),
            Message::OrderAnswer { request, greatest, clock, holds } => {
                self.take_order_answer(from, request, greatest, clock, &holds);
            }
            Message::Offer { manifest, contents, agreed } => self.take_offer(from, manifest, contents, agreed),
            Message::Refuse { uid, cause, clock } => self.take_refusal(from, uid, cause, clock),
            Message::Vector(vector) => self.take_vector(from, vector),
            Message::Agreed { uid, newest } => self.take_agreed(from, uid, newest),
            Message::PublicationRequest { uid } => self.answer_publication_request(from, uid),
            Message::ContentRequest { hash, offset, len } => self.answer_content_request(from, hash, offset, len),
            Message::ContentChunk { hash, offset, total, bytes } => self.take_chunk(from, hash, offset, total, bytes),
            Message::Missing { what } => self.take_missing(from, what),
            Message::Root { root } => self.take_root(from, root),
            Message::NodeRequest { hash } => self.answer_node_request(from, hash),
            Message::Node { bytes } => self.take_node(from, &bytes),
            Message::Stored { uid } => self.take_confirmation(from, uid),
            Message::AsOfRequest { request, merged } => self.answer_as_of_request(from, request, merged),
            Message::AsOfReply { request, reply } => self.take_as_of_reply(from, request, reply),
            Message::JoinRequest { request, after } => self.take_join_request(from, request, after),
            Message::JoinReply { .. } => {}
        }
    }

    /// A store that is not filled yet takes part in nothing but its own filling.
    fn handle_message_while_joining(&mut self, from: SpId, message: Message) {
        match message {
            Message::JoinReply { request, after, page } => self.take_join_reply(from, request, after, page),
            Message::ContentChunk { hash, offset, total, bytes } => self.take_chunk(from, hash, offset, total, bytes),
            Message::Missing { what } => self.take_missing(from, what),
            Message::OrderQuery { request, keys } if mutant::active(Mutant::JoiningAnswersQueries) => {
                self.answer_order_query(from, request, &keys);
            }
            _ => {}
        }
        self.go_on_joining();
    }

    /// The write is durable.
    pub fn handle_persisted(&mut self, now: Now, id: WriteId) {
        self.begin(now);
        self.store_refuses = None;
        let done = self.writes.remove(&id).unwrap_or_default().done;
        if done.iter().any(|written| matches!(written, Written::Held(_) | Written::OwnBit(_))) {
            self.relay_with_commit();
        }
        for written in done {
            match written {
                Written::Started => self.started = true,
                Written::Ceiling(micros) => {
                    self.clock.ceiling_is_durable(micros);
                    self.send_offers_that_waited();
                }
                Written::Held(uid) => self.is_durable(uid),
                Written::OwnBit(uid) => self.own_bit_is_set(uid),
                Written::Store(sp, number) => self.store_is_durable(sp, number),
                Written::AsOf(micros) => self.as_of_is_durable(micros),
                Written::Joined => self.joined(),
            }
        }
        self.go_on_joining();
    }

    /// The store refused the write and nothing of it was written (a full disk). Publications in it are given up here;
    /// the rest is asked for again.
    pub fn handle_refused(&mut self, now: Now, id: WriteId, detail: &str) {
        self.begin(now);
        let write = self.writes.remove(&id).unwrap_or_default();
        self.store_refuses = Some((now.instant.after(Duration::from_secs(1)), detail.to_owned()));
        for written in write.done {
            match written {
                Written::Held(uid) => self.could_not_hold(uid, detail),
                Written::AsOf(_) => {}
                // Their records are asked for again.
                done @ (Written::Started
                | Written::Ceiling(_)
                | Written::OwnBit(_)
                | Written::Store(..)
                | Written::Joined) => self.batch_done.push(done),
            }
        }
        let again = write.again.into_iter().filter(|record| !matches!(record, Durable::AsOf { .. }));
        self.lazy.splice(0..0, again.collect::<Vec<_>>());
        self.lazy_since = Some(now.instant.after(Duration::from_secs(1)));
    }

    /// The time asked for by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Now) {
        self.begin(now);
        self.expire_tickets();
        self.resend();
        self.relay();
        self.pump_wanted();
        self.check_transfers();
        self.compare_roots();
        if self.root_is_due().is_some_and(|at| at <= now.instant) {
            self.mint_sequence();
            self.mint_root();
        }
        if self.is_serving() && self.idle_at() <= now.instant {
            self.mint_idle_sequence();
        }
        self.release_due();
        self.refresh();
        self.remind_joining();
    }

    /// The process ends: new submissions are rejected, lazy records written.
    pub fn shut_down(&mut self, now: Now) {
        self.begin(now);
        self.closing = true;
        self.lazy_since = Some(Instant(0));
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    // ---- Outputs --------------------------------------------------------------------------------------------------

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        if std::mem::take(&mut self.cycle_open) {
            self.close_cycle();
        }
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Uid)>| set.first().map(|(at, _)| *at);
        let others = [
            self.deadlines.first().map(|(at, _)| *at),
            first(&self.resends),
            self.relay_at,
            self.wanted_at(),
            self.transfers_at(),
            self.compare_at(),
            self.root_is_due(),
            self.lazy_since.map(|at| at.after(LAZY)),
            self.is_serving().then(|| self.idle_at()),
            self.release_at(),
            self.refresh_at(),
            self.join_at(),
        ];
        others.into_iter().flatten().min()
    }

    pub(super) fn begin(&mut self, now: Now) {
        self.now = Now { instant: now.instant.max(self.now.instant), wall: now.wall };
        self.cycle_open = true;
    }

    fn close_cycle(&mut self) {
        self.start_query();
        self.mint_sequence();
        let lazy_is_due = self.lazy_since.is_some_and(|at| at.after(LAZY) <= self.now.instant);
        if self.batch.is_empty() && !lazy_is_due {
            return;
        }
        // What was lazily put off happened before what this cycle adds.
        let mut records = std::mem::take(&mut self.lazy);
        self.lazy_since = None;
        records.append(&mut self.batch);
        let done = std::mem::take(&mut self.batch_done);
        if records.is_empty() {
            return;
        }
        let id = WriteId(self.next_write);
        self.next_write += 1;
        // A publication that could not be held is given up; one that is only remembered is not.
        let is_held_later = |uid: Uid| done.iter().any(|one| matches!(one, Written::Held(other) if *other == uid));
        let is_given_up = |record: &&Durable| match record {
            Durable::Held { manifest, .. } => is_held_later(manifest.uid),
            _ => false,
        };
        let again = records.iter().filter(|record| !is_given_up(record)).cloned().collect();
        self.writes.insert(id, Write { done, again });
        self.outputs.push_front(Output::Persist { id, records });
    }

    pub(super) fn send(&mut self, to: SpId, message: Message) {
        if self.peers.get(&to).is_some_and(|peer| peer.connected) {
            self.outputs.push_back(Output::Send { to, message });
        }
    }

    pub(super) fn send_to_all(&mut self, message: &Message) {
        let connected: Vec<SpId> = self.connected().collect();
        connected.into_iter().for_each(|to| self.send(to, message.clone()));
    }

    pub(super) fn connected(&self) -> impl Iterator<Item = SpId> + '_ {
        self.peers.iter().filter(|(_, peer)| peer.connected).map(|(sp, _)| *sp)
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Makes `record` durable with this cycle's commit.
    pub(super) fn persist(&mut self, record: Durable, done: Option<Written>) {
        self.batch.push(record);
        self.batch_done.extend(done);
    }

    /// Makes `record` durable some time soon; nothing depends on it.
    pub(super) fn persist_lazily(&mut self, record: Durable) {
        self.lazy.push(record);
        self.lazy_since.get_or_insert(self.now.instant);
    }

    /// Asks for a higher ceiling if too little of it is left.
    pub(super) fn reserve_times(&mut self) {
        if let Some(micros) = self.clock.ceiling_to_ask(self.now.wall) {
            self.persist(Durable::Ceiling { micros }, Some(Written::Ceiling(micros)));
        }
    }

    /// Learns a store of `sp`, durably no later than any bit learned with it. A newer one voids the bits of all older
    /// ones; a newer one of this SP ends this one's part in everything.
    fn learn_store(&mut self, sp: SpId, store: StoreId) {
        let known = self.stores.get(&sp).copied();
        let is_newer = known.is_none_or(|known| store.number > known.number)
            || (mutant::active(Mutant::StoreIdsWithoutOrder) && known.is_some_and(|known| store != known));
        if !is_newer || !self.config.members.contains(&sp) {
            return;
        }
        if sp == self.config.me {
            self.void = true;
            self.outputs.clear();
            return self.event(Event::StoreIsVoid { newer: store });
        }
        self.stores.insert(sp, store);
        if known.is_some() && !mutant::active(Mutant::OldStoreBitsCounted) {
            self.void_bits(sp);
        }
        if mutant::active(Mutant::StoreLearnedLazily) {
            self.persist_lazily(Durable::Store { sp, store });
            self.store_is_durable(sp, store.number);
        } else {
            self.persist(Durable::Store { sp, store }, Some(Written::Store(sp, store.number)));
        }
        let header = self.header();
        self.output(Output::StoresChanged(header));
    }

    fn void_bits(&mut self, sp: SpId) {
        for publication in self.publications.values_mut().filter(|publication| !publication.agreed) {
            publication.bits = publication.bits.minus(SpSet::one(sp));
            publication.heard.clear();
        }
        self.wanted.void_bits(sp);
    }

    fn recover_store(&mut self, sp: SpId, store: StoreId) {
        if sp != self.config.me && self.stores.insert(sp, store).is_some() {
            self.void_bits(sp);
        }
        self.stores_durable.insert(sp, store.number);
    }

    fn store_is_durable(&mut self, sp: SpId, number: u32) {
        let known = self.stores_durable.entry(sp).or_default();
        *known = number.max(*known);
        self.answer_waiting_joins();
    }

    /// Whether nothing waits for its write.
    pub(super) fn has_no_writes(&self) -> bool {
        self.writes.is_empty()
    }

    /// The store is filled, and that is durable: it serves, and says what it holds.
    fn joined(&mut self) {
        self.join = None;
        self.schedule_recovered();
        self.event(Event::Joined);
        let connected: Vec<SpId> = self.connected().collect();
        connected.into_iter().for_each(|peer| self.greet(peer));
    }

    // ---- What is served -------------------------------------------------------------------------------------------

    pub(super) fn changed(&mut self, path: &Path) {
        self.changed.insert(path.clone());
        self.last_insert = self.now.instant;
        self.ahead_since.get_or_insert(self.now.instant);
    }

    pub(super) fn mint_sequence(&mut self) {
        if self.changed.is_empty() {
            return;
        }
        let paths: Vec<Path> = std::mem::take(&mut self.changed).into_iter().collect();
        let sequence = self.feed.mint(self.now.instant, &paths);
        self.outputs.push_front(Output::Event(Event::Changed { sequence, paths }));
    }

    fn mint_idle_sequence(&mut self) {
        let sequence = self.feed.mint(self.now.instant, &[]);
        if !self.index.is_ahead_of_root() {
            self.root_sequence = sequence;
        }
        self.event(Event::Changed { sequence, paths: Vec::new() });
    }

    fn idle_at(&self) -> Instant {
        self.feed.minted_at().after(self.config.limits.idle_sequence)
    }

    fn root_is_due(&self) -> Option<Instant> {
        let limits = &self.config.limits;
        self.ahead_since.map(|since| self.last_insert.after(limits.root_quiet).min(since.after(limits.root_max)))
    }

    pub(super) fn mint_root(&mut self) {
        self.index.mint_root(self.now.instant);
        self.freshness.root_was_minted(self.index.root());
        self.root_sequence = self.feed.current();
        self.ahead_since = None;
    }

    /// Announces a new root, not too often, and merges with peers whose roots have differed for long.
    fn compare_roots(&mut self) {
        if !self.is_serving() {
            return;
        }
        let root = self.index.root();
        if root != self.announced && self.announced_at.after(ANNOUNCE) <= self.now.instant {
            (self.announced, self.announced_at) = (root, self.now.instant);
            self.send_to_all(&Message::Root { root });
            self.note_roots();
        }
        self.merge_where_due();
    }

    fn compare_at(&self) -> Option<Instant> {
        if !self.is_serving() {
            return None;
        }
        let announce = (self.index.root() != self.announced).then(|| self.announced_at.after(ANNOUNCE));
        [announce, self.merge_at()].into_iter().flatten().min()
    }

    /// How peers were found when they last answered; of those without a link that is the last that was seen of them.
    pub fn peers_seen(&self) -> impl Iterator<Item = (SpId, PeerSeen)> + '_ {
        self.peers.iter().filter_map(|(sp, peer)| Some((*sp, peer.seen?)))
    }

    /// Numbers for status and metrics.
    pub fn status(&self) -> Status {
        // What was dropped before it was held is waited for no more.
        let is_pending = |publication: &&Publication| {
            let is_open = publication.is_pending() || publication.hold != Hold::Durable;
            is_open && publication.superseded_by.is_none()
        };
        Status {
            pending: self.publications.values().rev().take(100_000).filter(is_pending).count(),
            paths: self.index.live(),
            submissions: self.tickets.len(),
            peers_connected: self.connected().count(),
            ..self.status.clone()
        }
    }
}
