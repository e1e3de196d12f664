//! The log: one commit is one contiguous write and one flush.

use super::{
    Contents, Options, Prepare, Storage, StorageFile, StoreError,
    contents::Notice,
    format::{COMMIT_HEAD_LEN, Encoded, Position, SECTOR_LEN, Seal, encode_commit, padded},
    segment::{self, Preparing, Segment},
};
use crate::protocol::{
    Durable,
    durable::{INLINE_LEN_MAX, InlineContent},
};
use std::{collections::VecDeque, io, ops::Range, sync::Arc};

/// Most contents of a record of copies.
const COPIES_MAX: usize = 4096;
/// Writes longer than this together are several commits, in order.
const COMMIT_LEN_MAX: u64 = 4 << 20;
/// Most bytes of the buffer that is kept from one commit to the next.
const BUFFER_KEPT_LEN: usize = 8 << 20;

/// The writing end of the log. Its last commit's flush has returned, or it takes nothing more.
pub struct Log<S: Storage> {
    contents: Contents<S>,
    options: Options,
    binding: [u8; 8],
    current: Segment<S::File>,
    /// Where the next commit goes in `current`.
    position: u64,
    /// Number of the next commit.
    sequence: u64,
    /// Blank segments to go on with.
    spares: VecDeque<Segment<S::File>>,
    preparing: Option<Preparing<S::File>>,
    generation_next: u64,
    buffer: Vec<u8>,
    poisoned: bool,
}

/// One commit to be written: which records, in which segment (0 is the current one, 1 the first spare, ...).
struct Planned {
    records: Range<usize>,
    segment: usize,
}

impl<S: Storage> Log<S> {
    pub(super) fn new(
        contents: Contents<S>,
        options: Options,
        binding: [u8; 8],
        mut segments: VecDeque<Segment<S::File>>,
        (position, sequence): (u64, u64),
        generation_next: u64,
    ) -> Log<S> {
        let current = segments.pop_front().expect("a store has a segment");
        let mut log = Log {
            contents,
            options,
            binding,
            current,
            position,
            sequence,
            spares: segments,
            preparing: None,
            generation_next,
            buffer: Vec::new(),
            poisoned: false,
        };
        log.prepare_next();
        log
    }

    /// Makes `records` durable, in order: when this returns they are. Contents can be read from then on; each must have
    /// the hash that it says.
    ///
    /// All of them become durable or none, unless they are longer than a segment: then a crash on the way may keep the
    /// first ones only. On [`StoreError::Full`] nothing was written, and a later commit may succeed; after
    /// [`StoreError::Failed`] the log takes nothing more.
    pub fn commit(&mut self, records: &[Durable]) -> Result<(), StoreError> {
        self.commit_writes([records], &[])
    }

    /// The same for several writes at once, and with them contents that [`Maintenance`](super::Maintenance) wants moved.
    /// Of all writes together, a crash on the way may keep the first ones only; each of them stays whole.
    pub fn commit_writes<'a>(
        &mut self,
        writes: impl IntoIterator<Item = &'a [Durable]>,
        copies: &[InlineContent],
    ) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let (mut records, mut ends) = (Vec::new(), Vec::new());
        for write in writes {
            records.extend(write);
            ends.push(records.len());
        }
        if records.is_empty() && copies.is_empty() {
            return Ok(());
        }
        let moved = copies.chunks(COPIES_MAX).map(Encoded::copies);
        let encoded: Vec<Encoded<'_>> = records.iter().map(|record| Encoded::new(record)).chain(moved).collect();
        ends.extend(records.len() + 1..=encoded.len());
        let commits = self.split(&encoded, &records, &ends)?;
        let plan = self.plan(commits)?;
        self.carry_out(plan, &records, &encoded)
    }

    /// Writes a commit without records behind the last one, which then is not taken for one whose flush never returned
    /// (see `docs/LOG.md`). For the end of a process.
    pub fn close(&mut self) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let plan = self.plan(vec![(0..0, COMMIT_HEAD_LEN as u64)])?;
        self.carry_out(plan, &[], &[])
    }

    /// Writes `encoded`, of which the first are `records`.
    fn carry_out(
        &mut self,
        plan: Vec<Planned>,
        records: &[&Durable],
        encoded: &[Encoded<'_>],
    ) -> Result<(), StoreError> {
        let mut switched = 0;
        for commit in plan {
            while switched < commit.segment {
                self.current = self.spares.pop_front().expect("planned");
                self.position = SECTOR_LEN;
                switched += 1;
            }
            let of_protocol = commit.records.start.min(records.len())..commit.records.end.min(records.len());
            self.write(&encoded[commit.records], &records[of_protocol]).map_err(|error| {
                self.poisoned = true;
                StoreError::Failed(error)
            })?;
        }
        if switched > 0 {
            self.prepare_next();
        }
        if let Some(preparing) = &self.preparing {
            preparing.tell_used(self.used_permille());
        }
        Ok(())
    }

    /// Cuts a batch into commits of bounded length: (records, bytes) of each. Each write, up to one of `ends`, stays in
    /// one commit if that fits a segment; and in any case what says that a publication's contents are not needed stays
    /// with what is in front of it, for they may never have been here.
    fn split(
        &self,
        encoded: &[Encoded<'_>],
        records: &[&Durable],
        ends: &[usize],
    ) -> Result<Vec<(Range<usize>, u64)>, StoreError> {
        let head = COMMIT_HEAD_LEN as u64;
        let room = self.options.segment_len - SECTOR_LEN - head;
        let mut commits: Vec<(Range<usize>, u64)> = Vec::new();
        let mut add = |records: Range<usize>, len: u64| match commits.last_mut() {
            Some((range, total)) if *total + len <= COMMIT_LEN_MAX.min(room) => {
                range.end = records.end;
                *total += len;
            }
            _ => commits.push((records, head + len)),
        };
        let mut start = 0;
        for end in ends.iter().copied().filter(|end| *end > 0) {
            let mut parts: Vec<(Range<usize>, u64)> = Vec::new();
            for (at, record) in encoded.iter().enumerate().take(end).skip(start) {
                let len = record_len(record, room)?;
                match parts.last_mut() {
                    Some((part, total))
                        if matches!(records.get(at), Some(Durable::Released { .. })) && *total + len <= room =>
                    {
                        (part.end, *total) = (at + 1, *total + len);
                    }
                    _ => parts.push((at..at + 1, len)),
                }
            }
            match parts.iter().map(|(_, len)| len).sum() {
                len if len <= room => add(start..end, len),
                _ => parts.into_iter().for_each(|(part, len)| add(part, len)),
            }
            start = end;
        }
        Ok(commits)
    }

    /// Finds room for all commits before any is written.
    fn plan(&mut self, commits: Vec<(Range<usize>, u64)>) -> Result<Vec<Planned>, StoreError> {
        let mut plan = Vec::with_capacity(commits.len());
        let (mut segment, mut position) = (0, self.position);
        for (records, len) in commits {
            while position + padded(len) > self.segment_len(segment) {
                segment += 1;
                position = SECTOR_LEN;
                if self.spares.len() < segment {
                    self.add_spare()?;
                }
            }
            position += padded(len);
            plan.push(Planned { records, segment });
        }
        Ok(plan)
    }

    fn segment_len(&self, segment: usize) -> u64 {
        if segment == 0 { self.current.len } else { self.spares[segment - 1].len }
    }

    fn write(&mut self, encoded: &[Encoded<'_>], records: &[&Durable]) -> io::Result<()> {
        let next = self.sequence.checked_add(1).ok_or_else(|| io::Error::other("sequence numbers are at their end"))?;
        let placed = encode_commit(&mut self.buffer, self.current.seal, self.sequence, self.position, encoded);
        self.current.file.write_at(self.position, &self.buffer)?;
        self.current.file.sync_data()?;
        self.position += self.buffer.len() as u64;
        self.sequence = next;
        let end = Position { sequence: self.sequence, generation: self.current.seal.generation, offset: self.position };
        let len = self.buffer.len() as u64;
        self.contents.add(&self.current, &placed, || {
            let records = records.iter().map(|record| without_contents(record)).collect();
            Some(Notice::Committed { end, len, records, placed: placed.clone() })
        });
        if self.buffer.capacity() > BUFFER_KEPT_LEN {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// One more blank segment: the one under way, or one made now.
    fn add_spare(&mut self) -> Result<(), StoreError> {
        if let Some(Ok(segment)) = self.preparing.take().map(Preparing::finish) {
            self.spares.push_back(segment);
            return Ok(());
        }
        let prepared = self.next_seal().and_then(|seal| {
            segment::next(self.contents.storage(), self.contents.pool(), seal, self.options.segment_len)
        });
        self.spares.push_back(prepared.map_err(StoreError::io("preparing a segment of the log"))?);
        Ok(())
    }

    /// Begins to prepare the next segment, so that no commit has to wait for it. A failure shows when it is needed.
    fn prepare_next(&mut self) {
        if !self.spares.is_empty() || self.preparing.is_some() {
            return;
        }
        let Ok(seal) = self.next_seal() else { return };
        let (storage, pool, len) = (self.contents.storage(), self.contents.pool(), self.options.segment_len);
        match self.options.prepare {
            Prepare::Background => {
                let used = self.used_permille();
                self.preparing = Preparing::start(storage.clone(), Arc::clone(pool), seal, len, used).ok();
            }
            Prepare::Foreground => self.spares.extend(segment::next(storage, pool, seal, len)),
        }
    }

    /// How much of the current segment is used; one that is short against the next counts as full.
    fn used_permille(&self) -> u64 {
        match self.current.len {
            len if len < self.options.segment_len / 2 => 1000,
            len => self.position * 1000 / len,
        }
    }

    /// The greatest number names no segment.
    fn next_seal(&mut self) -> io::Result<Seal> {
        let next =
            self.generation_next.checked_add(1).ok_or_else(|| io::Error::other("no segment has a number left"))?;
        let generation = std::mem::replace(&mut self.generation_next, next);
        Ok(Seal::new(self.binding, generation))
    }
}

/// Bytes of a record, of which no more than `room` may be written at once.
fn record_len(record: &Encoded<'_>, room: u64) -> Result<u64, StoreError> {
    if let Some(content) = record.contents().iter().find(|content| content.bytes.len() as u64 > INLINE_LEN_MAX) {
        return Err(StoreError::TooLarge { len: content.bytes.len() as u64, max: INLINE_LEN_MAX });
    }
    match record.len() {
        len if len > room || record.contents().len() > u16::MAX.into() => Err(StoreError::TooLarge { len, max: room }),
        len => Ok(len),
    }
}

/// Contents are found by their places.
fn without_contents(record: &Durable) -> Durable {
    match record {
        Durable::Held { manifest, own_bit, .. } => {
            Durable::Held { manifest: Arc::clone(manifest), contents: Vec::new(), own_bit: *own_bit }
        }
        other => other.clone(),
    }
}

impl<S: Storage> Drop for Log<S> {
    fn drop(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            preparing.cancel();
        }
    }
}
