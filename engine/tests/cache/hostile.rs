//! Caches that lie between a receiver and a storage point: the receiver converges by its other source, exposes nothing that
//! was not published, and never goes back.

use super::{
    http::ask,
    origin::{Origin, Request, refusal},
    world::{World, hash, noise, publish},
};
use acms_engine::protocol::Uid;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::Receiver,
    },
    time::Duration,
};

/// An answer of the storage point as a cache passes it on, without the connection.
fn passed_on(status: u16, control: &str, body: &[u8], len: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nCache-Control: {control}\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\
         Connection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lie {
    Corrupt,
    Truncated,
    CutWithLength,
    Stale,
    RolledBack,
    Mixed,
}

/// A cache before `origin` that lies in this way, and counts how often.
fn liar(origin: String, lie: Lie, told: Arc<AtomicUsize>) -> Origin {
    let earlier: Mutex<BTreeMap<String, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let (snapshots, turn): (Mutex<Vec<Vec<u8>>>, AtomicUsize) = (Mutex::default(), AtomicUsize::new(0));
    Origin::start(move |request: &Request| {
        let target = &request.target;
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        let lie = match lie {
            Lie::Mixed => [Lie::Corrupt, Lie::Stale, Lie::Truncated, Lie::RolledBack, Lie::CutWithLength][turn % 5],
            lie => lie,
        };
        // A stale cache never asks twice for the same, whatever it may keep.
        if lie == Lie::Stale
            && target == "/v1/snapshot"
            && let Some(old) = earlier.lock().unwrap().get(target)
        {
            told.fetch_add(1, Ordering::Relaxed);
            return old.clone();
        }
        let answer = ask(&origin, "GET", target, &[], b"");
        let control = answer.header("cache-control").unwrap_or("no-store").to_owned();
        let (mut body, mut len) = (answer.body.clone(), answer.body.len());
        let is_snapshot = target == "/v1/snapshot";
        let middle = body.len() / 2;
        match lie {
            Lie::Corrupt if answer.status == 200 && !body.is_empty() => {
                // Nothing but the hash tells a damaged object, or a damaged content that comes with changes. The rest has
                // no hash until snapshots are signed: there only damage to its form can be seen.
                const INLINE: &[u8] = b"\"inline\":\"";
                let inline = body.windows(INLINE.len()).position(|window| window == INLINE);
                match (target.starts_with("/v1/objects/"), inline.map(|at| at + INLINE.len())) {
                    (true, _) => body[middle] ^= 1,
                    (false, Some(at)) if body[at] != b'"' => body[at] = if body[at] == b'A' { b'B' } else { b'A' },
                    (false, _) => body[middle] = 0xff,
                }
                told.fetch_add(1, Ordering::Relaxed);
            }
            Lie::Truncated | Lie::CutWithLength if answer.status == 200 && body.len() > 1 => {
                body.truncate(middle);
                len = if lie == Lie::Truncated { middle } else { len };
                told.fetch_add(1, Ordering::Relaxed);
            }
            Lie::RolledBack if is_snapshot && answer.status == 200 => {
                let mut snapshots = snapshots.lock().unwrap();
                snapshots.push(body.clone());
                let back = turn % 3;
                if back > 0 && snapshots.len() > back {
                    body = snapshots[snapshots.len() - 1 - back].clone();
                    len = body.len();
                    told.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        let answer = passed_on(answer.status, &control, &body, len);
        earlier.lock().unwrap().entry(target.clone()).or_insert_with(|| answer.clone());
        answer
    })
}

/// Hashes and UIDs of a receiver's files in the order in which it put them in place; the process still runs.
fn follow(events: &Receiver<Value>, seen: &mut Vec<(String, String, String)>) {
    while let Ok(event) = events.recv_timeout(Duration::from_millis(50)) {
        if event["kind"] == "applied" {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            seen.push((text("path"), text("uid"), text("hash")));
        }
    }
}

fn contents(round: u64) -> [(&'static str, Vec<u8>); 3] {
    [("a", noise(300, round)), ("b/large", noise(300_000, 1_000 + round)), ("b/middle", noise(9_000, 2_000 + round))]
}

fn a_lie_is_seen_through(test: u8, lie: Lie, more: &[&str]) {
    let world = World::new(test);
    let (_sp, origin) = world.storage_point();
    let told = Arc::new(AtomicUsize::new(0));
    let liar = liar(origin.clone(), lie, Arc::clone(&told));
    // The honest source is there once the liar has lied, so that there is no way round it.
    let (behind, has_lied) = (origin.clone(), Arc::clone(&told));
    let honest = Origin::start(move |request| {
        if has_lied.load(Ordering::Relaxed) == 0 {
            return refusal(503);
        }
        let answer = ask(&behind, "GET", &request.target, &[], b"");
        passed_on(answer.status, answer.header("cache-control").unwrap_or("no-store"), &answer.body, answer.body.len())
    });
    let mut published = BTreeSet::new();
    let mut publish_round = |round| {
        for (path, content) in contents(round) {
            publish(&origin, path, &content);
            published.insert((path.to_owned(), hash(&content)));
        }
    };
    publish_round(0);
    let receiver = world.receiver("r", &[&liar.url, &honest.url], more);
    let mut seen = Vec::new();
    let mut round = 0;
    while round < 5 || told.load(Ordering::Relaxed) == 0 {
        round += 1;
        assert!(round < 200, "the lie is never told");
        publish_round(round);
        follow(&receiver.events, &mut seen);
    }
    for (path, content) in contents(round) {
        world.wait_for_file("r", path, &content);
    }
    follow(&receiver.events, &mut seen);
    let mut newest: BTreeMap<&str, Uid> = BTreeMap::new();
    for (path, uid, hash) in &seen {
        assert!(published.contains(&(path.clone(), hash.clone())), "{lie:?}: {path} was never published with {hash}");
        let uid: Uid = uid.parse().unwrap();
        let earlier = newest.insert(path, uid);
        assert!(earlier.is_none_or(|earlier| earlier < uid), "{lie:?}: {path} went back to {uid}");
    }
    assert_eq!(newest.len(), 3, "{seen:?}");
}

#[test]
fn corrupt_answers() {
    a_lie_is_seen_through(30, Lie::Corrupt, &[]);
}

#[test]
fn answers_that_end_early_with_a_length_that_fits() {
    a_lie_is_seen_through(31, Lie::Truncated, &[]);
}

#[test]
fn answers_that_break_off() {
    a_lie_is_seen_through(32, Lie::CutWithLength, &[]);
}

#[test]
fn a_snapshot_that_stays_the_same() {
    a_lie_is_seen_through(33, Lie::Stale, &["--poll", "300ms"]);
}

#[test]
fn snapshots_of_earlier_times() {
    a_lie_is_seen_through(34, Lie::RolledBack, &["--poll", "300ms"]);
}

#[test]
fn all_of_it_by_turns() {
    a_lie_is_seen_through(35, Lie::Mixed, &[]);
}
