//! The nodes of the current root, and for a while those of the roots before it.

use super::page::Page;
use crate::protocol::{Duration, Hash, Instant};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Most bytes of nodes that only earlier roots have.
const EXPIRING_LEN_MAX: usize = 64 << 20;

/// Nodes by their hashes.
#[derive(Debug)]
pub(super) struct Nodes {
    all: BTreeMap<Hash, Served>,
    /// Nodes made since the last root: where they go before the next one, nobody misses them.
    unserved: BTreeSet<Hash>,
    expiring: VecDeque<(Instant, Hash)>,
    /// Bytes of nodes that the current root does not have.
    expiring_len: usize,
    kept: Duration,
}

#[derive(Debug)]
struct Served {
    page: Arc<Page>,
    // Places of the current root with this node: equal directories share it.
    uses: u32,
    expires: Option<Instant>,
}

impl Nodes {
    /// None; nodes are kept for `kept` after the last root with them.
    pub(super) fn new(kept: Duration) -> Nodes {
        Nodes { all: BTreeMap::new(), unserved: BTreeSet::new(), expiring: VecDeque::new(), expiring_len: 0, kept }
    }

    pub(super) fn get(&self, hash: &Hash) -> Option<Bytes> {
        self.all.get(hash).map(|served| served.page.bytes.clone())
    }

    /// The next root has `page` at one place more.
    pub(super) fn take(&mut self, page: Arc<Page>) {
        let hash = page.hash;
        let served = self.all.entry(hash).or_insert_with(|| {
            self.unserved.insert(hash);
            Served { page, uses: 0, expires: None }
        });
        served.uses += 1;
        if served.expires.take().is_some() {
            self.expiring_len -= served.page.bytes.len();
        }
    }

    /// The next root has `page` at one place less.
    pub(super) fn release(&mut self, now: Instant, page: &Page) {
        let served = self.all.get_mut(&page.hash).expect("the current root's nodes are served");
        served.uses -= 1;
        if served.uses == 0 && self.unserved.remove(&page.hash) {
            self.all.remove(&page.hash);
        } else if served.uses == 0 {
            let expires = now.after(self.kept);
            served.expires = Some(expires);
            self.expiring_len += served.page.bytes.len();
            self.expiring.push_back((expires, page.hash));
        }
    }

    /// There is a root with what has been taken so far. Forgets nodes whose time is over, and the oldest where they take too much room: a walk that misses one begins
    /// again.
    pub(super) fn serve(&mut self, now: Instant) {
        self.unserved.clear();
        while let Some(&(at, hash)) = self.expiring.front() {
            if at > now && self.expiring_len <= EXPIRING_LEN_MAX {
                return;
            }
            self.expiring.pop_front();
            // It may have come back since, or have been retired again later.
            if self.all.get(&hash).is_some_and(|served| served.expires == Some(at)) {
                let gone = self.all.remove(&hash);
                self.expiring_len -= gone.map_or(0, |served| served.page.bytes.len());
            }
        }
    }
}
