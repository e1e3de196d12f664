//! What is published: a tree or generated files and their updates, or an explicit list.

use super::{ByteRange, Bytes, Fraction, Span};
use acms_engine::protocol::{Hash, Order};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// When updates are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrival {
    /// As independent publishers come: exponential gaps.
    #[default]
    Poisson,
    /// At equal gaps.
    Fixed,
}

/// What is published. If `publications` is given, that and nothing else; otherwise all files once, then updates of
/// them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    /// A directory whose world-readable regular files are published; without one, contents are generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<PathBuf>,
    /// How many files are generated; of a tree, how many are taken at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// Sizes of generated files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<ByteRange>,
    /// Larger files of a tree are skipped.
    pub file_size_max: Bytes,
    /// Paths begin with this; of a tree by default its directory's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How many publications of the first load are under way at once.
    pub concurrency: u32,
    /// Updates of random files a second, once all files are loaded.
    pub updates_per_s: f64,
    /// When updates are due.
    pub arrival: Arrival,
    /// The part of updates that delete their file; the next update of it brings it back.
    pub deletes: Fraction,
    /// The part of updates that is tried again under the same key at another storage point, 1 to 12 s later.
    pub retried: Fraction,
    /// The part of updates whose publisher names the greatest UID that it was told so far.
    pub known: Fraction,
    /// The part of updates that ask for the fast order, whatever the cluster's.
    pub fast: Fraction,
    /// The part of updates whose content is above 64 KiB (up to 1 MiB), so that it travels in chunks.
    pub large: Fraction,
    /// Every publication, one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publications: Vec<Publication>,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            tree: None,
            files: None,
            size: None,
            file_size_max: Bytes(1 << 20),
            prefix: None,
            concurrency: 16,
            updates_per_s: 5.0,
            arrival: Arrival::Poisson,
            deletes: Fraction(0),
            retried: Fraction(0),
            known: Fraction(0),
            fast: Fraction(0),
            large: Fraction(0),
            publications: Vec::new(),
        }
    }
}

/// One attempt at publishing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// When it is due, counted from the first update.
    pub at: Span,
    /// The storage point that it is handed to.
    pub to: String,
    /// The file.
    pub path: String,
    /// Length of the content.
    #[serde(default, skip_serializing_if = "is_default")]
    pub size: Bytes,
    /// It deletes the file.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deleted: bool,
    /// Its idempotency key; without it, one of its own. The same key with the same `version` is a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Another number is another content, under the same key too (which storage points refuse).
    #[serde(default, skip_serializing_if = "is_default")]
    pub version: u32,
    /// The publisher names the greatest UID that it was told so far.
    #[serde(default, skip_serializing_if = "is_default")]
    pub known: bool,
    /// The order it asks for; without it, the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Publication {
    /// A publication of `size` bytes with nothing special about it.
    pub fn new(at: Span, to: &str, path: &str, size: u64) -> Publication {
        let (to, path, size) = (to.to_owned(), path.to_owned(), Bytes(size));
        Publication { at, to, path, size, deleted: false, key: None, version: 0, known: false, order: None }
    }

    /// Its key, given its place in the list.
    pub fn key(&self, index: usize) -> String {
        self.key.clone().unwrap_or_else(|| format!("publisher-{index:06}"))
    }

    /// Its content: the same for the same seed, key, version, path and size; different contents otherwise, unless
    /// they are too short to differ. Empty for a deletion.
    pub fn content(&self, seed: u64, index: usize) -> Vec<u8> {
        if self.deleted {
            return Vec::new();
        }
        let named = format!("{}\n{}\n{}\n", self.key(index), self.version, self.path);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(named.as_bytes());
        let mut content = vec![0; usize::try_from(self.size.0).unwrap_or(usize::MAX)];
        hasher.finalize_xof().fill(&mut content);
        content
    }

    /// Hash of [`content`](Publication::content).
    pub fn hash(&self, seed: u64, index: usize) -> Hash {
        Hash::of(&self.content(seed, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_has_the_same_content_and_nothing_else_has() {
        let mut first = Publication::new(Span::default(), "sp1", "a/b", 100);
        first.key = Some("k".to_owned());
        let retry = Publication { to: "sp2".to_owned(), at: Span::from_micros(5), ..first.clone() };
        assert_eq!(first.content(1, 0), retry.content(1, 7));
        assert_eq!(first.content(1, 0).len(), 100);
        let others = [
            Publication { version: 1, ..first.clone() },
            Publication { key: Some("l".to_owned()), ..first.clone() },
            Publication { key: None, ..first.clone() },
            Publication { path: "a".to_owned(), ..first.clone() },
        ];
        assert!(others.iter().all(|other| other.content(1, 0) != first.content(1, 0)));
        assert_ne!(first.content(1, 0), first.content(2, 0));
        assert!(Publication { deleted: true, ..first }.content(1, 0).is_empty());
    }
}
