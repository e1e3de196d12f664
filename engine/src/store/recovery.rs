//! Reading the log back when a store is opened.
//!
//! Invariant: what was acknowledged is returned, or opening fails. The one thing that may be cut off is a last commit
//! that is not whole: its flush never returned, so nobody was told. Anything bad in front of a commit that is whole was
//! acknowledged and is corruption.
//!
//! A process can die between a write and its flush, and a flush can fail, and in both cases the page cache shows what
//! the disk does not hold; so the last commit is written and flushed again before anyone relies on it.

use super::{
    Contents, Storage, StorageFile, StoreError,
    format::{
        BodyChecksum, COMMIT_HEAD_LEN, CommitHead, Placed, RECORD_HEAD_LEN, RecordHead, SECTOR_LEN, SEGMENT_LEN_MAX,
        Seal, padded, segment_head_ok,
    },
    segment::{Segment, segment_name},
};
use crate::protocol::{Durable, Hash};
use std::{io, sync::Arc};

const WINDOW_LEN: u64 = 1 << 20;

/// What the log held, and where it goes on.
pub(super) struct Recovered<F> {
    pub(super) records: Vec<Durable>,
    /// The one that takes the next commit, then those that are blank.
    pub(super) segments: Vec<Segment<F>>,
    /// Where the next commit goes in the first of `segments`.
    pub(super) position: u64,
    /// Number of the next commit.
    pub(super) sequence: u64,
}

/// A file read through a buffer of bounded size.
struct Window<'a, F> {
    file: &'a F,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a, F: StorageFile> Window<'a, F> {
    fn new(file: &'a F, len: u64) -> Window<'a, F> {
        Window { file, len, start: 0, buffer: Vec::new() }
    }

    /// `len` bytes from `offset`, or as many as the file has.
    fn get(&mut self, offset: u64, len: u64) -> io::Result<&[u8]> {
        let len = len.min(self.len.saturating_sub(offset));
        let end = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + len > end {
            let fill = len.max(WINDOW_LEN.min(self.len.saturating_sub(offset)));
            self.buffer.resize(fill as usize, 0);
            self.file.read_at(offset, &mut self.buffer)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(&self.buffer[from..from + len as usize])
    }
}

/// A whole commit.
struct Commit {
    segment: usize,
    offset: u64,
    len: u64,
    placed: Vec<Placed>,
    /// Records before it.
    records_before: usize,
}

/// What lies behind a segment's last whole commit.
#[derive(Clone, Copy, Default)]
struct Rest {
    /// The head of a commit after the one that comes next.
    later: bool,
    /// The head of the commit that comes next, which is not whole.
    next: bool,
    /// Any byte that is not zero.
    used: bool,
}

struct Recovery<'a, S: Storage> {
    contents: &'a Contents<S>,
    segments: Vec<Segment<S::File>>,
    records: Vec<Durable>,
    sequence: u64,
    last: Option<Commit>,
}

/// Reads segments `generations`, ascending.
pub(super) fn recover<S: Storage>(
    contents: &Contents<S>,
    binding: [u8; 8],
    generations: &[u64],
) -> Result<Recovered<S::File>, StoreError> {
    let segments =
        generations.iter().map(|generation| open_segment(contents.storage(), Seal::new(binding, *generation)));
    let segments = segments.collect::<Result<Vec<_>, _>>()?;
    if segments.is_empty() {
        return Err(StoreError::Corrupt { file: segment_name(1), offset: 0, what: "the log is gone" });
    }
    let mut recovery = Recovery { contents, segments, records: Vec::new(), sequence: 1, last: None };
    let mut tails = Vec::new();
    for segment in 0..recovery.segments.len() {
        let tail = recovery.walk(segment)?;
        tails.push((tail, recovery.sequence));
    }
    let rests = recovery.refuse_lost_commits(&tails)?;
    let acknowledged = rests.iter().any(|rest| rest.next);
    let cut = recovery.settle_last(acknowledged)?;
    recovery.finish(&rests, cut)
}

fn corrupt<F>(segment: &Segment<F>, offset: u64, what: &'static str) -> StoreError {
    StoreError::Corrupt { file: segment.name(), offset, what }
}

fn open_segment<S: Storage>(storage: &S, seal: Seal) -> Result<Segment<S::File>, StoreError> {
    let open = || {
        let file = storage.open(&segment_name(seal.generation))?;
        let len = file.len()?;
        let mut head = vec![0; len.min(SECTOR_LEN) as usize];
        file.read_at(0, &mut head)?;
        Ok((file, len, head))
    };
    let (file, len, head) = open().map_err(StoreError::io("opening a segment of the log"))?;
    let segment = Segment { seal, file: Arc::new(file), len };
    if len > SEGMENT_LEN_MAX || !segment_head_ok(&head, seal, len) {
        return Err(corrupt(&segment, 0, "not the head of this segment"));
    }
    Ok(segment)
}

impl<S: Storage> Recovery<'_, S> {
    /// Takes over the whole commits of a segment; returns the end of the last one.
    fn walk(&mut self, at: usize) -> Result<u64, StoreError> {
        let file = Arc::clone(&self.segments[at].file);
        let mut window = Window::new(&*file, self.segments[at].len);
        let mut offset = SECTOR_LEN;
        while let Some((len, records, placed)) = self.commit_at(at, offset, &mut window)? {
            if let Some(last) = self.last.take() {
                self.contents.add(&self.segments[last.segment], &last.placed);
            }
            let records_before = self.records.len();
            self.records.extend(records);
            self.last = Some(Commit { segment: at, offset, len, placed, records_before });
            self.sequence += 1;
            offset += padded(len);
        }
        Ok(offset)
    }

    /// The commit at `offset`, if the next one is there and all of it but its contents is as it was written.
    #[allow(clippy::type_complexity, reason = "length, records, places: used once, right here")]
    fn commit_at(
        &self,
        at: usize,
        offset: u64,
        window: &mut Window<'_, S::File>,
    ) -> Result<Option<(u64, Vec<Durable>, Vec<Placed>)>, StoreError> {
        let segment = &self.segments[at];
        let read = || StoreError::io("reading the log");
        let head = window.get(offset, COMMIT_HEAD_LEN as u64).map_err(read())?;
        let Some(head) = CommitHead::decode(head, segment.seal, offset, segment.len) else { return Ok(None) };
        if head.sequence != self.sequence {
            return Ok(None);
        }
        let (mut records, mut placed) = (Vec::new(), Vec::new());
        let mut body = BodyChecksum::new(segment.seal);
        let end = offset + u64::from(head.len);
        let mut at = offset + COMMIT_HEAD_LEN as u64;
        for _ in 0..head.records {
            let bytes = window.get(at, RECORD_HEAD_LEN as u64).map_err(read())?;
            let Some(record) = RecordHead::decode(bytes, segment.seal, at, end - at) else { return Ok(None) };
            let checked = window.get(at, record.checked_len()).map_err(read())?;
            if !record.check(checked, segment.seal, at, &mut placed) {
                return Ok(None);
            }
            let unknown =
                |error| StoreError::Unknown { file: segment.name(), offset: at, what: format!("a record, {error}") };
            records.push(record.record(checked).map_err(unknown)?);
            body.add(&record);
            at += record.len;
        }
        let whole = at == end && body.matches(&head);
        Ok(whole.then(|| (head.len.into(), records, placed)))
    }

    /// What lies behind `tail` in a segment.
    fn rest(&self, at: usize, tail: u64) -> Result<Rest, StoreError> {
        let segment = &self.segments[at];
        let mut window = Window::new(&*segment.file, segment.len);
        let mut rest = Rest::default();
        for offset in (tail..segment.len).step_by(SECTOR_LEN as usize) {
            let sector = window.get(offset, SECTOR_LEN).map_err(StoreError::io("reading the log"))?;
            if sector.iter().any(|byte| *byte != 0) {
                rest.used = true;
                if let Some(head) = CommitHead::decode(sector, segment.seal, offset, segment.len) {
                    let next = head.sequence == self.sequence;
                    rest.next |= next;
                    rest.later |= !next;
                }
            }
        }
        Ok(rest)
    }

    /// No commit may lie behind the place where reading ended: the one in front of it was acknowledged.
    fn refuse_lost_commits(&self, tails: &[(u64, u64)]) -> Result<Vec<Rest>, StoreError> {
        let what = "a commit can't be read, but a later one is there";
        // Reading ended in the first segment after which the count of commits no longer rose.
        let ended = tails.iter().position(|(_, sequence)| *sequence == self.sequence).expect("the last one has it");
        let mut rests = Vec::with_capacity(tails.len());
        for (at, (tail, _)) in tails.iter().enumerate() {
            let rest = self.rest(at, *tail)?;
            if rest.later {
                let bad = at.min(ended);
                return Err(corrupt(&self.segments[bad], tails[bad].0, what));
            }
            rests.push(rest);
        }
        Ok(rests)
    }

    /// The last commit's contents must be there too, or its flush never returned (unless a later commit was begun: then
    /// only that content is bad). It is then made durable for certain. Says whether it was cut off.
    fn settle_last(&mut self, acknowledged: bool) -> Result<bool, StoreError> {
        let Some(last) = self.last.take() else { return Ok(false) };
        let segment = &self.segments[last.segment];
        let read = || StoreError::io("reading the log");
        let mut bytes = vec![0; padded(last.len) as usize];
        segment.file.read_at(last.offset, &mut bytes).map_err(read())?;
        let whole = acknowledged
            || last.placed.iter().all(|content| {
                let from = (u64::from(content.offset) - last.offset) as usize;
                Hash::of(&bytes[from..from + content.len as usize]) == content.hash
            });
        if whole {
            segment.file.write_at(last.offset, &bytes).map_err(StoreError::io("writing the log"))?;
            self.contents.add(segment, &last.placed);
        } else {
            self.records.truncate(last.records_before);
            self.sequence -= 1;
        }
        let (offset, len) = (last.offset, if whole { padded(last.len) } else { 0 });
        self.last = Some(Commit { offset, len, placed: Vec::new(), ..last });
        Ok(!whole)
    }

    /// Blanks what lies behind the last whole commit and flushes.
    fn finish(mut self, rests: &[Rest], cut: bool) -> Result<Recovered<S::File>, StoreError> {
        let (current, position) =
            self.last.as_ref().map_or((0, SECTOR_LEN), |last| (last.segment, last.offset + last.len));
        let write = || StoreError::io("writing the log");
        for (at, (segment, rest)) in self.segments.iter().zip(rests).enumerate().skip(current) {
            let tail = if at == current { position } else { SECTOR_LEN };
            if rest.used || (cut && at == current) {
                let zeros = vec![0; WINDOW_LEN as usize];
                for offset in (tail..segment.len).step_by(WINDOW_LEN as usize) {
                    let len = (segment.len - offset).min(WINDOW_LEN) as usize;
                    segment.file.write_at(offset, &zeros[..len]).map_err(write())?;
                }
            }
            segment.file.sync_data().map_err(write())?;
        }
        let segments = self.segments.split_off(current);
        Ok(Recovered { records: self.records, segments, position, sequence: self.sequence })
    }
}
