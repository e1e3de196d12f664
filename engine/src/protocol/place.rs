//! Where in an index a node stands, and what whoever was sent there may expect of it.
//!
//! A walk that checks each node against its place ends: levels fall, names stay between the neighbours' and paths are
//! paths, so that no node is deeper than 16 directories of 16 levels. A stack of places is enough for it.

use crate::protocol::{Hash, Node, Path, encoding::DecodeError, node::Item};
use std::sync::Arc;

/// The place of a node: a directory, or a part of one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodePlace {
    directory: Arc<str>,
    part: Option<Part>,
}

/// Names above `after`, up to `last`, in a node of `level`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Part {
    pub(super) level: u8,
    pub(super) after: Option<Arc<str>>,
    pub(super) last: Arc<str>,
}

impl NodePlace {
    /// That of the root.
    pub fn root() -> NodePlace {
        NodePlace { directory: "".into(), part: None }
    }

    /// The directory that the node is, or is a part of; empty for the root.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    pub(super) fn directory_name(&self) -> &Arc<str> {
        &self.directory
    }

    /// Level and last name of the part; none for the node that stands for all of the directory.
    pub fn part(&self) -> Option<(u8, &str)> {
        self.part.as_ref().map(|part| (part.level, &*part.last))
    }

    pub(super) fn bounds(&self) -> Option<&Part> {
        self.part.as_ref()
    }

    /// The path of a name in it.
    pub fn path(&self, segment: &str) -> String {
        let separator = if self.directory.is_empty() { "" } else { "/" };
        format!("{}{separator}{segment}", self.directory)
    }

    /// Whether `node` can stand here.
    pub fn check(&self, node: &Node) -> Result<(), DecodeError> {
        let (first, last) = match node {
            Node::Page(items) => {
                items.iter().try_for_each(|item| self.check_item(item))?;
                let name = |item: Option<&'_ Item>| item.map(|item| item.segment.clone());
                (name(items.first()), name(items.last()))
            }
            Node::Branch { parts, .. } => {
                let name = |at: Option<&crate::protocol::node::Part>| at.map(|part| part.last.clone());
                (name(parts.first()), name(parts.last()))
            }
        };
        let fits = match (&self.part, node) {
            (Some(part), _) => {
                node.level() == part.level
                    && last.as_deref() == Some(&*part.last)
                    && part.after.as_deref() < first.as_deref()
            }
            (None, Node::Page(items)) => !items.is_empty() || self.directory.is_empty(),
            (None, Node::Branch { parts, .. }) => parts.len() > 1,
        };
        if fits { Ok(()) } else { Err(DecodeError::Invalid("place of an index node")) }
    }

    fn check_item(&self, item: &Item) -> Result<(), DecodeError> {
        let depth = self.directory.split('/').count() + 1;
        let len = self.directory.len() + 1 + item.segment.len();
        let is_path = self.directory.is_empty() || (depth <= Path::SEGMENTS_MAX && len <= Path::LEN_MAX);
        if is_path { Ok(()) } else { Err(DecodeError::Invalid("path in an index node")) }
    }

    /// The nodes that `node`, which [stands here](NodePlace::check), names, and their places.
    pub fn children(&self, node: &Node) -> Vec<(NodePlace, Hash)> {
        match node {
            Node::Page(items) => {
                let child = |item: &Item| {
                    Some((NodePlace { directory: self.path(&item.segment).into(), part: None }, item.directory?))
                };
                items.iter().filter_map(child).collect()
            }
            Node::Branch { level, parts } => {
                let mut after = self.part.as_ref().and_then(|part| part.after.clone());
                let child = |part: &crate::protocol::node::Part| {
                    let last: Arc<str> = part.last.as_str().into();
                    let bounds = Part { level: level - 1, after: after.replace(last.clone()), last };
                    (NodePlace { directory: self.directory.clone(), part: Some(bounds) }, part.hash)
                };
                parts.iter().map(child).collect()
            }
        }
    }
}
