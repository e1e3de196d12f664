//! The trace of a run, event by event, with texts shared.

use super::host::Host;
use crate::trace::{Event, Kind, Sink, Template, Text};
use acms_engine::protocol::Uid;
use std::collections::{BTreeMap, BTreeSet};

/// Where the events of a run go.
pub(super) struct Record<'s> {
    sink: &'s mut dyn Sink,
    texts: BTreeSet<Text>,
    testbed: Text,
    events: u64,
    /// The greatest UID of each path that was agreed or accepted.
    latest: BTreeMap<Text, Uid>,
}

impl<'s> Record<'s> {
    pub(super) fn new(sink: &'s mut dyn Sink) -> Record<'s> {
        let (texts, latest) = (BTreeSet::new(), BTreeMap::new());
        Record { sink, texts, testbed: "testbed".into(), events: 0, latest }
    }

    /// How many events there were.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The greatest UID of each path that was agreed or accepted.
    pub(super) fn latest(&self) -> &BTreeMap<Text, Uid> {
        &self.latest
    }

    /// The same text for all events that have it.
    pub(super) fn text(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return Text::clone(known);
        }
        let new: Text = text.into();
        self.texts.insert(Text::clone(&new));
        new
    }

    /// Something that `host`'s process says of itself, or the testbed of it.
    pub(super) fn host(&mut self, now_ns: u64, host: &Host, kind: Kind, about: Template<'_>) {
        self.note(now_ns, &host.name, host.incarnation(), kind, about);
    }

    /// Something that the testbed did.
    pub(super) fn testbed(&mut self, now_ns: u64, kind: Kind, about: Template<'_>) {
        let testbed = Text::clone(&self.testbed);
        self.note(now_ns, &testbed, 0, kind, about);
    }

    /// A stretch of the run begins.
    pub(super) fn phase(&mut self, now_ns: u64, name: &str) {
        self.testbed(now_ns, Kind::Phase, Template { cause: Some(name), ..Template::default() });
    }

    pub(super) fn note(&mut self, now_ns: u64, process: &Text, incarnation: u32, kind: Kind, about: Template<'_>) {
        // Keys and causes differ from event to event: to keep them would be to keep the trace.
        let event = Event {
            publication: about.publication.map(Text::from),
            path: about.path.map(|path| self.text(path)),
            uid: about.uid,
            hash: about.hash,
            outcome: about.outcome.map(|outcome| self.text(outcome)),
            cause: about.cause.map(Text::from),
            ..Event::new(now_ns, process, incarnation, kind)
        };
        if let (Kind::Agreed | Kind::Merged | Kind::Accepted, Some(path), Some(uid)) = (kind, &event.path, event.uid) {
            match self.latest.get_mut(path) {
                Some(known) => *known = uid.max(*known),
                None => drop(self.latest.insert(Text::clone(path), uid)),
            }
        }
        self.events += 1;
        self.sink.record(event);
    }
}
