//! HTTP between simulated processes, as far as it matters: what is asked and what is answered, without the bytes of heads.

use acms_engine::protocol::{Hash, Order, Path, Uid};
use bytes::Bytes;

/// A PUT, or a DELETE if there is no content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PublishRequest {
    pub(super) path: Path,
    pub(super) content: Option<Bytes>,
    /// Of the content, or of nothing.
    pub(super) hash: Hash,
    pub(super) publisher: String,
    pub(super) key: Option<String>,
    pub(super) known: Option<Uid>,
    pub(super) order: Option<Order>,
}

/// What a storage point tells a publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PublishAnswer {
    /// `accepted`, `rejected` or `undetermined`.
    pub(super) outcome: &'static str,
    pub(super) uid: Option<Uid>,
    pub(super) cause: Option<String>,
}

/// A GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Request {
    /// `/v1/snapshot`.
    pub(super) target: String,
}

/// The answer to a GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Bytes,
}
