//! The trace of a run, event by event, with texts shared.

use super::host::Host;
use crate::trace::{Event, Kind, Sink, Template, Text, raise};
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
    /// The last as-of that each process has told in its present life.
    as_of_us: BTreeMap<Text, u64>,
    /// When a fault last began or ended.
    faults_end_ns: u64,
}

impl<'s> Record<'s> {
    pub(super) fn new(sink: &'s mut dyn Sink) -> Record<'s> {
        let (texts, latest, as_of_us) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Record { sink, texts, testbed: "testbed".into(), events: 0, latest, as_of_us, faults_end_ns: 0 }
    }

    /// How many events there were.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    /// The greatest UID of each path that was agreed or accepted.
    pub(super) fn latest(&self) -> &BTreeMap<Text, Uid> {
        &self.latest
    }

    /// The last as-of that a process has told in its present life, in microseconds since 1970; 0 if none.
    pub(super) fn as_of_us(&self, process: &Text) -> u64 {
        self.as_of_us.get(process).copied().unwrap_or(0)
    }

    /// When a fault last began or ended.
    pub(super) fn faults_end_ns(&self) -> u64 {
        self.faults_end_ns
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
            raise(&mut self.latest, path, uid);
        }
        match kind {
            Kind::Start => drop(self.as_of_us.remove(process)),
            Kind::AsOf | Kind::Current => {
                let as_of_us = about.cause.and_then(|cause| cause.parse().ok()).unwrap_or(0);
                self.as_of_us.insert(Text::clone(process), as_of_us);
            }
            Kind::Fault | Kind::FaultUndone => self.faults_end_ns = now_ns,
            _ => {}
        }
        self.events += 1;
        self.sink.record(event);
    }
}
