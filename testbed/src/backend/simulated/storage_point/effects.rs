//! What a storage point's state machine asks for in a cycle, carried out in the simulated world, and what of it is said in
//! the trace.

use super::{Done, Pending};
use crate::{
    backend::simulated::{
        Taken,
        connection::Segment,
        disk::Disk,
        host::{HostId, Input},
        http::PublishAnswer,
        peer::Peers,
        reads::Reads,
        shared::{Ending, Shared},
    },
    trace::{Kind, Template},
};
use acms_engine::{
    mutant::{self, Mutant},
    protocol::{
        Durable, Entry, Hash, Manifest, Message, Outcome, Prefix, SpId, StoragePoint, StoreId, Uid,
        api::ListedEntry,
        durable::INLINE_LEN_MAX,
        io::{Environment, Event, Ticket, WriteId},
        message::{Header, Wanted},
    },
    runtime::storage_point::{
        committer::{Committer, Unanswered, Write},
        object::FindsDamage,
        parts::read_chunk,
    },
    store::{Contents, MemoryStorage},
    wire,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

/// Says which own bits are durable by these records, of publications that they do not call agreed.
pub(super) fn say_stored(
    shared: &mut Shared<'_>,
    me: HostId,
    (store, contents): (StoreId, &Contents<MemoryStorage>),
    records: &[Durable],
) {
    let agreed: BTreeSet<Uid> = records
        .iter()
        .filter_map(|record| if let Durable::Agreed { uid } = record { Some(*uid) } else { None })
        .collect();
    let cause = store.to_string();
    for record in records {
        let (uid, missing) = match record {
            Durable::Held { manifest, own_bit: true, .. } => {
                let is_missing = |entry: &&Entry| entry.size > 0 && contents.len(&entry.hash).is_none();
                (manifest.uid, manifest.entries.iter().find(is_missing))
            }
            Durable::OwnBit { uid } => (*uid, None),
            _ => continue,
        };
        if !agreed.contains(&uid) {
            let about = Template {
                path: missing.map(|entry| entry.path.as_str()),
                uid: Some(uid),
                outcome: missing.map(|_| "content-missing"),
                cause: Some(&cause),
                ..Template::default()
            };
            shared.say(me, Kind::Stored, about);
        }
    }
}

/// Says something of an entry of the index.
fn say_entry(shared: &mut Shared<'_>, me: HostId, kind: Kind, entry: &ListedEntry) {
    let about = Template {
        path: Some(entry.path.as_str()),
        uid: Some(entry.uid),
        hash: Some(entry.hash),
        outcome: entry.flags.deleted.then_some("deleted"),
        ..Template::default()
    };
    shared.say(me, kind, about);
}

/// Says what the index has from the former life.
pub(super) fn say_recovered(shared: &mut Shared<'_>, me: HostId, machine: &StoragePoint) {
    let entries = machine.list(&Prefix::default(), "", usize::MAX);
    let count = entries.len().to_string();
    shared.say(me, Kind::Recovered, Template { cause: Some(&count), ..Template::default() });
    entries.iter().for_each(|entry| say_entry(shared, me, Kind::Recovered, entry));
}

#[derive(Default)]
pub(super) struct Outgoing {
    control: Vec<Message>,
    bulk: Vec<Message>,
}

/// What the protocol asks for in one cycle, carried out.
pub(super) struct Effects<'e, 's> {
    pub(super) shared: &'e mut Shared<'s>,
    pub(super) me: HostId,
    pub(super) disk: &'e mut Disk,
    pub(super) contents: &'e Contents<MemoryStorage>,
    pub(super) peers: &'e mut Peers,
    pub(super) reads: &'e mut Reads,
    pub(super) committer: &'e mut Committer<MemoryStorage>,
    pub(super) unanswered: &'e mut Unanswered,
    pub(super) held: &'e mut Vec<(WriteId, Vec<Durable>)>,
    pub(super) tickets: &'e mut BTreeMap<Ticket, Pending>,
    pub(super) header: &'e mut Header,
    pub(super) outgoing: BTreeMap<SpId, Outgoing>,
    /// Contents that were found damaged, with their sizes where they are known.
    pub(super) damaged: Vec<(Hash, Option<u64>)>,
    pub(super) has_found: bool,
    /// Everything that is sent and said, if somebody wants to see it.
    pub(super) seen: Option<Taken>,
}

impl Effects<'_, '_> {
    /// The cycle's messages for one peer go in one frame, if it is not too long.
    pub(super) fn send_frames(&mut self) {
        for (to, Outgoing { control, bulk }) in mem::take(&mut self.outgoing) {
            for (messages, is_bulk) in [(control, false), (bulk, true)] {
                if !messages.is_empty() {
                    self.peers.send(to, wire::encode_frames(self.header, &messages).frames, is_bulk);
                }
            }
        }
    }

    fn say_agreed(&mut self, manifest: &Manifest) {
        for entry in &manifest.entries {
            self.shared.say(
                self.me,
                Kind::Agreed,
                Template {
                    publication: manifest.key.as_deref(),
                    path: Some(entry.path.as_str()),
                    uid: Some(manifest.uid),
                    hash: Some(entry.hash),
                    outcome: entry.flags.deleted.then_some("deleted"),
                    ..Template::default()
                },
            );
        }
    }

    fn take_outcome(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Some(pending) = self.tickets.remove(&ticket) else { return };
        let (kind, cause) = match outcome {
            Outcome::Accepted { .. } => (Kind::Accepted, None),
            Outcome::Rejected { reason } => (Kind::Rejected, Some(reason.to_string())),
            Outcome::Undetermined { reason, .. } => (Kind::Undetermined, Some(reason.to_string())),
        };
        let about = Template {
            publication: pending.key.as_deref(),
            path: Some(pending.path.as_str()),
            uid: outcome.uid(),
            hash: Some(pending.hash),
            outcome: Some(outcome.word()),
            cause: cause.as_deref(),
        };
        self.shared.say(self.me, kind, about);
        let answer = PublishAnswer { outcome: outcome.word(), uid: outcome.uid(), cause };
        self.shared.send(pending.connection, self.me, Segment::Published(Box::new(answer)));
    }
}

impl FindsDamage for Effects<'_, '_> {
    fn take_damaged(&mut self) -> Vec<(Hash, Option<u64>)> {
        self.has_found |= !self.damaged.is_empty();
        mem::take(&mut self.damaged)
    }
}

impl Environment for Effects<'_, '_> {
    fn send(&mut self, to: SpId, message: Message) {
        if let Some(seen) = &mut self.seen {
            seen.sent.push((to, message.clone()));
        }
        if self.peers.is_up(to) {
            let outgoing = self.outgoing.entry(to).or_default();
            match message {
                Message::ContentChunk { .. } => outgoing.bulk.push(message),
                _ => outgoing.control.push(message),
            }
        }
    }

    fn persist(&mut self, id: WriteId, records: Vec<Durable>) {
        if mutant::active(Mutant::HoldRecords) {
            return self.held.push((id, records));
        }
        self.unanswered.ask(id);
        self.committer.take(Write::Records(id, records));
    }

    fn send_content(&mut self, to: SpId, hash: Hash, offset: u64, len: u32) {
        match self.contents.len(&hash) {
            None => {
                self.damaged.push((hash, None));
                self.send(to, Message::Missing { what: Wanted::Content(hash) });
            }
            Some(total) if total <= INLINE_LEN_MAX => {
                let message = read_chunk(self.contents, hash, offset, len).unwrap_or_else(|size| {
                    self.damaged.push((hash, Some(size)));
                    Message::Missing { what: Wanted::Content(hash) }
                });
                self.send(to, message);
            }
            Some(total) => {
                let read_first = if self.contents.needs_comparing(&hash) { total } else { 0 };
                let took_ns = self.disk.read_ns(self.shared.now_ns, read_first + u64::from(len));
                self.shared.later(self.me, took_ns, Input::Done(Done::Read { to, hash, offset, len }));
            }
        }
    }

    fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: Bytes) {
        let took_ns = self.disk.stage_ns(self.shared.now_ns, bytes.len() as u64);
        self.shared.later(self.me, took_ns, Input::Done(Done::Stage { hash, offset, total, bytes }));
    }

    fn abort_stage(&mut self, hash: Hash) {
        let took_ns = self.disk.read_ns(self.shared.now_ns, 0);
        self.shared.later(self.me, took_ns, Input::Done(Done::AbortStage { hash }));
    }

    fn stores_changed(&mut self, header: Header) {
        self.send_frames();
        self.peers.set_header(header.clone());
        *self.header = header;
    }

    fn event(&mut self, _sp: &StoragePoint, event: Event) {
        if let Some(seen) = &mut self.seen {
            seen.events.push(event.clone());
        }
        match event {
            Event::Outcome { ticket, outcome } => self.take_outcome(ticket, &outcome),
            Event::Agreed { manifest } => self.say_agreed(&manifest),
            Event::Merged { entry } => say_entry(self.shared, self.me, Kind::Merged, &entry),
            Event::Dropped { uid, superseded_by } => {
                let cause = format!("superseded by {superseded_by}");
                let about = Template { uid: Some(uid), cause: Some(&cause), ..Template::default() };
                self.shared.say(self.me, Kind::Dropped, about);
            }
            Event::AsOf { micros } => {
                let cause = micros.0.to_string();
                self.shared.say(self.me, Kind::AsOf, Template { cause: Some(&cause), ..Template::default() });
            }
            Event::StoreIsVoid { newer } => {
                let problem = format!("store {newer} has taken this one's place");
                self.shared.ended.push((self.me, Ending::Unexpected(problem)));
            }
            Event::Changed { paths, .. } => self.reads.note(&paths),
            _ => {}
        }
    }
}
