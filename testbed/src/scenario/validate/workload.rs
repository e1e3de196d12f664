//! Whether what is published makes sense.

use super::{Checked, check, refuse};
use crate::scenario::{Scenario, Workload, parse::did_you_mean};
use acms_engine::protocol::Path;

/// Largest content.
pub(super) const SIZE_MAX: u64 = 1 << 30;

pub(super) fn workload(scenario: &Scenario) -> Checked {
    let workload = &scenario.workload;
    check(workload.tree.is_some() && workload.size.is_some(), "workload.size", || {
        "is for generated files, but workload.tree is given".into()
    })?;
    let rates = 0.0..=100_000.0;
    check(!rates.contains(&workload.updates_per_s), "workload.updates_per_s", || "must be 0 to 100000".into())?;
    check(workload.concurrency == 0, "workload.concurrency", || "must be at least 1".into())?;
    check(workload.files == Some(0), "workload.files", || "must be at least 1".into())?;
    if workload.publications.is_empty() {
        return Ok(());
    }
    match ignored(workload) {
        Some(key) => refuse(
            format!("workload.{key}"),
            format!("workload.{key} means nothing beside workload.publications, which are all that is published"),
        ),
        None => Ok(()),
    }
}

/// The first key about what is drawn that is given.
fn ignored(workload: &Workload) -> Option<&'static str> {
    let plain = Workload::default();
    let keys = [
        ("tree", workload.tree != plain.tree),
        ("files", workload.files != plain.files),
        ("size", workload.size != plain.size),
        ("file_size_max", workload.file_size_max != plain.file_size_max),
        ("prefix", workload.prefix != plain.prefix),
        ("concurrency", workload.concurrency != plain.concurrency),
        ("updates_per_s", workload.updates_per_s != plain.updates_per_s),
        ("arrival", workload.arrival != plain.arrival),
        ("deletes", workload.deletes != plain.deletes),
        ("retried", workload.retried != plain.retried),
        ("known", workload.known != plain.known),
        ("fast", workload.fast != plain.fast),
        ("large", workload.large != plain.large),
    ];
    keys.iter().find(|(_, is_given)| *is_given).map(|(key, _)| *key)
}

pub(super) fn publications(scenario: &Scenario) -> Checked {
    let storage_points: Vec<String> = (1..=scenario.fleet.storage_points).map(|sp| format!("sp{sp}")).collect();
    for (i, publication) in scenario.workload.publications.iter().enumerate() {
        let refuse = |key: &str, what: String| {
            refuse(format!("workload.publications.{i}.{key}"), format!("publication {}: {what}", i + 1))
        };
        if !storage_points.contains(&publication.to) {
            let hint = did_you_mean(&publication.to, storage_points.iter().map(String::as_str));
            return refuse("to", format!("no storage point is called {}{hint}", publication.to));
        }
        if let Err(error) = publication.path.parse::<Path>() {
            return refuse("path", format!("{:?}: {error}", publication.path));
        }
        if publication.at >= scenario.duration {
            return refuse(
                "at",
                format!("is due at {}, not within the duration of {}", publication.at, scenario.duration),
            );
        }
        if publication.size.0 > SIZE_MAX || (publication.deleted && publication.size.0 > 0) {
            return refuse("size", "has at most 1 GiB, and nothing if it deletes".into());
        }
        if publication.key.as_ref().is_some_and(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic())) {
            return refuse("key", format!("the key {:?} has other characters than visible ASCII", publication.key));
        }
    }
    Ok(())
}
