//! Fetching contents from other storage points, in chunks that interleave with everything else.
//!
//! A small content is gathered in memory and written with the publication that names it; a larger one is staged on
//! disk as it comes. Invariant: nothing counts as held before the hash of the whole was checked. A transfer that
//! breaks goes on at the first byte that is missing, from the same SP or another.

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Duration, Hash, Instant, Message, Now, SpId, StoragePoint, Uid,
    durable::{INLINE_LEN_MAX, InlineContent},
    io::{Event, Output, Staged},
    message::{CHUNK_LEN, Wanted as What},
};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Chunks asked for and not yet staged.
const WINDOW: u64 = 4;
/// A source that sends nothing for so long is left for another.
const PATIENCE: Duration = Duration::from_secs(3);

/// A content on its way here.
#[derive(Debug)]
pub(super) struct Transfer {
    size: u64,
    /// SPs that should have it.
    sources: Vec<SpId>,
    /// The one that is asked.
    from: Option<SpId>,
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
    fn new(size: u64, now: Instant) -> Transfer {
        Transfer {
            size,
            sources: Vec::new(),
            from: None,
            waiting: BTreeSet::new(),
            gathered: Vec::new(),
            repairs: false,
            asked: 0,
            received: 0,
            staged: 0,
            progress_at: now,
            mismatches: 0,
        }
    }

    /// Nothing of it is here.
    fn begin_anew(&mut self) {
        (self.asked, self.received, self.staged) = (0, 0, 0);
        self.gathered.clear();
    }
}

impl StoragePoint {
    /// Fetches what `uid` lacks, from `from` first.
    pub(super) fn fetch_missing(&mut self, uid: Uid, from: SpId) {
        let Some(publication) = self.publications.get(&uid) else { return };
        let sizes = publication.manifest.entries.iter().filter(|entry| publication.missing.contains(&entry.hash));
        let needed: Vec<(Hash, u64)> = sizes.map(|entry| (entry.hash, entry.size)).collect();
        for (hash, size) in needed {
            let now = self.now.instant;
            let transfer = self.transfers.entry(hash).or_insert_with(|| Transfer::new(size, now));
            transfer.waiting.insert(uid);
            if !transfer.sources.contains(&from) {
                transfer.sources.push(from);
            }
            transfer.from.get_or_insert(from);
            self.ask_for_chunks(hash);
        }
    }

    /// The driver found that a content of `size` bytes is damaged: it is fetched again from the peers.
    pub fn handle_damaged(&mut self, now: Now, hash: Hash, size: u64) {
        self.begin(now);
        if !self.contents.spoilt(hash) {
            return;
        }
        self.status.contents_damaged_total += 1;
        self.event(Event::Damaged { hash });
        let transfer = Transfer::new(size, now.instant);
        self.transfers.insert(hash, Transfer { repairs: true, ..transfer });
        self.next_source(hash);
    }

    fn ask_for_chunks(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.get_mut(&hash) else { return };
        let Some(from) = transfer.from else { return };
        let mut requests = Vec::new();
        while transfer.asked < transfer.size && transfer.asked < transfer.staged + WINDOW * u64::from(CHUNK_LEN) {
            let len = (transfer.size - transfer.asked).min(CHUNK_LEN.into());
            requests.push(Message::ContentRequest { hash, offset: transfer.asked, len: len as u32 });
            transfer.asked += len;
        }
        requests.into_iter().for_each(|request| self.send(from, request));
    }

    pub(super) fn answer_content_request(&mut self, from: SpId, hash: Hash, offset: u64, len: u32) {
        if self.contents.contains(&hash) {
            self.output(Output::SendContent { to: from, hash, offset, len: len.min(CHUNK_LEN) });
        } else {
            self.send(from, Message::Missing { what: What::Content(hash) });
        }
    }

    pub(super) fn take_chunk(&mut self, from: SpId, hash: Hash, offset: u64, total: u64, bytes: Bytes) {
        let Some(transfer) = self.transfers.get_mut(&hash).filter(|transfer| transfer.from == Some(from)) else {
            return;
        };
        let end = offset + bytes.len() as u64;
        if offset != transfer.received || end > transfer.size || total != transfer.size || bytes.is_empty() {
            // Of an earlier request, before the source changed; or nonsense, which patience ends.
            return;
        }
        transfer.received = end;
        transfer.progress_at = self.now.instant;
        if transfer.size > INLINE_LEN_MAX || transfer.repairs {
            return self.output(Output::Stage { hash, offset, total, bytes });
        }
        transfer.gathered.extend_from_slice(&bytes);
        if end == transfer.size {
            self.gathered(hash);
        } else {
            transfer.staged = end;
            self.ask_for_chunks(hash);
        }
    }

    fn gathered(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.get_mut(&hash) else { return };
        if Hash::of(&transfer.gathered) != hash && !mutant::active(Mutant::UnverifiedHash) {
            return self.start_again(hash);
        }
        let Some(transfer) = self.transfers.remove(&hash) else { return };
        let inline = InlineContent { hash, bytes: transfer.gathered.into() };
        self.content_is_here(hash, Some(inline), &transfer.waiting);
    }

    /// A publisher has handed in a content that `uid` lacks (`inline` none: it is in the store): it is fetched no more.
    pub(super) fn content_was_handed_in(&mut self, uid: Uid, hash: Hash, inline: Option<InlineContent>) {
        let mut waiting = BTreeSet::from([uid]);
        if self.transfers.get(&hash).is_some_and(|transfer| !transfer.repairs)
            && let Some(transfer) = self.transfers.remove(&hash)
        {
            waiting.extend(transfer.waiting);
        }
        self.content_is_here(hash, inline, &waiting);
    }

    /// What became of a staged part that ends at `offset_end`.
    pub fn handle_staged(&mut self, now: Now, hash: Hash, offset_end: u64, staged: Staged) {
        self.begin(now);
        let Some(transfer) = self.transfers.get_mut(&hash) else { return };
        match staged {
            Staged::Part => {
                transfer.staged = offset_end;
                transfer.progress_at = self.now.instant;
                self.ask_for_chunks(hash);
            }
            Staged::Whole => {
                let waiting = std::mem::take(&mut transfer.waiting);
                self.transfers.remove(&hash);
                self.content_is_here(hash, None, &waiting);
            }
            Staged::HashMismatch => self.start_again(hash),
            Staged::Failed => self.pause_transfer(hash),
        }
    }

    /// From the first byte, and from another source; after a pause if all of them have sent something else.
    fn start_again(&mut self, hash: Hash) {
        let Some(transfer) = self.transfers.get_mut(&hash) else { return };
        transfer.mismatches += 1;
        if transfer.mismatches >= transfer.sources.len().max(2) {
            return self.pause_transfer(hash);
        }
        transfer.begin_anew();
        self.next_source(hash);
    }

    /// From the first byte, after a pause: the disk takes no content now, and what is still on its way is of no use. Each
    /// part that the disk refuses comes here, so asking at once would ask for more every time.
    fn pause_transfer(&mut self, hash: Hash) {
        let now = self.now.instant;
        if let Some(transfer) = self.transfers.get_mut(&hash) {
            transfer.begin_anew();
            (transfer.mismatches, transfer.from, transfer.progress_at) = (0, None, now);
        }
    }

    /// Goes on where it stands, from the next source that is connected.
    fn next_source(&mut self, hash: Hash) {
        let connected: Vec<SpId> = self.connected().collect();
        let Some(transfer) = self.transfers.get_mut(&hash) else { return };
        transfer.progress_at = self.now.instant;
        transfer.asked = transfer.received;
        for uid in &transfer.waiting {
            let Some(publication) = self.publications.get(uid) else { continue };
            let holders = publication.bits.iter().chain([uid.sp]).filter(|sp| *sp != self.config.me);
            for sp in holders {
                if !transfer.sources.contains(&sp) {
                    transfer.sources.push(sp);
                }
            }
        }
        if transfer.repairs && transfer.sources.is_empty() {
            transfer.sources.clone_from(&connected);
        }
        let place = transfer.sources.iter().position(|sp| Some(*sp) == transfer.from).map_or(0, |place| place + 1);
        let len = transfer.sources.len();
        let candidates = (0..len).map(|i| transfer.sources[(place + i) % len]);
        transfer.from = candidates.into_iter().find(|sp| connected.contains(sp));
        self.ask_for_chunks(hash);
    }

    /// A peer is gone.
    pub(super) fn leave_source(&mut self, peer: SpId) {
        let of_peer = self.transfers.iter().filter(|(_, transfer)| transfer.from == Some(peer));
        let hashes: Vec<Hash> = of_peer.map(|(hash, _)| *hash).collect();
        hashes.into_iter().for_each(|hash| self.next_source(hash));
    }

    /// A peer does not have what it was asked for.
    pub(super) fn take_missing(&mut self, from: SpId, what: What) {
        match what {
            What::Content(hash) if self.transfers.get(&hash).is_some_and(|transfer| transfer.from == Some(from)) => {
                // The next look asks another, after a pause: where nobody has it this must not become a storm.
                if let Some(transfer) = self.transfers.get_mut(&hash) {
                    transfer.sources.retain(|sp| *sp != from);
                }
            }
            What::Content(_) => {}
            What::Publication(uid) => self.source_lacks(uid, from),
            What::Node(_) => self.merge_failed(from),
        }
    }

    /// Transfers that make no progress go on from another source.
    pub(super) fn check_transfers(&mut self) {
        let now = self.now.instant;
        let late = self.transfers.iter().filter(|(_, transfer)| transfer.progress_at.after(PATIENCE) <= now);
        let late: Vec<Hash> = late.map(|(hash, _)| *hash).collect();
        for hash in late {
            let useless = |uid: &Uid| self.publications.get(uid).is_none_or(|one| one.superseded_by.is_some());
            let is_useless = |transfer: &Transfer| match transfer.repairs {
                true => !self.contents.is_damaged(&hash),
                false => transfer.waiting.iter().all(useless),
            };
            if self.transfers.get(&hash).is_some_and(is_useless) {
                self.transfers.remove(&hash);
            } else {
                self.next_source(hash);
            }
        }
    }

    pub(super) fn transfers_at(&self) -> Option<Instant> {
        self.transfers.values().map(|transfer| transfer.progress_at.after(PATIENCE)).min()
    }
}
