//! Which region each host stands in, what lies between them, and whom each asks.

use super::{Scenario, ScenarioError};
use crate::{
    network::{Host, HostId, LinkSettings, Network, Placement, Queue, Region, Table},
    trace::Text,
};
use std::collections::BTreeMap;

/// Where there are caches, who is behind asks so many of the nearest.
const NEAREST: usize = 3;

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

    /// The name of each host's region, of each receiver's, too, where several share a process and its place. None if there is no
    /// wide area.
    pub fn region_names(&self) -> BTreeMap<Text, Text> {
        let by_process = if self.backend.is_real() { self.by_process() } else { self.clone() };
        let Ok(table) = self.table() else { return BTreeMap::new() };
        let Ok(regions) = by_process.regions(&table) else { return BTreeMap::new() };
        if table.len() < 2 {
            return BTreeMap::new();
        }
        let names: Vec<Text> = (0..table.len()).map(|at| table.name(Region(at as u16)).into()).collect();
        let name = |region: &Region| Text::clone(&names[region.0 as usize]);
        let others = regions.len() - by_process.fleet.receivers as usize;
        let per_process = if self.backend.is_real() { self.fleet.receivers_per_process.max(1) as usize } else { 1 };
        let place = |(at, host): (usize, String)| {
            let at = if at < others { at } else { others + (at - others) / per_process };
            Some((host.into(), name(regions.get(at)?)))
        };
        self.hosts().into_iter().enumerate().filter_map(place).collect()
    }

    /// The network between the hosts of [`hosts`](Scenario::hosts), in that order, and the publishers beside each storage
    /// point ([`publisher`](Scenario::publisher)).
    pub fn network(&self) -> Result<Network, ScenarioError> {
        let table = self.table()?;
        let places = self.regions(&table)?;
        let hosts = self.hosts().into_iter().zip(places).map(|(name, region)| Host { name: name.into(), region });
        let network = &self.network;
        let settings = LinkSettings {
            jitter_ppm: network.jitter.0,
            loss_ppm: network.loss.0,
            duplicate_ppm: network.duplicate.0,
            reorder_ppm: network.reorder.0,
            rate: network.rate.map(|rate| rate.0),
            queue: Queue::DropTail(network.queue.0),
        };
        let mut network = Network::new(self.seed, table, hosts.collect(), settings);
        for sp in 0..self.fleet.storage_points {
            network.add_host(format!("publisher at sp{}", sp + 1).into(), HostId(sp.into()));
        }
        Ok(network)
    }

    /// The same with one receiver in place of each process of several: what has a place of its own on a real network.
    pub fn by_process(&self) -> Scenario {
        let per_process = self.fleet.receivers_per_process.max(1);
        let mut scenario = self.clone();
        (scenario.fleet.receivers, scenario.fleet.receivers_per_process) =
            (self.fleet.receivers.div_ceil(per_process), 1);
        scenario
    }

    /// The publisher beside a storage point, which is counted from 0.
    pub fn publisher(&self, sp: u8) -> HostId {
        let fleet = &self.fleet;
        HostId(u32::from(fleet.storage_points) + fleet.caches + fleet.receivers + u32::from(sp))
    }

    /// Whom each host of [`hosts`](Scenario::hosts) asks, the nearest first: storage points nobody; caches of the first
    /// tier storage points, of others caches of the tier before; receivers caches of the last, or all storage points.
    pub fn sources(&self, network: &Network) -> Vec<Vec<HostId>> {
        let fleet = &self.fleet;
        let storage_points: Vec<HostId> = (0..u32::from(fleet.storage_points)).map(HostId).collect();
        let mut all = vec![Vec::new(); storage_points.len()];
        let mut tiers = vec![storage_points];
        for number in 1..=fleet.caches {
            let tier = self.cache_tier(number) as usize;
            tiers.resize_with(tiers.len().max(tier + 2), Vec::new);
            let id = HostId(all.len() as u32);
            all.push(nearest(network, id, &tiers[tier], NEAREST));
            tiers[tier + 1].push(id);
        }
        let last = tiers.pop().unwrap_or_default();
        let count = if fleet.caches > 0 { NEAREST } else { last.len() };
        for _ in 0..fleet.receivers {
            all.push(nearest(network, HostId(all.len() as u32), &last, count));
        }
        all
    }
}

/// The `count` hosts among `hosts` that are nearest to `from`.
fn nearest(network: &Network, from: HostId, hosts: &[HostId], count: usize) -> Vec<HostId> {
    let mut hosts = hosts.to_vec();
    hosts.sort_by_key(|host| (network.round_trip_ns(from, *host), *host));
    hosts.truncate(count);
    hosts
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
