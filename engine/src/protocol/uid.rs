//! Names of storage points, of their stores, and of publications.

use std::{fmt, str::FromStr};

/// A storage point of the cluster: 1 to 63.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SpId(pub u8);

impl SpId {
    /// The greatest id, so that a set of SPs fits 64 bits.
    pub const MAX: SpId = SpId(63);
}

impl fmt::Display for SpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A set of storage points: bit i is SP i.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SpSet(pub u64);

impl SpSet {
    /// No SP.
    pub const EMPTY: SpSet = SpSet(0);

    /// The set of one SP.
    pub fn one(sp: SpId) -> SpSet {
        SpSet(1 << (sp.0 & 63))
    }

    /// Whether `sp` is a member.
    pub fn contains(self, sp: SpId) -> bool {
        self.0 & SpSet::one(sp).0 != 0
    }

    /// Members of either.
    #[must_use]
    pub fn union(self, other: SpSet) -> SpSet {
        SpSet(self.0 | other.0)
    }

    /// Members of this set that are not in `other`.
    #[must_use]
    pub fn minus(self, other: SpSet) -> SpSet {
        SpSet(self.0 & !other.0)
    }

    /// Whether all members of `other` are in this set.
    pub fn covers(self, other: SpSet) -> bool {
        other.minus(self) == SpSet::EMPTY
    }

    /// How many members.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The members, ascending.
    pub fn iter(self) -> impl Iterator<Item = SpId> {
        (0..64).filter(move |i| self.0 & (1 << i) != 0).map(SpId)
    }
}

impl FromIterator<SpId> for SpSet {
    fn from_iter<I: IntoIterator<Item = SpId>>(sps: I) -> SpSet {
        sps.into_iter().fold(SpSet::EMPTY, |set, sp| set.union(SpSet::one(sp)))
    }
}

/// The store of an SP: made once, by `acms init` (number 0) or `acms replace` (a greater number). Ordered by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct StoreId {
    /// Greater for each later store of the same SP.
    pub number: u32,
    /// Random; tells apart two stores that claim the same number.
    pub nonce: u64,
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// Name of a publication: (hybrid logical clock, accepting SP, number of its store), totally ordered in that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Uid {
    /// Hybrid logical clock, in microseconds since 1970.
    pub micros: u64,
    /// The accepting SP.
    pub sp: SpId,
    /// Which of its stores it had then.
    pub store: u32,
}

impl Uid {
    /// Below every UID of a publication.
    pub const ZERO: Uid = Uid { micros: 0, sp: SpId(0), store: 0 };
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.micros, self.sp, self.store)
    }
}

/// A text is no UID of the form `<micros>.<sp>.<store>`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UID of the form <micros>.<sp>.<store>: {0:?}")]
pub struct BadUid(pub String);

impl FromStr for Uid {
    type Err = BadUid;

    fn from_str(text: &str) -> Result<Uid, BadUid> {
        let parse = || {
            let mut parts = text.split('.');
            let canonical = |part: &str| !part.starts_with('+') && (part == "0" || !part.starts_with('0'));
            let (micros, sp, store) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() || ![micros, sp, store].iter().all(|part| canonical(part)) {
                return None;
            }
            let uid = Uid { micros: micros.parse().ok()?, sp: SpId(sp.parse().ok()?), store: store.parse().ok()? };
            (uid.sp <= SpId::MAX).then_some(uid)
        };
        parse().ok_or_else(|| BadUid(text.chars().take(80).collect()))
    }
}
