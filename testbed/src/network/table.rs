//! Regions and the round trips between them.

use std::collections::BTreeMap;

const REGIONS: &str = include_str!("../../data/rtt/regions.csv");
const MEASURED: &str = include_str!("../../data/rtt/rtt_ms.csv");
const ESTIMATED: &str = include_str!("../../data/rtt/estimated.csv");

/// One way within a region.
const WITHIN_NS: u64 = 500_000;
/// One way between two processes of one machine, both ends' system calls included.
const LOOPBACK_NS: u64 = 30_000;

/// A region of a [`Table`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region(pub u16);

/// No table has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown table of round trips {0:?}: known are `loopback` and `azure-50`")]
pub struct TableError(String);

/// Names of regions, and the delay from each to each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    names: Vec<String>,
    /// `[from * regions + to]`: half of the directed round trip, in nanoseconds.
    one_way_ns: Vec<u64>,
}

impl Table {
    /// The table that scenarios call `name`.
    pub fn by_name(name: &str) -> Result<Table, TableError> {
        match name {
            "loopback" => Ok(Table::loopback()),
            "azure-50" => Ok(Table::azure_50()),
            _ => Err(TableError(name.to_owned())),
        }
    }

    /// One region: all hosts on one machine.
    pub fn loopback() -> Table {
        Table { names: vec!["loopback".to_owned()], one_way_ns: vec![LOOPBACK_NS] }
    }

    /// Measured round trips between 50 cloud regions: `testbed/data/rtt/README.md`.
    ///
    /// Where a direction was not measured it is taken to be as the other one; where neither was, as `estimated.csv`
    /// says.
    pub fn azure_50() -> Table {
        let names: Vec<String> =
            REGIONS.lines().skip(1).filter_map(|line| line.split(',').next()).map(str::to_owned).collect();
        let known = directed_ms();
        let one_way = |from: &str, to: &str| {
            let ms = known.get(&(from, to)).or_else(|| known.get(&(to, from)));
            ms.expect("each pair is measured or estimated") * 1_000_000 / 2
        };
        let mut one_way_ns = Vec::with_capacity(names.len() * names.len());
        for from in &names {
            one_way_ns.extend(names.iter().map(|to| if from == to { WITHIN_NS } else { one_way(from, to) }));
        }
        Table { names, one_way_ns }
    }

    /// How many regions it has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Never: a table has at least one region.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The region of this name.
    pub fn region(&self, name: &str) -> Option<Region> {
        let at = self.names.iter().position(|known| known == name)?;
        u16::try_from(at).ok().map(Region)
    }

    /// Its name.
    pub fn name(&self, region: Region) -> &str {
        &self.names[usize::from(region.0)]
    }

    /// Delay from one region to another (0.5 ms within one), in nanoseconds.
    pub fn one_way_ns(&self, from: Region, to: Region) -> u64 {
        self.one_way_ns[usize::from(from.0) * self.names.len() + usize::from(to.0)]
    }
}

/// What is known of each direction, in milliseconds there and back.
fn directed_ms() -> BTreeMap<(&'static str, &'static str), u64> {
    let mut known = BTreeMap::new();
    for line in ESTIMATED.lines().skip(1) {
        let mut cells = line.split(',');
        if let (Some(a), Some(b), Some(Ok(ms))) = (cells.next(), cells.next(), cells.next().map(str::parse)) {
            known.insert((a, b), ms);
        }
    }
    let mut lines = MEASURED.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').skip(1).collect();
    for line in lines {
        let (from, cells) = line.split_once(',').unwrap_or((line, ""));
        for (to, cell) in columns.iter().zip(cells.split(',')) {
            if let Ok(ms) = cell.parse() {
                known.insert((from, *to), ms);
            }
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(table: &Table, from: &str, to: &str) -> u64 {
        table.one_way_ns(table.region(from).expect("a region"), table.region(to).expect("a region"))
    }

    #[test]
    fn one_way_is_half_of_what_was_measured() {
        let table = Table::azure_50();
        assert_eq!(table.len(), 50);
        assert_eq!(between(&table, "australiacentral", "australiaeast"), 4_000_000);
        assert_eq!(between(&table, "australiacentral", "brazilsouth"), 151_000_000);
        assert_eq!(between(&table, "brazilsouth", "australiaeast"), 149_000_000, "each direction as measured");
        assert_eq!(between(&table, "australiaeast", "brazilsouth"), 149_500_000);
        assert_eq!(between(&table, "uksouth", "uksouth"), 500_000);
        assert_eq!(between(&table, "westindia", "uksouth"), between(&table, "uksouth", "westindia"), "one measured");
        assert_eq!(between(&table, "eastus", "jioindiawest"), 105_000_000, "neither measured");
    }

    #[test]
    fn the_two_directions_of_a_pair_differ_little() {
        let table = Table::azure_50();
        let mut different = 0;
        for a in 0..50 {
            for b in 0..a {
                let (there, back) = (table.one_way_ns(Region(a), Region(b)), table.one_way_ns(Region(b), Region(a)));
                assert!(there.abs_diff(back) <= 3_000_000, "{} {}", table.name(Region(a)), table.name(Region(b)));
                assert!((1_500_000..=171_500_000).contains(&there));
                different += u32::from(there != back);
            }
        }
        assert!(different > 500, "{different}");
    }

    /// The estimates are those of the line that README.md names.
    #[test]
    fn pairs_that_nobody_measured_lie_on_the_line() {
        let place = |name: &str| {
            let line = REGIONS.lines().find(|line| line.split(',').next() == Some(name)).expect("a region");
            let mut degrees = line.split(',').skip(1).map(|cell| cell.parse::<f64>().expect("degrees").to_radians());
            (degrees.next().expect("a latitude"), degrees.next().expect("a longitude"))
        };
        for line in ESTIMATED.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let ((lat_a, lon_a), (lat_b, lon_b)) = (place(cells[0]), place(cells[1]));
            let h = ((lat_b - lat_a) / 2.0).sin().powi(2)
                + lat_a.cos() * lat_b.cos() * ((lon_b - lon_a) / 2.0).sin().powi(2);
            let expected = 25.9 + 0.0143 * 2.0 * 6371.0 * h.sqrt().asin();
            let ms: f64 = cells[2].parse().expect("milliseconds");
            assert!((ms - expected).abs() <= 1.0, "{line}: {expected}");
        }
    }

    #[test]
    fn unknown_tables_are_refused_with_the_known_ones() {
        assert!(Table::by_name("moon").unwrap_err().to_string().contains("azure-50"));
        assert_eq!(Table::by_name("loopback").expect("known").len(), 1);
    }
}
