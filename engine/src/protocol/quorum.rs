//! Quorums: sets of storage points of which any two share a member.
//!
//! Majority; weighted votes (Gifford 1979); hierarchical (Kumar 1991); explicit sets. The text forms are
//! `majority`, `weighted:1=3,2=1,3=1` (or with the votes needed: `weighted:1=3,2=1,3=1/3`),
//! `hierarchical:(1,2,3),(4,5,6),(7,8,9)` (groups may nest) and `sets:1+2,2+3,1+3`.

use crate::protocol::{SpId, SpSet};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Which sets of storage points are quorums, as it is written in configurations.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum QuorumSystem {
    /// More than half of the members.
    #[default]
    Majority,
    /// Members with enough votes together.
    Weighted {
        /// Of each member; a member that is not named has none.
        votes: BTreeMap<SpId, u32>,
        /// Enough; without it, more than half of all votes.
        needed: Option<u32>,
    },
    /// A majority of groups, each by a majority of its members, which may be groups themselves.
    Hierarchical(Vec<Group>),
    /// These sets, and every set that contains one of them.
    Sets(Vec<SpSet>),
}

/// A member of a hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// One storage point.
    One(SpId),
    /// A majority of these.
    Of(Vec<Group>),
}

/// A text that is no quorum system, or one that the members of a cluster cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// Not one of the text forms.
    #[error(
        "not a quorum system: {0:?}; write majority, weighted:1=3,2=1,3=1, hierarchical:(1,2,3),(4,5,6),(7,8,9) or sets:1+2,2+3,1+3"
    )]
    Syntax(String),
    /// It names an SP that is no member, or one twice.
    #[error("storage point {0} is named twice in the quorum system, or is no member of the cluster")]
    Member(SpId),
    /// No set of members is a quorum.
    #[error("no set of storage points is a quorum")]
    Impossible,
    /// Two quorums need not share a member: two halves of the cluster could each accept what the other does not know.
    #[error("storage points {} and {} would be quorums without a common member", text(*.0), text(*.1))]
    Disjoint(SpSet, SpSet),
}

fn text(set: SpSet) -> String {
    set.iter().map(|sp| sp.to_string()).collect::<Vec<_>>().join("+")
}

/// A quorum system applied to the members of a cluster: any two of its quorums intersect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    members: SpSet,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Votes { votes: BTreeMap<SpId, u32>, needed: u64 },
    Groups(Group),
    Sets(Vec<SpSet>),
}

impl Quorum {
    /// `system` for `members`; refused if two quorums need not intersect.
    pub fn new(system: &QuorumSystem, members: &[SpId]) -> Result<Quorum, QuorumError> {
        let all: SpSet = members.iter().copied().collect();
        let rule = match system {
            QuorumSystem::Majority => {
                let votes = members.iter().map(|sp| (*sp, 1)).collect();
                Rule::Votes { votes, needed: members.len() as u64 / 2 + 1 }
            }
            QuorumSystem::Weighted { votes, needed } => {
                let total: u64 = votes.values().map(|votes| u64::from(*votes)).sum();
                Rule::Votes { votes: votes.clone(), needed: needed.map_or(total / 2 + 1, u64::from) }
            }
            QuorumSystem::Hierarchical(groups) => Rule::Groups(Group::Of(groups.clone())),
            QuorumSystem::Sets(sets) => Rule::Sets(sets.clone()),
        };
        let quorum = Quorum { members: all, rule };
        quorum.validate()?;
        Ok(quorum)
    }

    fn validate(&self) -> Result<(), QuorumError> {
        let mut named = SpSet::EMPTY;
        let mut name = |sp: SpId, may_repeat: bool| {
            let is_right = self.members.contains(sp) && (may_repeat || !named.contains(sp));
            named = named.union(SpSet::one(sp));
            if is_right { Ok(()) } else { Err(QuorumError::Member(sp)) }
        };
        match &self.rule {
            Rule::Votes { votes, needed } => {
                votes.keys().try_for_each(|sp| name(*sp, false))?;
                if *needed == 0 {
                    return Err(QuorumError::Disjoint(SpSet::EMPTY, SpSet::EMPTY));
                }
                self.halves(votes, *needed)?;
            }
            Rule::Groups(group) => {
                group.visit(&mut |sp| name(sp, false))?;
                if group.has_empty() {
                    return Err(QuorumError::Impossible);
                }
            }
            Rule::Sets(sets) => {
                sets.iter().flat_map(|set| set.iter()).try_for_each(|sp| name(sp, true))?;
                for (i, a) in sets.iter().enumerate() {
                    if let Some(b) = sets[i..].iter().find(|b| a.0 & b.0 == 0) {
                        return Err(QuorumError::Disjoint(*a, *b));
                    }
                }
            }
        }
        if self.is_quorum(self.members) { Ok(()) } else { Err(QuorumError::Impossible) }
    }

    /// Whether two disjoint sets could both have enough votes: some set has at least `needed`, and so has what it leaves.
    fn halves(&self, votes: &BTreeMap<SpId, u32>, needed: u64) -> Result<(), QuorumError> {
        let total: u64 = votes.values().map(|votes| u64::from(*votes)).sum();
        if total < 2 * needed {
            return Ok(());
        }
        // The least sum of votes that is enough, and a set that has it: what it leaves is the most that can be left.
        let mut reachable = BTreeMap::from([(0u64, SpSet::EMPTY)]);
        for (sp, more) in votes {
            let longer = reachable.iter().map(|(sum, set)| (sum + u64::from(*more), set.union(SpSet::one(*sp))));
            let longer: Vec<_> = longer.filter(|(sum, _)| *sum <= total).collect();
            for (sum, set) in longer {
                reachable.entry(sum).or_insert(set);
            }
        }
        match reachable.range(needed..).next() {
            Some((least, set)) if total - least >= needed => Err(QuorumError::Disjoint(*set, self.members.minus(*set))),
            _ => Ok(()),
        }
    }

    /// Whether the members in `set` are a quorum.
    pub fn is_quorum(&self, set: SpSet) -> bool {
        let set = SpSet(set.0 & self.members.0);
        match &self.rule {
            Rule::Votes { votes, needed } => {
                set.iter().map(|sp| u64::from(votes.get(&sp).copied().unwrap_or(0))).sum::<u64>() >= *needed
            }
            Rule::Groups(group) => group.has_majority(set),
            Rule::Sets(sets) => sets.iter().any(|quorum| set.covers(*quorum)),
        }
    }

    /// The fewest members that can be one.
    pub fn fewest(&self) -> usize {
        match &self.rule {
            Rule::Votes { votes, needed } => {
                let mut votes: Vec<u64> = votes.values().map(|votes| u64::from(*votes)).collect();
                votes.sort_unstable_by(|a, b| b.cmp(a));
                let sums = votes.iter().scan(0, |sum, votes| {
                    *sum += votes;
                    Some(*sum)
                });
                sums.take_while(|sum| sum < needed).count() + 1
            }
            Rule::Groups(group) => group.fewest(),
            Rule::Sets(sets) => sets.iter().map(|set| set.len()).min().unwrap_or(0),
        }
    }
}

impl Group {
    fn has_majority(&self, set: SpSet) -> bool {
        match self {
            Group::One(sp) => set.contains(*sp),
            Group::Of(groups) => groups.iter().filter(|group| group.has_majority(set)).count() > groups.len() / 2,
        }
    }

    fn fewest(&self) -> usize {
        match self {
            Group::One(_) => 1,
            Group::Of(groups) => {
                let mut sizes: Vec<usize> = groups.iter().map(Group::fewest).collect();
                sizes.sort_unstable();
                sizes.iter().take(groups.len() / 2 + 1).sum()
            }
        }
    }

    fn has_empty(&self) -> bool {
        match self {
            Group::One(_) => false,
            Group::Of(groups) => groups.is_empty() || groups.iter().any(Group::has_empty),
        }
    }

    fn visit<E>(&self, see: &mut impl FnMut(SpId) -> Result<(), E>) -> Result<(), E> {
        match self {
            Group::One(sp) => see(*sp),
            Group::Of(groups) => groups.iter().try_for_each(|group| group.visit(see)),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Group::One(sp) => write!(f, "{sp}"),
            Group::Of(groups) => write!(f, "({})", list(groups)),
        }
    }
}

fn list(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for QuorumSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuorumSystem::Majority => f.write_str("majority"),
            QuorumSystem::Weighted { votes, needed } => {
                let votes: Vec<String> = votes.iter().map(|(sp, votes)| format!("{sp}={votes}")).collect();
                write!(f, "weighted:{}", votes.join(","))?;
                needed.map_or(Ok(()), |needed| write!(f, "/{needed}"))
            }
            QuorumSystem::Hierarchical(groups) => write!(f, "hierarchical:{}", list(groups)),
            QuorumSystem::Sets(sets) => {
                let sets: Vec<String> = sets.iter().map(|set| text(*set)).collect();
                write!(f, "sets:{}", sets.join(","))
            }
        }
    }
}

impl FromStr for QuorumSystem {
    type Err = QuorumError;

    fn from_str(text: &str) -> Result<QuorumSystem, QuorumError> {
        let parse = || match text.split_once(':') {
            None => (text == "majority").then_some(QuorumSystem::Majority),
            Some(("weighted", rest)) => weighted(rest),
            Some(("hierarchical", rest)) => {
                let mut left = rest;
                let groups = groups(&mut left)?;
                left.is_empty().then_some(QuorumSystem::Hierarchical(groups))
            }
            Some(("sets", rest)) => {
                let set = |text: &str| text.split('+').map(sp).collect::<Option<SpSet>>();
                rest.split(',').map(set).collect::<Option<_>>().map(QuorumSystem::Sets)
            }
            Some(_) => None,
        };
        parse().ok_or_else(|| QuorumError::Syntax(text.chars().take(200).collect()))
    }
}

fn sp(text: &str) -> Option<SpId> {
    let sp = SpId(text.trim().parse().ok()?);
    (SpId(1)..=SpId::MAX).contains(&sp).then_some(sp)
}

fn weighted(text: &str) -> Option<QuorumSystem> {
    let (list, needed) = match text.split_once('/') {
        Some((list, needed)) => (list, Some(needed.trim().parse().ok()?)),
        None => (text, None),
    };
    let mut votes = BTreeMap::new();
    for item in list.split(',') {
        let (member, weight) = item.split_once('=')?;
        // Few enough that sums stay small: intersection is verified over all of them.
        let weight = weight.trim().parse().ok().filter(|weight| *weight <= 1_000)?;
        if votes.insert(sp(member)?, weight).is_some() {
            return None;
        }
    }
    Some(QuorumSystem::Weighted { votes, needed })
}

/// `1,(2,3),4` up to a closing parenthesis or the end.
fn groups(left: &mut &str) -> Option<Vec<Group>> {
    let mut found = Vec::new();
    loop {
        *left = left.trim_start();
        if let Some(rest) = left.strip_prefix('(') {
            *left = rest;
            found.push(Group::Of(groups(left)?));
            *left = left.strip_prefix(')')?;
        } else {
            let end = left.find([',', ')', '(']).unwrap_or(left.len());
            found.push(Group::One(sp(&left[..end])?));
            *left = &left[end..];
        }
        match left.strip_prefix(',') {
            Some(rest) => *left = rest,
            None => return Some(found),
        }
    }
}

impl serde::Serialize for QuorumSystem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for QuorumSystem {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<QuorumSystem, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quorum(text: &str, n: u8) -> Result<Quorum, QuorumError> {
        let system: QuorumSystem = text.parse()?;
        assert_eq!(system.to_string().parse::<QuorumSystem>().as_ref(), Ok(&system), "{text}");
        Quorum::new(&system, &(1..=n).map(SpId).collect::<Vec<_>>())
    }

    fn of(members: &[u8]) -> SpSet {
        members.iter().map(|sp| SpId(*sp)).collect()
    }

    const GOOD: [(&str, u8); 10] = [
        ("majority", 1),
        ("majority", 4),
        ("majority", 7),
        ("weighted:1=3,2=1,3=1", 3),
        ("weighted:1=2,2=2,3=1,4=1/4", 5),
        ("weighted:1=3,2=3/3", 1 + 1),
        ("hierarchical:(1,2,3),(4,5,6),(7,8,9)", 9),
        ("hierarchical:1,(2,3,4),(5,(6,7,8),9)", 9),
        ("sets:1+2,2+3,1+3", 3),
        ("sets:1+2,1+3+4,2+3+4", 5),
    ];

    #[test]
    fn any_two_quorums_share_a_member() {
        for (text, n) in GOOD {
            let Ok(quorum) = quorum(text, n) else {
                assert_eq!(text, "weighted:1=3,2=3/3", "{text} is refused");
                continue;
            };
            let quorums: Vec<SpSet> = (0..1u64 << (n + 1)).map(SpSet).filter(|set| quorum.is_quorum(*set)).collect();
            assert!(quorums.iter().all(|a| quorums.iter().all(|b| a.0 & b.0 & !1 != 0)), "{text}");
            assert_eq!(quorums.iter().map(|set| SpSet(set.0 & !1).len()).min(), Some(quorum.fewest()), "{text}");
        }
    }

    #[test]
    fn strangers_do_not_count() {
        let quorum = quorum("majority", 3).unwrap();
        assert!(!quorum.is_quorum(of(&[1, 9, 10])));
        assert!(quorum.is_quorum(of(&[1, 3])));
    }

    #[test]
    fn votes_and_groups_count_as_they_say() {
        let votes = quorum("weighted:1=3,2=1,3=1", 3).unwrap();
        assert!(votes.is_quorum(of(&[1])) && !votes.is_quorum(of(&[2, 3])));
        let groups = quorum("hierarchical:(1,2,3),(4,5,6),(7,8,9)", 9).unwrap();
        assert!(groups.is_quorum(of(&[1, 2, 4, 5])) && !groups.is_quorum(of(&[1, 2, 3, 4, 7])));
    }

    #[test]
    fn what_is_no_quorum_system_is_refused_with_the_reason() {
        use QuorumError::*;
        for (text, n, want) in [
            ("majorty", 3, Syntax("majorty".into())),
            ("weighted:1=x", 3, Syntax("weighted:1=x".into())),
            ("hierarchical:(1,2", 3, Syntax("hierarchical:(1,2".into())),
            ("hierarchical:()", 3, Syntax("hierarchical:()".into())),
            ("sets:", 3, Syntax("sets:".into())),
            ("weighted:1=1,4=1", 3, Member(SpId(4))),
            ("hierarchical:1,(1,2,3)", 3, Member(SpId(1))),
            ("weighted:1=1,2=1,3=1/9", 3, Impossible),
            ("weighted:1=2,2=1,3=1/2", 3, Disjoint(of(&[1]), of(&[2, 3]))),
            ("sets:1+2,3", 3, Disjoint(of(&[1, 2]), of(&[3]))),
        ] {
            assert_eq!(quorum(text, n).unwrap_err(), want, "{text}");
        }
    }
}
