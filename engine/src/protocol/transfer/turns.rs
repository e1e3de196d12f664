//! Turns of transfers: some contents are asked for at a time, the others wait in the order in which they came.
//!
//! Invariant: what peers were asked for and have not sent yet is bounded, in bytes and in number, however much is
//! missing here: a link that had to carry all of it at once would be closed for what waits in it. Small contents and
//! large ones stand in lines of their own, so that no small one waits for a large one to end.

use crate::protocol::{Hash, Instant, durable::INLINE_LEN_MAX, message::CHUNK_LEN};
use std::collections::{BTreeMap, BTreeSet};

/// Chunks of one content asked for and not yet staged.
pub(super) const WINDOW: u64 = 4;
/// Bytes asked for at once, of the contents of each line.
const LEN_MAX: u64 = 8 << 20;
/// Contents asked for at once, of each line.
const COUNT_MAX: usize = 512;

/// Where a transfer stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Turn {
    /// Nowhere yet.
    #[default]
    New,
    /// In its line, at this place.
    Waiting { place: u64 },
    /// A source was asked; it is looked after at `due`.
    Asked { due: Instant },
    /// Nobody is asked until `due`, or (`wakes`) until it turns out who else has it.
    Resting { due: Instant, wakes: bool },
}

/// Contents of one kind.
#[derive(Debug, Default)]
struct Line {
    waiting: BTreeMap<u64, (Hash, u64)>,
    asked: usize,
    asked_len: u64,
}

impl Line {
    /// The first one, if there is room for it.
    fn next(&self) -> Option<Hash> {
        let (hash, size) = self.waiting.first_key_value().map(|(_, first)| *first)?;
        let fits = self.asked < COUNT_MAX && self.asked_len + share(size) <= LEN_MAX;
        fits.then_some(hash)
    }
}

/// The turns of all transfers.
#[derive(Debug, Default)]
pub(super) struct Turns {
    small: Line,
    large: Line,
    next_place: u64,
    due: BTreeSet<(Instant, Hash)>,
    resting: usize,
}

impl Turns {
    /// The content whose turn has come: it has to be asked for, rest, or leave.
    pub(super) fn next(&self) -> Option<Hash> {
        self.small.next().or_else(|| self.large.next())
    }

    /// Contents to be looked after now.
    pub(super) fn due(&self, now: Instant) -> Vec<Hash> {
        self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, hash)| *hash).collect()
    }

    /// When one is to be looked after.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How many rest.
    pub(super) fn resting(&self) -> usize {
        self.resting
    }

    /// Moves a content of `size` bytes to the end of its line.
    pub(super) fn wait(&mut self, hash: Hash, size: u64, turn: &mut Turn) {
        self.leave(hash, size, turn);
        let place = self.next_place;
        self.next_place += 1;
        self.line(size).waiting.insert(place, (hash, size));
        *turn = Turn::Waiting { place };
    }

    /// It is asked for.
    pub(super) fn ask(&mut self, hash: Hash, size: u64, turn: &mut Turn, due: Instant) {
        self.leave(hash, size, turn);
        let line = self.line(size);
        (line.asked, line.asked_len) = (line.asked + 1, line.asked_len + share(size));
        self.due.insert((due, hash));
        *turn = Turn::Asked { due };
    }

    /// Nobody is asked for a while.
    pub(super) fn rest(&mut self, hash: Hash, size: u64, turn: &mut Turn, due: Instant, wakes: bool) {
        self.leave(hash, size, turn);
        self.resting += 1;
        self.due.insert((due, hash));
        *turn = Turn::Resting { due, wakes };
    }

    /// It stands nowhere any more.
    pub(super) fn leave(&mut self, hash: Hash, size: u64, turn: &mut Turn) {
        match std::mem::take(turn) {
            Turn::New => {}
            Turn::Waiting { place } => {
                self.line(size).waiting.remove(&place);
            }
            Turn::Asked { due } => {
                self.due.remove(&(due, hash));
                let line = self.line(size);
                (line.asked, line.asked_len) = (line.asked - 1, line.asked_len - share(size));
            }
            Turn::Resting { due, .. } => {
                self.due.remove(&(due, hash));
                self.resting -= 1;
            }
        }
    }

    fn line(&mut self, size: u64) -> &mut Line {
        if size <= INLINE_LEN_MAX { &mut self.small } else { &mut self.large }
    }
}

/// How much of a content of `size` bytes is asked for at once.
fn share(size: u64) -> u64 {
    size.min(WINDOW * u64::from(CHUNK_LEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> Hash {
        Hash::of(&number.to_le_bytes())
    }

    /// Asks for all whose turn has come: how many.
    fn ask_all(turns: &mut Turns, all: &mut BTreeMap<Hash, (u64, Turn)>) -> usize {
        let mut count = 0;
        while let Some(next) = turns.next() {
            let (size, turn) = all.get_mut(&next).expect("one of them");
            turns.ask(next, *size, turn, Instant(1));
            count += 1;
        }
        count
    }

    #[test]
    fn what_is_asked_for_is_bounded_in_bytes_and_in_number() {
        for (size, most) in [(INLINE_LEN_MAX, 128), (100, COUNT_MAX), (100 << 20, 8)] {
            let mut turns = Turns::default();
            let mut all: BTreeMap<Hash, (u64, Turn)> = (0..1_000).map(|i| (hash(i), (size, Turn::New))).collect();
            all.iter_mut().for_each(|(hash, (size, turn))| turns.wait(*hash, *size, turn));
            assert_eq!(ask_all(&mut turns, &mut all), most);
            // Room is made for as many as leave or rest.
            let asked = turns.due(Instant(1));
            for (i, one) in asked.iter().take(4).enumerate() {
                let (size, turn) = all.get_mut(one).expect("one of them");
                match i % 2 {
                    0 => turns.leave(*one, *size, turn),
                    _ => turns.rest(*one, *size, turn, Instant(9), true),
                }
            }
            assert_eq!((turns.resting(), ask_all(&mut turns, &mut all)), (2, 4));
        }
    }

    #[test]
    fn turns_come_in_order_and_large_ones_delay_no_small_one() {
        let mut turns = Turns::default();
        let mut all: BTreeMap<Hash, (u64, Turn)> = BTreeMap::new();
        for i in 0..40 {
            let size = if i < 20 { 100 << 20 } else { 1_000 };
            let (size, turn) = all.entry(hash(i)).or_insert((size, Turn::New));
            turns.wait(hash(i), *size, turn);
        }
        assert_eq!(turns.next(), Some(hash(20)));
        assert_eq!(ask_all(&mut turns, &mut all), 20 + 8);
        assert!((0..8).chain(20..40).all(|i| matches!(all[&hash(i)].1, Turn::Asked { .. })));
    }
}
