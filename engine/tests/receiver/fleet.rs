//! Many receivers in one process.

use super::{
    end_to_end::{PATIENCE, Process, Server, files},
    source::Mood,
};
use std::{collections::BTreeMap, process::Command, time::Instant};

/// More than may keep their directories open.
const COUNT: u64 = 70;

/// Waits until every receiver has told each of `kinds` (and of this path); gives what each told last.
fn wait_for_each<const N: usize>(
    process: &Process,
    kinds: [&str; N],
    path: &str,
    count: u64,
) -> [BTreeMap<u64, serde_json::Value>; N] {
    let (mut told, end) = ([const { BTreeMap::new() }; N], Instant::now() + PATIENCE);
    while told.iter().any(|told| (told.len() as u64) < count) {
        let left = end.saturating_duration_since(Instant::now());
        let event = process.events.recv_timeout(left).unwrap_or_else(|_| {
            panic!("{kinds:?} {path}: only {:?}", told.each_ref().map(BTreeMap::len));
        });
        if let Some(at) = kinds.iter().position(|kind| event["kind"] == *kind)
            && (path.is_empty() || event["path"] == path)
        {
            told[at].insert(event["receiver"].as_u64().unwrap(), event);
        }
    }
    assert!(told.iter().all(|told| told.keys().copied().eq(1..=count)));
    told
}

fn wait_for_all(process: &Process, kind: &str, path: &str, count: u64) {
    wait_for_each(process, [kind], path, count);
}

fn servers() -> [Server; 2] {
    let servers = [Server::start(1), Server::start(2)];
    for server in &servers {
        for i in 0..30 {
            server.publish(&format!("etc/d{}/f{i}", i % 3), i + 1, Some(format!("content {i}").as_bytes()));
        }
        server.publish("etc/large", 40, Some(&vec![7; 300_000]));
    }
    servers
}

#[test]
fn many_receivers_in_one_process_each_keep_a_directory_and_a_state() {
    let [one, two] = servers();
    let into = tempfile::tempdir().unwrap();
    let count = COUNT.to_string();
    let process = Process::start(&[&one, &two], into.path(), &["--count", &count]);
    let [sources, _] = wait_for_each(&process, ["source", "current"], "", COUNT);
    let at_one = sources.values().filter(|event| event["source"] == one.url.as_str()).count();
    assert!((15..=55).contains(&at_one), "they spread: {at_one} of {COUNT}");
    for server in [&one, &two] {
        server.publish("etc/d0/f0", 100, Some(b"changed"));
        server.publish("etc/d1/f1", 101, None);
    }
    wait_for_all(&process, "applied", "etc/d1/f1", COUNT);
    one.source.lock().unwrap().mood = Mood::Down;
    two.publish("etc/new", 102, Some(b"from the other one"));
    wait_for_all(&process, "applied", "etc/new", COUNT);
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.child.id())).unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let locks = open.filter(|file| file.starts_with(into.path())).count();
    assert!(locks <= COUNT as usize + 50, "{locks} files of directories are open, that is more than their locks");
    assert_eq!(process.stop(), 0);
    let expected = files(&into.path().join("1"));
    assert_eq!((expected.len(), &expected["etc/d0/f0"][..]), (31, &b"changed"[..]));
    for number in 2..=COUNT {
        assert!(files(&into.path().join(number.to_string())) == expected, "receiver {number}");
    }
    // Each goes on from its own state, alone or with the others.
    let alone = Process::start(&[&two], &into.path().join("7"), &["--once"]);
    alone.wait_for("current", "");
    assert!(alone.events.iter().all(|event| event["kind"] != "verified"));
}

#[test]
fn receivers_that_discard_follow_like_the_others_and_write_nothing() {
    let [one, two] = servers();
    let here = tempfile::tempdir().unwrap();
    let events = here.path().join("events");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acms"));
    command.current_dir(here.path()).args(["receive", "--subscribe", "etc", "--discard", "--once", "--count", "5"]);
    command.args(["--source", &one.url, &two.url, "--events"]).arg(&events);
    assert!(command.status().unwrap().success());
    let text = std::fs::read_to_string(&events).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"verified\"")).count(), 5 * 31);
    assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 1);
    let process = Process::start_with(&[&one], &["--discard", "--count", "5"]);
    wait_for_all(&process, "current", "", 5);
    one.publish("etc/new", 100, Some(b"new"));
    wait_for_all(&process, "verified", "etc/new", 5);
    assert_eq!(process.stop(), 0);
}

#[test]
fn more_receivers_than_open_files_are_refused_with_what_to_do() {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 500; exec \"$0\" receive --source http://127.0.0.1:1 --subscribe a --discard --count 600",
    ]);
    let output = command.arg(env!("CARGO_BIN_EXE_acms")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("600 receivers need at least 1264 open files") && text.contains("ulimit"), "{text}");
}

#[test]
fn receivers_with_no_open_file_to_spare_look_at_other_sources_all_the_same() {
    let ([one, two], three) = (servers(), Server::start(3));
    for i in 0..30 {
        three.publish(&format!("etc/d{}/f{i}", i % 3), i + 1, Some(format!("content {i}").as_bytes()));
    }
    // A feed and one more connection for each.
    let script = format!(
        "ulimit -n {}; exec \"$0\" receive --source {} {} {} --subscribe etc --discard --count 40 --events -",
        64 + 40 * 2,
        one.url,
        two.url,
        three.url
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_acms")]);
    let process = Process::of(command);
    wait_for_all(&process, "current", "", 40);
    let looked = || {
        let asked = [&one, &two, &three].map(|server| server.asked.lock().unwrap().clone()).concat();
        asked.iter().filter(|target| *target == "/v1/snapshot").count()
    };
    let end = Instant::now() + PATIENCE;
    while looked() < 40 * 7 {
        assert!(Instant::now() < end, "{} snapshots were asked for", looked());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let problems: Vec<_> = process.events.try_iter().filter(|event| event["kind"] == "error").collect();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(process.stop(), 0);
}
