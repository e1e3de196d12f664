//! Segments: files that are zero-filled and synced before the log uses them, so that a commit's flush writes data only
//! and never the file system's own records. One that is needed no more is used again instead, under another name.

use super::{
    Storage, StorageFile,
    format::{SECTOR_LEN, Seal, encode_segment_head},
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes between two flushes while a segment is filled: an unpaced writer would hold up the commits beside it.
const FILL_STEP_LEN: usize = 256 << 10;
/// Rate of filling in the background while it is ahead of need.
const FILL_BYTES_PER_S: u64 = 8 << 20;

/// How much of the current segment is used before the next is filled: until then one may become free to be used again.
const FILL_FROM_PERMILLE: u64 = 500;

const PREPARING: &str = "preparing-segment";
const SEGMENT: &str = "segment-";

/// Whether a file of this name is what a preparation left behind.
pub(super) fn is_leftover(name: &str) -> bool {
    name.starts_with("preparing-")
}

pub(super) fn segment_name(generation: u64) -> String {
    format!("{SEGMENT}{generation:016x}")
}

/// The generation in a segment's name.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    let generation = u64::from_str_radix(name.strip_prefix(SEGMENT)?, 16).ok()?;
    (segment_name(generation) == name && generation < u64::MAX).then_some(generation)
}

/// An open segment.
pub(super) struct Segment<F> {
    pub(super) seal: Seal,
    pub(super) file: Arc<F>,
    pub(super) len: u64,
}

impl<F> Segment<F> {
    pub(super) fn name(&self) -> String {
        segment_name(self.seal.generation)
    }
}

/// A file that was a segment; nothing in it is needed.
pub(super) struct Free<F> {
    pub(super) name: String,
    pub(super) file: Arc<F>,
    pub(super) len: u64,
}

/// Segments to be used again.
pub(super) struct Pool<F>(Mutex<Vec<Free<F>>>);

impl<F> Default for Pool<F> {
    fn default() -> Pool<F> {
        Pool(Mutex::default())
    }
}

impl<F> Pool<F> {
    fn lock(&self) -> MutexGuard<'_, Vec<Free<F>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().map(|free| free.len).sum()
    }

    pub(super) fn give(&self, free: Free<F>) {
        self.lock().push(free);
    }

    /// One of this many bytes.
    fn take(&self, len: u64) -> Option<Free<F>> {
        let mut all = self.lock();
        let at = all.iter().position(|free| free.len == len)?;
        Some(all.remove(at))
    }
}

/// Makes a segment of a file that was one: a new head first, then the new name, so that the old name never stands for
/// the new head in a log that is read (only segments behind the checkpoint are taken, which nobody reads).
fn recycle<S: Storage>(storage: &S, free: Free<S::File>, seal: Seal) -> io::Result<Segment<S::File>> {
    free.file.write_at(0, &encode_segment_head(seal, free.len))?;
    free.file.sync_data()?;
    storage.rename(&free.name, &segment_name(seal.generation))?;
    storage.sync_dir()?;
    Ok(Segment { seal, file: free.file, len: free.len })
}

/// The next segment: one of the pool, or a new one filled at once.
pub(super) fn next<S: Storage>(
    storage: &S,
    pool: &Pool<S::File>,
    seal: Seal,
    len: u64,
) -> io::Result<Segment<S::File>> {
    match pool.take(len) {
        Some(free) => recycle(storage, free, seal),
        None => prepare(storage, seal, len, None),
    }
}

/// What the log and the filling of its next segment tell each other.
#[derive(Default)]
pub(super) struct Progress {
    /// Permille of the current segment that is used: the filling keeps ahead of it.
    pub(super) used_permille: AtomicU64,
    /// A commit waits.
    pub(super) hurry: AtomicBool,
    /// The log is closing.
    pub(super) cancel: AtomicBool,
}

impl Progress {
    fn is_wanted(&self) -> bool {
        self.used_permille.load(Ordering::Relaxed) >= FILL_FROM_PERMILLE
            || self.hurry.load(Ordering::Relaxed)
            || self.cancel.load(Ordering::Relaxed)
    }
}

/// Makes the segment under a temporary name, then gives it its own. Leaves nothing behind if it fails.
pub(super) fn prepare<S: Storage>(
    storage: &S,
    seal: Seal,
    len: u64,
    progress: Option<&Progress>,
) -> io::Result<Segment<S::File>> {
    let filled = storage.create(PREPARING, len).and_then(|file| {
        fill(&file, seal, len, progress)?;
        storage.rename(PREPARING, &segment_name(seal.generation))?;
        storage.sync_dir()?;
        Ok(Segment { seal, file: Arc::new(file), len })
    });
    if filled.is_err() {
        // The name may be either by now; what stays is removed or taken for a spare segment when the store is opened.
        storage.remove(PREPARING).ok();
    }
    filled
}

fn fill<F: StorageFile>(file: &F, seal: Seal, len: u64, progress: Option<&Progress>) -> io::Result<()> {
    let zeros = vec![0; FILL_STEP_LEN];
    let step_time = Duration::from_micros(FILL_STEP_LEN as u64 * 1_000_000 / FILL_BYTES_PER_S);
    let mut offset = 0;
    while offset < len {
        let started = Instant::now();
        let step = (len - offset).min(FILL_STEP_LEN as u64);
        file.write_at(offset, &zeros[..step as usize])?;
        if offset == 0 {
            file.write_at(0, &encode_segment_head(seal, len)[..SECTOR_LEN as usize])?;
        }
        offset += step;
        let Some(progress) = progress else { continue };
        file.sync_data()?;
        if progress.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::from(io::ErrorKind::Interrupted));
        }
        // Ready when four fifths of the current one are used.
        let used = progress.used_permille.load(Ordering::Relaxed).saturating_sub(FILL_FROM_PERMILLE);
        let ahead = (800 - FILL_FROM_PERMILLE) * (offset * 1000 / len) >= 1000 * used;
        if ahead && !progress.hurry.load(Ordering::Relaxed) {
            thread::park_timeout(step_time.saturating_sub(started.elapsed()));
        }
    }
    file.sync_data()
}

/// A segment being prepared by a thread of its own.
pub(super) struct Preparing<F> {
    thread: thread::JoinHandle<io::Result<Segment<F>>>,
    progress: Arc<Progress>,
}

impl<F: StorageFile> Preparing<F> {
    /// A segment after one that is used so far (permille).
    pub(super) fn start<S: Storage<File = F>>(
        storage: S,
        pool: Arc<Pool<F>>,
        seal: Seal,
        len: u64,
        used_permille: u64,
    ) -> io::Result<Preparing<F>> {
        let progress = Arc::new(Progress { used_permille: used_permille.into(), ..Progress::default() });
        let theirs = Arc::clone(&progress);
        let thread = thread::Builder::new().name("next-segment".into()).spawn(move || {
            while !theirs.is_wanted() {
                thread::park();
            }
            if theirs.cancel.load(Ordering::Relaxed) {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            match pool.take(len) {
                Some(free) => recycle(&storage, free, seal),
                None => prepare(&storage, seal, len, Some(&theirs)),
            }
        })?;
        Ok(Preparing { thread, progress })
    }

    pub(super) fn tell_used(&self, permille: u64) {
        let before = self.progress.used_permille.swap(permille, Ordering::Relaxed);
        if before < FILL_FROM_PERMILLE && permille >= FILL_FROM_PERMILLE {
            self.thread.thread().unpark();
        }
    }

    /// Waits for the segment, which is then filled as fast as can be.
    pub(super) fn finish(self) -> io::Result<Segment<F>> {
        self.progress.hurry.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that prepares segments panicked")))
    }

    /// Stops it; a segment that was finished all the same is found when the store is opened.
    pub(super) fn cancel(self) {
        self.progress.cancel.store(true, Ordering::Relaxed);
        self.finish().ok();
    }
}
