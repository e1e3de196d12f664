//! Earlier versions of a path: listed, read, published again, and let go.

use crate::{Cluster, acms, noise, wait};
use acms_engine::{
    client::{GetOptions, PublishOptions},
    protocol::Uid,
};
use std::time::Duration;

const LARGE: usize = 100_000;

#[test]
fn the_last_versions_are_kept_and_one_of_them_is_published_again() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(0, &dir.path().join("c"), &[], "\n[retention]\nversions = 3\n");
    let path = "etc/app.conf".parse().unwrap();
    // A storage point keeps the versions that it has seen agreed: each is shown by all before the next comes.
    let uids: Vec<Uid> = (0..5)
        .map(|number| {
            let content = noise(number, if number == 4 { LARGE } else { 500 });
            let uid = cluster.publish(if number == 4 { 2 } else { 1 }, "etc/app.conf", &content);
            let shown = |sp: u8| cluster.client(sp).get(&path, &GetOptions::default()).unwrap();
            (1..=3).for_each(|sp| wait(Duration::from_secs(30), || shown(sp).filter(|read| read.uid == uid).map(drop)));
            uid
        })
        .collect();
    for sp in 1..=3 {
        let history = wait(Duration::from_secs(30), || {
            cluster.client(sp).history(&path).unwrap().filter(|history| history.versions[0].entry.uid == uids[4])
        });
        let kept: Vec<Uid> = history.versions.iter().map(|version| version.entry.uid).collect();
        assert_eq!(kept, [uids[4], uids[3], uids[2]], "at {sp}");
        assert!(history.versions.iter().all(|version| version.publisher == "test"));
        let read = cluster.client(sp).get_version(&path, uids[2]).unwrap().unwrap();
        assert_eq!((read.uid, read.bytes.as_ref()), (uids[2], noise(2, 500).as_slice()));
        assert_eq!(cluster.client(sp).get_version(&path, uids[1]).unwrap(), None);
    }
    assert_eq!(cluster.client(1).history(&"etc/other".parse().unwrap()).unwrap(), None);

    // By the commands: back to a small version, then forth to a large one, at another storage point.
    let listed = acms(&["history", "--json", "--from", &cluster.url(3), "etc/app.conf"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 3);
    for (sp, version, content) in [(3, uids[3], noise(3, 500)), (1, uids[4], noise(4, LARGE))] {
        let old = version.to_string();
        let again = acms(&["publish", "--json", "--to", &cluster.url(sp), "--uid", &old, "etc/app.conf"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
        let result: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
        let uid = result["uid"].as_str().unwrap();
        assert!(uid.parse::<Uid>().unwrap() > uids[4]);
        let got = acms(&["get", "--from", &cluster.url(2), "--at-least", uid, "etc/app.conf"]);
        assert!(got.stdout == content, "version {old} came back as something else");
        let got = acms(&["get", "--from", &cluster.url(sp), "--uid", uid, "etc/app.conf"]);
        assert!(got.stdout == content);
    }
    // What is not kept is refused, and nothing is published.
    let options = PublishOptions::default();
    let refused = cluster.client(1).publish_again(&path, uids[0], &options).unwrap();
    assert!(refused.reason.as_ref().is_some_and(|reason| reason.contains("not kept")), "{refused:?}");
    let gone = acms(&["get", "--from", &cluster.url(1), "--uid", &uids[0].to_string(), "etc/app.conf"]);
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn what_nothing_needs_any_more_leaves_the_disks_of_a_cluster_that_is_idle() {
    let dir = tempfile::tempdir().unwrap();
    let config = "\n[limits]\npublish = \"2s\"\n[retention]\nversions = 2\nroots = \"6s\"\n";
    let cluster = Cluster::start(1, &dir.path().join("c"), &[], config);
    for number in 0..6 {
        cluster.publish(1, "large", &noise(number, LARGE));
    }
    wait(Duration::from_secs(30), || (cluster.large_contents(2) > 2).then_some(()));
    for sp in 1..=3 {
        wait(Duration::from_secs(90), || (cluster.large_contents(sp) == 2).then_some(()));
    }
    let read = cluster.client(3).get(&"large".parse().unwrap(), &Default::default()).unwrap().unwrap();
    assert!(read.bytes == noise(5, LARGE));
}
