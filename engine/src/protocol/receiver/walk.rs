//! A walk down the index tree of a snapshot, under the subscriptions only and past what is held already.

use crate::protocol::{
    Hash, Node, NodePlace, Prefix,
    api::{ListedEntry, Snapshot},
};
use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

/// Nodes of which a receiver has applied all that is subscribed, or newer: of each place the last one. What was so once
/// stays so, as UIDs only grow.
#[derive(Debug, Default)]
pub(super) struct Complete {
    directories: BTreeMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    top: Hash,
    /// Level and last name -> node.
    parts: BTreeMap<(u8, Arc<str>), Hash>,
}

/// A node that a walk has looked into.
#[derive(Debug)]
pub(super) struct Walked {
    place: NodePlace,
    hash: Hash,
    level: u8,
}

impl Complete {
    pub(super) fn has(&self, place: &NodePlace, hash: Hash) -> bool {
        let Some(known) = self.directories.get(place.directory()) else { return false };
        match place.bounds() {
            None => known.top == hash,
            Some(part) => known.parts.get(&(part.level, part.last.clone())) == Some(&hash),
        }
    }

    /// All below the node is applied. Forgets what it takes the place of.
    pub(super) fn add(&mut self, Walked { place, hash, level }: Walked) {
        let name = place.directory_name().clone();
        let known = self.directories.entry(name).or_insert(Known { top: hash, parts: BTreeMap::new() });
        let Some(part) = place.bounds() else {
            known.top = hash;
            known.parts.retain(|(below, _), _| *below < level);
            return;
        };
        let last = (part.level, part.last.clone());
        let after = match &part.after {
            Some(after) => Excluded((part.level, after.clone())),
            None => Included((part.level, "".into())),
        };
        known.parts.extract_if((after, Excluded(last.clone())), |_, _| true).for_each(drop);
        known.parts.insert(last, hash);
    }

    pub(super) fn clear(&mut self) {
        self.directories.clear();
    }
}

/// One walk. Its queue is a stack, so that it stays as small as a node is wide and the tree deep.
#[derive(Debug)]
pub(super) struct Walk {
    /// Tells its nodes from those of an earlier walk.
    pub(super) number: u64,
    pub(super) snapshot: Snapshot,
    queue: Vec<(NodePlace, Hash)>,
    pub(super) in_flight: usize,
    pub(super) walked: Vec<Walked>,
}

impl Walk {
    pub(super) fn new(number: u64, snapshot: Snapshot, complete: &Complete) -> Walk {
        let mut walk = Walk { number, queue: Vec::new(), in_flight: 0, walked: Vec::new(), snapshot };
        walk.push(NodePlace::root(), walk.snapshot.root, complete);
        walk
    }

    fn push(&mut self, place: NodePlace, node: Hash, complete: &Complete) {
        // The broken variant is to be offered old entries too.
        let skips = !crate::mutant::active(crate::mutant::Mutant::ReceiverGoesBack);
        if !(skips && complete.has(&place, node)) {
            self.queue.push((place, node));
        }
    }

    /// The next node to read.
    pub(super) fn next_node(&mut self) -> Option<(NodePlace, Hash)> {
        let next = self.queue.pop()?;
        self.in_flight += 1;
        Some(next)
    }

    /// Whether all of the tree has been seen.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    /// A node has come, its hash and place checked; gives the files in it that concern `prefixes`.
    pub(super) fn node(
        &mut self,
        place: &NodePlace,
        hash: Hash,
        node: &Node,
        prefixes: &[Prefix],
        complete: &Complete,
    ) -> Vec<ListedEntry> {
        self.in_flight -= 1;
        for (child, hash) in place.children(node) {
            if prefixes.iter().any(|prefix| leads_to(&child, prefix)) {
                self.push(child, hash, complete);
            }
        }
        self.walked.push(Walked { place: place.clone(), hash, level: node.level() });
        let Node::Page(items) = node else { return Vec::new() };
        let files = items.iter().filter_map(|item| {
            let path = place.path(&item.segment).parse().ok()?;
            Some(ListedEntry::new(path, item.file.as_ref()?))
        });
        files.filter(|entry| prefixes.iter().any(|prefix| prefix.concerns(&entry.path))).collect()
    }
}

/// Whether anything at `place` can be under `prefix`, or be a file above it.
fn leads_to(place: &NodePlace, prefix: &Prefix) -> bool {
    let directory = place.directory();
    if prefix.covers(directory) {
        return true;
    }
    let rest = match directory {
        "" => Some(prefix.as_str()),
        _ => prefix.as_str().strip_prefix(directory).and_then(|rest| rest.strip_prefix('/')),
    };
    let next = rest.and_then(|rest| rest.split('/').next());
    next.is_some_and(|next| {
        let within = |after: Option<&str>, last: &str| after.is_none_or(|after| after < next) && next <= last;
        place.bounds().is_none_or(|part| within(part.after.as_deref(), &part.last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::node::{Item, Part};

    fn directory(name: &str) -> NodePlace {
        name.split('/').filter(|segment| !segment.is_empty()).fold(NodePlace::root(), |place, segment| {
            let item = Item { segment: segment.into(), file: None, directory: Some(Hash::default()) };
            place.children(&Node::Page(vec![item])).remove(0).0
        })
    }

    fn parts(name: &str, level: u8, lasts: &[&str]) -> Vec<NodePlace> {
        let parts = lasts.iter().map(|last| Part { last: (*last).into(), hash: Hash::default() });
        let children = directory(name).children(&Node::Branch { level, parts: parts.collect() });
        children.into_iter().map(|(place, _)| place).collect()
    }

    #[test]
    fn only_what_leads_to_a_subscription_is_walked() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        for (name, subscribed, leads) in [
            ("etc", "", true),
            ("etc", "etc", true),
            ("etc", "etc/ssh", true),
            ("etc/ssh", "etc", true),
            ("etc", "etcetera", false),
            ("etc/ss", "etc/ssh", false),
            ("var", "etc", false),
        ] {
            assert_eq!(leads_to(&directory(name), &prefix(subscribed)), leads, "{name} {subscribed}");
        }
        for (name, subscribed, expected) in [
            ("", "", [true, true, true]),
            ("", "etc", [false, true, false]),
            ("", "f/x", [false, true, false]),
            ("", "fa", [false, false, true]),
            ("etc", "etc", [true, true, true]),
            ("etc", "etc/a/b", [true, false, false]),
            ("etc", "etc/z", [false, false, false]),
            ("usr", "etc", [false, false, false]),
        ] {
            let leads: Vec<bool> =
                parts(name, 1, &["b", "f", "t"]).iter().map(|part| leads_to(part, &prefix(subscribed))).collect();
            assert_eq!(leads, expected, "parts of {name:?} for {subscribed:?}");
        }
    }

    #[test]
    fn what_takes_the_place_of_a_node_is_known_instead() {
        let mut complete = Complete::default();
        let hash = |n: u8| Hash([n; 32]);
        complete.add(Walked { place: directory("d"), hash: hash(1), level: 1 });
        for (place, n) in parts("d", 1, &["b", "f", "t"]).into_iter().zip(2..) {
            complete.add(Walked { place, hash: hash(n), level: 0 });
        }
        let [b, t] = parts("d", 1, &["b", "t"]).try_into().expect("two");
        assert!(complete.has(&b, hash(2)) && !complete.has(&b, hash(3)) && complete.has(&t, hash(4)));
        complete.add(Walked { place: t.clone(), hash: hash(9), level: 0 });
        let f = parts("d", 1, &["b", "f", "t"]).remove(1);
        assert!(complete.has(&t, hash(9)) && complete.has(&b, hash(2)) && !complete.has(&f, hash(3)));
        complete.add(Walked { place: directory("d"), hash: hash(7), level: 0 });
        assert!(complete.has(&directory("d"), hash(7)) && !complete.has(&b, hash(2)));
    }
}
