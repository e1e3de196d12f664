//! What a receiver holds, what it still wants, and what waits to be applied.
//!
//! Invariant (P4): an entry is only ever taken if its UID is greater than the one held, wanted or being applied.

use super::io::{BatchId, Body, CONTENT_LEN_MAX, Content, Event, Held, Output, Presence, RequestId};
use crate::{
    mutant::{self, Mutant},
    protocol::{Hash, Path, Prefix, Uid, api::ListedEntry},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of verified contents that wait to be applied before fetching pauses.
pub(super) const READY_LEN_MAX: u64 = 1 << 20;

/// A newer entry than the one held, on its way.
#[derive(Debug)]
pub(super) struct Want {
    pub(super) entry: ListedEntry,
    /// When it was first wanted, counted in entries; kept when a newer entry of its path takes its place.
    pub(super) order: u64,
    pub(super) supply: Supply,
    /// It, or an older one that it supersedes, was tried before or once held: a walk may take its directory for complete.
    pub(super) again: bool,
    /// The last try found it blocked.
    pub(super) was_blocked: bool,
}

/// Where its content comes from.
#[derive(Debug)]
pub(super) enum Supply {
    /// To be fetched.
    Queued,
    /// Being fetched.
    Fetching(RequestId),
    /// It is here.
    Ready(Content),
    /// It is what the path has already.
    Same,
    /// None is needed: a deletion, or hidden by another path.
    None,
}

/// An entry that could not be applied.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) entry: ListedEntry,
    /// As it was wanted. Open after a failure.
    pub(super) order: u64,
    /// The file system cannot hold it: marks do not wait for it meanwhile, but as-of stands still.
    pub(super) is_blocked: bool,
}

/// Reached once every entry wanted before it is applied.
#[derive(Debug)]
pub(super) struct Mark<T> {
    number: u64,
    order: u64,
    what: T,
}

/// A content or entry that does not have the hash or size that it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongContent;

/// The order of the first entry that is wanted.
const FIRST_ORDER: u64 = 1 << 32;

#[derive(Debug)]
pub(super) struct Holdings<T> {
    prefixes: Vec<Prefix>,
    pub(super) held: BTreeMap<Path, Held>,
    /// Subscribed paths of `held` whose file is missing.
    missing: BTreeSet<Path>,
    /// Files above a subscription: not held, but they may hide what is. (UID, deleted)
    pub(super) above: BTreeMap<Path, (Uid, bool)>,
    pub(super) wanted: BTreeMap<Path, Want>,
    queued: BTreeMap<u64, Path>,
    fetching: usize,
    pub(super) ready: BTreeSet<Path>,
    pub(super) ready_len: u64,
    pub(super) applying: Option<super::batch::Batch>,
    pub(super) stuck: BTreeMap<Path, Stuck>,
    /// Something may have been removed since blocked entries were last tried.
    pub(super) freed: bool,
    pub(super) open: BTreeSet<u64>,
    marks: VecDeque<Mark<T>>,
    marks_made: u64,
    next_order: u64,
    /// Of what is wanted again: below every other order, for every snapshot so far has it.
    next_again: u64,
    last_batch: BatchId,
}

/// Every proper prefix of `path` by whole segments, from the root.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(move |(at, _)| &path[..at])
}

/// Entries of `map` below `path`.
pub(super) fn below<'a, V>(map: &'a BTreeMap<Path, V>, path: &str) -> impl Iterator<Item = (&'a Path, &'a V)> {
    let start = format!("{path}/");
    let range = (std::ops::Bound::Included(start.as_str()), std::ops::Bound::Unbounded);
    map.range::<str, _>(range).take_while(move |(other, _)| other.as_str().starts_with(&start))
}

impl<T> Holdings<T> {
    pub(super) fn new(prefixes: Vec<Prefix>, held: BTreeMap<Path, Held>) -> Holdings<T> {
        let mut holdings = Holdings {
            prefixes,
            held,
            missing: BTreeSet::new(),
            above: BTreeMap::new(),
            wanted: BTreeMap::new(),
            queued: BTreeMap::new(),
            fetching: 0,
            ready: BTreeSet::new(),
            ready_len: 0,
            applying: None,
            stuck: BTreeMap::new(),
            freed: false,
            open: BTreeSet::new(),
            marks: VecDeque::new(),
            marks_made: 0,
            next_order: FIRST_ORDER,
            next_again: 1,
            last_batch: BatchId(0),
        };
        holdings.settle_recovered();
        holdings
    }

    /// The newest UID known of `path`, and whether the same one is welcome again because its file is missing.
    fn known(&self, path: &str) -> Option<(Uid, bool)> {
        let wanted = self.wanted.get(path).map(|want| (want.entry.uid, false));
        let stuck = || self.stuck.get(path).map(|stuck| (stuck.entry.uid, false));
        let applying = || Some((self.applying.as_ref()?.entry(path)?.uid, false));
        let held = || self.held.get(path).map(|held| (held.uid, held.presence == Presence::Missing));
        wanted.or_else(stuck).or_else(applying).or_else(held)
    }

    fn is_news(&self, entry: &ListedEntry) -> bool {
        let Some((uid, again)) = self.known(entry.path.as_str()) else { return true };
        let older_too = mutant::active(Mutant::ReceiverGoesBack) && entry.uid != uid;
        entry.uid > uid || (entry.uid == uid && again) || older_too
    }

    /// A source says that this is the latest entry of its path. Whether it is subscribed and new is decided here.
    pub(super) fn offer(&mut self, mut entry: ListedEntry, out: &mut VecDeque<Output>) -> Result<(), WrongContent> {
        let path = entry.path.clone();
        if !self.prefixes.iter().any(|prefix| prefix.covers(path.as_str())) {
            self.note_above(&entry);
            return Ok(());
        }
        if !self.is_news(&entry) {
            return Ok(());
        }
        let inline = entry.inline.take();
        let supply = self.supply(&entry, inline)?;
        let (order, again) = self.supersede(&path, out);
        self.open.insert(order);
        if matches!(supply, Supply::Ready(_) | Supply::Same) || entry.flags.deleted {
            out.push_back(verified(&entry));
        }
        self.put_want(path, Want { entry, order, supply, again, was_blocked: false });
        Ok(())
    }

    /// What was wanted of the path gives way to something newer. Gives since when that is to be counted as wanted, and
    /// whether a walk may pass it by.
    fn supersede(&mut self, path: &Path, out: &mut VecDeque<Output>) -> (u64, bool) {
        if let Some(stuck) = self.stuck.remove(path) {
            return (stuck.order, true);
        }
        if let Some(want) = self.take_want(path) {
            if let Supply::Ready(Content::Staged(id)) = want.supply {
                out.push_back(Output::Discard(id));
            }
            return (want.order, want.again);
        }
        self.next_order += 1;
        (self.next_order, false)
    }

    /// Whatever waited for an older entry of the path, of this order, waits for the newer one that is wanted or was set
    /// aside. False if there is none.
    pub(super) fn hand_over(&mut self, path: &Path, order: u64, again: bool) -> bool {
        if let Some(mut want) = self.take_want(path) {
            self.open.remove(&order.max(want.order));
            want.order = order.min(want.order);
            want.again |= again;
            self.open.insert(want.order);
            self.put_want(path.clone(), want);
            return true;
        }
        let Some(stuck) = self.stuck.get_mut(path) else { return false };
        self.open.remove(&order);
        self.open.remove(&stuck.order);
        stuck.order = order.min(stuck.order);
        if !stuck.is_blocked {
            self.open.insert(stuck.order);
        }
        true
    }

    /// A file above a subscription is not held, but it may hide what is.
    fn note_above(&mut self, entry: &ListedEntry) {
        if !self.prefixes.iter().any(|prefix| prefix.concerns(&entry.path)) {
            return;
        }
        let (known, _) = self.above.get(&entry.path).copied().unwrap_or_default();
        if entry.uid > known {
            self.above.insert(entry.path.clone(), (entry.uid, entry.flags.deleted));
            self.settle(&entry.path);
        }
    }

    fn supply(&self, entry: &ListedEntry, inline: Option<Vec<u8>>) -> Result<Supply, WrongContent> {
        if entry.flags.deleted || self.is_hidden(entry.path.as_str(), entry.uid) {
            return Ok(Supply::None);
        }
        if entry.size > CONTENT_LEN_MAX {
            return Err(WrongContent);
        }
        let before = self.applying.as_ref().and_then(|batch| batch.entry(entry.path.as_str()));
        let before = before.or_else(|| self.held.get(&entry.path));
        let whole = |held: &&Held| held.presence == Presence::Whole && !held.flags.deleted;
        if before.filter(whole).is_some_and(|held| held.hash == entry.hash) {
            return Ok(Supply::Same);
        }
        match inline {
            Some(bytes) => check(entry, bytes.into()).map(Supply::Ready),
            None if entry.size == 0 => check(entry, Bytes::new()).map(Supply::Ready),
            None => Ok(Supply::Queued),
        }
    }

    fn put_want(&mut self, path: Path, want: Want) {
        match &want.supply {
            Supply::Queued => drop(self.queued.insert(want.order, path.clone())),
            Supply::Fetching(_) => self.fetching += 1,
            Supply::Ready(_) | Supply::Same | Supply::None => {
                self.ready_len += ready_len(&want);
                self.ready.insert(path.clone());
            }
        }
        self.wanted.insert(path, want);
    }

    pub(super) fn take_want(&mut self, path: &Path) -> Option<Want> {
        let want = self.wanted.remove(path)?;
        match &want.supply {
            Supply::Queued => drop(self.queued.remove(&want.order)),
            Supply::Fetching(_) => self.fetching -= 1,
            Supply::Ready(_) | Supply::Same | Supply::None => {
                self.ready_len -= ready_len(&want);
                self.ready.remove(path);
            }
        }
        Some(want)
    }

    /// Puts a want back that turned out to need its content fetched.
    pub(super) fn requeue(&mut self, mut want: Want) {
        want.supply = Supply::Queued;
        self.put_want(want.entry.path.clone(), want);
    }

    /// The next content to fetch: it is being fetched by `id` from now on.
    pub(super) fn next_fetch(&mut self, id: RequestId) -> Option<(Path, Hash, u64)> {
        let (_, path) = self.queued.first_key_value()?;
        let path = path.clone();
        let mut want = self.take_want(&path)?;
        let (hash, size) = (want.entry.hash, want.entry.size);
        want.supply = Supply::Fetching(id);
        self.put_want(path.clone(), want);
        Some((path, hash, size))
    }

    /// A content has come. It may have been superseded on its way.
    pub(super) fn fetched(
        &mut self,
        id: RequestId,
        path: &Path,
        body: Body,
        out: &mut VecDeque<Output>,
    ) -> Result<(), WrongContent> {
        let expected =
            self.wanted.get(path).is_some_and(|want| matches!(want.supply, Supply::Fetching(by) if by == id));
        if !expected {
            if let Body::Staged(staged) = body {
                out.push_back(Output::Discard(staged));
            }
            return Ok(());
        }
        let mut want = self.take_want(path).expect("looked up above");
        let content = match body {
            Body::Bytes(bytes) => match check(&want.entry, bytes) {
                Ok(content) => content,
                Err(wrong) => {
                    self.requeue(want);
                    return Err(wrong);
                }
            },
            Body::Staged(id) => Content::Staged(id),
        };
        out.push_back(verified(&want.entry));
        want.supply = Supply::Ready(content);
        self.put_want(path.clone(), want);
        Ok(())
    }

    /// The local disk refused the content that `id` fetches.
    pub(super) fn fetch_failed_here(&mut self, id: RequestId, path: &Path) {
        let fetching = |want: &Want| matches!(want.supply, Supply::Fetching(by) if by == id);
        if self.wanted.get(path).is_some_and(fetching) {
            let want = self.take_want(path).expect("looked up above");
            self.stuck.insert(path.clone(), Stuck { entry: want.entry, order: want.order, is_blocked: false });
        }
    }

    /// The source is left: forgets what was wanted of it and is not here yet, and all marks. Whether something is
    /// among it that a walk might pass by.
    pub(super) fn forget_unfetched(&mut self) -> bool {
        let unfetched = |want: &Want| matches!(want.supply, Supply::Queued | Supply::Fetching(_));
        let paths: Vec<Path> = self.wanted.iter().filter(|(_, w)| unfetched(w)).map(|(path, _)| path.clone()).collect();
        let mut again = false;
        for path in paths {
            if let Some(want) = self.take_want(&path) {
                self.open.remove(&want.order);
                // What is missing may be known as complete by an older entry than the one that was wanted.
                again |= want.again || self.missing.contains(&path);
            }
        }
        self.marks.clear();
        again
    }

    /// Takes up again what could not be applied: what failed, and, if there may be more room now, what was blocked. Marks
    /// wait for it again.
    pub(super) fn retry(&mut self) {
        let freed = std::mem::take(&mut self.freed);
        let again = |stuck: &Stuck| freed || !stuck.is_blocked;
        let paths: Vec<Path> = self.stuck.iter().filter(|(_, s)| again(s)).map(|(path, _)| path.clone()).collect();
        for path in paths {
            let Some(Stuck { entry, order, is_blocked }) = self.stuck.remove(&path) else { continue };
            self.open.insert(order);
            let supply = self.supply(&entry, None).unwrap_or(Supply::Queued);
            self.put_want(path, Want { entry, order, supply, again: true, was_blocked: is_blocked });
        }
    }

    /// Whether an entry that could not be applied should be tried again.
    pub(super) fn wants_retry(&self) -> bool {
        self.stuck.values().any(|stuck| self.freed || !stuck.is_blocked)
    }

    /// Whether an entry is blocked.
    pub(super) fn has_blocked(&self) -> bool {
        self.stuck.values().any(|stuck| stuck.is_blocked)
    }

    /// Contents to fetch and being fetched.
    pub(super) fn unfetched(&self) -> usize {
        self.queued.len() + self.fetching
    }

    /// `what` is reached once everything wanted so far is applied.
    pub(super) fn mark(&mut self, what: T) {
        self.marks_made += 1;
        self.marks.push_back(Mark { number: self.marks_made, order: self.next_order, what });
    }

    /// What has been reached since, with its number. As long as a file is missing, nothing is.
    pub(super) fn reached(&mut self) -> Option<(u64, T)> {
        let mark = self.marks.front()?;
        let open = self.open.first().is_some_and(|order| *order <= mark.order);
        if open || self.has_missing() { None } else { self.marks.pop_front().map(|mark| (mark.number, mark.what)) }
    }

    /// The last mark that will be reached if all of the batch at hand is applied.
    pub(super) fn foreseen(&self) -> Option<(u64, &T)> {
        let batch = self.applying.as_ref()?;
        let orders = batch.orders();
        let left = self.open.iter().find(|order| !orders.contains(order)).copied().unwrap_or(u64::MAX);
        let mark = self.marks.iter().take_while(|mark| mark.order < left).last()?;
        Some((mark.number, &mark.what))
    }

    fn has_missing(&self) -> bool {
        // As-of stands still for what is blocked; nothing else waits for it.
        let is_blocked = |path: &Path| self.stuck.get(path).is_some_and(|stuck| stuck.is_blocked);
        self.missing.iter().any(|path| !is_blocked(path) && !self.is_hidden(path.as_str(), self.held[path].uid))
    }

    /// The entry is what is held of the path.
    pub(super) fn hold(&mut self, path: Path, held: Held) {
        self.missing.remove(&path);
        self.held.insert(path, held);
    }

    /// The file of a held entry is missing.
    pub(super) fn miss(&mut self, path: &Path) {
        let Some(held) = self.held.get_mut(path) else { return };
        held.presence = Presence::Missing;
        if self.prefixes.iter().any(|prefix| prefix.covers(path.as_str())) {
            self.missing.insert(path.clone());
        }
    }

    /// Names a batch.
    pub(super) fn next_batch(&mut self) -> BatchId {
        self.last_batch.0 += 1;
        self.last_batch
    }

    /// Wants `path` again, whose entry is held but whose file is not. Every mark so far waits for it, or for the newer
    /// entry that is on its way already.
    pub(super) fn want_again(&mut self, path: &Path) {
        self.miss(path);
        let Some(held) = self.held.get(path) else { return };
        let Held { uid, hash, size, flags, .. } = *held;
        let order = self.next_again;
        self.next_again += 1;
        if self.hand_over(path, order, true) {
            return;
        }
        if let Some(batch) = self.applying.as_mut().filter(|batch| batch.entry(path.as_str()).is_some()) {
            if let Some(before) = batch.reorder(path, order) {
                self.open.remove(&before);
                self.open.insert(order);
            }
            return;
        }
        let entry =
            ListedEntry { path: path.clone(), uid, hash, size, content_type: String::new(), flags, inline: None };
        self.open.insert(order);
        let supply = self.supply(&entry, None).unwrap_or(Supply::Queued);
        self.put_want(path.clone(), Want { entry, order, supply, again: true, was_blocked: false });
    }
}

/// Bytes of content that wait in memory.
fn ready_len(want: &Want) -> u64 {
    match &want.supply {
        Supply::Ready(Content::Bytes(bytes)) => bytes.len() as u64,
        _ => 0,
    }
}

fn verified(entry: &ListedEntry) -> Output {
    let ListedEntry { ref path, uid, hash, flags, .. } = *entry;
    Output::Event(Event::Verified { path: path.clone(), uid, hash, deleted: flags.deleted })
}

fn check(entry: &ListedEntry, bytes: Bytes) -> Result<Content, WrongContent> {
    let right = bytes.len() as u64 == entry.size && Hash::of(&bytes) == entry.hash;
    let right = right || mutant::active(Mutant::UnverifiedHash);
    if right { Ok(Content::Bytes(bytes)) } else { Err(WrongContent) }
}
