//! Large bodies that broke off: what has come of each waits a while for its publisher, who asks how much that is and sends
//! the rest.

use crate::{
    protocol::{Duration, Instant},
    runtime::storage_point::completion::UploadId,
};
use std::collections::VecDeque;

/// A body is waited for so long ...
const KEPT_TIME: Duration = Duration::from_secs(120);
/// ... among no more than this, the latest ones.
const KEPT_MAX: usize = 16;

/// A body that broke off.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) at: Instant,
    /// Whose it is, and under which idempotency key it came.
    pub(super) publisher: String,
    pub(super) key: String,
    pub(super) upload: UploadId,
    /// Bytes of it that are here.
    pub(super) received: u64,
}

/// All of them, the earliest first.
#[derive(Debug, Default)]
pub(super) struct BrokenBodies(VecDeque<Broken>);

impl BrokenBodies {
    /// Keeps what has come of a body. Gives those that are to be given up for it.
    pub(super) fn keep(&mut self, broken: Broken) -> Vec<UploadId> {
        let same = |other: &Broken| (&other.publisher, &other.key) == (&broken.publisher, &broken.key);
        let earlier = self.0.iter().position(same).and_then(|at| self.0.remove(at));
        self.0.push_back(broken);
        let too_many = if self.0.len() > KEPT_MAX { self.0.pop_front() } else { None };
        earlier.into_iter().chain(too_many).map(|given_up| given_up.upload).collect()
    }

    /// How much is here of the body under this key.
    pub(super) fn received(&self, publisher: &str, key: &str) -> Option<u64> {
        self.0.iter().find(|broken| broken.publisher == publisher && broken.key == key).map(|broken| broken.received)
    }

    /// The body of which so many bytes are here: the rest comes now.
    pub(super) fn take(&mut self, publisher: &str, key: &str, received: u64) -> Option<UploadId> {
        let is_it = |one: &Broken| one.publisher == publisher && one.key == key && one.received == received;
        let at = self.0.iter().position(is_it)?;
        self.0.remove(at).map(|broken| broken.upload)
    }

    /// Those that are waited for no longer.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<UploadId> {
        let late = self.0.iter().take_while(|broken| broken.at.after(KEPT_TIME) <= now).count();
        self.0.drain(..late).map(|broken| broken.upload).collect()
    }
}
