//! The durable store of a storage point: a log of records, contents by hash, and checkpoints that keep the log short.
//!
//! Invariant: what [`Log::commit`] acknowledged, [`Store::open`] returns, in full or as a checkpoint sums it up, after any
//! crash; otherwise it refuses.
//! `docs/LOG.md` has the format byte for byte.

mod budget;
mod checkpoint;
mod contents;
mod error;
mod format;
mod identity;
mod ledger;
mod log;
mod maintenance;
mod memory;
mod pacer;
mod recovery;
mod segment;
mod storage;

pub use budget::ByteRate;
pub use contents::{Comparison, ContentReader, Contents, Staging};
pub use error::StoreError;
pub(crate) use error::is_out_of_descriptors;
pub use identity::StoreIdentity;
pub use log::Log;
pub use maintenance::{Maintenance, MaintenanceLimits, Step, StoreFigures};
pub use memory::{MemoryFile, MemoryLock, MemoryStorage};
pub use pacer::Pacer;
pub use storage::{DirStorage, Storage, StorageFile};

use crate::protocol::{Durable, Hash};
use format::Seal;
use maintenance::Beginning;

/// Who makes the next segment of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Prepare {
    /// A thread, ahead of need.
    #[default]
    Background,
    /// The commit that begins a segment makes the one after it: every run does the same, as simulations want.
    Foreground,
}

/// Choices of a store. They may differ from one opening to the next.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a new segment of the log; no record with its contents may be longer.
    pub segment_len: u64,
    /// Who makes it.
    pub prepare: Prepare,
    /// When checkpoints are made and segments emptied.
    pub maintenance: MaintenanceLimits,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_len: 64 << 20, prepare: Prepare::Background, maintenance: MaintenanceLimits::DEFAULT }
    }
}

impl Options {
    /// For simulations: small segments, made by the commits that need them; a checkpoint for each.
    pub const fn foreground(segment_len: u64) -> Options {
        let maintenance = MaintenanceLimits { checkpoint_bytes: segment_len, ..MaintenanceLimits::DEFAULT };
        Options { segment_len, prepare: Prepare::Foreground, maintenance }
    }
}

/// Bytes of the first segment: making a store is quick, and an empty log is told from a lost one.
const FIRST_SEGMENT_LEN: u64 = 1 << 20;
const SEGMENT_LEN_MIN: u64 = 4096;

/// Makes and opens stores.
pub struct Store;

/// An open store.
pub struct Opened<S: Storage> {
    /// Whose it is.
    pub identity: StoreIdentity,
    /// What the checkpoint sums up, then what the log holds behind it, in the order in which it was committed. Contents
    /// are left in the store.
    pub records: Vec<Durable>,
    /// Takes what comes next.
    pub log: Log<S>,
    /// Contents of the records, and large ones.
    pub contents: Contents<S>,
    /// Contents that the records need and that are not here, or not whole, with the bytes that they should have: a peer
    /// has to give them.
    pub lost: Vec<(Hash, u64)>,
    /// The last commit was not whole, and was cut off: its flush never returned.
    pub was_cut: bool,
    /// Keeps the log short. Without it the log only grows.
    pub maintenance: Maintenance<S>,
}

impl Store {
    /// Whose store this is, without opening it.
    pub fn identity<S: Storage>(storage: &S) -> Result<StoreIdentity, StoreError> {
        StoreIdentity::read(storage)
    }

    /// Makes an empty store. Refuses if there is one already.
    pub fn create<S: Storage>(storage: S, identity: &StoreIdentity) -> Result<(), StoreError> {
        Store::create_with(storage, identity, FIRST_SEGMENT_LEN)
    }

    /// Makes an empty store whose first segment has `first_segment_len` bytes.
    pub fn create_with<S: Storage>(
        storage: S,
        identity: &StoreIdentity,
        first_segment_len: u64,
    ) -> Result<(), StoreError> {
        let _lock = lock(&storage)?;
        let names = list(&storage)?;
        if names.iter().any(|name| name == identity::IDENTITY_NAME) {
            return Err(StoreError::Exists);
        }
        // What an interrupted creation left. Without an identity nothing was ever acknowledged.
        let first = segment::segment_name(1);
        for name in names.iter().filter(|name| segment::is_leftover(name) || **name == first) {
            storage.remove(name).map_err(StoreError::io("tidying the store"))?;
        }
        let is_of_a_store = |name: &String| {
            name == checkpoint::CHECKPOINT || segment::generation_of(name).is_some_and(|generation| generation > 1)
        };
        if names.iter().any(is_of_a_store) {
            return Err(StoreError::Exists);
        }
        let len = first_segment_len.clamp(SEGMENT_LEN_MIN, format::SEGMENT_LEN_MAX);
        segment::prepare(&storage, Seal::new(identity.binding(), 1), len, None)
            .map_err(StoreError::io("preparing a segment of the log"))?;
        // Last, for the identity says that the log must be there.
        identity.write(&storage)
    }

    /// Opens a store and reads its log.
    pub fn open<S: Storage>(storage: S) -> Result<Opened<S>, StoreError> {
        Store::open_with(storage, Options::default())
    }

    /// Opens a store with these options.
    pub fn open_with<S: Storage>(storage: S, options: Options) -> Result<Opened<S>, StoreError> {
        let segment_len = options.segment_len.clamp(SEGMENT_LEN_MIN, format::SEGMENT_LEN_MAX);
        let options = Options { segment_len, ..options };
        let lock = lock(&storage)?;
        let identity = StoreIdentity::read(&storage)?;
        let names = tidy(&storage)?;
        let contents = Contents::new(storage, lock, &names)?;
        let mut generations: Vec<u64> = names.iter().filter_map(|name| segment::generation_of(name)).collect();
        generations.sort_unstable();
        let binding = identity.binding();
        let checkpoint = checkpoint::read(contents.storage(), binding)?;
        let head = checkpoint.as_ref().map(|checkpoint| checkpoint.head);
        let recovered = recovery::recover(&contents, binding, &generations, checkpoint)?;
        let at = (recovered.end.offset, recovered.end.sequence);
        let next = generations.last().map_or(1, |last| last + 1);
        let log = Log::new(contents.clone(), options, binding, recovered.segments.into(), at, next);
        let beginning = Beginning {
            ledger: recovered.ledger,
            position: recovered.end,
            uncovered: recovered.uncovered,
            checkpoint: head.map(|head| (head.number, head.len, head.position.generation)),
        };
        let maintenance = Maintenance::new(contents.clone(), options, binding, beginning);
        let (records, lost, was_cut) = (recovered.records, recovered.lost, recovered.was_cut);
        Ok(Opened { identity, records, log, contents, lost, was_cut, maintenance })
    }
}

fn lock<S: Storage>(storage: &S) -> Result<S::Lock, StoreError> {
    storage.lock().map_err(StoreError::io("locking the store"))?.ok_or(StoreError::Locked)
}

fn list<S: Storage>(storage: &S) -> Result<Vec<String>, StoreError> {
    storage.list().map_err(StoreError::io("listing the store"))
}

/// Removes what was never finished, and makes the names of what was durable: a process can die between a rename and
/// the flush of its directory. Returns the names that stay.
fn tidy<S: Storage>(storage: &S) -> Result<Vec<String>, StoreError> {
    let (leftovers, names): (Vec<_>, Vec<_>) =
        list(storage)?.into_iter().partition(|name| segment::is_leftover(name) || contents::is_leftover(name));
    let tidied = leftovers.iter().try_for_each(|name| storage.remove(name)).and_then(|()| storage.sync_dir());
    tidied.map_err(StoreError::io("tidying the store"))?;
    Ok(names)
}
