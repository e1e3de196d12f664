//! What may go wrong without excusing a broken promise.
//!
//! P1 survives the loss of the disks of any storage points that leaves a quorum, replaced one after another; P7 rests on
//! a clock in each quorum that is not fast. A scenario that goes beyond that proves nothing, so the hunt neither draws nor
//! shrinks to one.
//!
//! A disk counts as lost until its storage point has had [`refill`] time without any fault of a storage point to be filled
//! from the others. What has rotted counts for the whole run: nobody mends what nobody reads.

use crate::{
    faults::FaultKind,
    scenario::{Fault, Scenario, Shift},
};
use acms_engine::protocol::{SpId, SpSet, quorum::Quorum};
use std::time::Duration;

/// A clock that is ahead by no more counts as right: well below the half second of promise P7, to leave room for drift.
pub const SOUND_FAST_US: i64 = 200_000;

/// An empty store is filled in this time and what its contents take on a narrow line, if nothing goes wrong meanwhile.
const REFILL: Duration = Duration::from_secs(15);
/// What a fault has done is over so long after its end.
const AFTERMATH: Duration = Duration::from_secs(2);

/// Storage points that keep their disks (the others include no member of every quorum), and those whose clocks are
/// never fast.
#[derive(Clone, Debug)]
pub(super) struct Spared {
    disks: SpSet,
    clocks: SpSet,
    /// Disks are lost one after another, of whomever, and none rots.
    pub(super) in_turn: bool,
}

impl Spared {
    /// Some that `scenario` may spare, the others as many as possible, in an order that `shuffle` makes.
    pub(super) fn draw(scenario: &Scenario, in_turn: bool, mut shuffle: impl FnMut(&mut [SpId])) -> Spared {
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
            in_turn,
        }
    }

    /// Whether the disk of `host` may be lost, or rot, at any time.
    pub(super) fn may_lose_disk(&self, host: &str) -> bool {
        !self.in_turn && storage_point(host).is_some_and(|sp| !self.disks.contains(sp))
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

/// How long an empty store takes at most to be filled.
pub(super) fn refill(scenario: &Scenario) -> Duration {
    let bytes: u64 = scenario.workload.publications.iter().map(|publication| publication.size.0).sum();
    let seconds = scenario.network.rate.map_or(0, |rate| bytes / rate.0.max(1) + 1);
    REFILL + AFTERMATH + Duration::from_secs(seconds)
}

fn loses_disk(kind: FaultKind) -> bool {
    matches!(kind, FaultKind::DiskLost | FaultKind::StoreReplaced)
}

/// From when to when a fault lasts, with its aftermath.
fn window(scenario: &Scenario, fault: &Fault) -> (Duration, Duration) {
    let lasts = match fault.lasts {
        Some(lasts) => lasts.0,
        None if fault.kind == FaultKind::Restart => Duration::ZERO,
        None => scenario.duration.0,
    };
    (fault.at.0, fault.at.0.saturating_add(lasts).min(scenario.duration.0) + AFTERMATH)
}

/// The storage points whose disks are lost at the same time, at the worst moment, which leave no quorum with those
/// whose disks rot.
fn lost_too_many(scenario: &Scenario, quorum: &Quorum, hosts: &[String]) -> Option<SpSet> {
    let all: SpSet = (1..=scenario.fleet.storage_points).map(SpId).collect();
    let hit = |fault: &Fault| {
        let hit = fault.target.select(hosts).into_iter().filter_map(storage_point);
        hit.map(SpSet::one).fold(SpSet::EMPTY, SpSet::union)
    };
    let is_rot = |fault: &&Fault| fault.kind == FaultKind::DiskRot;
    let rotten = scenario.faults.iter().filter(is_rot).map(hit).fold(SpSet::EMPTY, SpSet::union);
    let named_as_peer = |fault: &Fault| {
        fault.peer.as_ref().is_some_and(|peer| peer.select(hosts).into_iter().any(|host| storage_point(host).is_some()))
    };
    let troubles = scenario.faults.iter().filter(|fault| hit(fault) != SpSet::EMPTY || named_as_peer(fault));
    let troubles: Vec<(Duration, Duration)> = troubles.map(|fault| window(scenario, fault)).collect();
    let refilled = |fault: &Fault| {
        let mut quiet_from = window(scenario, fault).1;
        let needed = refill(scenario);
        let disturbed = |from: Duration| {
            troubles.iter().filter(move |(begin, end)| *begin < from + needed && *end > from).map(|(_, end)| *end).max()
        };
        while let Some(end) = disturbed(quiet_from) {
            quiet_from = end;
        }
        quiet_from + needed
    };
    let losses = scenario.faults.iter().filter(|fault| loses_disk(fault.kind));
    let losses: Vec<(Duration, Duration, SpSet)> =
        losses.map(|fault| (fault.at.0, refilled(fault), hit(fault))).collect();
    let at = |time: Duration| {
        let open = losses.iter().filter(move |(begin, end, _)| *begin <= time && time < *end);
        open.map(|(.., who)| *who).fold(rotten, SpSet::union)
    };
    let moments = losses.iter().map(|(begin, ..)| at(*begin)).chain([rotten]);
    moments.into_iter().find(|lost| !quorum.is_quorum(all.minus(*lost)))
}

/// Why a broken promise would be excused in this scenario; `None` if nothing would excuse it.
pub fn unsound(scenario: &Scenario) -> Option<String> {
    let (quorum, members) = quorum_of(scenario);
    let hosts = scenario.hosts();
    let is_fast = |shift: Shift| shift.0 > SOUND_FAST_US;
    let named = |host: &str| storage_point(host).map_or(SpSet::EMPTY, SpSet::one);
    let mut fast = SpSet::EMPTY;
    for (host, shift) in &scenario.clocks.offsets {
        fast = if is_fast(*shift) { fast.union(named(host)) } else { fast };
    }
    for fault in &scenario.faults {
        let hit = fault.target.select(&hosts).into_iter().map(named).fold(SpSet::EMPTY, SpSet::union);
        match fault.kind {
            FaultKind::ClockJump | FaultKind::ClockSkew if fault.by.is_some_and(is_fast) => fast = fast.union(hit),
            _ => {}
        }
    }
    if scenario.clocks.skew.0.as_micros() > u128::from(SOUND_FAST_US.unsigned_abs()) {
        fast = members.iter().copied().collect();
    }
    if let Some(lost) = lost_too_many(scenario, &quorum, &hosts) {
        let names: Vec<String> = lost.iter().map(|sp| format!("sp{sp}")).collect();
        return Some(format!("disks that are lost at the same time or rot leave no quorum: {}", names.join(", ")));
    }
    if quorum.is_quorum(fast) {
        return Some("all clocks of a quorum are fast".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(faults: &str) -> Scenario {
        let text = format!(
            "name = \"x\"\nbackend = \"simulated\"\nduration = \"60s\"\n[fleet]\nstorage_points = 3\n{}",
            faults.trim_end().lines().map(fault).collect::<String>()
        );
        Scenario::parse("x", &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// `kind target at for`, in seconds.
    fn fault(line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, target, at, lasts] = words[..] else { panic!("{line}") };
        format!("[[faults]]\nkind = \"{kind}\"\ntarget = \"{target}\"\nat = \"{at}s\"\nfor = \"{lasts}s\"\n")
    }

    #[test]
    fn disks_may_be_lost_one_after_another() {
        let is_sound = |faults: &str| unsound(&scenario(faults)).is_none();
        assert!(is_sound("disk-lost sp1 5 2"));
        assert!(!is_sound("disk-lost sp1 5 2\ndisk-lost sp2 20 2"), "not filled again");
        assert!(is_sound("disk-lost sp1 5 2\ndisk-lost sp2 30 2"));
        assert!(is_sound("disk-lost sp1 5 2\ndisk-lost sp1 8 2"), "the same one again");
        assert!(!is_sound("disk-lost sp1 5 2\nkill sp3 15 2\ndisk-lost sp2 30 2"), "no quiet time");
        assert!(is_sound("disk-lost sp1 5 2\nkill receiver1 15 2\ndisk-lost sp2 30 2"), "nothing to do with it");
        assert!(!is_sound("disk-rot sp1 5 1\nstore-replaced sp2 40 2"), "what has rotted stays so");
        assert!(is_sound("disk-rot sp1 5 1\ndisk-lost sp1 40 2"));
    }
}
