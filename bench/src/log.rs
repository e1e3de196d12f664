//! Stores and batches for the benchmarks of the log.

use acms_engine::{
    protocol::{
        Durable, Entry, Flags, Hash, Manifest, SpId, StoreId, Uid,
        durable::{INLINE_LEN_MAX, InlineContent},
    },
    store::{DirStorage, Opened, Store, StoreError, StoreIdentity},
};
use bytes::Bytes;
use std::{io, path::Path, sync::Arc};

/// Bytes of content of each publication in a [`batch`].
pub const CONTENT_LEN: usize = 1 << 10;

/// Publications of 1 KiB each, `len` bytes of content in all.
pub fn batch(len: usize) -> Vec<Durable> {
    const { assert!(CONTENT_LEN as u64 <= INLINE_LEN_MAX) };
    (0..len.div_ceil(CONTENT_LEN) as u64).map(held).collect()
}

/// Publication `number`, whose content no other has.
pub fn held(number: u64) -> Durable {
    let mut content: Vec<u8> = (0..CONTENT_LEN as u64).map(|i| (i * 31 + number * 7) as u8).collect();
    content[..8].copy_from_slice(&number.to_le_bytes());
    let bytes = Bytes::from(content);
    let hash = Hash::of(&bytes);
    let entry = Entry {
        path: format!("bench/file-{number}").parse().expect("a path"),
        hash,
        size: bytes.len() as u64,
        content_type: "application/octet-stream".into(),
        flags: Flags::default(),
    };
    let manifest = Manifest {
        uid: Uid { micros: 1_700_000_000_000_000 + number, sp: SpId(1), store: 0 },
        publisher: "bench".into(),
        key: Some(format!("key-{number}")),
        entries: vec![entry],
        unknown: Vec::new(),
    };
    Durable::Held { manifest: Arc::new(manifest), contents: vec![InlineContent { hash, bytes }], own_bit: true }
}

/// A new store in `dir`, its first segment full-sized as those of a store that has been in use are.
pub fn store(dir: &Path) -> Result<Opened<DirStorage>, StoreError> {
    let storage =
        DirStorage::new(dir).map_err(|source: io::Error| StoreError::Io { what: "making the directory", source })?;
    let identity = StoreIdentity {
        cluster: "bench".into(),
        sp: SpId(1),
        store: StoreId { number: 0, nonce: std::process::id().into() },
    };
    Store::create_with(storage.clone(), &identity, 64 << 20)?;
    Store::open(storage)
}
