//! The disk of a storage point: memory that forgets what a real disk may forget, and the time that flushes take.

use super::shared::Ending;
use crate::{scenario, workload::Random};
use acms_engine::{
    protocol::{Hash, SpId, StoreId},
    store::{Contents, MemoryStorage, Options, Store, StoreError, StoreIdentity},
};

/// Bytes written to a large content in a second at most, as the engine's content thread paces itself.
const CONTENT_BYTES_PER_S: u64 = 64_000_000;
/// What a disk says that fails because a fault wants it.
const EIO: i32 = 5;
/// Least time that a read takes.
const READ_NS: u64 = 50_000;

/// A disk, which outlives the process.
pub(super) struct Disk {
    pub(super) storage: MemoryStorage,
    segment_len: u64,
    flush_ns: u64,
    jitter_ns: u64,
    /// Added to each flush while a fault lasts.
    pub(super) slower_by_ns: u64,
    /// When the last job that concerns a large content is done.
    contents_free_ns: u64,
    random: Random,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("segment_len", &self.segment_len).finish_non_exhaustive()
    }
}

impl Disk {
    /// A disk with an empty store.
    pub(super) fn new(settings: &scenario::Disk, mut random: Random) -> Disk {
        /// Small, so that a full disk is felt soon; a record and its contents must fit.
        const SEGMENT_LENS: [u64; 3] = [128 << 10, 256 << 10, 512 << 10];
        let segment_len = SEGMENT_LENS[random.below(SEGMENT_LENS.len() as u64) as usize];
        let flush_ns = u64::try_from(settings.flush.0.as_nanos()).unwrap_or(u64::MAX);
        let jitter_ns = settings.jitter.of(flush_ns);
        Disk {
            storage: MemoryStorage::new(),
            segment_len,
            flush_ns,
            jitter_ns,
            slower_by_ns: 0,
            contents_free_ns: 0,
            random,
        }
    }

    /// Another one of the same kind, with nothing on it.
    pub(super) fn another(&self, random: Random) -> Disk {
        Disk { storage: MemoryStorage::new(), slower_by_ns: 0, contents_free_ns: 0, random, ..*self }
    }

    /// Makes the store.
    pub(super) fn create(&self, cluster: &str, sp: SpId, store: StoreId) -> Result<(), StoreError> {
        let identity = StoreIdentity { cluster: cluster.to_owned(), sp, store };
        Store::create_with(self.storage.clone(), &identity, self.segment_len)
    }

    /// How the store is opened.
    pub(super) fn options(&self) -> Options {
        Options::foreground(self.segment_len)
    }

    /// How long the next flush takes.
    pub(super) fn flush_ns(&mut self) -> u64 {
        self.flush_ns + self.slower_by_ns + self.random.below(self.jitter_ns + 1)
    }

    /// How long from `now_ns` it takes until a part of a large content is written, behind all that was asked for before.
    pub(super) fn stage_ns(&mut self, now_ns: u64, len: u64) -> u64 {
        let took_ns = self.flush_ns() + len.saturating_mul(1_000_000_000) / CONTENT_BYTES_PER_S;
        self.in_turn(now_ns, took_ns)
    }

    /// How long from `now_ns` it takes until a part of a content is read, behind all that was asked for before.
    pub(super) fn read_ns(&mut self, now_ns: u64, len: u64) -> u64 {
        self.in_turn(now_ns, READ_NS + len)
    }

    /// One thread does all that concerns large contents, in order.
    fn in_turn(&mut self, now_ns: u64, took_ns: u64) -> u64 {
        self.contents_free_ns = self.contents_free_ns.max(now_ns) + took_ns;
        self.contents_free_ns - now_ns
    }

    /// The process is gone: what it wrote can be read, flushed or not.
    pub(super) fn kill(&mut self) {
        self.contents_free_ns = 0;
        self.storage = self.storage.kill();
    }

    /// The power is gone: of what was not flushed any part may be there.
    pub(super) fn lose_power(&mut self) {
        self.contents_free_ns = 0;
        self.storage = self.storage.crash(self.random.bits());
    }

    /// Flips a bit of a stored content where it lies; whether it is no longer what it was.
    pub(super) fn rot(&mut self, contents: &Contents<MemoryStorage>, hash: &Hash) -> bool {
        let read = || contents.read(hash, 0, u64::MAX);
        let Some((name, start, len)) = contents.place(hash).filter(|_| read().is_ok()) else { return false };
        let at = start + self.random.below(len);
        self.storage.rot(&name, usize::try_from(at).unwrap_or(usize::MAX), 1 << self.random.below(8));
        matches!(read(), Err(StoreError::CorruptContent(_)))
    }

    /// How a process ends whose store failed with this.
    pub(super) fn ending(&self, error: &StoreError) -> Ending {
        let is_wanted = match error {
            StoreError::Failed(source) | StoreError::Io { source, .. } => source.raw_os_error() == Some(EIO),
            _ => false,
        };
        match is_wanted && self.storage.failures() > 0 {
            true => Ending::DiskFailed(error.to_string()),
            false => Ending::Unexpected(error.to_string()),
        }
    }

    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }
}
