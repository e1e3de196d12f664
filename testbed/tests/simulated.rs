//! The simulated world: each fault has its effect and is undone, the promises hold, and the seed decides all.

use acms_engine::protocol::{Message, Now, SpId, StoragePoint};
use acms_testbed::{
    backend::{
        Stop,
        simulated::{self, Observer, Step, Summary},
    },
    faults::FaultKind,
    judge::{Judge, Verdict},
    run::{RunError, RunOptions},
    scenario::{BackendName, Scenario},
    system::Program,
    trace::{Event, Kind, Trace},
};
use std::collections::BTreeSet;

fn scenario(text: &str, seed: u64) -> Scenario {
    let text = format!("name = \"test\"\nbackend = \"simulated\"\nseed = {seed}\n{text}");
    Scenario::parse("test", &text, &[]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn run(scenario: &Scenario) -> (Summary, Trace, Verdict) {
    let (mut judge, mut trace) = (Judge::new(), Trace::default());
    let summary = simulated::run(scenario, &mut (&mut judge, &mut trace)).unwrap_or_else(|error| panic!("{error}"));
    (summary, trace, judge.finish())
}

/// Every check but those that had nothing to look at.
fn held(verdict: &Verdict) {
    for check in &verdict.checks {
        assert!(check.held || check.not_exercised(), "{}: {}", check.name, check.violations.join("\n"));
    }
}

const SMALL: &str = "
    duration = \"20s\"
    [fleet]
    storage_points = 3
    receivers = 0
    [workload]
    files = 10
    size = \"1..3000\"
    updates_per_s = 3.0
    deletes = 0.1
    large = 0.05
";

fn with_fault(kind: &str, more: &str) -> String {
    format!("{SMALL}\n[[faults]]\nkind = \"{kind}\"\ntarget = \"sp2\"\nat = \"5s\"\nfor = \"6s\"\n{more}")
}

#[test]
fn a_quiet_cluster_refuses_nothing() {
    for mode in ["fused", "two-phase"] {
        let (summary, trace, verdict) = run(&scenario(&format!("{SMALL}\n[acms]\nmode = \"{mode}\""), 1));
        held(&verdict);
        assert!(summary.publications > 40, "{summary:?}");
        let outcomes: Vec<_> = trace.of(Kind::Outcome).collect();
        assert_eq!(outcomes.len() as u64, summary.publications);
        // One that meets a newer one of its path on the way is superseded, and nothing else goes wrong.
        let accepted = outcomes.iter().filter(|event| event.outcome.as_deref() == Some("accepted")).count();
        assert!(accepted * 10 > outcomes.len() * 9, "{accepted} of {}", outcomes.len());
        assert!(outcomes.iter().all(|event| event.outcome.as_deref() != Some("rejected")));
    }
}

#[test]
fn the_seed_decides_all() {
    let faults = "
        [network]
        rtt = \"azure-50\"
        loss = 0.02
        duplicate = 0.02
        delivery = \"datagram\"
        [clocks]
        skew = \"2s\"
        [disk]
        jitter = 0.5
        [[faults]]
        kind = \"disk-torn\"
        target = \"sp*\"
        at = \"5s\"
        for = \"2s\"
        [[faults]]
        kind = \"disk-lost\"
        target = \"sp3\"
        at = \"10s\"
        for = \"2s\"";
    let text = format!("{SMALL}{faults}");
    let (first, again, other) = (run(&scenario(&text, 7)), run(&scenario(&text, 7)), run(&scenario(&text, 8)));
    held(&first.2);
    assert_eq!((first.2.hash, first.0), (again.2.hash, again.0));
    assert_ne!(first.2.hash, other.2.hash);
}

/// A run with one fault of sp2 from 5 s to 11 s of the updates.
struct Faulty {
    trace: Trace,
    from_ns: u64,
    to_ns: u64,
}

impl Faulty {
    /// Events of a process and kind while the fault lasted, and a little longer.
    fn of(&self, process: &str, kind: Kind) -> Vec<&Event> {
        let within = self.from_ns..=self.to_ns + 1_000_000_000;
        let all = self.trace.of(kind).filter(|event| &*event.process == process && within.contains(&event.time_ns));
        all.collect()
    }

    fn ends_with(&self, outcome: &str, cause: &str) -> usize {
        let is_it = |event: &&&Event| {
            event.outcome.as_deref() == Some(outcome) && event.cause.as_deref().is_some_and(|text| text.contains(cause))
        };
        self.of("sp2", Kind::Exit).iter().filter(is_it).count()
    }

    /// The longest time without an event of sp2 of this kind (or of any) while the fault lasted.
    fn longest_gap_ms(&self, kind: Option<Kind>) -> u64 {
        let is_it = |event: &&Event| &*event.process == "sp2" && kind.is_none_or(|kind| event.kind == kind);
        let times = self.trace.events().iter().filter(is_it).map(|event| event.time_ns);
        let times = times.filter(|at| (self.from_ns..self.to_ns).contains(at));
        let times: Vec<u64> = [self.from_ns].into_iter().chain(times).chain([self.to_ns]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1_000_000
    }

    /// The longest time from a submission while the fault lasted until sp2 knew of agreement.
    fn slowest_ms(&self) -> u64 {
        let begun = self.trace.of(Kind::Invoke).filter(|event| (self.from_ns..self.to_ns).contains(&event.time_ns));
        let known = |key: &Event| {
            let agreed = self.trace.of(Kind::Agreed).filter(|event| &*event.process == "sp2");
            agreed.filter(|event| event.publication == key.publication).map(|event| event.time_ns).next()
        };
        begun.filter_map(|event| Some(known(event)? - event.time_ns)).max().unwrap_or(0) / 1_000_000
    }
}

/// What shows that a fault of this kind was there.
fn effect(kind: FaultKind, run: &Faulty) -> bool {
    let downs = |of: &str| run.of(of, Kind::LinkDown).iter().filter(|down| down.cause.as_deref() == Some("2")).count();
    let ready = || run.trace.of(Kind::Ready).filter(|event| &*event.process == "sp2").last();
    let has_new_store = || ready().is_some_and(|ready| ready.cause.as_deref().unwrap_or_default().starts_with("1-"));
    match kind {
        FaultKind::Kill => run.ends_with("killed", "signal: 9") == 1 && run.longest_gap_ms(None) > 5_900,
        FaultKind::Pause => run.longest_gap_ms(None) >= 5_999,
        FaultKind::Restart => run.ends_with("stopped", "exit status: 0") == 1,
        FaultKind::CrashLoop => run.ends_with("killed", "signal: 9") > 3,
        FaultKind::Isolate => downs("sp1") > 0 && downs("sp3") > 0,
        FaultKind::Partition | FaultKind::Flap => downs("sp1") > 0,
        FaultKind::Loss | FaultKind::SlowLink => run.slowest_ms() >= 200,
        FaultKind::DiskFull => run
            .of("publisher", Kind::Outcome)
            .iter()
            .any(|event| event.cause.as_deref().is_some_and(|text| text.contains("no storage space"))),
        FaultKind::DiskSlow => run.slowest_ms() >= 100,
        FaultKind::DiskFail => run.ends_with("killed", "os error 5") == 1,
        FaultKind::DiskLost => has_new_store(),
        FaultKind::StoreReplaced => {
            let mut ends = run.trace.of(Kind::Exit).filter(|event| &*event.process == "displaced-sp2");
            let cause = ends.next().and_then(|event| event.cause.clone()).unwrap_or_default();
            has_new_store() && cause.contains("taken this one's place")
        }
        // Who asks for what it has already has found it damaged.
        FaultKind::DiskRot => true,
        FaultKind::DiskTorn => run.ends_with("killed", "power lost") == 1,
        FaultKind::ClockJump | FaultKind::ClockSkew => run.longest_gap_ms(Some(Kind::AsOf)) > 4_000,
        _ => false,
    }
}

#[test]
fn every_fault_has_its_effect_and_is_undone() {
    let more = |kind: FaultKind| match kind {
        FaultKind::Partition => "peer = \"sp1\"\ndirection = \"in\"",
        FaultKind::Flap => "up = \"200ms\"\ndown = \"5s\"",
        FaultKind::Loss => "loss = 0.4",
        FaultKind::SlowLink => "rate = \"64KiB\"\ndelay = \"200ms\"",
        FaultKind::ClockJump | FaultKind::ClockSkew => "by = \"-7s\"",
        FaultKind::DiskRot => "count = 5",
        _ => "",
    };
    for kind in FaultKind::ALL.iter().copied().filter(|kind| !kind.name().starts_with("cache-")) {
        // A full disk leaves some logs room enough for six seconds.
        let seeds = if kind == FaultKind::DiskFull { 1..9 } else { 3..4 };
        let mut bitten = 0;
        for seed in seeds.clone() {
            let (summary, trace, verdict) = run(&scenario(&with_fault(kind.name(), more(kind)), seed));
            held(&verdict);
            assert_eq!(summary.notes.len(), 1, "{kind}: {:?}", summary.notes);
            let noted = |which: Kind| {
                let all = trace.of(which).filter(|event| event.outcome.as_deref() == Some(kind.name()));
                all.map(|event| event.time_ns).collect::<Vec<u64>>()
            };
            let (begun, undone) = (noted(Kind::Fault), noted(Kind::FaultUndone));
            assert_eq!(begun.len(), undone.len(), "{kind}");
            assert_eq!(summary.faults.get(&kind).copied().unwrap_or(0), begun.len() as u64, "{kind}");
            let run = Faulty { from_ns: *begun.first().unwrap_or(&0), to_ns: *undone.first().unwrap_or(&0), trace };
            assert_eq!(effect(kind, &run), !begun.is_empty(), "{kind}, seed {seed}");
            bitten += begun.len();
        }
        let least = if kind == FaultKind::DiskFull { 2 } else { 1 };
        assert!(bitten >= least, "{kind} bit in {bitten} of the seeds {seeds:?}");
        println!("{kind}: {bitten}");
    }
}

/// A content of which a bit has changed is asked for again.
#[test]
fn rot_is_mended() {
    let parts = |fault: &str| {
        let (mut parts, mut judge) = (Parts(SpId(2), 0), Judge::new());
        let text = format!("{SMALL}\n{fault}");
        simulated::run_observed(&scenario(&text, 3), &mut judge, &mut parts).unwrap();
        held(&judge.finish());
        parts.1
    };
    let fault = "[[faults]]\nkind = \"disk-rot\"\ntarget = \"sp2\"\nat = \"19500ms\"\ncount = 20";
    assert!(parts(fault) > parts(""));
}

/// Faults of one kind that overlap: the end of one does not end the other.
#[test]
fn overlapping_faults_end_one_by_one() {
    let clock = |by: &str, at: &str| {
        format!("[[faults]]\nkind = \"clock-skew\"\ntarget = \"sp2\"\nby = \"{by}\"\nat = \"{at}\"\nfor = \"6s\"\n")
    };
    let (_, trace, verdict) = run(&scenario(&format!("{SMALL}\n{}{}", clock("-60s", "3s"), clock("-6s", "6s")), 1));
    held(&verdict);
    let shown: Vec<String> =
        trace.of(Kind::Clock).filter_map(|event| event.cause.clone()).map(|c| c.to_string()).collect();
    // When the first ends, three of the six seconds of the second have gone by.
    assert!(shown.iter().any(|shown| shown.starts_with("-3000000 ")), "{shown:?}");
    assert_eq!(shown.last().map(String::as_str), Some("0"));

    let slow = |kind: &str, at: &str, lasts: &str| {
        format!("[[faults]]\nkind = \"{kind}\"\ntarget = \"sp*\"\nat = \"{at}\"\nfor = \"{lasts}\"\n")
    };
    let two = slow("disk-slow", "3s", "12s") + &slow("disk-slow", "4s", "1s");
    let (_, trace, _) = run(&scenario(&format!("{SMALL}\n{two}"), 1));
    let times: Vec<u64> = trace.of(Kind::Fault).map(|event| event.time_ns).collect();
    let run = Faulty { from_ns: times[0] + 3_000_000_000, to_ns: times[0] + 11_000_000_000, trace };
    assert!(run.slowest_ms() >= 100, "{}", run.slowest_ms());
}

/// Two faults that want the same process to stop while it stands still stop it once.
#[test]
fn a_process_told_twice_to_stop_ends_once() {
    let fault = |kind: &str, at: &str, lasts: &str| {
        format!("[[faults]]\nkind = \"{kind}\"\ntarget = \"sp2\"\nat = \"{at}\"\nfor = \"{lasts}\"\n")
    };
    let faults = fault("pause", "4s", "5s") + &fault("restart", "5s", "0s") + &fault("restart", "6s", "0s");
    let (summary, trace, verdict) = run(&scenario(&format!("{SMALL}\n{faults}"), 1));
    held(&verdict);
    let is_blackout = |event: &&Event| event.cause.as_deref() == Some("power lost");
    let exits = trace.of(Kind::Exit).filter(|event| &*event.process == "sp2" && !is_blackout(event)).count();
    assert_eq!(exits, 2, "once, and at the end: {summary:?}");
    assert_eq!(summary.faults.get(&FaultKind::Restart), Some(&1), "the second had nothing to stop");
}

/// A restart that a kill forestalls never was, and has nothing to undo.
#[test]
fn a_restart_that_a_kill_forestalls_is_not_undone() {
    // Under way at sp2: a publication that cannot be agreed, so that the process takes its time to stop.
    let faults = "
        [[faults]]
        kind = \"isolate\"
        target = \"sp2\"
        at = \"3s\"
        for = \"8s\"
        [[faults]]
        kind = \"restart\"
        target = \"sp2\"
        at = \"7s\"
        [[faults]]
        kind = \"kill\"
        target = \"sp2\"
        at = \"7001ms\"
        for = \"1s\"";
    let (_, trace, verdict) = run(&scenario(&format!("{SMALL}\n{faults}"), 1));
    held(&verdict);
    for kind in ["restart", "kill", "isolate"] {
        let noted = |which: Kind| trace.of(which).filter(|event| event.outcome.as_deref() == Some(kind)).count();
        assert_eq!(noted(Kind::Fault), noted(Kind::FaultUndone), "{kind}");
    }
}

/// A power failure where no process runs is none that counts, though what was not flushed is gone.
#[test]
fn power_that_fails_under_no_process_does_not_count() {
    let torn = "[[faults]]\nkind = \"disk-torn\"\ntarget = \"sp2\"\nat = \"7s\"\nfor = \"2s\"";
    let (summary, trace, verdict) = run(&scenario(&format!("{}\n{torn}", with_fault("kill", "")), 1));
    held(&verdict);
    assert_eq!((summary.faults.get(&FaultKind::Kill), summary.faults.get(&FaultKind::DiskTorn)), (Some(&1), None));
    assert_eq!((trace.of(Kind::Fault).count(), trace.of(Kind::FaultUndone).count()), (1, 1));
}

/// What a slow link held up does not hold up what comes after it.
#[test]
fn a_slow_link_leaves_nothing_behind() {
    let text = "
        duration = \"16s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"large\"
        size = \"700KiB\"
        [[workload.publications]]
        at = \"14s\"
        to = \"sp1\"
        path = \"small\"
        size = \"100\"
        [[faults]]
        kind = \"slow-link\"
        target = \"sp1\"
        direction = \"out\"
        rate = \"8KiB\"
        at = \"500ms\"
        for = \"13s\"";
    let (summary, trace, verdict) = run(&scenario(text, 1));
    held(&verdict);
    assert_eq!(summary.faults.get(&FaultKind::SlowLink), Some(&1));
    let begun = trace.of(Kind::Invoke).filter(|event| event.path.as_deref() == Some("small")).last().unwrap();
    let known: Vec<_> = trace.of(Kind::Agreed).filter(|event| event.path.as_deref() == Some("small")).collect();
    assert!(known.len() == 3 && known.iter().all(|event| event.time_ns - begun.time_ns < 1_000_000_000), "{known:?}");
    // Bytes that come slowly are a sign of life: the links bore it.
    assert_eq!(trace.of(Kind::LinkDown).count(), 0);
}

/// A large content on a narrow link does not hold up a vector for longer than one chunk takes.
#[test]
fn large_contents_do_not_hold_up_vectors() {
    let text = "
        duration = \"20s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"large\"
        size = \"20MiB\"
        [[workload.publications]]
        at = \"5s\"
        to = \"sp1\"
        path = \"small\"
        size = \"100\"
        [network]
        rate = \"1MiB\"";
    let (_, trace, verdict) = run(&scenario(text, 1));
    held(&verdict);
    let begun = trace.of(Kind::Invoke).filter(|event| event.path.as_deref() == Some("small")).last().unwrap();
    let known: Vec<_> = trace.of(Kind::Agreed).filter(|event| event.path.as_deref() == Some("small")).collect();
    assert!(known.len() == 3 && known.iter().all(|event| event.time_ns - begun.time_ns < 2_000_000_000), "{known:?}");
}

#[test]
fn power_failures_everywhere_at_once_lose_nothing() {
    for seed in 0..10 {
        let fault = "[[faults]]\nkind = \"disk-torn\"\ntarget = \"sp*\"\nfor = \"1s\"\nat = ";
        let faults: Vec<String> = (1..6).map(|i| format!("{fault}\"{}s\"", 3 * i)).collect();
        let (summary, _, verdict) = run(&scenario(&format!("{SMALL}\n{}", faults.join("\n")), seed));
        held(&verdict);
        assert_eq!(summary.faults.get(&FaultKind::DiskTorn), Some(&15));
    }
}

#[test]
fn a_list_of_publications_is_all_that_is_published() {
    let list = "
        duration = \"5s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a/b\"
        size = \"100\"
        key = \"k\"
        [[workload.publications]]
        at = \"2s\"
        to = \"sp2\"
        path = \"a/b\"
        size = \"70000\"
        known = true
        [[workload.publications]]
        at = \"3s\"
        to = \"sp3\"
        path = \"a/b\"
        deleted = true
        order = \"fast\"";
    let (summary, trace, verdict) = run(&scenario(list, 1));
    held(&verdict);
    assert_eq!(summary.publications, 6, "and a probe at each storage point");
    let told: Vec<_> = trace.of(Kind::Outcome).map(|event| (event.publication.as_deref(), event.uid)).collect();
    assert_eq!(told[0].0, Some("k"));
    let known: Vec<_> = trace.of(Kind::Invoke).take(3).map(|event| event.uid).collect();
    assert_eq!(known, [None, told[0].1, None]);
    let audited: Vec<_> = trace.of(Kind::AuditSp).filter(|event| event.path.as_deref() == Some("a/b")).collect();
    assert_eq!(audited.len(), 3);
    assert!(audited.iter().all(|event| event.is_deletion() && event.uid == told[2].1));
}

#[derive(Default)]
struct Seen {
    steps: u64,
    storage_points: BTreeSet<SpId>,
    submitted: u64,
    ended: u64,
}

impl Observer for Seen {
    fn step(&mut self, _now: Now, sp: SpId, step: Step<'_>, machine: &StoragePoint) {
        assert_eq!(machine.config().me, sp);
        self.steps += 1;
        self.storage_points.insert(sp);
        self.submitted += u64::from(matches!(step, Step::Submitted(..)));
        self.ended += u64::from(matches!(step, Step::Ended(_)));
    }
}

#[test]
fn an_observer_sees_every_step_and_changes_nothing() {
    let scenario = scenario(&with_fault("kill", ""), 5);
    let (mut seen, mut trace) = (Seen::default(), Trace::default());
    let summary = simulated::run_observed(&scenario, &mut trace, &mut seen).unwrap();
    assert_eq!(trace.hash(), run(&scenario).2.hash);
    assert_eq!(seen.storage_points.len(), 3);
    assert!(seen.submitted <= summary.publications && seen.submitted > summary.publications / 2);
    assert_eq!(seen.ended, 7, "one was killed, all lose their power once, all stop at the end");
    assert!(seen.steps > 1_000);
}

/// Counts the parts of contents that reach one storage point.
struct Parts(SpId, u64);

impl Observer for Parts {
    fn step(&mut self, _now: Now, sp: SpId, step: Step<'_>, _machine: &StoragePoint) {
        self.1 += u64::from(sp == self.0 && matches!(step, Step::Message(_, Message::ContentChunk { .. })));
    }
}

/// Found by the simulator: each refused part asked for four more.
#[test]
fn a_full_disk_does_not_ask_for_the_same_content_without_end() {
    let text = "
        duration = \"8s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a\"
        size = \"600000\"
        [[faults]]
        kind = \"disk-full\"
        target = \"sp2\"
        at = \"500ms\"
        for = \"6s\"";
    let (mut parts, mut judge) = (Parts(SpId(2), 0), Judge::new());
    simulated::run_observed(&scenario(text, 1), &mut judge, &mut parts).unwrap();
    held(&judge.finish());
    assert!((6..40).contains(&parts.1), "{} parts of a content of three", parts.1);
}

/// Found by the simulator: what gave way to a newer publication before its content had come was waited for without end.
#[test]
fn what_is_dropped_while_a_new_store_is_filled_does_not_hold_it_up() {
    // sp1 tells the new store of sp5 of a publication whose content takes long; the others tell it, later, of a newer one.
    let text = "
        duration = \"30s\"
        [fleet]
        storage_points = 5
        receivers = 0
        [[workload.publications]]
        at = \"2500ms\"
        to = \"sp1\"
        path = \"a\"
        size = \"1MiB\"
        [[workload.publications]]
        at = \"5s\"
        to = \"sp2\"
        path = \"a\"
        size = \"100\"
        [[faults]]
        kind = \"disk-lost\"
        target = \"sp5\"
        at = \"1s\"
        for = \"2s\"
        [[faults]]
        kind = \"slow-link\"
        target = \"sp1\"
        direction = \"out\"
        rate = \"64KiB\"
        at = \"2400ms\"
        for = \"20s\"
        [[faults]]
        kind = \"slow-link\"
        target = [\"sp2\", \"sp3\", \"sp4\"]
        peer = \"sp5\"
        direction = \"out\"
        delay = \"1500ms\"
        at = \"2s\"
        for = \"10s\"";
    let (summary, trace, verdict) = run(&scenario(text, 1));
    held(&verdict);
    assert!(summary.notes.is_empty(), "{:?}", summary.notes);
    let of_new_store = |kind: Kind| trace.of(kind).find(|event| &*event.process == "sp5" && event.incarnation == 1);
    let (dropped, ready) = (of_new_store(Kind::Dropped).unwrap(), of_new_store(Kind::Ready).unwrap());
    assert!(dropped.time_ns < ready.time_ns && ready.time_ns < 12_000_000_000, "{dropped} {ready}");
}

/// Parts of a content are written in the order in which they came, whatever each takes.
#[test]
fn large_contents_travel_without_a_pause() {
    let text = "
        duration = \"5s\"
        [fleet]
        storage_points = 3
        receivers = 0
        [disk]
        jitter = 1.0
        [[workload.publications]]
        at = \"1s\"
        to = \"sp1\"
        path = \"a\"
        size = \"3MiB\"";
    for seed in 0..5 {
        let (_, trace, verdict) = run(&scenario(text, seed));
        held(&verdict);
        let last = trace.of(Kind::Agreed).filter(|event| event.path.as_deref() == Some("a")).last().unwrap();
        let begun = trace.of(Kind::Invoke).next().unwrap();
        assert!(last.time_ns - begun.time_ns < 1_000_000_000, "{begun} {last}");
    }
}

/// A long simulation ends soon after it is asked to, and leaves no results.
#[test]
fn a_simulated_run_stops_when_it_is_asked_to() {
    let home = tempfile::tempdir().unwrap();
    let stop = Stop::new();
    let options = RunOptions {
        out: Some(home.path().join("results")),
        stop: stop.clone(),
        ..RunOptions::new(Program::this_executable().unwrap())
    };
    let mut scenario = Scenario::load("wan", &[]).unwrap();
    scenario.backend = BackendName::Simulated;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // In the middle of it: it takes some 20 s.
            while !home.path().join("results").exists() {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(300));
            stop.request();
        });
        let error = acms_testbed::run::run(&scenario, options).unwrap_err();
        assert!(matches!(error, RunError::Interrupted), "{error}");
    });
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
