//! Requests whose answer waits: those of the changes feed ([`FeedHolds`]); and, one by one, reads of a path for a change,
//! and of large contents until they were compared with their hashes.

use crate::{
    protocol::{Hash, Instant, Path, Prefix, api::Cursor},
    runtime::{
        delivery::{FeedHolds, Reading, changes_control},
        http::{answer::Outbox, connection::ConnectionId, service::Next, shared::SharedAnswer},
        storage_point::{
            core::Core,
            environment::Changed,
            publish::Receiving,
            read::{ConfigRead, Read, Wait},
        },
    },
};
use std::collections::{BTreeMap, BTreeSet};

/// All requests that are held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    feed: FeedHolds<ConnectionId, SharedAnswer>,
    reads: BTreeMap<ConnectionId, (Read, Wait)>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
}

impl Holds {
    /// How many requests are held.
    pub(super) fn len(&self) -> usize {
        self.feed.len() + self.reads.len()
    }

    /// Whether some may have an answer now.
    pub(super) fn is_due(&self) -> bool {
        self.feed.is_due()
    }

    /// The first time at which a held request has to be looked at.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let read = self.deadlines.first().map(|(until, _)| *until);
        [self.feed.poll_timeout(), read].into_iter().flatten().min()
    }

    /// Holds a read.
    pub(super) fn hold_read(&mut self, id: ConnectionId, read: Read, wait: Wait) {
        if let Wait::Until(until) = wait {
            self.deadlines.insert((until, id));
        }
        self.reads.insert(id, (read, wait));
    }

    /// The connection is gone, or has its answer.
    pub(super) fn release(&mut self, id: ConnectionId) {
        self.feed.release(id);
        if let Some((_, Wait::Until(until))) = self.reads.remove(&id) {
            self.deadlines.remove(&(until, id));
        }
    }
}

/// Answers a request of the changes feed, or holds it.
pub(super) fn changes(
    core: &mut Core,
    id: ConnectionId,
    cursor: Cursor,
    prefix: Prefix,
    out: &mut Outbox<'_>,
) -> Next<Box<Receiving>> {
    core.counters.changes_total += 1;
    let Core { sp, io, holds, now, date, .. } = core;
    let reading = Reading { sp, contents: &io.contents, wall: now.wall };
    let make = |body, is_full| SharedAnswer::new(changes_control(is_full), body, date);
    match holds.feed.ask(&reading, now.instant, id, (cursor, prefix), make) {
        Some(answer) => {
            answer.write(out);
            Next::Answered
        }
        None => Next::Hold,
    }
}

/// Notes what a cycle has changed, and gives the reads of paths that may have an answer now.
pub(super) fn note_changes(core: &mut Core, changed: &Changed) -> Vec<ConnectionId> {
    core.holds.feed.note(&changed.paths, changed.idle);
    if core.holds.reads.is_empty() || (changed.paths.is_empty() && !changed.knowledge) {
        return Vec::new();
    }
    // A path is hidden by what is above or below it.
    let is_concerned = |read: &ConfigRead| {
        let path = &read.path;
        let concerns = |other: &Path| path == other || path.is_above(other.as_str()) || other.is_above(path.as_str());
        read.at_least.is_some() || changed.paths.iter().any(concerns)
    };
    let concerned = core
        .holds
        .reads
        .iter()
        .filter(|(_, held)| matches!(held, (Read::Config(read), Wait::Until(_)) if is_concerned(read)));
    concerned.map(|(id, _)| *id).collect()
}

/// The reads that have waited until this content was compared with its hash.
pub(super) fn waiting_for(core: &Core, hash: Hash) -> Vec<ConnectionId> {
    let waiting = core.holds.reads.iter().filter(|(_, (_, wait))| *wait == Wait::Compared(hash));
    waiting.map(|(id, _)| *id).collect()
}

/// A slice of the current round: connections and their answers. Their holds are released.
pub(super) fn next_answers(core: &mut Core) -> Vec<(ConnectionId, SharedAnswer)> {
    let Core { sp, io, holds, now, date, .. } = core;
    let reading = Reading { sp, contents: &io.contents, wall: now.wall };
    holds.feed.next_answers(&reading, |body, is_full| SharedAnswer::new(changes_control(is_full), body, date))
}

/// Requests that have been held long enough: reads of paths to be looked at again. Those of the changes feed join the
/// next round.
pub(super) fn take_overdue(core: &mut Core) -> Vec<ConnectionId> {
    let now = core.now.instant;
    core.holds.feed.handle_timeout(now);
    let mut reads = Vec::new();
    while let Some((until, id)) = core.holds.deadlines.first().copied().filter(|(until, _)| *until <= now) {
        core.holds.deadlines.remove(&(until, id));
        reads.push(id);
    }
    reads
}

/// The read that a connection waits with; it is no longer held.
pub(super) fn take_read(core: &mut Core, id: ConnectionId) -> Option<Read> {
    let read = core.holds.reads.get(&id).map(|(read, _)| read.clone());
    if read.is_some() {
        core.holds.release(id);
    }
    read
}
