//! A directory of the index: the nodes of its last root, and what has changed since.

use super::{
    level::{Changes, Delta, Level},
    page::Page,
};
use crate::protocol::{
    Flags, Hash, IndexEntry, Node, Uid,
    cut::{child_weight, weight_of},
    encoding::Writer,
    node::{self, Item},
};
use std::{collections::BTreeMap, sync::Arc};

/// One directory. Its files are in `fresh` or, if they are not there, in the pages.
#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Levels from the pages up to the one node that stands for the directory; none if no root has it yet.
    levels: Vec<Level>,
    fresh: BTreeMap<Box<str>, Fresh>,
    /// Files in it that are not deleted.
    pub(super) live: usize,
    /// No file in it that is not deleted has a greater UID.
    pub(super) newest: Uid,
    /// It is to be renewed for the next root.
    pub(super) is_dirty: bool,
}

/// What a name has got since the last root.
#[derive(Debug, Default)]
struct Fresh {
    file: Option<IndexEntry>,
    directory: Option<Hash>,
}

impl Directory {
    /// The node that stands for it in the last root.
    pub(super) fn hash(&self) -> Option<Hash> {
        self.levels.last()?.pages.first().map(|page| page.hash)
    }

    /// Whether the last root has the node `hash` here, at `level` and up to the name `last`.
    pub(super) fn has_part(&self, level: u8, last: &str, hash: Hash) -> bool {
        let Some(level) = self.levels.get(usize::from(level)) else { return false };
        level.pages.get(level.place(last)).is_some_and(|page| page.hash == hash && page.last() == last)
    }

    /// The file of this name.
    pub(super) fn file(&self, segment: &str) -> Option<IndexEntry> {
        if let Some(file) = self.fresh.get(segment).and_then(|fresh| fresh.file.as_ref()) {
            return Some(file.clone());
        }
        let (page, at) = self.levels.first()?.find(segment)?;
        page.item(at).file
    }

    /// UID of the file of this name, and its flags.
    pub(super) fn uid(&self, segment: &str) -> Option<(Uid, Flags)> {
        if let Some(file) = self.fresh.get(segment).and_then(|fresh| fresh.file.as_ref()) {
            return Some((file.uid, file.flags));
        }
        let (page, at) = self.levels.first()?.find(segment)?;
        page.glance(at).file
    }

    /// `segment` has this file from now on.
    pub(super) fn put_file(&mut self, segment: &str, file: IndexEntry) {
        match self.fresh.get_mut(segment) {
            Some(fresh) => fresh.file = Some(file),
            None => drop(self.fresh.insert(segment.into(), Fresh { file: Some(file), directory: None })),
        }
    }

    /// `segment` has the directory with this node from now on.
    pub(super) fn put_directory(&mut self, segment: &str, hash: Hash) {
        match self.fresh.get_mut(segment) {
            Some(fresh) => fresh.directory = Some(hash),
            None => drop(self.fresh.insert(segment.into(), Fresh { file: None, directory: Some(hash) })),
        }
    }

    /// Files with names above `after` (all, if that is none), ascending.
    pub(super) fn files<'a>(&'a self, after: Option<&'a str>) -> impl Iterator<Item = (String, IndexEntry)> + 'a {
        use std::ops::Bound::{Excluded, Unbounded};
        let fresh = self.fresh.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded));
        let mut fresh = fresh.filter_map(|(segment, fresh)| Some((segment, fresh.file.clone()?))).peekable();
        let mut old = self.old_files(after).peekable();
        std::iter::from_fn(move || match (old.peek(), fresh.peek()) {
            (Some((segment, _)), Some((newer, _))) if **segment < ***newer => old.next(),
            (_, None) => old.next(),
            (old_one, Some((newer, _))) => {
                if old_one.is_some_and(|(segment, _)| **segment == ***newer) {
                    old.next();
                }
                fresh.next().map(|(segment, file)| (segment.to_string(), file))
            }
        })
    }

    fn old_files<'a>(&'a self, after: Option<&'a str>) -> impl Iterator<Item = (String, IndexEntry)> + 'a {
        let after = after.unwrap_or_default();
        let pages = self.levels.first().into_iter().flat_map(move |level| &level.pages[level.place(after)..]);
        let items = pages.flat_map(move |page| {
            let start = page.place(after).map_or_else(|at| at, |at| at + 1);
            (start..page.len()).map(|at| page.item(at))
        });
        items.filter_map(|Item { segment, file, .. }| Some((segment, file?)))
    }

    /// Carries out what has changed since the last root; gives the nodes that came and went.
    pub(super) fn renew(&mut self) -> Delta {
        let mut all = Delta::default();
        let mut changes = self.fresh_items();
        for number in 0..=Node::LEVEL_MAX {
            let at = usize::from(number);
            if self.levels.len() == at {
                self.levels.push(Level::default());
            }
            let delta = self.levels[at].apply(number, &changes);
            let pages = &self.levels[at].pages;
            let is_new = self.levels.len() == at + 1;
            changes = if is_new { parts(pages.iter()) } else { changed_parts(&delta) };
            let is_top = pages.len() <= 1;
            all.gone.extend(delta.gone);
            all.made.extend(delta.made);
            if is_top {
                let above = self.levels.drain(at + 1..);
                all.gone.extend(above.flat_map(|level| level.pages));
                break;
            }
        }
        all
    }

    /// The items that are new or different, encoded.
    fn fresh_items(&mut self) -> Changes {
        let fresh = std::mem::take(&mut self.fresh);
        let item = |(segment, fresh): (Box<str>, Fresh)| {
            let old = self.levels.first().and_then(|pages| pages.find(&segment));
            let file = fresh.file.or_else(|| old.and_then(|(page, at)| page.item(at).file));
            let directory = fresh.directory.or_else(|| old.and_then(|(page, at)| page.glance(at).directory));
            let content_type_len = file.as_ref().map_or(0, |file| file.content_type.len());
            let weight = weight_of(segment.len(), content_type_len, directory.is_some());
            let mut out = Writer(Vec::with_capacity(weight as usize));
            node::encode_item(&mut out, &segment, file.as_ref(), directory);
            (segment, Some((out.0, weight)))
        };
        fresh.into_iter().map(item).collect()
    }
}

fn parts<'a>(pages: impl Iterator<Item = &'a Arc<Page>>) -> Changes {
    let part = |page: &Arc<Page>| {
        let mut out = Writer(Vec::with_capacity(page.last().len() + 34));
        node::encode_part(&mut out, page.last(), page.hash);
        (page.last().into(), Some((out.0, child_weight(page.last()))))
    };
    pages.map(part).collect()
}

/// What a level's nodes that came and went are to the level above.
fn changed_parts(delta: &Delta) -> Changes {
    let mut changes: Changes = delta.gone.iter().map(|page| (page.last().into(), None)).collect();
    changes.extend(parts(delta.made.iter()));
    changes
}
