//! What goes into a receiver and what comes out of it.

use crate::protocol::{Duration, Flags, Hash, Path, Prefix, Uid, api::Snapshot};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Contents above this are streamed to disk while they are hashed ([`RequestKind::LargeContent`]).
pub const IN_MEMORY_LEN_MAX: u64 = 128 << 10;
/// Greatest content that a receiver takes.
pub const CONTENT_LEN_MAX: u64 = 1 << 30;

/// How a receiver is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReceiverConfig {
    /// Its name: decides the order of the sources, so that a fleet spreads over them.
    pub id: String,
    /// Addresses of storage points or caches.
    pub sources: Vec<String>,
    /// What it subscribes to.
    pub prefixes: Vec<Prefix>,
    /// Read the snapshot this often (the published way) instead of following changes.
    pub poll: Option<Duration>,
}

/// A configuration that no receiver can have. Nothing was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiverConfigError {
    /// No source.
    #[error("a receiver needs at least one source")]
    NoSource,
    /// No subscription.
    #[error("a receiver subscribes to at least one prefix")]
    NoPrefix,
}

/// What is on disk of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// What the entry says: its content, or no file for a tombstone.
    Whole,
    /// No file: a newer path above or below it is a file.
    Hidden,
    /// The entry is known, but its file is missing or damaged: fetch it again.
    Missing,
}

/// A path's entry as the receiver holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Its publication.
    pub uid: Uid,
    /// BLAKE3 of its content.
    pub hash: Hash,
    /// Bytes of content.
    pub size: u64,
    /// Properties; a tombstone has `deleted`.
    pub flags: Flags,
    /// What is on disk.
    pub presence: Presence,
}

/// The last snapshot of which a receiver held everything that it subscribed to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reached {
    /// The snapshot, but that `as_of_us` is the receiver's own: it never falls.
    pub snapshot: Snapshot,
    /// What was subscribed to.
    pub prefixes: Vec<Prefix>,
}

/// What a receiver finds on its disk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Entries.
    pub held: BTreeMap<Path, Held>,
    /// How far it had come; none if nothing was ever reached.
    pub reached: Option<Reached>,
}

/// Names a request; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// Names a batch that is being applied.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// Names a content that the driver holds on disk, hash verified. The driver chooses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StagedId(pub u64);

/// What a request asks for, and so how the driver treats its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestKind {
    /// The snapshot.
    Snapshot,
    /// Changes; may be held for 25 s.
    Changes,
    /// A node of the index.
    Node,
    /// A content that fits in memory.
    Content,
    /// A content that does not: streamed to disk and hashed. Answered with [`Body::Staged`], or with
    /// [`Failure::WrongHash`].
    LargeContent {
        /// What it must have.
        hash: Hash,
    },
}

/// A `GET` at a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Comes back with the answer.
    pub id: RequestId,
    /// Index into the configured sources.
    pub source: usize,
    /// Path of the URL.
    pub target: String,
    /// What it asks for.
    pub kind: RequestKind,
    /// An answer with more bytes of body is a failure.
    pub body_len_max: u64,
    /// Time without any byte of the answer after which the request has failed.
    pub timeout: Duration,
}

/// The body of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// In memory.
    Bytes(Bytes),
    /// On disk, hash verified.
    Staged(StagedId),
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be made.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It said nothing in time.
    #[error("it did not answer in time")]
    TimedOut,
    /// The connection broke, or what came is no HTTP answer within its bounds.
    #[error("the exchange broke off: {0}")]
    Broken(String),
    /// A large content does not have its hash.
    #[error("it sent a content with a wrong hash")]
    WrongHash,
    /// The local disk refused the content: not the source's fault.
    #[error("the content cannot be stored here: {0}")]
    Disk(String),
}

/// What to do with a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write this content.
    Write(Content),
    /// The content is there already, only its mode changes.
    SetMode,
    /// Nothing changes on disk.
    Record,
    /// Remove the file.
    Delete,
    /// Remove the file if there is one: a newer path above or below it is a file.
    Hide,
}

/// A verified content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// On disk, where the driver put it.
    Staged(StagedId),
}

/// One path of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The path.
    pub path: Path,
    /// Its new entry.
    pub entry: Held,
    /// What to do on disk before the entry becomes durable.
    pub action: Action,
}

/// What became of one path of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    /// Durable, file and entry.
    Done,
    /// The file system cannot hold it beside what is there. Nothing changed; other paths are not concerned.
    Blocked(String),
    /// The file that was to be there already is not: its content is needed after all. Nothing changed.
    Lost,
    /// The disk refused. Nothing, or nothing durable, changed; worth another try.
    Failed(String),
}

/// Something for the driver to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Send a request.
    Request(Request),
    /// Drop every request that was asked for so far and has no answer yet.
    CancelRequests,
    /// Make these changes durable, in this order, then call `handle_applied`. One batch at a time.
    Apply {
        /// Comes back.
        id: BatchId,
        /// No path twice; may be empty.
        changes: Vec<Change>,
        /// What the receiver has come to if all of them are applied: to be made durable with them, and not otherwise.
        reached: Option<Reached>,
    },
    /// Throw a staged content away.
    Discard(StagedId),
    /// Something happened.
    Event(Event),
}

/// Something that the driver may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It turns to this source.
    Source {
        /// Index into the configured sources.
        source: usize,
    },
    /// The content of a new entry is here and has its hash: delivered.
    Verified {
        /// The path.
        path: Path,
        /// Its publication.
        uid: Uid,
        /// Of its content.
        hash: Hash,
        /// Whether it is a deletion.
        deleted: bool,
    },
    /// A new entry is durably in place.
    Applied {
        /// The path.
        path: Path,
        /// Its publication.
        uid: Uid,
        /// Of its content.
        hash: Hash,
        /// Whether it is a deletion.
        deleted: bool,
    },
    /// An entry cannot be put in place; everything else goes on.
    Blocked {
        /// The path.
        path: Path,
        /// Why.
        cause: String,
    },
    /// Something went wrong, and the receiver goes on.
    Problem {
        /// What.
        cause: String,
    },
    /// Everything subscribed of this snapshot is applied, which is durable. Its `as_of_us` is the receiver's: it never
    /// falls.
    Current {
        /// The snapshot.
        snapshot: Snapshot,
    },
    /// What is held is of one cluster, and every source of another: nothing will ever come. The receiver goes on asking.
    OtherCluster {
        /// The cluster of what is held.
        held: String,
        /// The cluster of the source that was asked last.
        found: String,
    },
}

/// How often things happened since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Sources left because they failed.
    pub sources_left: u64,
    /// Sources left for a nearer one.
    pub moves: u64,
    /// Answers that made no sense.
    pub malformed: u64,
    /// Nodes or contents without the hash that names them.
    pub wrong_hashes: u64,
    /// Chains of changes, or snapshots that were polled, that did not advance.
    pub stuck_chains: u64,
    /// Walks begun again because a source had dropped what they needed.
    pub restarts: u64,
    /// Nodes read.
    pub nodes: u64,
    /// Contents fetched.
    pub contents: u64,
}
