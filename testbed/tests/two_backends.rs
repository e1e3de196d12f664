//! Two backends, one truth: the same scenario in virtual time and with real processes accepts the same publications,
//! leaves the same trees, and passes the same checks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_engine::protocol::Hash;
use acms_testbed::trace::{self, Event, Kind, Trace};
use common::{Ran, run};
use std::collections::{BTreeMap, BTreeSet};

/// Around a fault's beginning and end an attempt may meet a storage point that is there in one run and not in the other.
const EDGE_NS: u64 = 700_000_000;

/// A trace of real processes does not tell enough for these.
const ONLY_SIMULATED: [&str; 2] = ["quorum", "heals"];

/// A publication, whatever its key: path, content, deletion.
type What = (String, Option<Hash>, bool);
type Tree = BTreeMap<String, (Option<Hash>, bool)>;

fn what(event: &Event) -> What {
    (event.path.as_deref().unwrap().to_owned(), event.hash, event.is_deletion())
}

/// Simulated runs publish once more at the end.
fn is_probe(path: &str) -> bool {
    path.starts_with("probe-sp")
}

/// What a run came to.
struct Truth {
    accepted: BTreeSet<What>,
    /// Attempts due near the edge of a fault.
    doubtful: BTreeSet<What>,
    /// Attempts that were not accepted while a fault lasted.
    failed: BTreeSet<What>,
    storage_points: Vec<Tree>,
    receivers: Vec<Tree>,
    checks: Vec<(String, bool)>,
}

impl Truth {
    fn of(ran: &Ran) -> Truth {
        let result = ran.expect_passed();
        assert!(result.faults.iter().all(|fault| fault.undone) && !result.faults.is_empty(), "{:?}", result.faults);
        let trace = trace::read(&ran.dir.join("events.arrow")).unwrap();
        let of = |kind| trace.of(kind);
        let edges: Vec<u64> = of(Kind::Fault).chain(of(Kind::FaultUndone)).map(|event| event.time_ns).collect();
        let is_near = |event: &&Event| edges.iter().any(|edge| edge.abs_diff(event.time_ns) < EDGE_NS);
        let attempts: BTreeMap<&str, &Event> =
            of(Kind::Invoke).map(|event| (event.publication.as_deref().unwrap(), event)).collect();
        let is_accepted = |event: &&Event| event.outcome.as_deref() == Some("accepted");
        let accepted = of(Kind::Outcome).filter(is_accepted);
        let is_same = |one: &Event, other: &Event| (&one.cause, &one.outcome) == (&other.cause, &other.outcome);
        let lasted: Vec<(u64, u64)> = of(Kind::FaultUndone)
            .map(|end| (of(Kind::Fault).find(|begin| is_same(begin, end)).unwrap().time_ns, end.time_ns))
            .collect();
        let in_fault = |event: &Event| lasted.iter().any(|(from, to)| (*from..=*to).contains(&event.time_ns));
        let failed = of(Kind::Outcome).filter(|event| !is_accepted(event));
        let failed =
            failed.map(|event| attempts[event.publication.as_deref().unwrap()]).filter(|event| in_fault(event));
        Truth {
            accepted: accepted
                .map(|event| what(attempts[event.publication.as_deref().unwrap()]))
                .filter(|(path, _, _)| !is_probe(path))
                .collect(),
            failed: failed.map(what).collect(),
            doubtful: attempts.values().copied().filter(is_near).map(what).collect(),
            storage_points: trees(&trace, Kind::AuditSp),
            receivers: trees(&trace, Kind::AuditFile),
            checks: result
                .checks
                .iter()
                .filter(|check| !ONLY_SIMULATED.contains(&&*check.name))
                .map(|check| (check.name.clone(), check.held && check.events > 0))
                .collect(),
        }
    }
}

/// What each process had at the end.
fn trees(trace: &Trace, kind: Kind) -> Vec<Tree> {
    let mut trees: BTreeMap<&str, Tree> = BTreeMap::new();
    for event in trace.of(kind) {
        let (path, hash, deleted) = what(event);
        if is_probe(&path) {
            continue;
        }
        trees.entry(&event.process).or_default().insert(path, (hash, deleted));
    }
    trees.into_values().collect()
}

fn agree(scenario: &str, set: &[&str]) {
    let backend = |name: &str| {
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        Truth::of(&run(scenario, &[&["--backend", name, "--seed", "7"][..], &set].concat(), &[]))
    };
    let (simulated, local) = (backend("simulated"), backend("local"));
    assert_eq!(simulated.checks, local.checks);
    assert!(simulated.checks.iter().all(|(_, held)| *held));

    let mut doubtful: BTreeSet<What> = simulated.doubtful.union(&local.doubtful).cloned().collect();
    // A real process takes its time until it is there again.
    doubtful.extend(local.failed.iter().cloned());
    let certain = |truth: &Truth| -> BTreeSet<What> { truth.accepted.difference(&doubtful).cloned().collect() };
    let (here, there) = (certain(&simulated), certain(&local));
    assert!(here.len() > 60, "only {} publications far from any fault", here.len());
    assert_eq!(here.symmetric_difference(&there).collect::<Vec<_>>(), Vec::<&What>::new(), "accepted in one only");

    // A path whose fate hangs on such an attempt may end differently.
    let paths: BTreeSet<&str> = doubtful.iter().map(|(path, _, _)| &**path).collect();
    let certain = |trees: &[Tree]| -> Vec<Tree> {
        let of_one = |mut tree: Tree| {
            tree.retain(|path, _| !paths.contains(&**path));
            tree
        };
        trees.iter().cloned().map(of_one).collect()
    };
    assert_eq!(certain(&simulated.storage_points), certain(&local.storage_points));
    assert_eq!(certain(&simulated.receivers), certain(&local.receivers));
    let tree = certain(&local.receivers).remove(0);
    assert!(tree.len() > 5, "only {} paths far from any fault", tree.len());
    println!(
        "{scenario}: {} accepted and {} paths agree, {} attempts near a fault",
        here.len(),
        tree.len(),
        doubtful.len()
    );
}

#[test]
fn the_main_job() {
    agree(
        "quickstart",
        &[
            "duration=10s",
            "fleet.receivers=10",
            "workload.files=60",
            r#"faults=[{ kind = "kill", target = "sp2", at = "3s", for = "3s" }]"#,
        ],
    );
}

#[test]
fn a_fleet_under_faults() {
    agree("smoke", &["duration=8s", "workload.files=100"]);
}
