//! Reads contents of one storage point as a client does, one after the other, over a connection of its own.

use super::{
    connection::{ConnectionId, Segment, Service},
    host::HostId,
    http::{Answer, Request},
    shared::Shared,
};
use acms_engine::protocol::Hash;
use std::collections::{BTreeMap, VecDeque};

/// Reads what it is told to.
#[derive(Default, Debug)]
pub(super) struct Reader {
    waiting: VecDeque<Hash>,
    connection: Option<ConnectionId>,
    /// How often each came with another hash: asked for again as receivers do, so that the storage point has a look.
    spoilt: BTreeMap<Hash, u32>,
    /// Why a content could not be read; none: it could.
    results: BTreeMap<Hash, Option<String>>,
}

impl Reader {
    /// Begins to read these; what was found before is forgotten.
    pub(super) fn begin(&mut self, shared: &mut Shared<'_>, me: HostId, from: HostId, hashes: Vec<Hash>) {
        if let Some(connection) = self.connection.take() {
            shared.close(connection, me);
        }
        self.results.clear();
        self.waiting = hashes.into();
        if !self.waiting.is_empty() {
            self.connection = Some(shared.dial(me, from, Service::Http));
        }
    }

    /// Whether there is nothing more to read.
    pub(super) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether something could not be read.
    pub(super) fn has_problem(&self) -> bool {
        self.results.values().any(Option::is_some)
    }

    /// Whether this is its connection.
    pub(super) fn has(&self, connection: ConnectionId) -> bool {
        self.connection == Some(connection)
    }

    /// Why a content could not be read; none if it could, or was not asked for.
    pub(super) fn problem(&self, hash: &Hash) -> Option<&str> {
        match self.results.get(hash) {
            Some(problem) => problem.as_deref(),
            None => self.waiting.contains(hash).then_some("no answer in time"),
        }
    }

    /// Whether a content was read, with whatever result.
    pub(super) fn was_asked(&self, hash: &Hash) -> bool {
        self.results.contains_key(hash) || self.waiting.contains(hash)
    }

    /// Asks for the next, or ends.
    pub(super) fn ask(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let Some(connection) = self.connection else { return };
        match self.waiting.front() {
            Some(hash) => {
                let target = match self.spoilt.get(hash) {
                    None => format!("/v1/objects/{hash}").into(),
                    Some(times) => format!("/v1/objects/{hash}?again={times}").into(),
                };
                shared.send(connection, me, Segment::Request(Request { target }));
            }
            None => {
                self.connection = None;
                shared.close(connection, me);
            }
        }
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, shared: &mut Shared<'_>, me: HostId, answer: &Answer) {
        let Some(hash) = self.waiting.pop_front() else { return };
        let problem = match answer.status {
            200 if Hash::of(&answer.body) == hash => None,
            200 => {
                *self.spoilt.entry(hash).or_default() += 1;
                Some("another content".to_owned())
            }
            status => Some(format!("status {status}: {}", String::from_utf8_lossy(&answer.body))),
        };
        self.results.insert(hash, problem);
        self.ask(shared, me);
    }

    /// The connection is gone: nothing more can be read over it.
    pub(super) fn closed(&mut self) {
        self.connection = None;
        let lost = std::mem::take(&mut self.waiting).into_iter();
        self.results.extend(lost.map(|hash| (hash, Some("connection lost".to_owned()))));
    }
}
