//! The index: path -> latest agreed entry, and the immutable nodes that it is served as.
//!
//! Entries are visible here the moment they are agreed (that is the overlay); a root that contains them is minted
//! later, by re-encoding only the directories that changed. Equal sets of entries have equal roots.

use crate::protocol::{Duration, Hash, IndexEntry, Instant, Node, Path, Prefix, api::ListedEntry, node::Item};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Debug, Default)]
struct Directory {
    items: BTreeMap<String, Item>,
    hash: Option<Hash>,
}

/// Most bytes of nodes that only earlier roots have.
const EXPIRING_LEN_MAX: usize = 64 << 20;

/// The index of a storage point, its root, and the nodes of roots served of late.
#[derive(Debug)]
pub struct Index {
    directories: BTreeMap<String, Directory>,
    dirty: BTreeSet<String>,
    root: Hash,
    nodes: BTreeMap<Hash, Served>,
    expiring: VecDeque<(Instant, Hash)>,
    /// Bytes of nodes that the current root does not have.
    expiring_len: usize,
    kept: Duration,
    live: usize,
}

#[derive(Debug)]
struct Served {
    bytes: Bytes,
    // Directories of the current root with this node: equal directories share it.
    uses: usize,
    expires: Option<Instant>,
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Index {
    /// Empty. Nodes are kept for `kept` after the last root with them.
    pub fn new(kept: Duration) -> Index {
        let mut index = Index {
            directories: BTreeMap::from([(String::new(), Directory::default())]),
            dirty: BTreeSet::from([String::new()]),
            root: Hash::default(),
            nodes: BTreeMap::new(),
            expiring: VecDeque::new(),
            expiring_len: 0,
            kept,
            live: 0,
        };
        index.mint_root(Instant(0));
        index
    }

    /// The hash of the last root.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Whether entries were inserted since the root was minted.
    pub fn is_ahead_of_root(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Paths that are not deleted.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The latest agreed entry of `path`, a tombstone included.
    pub fn lookup(&self, path: &str) -> Option<&IndexEntry> {
        let (directory, segment) = split(path);
        self.directories.get(directory)?.items.get(segment)?.file.as_ref()
    }

    /// The hash of the page of `directory` in the last root.
    pub fn directory_hash(&self, directory: &str) -> Option<Hash> {
        self.directories.get(directory)?.hash
    }

    /// Takes `entry` if its UID is greater than that of the path's entry. Gives the UID that it replaces.
    pub fn insert(&mut self, path: &Path, entry: IndexEntry) -> Inserted {
        let (directory, segment) = split(path.as_str());
        if !self.directories.contains_key(directory) {
            self.make_directory(directory);
        }
        let items = &mut self.directories.get_mut(directory).expect("made above").items;
        let empty = || Item { segment: segment.to_owned(), file: None, directory: None };
        let item = items.entry(segment.to_owned()).or_insert_with(empty);
        let before = item.file.as_ref().map(|file| (file.uid, file.flags.deleted));
        if before.is_some_and(|(uid, _)| uid >= entry.uid) {
            return Inserted::Older;
        }
        self.live += usize::from(!entry.flags.deleted);
        self.live -= usize::from(before.is_some_and(|(_, deleted)| !deleted));
        item.file = Some(entry);
        self.dirty.insert(directory.to_owned());
        Inserted::Newest { replaced: before.map(|(uid, _)| uid) }
    }

    /// The directory and those above it. A directory's node is linked from above when the next root is minted.
    fn make_directory(&mut self, directory: &str) {
        self.directories.insert(directory.to_owned(), Directory::default());
        self.dirty.insert(directory.to_owned());
        let (parent, _) = split(directory);
        if !self.directories.contains_key(parent) {
            self.make_directory(parent);
        }
    }

    /// A live path that cannot be a file beside a file `path`: a proper prefix of it, or one below it.
    pub fn clash(&self, path: &Path) -> Option<Path> {
        let text = path.as_str();
        let above = text.match_indices('/').map(|(at, _)| &text[..at]);
        let is_live = |entry: &IndexEntry| !entry.flags.deleted;
        let above =
            above.filter(|prefix| self.lookup(prefix).is_some_and(is_live)).find_map(|prefix| prefix.parse().ok());
        above.or_else(|| self.directories.contains_key(text).then(|| self.first_live_below(text)).flatten())
    }

    fn first_live_below(&self, directory: &str) -> Option<Path> {
        let prefix = directory.parse().ok()?;
        self.walk(&prefix, "")
            .find(|entry| !entry.flags.deleted && entry.path.as_str() != directory)
            .map(|entry| entry.path)
    }

    /// Entries under `prefix` with a path above `after`, tombstones too, ascending by directory, then name.
    pub fn walk<'a>(&'a self, prefix: &'a Prefix, after: &'a str) -> impl Iterator<Item = ListedEntry> + 'a {
        let start = split(after).0;
        let (own, _) = split(prefix.as_str());
        // The prefix's own file lies in the directory above it; everything else lies in directories it covers.
        let above = self.directories.get_key_value(own).filter(|_| !prefix.as_str().is_empty());
        let below = self
            .directories
            .range(prefix.as_str().to_owned()..)
            .take_while(move |(directory, _)| directory.starts_with(prefix.as_str()));
        let below = below.filter(move |(directory, _)| prefix.covers(directory));
        let of = move |(directory, content): (&'a String, &'a Directory)| {
            content.items.values().filter_map(|item| ListedEntry::of_item(directory, item))
        };
        let rank = |path: &str| (split(path).0.to_owned(), split(path).1.to_owned());
        let after_rank = rank(after);
        let all = above.into_iter().flat_map(of).filter(|entry| entry.path.as_str() == prefix.as_str());
        all.chain(below.filter(move |(directory, _)| directory.as_str() >= start || after.is_empty()).flat_map(of))
            .filter(move |entry| after.is_empty() || rank(entry.path.as_str()) > after_rank)
    }

    /// Encodes what changed, bottom up. Nodes that the new root no longer has are kept for a while.
    pub fn mint_root(&mut self, now: Instant) -> Hash {
        let depth = |directory: &str| if directory.is_empty() { 0 } else { 1 + directory.matches('/').count() };
        let mut by_depth: BTreeSet<(usize, String)> =
            std::mem::take(&mut self.dirty).into_iter().map(|directory| (depth(&directory), directory)).collect();
        while let Some((level, directory)) = by_depth.pop_last() {
            let hash = self.encode(now, &directory);
            if level == 0 {
                self.root = hash;
                continue;
            }
            let (parent, segment) = split(&directory);
            let items = &mut self.directories.get_mut(parent).expect("a directory has those above it").items;
            let empty = || Item { segment: segment.to_owned(), file: None, directory: None };
            items.entry(segment.to_owned()).or_insert_with(empty).directory = Some(hash);
            by_depth.insert((level - 1, parent.to_owned()));
        }
        self.expire(now);
        self.root
    }

    fn encode(&mut self, now: Instant, directory: &str) -> Hash {
        let content = self.directories.get_mut(directory).expect("dirty directories exist");
        let bytes = Node { items: content.items.values().cloned().collect() }.encode();
        let hash = Hash::of(&bytes);
        if let Some(before) = content.hash.replace(hash) {
            if before == hash {
                return hash;
            }
            if let Some(served) = self.nodes.get_mut(&before) {
                served.uses -= 1;
                if served.uses == 0 {
                    let expires = now.after(self.kept);
                    served.expires = Some(expires);
                    self.expiring_len += served.bytes.len();
                    self.expiring.push_back((expires, before));
                }
            }
        }
        let served = self.nodes.entry(hash).or_insert(Served { bytes, uses: 0, expires: None });
        served.uses += 1;
        if served.expires.take().is_some() {
            self.expiring_len -= served.bytes.len();
        }
        hash
    }

    /// Forgets nodes whose time is over, and the oldest where they take too much room: a walk that misses one begins
    /// again.
    fn expire(&mut self, now: Instant) {
        while let Some(&(at, hash)) = self.expiring.front() {
            if at > now && self.expiring_len <= EXPIRING_LEN_MAX {
                return;
            }
            self.expiring.pop_front();
            // It may have come back since, or have been retired again later.
            if self.nodes.get(&hash).is_some_and(|served| served.expires == Some(at)) {
                let gone = self.nodes.remove(&hash);
                self.expiring_len -= gone.map_or(0, |served| served.bytes.len());
            }
        }
    }

    /// A node of the current root or one served of late.
    pub fn node(&self, hash: &Hash) -> Option<Bytes> {
        self.nodes.get(hash).map(|served| served.bytes.clone())
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The path had this UID or a greater one already.
    Older,
    /// It is the path's entry now.
    Newest {
        /// The UID of the entry before.
        replaced: Option<crate::protocol::Uid>,
    },
}
