//! From a seed and bounds to an explicit scenario: who, what lies between them, what is published, what goes wrong.
//!
//! Nothing is left to chance afterwards: the scenario lists every publication and every fault, so that it can be
//! written down, shrunk and run again.

mod cluster;
mod dice;
mod faults;
mod publications;

use super::sound::Spared;
use crate::scenario::{BackendName, Bounds, Scenario};
use dice::Dice;
use std::collections::BTreeMap;

/// The scenario that `seed` means within `bounds`; its name says both.
///
/// Valid and sound (`sound.rs`) for every seed.
pub fn draw(name: &str, bounds: &Bounds, seed: u64) -> Scenario {
    let mut cluster = Dice::new(seed, "hunt cluster");
    let mut scenario = Scenario {
        name: format!("{name}-{seed}"),
        description: format!("drawn by the hunt `{name}` from seed {seed}"),
        seed,
        duration: cluster.span(bounds.duration),
        backend: BackendName::Simulated,
        acms: Default::default(),
        fleet: Default::default(),
        network: Default::default(),
        clocks: Default::default(),
        containers: Default::default(),
        disk: Default::default(),
        workload: Default::default(),
        refine: bounds.refine,
        faults: Vec::new(),
        expect: BTreeMap::new(),
        hunt: None,
    };
    cluster::draw(&mut scenario, bounds, &mut cluster);
    // The published way of delivery, for some.
    let mut delivery = Dice::new(seed, "hunt delivery");
    scenario.fleet.poll = delivery.percent(25).then(|| delivery.millis(1_000, 10_000));
    let in_turn = cluster.percent(40);
    let spared = Spared::draw(&scenario, in_turn, |items| cluster.shuffle(items));
    cluster::draw_network(&mut scenario, bounds, &mut Dice::new(seed, "hunt network"));
    cluster::draw_clocks(&mut scenario, bounds, &spared, &mut Dice::new(seed, "hunt clocks"));
    publications::draw(&mut scenario, bounds, &mut Dice::new(seed, "hunt publications"));
    faults::draw(&mut scenario, bounds, &spared, &mut Dice::new(seed, "hunt faults"));
    scenario
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        faults::FaultKind,
        hunt::sound::{SOUND_FAST_US, unsound},
    };
    use std::collections::BTreeSet;

    fn storm() -> Bounds {
        Scenario::load("storm", &[]).unwrap().hunt.unwrap()
    }

    #[test]
    fn a_thousand_seeds_are_valid_and_sound_and_rich_enough() {
        let bounds = storm();
        let mut kinds = BTreeSet::new();
        let mut quorums = BTreeSet::new();
        for seed in 0..1000 {
            let scenario = draw("storm", &bounds, seed);
            scenario.validate().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(unsound(&scenario), None, "seed {seed}");
            assert!(scenario.workload.publications.len() >= 200, "seed {seed}");
            assert!(scenario.duration.0.as_secs() >= 60, "seed {seed}");
            let drawn: BTreeSet<FaultKind> = scenario.faults.iter().map(|fault| fault.kind).collect();
            assert!(drawn.len() >= 3, "seed {seed}: {drawn:?}");
            let ends = scenario.faults.iter().map(|fault| fault.at.0 + fault.lasts.unwrap_or_default().0);
            assert!(ends.max() <= Some(scenario.duration.0), "seed {seed}: all faults stop");
            kinds.extend(drawn);
            quorums.insert(scenario.acms.quorum.to_string().split(':').next().unwrap_or_default().to_owned());
        }
        assert_eq!(kinds.len(), FaultKind::ALL.len(), "every kind is drawn: {kinds:?}");
        assert_eq!(quorums.len(), 4, "{quorums:?}");
    }

    #[test]
    fn disks_are_lost_one_after_another() {
        let bounds = storm();
        let mut several = 0;
        for seed in 0..200 {
            let scenario = draw("storm", &bounds, seed);
            let loses = |kind: FaultKind| matches!(kind, FaultKind::DiskLost | FaultKind::StoreReplaced);
            let losers = scenario.faults.iter().filter(|fault| loses(fault.kind)).map(|fault| fault.target.to_string());
            let losers: BTreeSet<String> = losers.collect();
            several += usize::from(scenario.fleet.storage_points == 3 && losers.len() > 1);
        }
        assert!(several > 10, "of three storage points more than one lost its disk in {several} seeds");
    }

    #[test]
    fn the_seed_decides_all_and_the_text_says_all() {
        let bounds = storm();
        for seed in 0..20 {
            let scenario = draw("storm", &bounds, seed);
            assert_eq!(scenario, draw("storm", &bounds, seed));
            assert_ne!(scenario.workload, draw("storm", &bounds, seed + 1000).workload);
            assert_eq!(Scenario::parse("text", &scenario.to_toml(), &[]).unwrap(), scenario);
        }
    }

    #[test]
    fn publications_collide_come_again_and_hide_each_other() {
        let bounds = storm();
        let (mut hidden, mut retried, mut large, mut deleted, mut known) = (0, 0, 0, 0, 0);
        for seed in 0..50 {
            let list = draw("storm", &bounds, seed).workload.publications;
            assert!(list.is_sorted_by_key(|publication| publication.at));
            let paths: BTreeSet<&str> = list.iter().map(|publication| &*publication.path).collect();
            assert!(paths.len() as u64 <= bounds.paths.1, "{paths:?}");
            let hides = |path: &str| paths.iter().any(|other| other.starts_with(&format!("{path}/")));
            hidden += usize::from(paths.iter().any(|path| hides(path)));
            let keys: BTreeSet<_> = list.iter().filter_map(|publication| publication.key.clone()).collect();
            retried += list.len() - keys.len();
            large += list.iter().filter(|publication| publication.size.0 > 64 << 10).count();
            deleted += list.iter().filter(|publication| publication.deleted).count();
            known += list.iter().filter(|publication| publication.known).count();
        }
        assert!(hidden > 20 && retried > 500 && large > 50 && deleted > 300 && known > 500);
    }

    #[test]
    fn clocks_that_are_fast_spare_a_member_of_every_quorum() {
        for seed in 0..200 {
            let scenario = draw("storm", &storm(), seed);
            let fast = scenario
                .clocks
                .offsets
                .iter()
                .filter(|(host, shift)| host.starts_with("sp") && shift.0 > SOUND_FAST_US);
            assert!(fast.count() < usize::from(scenario.fleet.storage_points));
        }
    }
}
