//! Reading the log back when a store is opened: the checkpoint, if there is one, and the log behind it.
//!
//! Invariant: what was acknowledged is returned, or opening fails. The one thing that may be cut off is a last commit
//! that is not whole: its flush never returned, so nobody was told. Anything bad in front of a commit that is whole was
//! acknowledged and is corruption.
//!
//! A process can die between a write and its flush, and a flush can fail, and in both cases the page cache shows what
//! the disk does not hold; so the last commit is written and flushed again before anyone relies on it.

use super::{
    Contents, Storage, StorageFile, StoreError,
    checkpoint::Checkpoint,
    format::{
        BodyChecksum, COMMIT_HEAD_LEN, CommitHead, Placed, Position, RECORD_HEAD_LEN, RecordHead, SECTOR_LEN,
        SEGMENT_LEN_MAX, Seal, encode_commit, padded, segment_head_ok,
    },
    ledger::{FileOf, Ledger},
    segment::{Free, Segment, segment_name},
};
use crate::protocol::{Durable, Hash, Instant};
use std::{io, sync::Arc};

const WINDOW_LEN: u64 = 1 << 20;

/// What the log held, and where it goes on.
pub(super) struct Recovered<F> {
    pub(super) records: Vec<Durable>,
    /// What they say.
    pub(super) ledger: Ledger,
    /// Up to where, and bytes of the log that no checkpoint covers.
    pub(super) end: Position,
    pub(super) uncovered: u64,
    /// The one that takes the next commit, then those that are blank.
    pub(super) segments: Vec<Segment<F>>,
    /// See [`Opened`](super::Opened).
    pub(super) lost: Vec<(Hash, u64)>,
    pub(super) was_cut: bool,
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
    records: Vec<Durable>,
    placed: Vec<Placed>,
}

/// What lies behind a segment's last whole commit, but for what an earlier use of the file left.
#[derive(Clone, Default)]
struct Rest {
    /// The head of a commit after the one that comes next.
    later: bool,
    /// Heads of the commit that comes next, which is not whole.
    next: Vec<u64>,
}

struct Recovery<'a, S: Storage> {
    contents: &'a Contents<S>,
    segments: Vec<Segment<S::File>>,
    /// Where the first of `segments` is read from.
    start: u64,
    records: Vec<Durable>,
    ledger: Ledger,
    sequence: u64,
    uncovered: u64,
    last: Option<Commit>,
    /// The segment that is written next.
    current: usize,
    /// Where an [empty commit](Recovery::write_empty) goes.
    empty: Option<(usize, u64)>,
    was_cut: bool,
}

/// Reads what `checkpoint` says and those of the segments `generations`, ascending, that it does not cover.
pub(super) fn recover<S: Storage>(
    contents: &Contents<S>,
    binding: [u8; 8],
    generations: &[u64],
    checkpoint: Option<Checkpoint>,
) -> Result<Recovered<S::File>, StoreError> {
    let files = contents.files();
    let mut start = Position { sequence: 1, generation: 0, offset: SECTOR_LEN };
    let (mut ledger, mut records) = Default::default();
    let is_covered = checkpoint.is_some();
    if let Some(checkpoint) = checkpoint {
        (start, ledger, records) = (checkpoint.head.position, checkpoint.ledger, checkpoint.records);
    }
    let (covered, tail) = generations.split_at(generations.partition_point(|at| *at < start.generation));
    let open = |generation: &u64| open_segment(contents.storage(), Seal::new(binding, *generation));
    let segments = tail.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    if segments.first().is_none_or(|first| is_covered && first.seal.generation != start.generation) {
        let file = segment_name(start.generation.max(1));
        return Err(StoreError::Corrupt { file, offset: 0, what: "the log is gone" });
    }
    open_covered(contents, binding, covered, &ledger)?;
    segments.iter().for_each(|segment| contents.add(segment, &[], || None));
    let mut recovery = Recovery {
        contents,
        segments,
        start: start.offset,
        records,
        ledger,
        sequence: start.sequence,
        uncovered: 0,
        last: None,
        current: 0,
        empty: None,
        was_cut: false,
    };
    let mut tails = Vec::new();
    for segment in 0..recovery.segments.len() {
        let tail = recovery.walk(segment)?;
        tails.push((tail, recovery.sequence));
    }
    let mut rests = recovery.refuse_lost_commits(&tails)?;
    recovery.settle_last(&mut rests)?;
    recovery.finish(&rests, &files)
}

/// Of the segments that the checkpoint covers, those in which contents lie are read from; the others are free.
fn open_covered<S: Storage>(
    contents: &Contents<S>,
    binding: [u8; 8],
    covered: &[u64],
    ledger: &Ledger,
) -> Result<(), StoreError> {
    let used = ledger.generations();
    for generation in covered.iter().filter(|generation| !used.contains(generation)) {
        let free = || {
            let name = segment_name(*generation);
            let file = contents.storage().open(&name)?;
            Ok(Free { len: file.len()?, file: Arc::new(file), name })
        };
        contents.pool().give(free().map_err(StoreError::io("opening a segment of the log"))?);
    }
    for generation in used.iter().filter(|generation| covered.binary_search(generation).is_ok()) {
        let segment = open_segment(contents.storage(), Seal::new(binding, *generation))?;
        contents.add(&segment, &[], || None);
    }
    Ok(())
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
        let mut offset = if at == 0 { self.start } else { SECTOR_LEN };
        while let Some((len, records, placed)) = self.commit_at(at, offset, &mut window)? {
            if let Some(last) = self.last.take() {
                self.take(last);
            }
            self.last = Some(Commit { segment: at, offset, len, records, placed });
            self.sequence += 1;
            offset += padded(len);
        }
        Ok(offset)
    }

    /// The commit is whole.
    fn take(&mut self, commit: Commit) {
        let segment = &self.segments[commit.segment];
        self.contents.add(segment, &commit.placed, || None);
        commit.records.iter().for_each(|record| self.ledger.apply(record));
        self.ledger.place_all(segment.seal.generation, &commit.placed);
        self.records.extend(commit.records);
        self.uncovered += padded(commit.len);
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
            records.extend(record.record(checked).map_err(unknown)?);
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
            if let Some(head) = CommitHead::decode(sector, segment.seal, offset, segment.len) {
                if head.sequence == self.sequence {
                    rest.next.push(offset);
                } else {
                    rest.later = true;
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
    /// only that content is bad) and it is cut off. It is then made durable for certain.
    fn settle_last(&mut self, rests: &mut [Rest]) -> Result<(), StoreError> {
        let Some(last) = self.last.take() else { return Ok(()) };
        let segment = &self.segments[last.segment];
        let mut bytes = vec![0; padded(last.len) as usize];
        segment.file.read_at(last.offset, &mut bytes).map_err(StoreError::io("reading the log"))?;
        let is_whole = last.placed.iter().all(|content| {
            let from = (u64::from(content.offset) - last.offset) as usize;
            Hash::of(&bytes[from..from + content.len as usize]) == content.hash
        });
        let end = last.offset + padded(last.len);
        let places = [(last.segment, end), (last.segment + 1, SECTOR_LEN)];
        let begun = places.into_iter().find(|(at, offset)| rests.get(*at).is_some_and(|it| it.next.contains(offset)));
        self.current = last.segment;
        if is_whole || begun.is_some() {
            segment.file.write_at(last.offset, &bytes).map_err(StoreError::io("writing the log"))?;
            self.start = end;
            self.take(last);
        } else {
            rests[last.segment].next.push(last.offset);
            self.start = last.offset;
            self.sequence -= 1;
            self.was_cut = true;
        }
        if let Some((at, offset)) = begun.filter(|_| !is_whole) {
            rests[at].next.retain(|next| *next != offset);
            self.empty = Some((at, offset));
        }
        Ok(())
    }

    /// Blanks the heads of commits that were not whole, or a later recovery would take them for lost ones, and flushes.
    fn blank(&self, rests: &[Rest]) -> io::Result<()> {
        for (segment, rest) in self.segments.iter().zip(rests) {
            for offset in &rest.next {
                segment.file.write_at(*offset, &[0; SECTOR_LEN as usize])?;
            }
            segment.file.sync_data()?;
        }
        Ok(())
    }

    /// Writes an empty commit over the head that told that the last commit was acknowledged. So it does not come last in
    /// a later recovery, which would cut it off for its bad content.
    fn write_empty(&mut self, at: usize, offset: u64) -> io::Result<()> {
        let segment = &self.segments[at];
        let mut commit = Vec::new();
        encode_commit(&mut commit, segment.seal, self.sequence, offset, &[]);
        segment.file.write_at(offset, &commit)?;
        segment.file.sync_data()?;
        (self.current, self.start) = (at, offset + commit.len() as u64);
        self.sequence += 1;
        self.uncovered += commit.len() as u64;
        Ok(())
    }

    fn finish(mut self, rests: &[Rest], files: &[(Hash, u64)]) -> Result<Recovered<S::File>, StoreError> {
        self.blank(rests).map_err(StoreError::io("writing the log"))?;
        if let Some((at, offset)) = self.empty.take() {
            self.write_empty(at, offset).map_err(StoreError::io("writing the log"))?;
        }
        self.segments.drain(..self.current);
        for (hash, len) in files {
            if self.ledger.expected_len(*hash).is_none_or(|expected| expected == *len) {
                self.ledger.store_file(*hash, FileOf { len: *len, stamp: 0, unnamed_since: None });
                self.contents.prefer_file(hash, *len);
            } else {
                // Not what was stored under this name.
                self.contents.forget_file(hash);
            }
        }
        let lost = self.ledger.lost();
        self.check_places()?;
        self.contents.add_places(self.ledger.places_after(None, Instant(0)));
        Ok(Recovered {
            end: Position { sequence: self.sequence, generation: self.segments[0].seal.generation, offset: self.start },
            uncovered: self.uncovered,
            records: self.records,
            ledger: self.ledger,
            segments: self.segments,
            lost,
            was_cut: self.was_cut,
        })
    }

    /// All contents lie in segments that are there. (Whether they have their hashes shows when they are read.)
    fn check_places(&self) -> Result<(), StoreError> {
        let lens: std::collections::BTreeMap<u64, u64> = self.contents.segments().into_iter().collect();
        for (_, place) in self.ledger.places_after(None, Instant(0)) {
            let len = lens.get(&place.generation).copied().unwrap_or_default();
            if u64::from(place.offset) + u64::from(place.len) > len {
                let what = "contents that the checkpoint names are gone";
                return Err(StoreError::Corrupt {
                    file: segment_name(place.generation),
                    offset: place.offset.into(),
                    what,
                });
            }
        }
        Ok(())
    }
}
