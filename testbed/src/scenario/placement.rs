//! Which region each host stands in.

use super::{Scenario, ScenarioError};
use crate::network::{Placement, Region, Table};

impl Scenario {
    /// The table that the network's round trips come from.
    pub fn table(&self) -> Result<Table, ScenarioError> {
        Table::by_name(&self.network.rtt).map_err(|error| ScenarioError::Invalid(format!("network.rtt: {error}")))
    }

    /// The region of each host of [`hosts`](Scenario::hosts), in that order: those listed, one after the other and
    /// again from the first; without a list, where [`Placement`] puts them.
    pub fn regions(&self, table: &Table) -> Result<Vec<Region>, ScenarioError> {
        let fleet = &self.fleet;
        let (caches, receivers) = (fleet.caches as usize, fleet.receivers as usize);
        let mut placement = Placement::new(table, fleet.storage_points.into(), caches, receivers);
        replace(&mut placement.caches, &named(table, "regions", &self.network.regions)?);
        replace(&mut placement.receivers, &named(table, "regions", &self.network.regions)?);
        replace(&mut placement.storage_points, &named(table, "sp_regions", &self.network.sp_regions)?);
        Ok([placement.storage_points, placement.caches, placement.receivers].concat())
    }
}

fn replace(places: &mut [Region], listed: &[Region]) {
    for (place, region) in places.iter_mut().zip(listed.iter().cycle()) {
        *place = *region;
    }
}

fn named(table: &Table, key: &str, names: &[String]) -> Result<Vec<Region>, ScenarioError> {
    let find = |name: &String| {
        table.region(name).ok_or_else(|| {
            let known = (0..table.len()).filter_map(|at| u16::try_from(at).ok()).map(|at| table.name(Region(at)));
            let nearest = acms_engine::runtime::spelling::nearest(name, known);
            let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest:?}?"));
            ScenarioError::Invalid(format!("network.{key}: no region is called {name:?}{hint}"))
        })
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = \"x\"\nbackend = \"simulated\"\n[fleet]\nreceivers = 8\ncaches = 3\n\
                        [network]\nrtt = \"azure-50\"\n";

    #[test]
    fn hosts_stand_where_they_are_listed() {
        let table = Table::azure_50();
        let names = |text: &str| -> Vec<String> {
            let scenario = Scenario::parse("x", text, &[]).unwrap();
            let regions = scenario.regions(&table).unwrap();
            regions.iter().map(|region| table.name(*region).to_owned()).collect()
        };
        assert_eq!(names(TEXT).len(), 16);
        let listed = names(&format!("{TEXT}regions = [\"uksouth\"]\nsp_regions = [\"eastus\", \"westus2\"]\n"));
        assert_eq!(listed[..5], ["eastus", "westus2", "eastus", "westus2", "eastus"]);
        assert!(listed[5..].iter().all(|region| region == "uksouth"));
    }

    #[test]
    fn unknown_regions_are_refused_with_the_nearest() {
        let error = Scenario::parse("x", &format!("{TEXT}regions = [\"uksoth\"]\n"), &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean \"uksouth\""), "{error}");
    }
}
