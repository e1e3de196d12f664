//! Idempotency keys: which publication each one names.

use crate::protocol::{Manifest, Uid};
use std::collections::{BTreeMap, btree_map::Entry};

/// An idempotency key of a publisher: 128 bits of a hash of both. Comparing those costs a fraction of comparing texts,
/// of which a busy publisher's begin alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key(u128);

impl Key {
    pub(super) fn new(publisher: &str, key: &str) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(publisher.len() as u64).to_le_bytes()).update(publisher.as_bytes()).update(key.as_bytes());
        let hash = hasher.finalize();
        Key(u128::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])))
    }
}

/// Publications by publisher and key.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<Key, Uid>);

impl Keys {
    /// The publication that `key` names.
    pub(super) fn of(&self, key: Key) -> Option<Uid> {
        self.0.get(&key).copied()
    }

    /// `manifest`'s key, if it has one, names it, unless it names a greater one: overlapping attempts may have made two.
    pub(super) fn remember(&mut self, manifest: &Manifest) {
        if let Some(key) = &manifest.key {
            let named = self.0.entry(Key::new(&manifest.publisher, key)).or_default();
            *named = manifest.uid.max(*named);
        }
    }

    /// `manifest`'s key names it no more.
    pub(super) fn forget(&mut self, manifest: &Manifest) {
        if let Some(key) = &manifest.key
            && let Entry::Occupied(named) = self.0.entry(Key::new(&manifest.publisher, key))
            && *named.get() == manifest.uid
        {
            named.remove();
        }
    }
}
