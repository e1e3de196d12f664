//! What the HTTP side reads of a storage point: snapshot, entries, nodes, changes, outcomes.

use crate::protocol::{
    Hash, IndexEntry, Micros, Outcome, Path, Prefix, Reason, StoragePoint, Uid,
    api::{Changes, Cursor, IndexedEntry, ListedEntry, OutcomeAnswer, PublicationAnswer, Snapshot},
    exchange::Hold,
    io::ChangesAnswer,
    outcome::ids,
};
use bytes::Bytes;

impl StoragePoint {
    /// The snapshot served now; `wall` is when.
    pub fn snapshot(&self, wall: Micros) -> Snapshot {
        Snapshot {
            cluster: self.config.cluster.clone(),
            sp: self.config.me.0,
            incarnation: self.incarnation(),
            sequence: self.root_sequence,
            root: self.index.root(),
            as_of_us: self.as_of().0,
            issued_at_us: wall.0,
        }
    }

    /// The place that a reader who knows everything here has reached.
    pub fn cursor(&self) -> Cursor {
        Cursor { sp: self.config.me, incarnation: self.incarnation(), sequence: self.feed.current() }
    }

    /// The latest agreed entry of `path`; it may be a tombstone.
    pub fn lookup(&self, path: &Path) -> Option<IndexEntry> {
        self.index.lookup(path.as_str())
    }

    /// The live path that hides `path` where a live file of it has this UID: a newer one that is a proper prefix of it,
    /// or below it. A function of the set of entries, and the same at receivers.
    pub fn hidden_by(&self, path: &Path, uid: Uid) -> Option<Path> {
        self.index.hidden_by(path, uid)
    }

    /// An index node of the root or of one served of late.
    pub fn node(&self, hash: &Hash) -> Option<Bytes> {
        self.index.node(hash)
    }

    /// Whether the content is held durably, or about to be.
    pub fn has_content(&self, hash: &Hash) -> bool {
        self.contents.contains(hash)
    }

    /// Bytes of a content that a publication held here durably needs, unless it is known to be damaged: the store must have
    /// it.
    pub fn size_if_held(&self, hash: &Hash) -> Option<u64> {
        if !self.has_content(hash) {
            return None;
        }
        let held = self.publications.values().filter(|one| one.hold == Hold::Durable && !one.released);
        held.flat_map(|one| &one.manifest.entries).find(|entry| entry.hash == *hash).map(|entry| entry.size)
    }

    /// Entries under `prefix` after `after` in listing order (by directory, then name), at most `limit`.
    pub fn list(&self, prefix: &Prefix, after: &str, limit: usize) -> Vec<ListedEntry> {
        self.index.walk(prefix, after).take(limit).collect()
    }

    /// The same, each with whether another path hides it.
    pub fn list_visibly(&self, prefix: &Prefix, after: &str, limit: usize) -> Vec<IndexedEntry> {
        let with = |entry: ListedEntry| {
            let hidden = !entry.flags.deleted && self.hidden_by(&entry.path, entry.uid).is_some();
            IndexedEntry { entry, hidden }
        };
        self.index.walk(prefix, after).take(limit).map(with).collect()
    }

    /// What a reader at `cursor` has to learn under `prefix`, or that there is nothing yet.
    pub fn changes(&self, wall: Micros, cursor: Cursor, prefix: &Prefix) -> ChangesAnswer {
        let changes = self.changes_now(wall, cursor, prefix);
        if changes.full || !changes.entries.is_empty() { ChangesAnswer::Now(changes) } else { ChangesAnswer::Hold }
    }

    /// The same without holding: where nothing changed, no entries. `next` is beyond `cursor` only if a sequence has
    /// been minted since.
    pub fn changes_now(&self, wall: Micros, cursor: Cursor, prefix: &Prefix) -> Changes {
        let here = self.cursor();
        let snapshot = self.snapshot(wall);
        let known =
            (cursor.sp, cursor.incarnation) == (here.sp, here.incarnation) && self.feed.reaches(cursor.sequence);
        if !known {
            return Changes { next: snapshot.cursor(), snapshot, entries: Vec::new(), full: true };
        }
        let changed = self.feed.since(cursor.sequence, prefix);
        let entries = changed.filter_map(|path| Some(ListedEntry::new(path.clone(), &self.lookup(path)?)));
        Changes { entries: entries.collect(), snapshot, next: here, full: false }
    }

    /// What is known here of a publication.
    pub fn publication(&self, uid: Uid) -> Option<PublicationAnswer> {
        let publication = self.publications.get(&uid)?;
        let entries = publication.manifest.entries.iter().map(|entry| ListedEntry::of_publication(uid, entry));
        let outcome = match publication.superseded_by {
            Some(by) => {
                let reason = Reason::Superseded { by };
                Outcome::Undetermined { uid: Some(uid), superseded_by: Some(by), reason }
            }
            None if publication.agreed => Outcome::Accepted { uid },
            None => {
                let reason = Reason::NoAgreement { holders: ids(publication.bits) };
                Outcome::Undetermined { uid: Some(uid), superseded_by: None, reason }
            }
        };
        Some(PublicationAnswer {
            outcome: OutcomeAnswer::from(&outcome),
            entries: entries.collect(),
            holders: ids(publication.bits),
            agreed: publication.agreed,
        })
    }

    /// What is known here of the publication under a key.
    pub fn publication_by_key(&self, publisher: &str, key: &str) -> Option<PublicationAnswer> {
        self.named_by(publisher, key).and_then(|uid| self.publication(uid))
    }
}
