//! HTTP between simulated processes, as far as it matters: what is asked and what is answered, without the bytes of heads.

use crate::trace::Text;
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
    pub(super) target: Text,
}

/// The answer to a GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// `Cache-Control`.
    pub(super) control: &'static str,
    pub(super) body: Bytes,
    /// The connection ended before the length that the head says.
    pub(super) is_cut: bool,
}

impl Answer {
    /// 200 with this `Cache-Control`.
    pub(super) fn new(control: &'static str, body: Bytes) -> Answer {
        Answer { status: 200, control, body, is_cut: false }
    }

    /// Anything else: caches must not keep it.
    pub(super) fn refusal(status: u16, reason: &'static str) -> Answer {
        Answer { status, control: "no-store", body: Bytes::from_static(reason.as_bytes()), is_cut: false }
    }
}
