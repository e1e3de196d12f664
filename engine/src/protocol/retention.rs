//! What a storage point keeps of publications that are no index entries any more, and for how long.
//!
//! Contents: those of index entries, of pending publications and of the last few versions of each path, and those of
//! roots served of late. Outcomes and keys: for a day, within a count (`Limits::outcomes_max`), beyond which the oldest go
//! sooner.

use crate::protocol::{Durable, Instant, Path, StoragePoint, Uid};

impl StoragePoint {
    /// `version` is agreed, and not the entry of `path`; the oldest kept version gives way. Which versions are kept does not
    /// depend on the order in which they came.
    pub(super) fn keep_version(&mut self, path: &Path, version: Uid) {
        let versions = self.versions.entry(path.clone()).or_default();
        let place = versions.partition_point(|other| *other < version);
        versions.insert(place, version);
        if versions.len() < self.config.limits.versions_kept {
            return;
        }
        let Some(oldest) = versions.pop_front() else { return };
        if versions.is_empty() {
            self.versions.remove(path);
        }
        let Some(publication) = self.publications.get_mut(&oldest) else { return };
        publication.kept_by = publication.kept_by.saturating_sub(1);
        if publication.kept_by == 0 {
            self.release_later(oldest);
        }
    }

    /// Nothing here needs the contents of `uid`, but a walk down a root served of late may.
    pub(super) fn release_later(&mut self, uid: Uid) {
        self.releases.push_back((self.now.instant.after(self.config.limits.roots_kept), uid));
    }

    /// When the next contents may go.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.releases.front().map(|(at, _)| *at)
    }

    /// Lets contents go whose time has come.
    pub(super) fn release_due(&mut self) {
        while let Some(&(at, uid)) = self.releases.front() {
            if at > self.now.instant {
                return;
            }
            self.releases.pop_front();
            let Some(publication) = self.publications.get_mut(&uid) else { continue };
            if std::mem::replace(&mut publication.released, true) {
                continue;
            }
            self.contents.release(&publication.manifest);
            self.persist_lazily(Durable::Released { uid });
            self.retire(uid);
        }
    }

    /// Only the outcome and the key of `uid` are kept from now on, for a day, within a count.
    pub(super) fn retire(&mut self, uid: Uid) {
        self.retired.push_back(uid);
        let limits = &self.config.limits;
        let count_max = limits.outcomes_max;
        let horizon = self.now.wall.0.saturating_sub(limits.outcomes_kept.as_micros() as u64);
        while let Some(&oldest) = self.retired.front()
            && (self.retired.len() > count_max || oldest.micros < horizon)
        {
            self.retired.pop_front();
            if let Some(publication) = self.publications.remove(&oldest) {
                self.keys.forget(&publication.manifest);
                self.persist_lazily(Durable::Forgotten { uid: oldest });
            }
        }
    }

    pub(super) fn recover_released(&mut self, uid: Uid) {
        let Some(publication) = self.publications.get_mut(&uid) else { return };
        if !std::mem::replace(&mut publication.released, true) {
            self.contents.release(&publication.manifest);
            self.retired.push_back(uid);
        }
    }

    pub(super) fn recover_forgotten(&mut self, uid: Uid) {
        if let Some(publication) = self.publications.remove(&uid) {
            self.keys.forget(&publication.manifest);
            if !publication.released {
                self.contents.release(&publication.manifest);
            }
        }
    }
}
