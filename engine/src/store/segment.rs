//! Segments: files that are zero-filled and synced before the log uses them, so that a commit's flush writes data only
//! and never the file system's own records.

use super::{
    Storage, StorageFile,
    format::{SECTOR_LEN, Seal, encode_segment_head},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes between two flushes while a segment is filled: an unpaced writer would hold up the commits beside it.
const FILL_STEP_LEN: usize = 256 << 10;
/// Rate of filling in the background while it is ahead of need.
const FILL_BYTES_PER_S: u64 = 8 << 20;

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
    (segment_name(generation) == name).then_some(generation)
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
        let ahead = 4 * (offset * 1000 / len) >= 5 * progress.used_permille.load(Ordering::Relaxed);
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
    pub(super) fn start<S: Storage<File = F>>(storage: S, seal: Seal, len: u64) -> io::Result<Preparing<F>> {
        let progress = Arc::new(Progress::default());
        let theirs = Arc::clone(&progress);
        let thread = thread::Builder::new()
            .name("next-segment".into())
            .spawn(move || prepare(&storage, seal, len, Some(&theirs)))?;
        Ok(Preparing { thread, progress })
    }

    pub(super) fn tell_used(&self, used: u64, len: u64) {
        self.progress.used_permille.store(used * 1000 / len.max(1), Ordering::Relaxed);
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
