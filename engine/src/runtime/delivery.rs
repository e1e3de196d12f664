//! What a storage point delivers, and when: the answers of the changes feed, and the requests that wait for one.
//!
//! Wake-ups come in rounds. What changed while a round is being written waits for the next round, so under load answers
//! carry more instead of coming more often. Within a round each answer is built once and shared.
//!
//! It does no input or output, so that the runtime and the simulator share it.

use crate::{
    protocol::{
        Duration, Instant, Micros, Path, Prefix, StoragePoint,
        api::{Changes, Cursor},
        io::ChangesAnswer,
    },
    store::{Contents, Storage},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

/// What caches may do with a snapshot.
pub const SNAPSHOT_CONTROL: &str = "max-age=1, stale-while-revalidate=0";
/// What caches may do with an object.
pub const OBJECT_CONTROL: &str = "public, max-age=31536000, immutable";
/// A changes request is held this long at most.
pub const HOLD_TIME: Duration = Duration::from_secs(25);
/// Contents up to this are put into the answer ...
const INLINE_LEN_MAX: u64 = 4 << 10;
/// ... up to this in all.
const INLINE_TOTAL_MAX: u64 = 64 << 10;
/// Answers of a round that are given out at once.
const ROUND_SLICE: usize = 256;
/// Bytes of bodies that are kept for others who ask for the same: who asks decides for what.
const BODIES_LEN_MAX: usize = 16 << 20;
/// What one takes beside its bytes.
const BODY_COST: usize = 256;

/// What caches may do with an answer of the changes feed.
pub fn changes_control(is_full: bool) -> &'static str {
    if is_full { "max-age=1" } else { "max-age=60, stale-while-revalidate=0" }
}

/// Where answers come from.
pub struct Reading<'a, S: Storage> {
    /// The storage point.
    pub sp: &'a StoragePoint,
    /// Its contents.
    pub contents: &'a Contents<S>,
    /// Its wall clock.
    pub wall: Micros,
}

impl<S: Storage> std::fmt::Debug for Reading<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading").field("wall", &self.wall).finish_non_exhaustive()
    }
}

impl<S: Storage> Reading<'_, S> {
    /// The body of `GET /v1/snapshot`.
    pub fn snapshot(&self) -> Bytes {
        json(&self.sp.snapshot(self.wall))
    }

    /// Puts small contents into the answer.
    fn fill_in(&self, changes: &mut Changes) {
        let mut room = INLINE_TOTAL_MAX;
        for entry in &mut changes.entries {
            if entry.flags.deleted || entry.size > INLINE_LEN_MAX.min(room) {
                continue;
            }
            // What cannot be read now the receiver fetches by hash.
            let read = if entry.size == 0 { Ok(Bytes::new()) } else { self.contents.read(&entry.hash, 0, entry.size) };
            if let Ok(bytes) = read {
                room -= entry.size;
                entry.inline = Some(bytes.into());
            }
        }
    }
}

/// A value as a body of JSON.
pub fn json(value: &impl serde::Serialize) -> Bytes {
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    body.into()
}

#[derive(Debug)]
struct Hold {
    cursor: Cursor,
    prefix: Prefix,
    until: Instant,
}

/// The requests of the changes feed that are held, each named by who sent it. `A` is an answer in the form in which it
/// goes out; the functions `make` make one from the body, and from whether it says "walk the tree" ([`changes_control`]).
#[derive(Debug)]
pub struct FeedHolds<I, A> {
    groups: BTreeMap<String, BTreeSet<I>>,
    holds: BTreeMap<I, Hold>,
    deadlines: BTreeSet<(Instant, I)>,
    /// Prefixes whose requests may have an answer.
    dirty: BTreeSet<String>,
    /// All of them may have one, if only that the sequence has moved.
    idle: bool,
    /// Those of the current round that are still to be looked at, and whether moving on suffices for them.
    round: VecDeque<(I, bool)>,
    bodies: BTreeMap<(Cursor, String), A>,
    bodies_len: usize,
    bodies_sequence: u64,
}

impl<I, A> Default for FeedHolds<I, A> {
    fn default() -> Self {
        FeedHolds {
            groups: BTreeMap::new(),
            holds: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            idle: false,
            round: VecDeque::new(),
            bodies: BTreeMap::new(),
            bodies_len: 0,
            bodies_sequence: 0,
        }
    }
}

impl<I: Copy + Ord, A: Clone> FeedHolds<I, A> {
    /// How many requests are held.
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// Whether a round is under way.
    pub fn is_busy(&self) -> bool {
        !self.round.is_empty()
    }

    /// Whether a call of [`FeedHolds::next_answers`] may have answers now.
    pub fn is_due(&self) -> bool {
        self.is_busy() || self.idle || !self.dirty.is_empty()
    }

    /// Who has a request that is held.
    pub fn ids(&self) -> impl Iterator<Item = I> {
        self.holds.keys().copied()
    }

    /// Whether this one's request is held.
    pub fn contains(&self, id: I) -> bool {
        self.holds.contains_key(&id)
    }

    /// The first time at which a held request has to be looked at.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// A request has come: its answer, or none if it is held.
    pub fn ask<S: Storage>(
        &mut self,
        reading: &Reading<'_, S>,
        now: Instant,
        id: I,
        (cursor, prefix): (Cursor, Prefix),
        make: impl FnOnce(Bytes, bool) -> A,
    ) -> Option<A> {
        if self.is_busy() {
            // The round under way comes first; this one has its turn in the next.
            self.dirty.insert(prefix.as_str().to_owned());
        } else if let Some(answer) = self.answer_for(reading, cursor, &prefix, false, make) {
            return Some(answer);
        }
        let until = now.after(HOLD_TIME);
        self.groups.entry(prefix.as_str().to_owned()).or_default().insert(id);
        self.deadlines.insert((until, id));
        self.holds.insert(id, Hold { cursor, prefix, until });
        None
    }

    /// Who sent the request is gone, or has its answer.
    pub fn release(&mut self, id: I) {
        let Some(hold) = self.holds.remove(&id) else { return };
        self.deadlines.remove(&(hold.until, id));
        if let Some(group) = self.groups.get_mut(hold.prefix.as_str()) {
            group.remove(&id);
            if group.is_empty() {
                self.groups.remove(hold.prefix.as_str());
            }
        }
    }

    /// Notes what has changed. `idle`: a sequence was minted without a change.
    pub fn note<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>, idle: bool) {
        self.idle |= idle;
        paths.into_iter().for_each(|path| self.mark(path));
    }

    /// Notes which prefixes a change concerns: those it lies under, and those that it hides.
    fn mark(&mut self, path: &Path) {
        let path = path.as_str();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([0, path.len()]);
        for prefix in ends.map(|end| &path[..end]) {
            if self.groups.contains_key(prefix) {
                self.dirty.insert(prefix.to_owned());
            }
        }
        let below = format!("{path}/");
        let hidden = self.groups.range(below.clone()..).take_while(|(prefix, _)| prefix.starts_with(&below));
        self.dirty.extend(hidden.map(|(prefix, _)| prefix.clone()));
    }

    /// Begins a round if one is due and none is under way.
    fn begin_round(&mut self) {
        if self.is_busy() {
            return;
        }
        if mem::take(&mut self.idle) {
            self.dirty.clear();
            self.round.extend(self.holds.keys().map(|id| (*id, true)));
        } else {
            for prefix in mem::take(&mut self.dirty) {
                self.round.extend(self.groups.get(&prefix).into_iter().flatten().map(|id| (*id, false)));
            }
        }
        if self.is_busy() {
            self.forget_bodies();
        }
    }

    fn forget_bodies(&mut self) {
        self.bodies.clear();
        self.bodies_len = 0;
    }

    /// A slice of the current round: who gets which answer. They are no longer held.
    pub fn next_answers<S: Storage>(
        &mut self,
        reading: &Reading<'_, S>,
        make: impl Fn(Bytes, bool) -> A,
    ) -> Vec<(I, A)> {
        self.begin_round();
        let mut answers = Vec::new();
        for _ in 0..ROUND_SLICE {
            let Some((id, moving_on)) = self.round.pop_front() else { break };
            let Some(hold) = self.holds.get(&id) else { continue };
            let (cursor, prefix) = (hold.cursor, hold.prefix.clone());
            if let Some(answer) = self.answer_for(reading, cursor, &prefix, moving_on, &make) {
                self.release(id);
                answers.push((id, answer));
            }
        }
        answers
    }

    /// Requests that have been held long enough by `now` join the next round.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((until, id)) = self.deadlines.first().copied().filter(|(until, _)| *until <= now) {
            self.deadlines.remove(&(until, id));
            self.round.push_back((id, true));
        }
    }

    /// The answer to a request, if it has one now; with `moving_on`, that the sequence has moved is one.
    fn answer_for<S: Storage>(
        &mut self,
        reading: &Reading<'_, S>,
        cursor: Cursor,
        prefix: &Prefix,
        moving_on: bool,
        make: impl FnOnce(Bytes, bool) -> A,
    ) -> Option<A> {
        let here = reading.sp.cursor();
        if !self.is_busy() && self.bodies_sequence != here.sequence {
            self.forget_bodies();
        }
        self.bodies_sequence = here.sequence;
        let key = (cursor, prefix.as_str().to_owned());
        if let Some(answer) = self.bodies.get(&key) {
            return Some(answer.clone());
        }
        let mut changes = match reading.sp.changes(reading.wall, cursor, prefix) {
            ChangesAnswer::Now(changes) => changes,
            ChangesAnswer::Hold if moving_on && here > cursor => reading.sp.changes_now(reading.wall, cursor, prefix),
            ChangesAnswer::Hold => return None,
        };
        reading.fill_in(&mut changes);
        let body = json(&changes);
        // In the form in which it goes out it is there once more.
        let len = 2 * body.len() + key.1.len() + BODY_COST;
        if self.bodies_len + len > BODIES_LEN_MAX {
            self.forget_bodies();
        }
        self.bodies_len += len;
        let answer = make(body, changes.full);
        self.bodies.insert(key, answer.clone());
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Config, Limits, Mode, Now, Order, QuorumSystem, SpId, StoreId},
        store::{MemoryStorage, Store, StoreIdentity},
    };

    #[test]
    fn bodies_that_are_kept_take_a_bounded_room_whatever_is_asked_for() {
        let store = StoreId { number: 0, nonce: 1 };
        let config = Config {
            cluster: "test".into(),
            epoch: 1,
            me: SpId(1),
            store,
            members: vec![SpId(1)],
            mode: Mode::Fused,
            order: Order::Strict,
            quorum: QuorumSystem::default(),
            max_drift: Duration::from_secs(3_600),
            limits: Limits::default(),
        };
        let now = Now { instant: Instant(0), wall: Micros(1_000_000_000_000) };
        let sp = StoragePoint::new(config, 1, Vec::new(), now).unwrap();
        let storage = MemoryStorage::new();
        let identity = StoreIdentity { cluster: "test".into(), sp: SpId(1), store };
        Store::create(storage.clone(), &identity).unwrap();
        let opened = Store::open(storage).unwrap();
        let reading = Reading { sp: &sp, contents: &opened.contents, wall: now.wall };
        let mut holds = FeedHolds::<u64, (Bytes, bool)>::default();
        for sequence in 0..30_000 {
            let asked = (Cursor { sp: SpId(9), sequence, ..sp.cursor() }, Prefix::default());
            let answer = holds.ask(&reading, now.instant, sequence, asked, |body, is_full| (body, is_full));
            assert!(answer.is_some_and(|(_, is_full)| is_full), "a cursor of nobody");
        }
        assert!(holds.bodies.len() < 30_000, "{} bytes", holds.bodies_len);
        assert!(holds.is_empty() && !holds.is_due());
        holds.note([], true);
        assert!(holds.is_due(), "the next turn is not to be waited for");
        assert!(holds.next_answers(&reading, |body, is_full| (body, is_full)).is_empty() && !holds.is_due());
    }
}
