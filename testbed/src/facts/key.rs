//! What is known of one idempotency key: the attempts under it, and the publications that they made.

use super::{PathId, ProcessId, VersionId};
use crate::trace::{Event, Kind, Text};
use acms_engine::protocol::{Hash, SpId, Uid};
use std::collections::BTreeSet;

/// How many of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) accepted: u32,
    pub(crate) rejected: u32,
    pub(crate) undetermined: u32,
}

impl Outcomes {
    /// Counts an outcome; false if it is none.
    fn count(&mut self, outcome: Option<&str>) -> bool {
        let count = match outcome {
            Some("accepted") => &mut self.accepted,
            Some("rejected") => &mut self.rejected,
            Some("undetermined") => &mut self.undetermined,
            _ => return false,
        };
        *count += 1;
        true
    }

    pub(crate) fn total(self) -> u32 {
        self.accepted + self.rejected + self.undetermined
    }
}

/// What was done under a key at one storage point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AtSp {
    pub(crate) sp: SpId,
    /// Attempts begun there.
    pub(crate) invokes: u32,
    /// How many it told that they are rejected.
    pub(crate) rejected: u32,
    /// Agreed publications that it named.
    pub(crate) publications: u32,
}

/// One idempotency key. Kept for [`Key::KEPT_NS`] after its last event, as storage points keep theirs.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) text: Text,
    pub(crate) path: Option<PathId>,
    /// The first attempt, to name it.
    pub(crate) first: Option<Event>,
    /// The last outcome that a publisher heard.
    pub(crate) last_outcome: Option<Event>,
    /// The last that a storage point told.
    pub(crate) last_told: Option<Event>,
    /// Content of the first attempt.
    pub(crate) hash: Option<Hash>,
    /// Whether that deletes.
    pub(crate) is_deletion: bool,
    /// Whether attempts handed in different contents.
    pub(crate) is_mixed: bool,
    /// Whether an attempt had the fast order, by its own wish or the cluster's default.
    pub(crate) is_fast: bool,
    /// When the first attempt was due.
    pub(crate) due_ns: Option<u64>,
    /// When the next attempt is due, once that was said.
    next_due_ns: Option<u64>,
    /// When the last attempt that began was due.
    pub(crate) attempt_due_ns: u64,
    /// The phase in which the first attempt began.
    pub(crate) phase: u32,
    /// The greatest UID that the publisher knew in each of its attempts.
    pub(crate) known: Option<Uid>,
    /// The greatest that was accepted when the first attempt began.
    pub(crate) after: Option<VersionId>,
    /// Attempts begun.
    pub(crate) invokes: u32,
    /// What publishers heard.
    pub(crate) heard: Outcomes,
    /// Outcomes that are none.
    pub(crate) unheard_of: u32,
    /// What storage points said that they told.
    pub(crate) told: Outcomes,
    /// What was agreed under it, and how many different UIDs that has.
    pub(crate) versions: Vec<VersionId>,
    pub(crate) publications: u32,
    /// Versions that name this key as theirs.
    pub(super) named: Vec<VersionId>,
    /// Attempts that had begun when the first became known as agreed.
    pub(crate) invokes_when_agreed: u32,
    /// Lives of storage points that said that something under it is agreed.
    pub(crate) agreed_by: BTreeSet<(ProcessId, u32)>,
    /// By storage point; complete only if `are_places_known`.
    pub(crate) places: Vec<AtSp>,
    /// Whether it is known of each attempt where it was made.
    pub(crate) are_places_known: bool,
    pub(super) last_ns: u64,
}

impl Key {
    /// 24 h: how long storage points keep keys and outcomes.
    pub(super) const KEPT_NS: u64 = 24 * 3600 * 1_000_000_000;

    pub(super) fn new(text: &Text) -> Key {
        Key {
            text: Text::clone(text),
            path: None,
            first: None,
            last_outcome: None,
            last_told: None,
            hash: None,
            is_deletion: false,
            is_mixed: false,
            is_fast: false,
            due_ns: None,
            next_due_ns: None,
            attempt_due_ns: 0,
            phase: 0,
            known: None,
            after: None,
            invokes: 0,
            heard: Outcomes::default(),
            unheard_of: 0,
            told: Outcomes::default(),
            versions: Vec::new(),
            publications: 0,
            named: Vec::new(),
            invokes_when_agreed: 0,
            agreed_by: BTreeSet::new(),
            places: Vec::new(),
            are_places_known: true,
            last_ns: 0,
        }
    }

    /// When the first attempt began.
    pub(crate) fn first_ns(&self) -> Option<u64> {
        self.first.as_ref().map(|first| first.time_ns)
    }

    /// What was done under it at `sp`.
    pub(super) fn at(&mut self, sp: SpId) -> &mut AtSp {
        let place = self.places.iter().position(|place| place.sp == sp).unwrap_or_else(|| {
            self.places.push(AtSp { sp, invokes: 0, rejected: 0, publications: 0 });
            self.places.len() - 1
        });
        &mut self.places[place]
    }

    /// The next event; `is_fast` is the cluster's default order.
    pub(super) fn take(&mut self, event: &Event, is_fast: bool) {
        self.last_ns = event.time_ns;
        match event.kind {
            Kind::Scheduled => {
                self.due_ns = self.due_ns.or(Some(event.time_ns));
                self.next_due_ns = Some(event.time_ns);
            }
            Kind::Invoke => {
                self.invokes += 1;
                self.attempt_due_ns = self.next_due_ns.take().unwrap_or(event.time_ns);
                self.take_words(event.cause.as_deref().unwrap_or_default(), is_fast);
                match &self.first {
                    None => {
                        self.due_ns = self.due_ns.or(Some(event.time_ns));
                        (self.hash, self.known) = (event.hash, event.uid);
                        self.is_deletion = event.is_deletion();
                        self.first = Some(event.clone());
                    }
                    Some(_) => {
                        self.is_mixed |= self.hash != event.hash || self.is_deletion != event.is_deletion();
                        self.known = self.known.min(event.uid);
                    }
                }
            }
            Kind::Outcome => {
                self.unheard_of += u32::from(!self.heard.count(event.outcome.as_deref()));
                self.last_outcome = Some(event.clone());
            }
            Kind::Accepted | Kind::Rejected | Kind::Undetermined => {
                self.told.count(event.outcome.as_deref());
                self.last_told = Some(event.clone());
                let sp = event.process.strip_prefix("sp").and_then(|number| number.parse().ok()).map(SpId);
                if let (Kind::Rejected, Some(sp)) = (event.kind, sp) {
                    self.at(sp).rejected += 1;
                }
            }
            _ => {}
        }
    }

    /// Where an attempt was made, and in which order.
    fn take_words(&mut self, words: &str, is_fast: bool) {
        let mut sp = None;
        let mut is_fast = is_fast;
        for word in words.split(' ') {
            match word {
                "order=fast" => is_fast = true,
                "order=strict" => is_fast = false,
                _ => sp = sp.or(word.strip_prefix("sp").and_then(|number| number.parse().ok()).map(SpId)),
            }
        }
        self.is_fast |= is_fast;
        match sp {
            Some(sp) => self.at(sp).invokes += 1,
            None => self.are_places_known = false,
        }
    }
}
