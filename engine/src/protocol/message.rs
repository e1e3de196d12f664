//! What storage points say to each other.
//!
//! A frame carries, beside its messages, the sender's epoch, configuration hash and store id and the store ids that it
//! knows of all SPs ([`Header`]); they hold for every vector in it.

use crate::protocol::{Hash, Manifest, Micros, SpId, SpSet, StoreId, Uid, durable::InlineContent};
use bytes::Bytes;
use std::sync::Arc;

/// What every frame says of its sender.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Epoch of the sender's configuration.
    pub epoch: u32,
    /// First eight bytes of the hash of the sender's configuration.
    pub config: [u8; 8],
    /// The sender.
    pub from: SpId,
    /// Its store.
    pub store: StoreId,
    /// The newest stores that it knows of other SPs, ascending by SP.
    pub stores: Vec<(SpId, StoreId)>,
}

/// Number of an order query; never repeated by a sender, across restarts too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RequestId {
    /// How often the sender's process has started.
    pub starts: u32,
    /// Counts up.
    pub number: u64,
}

/// Bits known set for a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vector {
    /// Of this publication.
    pub uid: Uid,
    /// Bits of the stores in the frame's header.
    pub bits: SpSet,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// What is the greatest UID that you hold durably or know agreed, what does your clock say, do you hold a key?
    OrderQuery {
        /// Comes back with the answer.
        request: RequestId,
        /// (publisher, key) of the submissions that wait for this query.
        keys: Vec<(String, String)>,
    },
    /// The answer.
    OrderAnswer {
        /// Of the query.
        request: RequestId,
        /// Greatest UID held durably or known agreed, on any path.
        greatest: Uid,
        /// The wall clock.
        clock: Micros,
        /// Publications held under the keys asked for: (index into the query's keys, UID).
        holds: Vec<(u32, Uid)>,
    },
    /// Please hold this publication; or, in answer to `PublicationRequest`, here it is.
    Offer {
        /// The publication.
        manifest: Arc<Manifest>,
        /// Contents up to [`INLINE_LEN_MAX`](crate::protocol::durable::INLINE_LEN_MAX) bytes; larger ones are asked for in chunks.
        contents: Vec<InlineContent>,
        /// The sender knows it agreed.
        agreed: bool,
    },
    /// Not stored.
    Refuse {
        /// This publication.
        uid: Uid,
        /// Why.
        cause: Refusal,
        /// The wall clock of the refusing SP.
        clock: Micros,
    },
    /// Bits known set.
    Vector(Vector),
    /// `uid` is agreed (then `newest` = `uid`), or `newest`, agreed and greater, supersedes it on all its paths.
    Agreed {
        /// This publication.
        uid: Uid,
        /// It, or what supersedes it.
        newest: Uid,
    },
    /// Send me this publication.
    PublicationRequest {
        /// This one.
        uid: Uid,
    },
    /// A part of a content, please.
    ContentRequest {
        /// Which content.
        hash: Hash,
        /// From this byte.
        offset: u64,
        /// At most this many.
        len: u32,
    },
    /// A part of a content.
    ContentChunk {
        /// Which content.
        hash: Hash,
        /// From this byte.
        offset: u64,
        /// Bytes of the whole content.
        total: u64,
        /// The part; empty only for an empty content.
        bytes: Bytes,
    },
    /// That content, publication or node is not here.
    Missing {
        /// What was asked for.
        what: Wanted,
    },
    /// My index root, minted just now or still the same.
    Root {
        /// Hash of the root node.
        root: Hash,
    },
    /// Send me this index node.
    NodeRequest {
        /// Its hash.
        hash: Hash,
    },
    /// An index node.
    Node {
        /// Its encoding, whose hash is its name.
        bytes: Bytes,
    },
    /// `two-phase`: I store this publication of yours.
    Stored {
        /// This publication.
        uid: Uid,
    },
    /// As of when is nothing missing at you?
    AsOfRequest {
        /// Comes back with the reply.
        request: RequestId,
        /// A root of yours of which I know everything.
        merged: Hash,
    },
    /// What the replier has.
    AsOfReply {
        /// Of the request.
        request: RequestId,
        /// The rest.
        reply: AsOf,
    },
    /// My store is new: what do you hold?
    JoinRequest {
        /// Comes back with the reply.
        request: RequestId,
        /// Publications above this UID.
        after: Uid,
    },
    /// Some of it, in order of UID.
    JoinReply {
        /// Of the request.
        request: RequestId,
        /// Of the request, too.
        after: Uid,
        /// The rest.
        page: JoinPage,
    },
}

/// A reply to a request for as-of: everything with the replier's own bit is in an index root, or listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AsOf {
    /// A root of the replier: the one that the asker has merged, if the replier still knows what came after it, else
    /// its last one.
    pub base: Hash,
    /// The replier's last root; all of it is in `base` or listed.
    pub root: Hash,
    /// Publications that are not in `base`, pending or agreed, ascending.
    pub listed: Vec<Uid>,
    /// The wall clock.
    pub clock: Micros,
}

/// Publications that the replier to a join holds or remembers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinPage {
    /// Ascending by UID.
    pub items: Vec<JoinItem>,
    /// The hybrid clock of the replier.
    pub clock: Micros,
    /// Nothing comes after these.
    pub last: bool,
}

/// A publication as the replier to a join has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinItem {
    /// The publication.
    pub manifest: Arc<Manifest>,
    /// What the replier knows of it.
    pub state: JoinState,
}

/// See [`JoinItem`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinState {
    /// Held, with the replier's own bit or (`two-phase`) without, not known agreed.
    Pending {
        /// The replier's own bit.
        own_bit: bool,
    },
    /// Held and agreed, an entry of its index or a kept version.
    Agreed,
    /// Agreed, and superseded since: only its key and outcome are remembered.
    Remembered,
    /// Dropped: a newer publication of its paths is agreed. Its key and outcome are remembered.
    Dropped {
        /// The newer one.
        superseded_by: Uid,
    },
}

/// Most publications of a [`JoinPage`], and of what an [`AsOf`] lists.
pub const JOIN_ITEMS_MAX: usize = 512;
/// See [`JOIN_ITEMS_MAX`].
pub const LISTED_MAX: usize = 1 << 16;

/// Why an SP does not store a publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Its UID is more than `max_drift` ahead of my wall clock.
    ClockAhead,
    /// My disk does not take it.
    Store,
    /// Another condition, known to a later version.
    Other(u8),
}

/// What a `Missing` speaks of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A content.
    Content(Hash),
    /// An index node.
    Node(Hash),
    /// A publication.
    Publication(Uid),
}

/// Bytes of a content chunk.
pub const CHUNK_LEN: u32 = 256 << 10;
