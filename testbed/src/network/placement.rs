//! Which region each host stands in.

use super::{Region, Table};

/// Where storage points of the 50 regions stand, first ones first: one for each part of the world, so that no quorum of
/// five is near to everyone.
const STORAGE_POINT_REGIONS: [&str; 9] = [
    "eastus",
    "westeurope",
    "southeastasia",
    "westus2",
    "japaneast",
    "brazilsouth",
    "centralindia",
    "australiaeast",
    "southafricanorth",
];

/// The regions of `count` storage points, in the order of their numbers.
pub fn storage_point_regions(table: &Table, count: usize) -> Vec<Region> {
    let named: Vec<Region> = STORAGE_POINT_REGIONS.iter().filter_map(|name| table.region(name)).collect();
    (0..count).map(|at| if named.is_empty() { spread(table, at, count) } else { named[at % named.len()] }).collect()
}

/// Places of all hosts of a fleet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Of the storage points.
    pub storage_points: Vec<Region>,
    /// Of the caches: evenly over all regions.
    pub caches: Vec<Region>,
    /// Of the receivers: one region after another.
    pub receivers: Vec<Region>,
}

impl Placement {
    /// The places of a fleet of these sizes.
    pub fn new(table: &Table, storage_points: usize, caches: usize, receivers: usize) -> Placement {
        Placement {
            storage_points: storage_point_regions(table, storage_points),
            caches: (0..caches).map(|at| spread(table, at, caches)).collect(),
            receivers: (0..receivers).map(|at| region(at % table.len())).collect(),
        }
    }
}

/// The `at`-th of `count` places that divide the table's regions evenly.
fn spread(table: &Table, at: usize, count: usize) -> Region {
    region((2 * at + 1) * table.len() / (2 * count.max(1)) % table.len())
}

fn region(at: usize) -> Region {
    Region(u16::try_from(at).expect("tables have fewer regions"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_fleet_is_spread_over_the_table() {
        let table = Table::azure_50();
        let placement = Placement::new(&table, 5, 10, 500);
        let distinct = |regions: &[Region]| regions.iter().collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(&placement.storage_points), 5);
        assert_eq!(distinct(&placement.caches), 10);
        assert_eq!(distinct(&placement.receivers), 50);
        assert_eq!(table.name(placement.storage_points[0]), "eastus");
        assert_eq!(distinct(&storage_point_regions(&table, 9)), 9);
    }

    #[test]
    fn on_one_machine_all_stand_together() {
        let placement = Placement::new(&Table::loopback(), 3, 2, 10);
        assert!(placement.receivers.iter().chain(&placement.caches).chain(&placement.storage_points).all(|r| r.0 == 0));
    }
}
