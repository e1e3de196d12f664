//! The trace: what every process of a run said that it did, in the order of the machine's monotonic clock.
//!
//! Everything that is measured or checked is computed from it, so that a stored trace can be judged again.

mod file;
mod hasher;
mod history;
mod kind;
mod line;
mod preamble;
mod recorder;
mod sink;

pub use file::{TraceFileError, TraceWriter, read, stream, write};
pub use hasher::TraceHasher;
pub use history::History;
pub use kind::Kind;
pub use line::{BadLine, parse_line};
pub use preamble::preamble;
pub(crate) use recorder::raise;
pub use recorder::{Recorder, Template, now_ns};
pub use sink::Sink;

use acms_engine::protocol::{Hash, Uid};
use std::{fmt, sync::Arc};

/// A text that many events share.
pub type Text = Arc<str>;

/// One thing that happened in one process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, in nanoseconds: comparable between all processes of a machine.
    pub time_ns: u64,
    /// Who: `sp2`, `receiver17`, `publisher`, `testbed`.
    pub process: Text,
    /// How often that process had been started before.
    pub incarnation: u32,
    /// What.
    pub kind: Kind,
    /// Idempotency key of the publication.
    pub publication: Option<Text>,
    /// Path of the file, or prefix of a subscription.
    pub path: Option<Text>,
    /// Name of the publication.
    pub uid: Option<Uid>,
    /// Hash of the content.
    pub hash: Option<Hash>,
    /// `accepted`, `rejected`, `undetermined`; of files and entries `deleted` and what an audit found.
    pub outcome: Option<Text>,
    /// Why, or what else there is to say.
    pub cause: Option<Text>,
}

impl Event {
    /// An event without particulars.
    pub fn new(time_ns: u64, process: &Text, incarnation: u32, kind: Kind) -> Event {
        let (publication, path, uid, hash, outcome, cause) = (None, None, None, None, None, None);
        let process = Text::clone(process);
        Event { time_ns, process, incarnation, kind, publication, path, uid, hash, outcome, cause }
    }

    /// Whether the event says that the path was deleted.
    pub fn is_deletion(&self) -> bool {
        self.outcome.as_deref() == Some("deleted")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}.{:09} {}", self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000, self.process)?;
        if self.incarnation > 0 {
            write!(f, "#{}", self.incarnation)?;
        }
        write!(f, " {}", self.kind)?;
        for text in [&self.publication, &self.path].into_iter().flatten() {
            write!(f, " {text}")?;
        }
        if let Some(uid) = self.uid {
            write!(f, " uid {uid}")?;
        }
        if let Some(hash) = self.hash {
            write!(f, " hash {hash:?}")?;
        }
        for text in [&self.outcome, &self.cause].into_iter().flatten() {
            write!(f, " {text}")?;
        }
        f.write_str("]")
    }
}

/// All events of a run, sorted by time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    events: Vec<Event>,
}

impl Trace {
    /// The trace of `events`, given in any order.
    pub fn new(mut events: Vec<Event>) -> Trace {
        events.sort_by_key(|event| event.time_ns);
        Trace { events }
    }

    /// The events, by time.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events of one kind, by time.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.kind == kind)
    }

    /// Gives every event to `sink`.
    pub fn feed(self, sink: &mut (impl Sink + ?Sized)) {
        self.events.into_iter().for_each(|event| sink.record(event));
    }

    /// Time of the first event; 0 without events.
    pub fn start_ns(&self) -> u64 {
        self.events.first().map_or(0, |event| event.time_ns)
    }

    /// A hash over every field of every event, in order.
    pub fn hash(&self) -> Hash {
        let mut hasher = TraceHasher::default();
        self.events.iter().for_each(|event| hasher.update(event));
        hasher.finish()
    }
}
