//! Cluster, quorum system, fleet, network, clocks and disks.

use super::{Dice, Spared};
use crate::{
    network::{Region, Table},
    scenario::{Bounds, Delivery, Network, QuorumFamily, Scenario, Shift},
};
use acms_engine::protocol::{
    QuorumSystem, SpId, SpSet,
    quorum::{Group, Quorum},
};

pub(super) fn draw(scenario: &mut Scenario, bounds: &Bounds, dice: &mut Dice) {
    let fleet = &mut scenario.fleet;
    fleet.storage_points = *dice.choice(&bounds.storage_points);
    fleet.receivers = dice.range(bounds.receivers) as u32;
    fleet.caches = dice.range(bounds.caches) as u32;
    fleet.cache_tiers = if fleet.caches >= 2 && dice.percent(40) { 2 } else { 1 };
    let acms = &mut scenario.acms;
    acms.mode = *dice.choice(&bounds.modes);
    acms.order = *dice.choice(&bounds.orders);
    acms.max_drift = Some(*dice.choice(&bounds.max_drift));
    acms.quorum = quorum_system(*dice.choice(&bounds.quorums), fleet.storage_points, dice);
    scenario.disk.flush = dice.span(bounds.flush);
    scenario.disk.jitter = dice.up_to(crate::scenario::Fraction::ALL);
}

fn quorum_system(family: QuorumFamily, n: u8, dice: &mut Dice) -> QuorumSystem {
    let mut members: Vec<SpId> = (1..=n).map(SpId).collect();
    dice.shuffle(&mut members);
    let system = match family {
        QuorumFamily::Majority => QuorumSystem::Majority,
        QuorumFamily::Weighted => weighted(&members, dice),
        QuorumFamily::Hierarchical => hierarchical(&members, dice),
        QuorumFamily::Sets => sets(&members, dice),
    };
    let mut sorted = members;
    sorted.sort_unstable();
    // Votes may come out so that nothing is a quorum.
    if Quorum::new(&system, &sorted).is_ok() { system } else { QuorumSystem::Majority }
}

fn weighted(members: &[SpId], dice: &mut Dice) -> QuorumSystem {
    let votes = members.iter().map(|sp| (*sp, dice.between(0, 3) as u32)).collect::<std::collections::BTreeMap<_, _>>();
    let total: u32 = votes.values().sum();
    // More than half is enough; some clusters ask for more.
    let needed = dice.percent(30).then(|| total / 2 + 1 + u32::from(total > 4));
    QuorumSystem::Weighted { votes, needed }
}

/// Three groups of odd sizes; of one member each, it is a majority of three.
fn hierarchical(members: &[SpId], dice: &mut Dice) -> QuorumSystem {
    let sizes: &[[usize; 3]] = match members.len() {
        3 => &[[1, 1, 1]],
        5 => &[[3, 1, 1]],
        7 => &[[3, 3, 1], [5, 1, 1]],
        _ => return QuorumSystem::Hierarchical(members.iter().map(|sp| Group::One(*sp)).collect()),
    };
    let mut rest = members;
    let mut groups = Vec::new();
    for size in dice.choice(sizes) {
        let (group, others) = rest.split_at(*size);
        rest = others;
        let mut group: Vec<Group> = group.iter().map(|sp| Group::One(*sp)).collect();
        groups.push(if *size == 1 { group.remove(0) } else { Group::Of(group) });
    }
    QuorumSystem::Hierarchical(groups)
}

/// Of seven, the lines of the Fano plane: any two meet in one point. Else a wheel: the hub with any other, or all
/// others.
fn sets(members: &[SpId], dice: &mut Dice) -> QuorumSystem {
    const LINES: [[usize; 3]; 7] = [[0, 1, 2], [0, 3, 4], [0, 5, 6], [1, 3, 5], [1, 4, 6], [2, 3, 6], [2, 4, 5]];
    if members.len() == 7 && dice.percent(70) {
        let line = |line: &[usize; 3]| line.iter().map(|at| members[*at]).collect();
        return QuorumSystem::Sets(LINES.iter().map(line).collect());
    }
    let (hub, rim) = (members[0], &members[1..]);
    let spokes = rim.iter().map(|sp| SpSet::one(hub).union(SpSet::one(*sp)));
    QuorumSystem::Sets(spokes.chain([rim.iter().copied().collect()]).collect())
}

pub(super) fn draw_network(scenario: &mut Scenario, bounds: &Bounds, dice: &mut Dice) {
    let network = &mut scenario.network;
    network.rtt.clone_from(dice.choice(&bounds.rtt));
    network.delivery = *dice.choice(&bounds.delivery);
    network.jitter = dice.up_to(bounds.jitter_max);
    network.loss = dice.up_to(bounds.loss_max);
    if network.delivery == Delivery::Datagram {
        network.duplicate = dice.up_to(bounds.duplicate_max);
        network.reorder = dice.up_to(bounds.reorder_max);
    }
    network.rate = dice.percent(50).then(|| dice.bytes(bounds.rate));
    if network.rtt == Network::AZURE_50 {
        let table = Table::azure_50();
        let mut regions: Vec<String> = (0..table.len())
            .map(|at| table.name(Region(u16::try_from(at).expect("tables have fewer regions"))).to_owned())
            .collect();
        dice.shuffle(&mut regions);
        let n = usize::from(scenario.fleet.storage_points);
        // Some share a region, so that near quorums and far stragglers occur.
        let distinct = dice.between(1, n as u64) as usize;
        network.sp_regions = regions.iter().take(distinct).cycle().take(n).cloned().collect();
        network.regions = regions.split_off(regions.len() - dice.between(1, 5) as usize);
    }
}

/// Slow clocks anywhere; fast ones only where promise P7 allows them.
pub(super) fn draw_clocks(scenario: &mut Scenario, bounds: &Bounds, spared: &Spared, dice: &mut Dice) {
    scenario.clocks.drift_ppm = dice.between(0, bounds.drift_ppm_max.into()) as u32;
    // Further apart than half of `max_drift` a storage point would never be accepted from.
    let drift_us = scenario.acms.max_drift.map_or(u64::MAX, |span| span.0.as_micros() as u64 / 5);
    let most = drift_us.min(bounds.skew_max.0.as_micros() as u64);
    if dice.percent(30) {
        return;
    }
    for host in scenario.hosts() {
        let shift = clock_shift(&host, most, spared, dice);
        if shift.0 != 0 && dice.percent(60) {
            scenario.clocks.offsets.insert(host, shift);
        }
    }
}

/// How far the clock of `host` may be off.
pub(super) fn clock_shift(host: &str, most_us: u64, spared: &Spared, dice: &mut Dice) -> Shift {
    let off = dice.log_between(1_000, most_us.max(1_000)).cast_signed();
    if spared.may_be_fast(host) && dice.percent(60) { Shift(off) } else { Shift(-off) }
}
