//! Backups of a cluster that runs, and clusters that are made from them.

use crate::{Cluster, acms, noise, wait};
use acms_engine::{
    client::Fetched,
    protocol::{Path as ConfigPath, Uid},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

fn get(cluster: &Cluster, sp: u8, path: &str) -> Option<Fetched> {
    cluster.client(sp).get(&path.parse().unwrap(), &Default::default()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Some content file of a backup.
fn content_file(backup: &Path) -> PathBuf {
    let directory = fs::read_dir(backup.join("contents")).unwrap().next().unwrap().unwrap();
    fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_cluster_comes_back_from_a_backup_that_was_made_while_it_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let (backup, into) = (dir.path().join("backup"), dir.path().join("into"));
    let mut published: BTreeMap<String, (Uid, Vec<u8>)> = BTreeMap::new();
    // So few versions are kept that what the backup is of is overwritten, again and again, while it is made.
    let few = "\n[retention]\nversions = 2\n";
    let cluster = Cluster::start(2, &dir.path().join("old"), &["--cluster", "shop"], few);
    for number in 0..40 {
        let (path, content) = (format!("etc/f{number}"), noise(number, if number == 7 { 300_000 } else { 200 }));
        published.insert(path.clone(), (cluster.publish(1, &path, &content), content));
    }
    let older = cluster.publish(1, "etc/twice", b"older");
    let twice = cluster.publish(1, "etc/twice", b"newer");
    published.insert("etc/twice".into(), (twice, b"newer".to_vec()));
    let gone: ConfigPath = "etc/f3".parse().unwrap();
    assert!(cluster.client(1).delete(&gone, &Default::default()).unwrap().uid.is_some());
    published.remove("etc/f3");

    // Publications go on while the backup is made.
    let going = AtomicBool::new(true);
    let made = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut count = 0;
            while going.load(Ordering::Relaxed) {
                cluster.publish(2, "busy/f", &noise(1_000 + count, 300));
                count += 1;
            }
            count
        });
        std::thread::sleep(Duration::from_millis(200));
        let made = acms(&["backup", "--from", &cluster.url(1), "--to", text(&backup)]);
        going.store(false, Ordering::Relaxed);
        assert!(busy.join().unwrap() > 0);
        made
    });
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let again = acms(&["backup", "--from", &cluster.url(1), "--to", text(&backup)]);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
    assert!(acms(&receive(&cluster, &into)).status.success());
    drop(cluster);

    // Under the same addresses and name, with other disks: receivers go on.
    let restored = Cluster::start(2, &dir.path().join("new"), &["--restore", text(&backup)], "");
    for (path, (uid, content)) in &published {
        let read = get(&restored, 3, path).unwrap();
        assert!((read.uid, read.bytes.as_ref()) == (*uid, content.as_slice()), "{path}");
    }
    assert_eq!(get(&restored, 1, "etc/f3"), None);
    let version = restored.client(2).get_version(&"etc/twice".parse().unwrap(), older).unwrap().unwrap();
    assert_eq!(version.bytes.as_ref(), b"older");
    let newest = restored.publish(3, "etc/twice", b"newest");
    let greatest = published.values().map(|(uid, _)| *uid).max().unwrap();
    assert!(newest > greatest);
    wait(Duration::from_secs(30), || get(&restored, 1, "etc/twice").filter(|read| read.uid == newest));
    let received = acms(&receive(&restored, &into));
    assert!(received.status.success(), "{}", String::from_utf8_lossy(&received.stderr));
    assert_eq!(fs::read(into.join("etc/twice")).unwrap(), b"newest");
    assert!(fs::read(into.join("etc/f7")).unwrap() == noise(7, 300_000));
    assert!(!into.join("etc/f3").exists());
}

fn receive(cluster: &Cluster, into: &Path) -> Vec<&'static str> {
    let leak = |text: String| -> &'static str { text.leak() };
    let (url, into) = (leak(cluster.url(1)), leak(text(into).to_owned()));
    vec!["receive", "--source", url, "--subscribe", "etc", "--once", "--into", into]
}

#[test]
fn a_damaged_backup_is_refused_by_the_name_of_the_file_and_a_broken_one_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let cluster = Cluster::start(3, &dir.path().join("old"), &[], "");
    cluster.publish(1, "a", &noise(1, 100_000));
    cluster.publish(1, "b", b"small");
    // What an earlier attempt left, not whole: it is fetched again.
    let partial = dir.path().join("backup.partial");
    let hash = acms_engine::protocol::Hash::of(b"small").to_string();
    let left = partial.join("contents").join(&hash[..2]).join(&hash);
    fs::create_dir_all(left.parent().unwrap()).unwrap();
    fs::write(&left, b"smal").unwrap();
    let made = acms(&["backup", "--no-history", "--from", &cluster.url(2), "--to", text(&backup)]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(!partial.exists());
    drop(cluster);

    let files = [backup.join("backup.json"), backup.join("versions.jsonl"), content_file(&backup)];
    for file in files {
        let whole = fs::read(&file).unwrap();
        let mut spoilt = whole.clone();
        let middle = spoilt.len() / 2;
        spoilt[middle] ^= 0x80;
        fs::write(&file, &spoilt).unwrap();
        let new = dir.path().join("new");
        let refused = acms(&["init", text(&new), "--restore", text(&backup)]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(text(&file)), "{said}");
        assert!(!new.exists(), "something was made of it");
        fs::write(&file, whole).unwrap();
    }
    let lacking = content_file(&backup);
    fs::remove_file(&lacking).unwrap();
    let refused = acms(&["init", text(&dir.path().join("new")), "--restore", text(&backup)]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains(text(&lacking)));
}
