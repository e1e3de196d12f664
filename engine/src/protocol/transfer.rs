//! Fetching contents from other storage points, in chunks that interleave with everything else.
//!
//! A small content is gathered in memory and written with the publication that names it; a larger one is staged on
//! disk as it comes. Invariants: nothing counts as held before the hash of the whole was checked; what is asked for at
//! once is bounded, see [`turns`]. A transfer that breaks goes on at the first byte that is missing, from the same SP
//! or another.

mod turns;

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Duration, Hash, Instant, Message, Now, SpId, SpSet, StoragePoint, Uid,
    durable::{INLINE_LEN_MAX, InlineContent},
    io::{Event, Output, Staged},
    message::{CHUNK_LEN, Wanted as What},
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use turns::{Turn, Turns, WINDOW};

/// A source that sends nothing for so long is left for another. What nobody has is asked for again after as long.
const PATIENCE: Duration = Duration::from_secs(3);
/// A source that sends other contents meanwhile has so long: what it was asked for comes one after the other.
const PATIENCE_MAX: Duration = Duration::from_secs(30);

/// A content on its way here.
#[derive(Debug)]
struct Transfer {
    size: u64,
    turn: Turn,
    /// SPs that should have it.
    sources: Vec<SpId>,
    /// The one that is asked.
    from: Option<SpId>,
    /// All that were asked since it began, or began anew: what they send is of use whoever is asked now.
    asked_of: SpSet,
    /// SPs that did not have it, or sent nothing or something else, since it last rested.
    lacking: SpSet,
    /// Publications that wait for it.
    waiting: BTreeSet<Uid>,
    gathered: Vec<u8>,
    /// It replaces a damaged one: staged on disk whatever its size.
    repairs: bool,
    /// Bytes asked for, received, staged, from the start.
    asked: u64,
    received: u64,
    staged: u64,
    progress_at: Instant,
    /// How often the whole was something else, since the last pause.
    mismatches: usize,
}

impl Transfer {
    fn new(size: u64) -> Transfer {
        Transfer {
            size,
            turn: Turn::New,
            sources: Vec::new(),
            from: None,
            asked_of: SpSet::EMPTY,
            lacking: SpSet::EMPTY,
            waiting: BTreeSet::new(),
            gathered: Vec::new(),
            repairs: false,
            asked: 0,
            received: 0,
            staged: 0,
            progress_at: Instant(0),
            mismatches: 0,
        }
    }

    fn is_staged_on_disk(&self) -> bool {
        self.size > INLINE_LEN_MAX || self.repairs
    }

    /// Nothing of it is here, and what is still on its way is of no use.
    fn begin_anew(&mut self) {
        (self.asked, self.received, self.staged) = (0, 0, 0);
        self.asked_of = SpSet::EMPTY;
        self.gathered.clear();
    }

    /// The source that is asked now is not asked again before a rest.
    fn leave_source(&mut self) {
        self.lacking = self.lacking.union(self.from.map_or(SpSet::EMPTY, SpSet::one));
    }

    /// Who is asked next: of those that should have it the one after the last; then whoever else is there.
    fn next_source(&self, connected: &[SpId]) -> Option<SpId> {
        let place = self.sources.iter().position(|sp| Some(*sp) == self.from).map_or(0, |place| place + 1);
        let len = self.sources.len();
        let listed = (0..len).map(|i| self.sources[(place + i) % len]);
        let others = connected.iter().copied().filter(|sp| !self.sources.contains(sp));
        listed.chain(others).find(|sp| connected.contains(sp) && !self.lacking.contains(*sp))
    }
}

/// All contents on their way here.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    all: BTreeMap<Hash, Transfer>,
    turns: Turns,
    /// When each SP last sent a part of any of them.
    heard: BTreeMap<SpId, Instant>,
    /// Large contents of this SP's own publications of late, and when a peer last asked for a part of each.
    given: BTreeMap<Hash, Instant>,
}

impl Transfers {
    /// How many wait for nothing but better times: nobody had them, or the disk took nothing.
    pub(super) fn resting(&self) -> usize {
        self.turns.resting()
    }

    fn remove(&mut self, hash: Hash) -> Option<Transfer> {
        let mut transfer = self.all.remove(&hash)?;
        self.turns.leave(hash, transfer.size, &mut transfer.turn);
        Some(transfer)
    }

    fn wait(&mut self, hash: Hash) {
        if let Some(transfer) = self.all.get_mut(&hash) {
            self.turns.wait(hash, transfer.size, &mut transfer.turn);
        }
    }

    /// Nobody is asked for a while; those that did not have it may have it then.
    fn rest(&mut self, hash: Hash, now: Instant, wakes: bool) {
        if let Some(transfer) = self.all.get_mut(&hash) {
            (transfer.from, transfer.lacking) = (None, SpSet::EMPTY);
            self.turns.rest(hash, transfer.size, &mut transfer.turn, now.after(PATIENCE), wakes);
        }
    }

    /// Until when the source of `transfer` is waited for.
    fn patience_until(&self, transfer: &Transfer) -> Instant {
        let heard_at = transfer.from.and_then(|from| self.heard.get(&from)).copied().unwrap_or_default();
        let most = transfer.progress_at.after(PATIENCE_MAX);
        heard_at.max(transfer.progress_at).after(PATIENCE).min(most)
    }
}

impl StoragePoint {
    // ---- What is to be fetched ------------------------------------------------------------------------------------

    /// Fetches what `uid` lacks; `from` should have it.
    pub(super) fn fetch_missing(&mut self, uid: Uid, from: SpId) {
        let Some(publication) = self.publications.get(&uid) else { return };
        if publication.missing.is_empty() {
            return;
        }
        let sizes = publication.manifest.entries.iter().filter(|entry| publication.missing.contains(&entry.hash));
        let needed: Vec<(Hash, u64)> = sizes.map(|entry| (entry.hash, entry.size)).collect();
        for (hash, size) in needed {
            let transfer = self.transfers.all.entry(hash).or_insert_with(|| Transfer::new(size));
            transfer.waiting.insert(uid);
            let is_news = from != self.config.me && !transfer.sources.contains(&from);
            if is_news {
                transfer.sources.push(from);
            }
            match transfer.turn {
                Turn::New => self.transfers.wait(hash),
                Turn::Resting { wakes: true, .. } if is_news => self.transfers.wait(hash),
                _ => {}
            }
        }
        self.pump_transfers();
    }

    /// The driver found that a content of `size` bytes is damaged: it is fetched again from the peers.
    pub fn handle_damaged(&mut self, now: Now, hash: Hash, size: u64) {
        self.begin(now);
        if !self.contents.spoilt(hash) {
            return;
        }
        self.status.contents_damaged_total += 1;
        self.event(Event::Damaged { hash });
        // Publications may wait for it already, from before a copy came another way.
        let transfer = self.transfers.all.entry(hash).or_insert_with(|| Transfer::new(size));
        if !transfer.is_staged_on_disk() && transfer.received > 0 {
            transfer.begin_anew();
        }
        transfer.repairs = true;
        if matches!(transfer.turn, Turn::New | Turn::Resting { wakes: true, .. }) {
            self.transfers.wait(hash);
        }
        self.pump_transfers();
    }

    /// `uid` waits for these contents no more. What nobody waits for is not fetched any further.
    pub(super) fn stop_waiting(&mut self, uid: Uid, missing: &BTreeSet<Hash>) {
        for hash in missing {
            if let Some(transfer) = self.transfers.all.get_mut(hash) {
                transfer.waiting.remove(&uid);
            }
            self.leave_if_useless(*hash);
        }
    }

    /// Whether nobody needs the content any more: then its transfer ends, and what was staged is thrown away.
    fn leave_if_useless(&mut self, hash: Hash) -> bool {
        let Some(transfer) = self.transfers.all.get(&hash) else { return true };
        let awaits = |uid: &Uid| self.publications.get(uid).is_some_and(|one| one.superseded_by.is_none());
        if transfer.waiting.iter().any(awaits) || (transfer.repairs && self.contents.is_damaged(&hash)) {
            return false;
        }
        let transfer = self.transfers.remove(hash);
        if transfer.is_some_and(|transfer| transfer.is_staged_on_disk() && transfer.received > 0) {
            self.output(Output::AbortStage { hash });
        }
        true
    }

    // ---- Asking ---------------------------------------------------------------------------------------------------

    /// Asks for what comes next, within the bounds.
    fn pump_transfers(&mut self) {
        while let Some(hash) = self.transfers.turns.next() {
            if !self.leave_if_useless(hash) {
                self.next_source(hash);
            }
        }
    }

    /// Goes on where it stands, from the next source that is connected. If there is none it rests.
    fn next_source(&mut self, hash: Hash) {
        let (now, me) = (self.now.instant, self.config.me);
        let connected: Vec<SpId> = self.connected().collect();
        let Some(transfer) = self.transfers.all.get_mut(&hash) else { return };
        for uid in &transfer.waiting {
            let Some(publication) = self.publications.get(uid) else { continue };
            for sp in publication.bits.iter().chain([uid.sp]).filter(|sp| *sp != me) {
                if !transfer.sources.contains(&sp) {
                    transfer.sources.push(sp);
                }
            }
        }
        transfer.asked = transfer.received;
        transfer.from = transfer.next_source(&connected);
        let Some(from) = transfer.from else {
            let waiting: Vec<Uid> = transfer.waiting.iter().copied().collect();
            self.transfers.rest(hash, now, true);
            // A new store takes over kept versions, too, as long as anybody has them.
            return waiting.into_iter().for_each(|uid| self.remember_if_superseded(uid));
        };
        transfer.asked_of = transfer.asked_of.union(SpSet::one(from));
        transfer.progress_at = now;
        self.transfers.turns.ask(hash, transfer.size, &mut transfer.turn, now.after(PATIENCE));
        self.ask_for_chunks(hash);
    }

    fn ask_for_chunks(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.all.get_mut(&hash) else { return };
        let Some(from) = transfer.from else { return };
        transfer.asked = transfer.asked.max(transfer.received);
        let mut requests = Vec::new();
        while transfer.asked < transfer.size && transfer.asked < transfer.staged + WINDOW * u64::from(CHUNK_LEN) {
            let len = (transfer.size - transfer.asked).min(CHUNK_LEN.into());
            requests.push(Message::ContentRequest { hash, offset: transfer.asked, len: len as u32 });
            transfer.asked += len;
        }
        requests.into_iter().for_each(|request| self.send(from, request));
    }

    /// Peers will ask for this large content of a publication of this SP's own.
    pub(super) fn will_be_asked_for(&mut self, hash: Hash) {
        let (now, patience) = (self.now.instant, self.config.limits.publish);
        self.transfers.given.retain(|_, asked_at| asked_at.after(patience) > now);
        self.transfers.given.insert(hash, now);
    }

    /// Until when a content of `uid` counts as on its way to a peer.
    pub(super) fn travels_until(&self, uid: Uid) -> Option<Instant> {
        let entries = &self.publications.get(&uid)?.manifest.entries;
        let asked_at = entries.iter().filter_map(|entry| self.transfers.given.get(&entry.hash)).max()?;
        Some(asked_at.after(self.config.limits.publish))
    }

    pub(super) fn answer_content_request(&mut self, from: SpId, hash: Hash, offset: u64, len: u32) {
        if let Some(asked_at) = self.transfers.given.get_mut(&hash) {
            *asked_at = self.now.instant;
        }
        if self.contents.contains(&hash) {
            self.output(Output::SendContent { to: from, hash, offset, len: len.min(CHUNK_LEN) });
        } else {
            self.send(from, Message::Missing { what: What::Content(hash) });
        }
    }

    // ---- What comes -----------------------------------------------------------------------------------------------

    pub(super) fn take_chunk(&mut self, from: SpId, hash: Hash, offset: u64, total: u64, bytes: Bytes) {
        let now = self.now.instant;
        let Some(transfer) = self.transfers.all.get_mut(&hash).filter(|one| one.asked_of.contains(from)) else {
            return;
        };
        self.transfers.heard.insert(from, now);
        let end = offset + bytes.len() as u64;
        if offset != transfer.received || end > transfer.size || total != transfer.size || bytes.is_empty() {
            // Here already, from another source; or nonsense, which patience ends.
            return;
        }
        transfer.received = end;
        transfer.progress_at = now;
        if matches!(transfer.turn, Turn::Resting { wakes: true, .. }) {
            // A slow source, not a dead one.
            self.transfers.turns.wait(hash, transfer.size, &mut transfer.turn);
        }
        if transfer.is_staged_on_disk() {
            self.output(Output::Stage { hash, offset, total, bytes });
        } else {
            transfer.gathered.extend_from_slice(&bytes);
            transfer.staged = end;
            match end == transfer.size {
                true => self.gathered(hash),
                false => self.ask_for_chunks(hash),
            }
        }
        self.pump_transfers();
    }

    fn gathered(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.all.get(&hash) else { return };
        if Hash::of(&transfer.gathered) != hash && !mutant::active(Mutant::UnverifiedHash) {
            return self.start_again(hash);
        }
        let Some(transfer) = self.transfers.remove(hash) else { return };
        let inline = InlineContent { hash, bytes: transfer.gathered.into() };
        self.content_is_here(hash, Some(inline), &transfer.waiting);
    }

    /// A publisher has handed in a content that `uid` lacks (`inline` none: it is in the store): it is fetched no more.
    pub(super) fn content_was_handed_in(&mut self, uid: Uid, hash: Hash, inline: Option<InlineContent>) {
        let mut waiting = BTreeSet::from([uid]);
        if self.transfers.all.get(&hash).is_some_and(|transfer| !transfer.repairs)
            && let Some(transfer) = self.transfers.remove(hash)
        {
            if transfer.is_staged_on_disk() && transfer.received > 0 {
                self.output(Output::AbortStage { hash });
            }
            waiting.extend(transfer.waiting);
        }
        self.content_is_here(hash, inline, &waiting);
    }

    /// What became of a staged part that ends at `offset_end`.
    pub fn handle_staged(&mut self, now: Now, hash: Hash, offset_end: u64, staged: Staged) {
        self.begin(now);
        let Some(transfer) = self.transfers.all.get_mut(&hash) else { return };
        match staged {
            // It has begun anew since.
            Staged::Part if offset_end > transfer.received => {}
            Staged::Part => {
                transfer.staged = offset_end;
                transfer.progress_at = self.now.instant;
                self.ask_for_chunks(hash);
            }
            Staged::Whole => {
                let waiting = std::mem::take(&mut transfer.waiting);
                self.transfers.remove(hash);
                self.content_is_here(hash, None, &waiting);
            }
            Staged::HashMismatch => self.start_again(hash),
            Staged::Failed => self.pause_transfer(hash),
        }
        self.pump_transfers();
    }

    /// From the first byte, and from another source; after a pause if all of them have sent something else.
    fn start_again(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.all.get_mut(&hash) else { return };
        transfer.mismatches += 1;
        if transfer.mismatches >= transfer.sources.len().max(2) {
            return self.pause_transfer(hash);
        }
        transfer.begin_anew();
        transfer.leave_source();
        self.next_source(hash);
    }

    /// From the first byte, after a pause: the disk takes no content now, and what is still on its way is of no use. Each
    /// part that the disk refuses comes here, so asking at once would ask for more every time.
    fn pause_transfer(&mut self, hash: Hash) {
        if let Some(transfer) = self.transfers.all.get_mut(&hash) {
            transfer.begin_anew();
            transfer.mismatches = 0;
        }
        self.transfers.rest(hash, self.now.instant, false);
    }

    // ---- What does not come ---------------------------------------------------------------------------------------

    /// A peer is gone.
    pub(super) fn leave_source(&mut self, peer: SpId) {
        let of_peer = self.transfers.all.iter().filter(|(_, transfer)| transfer.from == Some(peer));
        let hashes: Vec<Hash> = of_peer.map(|(hash, _)| *hash).collect();
        hashes.into_iter().for_each(|hash| self.next_source(hash));
        self.pump_transfers();
    }

    /// A peer does not have what it was asked for.
    pub(super) fn take_missing(&mut self, from: SpId, what: What) {
        match what {
            What::Content(hash) => {
                // Where nobody has it, it rests: this must not become a storm.
                let transfer = self.transfers.all.get_mut(&hash);
                if let Some(transfer) = transfer.filter(|transfer| transfer.from == Some(from)) {
                    transfer.leave_source();
                    self.next_source(hash);
                    self.pump_transfers();
                }
            }
            What::Publication(uid) => self.source_lacks(uid, from),
            What::Node(_) => self.merge_failed(from),
        }
    }

    /// Transfers that make no progress go on from another source; those that have rested are in line again.
    pub(super) fn check_transfers(&mut self) {
        let now = self.now.instant;
        for hash in self.transfers.turns.due(now) {
            if self.leave_if_useless(hash) {
                continue;
            }
            let Some(transfer) = self.transfers.all.get(&hash) else { continue };
            let until = match transfer.asked == transfer.received && transfer.from.is_some() {
                // All that was asked for is here, and the disk is at it.
                true => now.after(PATIENCE),
                false => self.transfers.patience_until(transfer),
            };
            let Some(transfer) = self.transfers.all.get_mut(&hash) else { continue };
            match transfer.turn {
                Turn::Resting { .. } => self.transfers.wait(hash),
                _ if until > now => self.transfers.turns.ask(hash, transfer.size, &mut transfer.turn, until),
                _ => {
                    transfer.leave_source();
                    self.next_source(hash);
                }
            }
        }
        self.pump_transfers();
    }

    pub(super) fn transfers_at(&self) -> Option<Instant> {
        self.transfers.turns.due_at()
    }
}
