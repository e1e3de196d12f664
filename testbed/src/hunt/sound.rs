//! What may go wrong without excusing a broken promise.
//!
//! P1 survives the loss of the disks of any storage points that leaves a quorum; P7 rests on a clock in each quorum that
//! is not fast. A scenario that goes beyond that proves nothing, so the hunt neither draws nor shrinks to one.

use crate::{
    faults::FaultKind,
    scenario::{Scenario, Shift},
};
use acms_engine::protocol::{SpId, SpSet, quorum::Quorum};

/// A clock that is ahead by no more counts as right: well below the half second of promise P7, to leave room for drift.
pub const SOUND_FAST_US: i64 = 200_000;

/// Storage points that keep their disks (the others include no member of every quorum), and those whose clocks are
/// never fast.
#[derive(Clone, Debug)]
pub(super) struct Spared {
    disks: SpSet,
    clocks: SpSet,
}

impl Spared {
    /// Some that `scenario` may spare, the others as many as possible, in an order that `shuffle` makes.
    pub(super) fn draw(scenario: &Scenario, mut shuffle: impl FnMut(&mut [SpId])) -> Spared {
        let (quorum, mut members) = quorum_of(scenario);
        let mut spare = |enough: &dyn Fn(SpSet) -> bool| {
            shuffle(&mut members);
            let mut kept: SpSet = members.iter().copied().collect();
            for sp in &members {
                let without = kept.minus(SpSet::one(*sp));
                if enough(without) {
                    kept = without;
                }
            }
            kept
        };
        let all: SpSet = (1..=scenario.fleet.storage_points).map(SpId).collect();
        Spared {
            disks: spare(&|kept| quorum.is_quorum(kept)),
            clocks: spare(&|kept| !quorum.is_quorum(all.minus(kept))),
        }
    }

    /// Whether the disk of `host` may be lost, or rot.
    pub(super) fn may_lose_disk(&self, host: &str) -> bool {
        storage_point(host).is_some_and(|sp| !self.disks.contains(sp))
    }

    /// Whether the clock of `host` may be fast.
    pub(super) fn may_be_fast(&self, host: &str) -> bool {
        storage_point(host).is_none_or(|sp| !self.clocks.contains(sp))
    }
}

fn storage_point(host: &str) -> Option<SpId> {
    host.strip_prefix("sp").and_then(|number| number.parse().ok()).map(SpId)
}

fn quorum_of(scenario: &Scenario) -> (Quorum, Vec<SpId>) {
    let members: Vec<SpId> = (1..=scenario.fleet.storage_points).map(SpId).collect();
    let quorum = Quorum::new(&scenario.acms.quorum, &members).expect("a valid scenario has a quorum system");
    (quorum, members)
}

/// Why a broken promise would be excused in this scenario; `None` if nothing would excuse it.
pub fn unsound(scenario: &Scenario) -> Option<String> {
    let (quorum, members) = quorum_of(scenario);
    let hosts = scenario.hosts();
    let mut disks = SpSet::EMPTY;
    let is_fast = |shift: Shift| shift.0 > SOUND_FAST_US;
    let named = |host: &str| storage_point(host).map_or(SpSet::EMPTY, SpSet::one);
    let mut fast = SpSet::EMPTY;
    for (host, shift) in &scenario.clocks.offsets {
        fast = if is_fast(*shift) { fast.union(named(host)) } else { fast };
    }
    for fault in &scenario.faults {
        let hit = fault.target.select(&hosts).into_iter().map(named).fold(SpSet::EMPTY, SpSet::union);
        match fault.kind {
            FaultKind::DiskLost | FaultKind::DiskRot => disks = disks.union(hit),
            FaultKind::ClockJump | FaultKind::ClockSkew if fault.by.is_some_and(is_fast) => fast = fast.union(hit),
            _ => {}
        }
    }
    if scenario.clocks.skew.0.as_micros() > u128::from(SOUND_FAST_US.unsigned_abs()) {
        fast = members.iter().copied().collect();
    }
    let all: SpSet = members.into_iter().collect();
    if !quorum.is_quorum(all.minus(disks)) {
        return Some("disks that are lost or rot leave no quorum".to_owned());
    }
    if quorum.is_quorum(fast) {
        return Some("all clocks of a quorum are fast".to_owned());
    }
    None
}
