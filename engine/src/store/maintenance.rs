//! What keeps the log short: checkpoints, compaction, and segments used again. It runs beside the commits, in steps;
//! a thread takes them in a process, the simulation takes them where it wants.
//!
//! Invariant: a segment or file is given up only once a durable checkpoint says that nothing in it is needed and nobody
//! reads from it. So a crash at any step leaves either the old place of everything or the new one.

use super::{
    ByteRate, Contents, Options, Storage, StoreError,
    checkpoint::{self, Writer},
    contents::Notice,
    format::{Position, SECTOR_LEN},
    ledger::{FileOf, Ledger, Place},
    segment::{Free, segment_name},
};
use crate::protocol::{Durable, Duration, Hash, Instant, durable::InlineContent};
use std::{collections::BTreeSet, io, sync::Arc};

/// A content that is a file and that no record names is kept for so long: its record may be on its way.
const UNNAMED_KEPT: Duration = Duration::from_secs(3_600);
/// After a failure nothing is written for so long.
const PAUSE: Duration = Duration::from_secs(1);
/// Segments kept to be used again, beside those that the last checkpoint made free.
const FREE_KEPT: usize = 1;

/// When and how fast.
#[derive(Clone, Copy, Debug)]
pub struct MaintenanceLimits {
    /// A checkpoint is made when the log has grown by this many bytes since the last one, and by no less than that one's
    /// own: so no more than one byte of checkpoint is written per byte of log.
    pub checkpoint_bytes: u64,
    /// Or when nothing was committed for so long and the log has grown by a sixteenth of that, or a segment is free.
    pub idle: Duration,
    /// A segment is emptied when less than this many thousandths of it are alive.
    pub alive_permille: u64,
    /// What nothing names any more is kept for so long: a publication on its way may count on it.
    pub dead_kept: Duration,
    /// Contents are moved in portions of this many bytes, in a commit that waits for the next of the protocol.
    pub copy_bytes: u64,
    /// What checkpoints and moved contents may write in a second.
    pub bytes_per_s: u64,
}

impl MaintenanceLimits {
    /// For segments of 64 MiB.
    pub const DEFAULT: MaintenanceLimits = MaintenanceLimits {
        checkpoint_bytes: 64 << 20,
        idle: Duration::from_secs(5),
        alive_permille: 500,
        dead_kept: Duration::from_secs(10),
        copy_bytes: 64 << 10,
        bytes_per_s: 32 << 20,
    };
}

impl Default for MaintenanceLimits {
    fn default() -> MaintenanceLimits {
        MaintenanceLimits::DEFAULT
    }
}

/// What a step asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Take the next step at once.
    Again,
    /// Commit these contents, then take the next step; see [`Log::commit_writes`](super::Log::commit_writes).
    Copy(Vec<InlineContent>),
    /// Nothing to do before this time, unless something is committed.
    Wait(Instant),
}

/// Numbers for status and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct StoreFigures {
    /// Bytes of the log's segments, the free ones among them.
    pub log_bytes: u64,
    /// Bytes of contents in the log that are alive.
    pub alive_bytes: u64,
    /// Bytes of the log that no checkpoint covers.
    pub uncovered_bytes: u64,
    /// Publications that are remembered.
    pub publications: usize,
    /// Bytes of the last checkpoint.
    pub checkpoint_bytes: u64,
    /// Checkpoints since the start.
    pub checkpoints_total: u64,
    /// Bytes of checkpoints since the start.
    pub checkpoint_bytes_total: u64,
    /// Bytes of contents moved since the start.
    pub copied_bytes_total: u64,
    /// Segments given up since the start.
    pub freed_total: u64,
    /// Checkpoints that failed since the start.
    pub failures_total: u64,
    /// Contents found corrupt that still wait for a good copy.
    pub corrupt: usize,
}

/// See the module.
pub struct Maintenance<S: Storage> {
    contents: Contents<S>,
    options: Options,
    binding: [u8; 8],
    ledger: Ledger,
    /// How much of the log is in `ledger`.
    position: Position,
    /// Oldest segment that the last checkpoint does not cover, and that of the checkpoint before.
    covered: u64,
    covered_before: u64,
    number: u64,
    writing: Option<Writer<S::File>>,
    /// Files of contents that are of no use any more: hash and stamp.
    removing: Vec<(Hash, u64)>,
    /// Segments that are free once their readers are done.
    retiring: Vec<Free<S::File>>,
    corrupt: BTreeSet<Hash>,
    /// Those of them that nobody was told of, with their bytes.
    found_corrupt: Vec<(Hash, u64)>,
    budget: ByteRate,
    paused_until: Instant,
    active_at: Instant,
    figures: StoreFigures,
}

/// What a maintenance begins with.
pub(super) struct Beginning {
    pub(super) ledger: Ledger,
    pub(super) position: Position,
    pub(super) uncovered: u64,
    /// The checkpoint there is: its number, its bytes, the segment where it ends.
    pub(super) checkpoint: Option<(u64, u64, u64)>,
}

impl<S: Storage> Maintenance<S> {
    pub(super) fn new(contents: Contents<S>, options: Options, binding: [u8; 8], from: Beginning) -> Maintenance<S> {
        contents.keep_notices(true);
        let (number, checkpoint_bytes, covered) = from.checkpoint.unwrap_or_default();
        let figures = StoreFigures { checkpoint_bytes, uncovered_bytes: from.uncovered, ..StoreFigures::default() };
        let mut maintenance = Maintenance {
            contents,
            options,
            binding,
            ledger: from.ledger,
            position: from.position,
            covered,
            covered_before: covered,
            number,
            writing: None,
            removing: Vec::new(),
            retiring: Vec::new(),
            corrupt: BTreeSet::new(),
            found_corrupt: Vec::new(),
            budget: ByteRate::new(options.maintenance.bytes_per_s, Duration::from_millis(20)),
            paused_until: Instant(0),
            active_at: Instant(0),
            figures,
        };
        maintenance.count();
        maintenance
    }

    /// One bounded piece of work: a block of a checkpoint, a portion of contents, or nothing.
    ///
    /// An error is one of the disk; what was begun is given up and begun again a second later, and nothing is lost.
    pub fn step(&mut self, now: Instant) -> Result<Step, StoreError> {
        self.take_notices(now);
        let ready_at = self.paused_until.max(self.budget.ready_at());
        if now < ready_at {
            return Ok(Step::Wait(ready_at));
        }
        let stepped = self.work(now);
        if stepped.is_err() {
            self.pause(now);
        }
        self.count();
        stepped
    }

    fn work(&mut self, now: Instant) -> Result<Step, StoreError> {
        if self.writing.is_some() {
            return self.write_on(now);
        }
        self.give_up().map_err(StoreError::io("giving up what is dead"))?;
        if self.checkpoint_is_due(now) {
            return self.begin_checkpoint(now).map(|()| Step::Again);
        }
        if let Some(copies) = self.next_copies()? {
            let bytes: u64 = copies.iter().map(|copy| copy.bytes.len() as u64).sum();
            self.budget.spend(now, bytes);
            self.figures.copied_bytes_total += bytes;
            return Ok(Step::Copy(copies));
        }
        Ok(Step::Wait(now.after(self.options.maintenance.idle)))
    }

    /// The disk refused: nothing is tried for a second.
    pub fn pause(&mut self, now: Instant) {
        self.paused_until = now.after(PAUSE);
        if self.writing.take().is_some() {
            checkpoint::abandon(self.contents.storage());
            self.figures.failures_total += 1;
        }
    }

    /// Writes a checkpoint now, if the next start would have much to read without it. For the end of a process, when
    /// nothing is committed any more.
    pub fn finish(&mut self, now: Instant) -> Result<(), StoreError> {
        self.take_notices(now);
        if self.writing.is_none() && self.figures.uncovered_bytes < self.options.maintenance.checkpoint_bytes / 16 {
            return Ok(());
        }
        self.checkpoint(now)
    }

    /// Writes a checkpoint of all that was committed, now and at once.
    pub fn checkpoint(&mut self, now: Instant) -> Result<(), StoreError> {
        let result = self.checkpoint_at_once(now);
        if result.is_err() {
            self.pause(now);
        }
        self.count();
        result
    }

    fn checkpoint_at_once(&mut self, now: Instant) -> Result<(), StoreError> {
        while self.writing.is_some() {
            self.write_on(now)?;
        }
        self.take_notices(now);
        self.begin_checkpoint(now)?;
        while self.writing.is_some() {
            self.write_on(now)?;
        }
        self.give_up().map_err(StoreError::io("giving up what is dead"))
    }

    /// Numbers for status and metrics.
    pub fn figures(&self) -> StoreFigures {
        self.figures
    }

    /// Contents that were found corrupt since the last call when they should have been moved, with their bytes. What they
    /// lie in stays until there are good copies of them.
    pub fn take_corrupt(&mut self) -> Vec<(Hash, u64)> {
        std::mem::take(&mut self.found_corrupt)
    }

    fn count(&mut self) {
        let segments: u64 = self.contents.segments().iter().map(|(_, len)| len).sum();
        let retiring: u64 = self.retiring.iter().map(|free| free.len).sum();
        self.figures.log_bytes = segments + retiring + self.contents.pool().bytes();
        self.figures.alive_bytes = self.ledger.alive();
        self.figures.publications = self.ledger.publications();
        self.figures.corrupt = self.corrupt.len();
    }

    /// Takes over what was committed since. While a checkpoint is written that waits, for the ledger is what it says.
    fn take_notices(&mut self, now: Instant) {
        if self.writing.is_some() {
            return;
        }
        self.ledger.set_now(now);
        for notice in self.contents.take_notices() {
            match notice {
                Notice::Committed { end, len, records, placed } => {
                    records.iter().for_each(|record| self.ledger.apply(record));
                    self.ledger.place_all(end.generation, &placed);
                    for placed in &placed {
                        self.corrupt.remove(&placed.hash);
                    }
                    self.position = end;
                    self.figures.uncovered_bytes += len;
                    if records.iter().any(is_activity) {
                        self.active_at = now;
                    }
                }
                Notice::Stored { hash, len, stamp } => {
                    self.corrupt.remove(&hash);
                    self.ledger.store_file(hash, FileOf { len, stamp, unnamed_since: Some(now) });
                }
            }
        }
    }

    // ---- Checkpoints ----------------------------------------------------------------------------------------------

    fn checkpoint_is_due(&self, now: Instant) -> bool {
        let limits = &self.options.maintenance;
        let grown = self.figures.uncovered_bytes;
        if grown >= limits.checkpoint_bytes.max(self.figures.checkpoint_bytes) {
            return true;
        }
        let is_idle = now.since(self.active_at) >= limits.idle;
        is_idle && grown > 0 && (grown >= limits.checkpoint_bytes / 16 || self.would_free(now))
    }

    /// Whether a checkpoint would make a segment free, or a file of a content be removed.
    fn would_free(&self, now: Instant) -> bool {
        let dead_at = self.dead_at(now);
        if self.ledger.dead(dead_at, unnamed_at(now)).any(|(_, _, stamp)| stamp.is_some()) {
            return true;
        }
        let old = self.contents.segments().into_iter().filter(|(at, _)| *at < self.position.generation);
        old.into_iter().any(|(generation, _)| !self.ledger.is_needed(generation, dead_at))
    }

    fn dead_at(&self, now: Instant) -> Instant {
        Instant(now.0.saturating_sub(self.options.maintenance.dead_kept.as_nanos() as u64))
    }

    fn begin_checkpoint(&mut self, now: Instant) -> Result<(), StoreError> {
        let writer = Writer::begin(
            self.contents.storage(),
            self.binding,
            self.number + 1,
            self.position,
            (&self.ledger, self.dead_at(now)),
        );
        self.writing = Some(writer.map_err(StoreError::io("beginning a checkpoint"))?);
        Ok(())
    }

    fn write_on(&mut self, now: Instant) -> Result<Step, StoreError> {
        let failed = || StoreError::io("writing a checkpoint");
        let Some(writer) = &mut self.writing else { return Ok(Step::Again) };
        let (written, is_last) = writer.write_block(&self.ledger).map_err(failed())?;
        self.budget.spend(now, written);
        if is_last && let Some(writer) = self.writing.take() {
            let dead_at = writer.dead_at;
            let head = writer.finish(self.contents.storage()).map_err(failed())?;
            self.number = head.number;
            (self.covered_before, self.covered) = (self.covered, head.position.generation);
            self.figures.uncovered_bytes = 0;
            self.figures.checkpoint_bytes = head.len;
            self.figures.checkpoint_bytes_total += head.len;
            self.figures.checkpoints_total += 1;
            self.forget_dead(dead_at, now);
        }
        Ok(Step::Again)
    }

    /// The checkpoint is durable and says nothing of these: they are of no use any more.
    fn forget_dead(&mut self, dead_at: Instant, now: Instant) {
        for (generation, _) in self.contents.segments() {
            if generation < self.covered && !self.ledger.is_needed(generation, dead_at) {
                self.retire(generation);
            }
        }
        let dead: Vec<_> = self.ledger.dead(dead_at, unnamed_at(now)).collect();
        for (hash, place, stamp) in dead {
            self.removing.extend(stamp.map(|stamp| (hash, stamp)));
            if let Some(place) = place {
                self.contents.remove_place(&hash, place);
            }
            self.corrupt.remove(&hash);
            self.ledger.forget_content(hash);
        }
        self.removing.extend(self.ledger.take_dead_files());
    }

    fn retire(&mut self, generation: u64) {
        let dead: Vec<(Hash, Place)> = self.ledger.places_in(generation).collect();
        for (hash, place) in dead {
            self.contents.remove_place(&hash, place);
            self.ledger.unplace(hash);
        }
        self.ledger.forget_segment(generation);
        if let Some((file, len)) = self.contents.retire(generation) {
            self.retiring.push(Free { name: segment_name(generation), file, len });
        }
    }

    /// Removes files that are of no use, and has segments whose last reader is done used again, or removes them if there
    /// are enough. What the disk refuses to remove stays for the next time.
    fn give_up(&mut self) -> io::Result<()> {
        while let Some((hash, stamp)) = self.removing.last().copied() {
            self.contents.remove_file(&hash, stamp)?;
            self.removing.pop();
        }
        let pool = self.contents.pool();
        let kept = FREE_KEPT
            + (self.options.maintenance.checkpoint_bytes.max(self.figures.checkpoint_bytes) / self.options.segment_len)
                as usize;
        let mut at = 0;
        while let Some(free) = self.retiring.get(at) {
            if Arc::strong_count(&free.file) > 1 {
                at += 1;
            } else if free.len == self.options.segment_len && pool.len() < kept {
                pool.give(self.retiring.remove(at));
                self.figures.freed_total += 1;
            } else {
                self.contents.storage().remove(&free.name)?;
                self.retiring.remove(at);
                self.figures.freed_total += 1;
            }
        }
        Ok(())
    }

    // ---- Compaction -----------------------------------------------------------------------------------------------

    /// The next portion of contents to be moved out of the segment of which least is alive. One that was filled since the
    /// checkpoint before the last is left alone: more of it may die by itself.
    fn next_copies(&mut self) -> Result<Option<Vec<InlineContent>>, StoreError> {
        let limits = self.options.maintenance;
        let old = self.contents.segments().into_iter().filter(|(at, _)| *at < self.covered_before);
        let mut candidates: Vec<(u64, u64)> = old
            .map(|(generation, len)| (self.ledger.alive_in(generation) * 1000 / len, generation))
            .filter(|(alive_permille, _)| *alive_permille < limits.alive_permille)
            .collect();
        candidates.sort_unstable();
        for (_, generation) in candidates {
            let copies = self.copies_of(generation)?;
            if !copies.is_empty() {
                return Ok(Some(copies));
            }
        }
        Ok(None)
    }

    fn copies_of(&mut self, generation: u64) -> Result<Vec<InlineContent>, StoreError> {
        let limits = self.options.maintenance;
        let fits = |len: usize| (len as u64) < self.options.segment_len - 2 * SECTOR_LEN;
        let (mut copies, mut bytes) = (Vec::new(), 0);
        let hashes: Vec<Hash> = self.ledger.placed_in(generation).collect();
        for hash in hashes {
            if !self.ledger.is_alive(hash) || self.corrupt.contains(&hash) {
                continue;
            }
            match self.contents.read(&hash, 0, u64::MAX) {
                Ok(content) => {
                    if !fits(content.len()) || (bytes > 0 && bytes + content.len() as u64 > limits.copy_bytes) {
                        break;
                    }
                    bytes += content.len() as u64;
                    copies.push(InlineContent { hash, bytes: content });
                }
                // It stays where it is until there is a good copy.
                Err(StoreError::CorruptContent(_) | StoreError::Missing(_)) => {
                    self.corrupt.insert(hash);
                    self.found_corrupt.extend(self.ledger.expected_len(hash).map(|len| (hash, len)));
                }
                Err(error) => return Err(error),
            }
            if bytes >= limits.copy_bytes || copies.len() >= 1024 {
                break;
            }
        }
        Ok(copies)
    }
}

/// Whether somebody did something: an idle storage point notes that time passes.
fn is_activity(record: &Durable) -> bool {
    !matches!(record, Durable::AsOf { .. } | Durable::Ceiling { .. })
}

/// Files that nothing ever named are of no use if they were stored before this.
fn unnamed_at(now: Instant) -> Instant {
    Instant(now.0.saturating_sub(UNNAMED_KEPT.as_nanos() as u64))
}

impl<S: Storage> Drop for Maintenance<S> {
    fn drop(&mut self) {
        self.contents.keep_notices(false);
    }
}
