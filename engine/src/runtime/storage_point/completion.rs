//! What the threads beside the loop have done, on its way back to the loop.

use crate::protocol::{
    Hash, Message, SpId,
    io::{Staged, WriteId},
};
use mio::Waker;
use std::sync::{
    Arc,
    mpsc::{Receiver, Sender, channel},
};

/// Names a body that the content thread is given piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct UploadId(pub(super) u64);

/// One thing done.
#[derive(Debug)]
pub(super) enum Completion {
    /// These writes are durable.
    Persisted(Vec<WriteId>),
    /// The store took nothing of the writes that have no answer, with the reason.
    Refused(String),
    /// The store cannot go on.
    StoreFailed(String),
    /// A part of a content that is being fetched was dealt with.
    Staged { hash: Hash, offset_end: u64, staged: Staged },
    /// A part of a content was read for a peer.
    Chunk { to: SpId, message: Message },
    /// A content that should have this many bytes was found damaged.
    Damaged { hash: Hash, size: u64 },
    /// A content was compared with its hash, as far as the disk allows; reads wait for that.
    Compared { hash: Hash },
    /// This many bytes of a body were taken in.
    UploadWritten { upload: UploadId, len: usize },
    /// A body is durable, or why not.
    UploadFinished { upload: UploadId, result: Result<(Hash, u64), String> },
}

/// The threads' end.
#[derive(Clone, Debug)]
pub(super) struct Completions {
    sender: Sender<Completion>,
    waker: Arc<Waker>,
}

impl Completions {
    pub(super) fn new(waker: Waker) -> (Completions, Receiver<Completion>) {
        let (sender, receiver) = channel();
        (Completions { sender, waker: Arc::new(waker) }, receiver)
    }

    /// Hands over and wakes the loop. If the loop is gone nobody wants to know.
    pub(super) fn send(&self, completion: Completion) {
        if self.sender.send(completion).is_ok() {
            let _ = self.waker.wake();
        }
    }
}
