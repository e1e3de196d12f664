//! What goes wrong: kinds first, so that each run has several; then whom, when and how.

use super::{Dice, Spared, cluster::clock_shift};
use crate::{
    faults::{FaultKind, Role},
    hunt::sound::{refill, unsound},
    scenario::{Bounds, Bytes, Direction, Fault, Fraction, Scenario, Span},
};
use std::time::Duration;

/// A fault that nobody can have is drawn anew so often.
const TRIES: usize = 40;

pub(super) fn draw(scenario: &mut Scenario, bounds: &Bounds, spared: &Spared, dice: &mut Dice) {
    let hosts = scenario.hosts();
    let possible = |kind: FaultKind| hosts.iter().any(|host| may_hit(kind, host, scenario, spared));
    let kinds: Vec<FaultKind> = bounds.fault_kinds.iter().copied().filter(|kind| possible(*kind)).collect();
    let mut first = kinds.clone();
    dice.shuffle(&mut first);
    first.truncate(bounds.fault_kinds_min as usize);
    let count = dice.range(bounds.faults) as usize;
    scenario.faults.clear();
    if spared.in_turn {
        let most = count.saturating_sub(bounds.fault_kinds_min as usize).min(3);
        losses(scenario, bounds, most, dice);
    }
    for number in 0..count - scenario.faults.len() {
        for tries in 0..TRIES {
            let kind = first.get(number).copied().unwrap_or_else(|| *dice.choice(&kinds));
            // There is little room between losses that need time.
            let short = spared.in_turn && tries > TRIES / 2;
            let drawn = fault(scenario, bounds, spared, &hosts, kind, short, dice);
            if scenario.faults.iter().all(|other| !collide(other, &drawn, &hosts)) {
                scenario.faults.push(drawn);
                if !spared.in_turn || unsound(scenario).is_none() {
                    break;
                }
                scenario.faults.pop();
            }
        }
    }
    scenario.faults.sort_by_key(|fault| fault.at);
}

/// Disks that are lost one after another, with time in between for the store that takes a lost one's place.
fn losses(scenario: &mut Scenario, bounds: &Bounds, most: usize, dice: &mut Dice) {
    let can_be: Vec<FaultKind> = [FaultKind::DiskLost, FaultKind::StoreReplaced]
        .into_iter()
        .filter(|kind| bounds.fault_kinds.contains(kind))
        .collect();
    if can_be.is_empty() {
        return;
    }
    let mut at = Duration::from_millis(dice.between(0, 4_000));
    for _ in 0..TRIES {
        let lasts = Duration::from_millis(dice.log_between(100, 3_000));
        // The last ones need no time, but others want some of it.
        let is_late = at + lasts + Duration::from_secs(20) > scenario.duration.0;
        if scenario.faults.len() == most || (is_late && !scenario.faults.is_empty()) {
            break;
        }
        let target = format!("sp{}", dice.between(1, scenario.fleet.storage_points.into()));
        let kind = *dice.choice(&can_be);
        if finds_out(kind, &target, scenario) {
            scenario.faults.push(Fault::new(kind, &*target, Span(at), Some(Span(lasts))));
            match unsound(scenario) {
                // Nobody may lose that disk: it has too many votes.
                Some(_) => drop(scenario.faults.pop()),
                None => at += lasts + refill(scenario) + Duration::from_millis(2_500 + dice.between(0, 2_000)),
            }
        }
    }
}

/// Whether a process whose store was replaced would find out: it reaches only those that it dials.
fn finds_out(kind: FaultKind, host: &str, scenario: &Scenario) -> bool {
    kind != FaultKind::StoreReplaced || host != format!("sp{}", scenario.fleet.storage_points)
}

fn may_hit(kind: FaultKind, host: &str, scenario: &Scenario, spared: &Spared) -> bool {
    let has_it = Role::of(host).is_some_and(|role| kind.may_hit(role));
    let is_loss = matches!(kind, FaultKind::DiskLost | FaultKind::StoreReplaced | FaultKind::DiskRot);
    has_it && finds_out(kind, host, scenario) && (!is_loss || spared.may_lose_disk(host))
}

/// Whether two faults want the same process, or its clock, to be something else at the same time.
fn collide(a: &Fault, b: &Fault, hosts: &[String]) -> bool {
    let both = |is: fn(FaultKind) -> bool| is(a.kind) && is(b.kind);
    if !(both(stops_process) || both(sets_clock) || a.kind == b.kind) {
        return false;
    }
    // A moment between them, so that what the first did can be undone.
    let end = |fault: &Fault| fault.at.0 + fault.lasts.unwrap_or_default().0 + Duration::from_millis(500);
    let apart = end(a) < b.at.0 || end(b) < a.at.0;
    let others = b.target.select(hosts);
    !apart && a.target.select(hosts).iter().any(|host| others.contains(host))
}

fn stops_process(kind: FaultKind) -> bool {
    use FaultKind::*;
    matches!(kind, Kill | Pause | Restart | CrashLoop | DiskFail | DiskLost | StoreReplaced | DiskTorn)
}

fn sets_clock(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::ClockJump | FaultKind::ClockSkew)
}

fn fault(
    scenario: &Scenario,
    bounds: &Bounds,
    spared: &Spared,
    hosts: &[String],
    kind: FaultKind,
    short: bool,
    dice: &mut Dice,
) -> Fault {
    let able: Vec<&String> = hosts.iter().filter(|host| may_hit(kind, host, scenario, spared)).collect();
    let storage_points: Vec<&String> = able.iter().copied().filter(|host| host.starts_with("sp")).collect();
    let among = if storage_points.is_empty() || dice.percent(15) { &able } else { &storage_points };
    let mut targets = vec![(*dice.choice(among)).clone()];
    // Misfortunes like company: power fails for several, a link is cut between groups.
    if among.len() > 1 && !matches!(kind, FaultKind::DiskLost | FaultKind::StoreReplaced) && dice.percent(20) {
        let mut more = among.clone();
        dice.shuffle(&mut more);
        more.truncate(dice.between(2, among.len() as u64) as usize);
        more.sort();
        targets = more.into_iter().cloned().collect();
    }
    let mut lasts = dice.span(bounds.fault_length);
    if kind == FaultKind::DiskFull {
        // It takes a while until the log has used up what room it has.
        lasts = Span(lasts.0.max(Duration::from_secs(3)).min(bounds.fault_length.1.0));
    }
    if short {
        lasts = lasts.min(Span(Duration::from_millis(500)).max(bounds.fault_length.0));
    }
    let at = begin(scenario, lasts, dice);
    let mut fault = Fault::new(kind, targets.clone(), at, Some(lasts));
    if kind == FaultKind::Restart {
        fault.lasts = Some(Span(Duration::ZERO));
    }
    parameters(&mut fault, bounds, spared, &targets, hosts, dice);
    fault
}

/// Half of them just when something is published.
fn begin(scenario: &Scenario, lasts: Span, dice: &mut Dice) -> Span {
    let latest = scenario.duration.0.saturating_sub(lasts.0);
    let publications = &scenario.workload.publications;
    if publications.is_empty() || dice.percent(50) {
        return Span(Duration::from_millis(dice.between(0, latest.as_millis() as u64)));
    }
    let publication = dice.choice(publications).at.0;
    let moment = publication + Duration::from_micros(dice.log_between(1, 200_000));
    Span(moment.min(latest))
}

fn parameters(
    fault: &mut Fault,
    bounds: &Bounds,
    spared: &Spared,
    targets: &[String],
    hosts: &[String],
    dice: &mut Dice,
) {
    use FaultKind::*;
    match fault.kind {
        Partition => {
            fault.peer = Some(peers(targets, hosts, dice).into());
            fault.direction = Some(direction(dice));
        }
        Isolate => fault.direction = Some(direction(dice)),
        Flap => {
            fault.direction = Some(direction(dice));
            (fault.up, fault.down) = (Some(dice.millis(50, 3_000)), Some(dice.millis(50, 5_000)));
        }
        CrashLoop => (fault.up, fault.down) = (Some(dice.millis(200, 3_000)), Some(dice.millis(20, 1_000))),
        Loss => {
            fault.loss = Some(Fraction(dice.between(50_000, 700_000) as u32));
            fault.direction = Some(direction(dice));
        }
        SlowLink => {
            let narrow = dice.percent(60);
            fault.rate = narrow.then(|| Bytes(dice.log_between(8 << 10, 256 << 10)));
            fault.delay = (!narrow || dice.percent(30)).then(|| dice.millis(20, 2_000));
            fault.direction = Some(direction(dice));
        }
        DiskSlow => fault.delay = Some(dice.millis(10, 1_500)),
        DiskRot => fault.count = Some(dice.between(1, 20) as u32),
        ClockSkew | ClockJump => {
            // Far enough to pass the shorter of the drawn `max_drift`.
            let most = 6 * bounds.skew_max.0.as_micros() as u64;
            let shifts = targets.iter().map(|host| clock_shift(host, most, spared, dice));
            fault.by = shifts.min();
        }
        CacheCorrupt | CacheTruncate | CacheStale | CacheRollback => {
            fault.part = Some(Fraction(dice.between(100_000, 1_000_000) as u32));
        }
        _ => {}
    }
}

fn direction(dice: &mut Dice) -> Direction {
    *dice.choice(&[Direction::Both, Direction::Both, Direction::Out, Direction::In])
}

/// Others that are cut off from `targets`: mostly all other storage points or some of them.
fn peers(targets: &[String], hosts: &[String], dice: &mut Dice) -> Vec<String> {
    let mut others: Vec<String> = hosts.iter().filter(|host| !targets.contains(host)).cloned().collect();
    if dice.percent(80) && others.iter().any(|host| host.starts_with("sp")) {
        others.retain(|host| host.starts_with("sp"));
    }
    if others.is_empty() {
        // Everyone is a target: the fault is between them.
        others = targets.to_vec();
    }
    if dice.percent(60) {
        dice.shuffle(&mut others);
        others.truncate(dice.between(1, others.len() as u64) as usize);
        others.sort();
    }
    others
}
