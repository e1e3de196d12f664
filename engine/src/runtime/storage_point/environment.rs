//! What the protocol asks for, carried out: messages gathered by peer, writes to the commit thread, events written,
//! outcomes and changes gathered for the HTTP side.

use crate::{
    protocol::{
        Durable, Hash, Instant, Manifest, Message, Outcome, Path, SpId, StoragePoint, StoreId,
        durable::INLINE_LEN_MAX,
        io::{Environment, Event, Ticket, WriteId},
        message::{Header, Wanted},
    },
    runtime::{
        clock,
        events::EventStream,
        exposition::Histogram,
        http::connection::ConnectionId,
        storage_point::{
            commit::CommitThread,
            content::{ContentThread, Job},
            files::OpenFiles,
            maintenance::MaintenanceThread,
            object::FindsDamage,
            parts::read_chunk,
            peer::Peers,
        },
    },
    store::{Contents, DirStorage},
    wire,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// A submission whose outcome has not come yet.
#[derive(Debug)]
pub(super) struct Pending {
    /// When its content was whole.
    pub(super) since: Instant,
    /// Who waits for it, if the connection is still there.
    pub(super) connection: ConnectionId,
    pub(super) path: Path,
    pub(super) hash: Hash,
    pub(super) key: Option<String>,
}

/// What changed in this cycle.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) paths: BTreeSet<Path>,
    /// A sequence was minted without a change.
    pub(super) idle: bool,
    /// Something is known agreed, or dropped, that was not before.
    pub(super) knowledge: bool,
}

#[derive(Debug, Default)]
struct Outgoing {
    control: Vec<Message>,
    bulk: Vec<Message>,
}

/// All that the loop has beside the protocol and the HTTP connections.
pub(super) struct Io {
    pub(super) peers: Peers,
    pub(super) commit: CommitThread,
    pub(super) maintenance: MaintenanceThread,
    pub(super) content: ContentThread,
    pub(super) contents: Contents<DirStorage>,
    pub(super) events: EventStream,
    pub(super) tickets: BTreeMap<Ticket, Pending>,
    pub(super) outcomes: Vec<(ConnectionId, Outcome)>,
    pub(super) changed: Changed,
    pub(super) acceptance: Histogram,
    /// A newer store of this storage point exists: the process must end.
    pub(super) newer_store: Option<StoreId>,
    /// Large contents that are being sent.
    pub(super) files: OpenFiles,
    /// Contents found damaged, with their sizes where they are known: the protocol has to hear of them.
    pub(super) damaged: Vec<(Hash, Option<u64>)>,
    /// Of the frames to come.
    header: Header,
    outgoing: BTreeMap<SpId, Outgoing>,
}

impl Io {
    pub(super) fn new(
        peers: Peers,
        commit: CommitThread,
        maintenance: MaintenanceThread,
        content: ContentThread,
        contents: Contents<DirStorage>,
        events: EventStream,
        header: Header,
    ) -> Io {
        Io {
            peers,
            commit,
            maintenance,
            content,
            contents,
            events,
            tickets: BTreeMap::new(),
            outcomes: Vec::new(),
            changed: Changed::default(),
            acceptance: Histogram::default(),
            newer_store: None,
            files: OpenFiles::default(),
            damaged: Vec::new(),
            header,
            outgoing: BTreeMap::new(),
        }
    }

    /// Hands the cycle's messages to the links: all those for one peer in one frame, if it is not too long.
    pub(super) fn send_frames(&mut self) {
        for (sp, outgoing) in &mut self.outgoing {
            for (messages, is_bulk) in [(&mut outgoing.control, false), (&mut outgoing.bulk, true)] {
                if !messages.is_empty() {
                    let encoded = wire::encode_frames(&self.header, messages);
                    if encoded.left_out > 0 {
                        tracing::error!("{} messages to storage point {sp} fit no frame", encoded.left_out);
                    }
                    self.peers.send(*sp, encoded.frames, is_bulk);
                    messages.clear();
                }
            }
        }
    }

    fn emit_agreed(&mut self, manifest: &Manifest) {
        for entry in &manifest.entries {
            self.events.emit("agreed", |fields| {
                fields.plain("uid", manifest.uid).plain("path", &entry.path).plain("hash", entry.hash);
                if let Some(key) = &manifest.key {
                    fields.text("key", key);
                }
                fields.text("publisher", &manifest.publisher);
                if entry.flags.deleted {
                    fields.flag("deleted", true);
                }
            });
        }
    }

    fn take_outcome(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(pending) = self.tickets.remove(&ticket) else { return };
        if let Outcome::Accepted { .. } = outcome {
            self.acceptance.observe(clock::monotonic().since(pending.since));
        }
        self.events.emit(outcome.word(), |fields| {
            fields.uid(outcome.uid()).plain("path", &pending.path).plain("hash", pending.hash);
            if let Some(key) = &pending.key {
                fields.text("key", key);
            }
            if let Outcome::Rejected { reason } | Outcome::Undetermined { reason, .. } = &outcome {
                fields.text("cause", &reason.to_string());
            }
        });
        self.outcomes.push((pending.connection, outcome));
    }
}

impl FindsDamage for Io {
    fn take_damaged(&mut self) -> Vec<(Hash, Option<u64>)> {
        std::mem::take(&mut self.damaged)
    }
}

impl Environment for Io {
    fn send(&mut self, to: SpId, message: Message) {
        if self.peers.is_up(to) {
            let outgoing = self.outgoing.entry(to).or_default();
            match message {
                Message::ContentChunk { .. } => outgoing.bulk.push(message),
                _ => outgoing.control.push(message),
            }
        }
    }

    fn persist(&mut self, id: WriteId, records: Vec<Durable>) {
        self.commit.write(id, records);
    }

    fn send_content(&mut self, to: SpId, hash: Hash, offset: u64, len: u32) {
        match self.contents.len(&hash) {
            None => {
                self.damaged.push((hash, None));
                self.send(to, Message::Missing { what: Wanted::Content(hash) });
            }
            Some(total) if total <= INLINE_LEN_MAX => {
                let message = read_chunk(&self.contents, hash, offset, len).unwrap_or_else(|size| {
                    self.damaged.push((hash, Some(size)));
                    Message::Missing { what: Wanted::Content(hash) }
                });
                self.send(to, message);
            }
            Some(_) => self.content.give(Job::Read { to, hash, offset, len }),
        }
    }

    fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: Bytes) {
        self.content.give(Job::Stage { hash, offset, total, bytes });
    }

    fn abort_stage(&mut self, hash: Hash) {
        self.content.give(Job::StageAbort { hash });
    }

    fn stores_changed(&mut self, header: Header) {
        self.send_frames();
        self.peers.set_header(header.clone());
        self.header = header;
    }

    fn event(&mut self, _sp: &StoragePoint, event: Event) {
        match event {
            Event::Outcome { ticket, outcome } => self.take_outcome(ticket, outcome),
            Event::Agreed { manifest } => {
                self.changed.knowledge = true;
                if self.events.is_on() {
                    self.emit_agreed(&manifest);
                }
            }
            Event::Merged { entry } => {
                self.changed.knowledge = true;
                self.events.emit("merged", |fields| {
                    fields.plain("uid", entry.uid).plain("path", &entry.path).plain("hash", entry.hash);
                    if entry.flags.deleted {
                        fields.flag("deleted", true);
                    }
                });
            }
            Event::Dropped { uid, superseded_by } => {
                self.changed.knowledge = true;
                self.events.emit("dropped", |fields| {
                    fields.plain("uid", uid).text("cause", &format!("superseded by {superseded_by}"));
                });
            }
            Event::Changed { paths, .. } if paths.is_empty() => self.changed.idle = true,
            Event::Changed { paths, .. } => self.changed.paths.extend(paths),
            Event::AsOf { micros } => {
                self.events.emit("as_of", |fields| {
                    fields.text("cause", &micros.0.to_string());
                });
            }
            Event::Joined => {
                self.events.emit("joined", |_| {});
                tracing::info!("the new store is filled; this storage point serves");
            }
            Event::StoreIsVoid { newer } => self.newer_store = Some(newer),
            Event::Damaged { hash } => tracing::error!("the stored content {hash} is damaged; it is fetched again"),
            Event::PeerProblem { peer, detail } => tracing::warn!("storage point {peer}: {detail}"),
        }
    }
}
