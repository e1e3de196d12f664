//! Whether every seed can draw within the bounds of a hunt.

use super::{CACHES_MAX, Checked, RECEIVERS_MAX, check, refuse, workload::SIZE_MAX, wrong_number, wrong_table};
use crate::scenario::{Bounds, Scenario};

/// More in one run are no swarm.
const PUBLICATIONS_MAX: u64 = 1_000_000;
const FAULTS_MAX: u64 = 10_000;

pub(super) fn bounds(scenario: &Scenario) -> Checked {
    let Some(bounds) = &scenario.hunt else { return Ok(()) };
    choices(bounds)?;
    for (i, n) in bounds.storage_points.iter().enumerate() {
        if let Some(problem) = wrong_number(*n) {
            return refuse(format!("hunt.storage_points.{i}"), format!("hunt.storage_points {problem}"));
        }
    }
    for (i, rtt) in bounds.rtt.iter().enumerate() {
        if let Some(problem) = wrong_table(rtt) {
            return refuse(format!("hunt.rtt.{i}"), format!("hunt.rtt {problem}"));
        }
    }
    counts(bounds)?;
    amounts(bounds)
}

fn choices(bounds: &Bounds) -> Checked {
    let choices = [
        ("hunt.storage_points", bounds.storage_points.is_empty()),
        ("hunt.quorums", bounds.quorums.is_empty()),
        ("hunt.modes", bounds.modes.is_empty()),
        ("hunt.orders", bounds.orders.is_empty()),
        ("hunt.max_drift", bounds.max_drift.is_empty()),
        ("hunt.rtt", bounds.rtt.is_empty()),
        ("hunt.delivery", bounds.delivery.is_empty()),
        ("hunt.fault_kinds", bounds.fault_kinds.is_empty()),
    ];
    choices.into_iter().try_for_each(|(key, is_empty)| check(is_empty, key, || "is a choice between nothing".into()))
}

fn counts(bounds: &Bounds) -> Checked {
    let ranges = [
        ("hunt.caches", bounds.caches, 0, u64::from(CACHES_MAX)),
        ("hunt.receivers", bounds.receivers, 0, u64::from(RECEIVERS_MAX)),
        ("hunt.publications", bounds.publications, 0, PUBLICATIONS_MAX),
        ("hunt.paths", bounds.paths, 1, PUBLICATIONS_MAX),
        ("hunt.faults", bounds.faults, 0, FAULTS_MAX),
    ];
    for (key, range, least, most) in ranges {
        let is_wrong = range.0 < least || range.1 > most;
        check(is_wrong, key, || format!("must be within {least}..{most}, not {range}"))?;
    }
    let kinds = u64::from(bounds.fault_kinds_min);
    check(kinds > bounds.fault_kinds.len() as u64 || kinds > bounds.faults.0, "hunt.fault_kinds_min", || {
        "is more than hunt.fault_kinds or the fewest hunt.faults".into()
    })
}

fn amounts(bounds: &Bounds) -> Checked {
    check(bounds.duration.0.0.is_zero(), "hunt.duration", || "must be longer than nothing".into())?;
    let lasts = bounds.fault_length;
    check(lasts.0.0.is_zero() || lasts.1 > bounds.duration.0, "hunt.fault_length", || {
        format!("must be longer than nothing and within the shortest hunt.duration, {}", bounds.duration.0)
    })?;
    check(bounds.max_drift.iter().any(|drift| drift.0.is_zero()), "hunt.max_drift", || {
        "must be longer than nothing".into()
    })?;
    check(bounds.rate.0.0 == 0, "hunt.rate", || "must be at least one byte a second".into())?;
    check(bounds.large_size.1.0 > SIZE_MAX, "hunt.large_size", || "must be at most 1 GiB".into())?;
    check(bounds.drift_ppm_max >= 1_000_000, "hunt.drift_ppm_max", || "must be below a million".into())
}
