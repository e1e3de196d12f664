//! One level of a directory: its nodes in order, and how changes cut the few that they touch anew.

use super::page::{Encoded, Page};
use crate::protocol::{
    Hash, Node,
    cut::{self, ROOM, Weighed, rank},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{
        Bound::{self, Excluded, Included, Unbounded},
        Range,
    },
    sync::Arc,
};

/// The nodes of one level, in order.
#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) pages: Vec<Arc<Page>>,
}

/// Encoded items to put in, with their weights, and names to take out; by name.
pub(super) type Changes = BTreeMap<Box<str>, Option<(Vec<u8>, u32)>>;

/// What became of a level's nodes.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) gone: Vec<Arc<Page>>,
    pub(super) made: Vec<Arc<Page>>,
}

/// Which cuts a change may move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    None,
    /// Those within its page.
    Page,
    /// Those within [`ROOM`] on either side.
    Beyond,
}

impl Level {
    /// Where the page is that `segment` belongs into.
    pub(super) fn place(&self, segment: &str) -> usize {
        self.pages.partition_point(|page| page.last() < segment)
    }

    /// The page that has `segment`, and where in it.
    pub(super) fn find(&self, segment: &str) -> Option<(&Page, usize)> {
        let page = self.pages.get(self.place(segment))?;
        page.place(segment).ok().map(|at| (&**page, at))
    }

    /// Carries `changes` out; `number` is the level's.
    pub(super) fn apply(&mut self, number: u8, changes: &Changes) -> Delta {
        let mut delta = Delta::default();
        let len = self.pages.len();
        // From the last to the first, so that the places of those to come stay.
        for (pages, recut) in self.regions(number, changes).into_iter().rev() {
            let is_last = pages.end == len;
            match recut {
                true => self.cut_anew(number, pages, is_last, changes, &mut delta),
                false => self.patch(pages.start, is_last, changes, &mut delta),
            }
        }
        delta
    }

    /// Runs of pages that are made anew, ascending, and whether cuts may move in them.
    fn regions(&self, number: u8, changes: &Changes) -> Vec<(Range<usize>, bool)> {
        let Some(last) = self.pages.len().checked_sub(1) else { return vec![(0..0, true)] };
        let mut touched: BTreeMap<usize, Reach> = BTreeMap::new();
        for (segment, change) in changes {
            let at = self.place(segment).min(last);
            let reach = touched.entry(at).or_insert(Reach::None);
            if *reach < Reach::Beyond {
                let weight = change.as_ref().map(|(_, weight)| *weight);
                *reach = self.reach(number, at, segment, weight).max(*reach);
            }
        }
        let mut regions: Vec<(Range<usize>, bool)> = Vec::new();
        for (&at, &reach) in &touched {
            if regions.last().is_some_and(|(before, _)| before.end > last) {
                break;
            }
            let pages = if reach == Reach::Beyond { self.surroundings(at, &touched) } else { at..at + 1 };
            let recut = reach > Reach::None;
            while let Some((before, _)) = regions.last()
                && before.start >= pages.start
                && before.end <= pages.end
            {
                regions.pop();
            }
            match regions.last_mut() {
                Some((before, _)) if before.end >= pages.end => {}
                Some((before, _)) if before.end > pages.start => before.end = pages.end,
                _ => regions.push((pages, recut)),
            }
        }
        regions
    }

    /// Growth within a page moves no cut outside it as long as the name's rank is above those of the cuts on both its
    /// sides: every neighbourhood that it lies in keeps its ends, and grows.
    fn reach(&self, number: u8, at: usize, segment: &str, weight: Option<u32>) -> Reach {
        let page = &self.pages[at];
        let Some(weight) = weight else { return Reach::Beyond };
        match page.place(segment) {
            Ok(item) => match weight.cmp(&page.item_weight(number, item)) {
                std::cmp::Ordering::Less => Reach::Beyond,
                std::cmp::Ordering::Equal => Reach::None,
                std::cmp::Ordering::Greater => Reach::Page,
            },
            Err(_) => {
                let new = rank(number, segment);
                let before = at.checked_sub(1).map(|before| &self.pages[before]);
                let after = (at + 1 < self.pages.len()).then_some(page);
                let is_above = |page: &Arc<Page>| new > rank(number, page.last());
                let within = before.is_none_or(is_above) && after.is_none_or(is_above);
                if within { Reach::Page } else { Reach::Beyond }
            }
        }
    }

    /// The page at `at` and so many on either side that untouched ones among them weigh more than [`ROOM`]: what lies
    /// beyond does not depend on the change.
    fn surroundings(&self, at: usize, touched: &BTreeMap<usize, Reach>) -> Range<usize> {
        let room = |pages: &mut dyn Iterator<Item = usize>| {
            let (mut weight, mut count) = (0, 0);
            for at in pages {
                weight += if touched.contains_key(&at) { 0 } else { self.pages[at].weight };
                count += 1;
                if weight > ROOM {
                    break;
                }
            }
            count
        };
        at - room(&mut (0..at).rev())..at + 1 + room(&mut (at + 1..self.pages.len()))
    }

    /// Other encodings of the same weight for items that the page at `at` has.
    fn patch(&mut self, at: usize, is_last: bool, changes: &Changes, delta: &mut Delta) {
        let page = &self.pages[at];
        let before = at.checked_sub(1).map(|at| &*self.pages[at]);
        let changes = changes.range::<str, _>(between(before, Some(page).filter(|_| !is_last)));
        let items = changes.filter_map(|(segment, change)| {
            let (bytes, _) = change.as_ref()?;
            Some((page.place(segment).ok()?, &**bytes))
        });
        let new = Arc::new(page.with(&items.collect::<Vec<_>>()));
        if new.hash != page.hash {
            delta.made.push(new.clone());
            delta.gone.push(std::mem::replace(&mut self.pages[at], new));
        }
    }

    fn cut_anew(&mut self, number: u8, pages: Range<usize>, is_last: bool, changes: &Changes, delta: &mut Delta) {
        let before = pages.start.checked_sub(1).map(|at| self.pages[at].clone());
        let old: Vec<Arc<Page>> = self.pages[pages.clone()].to_vec();
        let items = merged(number, &old, before.as_deref(), is_last, changes);
        let is_cut = match number < Node::LEVEL_MAX {
            true => place_cuts(number, &items, before.as_deref(), is_last),
            false => vec![false; items.len()],
        };
        let mut new = Vec::with_capacity(old.len() + 1);
        let mut start = 0;
        for end in 1..=items.len() {
            if is_cut[end - 1] || end == items.len() {
                new.push(Arc::new(Page::new(number, &items[start..end])));
                start = end;
            }
        }
        let hashes = |pages: &[Arc<Page>]| pages.iter().map(|page| page.hash).collect::<BTreeSet<Hash>>();
        let (had, has) = (hashes(&old), hashes(&new));
        delta.gone.extend(old.iter().filter(|page| !has.contains(&page.hash)).cloned());
        delta.made.extend(new.iter().filter(|page| !had.contains(&page.hash)).cloned());
        self.pages.splice(pages, new);
    }
}

/// Names after those of the page `before`, up to the last one of `last`; to the ends where there is no such page.
fn between<'a>(before: Option<&'a Page>, last: Option<&'a Arc<Page>>) -> (Bound<&'a str>, Bound<&'a str>) {
    let start = before.map_or(Unbounded, |page| Excluded(page.last()));
    (start, last.map_or(Unbounded, |page| Included(page.last())))
}

/// The items of `old` with those `changes` that lie among them: after those of the page `before`, and up to the last
/// name of `old` or, if they are the level's last, the end.
fn merged<'a>(
    number: u8,
    old: &'a [Arc<Page>],
    before: Option<&'a Page>,
    is_last: bool,
    changes: &'a Changes,
) -> Vec<Encoded<'a>> {
    let changes = changes.range::<str, _>(between(before, old.last().filter(|_| !is_last)));
    let mut items = Vec::with_capacity(old.iter().map(|page| page.len()).sum::<usize>() + 1);
    let mut kept = old.iter().flat_map(|page| page.items(number)).peekable();
    for (segment, change) in changes {
        while let Some(item) = kept.next_if(|item| item.segment < &**segment) {
            items.push(item);
        }
        kept.next_if(|item| item.segment == &**segment);
        items.extend(change.as_ref().map(|(bytes, weight)| Encoded { segment, bytes, weight: *weight }));
    }
    items.extend(kept);
    items
}

/// Where to cut `items`, which lie between two cuts or at an end of the level. Those cuts stay, and what reaches one has
/// a neighbourhood that is wide enough: it contains the cut's.
fn place_cuts(number: u8, items: &[Encoded<'_>], before: Option<&Page>, is_last: bool) -> Vec<bool> {
    let mut all: Vec<Weighed<'_>> = Vec::with_capacity(items.len() + 1);
    all.extend(before.map(|page| Weighed { rank: rank(number, page.last()), weight: ROOM + 1 }));
    let skipped = all.len();
    all.extend(items.iter().map(|item| Weighed { rank: rank(number, item.segment), weight: item.weight }));
    if let Some(end) = all.last_mut().filter(|_| !is_last) {
        end.weight = ROOM + 1;
    }
    cut::cuts(&all).split_off(skipped)
}
