//! What a storage point answers to GETs: the same bodies and the same holding as the runtime's.

use super::{
    connection::{ConnectionId, Segment},
    host::HostId,
    http::Answer,
    shared::Shared,
};
use acms_engine::{
    protocol::{Hash, Instant, StoragePoint},
    runtime::{
        delivery::{FeedHolds, OBJECT_CONTROL, Reading, SNAPSHOT_CONTROL, changes_control},
        http::{
            object::is_doubt,
            target::{BadTarget, Resource, resource},
        },
        storage_point::object::Object,
    },
    store::{Contents, MemoryStorage, StoreError},
};
use bytes::Bytes;

/// Requests that are held.
#[derive(Default, Debug)]
pub(super) struct Reads {
    feed: FeedHolds<ConnectionId, (Bytes, bool)>,
}

/// What reading needs of a storage point.
pub(super) struct Source<'a> {
    pub(super) machine: &'a StoragePoint,
    pub(super) contents: &'a Contents<MemoryStorage>,
}

/// What answering a request has brought up.
pub(super) enum Found {
    Nothing,
    /// A content that should have so many bytes is damaged.
    Damaged(Hash, u64),
    /// A content of so many bytes has to be compared with its hash; then the same request is to be asked again.
    Uncompared(Hash, u64),
}

impl Reads {
    /// A request has come, or comes again now that its content was compared.
    pub(super) fn request(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        source: &Source<'_>,
        (connection, target): (ConnectionId, &str),
        compared: bool,
    ) -> Found {
        let now = shared.now_at(me);
        let reading = Reading { sp: source.machine, contents: source.contents, wall: now.wall };
        let mut found = Found::Nothing;
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let answer = match resource(path, query) {
            Ok(Resource::Snapshot) => Answer::new(SNAPSHOT_CONTROL, reading.snapshot()),
            Ok(Resource::Changes(cursor, prefix)) => {
                let make = |body, is_full| (body, is_full);
                match self.feed.ask(&reading, now.instant, connection, (cursor, prefix), make) {
                    Some(answer) => changes(answer),
                    None => return Found::Nothing,
                }
            }
            Ok(Resource::Object(hash)) => {
                if !compared && query.is_some_and(is_doubt) {
                    source.contents.doubt(&hash, now.instant);
                }
                match object(source, hash, compared) {
                    Ok(answer) => answer,
                    Err(uncompared @ Found::Uncompared(..)) => return uncompared,
                    Err(damaged) => {
                        found = damaged;
                        Answer::refusal(500, "the object is damaged")
                    }
                }
            }
            Ok(_) | Err(BadTarget::NotFound) => Answer::refusal(404, "no such resource"),
            Err(BadTarget::Malformed(_)) => Answer::refusal(400, "the name is malformed"),
        };
        shared.send(connection, me, Segment::Answer(answer));
        found
    }

    /// A connection is gone.
    pub(super) fn closed(&mut self, connection: ConnectionId) {
        self.feed.release(connection);
    }

    /// Notes what a cycle has changed.
    pub(super) fn note(&mut self, paths: &[acms_engine::protocol::Path]) {
        self.feed.note(paths, paths.is_empty());
    }

    /// Answers what has been held long enough or has an answer now.
    pub(super) fn wake(&mut self, shared: &mut Shared<'_>, me: HostId, source: &Source<'_>) {
        let now = shared.now_at(me);
        self.feed.handle_timeout(now.instant);
        let reading = Reading { sp: source.machine, contents: source.contents, wall: now.wall };
        loop {
            // A round is written at once here: its end is not waited for.
            for (connection, answer) in self.feed.next_answers(&reading, |body, is_full| (body, is_full)) {
                shared.send(connection, me, Segment::Answer(changes(answer)));
            }
            if !self.feed.is_busy() {
                return;
            }
        }
    }

    /// When to [`wake`](Reads::wake) at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.feed.poll_timeout()
    }
}

fn changes((body, is_full): (Bytes, bool)) -> Answer {
    Answer::new(changes_control(is_full), body)
}

/// The answer to a request of an index node or a content.
fn object(source: &Source<'_>, hash: Hash, compared: bool) -> Result<Answer, Found> {
    let body = match Object::find(source.machine, source.contents, &hash) {
        Object::Bytes(bytes) => bytes,
        Object::Large(len) => match source.contents.read_as_it_is(&hash, 0, len) {
            Ok(bytes) => bytes,
            Err(StoreError::CorruptContent(_)) => return Err(Found::Damaged(hash, len)),
            Err(_) => return Ok(Answer::refusal(500, "the disk does not give it")),
        },
        Object::Uncompared(len) if !compared => return Err(Found::Uncompared(hash, len)),
        Object::Damaged(len) => return Err(Found::Damaged(hash, len)),
        Object::Missing => return Ok(Answer::refusal(404, "no such object here")),
        Object::Uncompared(_) | Object::Unreadable(_) => return Ok(Answer::refusal(500, "the disk does not give it")),
    };
    Ok(Answer::new(OBJECT_CONTROL, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::replies::max_age;
    use std::time::Duration;

    #[test]
    fn caches_keep_what_they_may_for_as_long_as_they_may() {
        assert_eq!(max_age(SNAPSHOT_CONTROL), Some(Duration::from_secs(1)));
        assert_eq!(max_age(changes_control(false)), Some(Duration::from_secs(60)));
        assert_eq!(max_age(changes_control(true)), Some(Duration::from_secs(1)));
        assert_eq!(max_age(OBJECT_CONTROL), Some(Duration::from_secs(31_536_000)));
        assert_eq!(max_age("no-store"), None);
        assert_eq!(max_age(""), None);
    }
}
