//! Index merging: how a storage point that missed publications catches up.
//!
//! It walks down the nodes of a peer's index that differ from its own and takes the greater UID of each path, by
//! asking for the publication like any other. Also here: publications known to exist whose manifest is missing.

use crate::mutant::{self, Mutant};
use crate::protocol::{
    Duration, Hash, Instant, Message, Node, NodePlace, SpId, SpSet, StoragePoint, Uid, message::Wanted as What,
};
use std::collections::{BTreeMap, BTreeSet};

/// Publications asked for at once.
const WANTED_WINDOW: usize = 64;
/// Publications wanted at most; beyond, they are learned again from resent vectors and the next merging.
const WANTED_MAX: usize = 100_000;
/// Nodes asked for at once.
const NODES_WINDOW: usize = 16;
/// A publication asked for in vain is asked for again, of another SP.
const PATIENCE: Duration = Duration::from_secs(1);

/// A publication whose manifest is not here.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Bits seen for it.
    pub(super) bits: SpSet,
    /// Some SP knows it agreed.
    pub(super) agreed: bool,
    sources: Vec<SpId>,
    asked: usize,
    next_at: Instant,
}

/// All of them: those that wait for their turn, and those asked for.
#[derive(Debug, Default)]
pub(super) struct WantedSet {
    all: BTreeMap<Uid, Wanted>,
    waiting: BTreeSet<(Instant, Uid)>,
    out: BTreeSet<(Instant, Uid)>,
}

impl WantedSet {
    pub(super) fn remove(&mut self, uid: Uid) -> Option<Wanted> {
        let wanted = self.all.remove(&uid)?;
        self.waiting.remove(&(wanted.next_at, uid));
        self.out.remove(&(wanted.next_at, uid));
        Some(wanted)
    }

    /// A newer store of `sp` voids the bits of its older ones.
    pub(super) fn void_bits(&mut self, sp: SpId) {
        for wanted in self.all.values_mut() {
            wanted.bits = wanted.bits.minus(SpSet::one(sp));
        }
    }

    /// The next one whose time has come, within the window.
    fn next(&mut self, now: Instant) -> Option<Uid> {
        let is_due = |set: &BTreeSet<(Instant, Uid)>| set.first().is_some_and(|(at, _)| *at <= now);
        let from = if is_due(&self.out) {
            &mut self.out
        } else if is_due(&self.waiting) && self.out.len() < WANTED_WINDOW {
            &mut self.waiting
        } else {
            return None;
        };
        from.pop_first().map(|(_, uid)| uid)
    }

    /// When one of them is due.
    fn due_at(&self) -> Option<Instant> {
        let waiting = self.waiting.first().filter(|_| self.out.len() < WANTED_WINDOW);
        [self.out.first(), waiting].into_iter().flatten().map(|(at, _)| *at).min()
    }
}

/// The walk down a peer's index. Its queue is a stack, so that it stays as small as a node is wide and the tree deep.
#[derive(Debug, Default)]
pub(super) struct Merge {
    queue: Vec<(NodePlace, Hash)>,
    out: BTreeMap<Hash, BTreeSet<NodePlace>>,
}

impl StoragePoint {
    // ---- Publications whose manifest is missing -------------------------------------------------------------------

    /// A vector of an unknown publication: its offer may be on its way, so the asking waits a little.
    pub(super) fn note_unknown(&mut self, from: SpId, uid: Uid, bits: SpSet) {
        let at = self.now.instant.after(self.config.limits.resend_min);
        self.want_at(uid, from, false, bits, at);
    }

    /// `uid` is to be fetched from `from` at once.
    pub(super) fn want(&mut self, uid: Uid, from: SpId, agreed: bool) {
        self.want_at(uid, from, agreed, SpSet::EMPTY, self.now.instant);
        self.pump_wanted();
    }

    fn want_at(&mut self, uid: Uid, from: SpId, agreed: bool, bits: SpSet, at: Instant) {
        let set = &mut self.wanted;
        if self.publications.contains_key(&uid) || set.all.len() >= WANTED_MAX {
            return;
        }
        let fresh = Wanted { bits, agreed, sources: Vec::new(), asked: 0, next_at: at };
        let wanted = set.all.entry(uid).or_insert(fresh);
        wanted.bits = wanted.bits.union(bits);
        wanted.agreed |= agreed;
        if !wanted.sources.contains(&from) {
            wanted.sources.push(from);
        }
        if !set.out.contains(&(wanted.next_at, uid)) {
            set.waiting.remove(&(wanted.next_at, uid));
            wanted.next_at = wanted.next_at.min(at);
            set.waiting.insert((wanted.next_at, uid));
        }
    }

    /// Asks for wanted publications, within the window.
    pub(super) fn pump_wanted(&mut self) {
        let now = self.now.instant;
        while let Some(uid) = self.wanted.next(now) {
            let Some(wanted) = self.wanted.all.get_mut(&uid) else { continue };
            let connected = |sp: &SpId| self.peers.get(sp).is_some_and(|peer| peer.connected);
            let len = wanted.sources.len();
            let source = (0..len).map(|i| wanted.sources[(wanted.asked + i) % len]).find(connected);
            wanted.asked += 1;
            wanted.next_at = now.after(PATIENCE);
            let place = (wanted.next_at, uid);
            match source {
                Some(source) => {
                    self.wanted.out.insert(place);
                    self.send(source, Message::PublicationRequest { uid });
                }
                None => {
                    self.wanted.waiting.insert(place);
                }
            }
        }
    }

    pub(super) fn wanted_at(&self) -> Option<Instant> {
        self.wanted.due_at()
    }

    /// `from` does not have the publication either.
    pub(super) fn source_lacks(&mut self, uid: Uid, from: SpId) {
        let Some(wanted) = self.wanted.all.get_mut(&uid) else { return };
        wanted.sources.retain(|sp| *sp != from);
        if wanted.sources.is_empty() {
            self.wanted.remove(uid);
        }
        self.pump_wanted();
    }

    // ---- Walking a peer's index -----------------------------------------------------------------------------------

    /// A peer announces its root: after (re)connection the two are merged at once.
    pub(super) fn take_root(&mut self, from: SpId, root: Hash) {
        let first = self.peers.get(&from).is_some_and(|peer| peer.root.is_none());
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.root = Some(root);
        }
        self.note_roots();
        if first && root != self.index.root() {
            self.start_merge(from, root);
        }
    }

    /// Since when each peer's root differs from the one here.
    pub(super) fn note_roots(&mut self) {
        let root = self.index.root();
        for peer in self.peers.values_mut() {
            if peer.root.is_none_or(|other| other == root) {
                peer.differs_since = None;
            } else {
                peer.differs_since.get_or_insert(self.now.instant);
            }
        }
    }

    pub(super) fn merge_where_due(&mut self) {
        self.note_roots();
        let due = self.now.instant;
        let merge = self.config.limits.merge;
        let is_due = |since: Instant| since.after(merge) <= due;
        let late: Vec<(SpId, Hash)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.connected && peer.differs_since.is_some_and(is_due))
            .filter_map(|(sp, peer)| Some((*sp, peer.root?)))
            .collect();
        for (sp, root) in late {
            if let Some(peer) = self.peers.get_mut(&sp) {
                peer.differs_since = Some(due);
            }
            if !self.merges.contains_key(&sp) {
                self.start_merge(sp, root);
            }
        }
    }

    pub(super) fn merge_at(&self) -> Option<Instant> {
        let since = self.peers.values().filter_map(|peer| peer.differs_since);
        since.min().map(|since| since.after(self.config.limits.merge))
    }

    pub(super) fn start_merge(&mut self, peer: SpId, root: Hash) {
        self.merges.insert(peer, Merge { queue: vec![(NodePlace::root(), root)], out: BTreeMap::new() });
        self.pump_merge(peer);
    }

    fn pump_merge(&mut self, peer: SpId) {
        let Some(merge) = self.merges.get_mut(&peer) else { return };
        let mut requests = Vec::new();
        while merge.out.values().map(BTreeSet::len).sum::<usize>() < NODES_WINDOW
            && let Some((place, hash)) = merge.queue.pop()
        {
            if self.index.has_node(&place, hash) {
                continue;
            }
            let places = merge.out.entry(hash).or_default();
            if places.is_empty() {
                requests.push(Message::NodeRequest { hash });
            }
            places.insert(place);
        }
        let is_done = merge.queue.is_empty() && merge.out.is_empty();
        requests.into_iter().for_each(|request| self.send(peer, request));
        if is_done {
            self.merges.remove(&peer);
            self.merge_is_done(peer);
        }
    }

    pub(super) fn answer_node_request(&mut self, from: SpId, hash: Hash) {
        let message = match self.index.node(&hash) {
            Some(bytes) => Message::Node { bytes },
            None => Message::Missing { what: What::Node(hash) },
        };
        self.send(from, message);
    }

    /// A node of a peer's index: its greater UIDs are wanted, its directories walked where they differ.
    pub(super) fn take_node(&mut self, from: SpId, bytes: &[u8]) {
        let hash = Hash::of(bytes);
        let Some(merge) = self.merges.get_mut(&from) else { return };
        let Some(places) = merge.out.remove(&hash) else { return };
        let node = Node::decode(bytes).ok();
        let Some(node) = node.filter(|node| places.iter().all(|place| place.check(node).is_ok())) else {
            return self.merge_failed(from);
        };
        for place in places {
            self.compare_node(from, &place, &node);
        }
        self.pump_wanted();
        self.pump_merge(from);
    }

    fn compare_node(&mut self, from: SpId, place: &NodePlace, node: &Node) {
        if let Node::Page(items) = node {
            for (segment, file) in items.iter().filter_map(|item| Some((&item.segment, item.file.as_ref()?))) {
                let ours = self.index.lookup(&place.path(segment)).map(|entry| entry.uid);
                let known = self.publications.get(&file.uid).is_some_and(|one| one.agreed);
                let overlooked = file.flags.deleted && mutant::active(Mutant::TombstoneLostInMerge);
                if ours >= Some(file.uid) || overlooked {
                    continue;
                }
                // Also what is known agreed already, but is not in the index: its content is still on its way.
                self.await_merged(from, file.uid);
                match self.publications.contains_key(&file.uid) {
                    true if known => self.fetch_missing(file.uid, from),
                    true => self.take_agreed(from, file.uid, file.uid),
                    false => self.want_at(file.uid, from, true, SpSet::EMPTY, self.now.instant),
                }
            }
        }
        if let Some(merge) = self.merges.get_mut(&from) {
            merge.queue.extend(place.children(node));
        }
    }
}
