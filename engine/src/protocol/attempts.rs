//! Attempts on their way to a publication: submissions that have no UID yet, and those of which another SP said that
//! their key names a publication, which is still to come here.
//!
//! Invariant: of each key there is one submission that waits, with all attempts under the key that have joined it, and
//! one publication that is awaited: at one SP all attempts under a key are one publication.

use crate::protocol::{
    Entry, Uid,
    durable::InlineContent,
    io::{Submission, Ticket},
    keys::Key,
    message::RequestId,
};
use std::collections::BTreeMap;

/// A submission that has no UID yet.
#[derive(Debug)]
pub(super) struct Waiting {
    /// The first attempt and those that joined it under its key.
    pub(super) tickets: Vec<Ticket>,
    pub(super) submission: Submission,
    /// The order query that it is part of.
    pub(super) query: Option<RequestId>,
    key: Option<Key>,
}

/// All that wait for a UID, each under the ticket of its first attempt.
#[derive(Debug, Default)]
pub(super) struct WaitingSet {
    all: BTreeMap<Ticket, Waiting>,
    under: BTreeMap<Key, Ticket>,
    /// Those that are part of no query yet, and some that wait no more.
    fresh: Vec<Ticket>,
}

impl WaitingSet {
    pub(super) fn insert(&mut self, ticket: Ticket, submission: Submission, key: Option<Key>) {
        self.under.extend(key.map(|key| (key, ticket)));
        self.fresh.push(ticket);
        self.all.insert(ticket, Waiting { tickets: vec![ticket], submission, query: None, key });
    }

    /// The submission under `key`.
    pub(super) fn under(&mut self, key: Key) -> Option<&mut Waiting> {
        self.all.get_mut(self.under.get(&key)?)
    }

    pub(super) fn get(&self, first: Ticket) -> Option<&Waiting> {
        self.all.get(&first)
    }

    /// The submission whose first attempt is `first` waits no more.
    pub(super) fn remove(&mut self, first: Ticket) -> Option<Waiting> {
        let waiting = self.all.remove(&first)?;
        if let Some(key) = waiting.key {
            self.under.remove(&key);
        }
        Some(waiting)
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Those that are part of no query yet, in the order in which they came.
    pub(super) fn take_fresh(&mut self) -> Vec<Ticket> {
        let mut fresh = std::mem::take(&mut self.fresh);
        fresh.retain(|ticket| self.all.contains_key(ticket));
        fresh
    }

    /// These are part of the query `request`.
    pub(super) fn ask(&mut self, places: &[Ticket], request: RequestId) {
        for first in places {
            if let Some(waiting) = self.all.get_mut(first) {
                waiting.query = Some(request);
            }
        }
    }
}

/// A publication that is not here yet, and the attempts that are it.
#[derive(Debug)]
pub(super) struct Awaited {
    /// What each attempt wants to publish.
    pub(super) attempts: BTreeMap<Ticket, Vec<Entry>>,
    /// Small contents that came with them.
    pub(super) contents: Vec<InlineContent>,
    key: Option<Key>,
}

/// All publications that attempts wait for.
#[derive(Debug, Default)]
pub(super) struct AwaitedSet {
    all: BTreeMap<Uid, Awaited>,
    under: BTreeMap<Key, Uid>,
}

impl AwaitedSet {
    /// The attempt `ticket` is the publication `uid`.
    pub(super) fn insert(&mut self, uid: Uid, ticket: Ticket, attempt: Attempt<'_>) {
        let fresh = || Awaited { attempts: BTreeMap::new(), contents: Vec::new(), key: attempt.key };
        let awaited = self.all.entry(uid).or_insert_with(fresh);
        awaited.attempts.insert(ticket, attempt.entries.to_vec());
        for content in attempt.contents {
            if !awaited.contents.iter().any(|other| other.hash == content.hash) {
                awaited.contents.push(content);
            }
        }
        self.under.extend(attempt.key.map(|key| (key, uid)));
    }

    /// The publication that attempts under `key` wait for.
    pub(super) fn under(&self, key: Key) -> Option<Uid> {
        self.under.get(&key).copied()
    }

    /// The publication is here, or will never be.
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Awaited> {
        let awaited = self.all.remove(&uid)?;
        if let Some(key) = awaited.key.filter(|key| self.under.get(key) == Some(&uid)) {
            self.under.remove(&key);
        }
        Some(awaited)
    }

    /// An attempt waits no more.
    pub(super) fn give_up(&mut self, uid: Uid, ticket: Ticket) {
        let Some(awaited) = self.all.get_mut(&uid) else { return };
        awaited.attempts.remove(&ticket);
        if awaited.attempts.is_empty() {
            self.remove(uid);
        }
    }
}

/// What an attempt brings to the publication that its key names.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    pub(super) key: Option<Key>,
    pub(super) entries: &'a [Entry],
    /// Small contents; larger ones are in the store.
    pub(super) contents: Vec<InlineContent>,
}
