//! A storage point's answers as a receiver sees them, without agreement behind them.

use acms_engine::protocol::{
    Duration, Flags, Hash, IndexEntry, Instant, Path, Prefix, SpId, Uid,
    api::{Changes, Cursor, Incarnation, ListedEntry, Snapshot},
    index::{Index, Inserted},
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// How a source behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Mood {
    #[default]
    Good,
    /// Cannot be reached.
    Down,
    /// Takes requests and says nothing.
    Silent,
    /// Bytes of objects are wrong.
    Corrupt,
    /// JSON is cut short.
    Garbage,
    /// Objects are gone.
    Forgetful,
    /// Its chain of changes does not advance.
    Stuck,
    /// Every chain of changes says that the tree must be walked.
    Full,
    /// Answers 503.
    Overloaded,
    /// Takes its time with objects.
    Withholding,
    /// A cache that keeps whatever it has answered, the snapshot too.
    Stale,
    /// A cache that damages objects and keeps them so, by their URLs, for good.
    Poisoned,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) sp: u8,
    pub(crate) starts: u32,
    pub(crate) mood: Mood,
    pub(crate) cluster: String,
    /// Its as-of lies so far in the past.
    pub(crate) behind: Duration,
    /// Nor does it pass this, as there is something that the source does not have.
    pub(crate) as_of_max: Option<Instant>,
    /// Its as-of is the time of day.
    pub(crate) follows_wall: bool,
    /// Answers of a stale cache.
    kept: BTreeMap<String, (u16, Vec<u8>)>,
    /// Damaged objects, by their URLs.
    poisoned: BTreeMap<String, Vec<u8>>,
    sequence: u64,
    oldest: u64,
    index: Index,
    changes: Vec<(u64, Path)>,
    contents: BTreeMap<Hash, Bytes>,
    inline_len_max: usize,
}

impl Source {
    pub(crate) fn new(sp: u8) -> Source {
        Source {
            sp,
            starts: 1,
            mood: Mood::Good,
            cluster: "demo".into(),
            behind: Duration::ZERO,
            as_of_max: None,
            follows_wall: false,
            kept: BTreeMap::new(),
            poisoned: BTreeMap::new(),
            sequence: 1,
            oldest: 1,
            index: Index::new(Duration::from_secs(300)),
            changes: Vec::new(),
            contents: BTreeMap::new(),
            inline_len_max: 16,
        }
    }

    /// Takes an entry, if it is newer than the path's; no content is a deletion.
    pub(crate) fn publish(&mut self, path: &Path, uid: Uid, content: Option<&[u8]>, executable: bool) {
        let bytes = Bytes::copy_from_slice(content.unwrap_or_default());
        let flags = Flags { executable, deleted: content.is_none() };
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        self.contents.insert(hash, bytes);
        let entry = IndexEntry { uid, hash, size, content_type: String::new(), flags };
        if self.index.insert(path, entry) != Inserted::Older {
            self.sequence += 1;
            self.changes.push((self.sequence, path.clone()));
        }
    }

    /// Mints a sequence for nothing, as an idle storage point does.
    pub(crate) fn mint(&mut self) {
        self.sequence += 1;
    }

    /// Forgets all changes so far: older cursors are told to walk.
    pub(crate) fn forget_changes(&mut self) {
        self.oldest = self.sequence + 1;
    }

    /// Starts anew: a new incarnation.
    pub(crate) fn restart(&mut self) {
        (self.starts, self.sequence, self.oldest) = (self.starts + 1, 1, 1);
        self.changes.clear();
    }

    /// Content hashes of the paths that are live and visible.
    pub(crate) fn visible(&self) -> BTreeMap<Path, Hash> {
        let all = self.index.walk(&Prefix::default(), "").collect::<Vec<ListedEntry>>().into_iter();
        let visible =
            all.filter(|entry| !entry.flags.deleted && self.index.hidden_by(&entry.path, entry.uid).is_none());
        visible.map(|entry| (entry.path, entry.hash)).collect()
    }

    /// Whether it has this entry of the path, or a newer one.
    pub(crate) fn has(&self, path: &Path, uid: Uid) -> bool {
        self.index.lookup(path.as_str()).is_some_and(|entry| entry.uid >= uid)
    }

    fn as_of(&self, now: Instant) -> Duration {
        let now = self.as_of_max.map_or(now, |most| most.min(now));
        now.since(Instant(0)).saturating_sub(self.behind)
    }

    fn snapshot(&mut self, now: Instant) -> Snapshot {
        Snapshot {
            cluster: self.cluster.clone(),
            sp: self.sp,
            incarnation: Incarnation { store: 0, starts: self.starts },
            sequence: self.sequence,
            root: self.index.mint_root(now),
            as_of_us: if self.follows_wall { wall_us() } else { self.as_of(now).as_micros() as u64 },
            issued_at_us: now.0 / 1000,
        }
    }

    /// Whether the answer to `target` would be held now.
    pub(crate) fn holds(&self, target: &str) -> bool {
        if self.mood == Mood::Withholding && target.starts_with("/v1/objects/") {
            return true;
        }
        if self.mood == Mood::Stale && self.kept.contains_key(target) {
            return false;
        }
        let Some((cursor, prefix)) = changes_target(target) else { return false };
        let restless = matches!(self.mood, Mood::Stuck | Mood::Full | Mood::Garbage | Mood::Overloaded | Mood::Down);
        let here = (SpId(self.sp), Incarnation { store: 0, starts: self.starts });
        let known = (cursor.sp, cursor.incarnation) == here && cursor.sequence + 1 >= self.oldest;
        let news = self.changes.iter().any(|(at, path)| *at > cursor.sequence && prefix.concerns(path));
        let idle =
            self.sequence > cursor.sequence && !news && self.changes.last().is_none_or(|(at, _)| *at < self.sequence);
        !restless && known && cursor.sequence <= self.sequence && !news && !idle
    }

    /// Status and body.
    pub(crate) fn answer(&mut self, now: Instant, target: &str) -> (u16, Vec<u8>) {
        if let Some(kept) = self.kept.get(target).filter(|_| self.mood == Mood::Stale) {
            return kept.clone();
        }
        if let Some(body) = self.poisoned.get(target) {
            return (200, body.clone());
        }
        let answer = self.answer_itself(now, target);
        if self.mood == Mood::Stale {
            self.kept.insert(target.to_owned(), answer.clone());
        } else {
            self.kept.clear();
        }
        answer
    }

    fn answer_itself(&mut self, now: Instant, target: &str) -> (u16, Vec<u8>) {
        if self.mood == Mood::Overloaded {
            return (503, b"{}".to_vec());
        }
        let (status, mut body) = if let Some((cursor, prefix)) = changes_target(target) {
            (200, serde_json::to_vec(&self.changes(now, cursor, &prefix)).unwrap())
        } else if target == "/v1/snapshot" {
            (200, serde_json::to_vec(&self.snapshot(now)).unwrap())
        } else {
            let hash = target.strip_prefix("/v1/objects/").unwrap();
            let hash: Hash = hash.split_once('?').map_or(hash, |(hash, _)| hash).parse().unwrap();
            let bytes = self.index.node(&hash).or_else(|| self.contents.get(&hash).cloned());
            match bytes.filter(|_| self.mood != Mood::Forgetful) {
                Some(bytes) => (200, bytes.to_vec()),
                None => (404, b"{}".to_vec()),
            }
        };
        match self.mood {
            Mood::Corrupt if target.starts_with("/v1/objects/") => body[0] ^= 1,
            Mood::Poisoned if target.starts_with("/v1/objects/") && status == 200 && !body.is_empty() => {
                body[0] ^= 1;
                self.poisoned.insert(target.to_owned(), body.clone());
            }
            Mood::Garbage => body.truncate(body.len() / 2),
            _ => {}
        }
        (status, body)
    }

    fn changes(&mut self, now: Instant, cursor: Cursor, prefix: &Prefix) -> Changes {
        let snapshot = self.snapshot(now);
        let here = snapshot.cursor();
        let known = (cursor.sp, cursor.incarnation) == (here.sp, here.incarnation)
            && (self.oldest..=self.sequence + 1).contains(&(cursor.sequence + 1));
        if !known || self.mood == Mood::Full {
            return Changes { next: here, snapshot, entries: Vec::new(), full: true };
        }
        let changed = self.changes.iter().filter(|(at, path)| *at > cursor.sequence && prefix.concerns(path));
        let paths: std::collections::BTreeSet<&Path> = changed.map(|(_, path)| path).collect();
        let entry = |path: &Path| {
            let mut listed = ListedEntry::new(path.clone(), &self.index.lookup(path.as_str())?);
            let content = self.contents.get(&listed.hash).filter(|bytes| bytes.len() <= self.inline_len_max);
            listed.inline = content.filter(|_| !listed.flags.deleted).map(|bytes| bytes.to_vec());
            Some(listed)
        };
        let entries = paths.into_iter().filter_map(entry).collect();
        let next = if self.mood == Mood::Stuck { cursor } else { here };
        Changes { snapshot, entries, next, full: false }
    }
}

fn changes_target(target: &str) -> Option<(Cursor, Prefix)> {
    let rest = target.strip_prefix("/v1/changes/")?;
    let (cursor, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    Some((cursor.parse().ok()?, prefix.parse().ok()?))
}

fn wall_us() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64
}
