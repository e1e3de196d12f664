//! Which contents are here, and how many publications need each.

use crate::protocol::{Hash, Manifest};
use std::collections::{BTreeMap, BTreeSet};

/// Contents held durably, or about to be, with the number of publications that keep each.
#[derive(Debug, Default)]
pub(super) struct HeldContents {
    uses: BTreeMap<Hash, usize>,
    /// Those that the disk has spoilt, until they are fetched again.
    damaged: BTreeSet<Hash>,
}

impl HeldContents {
    pub(super) fn contains(&self, hash: &Hash) -> bool {
        self.uses.contains_key(hash) && !self.damaged.contains(hash)
    }

    /// A content is durable, ahead of a publication that waits for it. Without one it must not count as held: the store
    /// lets go what no publication names.
    pub(super) fn arrived(&mut self, hash: Hash) {
        self.repaired(hash);
        self.uses.entry(hash).or_default();
    }

    /// A good copy of a content is durable.
    pub(super) fn repaired(&mut self, hash: Hash) {
        self.damaged.remove(&hash);
    }

    /// `manifest` will not be held: contents that came ahead of it, and that nobody else keeps, do not count as held.
    pub(super) fn give_up(&mut self, manifest: &Manifest) {
        for entry in &manifest.entries {
            if self.uses.get(&entry.hash) == Some(&0) {
                self.uses.remove(&entry.hash);
                self.damaged.remove(&entry.hash);
            }
        }
    }

    /// A content turned out to be damaged. Whether that is news of a content that is needed.
    pub(super) fn spoilt(&mut self, hash: Hash) -> bool {
        self.uses.contains_key(&hash) && self.damaged.insert(hash)
    }

    pub(super) fn is_damaged(&self, hash: &Hash) -> bool {
        self.damaged.contains(hash)
    }

    /// A publication is held.
    pub(super) fn keep(&mut self, manifest: &Manifest) {
        for entry in &manifest.entries {
            *self.uses.entry(entry.hash).or_default() += 1;
        }
    }

    /// A publication needs its contents no more.
    pub(super) fn release(&mut self, manifest: &Manifest) {
        for entry in &manifest.entries {
            if let Some(count) = self.uses.get_mut(&entry.hash) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.uses.remove(&entry.hash);
                    self.damaged.remove(&entry.hash);
                }
            }
        }
    }
}
