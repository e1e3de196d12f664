//! Whether a scenario makes sense, and whether its backend can run it.

mod bounds;
mod faults;
mod refine;
mod workload;

use super::{BackendName, Network, Scenario, ScenarioError, parse::did_you_mean};
use crate::metrics::expectation_names;
use acms_engine::protocol::{Prefix, SpId, quorum::Quorum};
use std::time::Duration;

/// One machine has no room for more processes.
const RECEIVERS_LOCAL_MAX: u32 = 2_000;
/// What a container needs to begin.
const MEMORY_MIN: u64 = 16 << 20;
const RECEIVERS_MAX: u32 = 200_000;
const CACHES_MAX: u32 = 10_000;
/// What `acms receive` takes, too.
const POLL_MIN: Duration = Duration::from_millis(100);

/// What is wrong, and with which key: `faults.0.target`.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) key: String,
    pub(super) error: ScenarioError,
}

type Checked = Result<(), Refusal>;

fn refuse<T>(key: impl Into<String>, what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { key: key.into(), error: ScenarioError::Invalid(what.into()) })
}

/// Refuses `key` if `wrong`.
fn check(wrong: bool, key: &str, what: impl FnOnce() -> String) -> Checked {
    if wrong { refuse(key, format!("{key} {}", what())) } else { Ok(()) }
}

pub(super) fn validate(scenario: &Scenario) -> Checked {
    backend(scenario)?;
    system(scenario)?;
    fleet(scenario)?;
    network(scenario)?;
    clocks(scenario)?;
    containers(scenario)?;
    workload::workload(scenario)?;
    workload::publications(scenario)?;
    faults::faults(scenario)?;
    expectations(scenario)?;
    bounds::bounds(scenario)?;
    refine::refine(scenario)
}

/// What the backend cannot do is refused before anything is started.
fn backend(scenario: &Scenario) -> Checked {
    if !scenario.backend.is_real() {
        return Ok(());
    }
    let is_datagram = scenario.network.delivery == super::Delivery::Datagram;
    let fault = scenario.faults.iter().enumerate().find(|(_, fault)| !fault.kind.is_real());
    let cannot = [
        is_datagram.then(|| ("network.delivery".into(), "frames that are lost one by one (network.delivery)".into())),
        (scenario.disk != super::Disk::default()).then(|| ("disk".into(), "disks of a chosen speed ([disk])".into())),
        scenario.refine.then(|| ("refine".into(), "a comparison with the specification (refine)".into())),
        fault.map(|(i, fault)| (format!("faults.{i}.kind"), format!("the fault `{}` (fault {})", fault.kind, i + 1))),
    ];
    match cannot.into_iter().flatten().next() {
        Some((key, what)) => Err(Refusal { key, error: ScenarioError::NotReal(what) }),
        None => Ok(()),
    }
}

/// Why there cannot be so many storage points.
fn wrong_number(n: u8) -> Option<String> {
    (n == 0 || n > 63 || n.is_multiple_of(2)).then(|| format!("must be odd and at most 63, not {n}"))
}

fn system(scenario: &Scenario) -> Checked {
    let n = scenario.fleet.storage_points;
    if let Some(problem) = wrong_number(n) {
        return refuse("fleet.storage_points", format!("fleet.storage_points {problem}"));
    }
    let members: Vec<SpId> = (1..=n).map(SpId).collect();
    match Quorum::new(&scenario.acms.quorum, &members) {
        Ok(_) => Ok(()),
        Err(error) => refuse("acms.quorum", format!("acms.quorum: {error}")),
    }
}

fn fleet(scenario: &Scenario) -> Checked {
    let fleet = &scenario.fleet;
    let processes = fleet.receivers.div_ceil(fleet.receivers_per_process.max(1));
    check(scenario.backend.is_real() && processes > RECEIVERS_LOCAL_MAX, "fleet.receivers", || {
        format!(
            "= {}: {processes} processes are too many for one machine ({RECEIVERS_LOCAL_MAX}); put more into each with \
             fleet.receivers_per_process",
            fleet.receivers
        )
    })?;
    check(fleet.receivers > RECEIVERS_MAX, "fleet.receivers", || format!("must be at most {RECEIVERS_MAX}"))?;
    check(fleet.caches > CACHES_MAX, "fleet.caches", || format!("must be at most {CACHES_MAX}"))?;
    check(fleet.receivers_per_process == 0, "fleet.receivers_per_process", || "must be at least 1".into())?;
    let tiers_max = fleet.caches.max(1);
    check(fleet.cache_tiers == 0 || fleet.cache_tiers > tiers_max, "fleet.cache_tiers", || {
        format!("must be from 1 to the number of caches, {}", fleet.caches)
    })?;
    let is_hasty = fleet.poll.is_some_and(|poll| poll.0 < POLL_MIN);
    check(is_hasty, "fleet.poll", || format!("must be at least {POLL_MIN:?}"))?;
    for (i, prefix) in fleet.subscribe.iter().enumerate() {
        if let Err(error) = prefix.parse::<Prefix>() {
            return refuse(format!("fleet.subscribe.{i}"), format!("fleet.subscribe: {prefix:?}: {error}"));
        }
    }
    Ok(())
}

/// Why there is no such table of round trips.
fn wrong_table(rtt: &str) -> Option<String> {
    let tables = [Network::LOOPBACK, Network::AZURE_50];
    let hint = did_you_mean(rtt, tables.into_iter());
    (!tables.contains(&rtt)).then(|| format!("is \"loopback\" or \"azure-50\", not {rtt:?}{hint}"))
}

fn network(scenario: &Scenario) -> Checked {
    let (network, plain) = (&scenario.network, Network::default());
    if let Some(problem) = wrong_table(&network.rtt) {
        return refuse("network.rtt", format!("network.rtt {problem}"));
    }
    let table = scenario.table().map_err(|error| Refusal { key: "network.rtt".into(), error })?;
    if let Err(error) = scenario.regions(&table) {
        let is_of_sp = error.to_string().contains("network.sp_regions");
        return Err(Refusal { key: if is_of_sp { "network.sp_regions" } else { "network.regions" }.into(), error });
    }
    check(network.rate.is_some_and(|rate| rate.0 == 0), "network.rate", || {
        "must be at least one byte a second".into()
    })?;
    // Real packets may be doubled and overtaken; what the simulator knows is the stream that comes of them.
    let is_stream = network.delivery == super::Delivery::Stream && scenario.backend == BackendName::Simulated;
    let datagram_only = || "means nothing without delivery = \"datagram\" where it is simulated".to_owned();
    check(is_stream && network.duplicate != plain.duplicate, "network.duplicate", datagram_only)?;
    check(is_stream && network.reorder != plain.reorder, "network.reorder", datagram_only)?;
    check(is_stream && network.queue != plain.queue, "network.queue", datagram_only)?;
    let is_narrow = network.rate.is_some() || scenario.faults.iter().any(|fault| fault.rate.is_some());
    check(!is_narrow && network.queue != plain.queue, "network.queue", || {
        "means nothing without a rate: of the network or of a slow link".to_owned()
    })
}

fn clocks(scenario: &Scenario) -> Checked {
    check(scenario.clocks.drift_ppm >= 1_000_000, "clocks.drift_ppm", || {
        "must be below a million: a clock does not run backwards".into()
    })?;
    let hosts = scenario.hosts();
    match scenario.clocks.offsets.keys().find(|host| !hosts.contains(host)) {
        Some(host) => refuse(format!("clocks.offsets.{host}"), format!("clocks.offsets: {}", no_host(host, &hosts))),
        None => Ok(()),
    }
}

fn containers(scenario: &Scenario) -> Checked {
    let limits = &scenario.containers;
    // Less is refused by engines, which say so only when it is too late.
    check(limits.memory.is_some_and(|memory| memory.0 < MEMORY_MIN), "containers.memory", || {
        format!("must be at least {}MiB", MEMORY_MIN >> 20)
    })?;
    check(limits.cpus.is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus)), "containers.cpus", || {
        "must be from 0.01 to 1024".into()
    })
}

fn no_host(name: &str, hosts: &[String]) -> String {
    let hint = did_you_mean(name, hosts.iter().map(String::as_str));
    format!("no host is called {name} (sp1.., cache1.., receiver1..){hint}")
}

fn expectations(scenario: &Scenario) -> Checked {
    let known: Vec<String> = expectation_names().collect();
    match scenario.expect.keys().find(|name| !known.contains(name)) {
        Some(name) => {
            let hint = did_you_mean(name, known.iter().map(String::as_str));
            refuse(format!("expect.{name}"), format!("expect: no metric is called {name:?}{hint}"))
        }
        None => Ok(()),
    }
}
