//! What is known of the earlier versions of a path: those whose contents are kept ([`retention`](super::retention)).

use crate::protocol::{
    Entry, Path, StoragePoint, Uid,
    api::{History, ListedEntry, Version},
};

impl StoragePoint {
    /// The versions of `path` whose contents are kept here, the newest first, tombstones too; `None` if there never was
    /// one.
    pub fn history(&self, path: &Path) -> Option<History> {
        let newest = self.lookup(path)?.uid;
        let earlier = self.versions.get(path).into_iter().flatten().rev().copied();
        let versions = std::iter::once(newest).chain(earlier).filter_map(|uid| self.version_as_listed(path, uid));
        Some(History { path: path.clone(), versions: versions.collect() })
    }

    /// The entry of a version of `path` that is kept here.
    pub fn version(&self, path: &Path, uid: Uid) -> Option<Entry> {
        let is_newest = self.lookup(path).is_some_and(|entry| entry.uid == uid);
        let is_kept = is_newest || self.versions.get(path).is_some_and(|versions| versions.contains(&uid));
        let manifest = &self.publications.get(&uid).filter(|_| is_kept)?.manifest;
        manifest.entries.iter().find(|entry| entry.path == *path).cloned()
    }

    fn version_as_listed(&self, path: &Path, uid: Uid) -> Option<Version> {
        let entry = ListedEntry::of_publication(uid, &self.version(path, uid)?);
        Some(Version {
            entry,
            publisher: self.publications.get(&uid)?.manifest.publisher.clone(),
            accepted_us: uid.micros,
        })
    }
}
