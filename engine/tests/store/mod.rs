//! What the tests of the store share.

#![allow(dead_code, reason = "each test binary uses its part")]

use acms_engine::{
    protocol::{Durable, Entry, Flags, Hash, Instant, Manifest, SpId, StoreId, Uid, durable::InlineContent},
    store::{Contents, MaintenanceLimits, MemoryStorage, Opened, Step, Storage, StoreError, StoreIdentity},
};
use bytes::Bytes;
use std::{sync::Arc, time::Duration};

/// For small segments: checkpoints are made often, nothing is paced.
pub(crate) const LIMITS: MaintenanceLimits = MaintenanceLimits {
    checkpoint_bytes: 12 << 10,
    idle: Duration::from_secs(5),
    alive_permille: 500,
    dead_kept: Duration::ZERO,
    copy_bytes: 2 << 10,
    bytes_per_s: u64::MAX,
};

pub(crate) fn identity() -> StoreIdentity {
    StoreIdentity { cluster: "demo".into(), sp: SpId(2), store: StoreId { number: 0, nonce: 7 } }
}

pub(crate) fn uid(micros: u64) -> Uid {
    Uid { micros, sp: SpId(1), store: 0 }
}

pub(crate) fn held(micros: u64, content: &[u8]) -> Durable {
    let bytes = Bytes::copy_from_slice(content);
    let hash = Hash::of(&bytes);
    let entry = Entry {
        path: format!("etc/{micros}").parse().unwrap(),
        hash,
        size: bytes.len() as u64,
        content_type: String::new(),
        flags: Flags::default(),
    };
    let manifest =
        Manifest { uid: uid(micros), publisher: "p".into(), key: None, entries: vec![entry], unknown: Vec::new() };
    Durable::Held { manifest: Arc::new(manifest), contents: vec![InlineContent { hash, bytes }], own_bit: true }
}

/// A publication whose content is a file, or has come with another one.
pub(crate) fn held_without(micros: u64, content: &[u8]) -> Durable {
    read_back(&held(micros, content))
}

/// Stores a content as a file.
pub(crate) fn stage<S: Storage>(contents: &Contents<S>, bytes: &[u8]) -> Result<Hash, StoreError> {
    let mut staging = contents.stage();
    staging.write(bytes)?;
    staging.finish(None).map(|(hash, _)| hash)
}

/// A step of maintenance, with the commit that it asks for. False: there was nothing to do.
pub(crate) fn step(opened: &mut Opened<MemoryStorage>, now: Instant) -> Result<bool, StoreError> {
    match opened.maintenance.step(now)? {
        Step::Again => Ok(true),
        Step::Wait(_) => Ok(false),
        Step::Copy(copies) => match opened.log.commit_writes([], &copies) {
            Ok(()) => Ok(true),
            Err(error) => {
                opened.maintenance.pause(now);
                Err(error)
            }
        },
    }
}

/// As it comes back: without contents.
pub(crate) fn read_back(record: &Durable) -> Durable {
    let mut record = record.clone();
    if let Durable::Held { contents, .. } = &mut record {
        contents.clear();
    }
    record
}

/// Splitmix64: the same seed, the same run.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }
}
