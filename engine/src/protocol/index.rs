//! The index: path -> latest agreed entry, and the immutable nodes that it is served as.
//!
//! Entries are visible here the moment they are agreed (that is the overlay); a root that contains them is minted
//! later, by encoding only the nodes that changed. Equal sets of entries have equal roots. What is in a root is kept only
//! as its encoded nodes.

mod directory;
mod level;
mod page;
mod served;

use crate::protocol::{Duration, Hash, IndexEntry, Instant, Node, NodePlace, Path, Prefix, Uid, api::ListedEntry};
use bytes::Bytes;
use directory::Directory;
use served::Nodes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound::{Included, Unbounded},
};

/// The index of a storage point, its root, and the nodes of roots served of late.
#[derive(Debug)]
pub struct Index {
    directories: BTreeMap<Box<str>, Directory>,
    /// Directories that are not as in the last root.
    dirty: Vec<Box<str>>,
    minted_at: Instant,
    root: Hash,
    nodes: Nodes,
    /// The root of an index without entries, which is no directory's node.
    empty: (Hash, Bytes),
    live: usize,
    /// Paths, deleted ones too.
    count: usize,
    /// Entries inserted since they were last encoded.
    fresh: usize,
}

/// So many entries, and half as many as there are, wait for the next root as they are; more are encoded at once, for an
/// entry takes four times as much memory as its encoding.
const FRESH_MIN: usize = 1 << 16;

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Every proper prefix of `path` by whole segments, from the root.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(move |(at, _)| &path[..at])
}

impl Index {
    /// Empty. Nodes are kept for `kept` after the last root with them.
    pub fn new(kept: Duration) -> Index {
        let bytes = Node::default().encode();
        let empty = (Hash::of(&bytes), bytes);
        Index {
            directories: BTreeMap::from([(Box::default(), Directory::default())]),
            dirty: Vec::new(),
            minted_at: Instant(0),
            root: empty.0,
            nodes: Nodes::new(kept),
            empty,
            live: 0,
            count: 0,
            fresh: 0,
        }
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
    pub fn lookup(&self, path: &str) -> Option<IndexEntry> {
        let (directory, segment) = split(path);
        self.directories.get(directory)?.file(segment)
    }

    /// Whether the last root has the node `hash` at `place`: who was sent there by another root need not look into it.
    pub fn has_node(&self, place: &NodePlace, hash: Hash) -> bool {
        let Some(directory) = self.directories.get(place.directory()) else { return false };
        match place.part() {
            None => directory.hash() == Some(hash),
            Some((level, last)) => directory.has_part(level, last, hash),
        }
    }

    /// Takes `entry` if its UID is greater than that of the path's entry. Gives the UID that it replaces.
    pub fn insert(&mut self, path: &Path, entry: IndexEntry) -> Inserted {
        let (name, segment) = split(path.as_str());
        let directory = match self.directories.get_mut(name) {
            Some(directory) => directory,
            None => {
                self.make_directory(name);
                self.directories.get_mut(name).expect("just made")
            }
        };
        let before = directory.uid(segment);
        if before.is_some_and(|(uid, _)| uid >= entry.uid) {
            return Inserted::Older;
        }
        let comes = usize::from(!entry.flags.deleted);
        let goes = usize::from(before.is_some_and(|(_, flags)| !flags.deleted));
        self.live = self.live + comes - goes;
        directory.live = directory.live + comes - goes;
        if !entry.flags.deleted {
            directory.newest = directory.newest.max(entry.uid);
        }
        directory.put_file(segment, entry);
        if !std::mem::replace(&mut directory.is_dirty, true) {
            self.dirty.push(name.into());
        }
        self.count += usize::from(before.is_none());
        self.fresh += 1;
        if self.fresh >= FRESH_MIN + self.count / 2 {
            self.renew_dirty();
        }
        Inserted::Newest { replaced: before.map(|(uid, _)| uid) }
    }

    /// The directory and those above it. A directory's node is linked from above when the next root is minted.
    fn make_directory(&mut self, name: &str) {
        self.directories.insert(name.into(), Directory::default());
        let (parent, _) = split(name);
        if !self.directories.contains_key(parent) {
            self.make_directory(parent);
        }
    }

    // ---- What clashes ---------------------------------------------------------------------------------------------

    /// A live path that cannot be a file beside a file `path`: a proper prefix of it, or one below it.
    pub fn clash(&self, path: &Path) -> Option<Path> {
        self.newer_clash(path.as_str(), Uid::default())
    }

    /// The live path that hides a live file `path` of this UID: a newer one that is a proper prefix of it, or below it.
    pub fn hidden_by(&self, path: &Path, uid: Uid) -> Option<Path> {
        self.newer_clash(path.as_str(), uid)
    }

    fn newer_clash(&self, path: &str, uid: Uid) -> Option<Path> {
        let is_newer = |entry: &IndexEntry| !entry.flags.deleted && entry.uid > uid;
        let above = above(path).find(|prefix| self.lookup(prefix).as_ref().is_some_and(is_newer));
        above.and_then(|prefix| prefix.parse().ok()).or_else(|| self.newer_below(path, uid))
    }

    /// A live path below `name` with a greater UID than `uid`.
    fn newer_below(&self, name: &str, uid: Uid) -> Option<Path> {
        let own = self.directories.get_key_value(name)?;
        let start = format!("{name}/");
        let below = self
            .directories
            .range::<str, _>((Included(&*start), Unbounded))
            .take_while(|(other, _)| other.starts_with(&start));
        let mut newer = std::iter::once(own).chain(below).filter(|(_, of)| of.live > 0 && of.newest > uid);
        newer.find_map(|(directory, content)| {
            let mut files = content.files(None);
            let (segment, _) = files.find(|(_, entry)| !entry.flags.deleted && entry.uid > uid)?;
            format!("{directory}/{segment}").parse().ok()
        })
    }

    // ---- Listing --------------------------------------------------------------------------------------------------

    /// Entries under `prefix` with a path above `after`, tombstones too, ascending by directory, then name.
    pub fn walk<'a>(&'a self, prefix: &'a Prefix, after: &'a str) -> impl Iterator<Item = ListedEntry> + 'a {
        let (start, last) = split(after);
        let top = prefix.as_str();
        // The prefix's own file lies in the directory above it; everything else lies in directories it covers.
        let (own, _) = split(top);
        let is_after = move |path: &str| after.is_empty() || split(path) > (start, last);
        let own = Some(own).filter(|_| !top.is_empty() && is_after(top));
        let own = own.and_then(|_| Some(ListedEntry::new(top.parse().ok()?, &self.lookup(top)?)));
        let from = if after.is_empty() { top } else { top.max(start) };
        let below = self
            .directories
            .range::<str, _>((Included(from), Unbounded))
            .take_while(move |(name, _)| name.starts_with(top));
        let below = below.filter(move |(name, _)| prefix.covers(name));
        let files = below.flat_map(move |(name, content)| {
            let seen = Some(last).filter(|_| !after.is_empty() && **name == *start);
            let separator = if name.is_empty() { "" } else { "/" };
            content.files(seen).filter_map(move |(segment, file)| {
                Some(ListedEntry::new(format!("{name}{separator}{segment}").parse().ok()?, &file))
            })
        });
        own.into_iter().chain(files)
    }

    // ---- Roots ----------------------------------------------------------------------------------------------------

    /// Encodes what changed, bottom up. Nodes that the new root no longer has are kept for a while.
    pub fn mint_root(&mut self, now: Instant) -> Hash {
        let depth = |name: &str| if name.is_empty() { 0 } else { 1 + name.matches('/').count() };
        let mut by_depth: BTreeSet<(usize, Box<str>)> =
            std::mem::take(&mut self.dirty).into_iter().map(|name| (depth(&name), name)).collect();
        (self.minted_at, self.fresh) = (now, 0);
        while let Some((level, name)) = by_depth.pop_last() {
            let directory = self.directories.get_mut(&*name).expect("dirty directories exist");
            directory.is_dirty = false;
            let hash = renew(directory, &mut self.nodes, now);
            if level == 0 {
                self.root = hash;
                continue;
            }
            let (parent, segment) = split(&name);
            let above = self.directories.get_mut(parent).expect("a directory has those above it");
            above.put_directory(segment, hash);
            by_depth.insert((level - 1, parent.into()));
        }
        self.nodes.serve(now);
        self.root
    }

    /// Encodes what has changed, but links no directory's node from above.
    fn renew_dirty(&mut self) {
        for name in &self.dirty {
            let directory = self.directories.get_mut(name).expect("dirty directories exist");
            renew(directory, &mut self.nodes, self.minted_at);
        }
        self.fresh = 0;
    }

    /// A node of the current root or one served of late.
    pub fn node(&self, hash: &Hash) -> Option<Bytes> {
        let (empty, bytes) = &self.empty;
        self.nodes.get(hash).or_else(|| (hash == empty).then(|| bytes.clone()))
    }
}

fn renew(directory: &mut Directory, nodes: &mut Nodes, now: Instant) -> Hash {
    let delta = directory.renew();
    delta.made.into_iter().for_each(|page| nodes.take(page));
    delta.gone.iter().for_each(|page| nodes.release(now, page));
    directory.hash().expect("what has changed has items")
}

/// What became of an insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inserted {
    /// The path had this UID or a greater one already.
    Older,
    /// It is the path's entry now.
    Newest {
        /// The UID of the entry before.
        replaced: Option<Uid>,
    },
}
