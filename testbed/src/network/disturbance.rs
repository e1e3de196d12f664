//! What faults do to links: begun under a number, ended by it.

use super::HostId;
use std::collections::{BTreeMap, BTreeSet};

/// What is different on a direction while a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Disturbance {
    /// Nothing passes.
    pub cut: bool,
    /// Packets lost, of a million, where that is more than the link's own loss.
    pub loss_ppm: u32,
    /// When the loss ends by plan, in nanoseconds: what is sent again later meets the link's own loss only.
    pub loss_until_ns: u64,
    /// Added to the delay, in nanoseconds.
    pub delay_ns: u64,
    /// Bytes per second, where that is less than the link's own rate.
    pub rate: Option<u64>,
}

impl Disturbance {
    /// Nothing is different.
    pub const NONE: Disturbance = Disturbance { cut: false, loss_ppm: 0, loss_until_ns: 0, delay_ns: 0, rate: None };
    /// Nothing passes.
    pub const CUT: Disturbance = Disturbance { cut: true, ..Disturbance::NONE };

    /// Both at once.
    #[must_use]
    pub fn and(self, other: Disturbance) -> Disturbance {
        Disturbance {
            cut: self.cut || other.cut,
            loss_ppm: self.loss_ppm.max(other.loss_ppm),
            loss_until_ns: self.loss_until_ns.max(other.loss_until_ns),
            delay_ns: self.delay_ns + other.delay_ns,
            rate: [self.rate, other.rate].into_iter().flatten().min(),
        }
    }
}

/// One end of the directions that a fault concerns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hosts {
    /// Any host.
    All,
    /// These.
    Of(BTreeSet<HostId>),
    /// All but these.
    AllBut(BTreeSet<HostId>),
}

impl Hosts {
    /// One host.
    pub fn one(host: HostId) -> Hosts {
        Hosts::Of(BTreeSet::from([host]))
    }

    fn contains(&self, host: HostId) -> bool {
        match self {
            Hosts::All => true,
            Hosts::Of(hosts) => hosts.contains(&host),
            Hosts::AllBut(hosts) => !hosts.contains(&host),
        }
    }
}

/// All disturbances that last.
#[derive(Clone, Debug, Default)]
pub struct Disturbances {
    active: BTreeMap<u64, Vec<(Hosts, Hosts, Disturbance)>>,
    /// Faults that have met nothing yet.
    harmless: BTreeSet<u64>,
    /// Faults that have just done harm for the first time.
    bitten: Vec<u64>,
}

impl Disturbances {
    /// From now on all directions from `from` to `to` are disturbed, until [`end`](Disturbances::end) of `fault`. One
    /// fault may begin several.
    pub fn begin(&mut self, fault: u64, from: Hosts, to: Hosts, disturbance: Disturbance) {
        self.active.entry(fault).or_default().push((from, to, disturbance));
        self.harmless.insert(fault);
    }

    /// Ends all that `fault` began; false if there was nothing.
    pub fn end(&mut self, fault: u64) -> bool {
        self.harmless.remove(&fault);
        self.active.remove(&fault).is_some()
    }

    /// Faults that have done harm for the first time since the last call.
    pub fn take_bitten(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.bitten)
    }

    /// Something from `from` to `to` met the disturbances that `does_it` names.
    pub(super) fn bite(&mut self, from: HostId, to: HostId, does_it: impl Fn(&Disturbance) -> bool) {
        if self.harmless.is_empty() || from == to {
            return;
        }
        let Disturbances { active, harmless, bitten } = self;
        harmless.retain(|fault| {
            let all = active.get(fault).into_iter().flatten();
            let hit =
                all.filter(|(froms, tos, _)| froms.contains(from) && tos.contains(to)).any(|(.., it)| does_it(it));
            if hit {
                bitten.push(*fault);
            }
            !hit
        });
    }

    /// What is different from `from` to `to` now. A host always reaches itself.
    pub fn of(&self, from: HostId, to: HostId) -> Disturbance {
        if from == to {
            return Disturbance::default();
        }
        let all = self.active.values().flatten().filter(|(froms, tos, _)| froms.contains(from) && tos.contains(to));
        all.fold(Disturbance::default(), |sum, (_, _, disturbance)| sum.and(*disturbance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_overlap_and_each_ends_its_own() {
        let (a, b, c) = (HostId(0), HostId(1), HostId(2));
        let mut all = Disturbances::default();
        let slow = Disturbance { rate: Some(1000), delay_ns: 5, ..Disturbance::default() };
        all.begin(1, Hosts::one(a), Hosts::All, Disturbance::CUT);
        all.begin(2, Hosts::All, Hosts::one(b), slow);
        all.begin(3, Hosts::All, Hosts::All, Disturbance { rate: Some(2000), loss_ppm: 7, ..slow });
        let both = all.of(a, b);
        assert!(both.cut && both.rate == Some(1000) && both.delay_ns == 10 && both.loss_ppm == 7);
        assert!(!all.of(b, a).cut, "one direction only");
        assert_eq!(all.of(c, a).rate, Some(2000));
        assert!(all.end(1) && !all.end(1));
        assert!(!all.of(a, b).cut);
        assert!(all.end(3) && all.end(2));
        assert_eq!(all.of(a, b), Disturbance::default());
    }

    #[test]
    fn an_isolated_host_still_reaches_itself() {
        let (a, b) = (HostId(0), HostId(1));
        let mut all = Disturbances::default();
        all.begin(1, Hosts::one(a), Hosts::All, Disturbance::CUT);
        all.begin(1, Hosts::AllBut(BTreeSet::from([b])), Hosts::one(a), Disturbance::CUT);
        assert!(!all.of(a, a).cut && all.of(a, b).cut && !all.of(b, a).cut && all.of(HostId(2), a).cut);
    }
}
