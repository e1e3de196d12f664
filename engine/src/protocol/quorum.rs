//! Quorums: sets of storage points of which any two share a member.

use crate::protocol::{SpId, SpSet};

/// More than half of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Majority {
    members: SpSet,
}

impl Majority {
    /// Of these members.
    pub fn of(members: &[SpId]) -> Majority {
        Majority { members: members.iter().copied().collect() }
    }

    /// Whether the members in `set` are a quorum.
    pub fn is_quorum(&self, set: SpSet) -> bool {
        SpSet(set.0 & self.members.0).len() >= self.needed()
    }

    /// The fewest members that are one.
    pub fn needed(&self) -> usize {
        self.members.len() / 2 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_two_quorums_share_a_member() {
        for n in 1..=7u8 {
            let members: Vec<SpId> = (1..=n).map(SpId).collect();
            let majority = Majority::of(&members);
            let quorums: Vec<SpSet> = (0..1u64 << (n + 1)).map(SpSet).filter(|set| majority.is_quorum(*set)).collect();
            assert!(!quorums.is_empty());
            for a in &quorums {
                for b in &quorums {
                    let shared = SpSet(a.0 & b.0);
                    assert!(members.iter().any(|sp| shared.contains(*sp)), "{a:?} and {b:?} of {n}");
                }
            }
        }
    }

    #[test]
    fn strangers_do_not_count() {
        let majority = Majority::of(&[SpId(1), SpId(2), SpId(3)]);
        assert!(!majority.is_quorum([SpId(1), SpId(9), SpId(10)].into_iter().collect()));
        assert!(majority.is_quorum([SpId(1), SpId(3)].into_iter().collect()));
    }
}
