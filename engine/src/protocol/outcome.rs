//! What a publisher is told (promise P8).

use crate::protocol::{Hash, Path, SpSet, Uid};
use std::time::Duration;

/// The one answer to a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A quorum holds it durably.
    Accepted {
        /// Its name.
        uid: Uid,
    },
    /// It will never be agreed.
    Rejected {
        /// Why.
        reason: Reason,
    },
    /// It may still be agreed, or was superseded.
    Undetermined {
        /// Its name, once it has one.
        uid: Option<Uid>,
        /// A newer agreed publication of its path, if that is why.
        superseded_by: Option<Uid>,
        /// Why.
        reason: Reason,
    },
}

impl Outcome {
    /// The word of headers, JSON and events.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Rejected { .. } => "rejected",
            Outcome::Undetermined { .. } => "undetermined",
        }
    }

    /// Why it was not accepted.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Outcome::Accepted { .. } => None,
            Outcome::Rejected { reason } | Outcome::Undetermined { reason, .. } => Some(reason),
        }
    }

    /// The publication's name, once it has one.
    pub fn uid(&self) -> Option<Uid> {
        match self {
            Outcome::Accepted { uid } => Some(*uid),
            Outcome::Undetermined { uid, .. } => *uid,
            Outcome::Rejected { .. } => None,
        }
    }
}

/// Why a submission was not accepted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Too few answers to the order query in time.
    #[error("no quorum: only storage points {answered:?} answered in time, {needed} of {members} are needed")]
    NoQuorum {
        /// Who answered.
        answered: Vec<u8>,
        /// How many would do.
        needed: usize,
        /// Of how many.
        members: usize,
    },
    /// The UID would lie too far ahead of a quorum's clocks.
    #[error("clock ahead: the publication's time would be {ahead:?} ahead of the clocks of too many storage points")]
    ClockAhead {
        /// How far ahead of the clock that would complete a quorum (or of the slowest heard).
        ahead: Duration,
    },
    /// The key belongs to another publication of the same publisher.
    #[error("the idempotency key is taken by another publication, with other content or another path")]
    KeyConflict {
        /// That one, once it has a name.
        uid: Option<Uid>,
    },
    /// A content that should have come with the submission or before it is not here.
    #[error("the content {hash} is not in the store of this storage point")]
    ContentMissing {
        /// Which content.
        hash: Hash,
    },
    /// A live path is a proper prefix of this one, or the other way round.
    #[error("path clash: {existing} is a file here, so it cannot be a directory as well (or the other way round)")]
    PathClash {
        /// The live path.
        existing: Path,
    },
    /// Too few votes in time, after offers had left.
    #[error("no agreement yet: only storage points {holders:?} are known to hold it")]
    NoAgreement {
        /// Whose bits are set.
        holders: Vec<u8>,
    },
    /// A newer publication of the path was agreed first.
    #[error("superseded by {by}")]
    Superseded {
        /// The newer one.
        by: Uid,
    },
    /// Too many submissions wait here.
    #[error("overloaded: {waiting} submissions are waiting at this storage point")]
    Overloaded {
        /// How many.
        waiting: usize,
    },
    /// The store takes no more.
    #[error("the store of this storage point cannot be written: {detail}")]
    Store {
        /// What the system said.
        detail: String,
    },
    /// The process is about to end.
    #[error("this storage point is shutting down")]
    ShuttingDown,
    /// The store of this SP is new and still being filled.
    #[error("the new store of this storage point is still being filled from the others")]
    Joining,
    /// This SP knows nothing of it.
    #[error("not known at this storage point")]
    Unknown,
}

impl Reason {
    /// What the publisher can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Reason::NoQuorum { .. } => "start or reconnect the missing storage points, then publish again",
            Reason::ClockAhead { .. } => {
                "set the clocks of the storage points (and check the known UID that was sent), then publish again"
            }
            Reason::ContentMissing { .. } => "send the content again",
            Reason::KeyConflict { .. } => "use a new idempotency key for a new publication",
            Reason::PathClash { .. } => "publish under another path, or delete the existing one first",
            Reason::NoAgreement { .. } | Reason::Unknown => {
                "ask again for the outcome by its key, or publish again with the same key"
            }
            Reason::Superseded { .. } => "nothing is to be done if the newer publication is what should be served",
            Reason::Overloaded { .. } => "publish again with the same key after a pause, or at another storage point",
            Reason::Store { .. } => "free space on the store's disk, or publish at another storage point",
            Reason::ShuttingDown | Reason::Joining => "publish at another storage point",
        }
    }
}

/// Ids of a set as plain numbers, for messages.
pub fn ids(set: SpSet) -> Vec<u8> {
    set.iter().map(|sp| sp.0).collect()
}
