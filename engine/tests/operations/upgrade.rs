//! Programs of neighbouring versions in one cluster, and stores that earlier ones have written.

use crate::cluster::{ACMS, Cluster, PATIENCE, acms, printed, text};
use acms_engine::client::{Body, Client, ClientOptions, PublishOptions, Verdict};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const NEXT: (&str, &str) = ("ACMS_PROTOCOL_VERSION_MAX", "2");
const AFTER_NEXT: (&str, &str) = ("ACMS_PROTOCOL_VERSION_MAX", "3");

/// Publishes until it is told to stop; how many publications there were, all of them accepted. A storage point that ends
/// rejects what has not begun, for good, so that it can be published anew at another one.
fn publish_on(cluster: &Cluster, stop: &Arc<AtomicBool>) -> JoinHandle<usize> {
    let urls: Vec<String> = (1..=3).map(|sp| cluster.url(sp)).collect();
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let options = ClientOptions { retry_timeout: PATIENCE, ..ClientOptions::default() };
        let client = Client::from_texts(&urls, options).unwrap();
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let path = format!("p/{count}").parse().unwrap();
            let body = Body::Bytes(count.to_string().into_bytes().into());
            let result = client.publish(&path, &body, &PublishOptions::default()).unwrap();
            if result.remedy.as_deref() == Some("publish at another storage point") {
                continue;
            }
            assert_eq!(result.outcome, Verdict::Accepted, "{path}: {result:?}");
            count += 1;
            thread::sleep(Duration::from_millis(10));
        }
        count
    })
}

/// The version of the link that `sp` has to `other`.
fn version(cluster: &Cluster, sp: usize, other: usize) -> Option<u64> {
    let output = acms(&["--json", "status", "--only", "--from", &cluster.url(sp)]);
    let status: Value = serde_json::from_str(text(&output.stdout).lines().next()?).ok()?;
    let peers = status["peers"].as_array()?.clone();
    peers.iter().find(|peer| peer["id"] == other)?["protocol_version"].as_u64()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// `ACMS_OLD_BINARY` may name the program of an earlier commit, to begin with; else this one begins, as version 1.
#[test]
fn a_cluster_is_upgraded_one_by_one_while_publishers_go_on() {
    let old = std::env::var("ACMS_OLD_BINARY").unwrap_or_else(|_| ACMS.to_owned());
    let mut cluster = Cluster::lay_out(9, 3);
    (1..=3).for_each(|sp| cluster.spawn(sp, &old, &[]));
    (1..=3).for_each(|sp| cluster.wait_ready(sp));
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_on(&cluster, &stop);
    for sp in 1..=3 {
        cluster.stop(sp);
        cluster.spawn(sp, ACMS, &[NEXT]);
        cluster.wait_ready(sp);
        for other in (1..=3).filter(|other| *other != sp) {
            let expected = if other < sp { 2 } else { 1 };
            wait_until(&format!("sp{sp} and sp{other} have version {expected}"), || {
                version(&cluster, sp, other) == Some(expected)
            });
        }
    }
    // One goes back, and takes part.
    cluster.stop(2);
    cluster.spawn(2, &old, &[]);
    cluster.wait_ready(2);
    wait_until("sp3 talks to sp2 as that one does", || version(&cluster, 3, 2) == Some(1));
    // Two versions ahead is too far for it.
    cluster.stop(1);
    cluster.spawn(1, ACMS, &[AFTER_NEXT]);
    cluster.wait_ready(1);
    wait_until("sp1 and sp3 are neighbours", || version(&cluster, 1, 3) == Some(2));
    assert_eq!(version(&cluster, 1, 2), None);
    wait_until("it is said why", || cluster.log(1).contains("only neighbouring versions work together"));
    cluster.stop(1);
    cluster.spawn(1, ACMS, &[NEXT]);
    cluster.wait_ready(1);

    stop.store(true, Ordering::Relaxed);
    let count = publisher.join().unwrap();
    assert!(count > 10, "{count} publications");
    for sp in 1..=3 {
        wait_until(&format!("sp{sp} has all {count}"), || {
            printed(&["ls", "--from", &cluster.url(sp)]).lines().count() == count
        });
    }
}

/// Makes the files that a fixture lists: `file NAME LENGTH`, then what is not zero, as `OFFSET HEX`.
fn restore(fixture: &Path, directory: &Path) {
    fs::remove_dir_all(directory).unwrap();
    fs::create_dir(directory).unwrap();
    let mut file = None;
    for line in fs::read_to_string(fixture).unwrap().lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("file"), Some(name), Some(len)) => {
                let made = File::create(directory.join(name)).unwrap();
                made.set_len(len.parse().unwrap()).unwrap();
                file = Some(made);
            }
            (Some(offset), Some(hex), None) => {
                let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
                file.as_ref().unwrap().write_all_at(&bytes, offset.parse().unwrap()).unwrap();
            }
            _ => panic!("{line}"),
        }
    }
}

/// The store was written by the program of commit 310ea37, whose log ends with a kill.
#[test]
fn a_store_that_an_earlier_program_has_written_opens_with_all_that_is_in_it() {
    let mut cluster = Cluster::lay_out(10, 1);
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats/store-1.txt");
    restore(&fixture, &cluster.config(1).with_file_name("store"));
    cluster.start_sp(1);
    let url = cluster.url(1);
    let listed = |cluster: &Cluster| printed(&["ls", "--from", &cluster.url(1), "--long", "--all"]);
    let before = listed(&cluster);
    for (path, size, flags) in [
        ("etc/motd", 8, "-"),
        ("bin/run", 10, "executable"),
        ("etc/gone", 0, "deleted"),
        ("big", 100_000, "-"),
        ("etc/late", 5, "-"),
    ] {
        let ends = format!("\t{size}\t{flags}\t-\t{path}");
        assert!(before.lines().any(|line| line.ends_with(&ends)), "{path} in {before}");
    }
    assert_eq!(printed(&["get", "--from", &url, "etc/motd"]), "welcome\n");
    assert_eq!(printed(&["get", "--from", &url, "etc/late"]), "late\n");
    assert_eq!(printed(&["get", "--from", &url, "big"]), "x".repeat(4) + &"\0".repeat(99_996));
    assert!(printed(&["outcome", "--from", &url, "--key", "golden"]).starts_with("accepted\t"));
    cluster.publish(1, "etc/new", "new");
    cluster.stop(1);
    cluster.start_sp(1);
    let after = listed(&cluster);
    assert!(before.lines().all(|line| after.contains(line)) && after.contains("etc/new"), "{after}");
}
