//! Where a directory's items are cut into pages: a pure function of the set of entries.
//!
//! Each name has a rank, the hash of its level and name. The neighbourhood of an item is the widest run of items round
//! it in which its rank is the least; where that weighs more than [`ROOM`], there is a cut after the item. (Splitting
//! the directory after the item of least rank, then each part again, until a part weighs no more than `ROOM`, gives
//! the same cuts: they are the top of a treap, Seidel and Aragon 1996.) It follows that
//!
//! - a page weighs at most `ROOM` and its last item, and half of `ROOM` in the mean;
//! - whether there is a cut depends only on the items that lie within `ROOM` on either side of it, so that a change
//!   moves nothing further away, whatever the names are: no cascade, and no second rule for pages that grow too large;
//! - the weight of an item has no part that a new UID, content or size changes, so that only a new name, a name that
//!   becomes a directory, and another media type can move a cut.
//!
//! Ranks differ by level: names chosen so that their ranks rise make small pages, but no deep tree.

use crate::protocol::{Hash, node::Item};

/// What a page weighs at most without its last item. The encoding takes up to a fifth less.
pub const ROOM: u32 = 10 << 10;

/// Where the least lies first: a name's place in the order that cuts go by. Equal numbers go by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Rank<'a>(u64, &'a str);

/// The rank of `segment` at `level` (0: files and directories).
pub fn rank(level: u8, segment: &str) -> Rank<'_> {
    let mut bytes = [0; 256];
    bytes[0] = level;
    let text = segment.as_bytes();
    let hash = match bytes.get_mut(1..=text.len()) {
        Some(room) => {
            room.copy_from_slice(text);
            Hash::of(&bytes[..=text.len()])
        }
        None => Hash::of(&[&[level], text].concat()),
    };
    let first = hash.0.first_chunk().expect("a hash is longer");
    Rank(u64::from_le_bytes(*first), segment)
}

/// What a file or directory weighs: never less than its encoding takes.
pub fn item_weight(item: &Item) -> u32 {
    let content_type_len = item.file.as_ref().map_or(0, |file| file.content_type.len());
    weight_of(item.segment.len(), content_type_len, item.directory.is_some())
}

pub(super) fn weight_of(segment_len: usize, content_type_len: usize, is_directory: bool) -> u32 {
    (64 + segment_len + content_type_len + if is_directory { 32 } else { 0 }) as u32
}

/// What a page weighs in the level above.
pub fn child_weight(segment: &str) -> u32 {
    34 + segment.len() as u32
}

/// An item as the rule sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed<'a> {
    pub(super) rank: Rank<'a>,
    pub(super) weight: u32,
}

/// For each item of a level, or of a part of it whose ends are cuts (they weigh more than [`ROOM`] then): whether there
/// is a cut after it.
pub(super) fn cuts(items: &[Weighed<'_>]) -> Vec<bool> {
    let mut before: Vec<u64> = Vec::with_capacity(items.len() + 1);
    before.push(0);
    before.extend(items.iter().scan(0, |sum, item| {
        *sum += u64::from(item.weight);
        Some(*sum)
    }));
    // Each item waits on the stack, with the start of its neighbourhood, for the first lesser one.
    let mut is_cut = vec![false; items.len()];
    let mut waiting: Vec<(usize, usize)> = Vec::new();
    for end in 0..=items.len() {
        let mut start = end;
        while let Some(&(at, from)) = waiting.last()
            && items.get(end).is_none_or(|item| item.rank < items[at].rank)
        {
            waiting.pop();
            is_cut[at] = before[end] - before[from] > u64::from(ROOM);
            start = from;
        }
        waiting.push((end, start));
    }
    is_cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same cuts by splitting after the least.
    fn split(items: &[Weighed<'_>], is_cut: &mut [bool]) {
        if items.iter().map(|item| item.weight).sum::<u32>() <= ROOM {
            return;
        }
        let least = (0..items.len()).min_by_key(|at| items[*at].rank).expect("nothing weighs nothing");
        is_cut[least] = true;
        split(&items[..least], &mut is_cut[..least]);
        split(&items[least + 1..], &mut is_cut[least + 1..]);
    }

    #[test]
    fn cutting_by_neighbourhood_is_splitting_after_the_least() {
        for count in 0..700 {
            let names: Vec<String> = (0..count).map(|i| format!("{i:04}{}", "x".repeat(i * i % 90))).collect();
            let items: Vec<Weighed<'_>> = names
                .iter()
                .map(|name| Weighed { rank: rank(0, name), weight: weight_of(name.len(), 0, false) })
                .collect();
            let mut expected = vec![false; count];
            split(&items, &mut expected);
            assert_eq!(cuts(&items), expected, "{count}");
        }
    }
}
