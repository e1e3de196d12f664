//! `acms ls`, `watch`, `outcome`, `status`.

use crate::cluster::{Cluster, Process, acms, command, printed, text};
use serde_json::Value;
use std::time::Duration;

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn ls_lists_what_is_visible_and_outcome_says_what_became_of_it() {
    let cluster = Cluster::start(1, 3);
    let url = cluster.url(2);
    assert_eq!(printed(&["ls", "--from", &url]), "", "an empty cluster is no error");
    let uid = cluster.publish(2, "edge/a", "123");
    cluster.publish(2, "edge/b/below", "y");
    cluster.publish(2, "edge/gone", "z");
    assert!(acms(&["delete", "--to", &url, "edge/gone"]).status.success());

    assert_eq!(printed(&["ls", "--from", &url, "edge"]), "edge/a\nedge/b/below\n");
    let long = printed(&["ls", "--from", &url, "--long", "--all"]);
    let line = |path: &str| long.lines().find(|line| line.ends_with(&format!("\t{path}"))).unwrap();
    assert_eq!(line("edge/a"), format!("{uid}\t3\t-\t-\tedge/a"));
    assert!(line("edge/gone").contains("\tdeleted\t"), "{long}");
    let lines = printed(&["--json", "ls", "--from", &url, "edge/a"]);
    assert_eq!((&json(&lines)["uid"], &json(&lines)["size"]), (&uid.as_str().into(), &3.into()));
    assert_eq!(acms(&["ls", "--from", &url, "edgy"]).status.code(), Some(1));

    let said = printed(&["outcome", "--from", &url, &uid]);
    assert!(said.starts_with(&format!("accepted\t{uid}\t")) && said.ends_with("\tedge/a\n"), "{said:?}");
    let file = cluster.config(1);
    printed(&["publish", "--to", &url, "--key", "k", "edge/c", file.to_str().unwrap()]);
    // A storage point that is gone is passed over.
    let dead = "http://127.0.0.1:1";
    let said = printed(&["--json", "outcome", "--from", &format!("{dead},{url}"), "--key", "k"]);
    assert_eq!((&json(&said)["outcome"], &json(&said)["agreed"]), (&"accepted".into(), &true.into()));
    assert_eq!(acms(&["outcome", "--from", &url, "--key", "k", "--publisher", "other"]).status.code(), Some(3));
    assert_eq!(acms(&["outcome", "--from", dead, "5.1.0"]).status.code(), Some(2));
}

/// Paths of so many lines of a watch.
fn paths(watch: &Process, count: usize) -> Vec<String> {
    (0..count).map(|_| json(&watch.line().unwrap())["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn watch_tells_each_change_once_through_restarts_and_from_another_storage_point() {
    let mut cluster = Cluster::start(2, 3);
    cluster.publish(1, "etc/before", "0");
    let from = format!("{},{}", cluster.url(1), cluster.url(2));
    let mut following = command(&["--json", "watch", "--from", &from, "--all", "etc"]);
    let watch = Process::start(following.stderr(std::fs::File::create(cluster.dir.path().join("said")).unwrap()));
    assert_eq!(paths(&watch, 1), ["etc/before"]);
    cluster.publish(1, "etc/a", "1");
    cluster.publish(3, "other/a", "1");
    cluster.publish(2, "etc/b", "1");
    assert_eq!(paths(&watch, 2), ["etc/a", "etc/b"]);

    // The one that is followed is gone for a while; the other knows no feed that goes on from there.
    cluster.kill(1);
    cluster.publish(2, "etc/c", "1");
    assert_eq!(paths(&watch, 1), ["etc/c"]);
    cluster.publish(3, "etc/a", "2");
    assert_eq!(paths(&watch, 1), ["etc/a"]);
    cluster.start_sp(1);
    cluster.kill(2);
    cluster.publish(3, "etc/d", "1");
    assert_eq!(paths(&watch, 1), ["etc/d"]);
    assert!(watch.is_silent_for(Duration::from_secs(2)), "nothing is told twice");
    let said = std::fs::read_to_string(cluster.dir.path().join("said")).unwrap();
    assert!(said.contains("listing everything"), "{said}");
}

#[test]
fn watch_ends_after_so_many_changes() {
    let cluster = Cluster::start(3, 3);
    let url = cluster.url(1);
    let uids = [cluster.publish(1, "a", "12"), cluster.publish(1, "b", "")];
    let output = acms(&["watch", "--from", &url, "--all", "--count", "2"]);
    assert!(output.status.success());
    let lines = text(&output.stdout);
    for (line, (uid, rest)) in lines.lines().zip([(&uids[0], "\t2\t-\ta"), (&uids[1], "\t0\t-\tb")]) {
        let (time, behind) = line.split_once('\t').unwrap();
        assert!(time.ends_with('Z') && time.len() == 24, "{time}");
        assert_eq!(behind, format!("{uid}{rest}"));
    }
    assert_eq!(lines.lines().count(), 2);
    assert_eq!(acms(&["watch", "--from", "http://127.0.0.1:1"]).status.code(), Some(2));
}

#[test]
fn status_finds_all_storage_points_from_one_and_says_what_is_wrong() {
    let mut cluster = Cluster::start(4, 3);
    cluster.publish(1, "a", "x");
    let url = cluster.url(2);
    // Just started: links and first rounds may take a moment.
    let started = std::time::Instant::now();
    let healthy = loop {
        let output = acms(&["status", "--from", &url]);
        if output.status.success() && text(&output.stdout).matches("ms").count() >= 9 {
            break text(&output.stdout);
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{output:?}");
        std::thread::sleep(Duration::from_millis(200));
    };
    for sp in 1..=3 {
        assert!(healthy.contains(&cluster.url(sp)), "{healthy}");
    }
    assert!(healthy.ends_with("healthy\n"), "{healthy}");

    cluster.kill(3);
    let output = acms(&["--json", "status", "--from", &url]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    let lines: Vec<Value> = said.lines().map(json).collect();
    let of = |sp: u64| lines.iter().find(|line| line["sp"] == sp).unwrap();
    let peer = |sp: u64, id: u64| of(sp)["peers"].as_array().unwrap().iter().find(|peer| peer["id"] == id).unwrap();
    assert!(peer(1, 2)["round_trip_us"].as_u64().unwrap() > 0, "{said}");
    assert!(peer(2, 1)["clock_offset_us"].as_i64().unwrap().abs() < 500_000, "{said}");
    assert!(of(1)["store"]["disk_bytes"].as_u64() > of(1)["store"]["free_bytes"].as_u64(), "{said}");
    let verdict = lines.last().unwrap();
    assert_eq!(verdict["verdict"], "degraded");
    assert!(verdict["findings"][0]["what"].as_str().unwrap().contains(&cluster.url(3)), "{said}");

    cluster.kill(1);
    let said = text(&acms(&["status", "--from", &url]).stdout);
    assert!(said.contains("nothing can be published") && said.ends_with("degraded\n"), "{said}");
}
