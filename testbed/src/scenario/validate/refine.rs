//! Whether the specification knows everything of a scenario that is to be compared with it.

use super::{Checked, check};
use crate::{
    faults::FaultKind,
    scenario::{Bounds, QuorumFamily, Scenario},
};
use acms_engine::protocol::{Order, QuorumSystem};
use acms_spec::state::{N, P};

pub(super) fn refine(scenario: &Scenario) -> Checked {
    if let Some(bounds) = scenario.hunt.as_ref().filter(|bounds| bounds.refine) {
        drawn(bounds)?;
    }
    if !scenario.refine {
        return Ok(());
    }
    let publications = &scenario.workload.publications;
    let first = publications.first();
    check(publications.len() > P, "workload.publications", too_long)?;
    check(first.is_none(), "refine", || "needs listed publications ([[workload.publications]])".into())?;
    let other = publications.iter().position(|one| first.is_some_and(|first| one.path != first.path));
    if let Some(other) = other {
        check(true, &format!("workload.publications.{other}.path"), || "is another one: refine knows one path".into())?;
    }
    check(usize::from(scenario.fleet.storage_points) > N, "fleet.storage_points", too_many)?;
    check(scenario.acms.quorum != QuorumSystem::Majority, "acms.quorum", || "must be majority with refine".into())?;
    let is_fast = |order: Order| order != Order::Strict;
    check(is_fast(scenario.acms.order), "acms.order", || "must be strict with refine".into())?;
    let fast = publications.iter().position(|one| one.order.is_some_and(is_fast));
    check(fast.is_some(), &format!("workload.publications.{}.order", fast.unwrap_or_default()), || {
        "must be strict with refine".into()
    })?;
    let unknown = scenario.faults.iter().position(|fault| !is_known(fault.kind));
    check(unknown.is_some(), &format!("faults.{}.kind", unknown.unwrap_or_default()), || {
        "is none that the specification knows (refine)".into()
    })
}

/// The same of bounds.
fn drawn(bounds: &Bounds) -> Checked {
    let too_large = bounds.storage_points.iter().any(|n| usize::from(*n) > N);
    check(too_large, "hunt.storage_points", too_many)?;
    check(bounds.quorums != [QuorumFamily::Majority], "hunt.quorums", || "must be majority with hunt.refine".into())?;
    check(bounds.orders != [Order::Strict], "hunt.orders", || "must be strict with hunt.refine".into())?;
    check(bounds.paths.1 > 1, "hunt.paths", || "must be 1 with hunt.refine".into())?;
    check(bounds.publications.0 == 0, "hunt.publications", || "must be at least 1 with hunt.refine".into())?;
    check(bounds.publications.1 > P as u64, "hunt.publications", too_long)?;
    let unknown = bounds.fault_kinds.iter().find(|kind| !is_known(**kind));
    check(unknown.is_some(), "hunt.fault_kinds", || {
        let names = unknown.map(ToString::to_string).unwrap_or_default();
        format!("has {names}, which the specification does not know (hunt.refine)")
    })
}

fn too_many() -> String {
    format!("must be at most {N} with refine: the specification knows no more")
}

fn too_long() -> String {
    format!("must be at most {P} with refine: the specification has room for no more")
}

/// Crashes, lost disks, links, clocks and whatever happens to others than storage points.
fn is_known(kind: FaultKind) -> bool {
    use FaultKind::*;
    match kind {
        Kill | Pause | Restart | CrashLoop | DiskLost | DiskTorn | DiskSlow => true,
        Isolate | Partition | Flap | Loss | SlowLink | ClockSkew | ClockJump => true,
        CacheCorrupt | CacheTruncate | CacheStale | CacheRollback => true,
        DiskFull | DiskFail | DiskRot | StoreReplaced => false,
    }
}
