//! What is being fetched, and who waits for it. However many ask for the same, it is asked for once.

use super::{arrivals::ExchangeId, status::Counters, store::Temporary};
use crate::{
    client::response::Head,
    protocol::Hash,
    runtime::http::{answer::Outbox, connection::ConnectionId, object::ObjectRead},
};
use std::io;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// An object, whichever name the doubts have.
    Object(Hash),
    /// The snapshot.
    Snapshot,
    /// Changes, by their target.
    Changes(String),
}

impl Key {
    /// The target by which upstream is asked; `again` says which copy is wanted.
    pub(super) fn target(&self, again: Option<&str>) -> String {
        match (self, again) {
            (Key::Object(hash), None) => format!("/v1/objects/{hash}"),
            (Key::Object(hash), Some(again)) => format!("/v1/objects/{hash}?again={again}"),
            (Key::Snapshot, _) => "/v1/snapshot".to_owned(),
            (Key::Changes(target), _) => target.clone(),
        }
    }

    /// For metrics.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Key::Object(_) => Kind::Object,
            Key::Snapshot => Kind::Snapshot,
            Key::Changes(_) => Kind::Changes,
        }
    }
}

/// A kind of resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Snapshot,
    Changes,
    Object,
}

impl Kind {
    /// Its word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Changes => "changes",
            Kind::Object => "object",
        }
    }
}

/// How a request got its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum CacheResult {
    /// From what is kept.
    Hit,
    /// It was asked for upstream.
    Miss,
    /// It waited for what another one had asked for.
    Collapsed,
}

impl CacheResult {
    /// Its word.
    pub(super) fn word(self) -> &'static str {
        match self {
            CacheResult::Hit => "hit",
            CacheResult::Miss => "miss",
            CacheResult::Collapsed => "collapsed",
        }
    }
}

/// Names of the caches that a request came through before this one; none: it came through no other.
pub(super) type Passed = Option<Box<str>>;

/// Who waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) id: ConnectionId,
    pub(super) result: CacheResult,
    pub(super) passed: Passed,
    /// What of the object it wants.
    pub(super) read: Option<ObjectRead>,
    /// The next byte that it is to be sent and the end, once it has its head.
    pub(super) streamed: Option<(u64, u64)>,
}

impl Waiter {
    /// How many caches its request came through.
    pub(super) fn passed_count(&self) -> usize {
        self.passed.as_ref().map_or(0, |names| names.split(',').count())
    }

    /// Sends what may be passed on of an object that is coming in. Whether the answer is complete with that: the client
    /// wants no more than its head, or none of it.
    pub(super) fn stream(&mut self, stream: &Stream, counters: &mut Counters, out: &mut Outbox<'_>) -> bool {
        let Some(read) = &self.read else { return true };
        let (next, end) = match self.streamed {
            Some(part) => part,
            None => {
                let part = read.begin(stream.total, out);
                let len = part.filter(|_| !out.head_only).map_or(0, |(start, end)| end - start);
                counters.count(Kind::Object, self.result, len);
                let Some((start, end)) = part else { return true };
                out.length(end - start);
                if out.head_only {
                    return true;
                }
                (start, end)
            }
        };
        let ready = stream.ready.min(end);
        out.file_part(stream.temporary.file().clone(), next, ready);
        self.streamed = Some((next.max(ready), end));
        ready >= end
    }
}

/// A large object that is passed on while it comes in.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) temporary: Temporary,
    pub(super) hasher: Box<blake3::Hasher>,
    pub(super) total: u64,
    /// Bytes that come although they have come before: the source was asked to go on and began anew.
    pub(super) skip: u64,
    /// Up to where it may be passed on.
    pub(super) ready: u64,
}

impl Stream {
    /// More has come.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let known = self.skip.min(bytes.len() as u64);
        self.skip -= known;
        let new = &bytes[known as usize..];
        self.hasher.update(new);
        self.temporary.append(new)?;
        // Not the last byte, before its hash is known to be right: so nobody ever gets the whole of something wrong, and
        // without its last byte an answer is broken for whoever reads HTTP.
        self.ready = self.temporary.len().min(self.total - 1);
        Ok(())
    }
}

/// What has come.
#[derive(Debug)]
pub(super) enum Incoming {
    /// No head.
    Nothing,
    /// A small answer.
    Memory(Head, Vec<u8>),
    /// A large object.
    Stream(Stream),
}

/// Something that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) waiters: Vec<Waiter>,
    /// Those of the request in whose name upstream is asked: the first one's, unless it was refused because of them.
    pub(super) passed: Passed,
    /// Which copy of an object is wanted, because of a doubt.
    pub(super) again: Option<String>,
    /// Sources that have failed, or do not have it.
    pub(super) tried: Vec<usize>,
    /// What is under way: the exchange and the source. Neither while an object of an earlier life is being compared.
    pub(super) exchange: Option<(ExchangeId, usize)>,
    pub(super) incoming: Incoming,
}

impl Fetch {
    /// Nothing is under way yet.
    pub(super) fn new(passed: Passed, again: Option<String>) -> Fetch {
        Fetch { waiters: Vec::new(), passed, again, tried: Vec::new(), exchange: None, incoming: Incoming::Nothing }
    }
}
