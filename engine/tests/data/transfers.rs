//! Large contents whose way is cut: what has come need not come again.

use crate::{Cluster, acms, noise, wait};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

const LEN: usize = 12 << 20;

/// Counts the bytes that pass each way, and once cuts the connection on which so many have passed one way.
#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    up_max: AtomicU64,
    down_max: AtomicU64,
    /// One byte of what comes down before the cut is another one.
    spoils: bool,
    cuts: AtomicU64,
}

fn proxy(to: String, counts: &Arc<Counts>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let counts = Arc::clone(counts);
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to.trim_start_matches("http://")) else { continue };
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let (up, down) = (Arc::clone(&counts), Arc::clone(&counts));
            std::thread::spawn(move || pass(near, far, &up, false));
            std::thread::spawn(move || pass(far_too, near_too, &down, true));
        }
    });
    url
}

fn pass(mut from: TcpStream, mut to: TcpStream, counts: &Counts, is_down: bool) {
    let (total, max) = if is_down { (&counts.down, &counts.down_max) } else { (&counts.up, &counts.up_max) };
    let (mut buffer, mut passed) = (vec![0; 64 << 10], 0);
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        total.fetch_add(len as u64, Ordering::Relaxed);
        let before = passed;
        passed += len as u64;
        let limit = max.load(Ordering::Relaxed);
        if counts.spoils && is_down && limit > 0 && (before..passed).contains(&(limit / 2)) {
            buffer[0] ^= 1;
        }
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
        if limit > 0 && passed >= limit {
            max.store(0, Ordering::Relaxed);
            counts.cuts.fetch_add(1, Ordering::Relaxed);
            // What was passed on arrives before the end does.
            std::thread::sleep(Duration::from_millis(300));
            break;
        }
    }
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

fn counts(up_max: usize, down_max: usize, spoils: bool) -> Arc<Counts> {
    let (up_max, down_max) = (AtomicU64::new(up_max as u64), AtomicU64::new(down_max as u64));
    Arc::new(Counts { up_max, down_max, spoils, ..Counts::default() })
}

#[test]
fn an_upload_and_a_download_that_were_cut_go_on_where_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(4, &dir.path().join("c"), &[], "");
    let (file, content) = (dir.path().join("large"), noise(1, LEN));
    fs::write(&file, &content).unwrap();
    let way = counts(LEN / 2, 0, false);
    let published = acms(&["publish", "--to", &proxy(cluster.url(1), &way), "large", file.to_str().unwrap()]);
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let up = way.up.load(Ordering::Relaxed);
    assert_eq!(way.cuts.load(Ordering::Relaxed), 1);
    assert!(up < (LEN + LEN / 4) as u64, "{up} bytes went up");
    assert!(cluster.client(1).get(&"large".parse().unwrap(), &Default::default()).unwrap().unwrap().bytes == content);

    for (name, spoils, most) in [("cut", false, LEN + LEN / 4), ("spoilt", true, 2 * LEN + LEN / 4)] {
        let way = counts(0, LEN / 2, spoils);
        let into = dir.path().join(name);
        let mut receiver = Command::new(env!("CARGO_BIN_EXE_acms"))
            .args(["receive", "--source", &proxy(cluster.url(2), &way), "--subscribe", "large", "--into"])
            .arg(&into)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait(Duration::from_secs(60), || fs::read(into.join("large")).ok().filter(|read| *read == content));
        receiver.kill().unwrap();
        receiver.wait().unwrap();
        let down = way.down.load(Ordering::Relaxed);
        assert_eq!(way.cuts.load(Ordering::Relaxed), 1, "{name}");
        assert!(down < most as u64, "{name}: {down} bytes came down");
        assert_eq!(down > (LEN + LEN / 4) as u64, spoils, "{name}: {down} bytes came down");
    }
}
