//! Collects the events of a run while it goes on, and knows at any time who holds what.

use super::{Event, Kind, Text, Trace};
use acms_engine::protocol::{Hash, Prefix, Uid};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of all events.
pub fn now_ns() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs()
}

/// Where the processes' events go. Clones share one recording.
#[derive(Clone, Default, Debug)]
pub struct Recorder(Arc<Mutex<Recording>>);

#[derive(Default, Debug)]
struct Recording {
    texts: BTreeSet<Text>,
    events: Vec<Event>,
    /// The greatest UID of each path that was agreed or accepted.
    latest: BTreeMap<Text, Uid>,
    /// What each receiver has durably.
    held: BTreeMap<Text, BTreeMap<Text, Uid>>,
    bad_lines: u64,
}

/// Particulars of an event that the testbed itself records.
#[derive(Clone, Copy, Default, Debug)]
pub struct Template<'a> {
    /// Idempotency key.
    pub publication: Option<&'a str>,
    /// Path.
    pub path: Option<&'a str>,
    /// Name of the publication.
    pub uid: Option<Uid>,
    /// Hash of the content.
    pub hash: Option<Hash>,
    /// Outcome.
    pub outcome: Option<&'a str>,
    /// Cause.
    pub cause: Option<&'a str>,
}

impl Recorder {
    /// An empty recording.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().expect("nothing panics while it records")
    }

    /// `text`, shared with all events that have the same.
    pub fn text(&self, text: &str) -> Text {
        self.lock().text(text)
    }

    /// Adds an event.
    pub fn record(&self, event: Event) {
        self.lock().record(event);
    }

    /// Adds an event of the testbed's own, now; the time it was given.
    pub fn note(&self, process: &Text, incarnation: u32, kind: Kind, template: Template<'_>) -> u64 {
        let time_ns = now_ns();
        self.note_at(time_ns, process, incarnation, kind, template);
        time_ns
    }

    /// Adds an event of the testbed's own.
    pub fn note_at(&self, time_ns: u64, process: &Text, incarnation: u32, kind: Kind, template: Template<'_>) {
        let mut recording = self.lock();
        let mut text = |text: Option<&str>| text.map(|text| recording.text(text));
        let event = Event {
            publication: text(template.publication),
            path: text(template.path),
            uid: template.uid,
            hash: template.hash,
            outcome: text(template.outcome),
            cause: text(template.cause),
            ..Event::new(time_ns, process, incarnation, kind)
        };
        recording.record(event);
    }

    /// Counts a line that was no event.
    pub fn count_bad_line(&self) {
        self.lock().bad_lines += 1;
    }

    /// How many lines of processes were no events.
    pub fn bad_lines(&self) -> u64 {
        self.lock().bad_lines
    }

    /// How many (receiver, path) pairs of `receivers`, all of which subscribe to `prefixes`, lack the latest
    /// publication, and how many pairs there are.
    pub fn behind(&self, receivers: &[Text], prefixes: &[Prefix]) -> (u64, u64) {
        let recording = self.lock();
        let wanted = |path: &str| prefixes.iter().any(|prefix| prefix.covers(path));
        let latest: Vec<_> = recording.latest.iter().filter(|(path, _)| wanted(path)).collect();
        let empty = BTreeMap::new();
        let mut behind = 0;
        for receiver in receivers {
            // Both are in the order of paths: one walk over both, for this is asked often.
            let mut held = recording.held.get(receiver).unwrap_or(&empty).iter().peekable();
            for (path, uid) in &latest {
                while held.next_if(|(other, _)| other < path).is_some() {}
                let is_latest = held.peek().is_some_and(|(other, held)| other == path && held >= uid);
                behind += u64::from(!is_latest);
            }
        }
        (behind, receivers.len() as u64 * latest.len() as u64)
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the recording: all that was recorded so far, by time.
    pub fn finish(&self) -> Trace {
        Trace::new(std::mem::take(&mut self.lock().events))
    }
}

impl Recording {
    fn text(&mut self, text: &str) -> Text {
        if let Some(known) = self.texts.get(text) {
            return Text::clone(known);
        }
        let new: Text = text.into();
        self.texts.insert(Text::clone(&new));
        new
    }

    fn record(&mut self, event: Event) {
        if let (Some(path), Some(uid)) = (&event.path, event.uid) {
            match event.kind {
                Kind::Agreed | Kind::Merged | Kind::Accepted => raise(&mut self.latest, path, uid),
                Kind::Applied => raise(self.held.entry(Text::clone(&event.process)).or_default(), path, uid),
                _ => {}
            }
        }
        self.events.push(event);
    }
}

/// Notes the UID of a path, if it is the greatest of it so far.
pub(crate) fn raise(uids: &mut BTreeMap<Text, Uid>, path: &Text, uid: Uid) {
    match uids.get_mut(path) {
        Some(known) => *known = uid.max(*known),
        None => drop(uids.insert(Text::clone(path), uid)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_who_is_behind() {
        let recorder = Recorder::new();
        let (sp, receiver): (Text, Text) = ("sp1".into(), "receiver1".into());
        let uid = |micros| Some(format!("{micros}.1.0").parse().unwrap());
        let at = |path, micros| Template { path: Some(path), uid: uid(micros), ..Template::default() };
        recorder.note(&sp, 0, Kind::Agreed, at("a", 1));
        recorder.note(&sp, 0, Kind::Agreed, at("b", 2));
        let behind = |prefix: &str| recorder.behind(std::slice::from_ref(&receiver), &[prefix.parse().unwrap()]);
        assert_eq!((behind(""), behind("a"), behind("c")), ((2, 2), (1, 1), (0, 0)));
        recorder.note(&receiver, 0, Kind::Applied, at("a", 1));
        recorder.note(&receiver, 0, Kind::Applied, at("b", 1));
        assert_eq!(behind(""), (1, 2));
        recorder.note(&receiver, 0, Kind::Applied, at("b", 3));
        assert_eq!(behind(""), (0, 2));
        let trace = recorder.finish();
        assert_eq!(trace.events().len(), 5);
        assert!(trace.events().is_sorted_by_key(|event| event.time_ns));
    }
}
