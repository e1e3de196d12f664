//! A walk down the index tree of a snapshot, under the subscriptions only.

use crate::protocol::{
    Hash, Node, Prefix,
    api::{ListedEntry, Snapshot},
};
use std::collections::BTreeMap;

/// Directories that a receiver fully holds, with the node they had.
pub(super) type Complete = BTreeMap<String, Hash>;

/// One walk. Its queue is a stack, so that it stays as small as the tree is deep and wide.
#[derive(Debug)]
pub(super) struct Walk {
    /// Tells its nodes from those of an earlier walk.
    pub(super) number: u64,
    pub(super) snapshot: Snapshot,
    queue: Vec<(String, Hash)>,
    pub(super) in_flight: usize,
    pub(super) walked: Vec<(String, Hash)>,
}

impl Walk {
    pub(super) fn new(number: u64, snapshot: Snapshot, complete: &Complete) -> Walk {
        let mut walk = Walk { number, queue: Vec::new(), in_flight: 0, walked: Vec::new(), snapshot };
        walk.push(String::new(), walk.snapshot.root, complete);
        walk
    }

    fn push(&mut self, directory: String, node: Hash, complete: &Complete) {
        // The broken variant is to be offered old entries too.
        let skips = !crate::mutant::active(crate::mutant::Mutant::ReceiverGoesBack);
        if !(skips && complete.get(&directory) == Some(&node)) {
            self.queue.push((directory, node));
        }
    }

    /// The next node to read.
    pub(super) fn next_node(&mut self) -> Option<(String, Hash)> {
        let next = self.queue.pop()?;
        self.in_flight += 1;
        Some(next)
    }

    /// Whether all of the tree has been seen.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty() && self.in_flight == 0
    }

    /// A node has come, its hash checked; gives the files in it that concern `prefixes`.
    pub(super) fn node(
        &mut self,
        directory: String,
        hash: Hash,
        node: &Node,
        prefixes: &[Prefix],
        complete: &Complete,
    ) -> Vec<ListedEntry> {
        self.in_flight -= 1;
        let mut files = Vec::new();
        for item in &node.items {
            files.extend(ListedEntry::of_item(&directory, item));
            let Some(child) = item.directory else { continue };
            let separator = if directory.is_empty() { "" } else { "/" };
            let name = format!("{directory}{separator}{}", item.segment);
            if prefixes.iter().any(|prefix| leads_to(&name, prefix)) {
                self.push(name, child, complete);
            }
        }
        files.retain(|entry| prefixes.iter().any(|prefix| prefix.concerns(&entry.path)));
        self.walked.push((directory, hash));
        files
    }
}

/// Whether anything under `directory` can be under `prefix`.
fn leads_to(directory: &str, prefix: &Prefix) -> bool {
    let above = prefix.as_str().strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'));
    above || prefix.covers(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_to_a_subscription_is_walked() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        for (directory, subscribed, leads) in [
            ("etc", "", true),
            ("etc", "etc", true),
            ("etc", "etc/ssh", true),
            ("etc/ssh", "etc", true),
            ("etc", "etcetera", false),
            ("etc/ss", "etc/ssh", false),
            ("var", "etc", false),
        ] {
            assert_eq!(leads_to(directory, &prefix(subscribed)), leads, "{directory} {subscribed}");
        }
    }
}
