//! The files of large contents that are being sent.

use crate::protocol::Hash;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::Path,
    sync::{Arc, Weak},
};

/// From so many on those that nobody reads are looked for.
const KEPT_MIN: usize = 64;

/// Each file is open once, however many answers are sent from it: readers decide how many those are, and how long it takes.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    files: BTreeMap<Hash, Weak<File>>,
    /// How many were in use when that was last looked at.
    used: usize,
}

impl OpenFiles {
    /// The file of a content, which is at `path`.
    pub(super) fn open(&mut self, hash: Hash, path: &Path) -> io::Result<Arc<File>> {
        if let Some(file) = self.files.get(&hash).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(File::open(path)?);
        if self.files.len() >= KEPT_MIN + 2 * self.used {
            self.files.retain(|_, file| file.strong_count() > 0);
            self.used = self.files.len();
        }
        self.files.insert(hash, Arc::downgrade(&file));
        Ok(file)
    }

    /// The file is not what it should be: who asks next gets what has taken its place.
    pub(super) fn forget(&mut self, hash: &Hash) {
        self.files.remove(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_once_and_only_while_it_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let path = |number: usize| {
            let path = dir.path().join(number.to_string());
            std::fs::write(&path, number.to_string()).unwrap();
            path
        };
        let hash = |number: usize| Hash::of(number.to_string().as_bytes());
        let mut files = OpenFiles::default();
        let first = files.open(hash(0), &path(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &files.open(hash(0), &path(0)).unwrap()));
        files.forget(&hash(0));
        assert!(!Arc::ptr_eq(&first, &files.open(hash(0), &path(0)).unwrap()));
        for number in 1..1000 {
            files.open(hash(number), &path(number)).unwrap();
            assert!(files.files.len() <= KEPT_MIN + 1, "{}", files.files.len());
        }
        assert!(files.open(hash(1), &dir.path().join("absent")).is_err());
    }
}
