//! What the records of the log say, all in all: the fold that a checkpoint writes down.
//!
//! Invariant: replaying [`Ledger::records`] leads where replaying all records applied so far leads, and a content is
//! alive as long as a publication that is neither released nor forgotten names it.

use super::format::Placed;
use crate::protocol::{Durable, Hash, Instant, Manifest, Micros, SpId, StoreId, Uid};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

/// Where a small content lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Segment.
    pub(super) generation: u64,
    /// From its start.
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// A content that is a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileOf {
    pub(super) len: u64,
    /// Tells this file from an earlier or later one of the same name.
    pub(super) stamp: u64,
    /// Stored at this time, and not yet named by a record.
    pub(super) unnamed_since: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Content {
    /// Entries of publications that need it.
    names: u32,
    /// Its bytes, as they say.
    len: u64,
    place: Option<Place>,
    file: Option<FileOf>,
}

/// What is known of one publication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Known {
    /// Once it is held.
    manifest: Option<Arc<Manifest>>,
    /// Its own bit came with it.
    held_with_bit: bool,
    own_bit: bool,
    agreed: bool,
    superseded_by: Option<Uid>,
    released: bool,
}

impl Known {
    fn needs_contents(&self) -> Option<&Arc<Manifest>> {
        self.manifest.as_ref().filter(|_| !self.released)
    }

    fn records(&self, uid: Uid, out: &mut Vec<Durable>) {
        if let Some(manifest) = &self.manifest {
            let (manifest, contents) = (Arc::clone(manifest), Vec::new());
            out.push(Durable::Held { manifest, contents, own_bit: self.held_with_bit });
        }
        if self.own_bit {
            out.push(Durable::OwnBit { uid });
        }
        if self.agreed {
            out.push(Durable::Agreed { uid });
        }
        if let Some(superseded_by) = self.superseded_by {
            out.push(Durable::Dropped { uid, superseded_by });
        }
        if self.released {
            out.push(Durable::Released { uid });
        }
    }
}

/// The fold of all records up to a place in the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ledger {
    starts: Option<u32>,
    ceiling: Option<Micros>,
    stores: BTreeMap<SpId, StoreId>,
    publications: BTreeMap<Uid, Known>,
    as_of: Option<Micros>,
    joined: bool,
    contents: BTreeMap<Hash, Content>,
    /// Contents that nothing names, and since when.
    dead: BTreeMap<Hash, Instant>,
    /// The time of what is applied.
    now: Instant,
    /// Files whose content has a better copy.
    dead_files: Vec<(Hash, u64)>,
    /// By segment and offset.
    placed: BTreeSet<(u64, u32, Hash)>,
    /// Bytes of contents in each segment that something names.
    alive: BTreeMap<u64, u64>,
}

/// Which publications to write down next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    Start,
    Publication(Uid),
}

impl Ledger {
    /// What is applied from now on happens at `now`.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// One more record.
    pub(super) fn apply(&mut self, record: &Durable) {
        match record {
            Durable::Held { manifest, own_bit, .. } => self.hold(manifest, *own_bit),
            Durable::OwnBit { uid } => {
                let known = self.publications.entry(*uid).or_default();
                known.own_bit |= !known.held_with_bit;
            }
            Durable::Agreed { uid } => self.publications.entry(*uid).or_default().agreed = true,
            Durable::Dropped { uid, superseded_by } => {
                self.publications.entry(*uid).or_default().superseded_by = Some(*superseded_by);
            }
            Durable::Ceiling { micros } => self.ceiling = self.ceiling.max(Some(*micros)),
            Durable::Started { starts } => self.starts = self.starts.max(Some(*starts)),
            Durable::Store { sp, store } => self.learn_store(*sp, *store),
            Durable::AsOf { micros } => self.as_of = self.as_of.max(Some(*micros)),
            Durable::Joined => self.joined = true,
            Durable::Released { uid } => self.release(*uid),
            Durable::Forgotten { uid } => {
                self.release(*uid);
                self.publications.remove(uid);
            }
        }
    }

    fn hold(&mut self, manifest: &Arc<Manifest>, own_bit: bool) {
        let known = self.publications.entry(manifest.uid).or_default();
        let needed = known.needs_contents().is_some();
        let manifest = Arc::clone(known.manifest.get_or_insert_with(|| Arc::clone(manifest)));
        known.held_with_bit |= own_bit;
        known.own_bit &= !known.held_with_bit;
        known.released = false;
        if !needed {
            for entry in &manifest.entries {
                let content = self.contents.entry(entry.hash).or_default();
                content.names += 1;
                content.len = entry.size;
                if let Some(file) = &mut content.file {
                    file.unnamed_since = None;
                }
                if content.names == 1 {
                    self.revive(entry.hash);
                }
            }
        }
    }

    fn release(&mut self, uid: Uid) {
        let known = self.publications.entry(uid).or_default();
        let manifest = known.needs_contents().cloned();
        known.released = true;
        for entry in manifest.iter().flat_map(|manifest| &manifest.entries) {
            let content = self.contents.get_mut(&entry.hash).expect("a needed content is known");
            content.names -= 1;
            if content.names == 0 {
                if let Some(place) = content.place {
                    *self.alive.entry(place.generation).or_default() -= u64::from(place.len);
                }
                self.dead.insert(entry.hash, self.now);
            }
        }
    }

    /// The content is named again, or for the first time.
    fn revive(&mut self, hash: Hash) {
        self.dead.remove(&hash);
        if let Some(place) = self.contents.get(&hash).and_then(|content| content.place) {
            *self.alive.entry(place.generation).or_default() += u64::from(place.len);
        }
    }

    fn learn_store(&mut self, sp: SpId, store: StoreId) {
        let known = self.stores.entry(sp).or_insert(store);
        if store.number > known.number {
            *known = store;
        }
    }

    // ---- Contents -------------------------------------------------------------------------------------------------

    /// A content lies in the log from now on, no longer where it was before.
    pub(super) fn place(&mut self, hash: Hash, place: Place) {
        self.unplace(hash);
        let content = self.contents.entry(hash).or_default();
        content.place = Some(place);
        if let Some(file) = content.file.take() {
            self.dead_files.push((hash, file.stamp));
        }
        self.placed.insert((place.generation, place.offset, hash));
        if content.names > 0 {
            *self.alive.entry(place.generation).or_default() += u64::from(place.len);
        } else {
            self.dead.entry(hash).or_insert(self.now);
        }
    }

    pub(super) fn place_all(&mut self, generation: u64, placed: &[Placed]) {
        for Placed { hash, offset, len } in placed {
            self.place(*hash, Place { generation, offset: *offset, len: *len });
        }
    }

    /// A content is no longer where it was.
    pub(super) fn unplace(&mut self, hash: Hash) {
        let Some(content) = self.contents.get_mut(&hash) else { return };
        if let Some(old) = content.place.take() {
            self.placed.remove(&(old.generation, old.offset, hash));
            if content.names > 0 {
                *self.alive.entry(old.generation).or_default() -= u64::from(old.len);
            }
        }
    }

    /// A content is a file from now on, and no longer where it was before.
    pub(super) fn store_file(&mut self, hash: Hash, file: FileOf) {
        self.unplace(hash);
        let content = self.contents.entry(hash).or_default();
        let unnamed_since = file.unnamed_since.filter(|_| content.names == 0);
        content.file = Some(FileOf { unnamed_since, ..file });
        if content.names == 0 {
            self.dead.entry(hash).or_insert(self.now);
        }
    }

    /// Contents that nothing names since `dead_at` or longer; files that nothing ever named since `unnamed_at`.
    pub(super) fn dead(
        &self,
        dead_at: Instant,
        unnamed_at: Instant,
    ) -> impl Iterator<Item = (Hash, Option<Place>, Option<u64>)> + '_ {
        let dead = self.dead.iter().filter(move |(_, since)| **since <= dead_at);
        let dead = dead.map(|(hash, _)| (*hash, self.contents.get(hash).copied().unwrap_or_default()));
        let is_due = move |content: &Content| {
            content.file.and_then(|file| file.unnamed_since).is_none_or(|stored_at| stored_at <= unnamed_at)
        };
        dead.filter(move |(_, content)| is_due(content))
            .map(|(hash, content)| (hash, content.place, content.file.map(|file| file.stamp)))
    }

    /// Nothing is left of a content.
    pub(super) fn forget_content(&mut self, hash: Hash) {
        self.unplace(hash);
        self.contents.remove(&hash);
        self.dead.remove(&hash);
    }

    /// Bytes that a content has by the publications that need it.
    pub(super) fn expected_len(&self, hash: Hash) -> Option<u64> {
        self.contents.get(&hash).filter(|content| content.names > 0).map(|content| content.len)
    }

    /// Contents that are needed and nowhere, with their bytes. (Of an empty one there is nothing to lose.)
    pub(super) fn lost(&self) -> Vec<(Hash, u64)> {
        let is_lost = |content: &Content| {
            content.names > 0 && content.len > 0 && content.place.is_none() && content.file.is_none()
        };
        self.contents
            .iter()
            .filter(|(_, content)| is_lost(content))
            .map(|(hash, content)| (*hash, content.len))
            .collect()
    }

    /// Files that a copy in the log has taken the place of: hash and stamp.
    pub(super) fn take_dead_files(&mut self) -> Vec<(Hash, u64)> {
        std::mem::take(&mut self.dead_files)
    }

    /// Whether anything in the segment is named, or was after `dead_at`.
    pub(super) fn is_needed(&self, generation: u64, dead_at: Instant) -> bool {
        self.placed_in(generation).any(|hash| self.dead.get(&hash).is_none_or(|since| *since > dead_at))
    }

    /// Bytes of the segment's contents that are alive.
    pub(super) fn alive_in(&self, generation: u64) -> u64 {
        self.alive.get(&generation).copied().unwrap_or_default()
    }

    /// Bytes of all contents in the log that are alive.
    pub(super) fn alive(&self) -> u64 {
        self.alive.values().sum()
    }

    /// The segment is of no use any more.
    pub(super) fn forget_segment(&mut self, generation: u64) {
        self.alive.remove(&generation);
    }

    /// Segments in which contents lie.
    pub(super) fn generations(&self) -> BTreeSet<u64> {
        self.placed.iter().map(|(generation, _, _)| *generation).collect()
    }

    /// Contents of a segment, by offset.
    pub(super) fn placed_in(&self, generation: u64) -> impl Iterator<Item = Hash> + '_ {
        let range = (generation, 0, Hash([0; 32]))..=(generation, u32::MAX, Hash([0xff; 32]));
        self.placed.range(range).map(|(_, _, hash)| *hash)
    }

    /// The same with their places.
    pub(super) fn places_in(&self, generation: u64) -> impl Iterator<Item = (Hash, Place)> + '_ {
        self.placed_in(generation).filter_map(|hash| Some((hash, self.contents.get(&hash)?.place?)))
    }

    pub(super) fn is_alive(&self, hash: Hash) -> bool {
        self.contents.get(&hash).is_some_and(|content| content.names > 0)
    }

    /// Where contents lie that are named, or were after `dead_at`; those after `after`.
    pub(super) fn places_after(
        &self,
        after: Option<Hash>,
        dead_at: Instant,
    ) -> impl Iterator<Item = (Hash, Place)> + '_ {
        let range = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let places = self.contents.range(range).filter_map(|(hash, content)| Some((*hash, content.place?)));
        places.filter(move |(hash, _)| self.dead.get(hash).is_none_or(|since| *since > dead_at))
    }

    // ---- What is written down -------------------------------------------------------------------------------------

    /// Publications known.
    pub(super) fn publications(&self) -> usize {
        self.publications.len()
    }

    /// What comes before the publications.
    pub(super) fn first_records(&self) -> Vec<Durable> {
        let started = self.starts.map(|starts| Durable::Started { starts });
        let ceiling = self.ceiling.map(|micros| Durable::Ceiling { micros });
        let stores = self.stores.iter().map(|(sp, store)| Durable::Store { sp: *sp, store: *store });
        started.into_iter().chain(ceiling).chain(stores).collect()
    }

    /// The records of the publication after `after`, with its UID.
    pub(super) fn next_records(&self, after: After, out: &mut Vec<Durable>) -> Option<Uid> {
        let start = match after {
            After::Start => Bound::Unbounded,
            After::Publication(uid) => Bound::Excluded(uid),
        };
        let (uid, known) = self.publications.range((start, Bound::Unbounded)).next()?;
        known.records(*uid, out);
        Some(*uid)
    }

    /// What says something about all that came before it.
    pub(super) fn last_records(&self) -> Vec<Durable> {
        let as_of = self.as_of.map(|micros| Durable::AsOf { micros });
        as_of.into_iter().chain(self.joined.then_some(Durable::Joined)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Entry, Flags};
    use proptest::prelude::*;

    fn uid(micros: u64) -> Uid {
        Uid { micros, sp: SpId(1), store: 0 }
    }

    fn hash(n: u8) -> Hash {
        Hash([n; 32])
    }

    fn held(micros: u64, content: u8, own_bit: bool) -> Durable {
        let (content_type, flags) = (String::new(), Flags::default());
        let entry = Entry { path: "a".parse().unwrap(), hash: hash(content), size: 9, content_type, flags };
        let (publisher, entries) = ("p".into(), vec![entry.clone(), entry]);
        let manifest = Manifest { uid: uid(micros), publisher, key: None, entries, unknown: Vec::new() };
        Durable::Held { manifest: Arc::new(manifest), contents: Vec::new(), own_bit }
    }

    fn records(ledger: &Ledger) -> Vec<Durable> {
        let mut out = ledger.first_records();
        let mut after = After::Start;
        while let Some(uid) = ledger.next_records(after, &mut out) {
            after = After::Publication(uid);
        }
        out.extend(ledger.last_records());
        out
    }

    fn ledger(records: &[Durable]) -> Ledger {
        let mut ledger = Ledger::default();
        records.iter().for_each(|record| ledger.apply(record));
        ledger
    }

    fn record() -> impl Strategy<Value = Durable> {
        let one = (0u64..6).prop_map(uid);
        prop_oneof![
            4 => (0u64..6, 0u8..4, any::<bool>()).prop_map(|(micros, content, own)| held(micros, content, own)),
            1 => one.clone().prop_map(|uid| Durable::OwnBit { uid }),
            2 => one.clone().prop_map(|uid| Durable::Agreed { uid }),
            1 => (one.clone(), one.clone()).prop_map(|(uid, superseded_by)| Durable::Dropped { uid, superseded_by }),
            1 => (0u64..9).prop_map(|micros| Durable::Ceiling { micros: Micros(micros) }),
            1 => (0u32..9).prop_map(|starts| Durable::Started { starts }),
            2 => (0u8..5, 0u32..3).prop_map(|(sp, number)| {
                Durable::Store { sp: SpId(sp), store: StoreId { number, nonce: number.into() } }
            }),
            1 => (0u64..9).prop_map(|micros| Durable::AsOf { micros: Micros(micros) }),
            1 => Just(Durable::Joined),
            2 => one.clone().prop_map(|uid| Durable::Released { uid }),
            1 => one.prop_map(|uid| Durable::Forgotten { uid }),
        ]
    }

    proptest! {
        #[test]
        fn its_records_say_the_same_and_go_on_the_same(
            before in proptest::collection::vec(record(), 0..60),
            after in proptest::collection::vec(record(), 0..20),
        ) {
            let whole = ledger(&before);
            let mut again = ledger(&records(&whole));
            let alive = |ledger: &Ledger| (0..4).map(|n| ledger.is_alive(hash(n))).collect::<Vec<_>>();
            prop_assert_eq!(records(&again), records(&whole));
            prop_assert_eq!(alive(&again), alive(&whole));
            // What comes later means the same, whether the log or a checkpoint came before it.
            let all = ledger(&[before, after.clone()].concat());
            after.iter().for_each(|record| again.apply(record));
            prop_assert_eq!(records(&again), records(&all));
            prop_assert_eq!(alive(&again), alive(&all));
        }
    }

    #[test]
    fn a_content_is_alive_while_a_publication_needs_it() {
        let place = |generation, offset| Place { generation, offset, len: 9 };
        let dead = |ledger: &Ledger, unnamed: u64| ledger.dead(Instant(0), Instant(unnamed)).collect::<Vec<_>>();
        let mut ledger = ledger(&[held(1, 1, true), held(2, 1, true), held(3, 3, true)]);
        ledger.place(hash(1), place(1, 512));
        ledger.place(hash(3), place(1, 600));
        assert_eq!((ledger.alive(), dead(&ledger, 0)), (18, vec![]));
        ledger.apply(&Durable::Released { uid: uid(1) });
        assert_eq!(ledger.alive(), 18);
        ledger.place(hash(1), place(2, 512));
        assert_eq!((ledger.alive_in(1), ledger.alive_in(2)), (9, 9));
        ledger.apply(&Durable::Forgotten { uid: uid(2) });
        assert_eq!(dead(&ledger, 0), [(hash(1), Some(place(2, 512)), None)]);
        assert!(!ledger.is_needed(2, Instant(0)) && ledger.is_needed(1, Instant(0)));
        ledger.apply(&held(4, 1, true));
        assert_eq!((dead(&ledger, 0), ledger.alive_in(2)), (vec![], 9));
        let file = FileOf { len: 9, stamp: 5, unnamed_since: Some(Instant(7)) };
        ledger.store_file(hash(1), file);
        assert_eq!(ledger.placed_in(2).count(), 0);
        ledger.store_file(hash(7), file);
        assert_eq!(dead(&ledger, 6), []);
        assert_eq!(dead(&ledger, 7), [(hash(7), None, Some(5))]);
        ledger.apply(&held(5, 7, true));
        assert_eq!(dead(&ledger, 7), []);
    }
}
