//! What goes into a storage point and what comes out of it, and the one loop that all drivers share.

use crate::protocol::{
    Durable, Duration, Entry, Hash, Manifest, Message, Micros, Order, Outcome, Path, SpId, StoragePoint, StoreId, Uid,
    api::{Changes, ListedEntry},
    durable::InlineContent,
    message::Header,
};
use bytes::Bytes;
use std::sync::Arc;
/// Names a submission until its outcome.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Names a write that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

/// What a publisher hands in. Contents above [`INLINE_LEN_MAX`](crate::protocol::durable::INLINE_LEN_MAX) bytes must already be durable in the store; the others
/// come along.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// Who submits.
    pub publisher: String,
    /// Idempotency key.
    pub key: Option<String>,
    /// The greatest UID that the publisher knows.
    pub known: Option<Uid>,
    /// Overrides the cluster's order mode.
    pub order: Option<Order>,
    /// What is published.
    pub entries: Vec<Entry>,
    /// Contents up to [`INLINE_LEN_MAX`](crate::protocol::durable::INLINE_LEN_MAX) bytes.
    pub contents: Vec<InlineContent>,
}

/// Something for the driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send to a peer; may be lost with the connection.
    Send {
        /// To this SP.
        to: SpId,
        /// This.
        message: Message,
    },
    /// Make durable, in order, then call `handle_persisted`.
    Persist {
        /// Comes back.
        id: WriteId,
        /// In this order.
        records: Vec<Durable>,
    },
    /// Read this part of a content from the store and send it as `ContentChunk`, or `Missing`.
    SendContent {
        /// To this SP.
        to: SpId,
        /// Of this content.
        hash: Hash,
        /// From this byte.
        offset: u64,
        /// At most this many.
        len: u32,
    },
    /// Append to the content being fetched; begins anew at offset 0; complete when offset + bytes = total: then check
    /// its hash and make it durable. Answer with `handle_staged`.
    Stage {
        /// Of this content.
        hash: Hash,
        /// At this byte.
        offset: u64,
        /// Bytes of the whole.
        total: u64,
        /// The part.
        bytes: Bytes,
    },
    /// Nobody needs this content any more: throw away what was staged of it.
    AbortStage {
        /// The content.
        hash: Hash,
    },
    /// Frames from here on have this header. Those for messages before it must have the one before: their bits are of
    /// the stores known then.
    StoresChanged(Header),
    /// Something happened.
    Event(Event),
}

/// Something that the driver may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The one answer to a submission.
    Outcome {
        /// Which submission.
        ticket: Ticket,
        /// The answer.
        outcome: Outcome,
    },
    /// A publication is newly known agreed here, with content; it is in the index where it is the newest of its path.
    Agreed {
        /// The publication.
        manifest: Arc<Manifest>,
    },
    /// An entry was taken over from another SP's index, newer than the one here.
    Merged {
        /// The entry.
        entry: ListedEntry,
    },
    /// A pending publication was dropped.
    Dropped {
        /// This one.
        uid: Uid,
        /// The newer one.
        superseded_by: Uid,
    },
    /// A new sequence was minted; these paths changed (none: an idle minting).
    Changed {
        /// The sequence.
        sequence: u64,
        /// What changed.
        paths: Vec<Path>,
    },
    /// Nothing accepted before this time is missing here, durably.
    AsOf {
        /// By the clocks of the SPs.
        micros: Micros,
    },
    /// The store that `acms replace` made is filled.
    Joined,
    /// A newer store of this SP takes part in the cluster: this one must stop.
    StoreIsVoid {
        /// The newer one.
        newer: StoreId,
    },
    /// A content was found damaged and is fetched again.
    Damaged {
        /// The content.
        hash: Hash,
    },
    /// Something is wrong with a peer; say so in the log, once in a while.
    PeerProblem {
        /// Which peer.
        peer: SpId,
        /// What.
        detail: String,
    },
}

/// What became of a staged part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staged {
    /// Appended.
    Part,
    /// Complete, hash right, durable.
    Whole,
    /// Complete, but the hash is wrong: thrown away.
    HashMismatch,
    /// The disk refused: thrown away.
    Failed,
}

/// What a changes request gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChangesAnswer {
    /// Nothing under the prefix has changed since the cursor: hold the request.
    Hold,
    /// This (also `full`). `inline` contents are not yet filled in.
    Now(Changes),
}

/// Numbers for status and metrics.
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize)]
pub struct Status {
    /// Publications pending here.
    pub pending: usize,
    /// Live paths in the index.
    pub paths: usize,
    /// Submissions under way.
    pub submissions: usize,
    /// Publications agreed since the start.
    pub agreed_total: u64,
    /// Submissions accepted since the start.
    pub accepted_total: u64,
    /// Submissions rejected since the start.
    pub rejected_total: u64,
    /// Submissions undetermined since the start.
    pub undetermined_total: u64,
    /// Contents found damaged since the start.
    pub contents_damaged_total: u64,
    /// Peers connected.
    pub peers_connected: usize,
}

/// How a peer was found when it last answered; for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerSeen {
    /// From question to answer, what both processes were busy with included.
    pub round_trip: Duration,
    /// Its wall clock minus this one's, half a round trip allowed for.
    pub clock_offset_us: i64,
}

/// Carries out what a storage point asks for. The runtime, the simulator and the tests each have one.
pub trait Environment {
    /// See [`Output::Send`].
    fn send(&mut self, to: SpId, message: Message);
    /// See [`Output::Persist`].
    fn persist(&mut self, id: WriteId, records: Vec<Durable>);
    /// See [`Output::SendContent`].
    fn send_content(&mut self, to: SpId, hash: Hash, offset: u64, len: u32);
    /// See [`Output::Stage`].
    fn stage(&mut self, hash: Hash, offset: u64, total: u64, bytes: Bytes);
    /// See [`Output::AbortStage`].
    fn abort_stage(&mut self, hash: Hash);
    /// See [`Output::StoresChanged`]. Nothing to do where frames are encoded before the next input.
    fn stores_changed(&mut self, _header: Header) {}
    /// See [`Output::Event`].
    fn event(&mut self, sp: &StoragePoint, event: Event);
}

/// Carries out everything that `sp` asks for, in order. The one loop that all drivers share.
pub fn drain<E: Environment>(sp: &mut StoragePoint, environment: &mut E) {
    while let Some(output) = sp.poll_output() {
        match output {
            Output::Send { to, message } => environment.send(to, message),
            Output::Persist { id, records } => environment.persist(id, records),
            Output::SendContent { to, hash, offset, len } => environment.send_content(to, hash, offset, len),
            Output::Stage { hash, offset, total, bytes } => environment.stage(hash, offset, total, bytes),
            Output::AbortStage { hash } => environment.abort_stage(hash),
            Output::StoresChanged(header) => environment.stores_changed(header),
            Output::Event(event) => environment.event(sp, event),
        }
    }
}
