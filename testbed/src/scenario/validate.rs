//! Whether a scenario makes sense, and whether its backend can run it.

use super::{BackendName, Direction, Fault, Network, Scenario, ScenarioError};
use crate::faults::{FaultKind, Role};
use acms_engine::protocol::{Path, Prefix, SpId, quorum::Quorum};
use std::time::Duration;

/// One machine has no room for more processes.
const RECEIVERS_LOCAL_MAX: u32 = 2_000;
const RECEIVERS_MAX: u32 = 200_000;
const CACHES_MAX: u32 = 10_000;
/// What `acms receive` takes, too.
const POLL_MIN: Duration = Duration::from_millis(100);

fn refuse<T>(what: String) -> Result<T, ScenarioError> {
    Err(ScenarioError::Invalid(what))
}

pub(super) fn validate(scenario: &Scenario) -> Result<(), ScenarioError> {
    backend(scenario)?;
    system(scenario)?;
    fleet(scenario)?;
    network(scenario)?;
    workload(scenario)?;
    publications(scenario)?;
    let hosts = scenario.hosts();
    for (i, fault) in scenario.faults.iter().enumerate() {
        self::fault(scenario, &hosts, fault)
            .or_else(|what| refuse(format!("fault {} ({}): {what}", i + 1, fault.kind)))?;
    }
    bounds(scenario)
}

/// What the backend cannot do is refused before anything is started.
fn backend(scenario: &Scenario) -> Result<(), ScenarioError> {
    match scenario.backend {
        BackendName::Simulated => return Ok(()),
        BackendName::Docker => return Err(ScenarioError::Unavailable("the backend `docker`".into())),
        BackendName::Local => {}
    }
    let fleet = &scenario.fleet;
    let refuse = |what: String| Err(ScenarioError::NotLocal(what));
    if let Some(key) = scenario.network.emulated() {
        return refuse(format!("an emulated network ({key})"));
    }
    if fleet.caches > 0 {
        return refuse("a cache tier (fleet.caches)".into());
    }
    if fleet.receivers_per_process != 1 {
        return refuse("several receivers in one process (fleet.receivers_per_process)".into());
    }
    if scenario.clocks != super::Clocks::default() {
        return refuse("clocks that are wrong ([clocks])".into());
    }
    if scenario.disk != super::Disk::default() {
        return refuse("disks of a chosen speed ([disk])".into());
    }
    if let Some(key) = scenario.workload.simulated_only() {
        return refuse(format!("workload.{key}"));
    }
    if let Some((i, fault)) = scenario.faults.iter().enumerate().find(|(_, fault)| !fault.kind.is_local()) {
        return refuse(format!("the fault `{}` (fault {})", fault.kind, i + 1));
    }
    Ok(())
}

fn system(scenario: &Scenario) -> Result<(), ScenarioError> {
    let n = scenario.fleet.storage_points;
    if n == 0 || n > 63 || n.is_multiple_of(2) {
        return refuse(format!("fleet.storage_points must be odd and at most 63, not {n}"));
    }
    let members: Vec<SpId> = (1..=n).map(SpId).collect();
    Quorum::new(&scenario.acms.quorum, &members).map(drop).or_else(|error| refuse(format!("acms.quorum: {error}")))
}

fn fleet(scenario: &Scenario) -> Result<(), ScenarioError> {
    let fleet = &scenario.fleet;
    if scenario.backend == BackendName::Local && fleet.receivers > RECEIVERS_LOCAL_MAX {
        return refuse(format!(
            "fleet.receivers: {} processes are too many for one machine ({RECEIVERS_LOCAL_MAX})",
            fleet.receivers
        ));
    }
    if fleet.receivers > RECEIVERS_MAX || fleet.caches > CACHES_MAX {
        return refuse(format!("at most {RECEIVERS_MAX} fleet.receivers and {CACHES_MAX} fleet.caches"));
    }
    if fleet.receivers_per_process == 0 {
        return refuse("fleet.receivers_per_process must be at least 1".into());
    }
    if fleet.cache_tiers == 0 || (fleet.caches > 0 && fleet.cache_tiers > fleet.caches) {
        return refuse(format!("fleet.cache_tiers must be from 1 to the number of caches, {}", fleet.caches));
    }
    if fleet.poll.is_some_and(|poll| poll.0 < POLL_MIN) {
        return refuse(format!("fleet.poll must be at least {POLL_MIN:?}"));
    }
    for prefix in &fleet.subscribe {
        if let Err(error) = prefix.parse::<Prefix>() {
            return refuse(format!("fleet.subscribe: {prefix:?}: {error}"));
        }
    }
    Ok(())
}

fn network(scenario: &Scenario) -> Result<(), ScenarioError> {
    let network = &scenario.network;
    let tables = [Network::LOOPBACK, Network::AZURE_50];
    if !tables.contains(&network.rtt.as_str()) {
        let nearest = super::parse::nearest(&network.rtt, tables.into_iter());
        let hint = nearest.map_or(String::new(), |nearest| format!("; did you mean {nearest:?}?"));
        return refuse(format!("network.rtt is \"loopback\" or \"azure-50\", not {:?}{hint}", network.rtt));
    }
    scenario.regions(&scenario.table()?)?;
    if network.rate.is_some_and(|rate| rate.0 == 0) {
        return refuse("network.rate must be at least one byte a second".into());
    }
    if scenario.clocks.drift_ppm >= 1_000_000 {
        return refuse("clocks.drift_ppm must be below a million: a clock does not run backwards".into());
    }
    let hosts = scenario.hosts();
    match scenario.clocks.offsets.keys().find(|host| !hosts.contains(host)) {
        Some(host) => refuse(format!("clocks.offsets: no host is called {host}")),
        None => Ok(()),
    }
}

fn workload(scenario: &Scenario) -> Result<(), ScenarioError> {
    let workload = &scenario.workload;
    if workload.tree.is_some() && workload.size.is_some() {
        return refuse("workload.size is for generated files, but workload.tree is given".into());
    }
    if !(0.0..=100_000.0).contains(&workload.updates_per_s) || !(0.0..=1.0).contains(&workload.deletes) {
        return refuse("workload.updates_per_s must be 0 to 100000, workload.deletes 0 to 1".into());
    }
    if workload.concurrency == 0 || workload.files == Some(0) {
        return refuse("workload.concurrency and workload.files must be at least 1".into());
    }
    Ok(())
}

fn publications(scenario: &Scenario) -> Result<(), ScenarioError> {
    const SIZE_MAX: u64 = 1 << 30;
    let is_storage_point = |name: &str| {
        let number = name.strip_prefix("sp").and_then(|number| number.parse::<u8>().ok());
        number.is_some_and(|number| (1..=scenario.fleet.storage_points).contains(&number))
    };
    for (i, publication) in scenario.workload.publications.iter().enumerate() {
        let refuse = |what: String| refuse(format!("publication {}: {what}", i + 1));
        if !is_storage_point(&publication.to) {
            return refuse(format!("no storage point is called {}", publication.to));
        }
        if let Err(error) = publication.path.parse::<Path>() {
            return refuse(format!("{:?}: {error}", publication.path));
        }
        if publication.at.0 > scenario.duration.0 {
            return refuse(format!("is due at {}, after the duration of {}", publication.at, scenario.duration));
        }
        if publication.size.0 > SIZE_MAX || (publication.deleted && publication.size.0 > 0) {
            return refuse("has at most 1 GiB, and nothing if it deletes".into());
        }
        if publication.key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic())) {
            return refuse(format!("the key {:?} has other characters than visible ASCII", publication.key));
        }
    }
    Ok(())
}

fn fault(scenario: &Scenario, hosts: &[String], fault: &Fault) -> Result<(), String> {
    for target in std::iter::once(&fault.target).chain(&fault.peer) {
        if let Some(stranger) = target.stranger(hosts) {
            return Err(format!("no host is called {stranger} (sp1.., cache1.., receiver1..)"));
        }
    }
    let targets = fault.target.select(hosts);
    if targets.is_empty() {
        return Err("`target` names no host".into());
    }
    if let Some(wrong) = targets.iter().find(|host| Role::of(host).is_none_or(|role| !fault.kind.may_hit(role))) {
        let role = Role::of(wrong).map_or("that".to_owned(), |role| role.to_string());
        return Err(format!("cannot hit {role}, such as {wrong}"));
    }
    if fault.at.0 > scenario.duration.0 {
        return Err(format!("begins at {}, after the duration of {}", fault.at, scenario.duration));
    }
    let parameters = fault.kind.parameters();
    if let Some(key) = fault.given().find(|key| !parameters.iter().any(|(known, _)| known == key)) {
        let known: Vec<_> = parameters.iter().map(|(known, _)| format!("`{known}`")).collect();
        let known = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
        return Err(format!("`{key}` means nothing for it; it has {known}"));
    }
    if let Some((key, _)) = parameters.iter().find(|(key, needed)| *needed && !fault.given().any(|given| given == *key))
    {
        return Err(format!("needs `{key}`"));
    }
    values(hosts, fault)
}

fn values(hosts: &[String], fault: &Fault) -> Result<(), String> {
    if fault.kind == FaultKind::SlowLink && fault.rate.is_none() && fault.delay.is_none() {
        return Err("needs `rate` or `delay`".into());
    }
    if fault.rate.is_some_and(|rate| rate.0 == 0) {
        return Err("`rate` must be at least one byte a second; to cut a link use `partition`".into());
    }
    if [fault.up, fault.down].into_iter().flatten().any(|span| span.0.is_zero()) {
        return Err("`up` and `down` must be longer than nothing".into());
    }
    let Some(peer) = &fault.peer else { return Ok(()) };
    let (targets, peers) = (fault.target.select(hosts), peer.select(hosts));
    if targets.len() == 1 && peers == targets {
        return Err("`target` and `peer` are the same host".into());
    }
    Ok(())
}

fn bounds(scenario: &Scenario) -> Result<(), ScenarioError> {
    let Some(bounds) = &scenario.hunt else { return Ok(()) };
    let choices = [
        ("storage_points", bounds.storage_points.is_empty()),
        ("quorums", bounds.quorums.is_empty()),
        ("modes", bounds.modes.is_empty()),
        ("orders", bounds.orders.is_empty()),
        ("max_drift", bounds.max_drift.is_empty()),
        ("rtt", bounds.rtt.is_empty()),
        ("delivery", bounds.delivery.is_empty()),
        ("fault_kinds", bounds.fault_kinds.is_empty()),
    ];
    if let Some((key, _)) = choices.iter().find(|(_, is_empty)| *is_empty) {
        return refuse(format!("hunt.{key} is a choice between nothing"));
    }
    if bounds.fault_kinds_min as usize > bounds.fault_kinds.len() || u64::from(bounds.fault_kinds_min) > bounds.faults.0
    {
        return refuse("hunt.fault_kinds_min is more than hunt.fault_kinds or the fewest hunt.faults".into());
    }
    Ok(())
}

impl Fault {
    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or_default()
    }
}
