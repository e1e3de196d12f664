//! Whether what goes wrong makes sense.

use super::{Checked, no_host, refuse};
use crate::{
    faults::{FaultKind, Role},
    scenario::{Direction, Fault, Scenario, Target},
};

/// A key of the fault, and what is wrong with it.
type Wrong = (&'static str, String);

pub(super) fn faults(scenario: &Scenario) -> Checked {
    let hosts = scenario.hosts();
    for (i, fault) in scenario.faults.iter().enumerate() {
        if let Err((key, what)) = self::fault(scenario, &hosts, fault) {
            return refuse(format!("faults.{i}.{key}"), format!("fault {} ({}): {what}", i + 1, fault.kind));
        }
    }
    Ok(())
}

fn known(key: &'static str, target: &Target, hosts: &[String]) -> Result<(), Wrong> {
    match target.stranger(hosts) {
        Some(stranger) => Err((key, no_host(stranger, hosts))),
        None => Ok(()),
    }
}

fn fault(scenario: &Scenario, hosts: &[String], fault: &Fault) -> Result<(), Wrong> {
    known("target", &fault.target, hosts)?;
    fault.peer.as_ref().map_or(Ok(()), |peer| known("peer", peer, hosts))?;
    let targets = fault.target.select(hosts);
    if targets.is_empty() {
        return Err(("target", "`target` names no host".into()));
    }
    if let Some(wrong) = targets.iter().find(|host| Role::of(host).is_none_or(|role| !fault.kind.may_hit(role))) {
        let role = Role::of(wrong).map_or("that".to_owned(), |role| role.to_string());
        return Err(("target", format!("cannot hit {role}, such as {wrong}")));
    }
    let is_shared = scenario.backend.is_real() && scenario.fleet.receivers_per_process > 1;
    if let (true, Some(host)) = (is_shared, targets.iter().find(|host| Role::of(host) == Some(Role::Receiver))) {
        return Err((
            "target",
            format!("{host} shares its process (fleet.receivers_per_process): it cannot be hit alone"),
        ));
    }
    let last = format!("sp{}", scenario.fleet.storage_points);
    if fault.kind == FaultKind::StoreReplaced && targets.contains(&&*last) {
        return Err(("target", format!("{last} dials nobody, so that it would never find out that it was replaced")));
    }
    if fault.at.0 > scenario.duration.0 {
        return Err(("at", format!("begins at {}, after the duration of {}", fault.at, scenario.duration)));
    }
    let parameters = fault.kind.parameters();
    if let Some(key) = fault.given().find(|key| !parameters.iter().any(|(known, _)| known == key)) {
        let known: Vec<_> = parameters.iter().map(|(known, _)| format!("`{known}`")).collect();
        let known = if known.is_empty() { "no parameters".to_owned() } else { known.join(", ") };
        return Err((key, format!("`{key}` means nothing for it; it has {known}")));
    }
    let missing = parameters.iter().find(|(key, needed)| *needed && !fault.given().any(|given| given == *key));
    if let Some((key, _)) = missing {
        return Err(("kind", format!("needs `{key}`")));
    }
    values(hosts, fault)
}

fn values(hosts: &[String], fault: &Fault) -> Result<(), Wrong> {
    if fault.kind == FaultKind::SlowLink && fault.rate.is_none() && fault.delay.is_none() {
        return Err(("kind", "needs `rate` or `delay`".into()));
    }
    if fault.rate.is_some_and(|rate| rate.0 == 0) {
        return Err(("rate", "`rate` must be at least one byte a second; to cut a link use `partition`".into()));
    }
    if let Some((key, _)) =
        [("up", fault.up), ("down", fault.down)].into_iter().find(|(_, span)| span.is_some_and(|span| span.0.is_zero()))
    {
        return Err((key, "`up` and `down` must be longer than nothing".into()));
    }
    let Some(peer) = &fault.peer else { return Ok(()) };
    let (targets, peers) = (fault.target.select(hosts), peer.select(hosts));
    if targets.len() == 1 && peers == targets {
        return Err(("peer", "`target` and `peer` are the same host".into()));
    }
    Ok(())
}

impl Fault {
    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.direction.unwrap_or_default()
    }
}
