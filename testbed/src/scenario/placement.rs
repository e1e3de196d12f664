//! Which region each host is in.

use super::Scenario;
use crate::workload::Random;

impl Scenario {
    /// The region of each host of [`hosts`](Scenario::hosts), in that order, where a table knows the regions `known`:
    /// those listed, else drawn from the seed. Storage points are in different regions as far as there are enough;
    /// caches and receivers are spread evenly, receivers over the same regions as caches in the same order.
    ///
    /// A region that the table does not know is an error that names it.
    pub fn regions(&self, known: &[&str]) -> Result<Vec<String>, String> {
        let network = &self.network;
        let listed = || network.regions.iter().chain(&network.sp_regions);
        if let Some(unknown) = listed().find(|region| !known.contains(&region.as_str())) {
            let nearest = super::parse::nearest(unknown, known.iter().copied());
            let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest:?}?"));
            return Err(format!("network: no region is called {unknown:?}{hint}"));
        }
        let mut pool: Vec<String> = match network.regions.is_empty() {
            true => known.iter().map(|region| (*region).to_owned()).collect(),
            false => network.regions.clone(),
        };
        if pool.is_empty() {
            return Err("network: the table has no regions".to_owned());
        }
        let mut random = Random::new(self.seed, "regions");
        random.shuffle(&mut pool);
        let storage_points = if network.sp_regions.is_empty() { &pool } else { &network.sp_regions };
        let spread = |regions: &[String], count: u32| -> Vec<String> {
            regions.iter().cycle().take(count as usize).cloned().collect()
        };
        let mut regions = spread(storage_points, self.fleet.storage_points.into());
        random.shuffle(&mut pool);
        regions.extend(spread(&pool, self.fleet.caches));
        regions.extend(spread(&pool, self.fleet.receivers));
        Ok(regions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hosts_are_placed_as_listed_or_drawn() {
        let text = "name = \"x\"\nbackend = \"simulated\"\n[fleet]\nreceivers = 8\ncaches = 3\n[network]\nrtt = \"azure-50\"\n";
        let scenario = Scenario::parse("x", text, &[]).unwrap();
        let known = ["a", "b", "c", "d", "e", "f"];
        let regions = scenario.regions(&known).unwrap();
        assert_eq!(regions.len(), scenario.hosts().len());
        assert_eq!(regions[..5].iter().collect::<BTreeSet<_>>().len(), 5, "one to each: {regions:?}");
        assert_eq!(regions[8..].iter().collect::<BTreeSet<_>>().len(), 6, "everywhere: {regions:?}");
        assert_eq!(regions, scenario.regions(&known).unwrap());
        let other = Scenario { seed: 2, ..scenario.clone() };
        assert_ne!(regions, other.regions(&known).unwrap());

        let text = format!("{text}regions = [\"a\", \"b\"]\nsp_regions = [\"c\", \"d\"]\n");
        let listed = Scenario::parse("x", &text, &[]).unwrap().regions(&known).unwrap();
        assert_eq!(listed[..5], ["c", "d", "c", "d", "c"]);
        assert!(listed[5..].iter().all(|region| region == "a" || region == "b"));
        let error = Scenario::parse("x", &text.replace("\"c\"", "\"cc\""), &[]).unwrap().regions(&known).unwrap_err();
        assert!(error.contains("\"cc\""), "{error}");
    }
}
