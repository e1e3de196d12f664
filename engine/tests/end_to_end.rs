//! A cluster of five real processes on loopback: what publishers and plain HTTP clients see of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const ACMS: &str = env!("CARGO_BIN_EXE_acms");
/// A storage point that does not serve so long after its start never will.
const READY_TIME: Duration = Duration::from_secs(120);
/// Nothing takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Five storage points; their processes end with this.
struct Cluster {
    dir: tempfile::TempDir,
    base: String,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    fn start(test: u8) -> Cluster {
        Cluster::start_with(test, &[])
    }

    fn start_with(test: u8, init: &[&str]) -> Cluster {
        Cluster::start_some(test, 5, init)
    }

    /// `count` storage points.
    fn start_some(test: u8, count: usize, more: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let base = format!("127.{}.{}.", 80 + test, 1 + pid % 250);
        let init = Command::new(ACMS)
            .args(["init", dir.path().join("c").to_str().unwrap(), "--cluster", "e2e"])
            .args(["--storage-points", &count.to_string()])
            .args(["--address-base", &format!("{base}0")])
            .args(more)
            .output()
            .unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let mut cluster = Cluster { dir, base, processes: (0..count).map(|_| None).collect() };
        (1..=count).for_each(|sp| cluster.start_sp(sp));
        cluster
    }

    fn config(&self, sp: usize) -> PathBuf {
        self.dir.path().join(format!("c/sp{sp}/acms.toml"))
    }

    fn addr(&self, sp: usize) -> String {
        format!("{}{sp}:7400", self.base)
    }

    /// Starts a storage point and waits until it says that it serves.
    fn start_sp(&mut self, sp: usize) {
        let mut child = Command::new(ACMS)
            .args(["storage-point", "--exit-with-parent", "--events", "-", "--config"])
            .arg(self.config(sp))
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.dir.path().join(format!("log{sp}"))).unwrap())
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        self.processes[sp - 1] = Some(child);
        let (ready, is_ready) = std::sync::mpsc::channel();
        // Somebody has to read, or the storage point stops.
        std::thread::spawn(move || {
            let is_it = |line: &String| line.contains("\"kind\":\"ready\"");
            events.lines().map_while(Result::ok).filter(is_it).for_each(|_| ready.send(()).unwrap_or_default());
        });
        let became_ready = is_ready.recv_timeout(READY_TIME);
        assert!(became_ready.is_ok(), "sp{sp} ended, or is not ready; log: {}", self.log(sp));
    }

    fn log(&self, sp: usize) -> String {
        fs::read_to_string(self.dir.path().join(format!("log{sp}"))).unwrap()
    }

    /// The disk of a dead storage point is lost; it gets a new, empty store.
    fn replace(&self, sp: usize) {
        let config = self.config(sp);
        fs::remove_dir_all(config.with_file_name("store")).unwrap();
        let replaced = Command::new(ACMS).args(["replace", "--config"]).arg(&config).output().unwrap();
        assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
    }

    fn kill(&mut self, sp: usize) {
        let mut child = self.processes[sp - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn get(&self, sp: usize, target: &str, headers: &[&str]) -> Answer {
        request(&self.addr(sp), "GET", target, headers, b"")
    }

    fn put(&self, sp: usize, path: &str, content: &[u8], headers: &[&str]) -> Answer {
        request(&self.addr(sp), "PUT", &format!("/v1/config/{path}"), headers, content)
    }

    /// Publishes until it is accepted, and gives the UID.
    fn publish(&self, sp: usize, path: &str, content: &[u8]) -> String {
        let answer = self.put(sp, path, content, &[]);
        assert_eq!((answer.status, answer.header("acms-outcome")), (201, Some("accepted")), "{}", answer.text());
        answer.header("acms-uid").unwrap().to_owned()
    }

    /// Waits until `sp` serves `content` under `path`.
    fn wait_for(&self, sp: usize, path: &str, content: &[u8], limit: Duration) {
        let started = Instant::now();
        loop {
            let answer = self.get(sp, &format!("/v1/config/{path}"), &[]);
            if answer.status == 200 && answer.body == content {
                return;
            }
            assert!(started.elapsed() < limit, "sp{sp} still answers {} for {path}", answer.status);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.lines().filter_map(|line| line.split_once(": "));
        found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    fn text(&self) -> String {
        format!("{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

fn request(addr: &str, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: acms\r\nConnection: close\r\n");
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    if method == "PUT" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    raw(addr, &[head.as_bytes(), b"\r\n", body].concat())
}

/// Sends bytes as they are and reads until the other end closes.
fn raw(addr: &str, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    parse(&answer)
}

fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_tool(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

/// Takes connections at `near` and passes on to `far` what comes, at 16 MB/s each; what comes back at once.
fn slow_link(near: &str, far: String) {
    fn pass(mut from: TcpStream, mut to: TcpStream, pause: Duration) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..len]).is_err() {
                break;
            }
            std::thread::sleep(pause * len as u32 / buffer.len() as u32);
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
        let _ = from.shutdown(std::net::Shutdown::Both);
    }
    let listener = std::net::TcpListener::bind(near).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(other) = TcpStream::connect(&far) else { continue };
            let (back, to) = (other.try_clone().unwrap(), stream.try_clone().unwrap());
            std::thread::spawn(move || pass(stream, other, Duration::from_millis(4)));
            std::thread::spawn(move || pass(back, to, Duration::ZERO));
        }
    });
}

#[test]
fn contents_of_all_sizes_read_back_exactly_elsewhere() {
    let cluster = Cluster::start(0);
    for (len, path) in [(0, "s/none"), (1, "s/one"), ((64 << 10) + 1, "s/more"), (20 << 20, "s/large")] {
        let content = noise(len);
        let uid = cluster.publish(1, path, &content);
        let read = cluster.get(4, &format!("/v1/config/{path}"), &[&format!("ACMS-At-Least: {uid}")]);
        assert_eq!((read.status, read.header("acms-uid")), (200, Some(uid.as_str())), "{path}: {}", read.head);
        assert!(read.body == content, "{path} differs");
        let etag = format!("If-None-Match: \"{uid}\"");
        let unchanged = cluster.get(4, &format!("/v1/config/{path}"), &[&etag]);
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        let hash = acms_engine::protocol::Hash::of(&content);
        let whole = cluster.get(4, &format!("/v1/objects/{hash}"), &[]);
        assert!(whole.status == 200 && whole.body == content, "object of {path}: {}", whole.head);
        if len > 100 {
            let part = cluster.get(4, &format!("/v1/objects/{hash}"), &["Range: bytes=50-99"]);
            assert_eq!((part.status, part.body.as_slice()), (206, &content[50..100]));
            let beyond = cluster.get(4, &format!("/v1/objects/{hash}"), &[&format!("Range: bytes={len}-")]);
            assert_eq!((beyond.status, beyond.header("cache-control")), (416, Some("no-store")));
        }
    }
    let chunked =
        b"PUT /v1/config/s/chunked HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
        \r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    assert_eq!(raw(&cluster.addr(2), chunked).status, 201);
    cluster.wait_for(3, "s/chunked", b"hello world", Duration::from_secs(5));
    let deleted = request(&cluster.addr(1), "DELETE", "/v1/config/s/chunked", &[], b"");
    assert_eq!(deleted.status, 201, "{}", deleted.text());
    let uid = deleted.header("acms-uid").unwrap();
    let gone = cluster.get(5, "/v1/config/s/chunked", &[&format!("ACMS-At-Least: {uid}")]);
    assert_eq!((gone.status, gone.header("cache-control")), (404, Some("no-store")));
}

#[test]
fn curl_and_wget_work_unmodified() {
    let cluster = Cluster::start(1);
    let file = cluster.dir.path().join("file");
    fs::write(&file, noise(3 << 20)).unwrap();
    let url = |sp: usize| format!("http://{}/v1/config/tools/file", cluster.addr(sp));
    if has_tool("curl") {
        let run = |args: &[&str]| Command::new("curl").args(["-sS", "--fail", "-m", "30"]).args(args).output().unwrap();
        let put = run(&["-T", file.to_str().unwrap(), &url(1)]);
        assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
        cluster.wait_for(2, "tools/file", &fs::read(&file).unwrap(), Duration::from_secs(10));
        assert!(run(&[&url(2)]).stdout == fs::read(&file).unwrap());
    } else {
        cluster.publish(1, "tools/file", &fs::read(&file).unwrap());
    }
    if has_tool("wget") {
        cluster.wait_for(3, "tools/file", &fs::read(&file).unwrap(), Duration::from_secs(10));
        let got = Command::new("wget").args(["-q", "-O", "-", &url(3)]).output().unwrap();
        assert!(got.stdout == fs::read(&file).unwrap());
    }
}

#[test]
fn a_minority_of_dead_storage_points_is_borne_and_a_majority_is_told_honestly() {
    let mut cluster = Cluster::start(2);
    let before = cluster.publish(1, "a/before", b"before");
    cluster.kill(4);
    cluster.kill(5);
    cluster.publish(2, "a/two-dead", b"two dead");
    cluster.kill(3);
    let started = Instant::now();
    let refused = cluster.put(1, "a/three-dead", b"three dead", &["Idempotency-Key: k"]);
    // A storage point answers within 9 s.
    assert!(started.elapsed() < Duration::from_secs(30), "took {:?}", started.elapsed());
    assert!([503, 202].contains(&refused.status), "{}", refused.text());
    let word = if refused.status == 503 { "rejected" } else { "undetermined" };
    assert_eq!(refused.header("acms-outcome"), Some(word));
    assert!(refused.json()["reason"].as_str().unwrap().len() > 10 && refused.json()["remedy"].is_string());
    let read = cluster.get(1, "/v1/config/a/before", &[]);
    assert_eq!((read.status, read.header("acms-uid")), (200, Some(before.as_str())));
    (3..=5).for_each(|sp| cluster.start_sp(sp));
    cluster.wait_for(5, "a/two-dead", b"two dead", Duration::from_secs(40));
    cluster.wait_for(4, "a/before", b"before", Duration::from_secs(40));
    let retried = cluster.put(3, "a/three-dead", b"three dead", &["Idempotency-Key: k"]);
    assert_eq!(retried.status, 201, "{}", retried.text());
    (1..=5).for_each(|sp| cluster.wait_for(sp, "a/three-dead", b"three dead", Duration::from_secs(40)));
}

#[test]
fn a_lost_disk_is_replaced_and_filled_by_the_others() {
    for (test, mode) in [(6, "fused"), (7, "two-phase")] {
        let mut cluster = Cluster::start_with(test, &["--mode", mode]);
        let large: Vec<u8> = (0..300_000u32).map(|i| (i * 7) as u8).collect();
        cluster.publish(1, "lost/small", b"small");
        cluster.publish(2, "lost/large", &large);
        let first =
            cluster.put(3, "lost/keyed", b"keyed", &["Idempotency-Key: k"]).header("acms-uid").unwrap().to_owned();
        cluster.kill(3);
        let store = cluster.config(3).with_file_name("store");
        fs::remove_dir_all(&store).unwrap();
        let config = cluster.config(3);
        let refused = Command::new(ACMS).args(["storage-point", "--config"]).arg(&config).output().unwrap();
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("acms replace"));
        cluster.publish(4, "lost/meanwhile", b"meanwhile");

        let replaced = Command::new(ACMS).args(["replace", "--config"]).arg(&config).output().unwrap();
        assert!(replaced.status.success(), "{}", String::from_utf8_lossy(&replaced.stderr));
        let again = Command::new(ACMS).args(["replace", "--config"]).arg(&config).output().unwrap();
        assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not empty"));
        cluster.start_sp(3);
        cluster.wait_for(3, "lost/small", b"small", Duration::from_secs(10));
        cluster.wait_for(3, "lost/large", &large, Duration::from_secs(10));
        cluster.wait_for(3, "lost/meanwhile", b"meanwhile", Duration::from_secs(10));
        let retried = cluster.put(3, "lost/keyed", b"keyed", &["Idempotency-Key: k"]);
        assert_eq!((retried.status, retried.header("acms-uid")), (201, Some(first.as_str())), "{mode}");
        let uid = cluster.publish(3, "lost/after", b"after");
        assert!(uid.ends_with(".3.1"), "the UID names the new store: {uid}");
        let snapshot = cluster.get(3, "/v1/snapshot", &[]).json();
        assert!(snapshot["incarnation"].as_str().unwrap().starts_with("1-"), "{snapshot}");
    }
}

#[test]
fn a_store_larger_than_what_a_link_may_queue_is_filled_while_publishers_go_on() {
    let mut cluster = Cluster::start_some(20, 3, &[]);
    (1..=3).for_each(|sp| cluster.kill(sp));
    let (near, far) = (format!("{}103:7500", cluster.base), format!("{}3:7500", cluster.base));
    slow_link(&near, far.clone());
    for sp in 1..=2 {
        let config = fs::read_to_string(cluster.config(sp)).unwrap();
        assert!(config.contains(&far));
        fs::write(cluster.config(sp), config.replace(&far, &near)).unwrap();
        cluster.start_sp(sp);
    }
    // 110 MB in all, in contents that the log keeps.
    let content = |i: usize| noise(12_000 + i * 37 % 53_000);
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let publish = |i: usize| cluster.publish(1 + i % 2, &format!("big/{i}"), &content(i));
            scope.spawn(move || (publisher..2_900).step_by(4).for_each(|i| drop(publish(i))));
        }
    });
    cluster.replace(3);
    let is_joining = std::sync::atomic::AtomicBool::new(true);
    let (base, mut overwritten) = (cluster.base.clone(), 0);
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            let mut count = 0;
            while (is_joining.load(std::sync::atomic::Ordering::Relaxed) && count < 4_000) || count < 100 {
                let (path, content) = (format!("/v1/config/big/{}", count % 50), content(count + 1));
                let answer = request(&format!("{base}1:7400"), "PUT", &path, &[], &content);
                assert_eq!(answer.status, 201, "{}", answer.text());
                count += 1;
                // Offers go first: at full speed they would take all of the slow links.
                std::thread::sleep(Duration::from_millis(30));
            }
            count
        });
        cluster.start_sp(3);
        is_joining.store(false, std::sync::atomic::Ordering::Relaxed);
        overwritten = publisher.join().unwrap();
    });
    for sp in 1..=3 {
        assert!(!cluster.log(sp).contains("too much waits"), "{}", cluster.log(sp));
    }
    for i in (50..2_900).step_by(50) {
        cluster.wait_for(3, &format!("big/{i}"), &content(i), Duration::from_secs(10));
    }
    for count in overwritten - 50..overwritten {
        cluster.wait_for(3, &format!("big/{}", count % 50), &content(count + 1), Duration::from_secs(10));
    }
}

#[test]
fn a_damaged_content_is_noticed_and_fetched_again() {
    let mut cluster = Cluster::start(9);
    let content = b"a content that the disk will spoil ".repeat(100);
    cluster.publish(1, "rot/a", &content);
    cluster.wait_for(3, "rot/a", &content, Duration::from_secs(5));
    // The last commit of a log that was not closed is a torn write if its content is wrong, and does not count as damaged.
    cluster.publish(1, "rot/later", b"later");
    cluster.wait_for(3, "rot/later", b"later", Duration::from_secs(5));
    cluster.kill(3);
    let store = cluster.config(3).with_file_name("store");
    let mut spoilt = 0;
    for file in fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path()) {
        let mut bytes = fs::read(&file).unwrap();
        if let Some(at) = bytes.windows(content.len()).position(|window| window == content) {
            bytes[at + 1_000] ^= 0x10;
            fs::write(&file, bytes).unwrap();
            spoilt += 1;
        }
    }
    assert_eq!(spoilt, 1, "the content lies in one segment");
    cluster.start_sp(3);
    // What a killed process knew agreed it may have to learn again: until then it does not show the path.
    let deadline = Instant::now() + Duration::from_secs(10);
    let first = loop {
        let answer = cluster.get(3, "/v1/config/rot/a", &[]);
        if answer.status != 404 || Instant::now() > deadline {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // It may have been noticed, and mended, before anybody asked.
    if first.status == 200 {
        assert_eq!(first.body, content, "nothing wrong is ever served");
    } else {
        assert_eq!((first.status, first.header("cache-control")), (500, Some("no-store")));
    }
    cluster.wait_for(3, "rot/a", &content, Duration::from_secs(10));
    let metrics = cluster.get(3, "/metrics", &[]).text();
    assert!(metrics.contains("acms_contents_damaged_total 1"), "{metrics}");
}

#[test]
fn a_large_content_that_was_damaged_or_lost_while_a_process_was_down_is_never_served_and_fetched_again() {
    let mut cluster = Cluster::start(13);
    let (rotten, lost) = (noise(3_000_000), noise(200_000));
    for (path, content) in [("rot/large", &rotten), ("rot/lost", &lost)] {
        cluster.publish(1, path, content);
        cluster.wait_for(3, path, content, Duration::from_secs(5));
    }
    cluster.kill(3);
    let file = |content: &[u8]| {
        let name = format!("store/content-{}", acms_engine::protocol::Hash::of(content));
        cluster.config(3).with_file_name(name)
    };
    let mut bytes = fs::read(file(&rotten)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(file(&rotten), bytes).unwrap();
    fs::remove_file(file(&lost)).unwrap();
    cluster.start_sp(3);
    let object = format!("/v1/objects/{}", acms_engine::protocol::Hash::of(&rotten));
    let first = cluster.get(3, &object, &["Range: bytes=0-9"]);
    assert_eq!((first.status, first.header("cache-control")), (500, Some("no-store")), "not even a part that is good");
    cluster.wait_for(3, "rot/large", &rotten, Duration::from_secs(15));
    cluster.wait_for(3, "rot/lost", &lost, Duration::from_secs(15));
    let again = cluster.get(3, &format!("{object}?again=1"), &["Range: bytes=0-9"]);
    assert_eq!((again.status, &again.body[..]), (206, &rotten[..10]));
    let metrics = cluster.get(3, "/metrics", &[]).text();
    assert!(metrics.contains("acms_contents_damaged_total 2"), "{metrics}");
}

#[test]
fn as_of_follows_the_clock_and_stands_still_without_a_quorum() {
    let mut cluster = Cluster::start(8);
    cluster.publish(1, "fresh/a", b"a");
    let as_of = |cluster: &Cluster| cluster.get(1, "/v1/snapshot", &[]).json()["as_of_us"].as_u64().unwrap();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(3));
        wait_until("as-of is under 3 s old", || {
            let as_of = as_of(&cluster);
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
            assert!(as_of <= now, "it is ahead of the clock");
            now - as_of < 3_000_000
        });
    }
    (3..=5).for_each(|sp| cluster.kill(sp));
    let mut last = as_of(&cluster);
    wait_until("two of five are no quorum, so as-of stands still", || {
        std::thread::sleep(Duration::from_secs(3));
        let before = std::mem::replace(&mut last, as_of(&cluster));
        last == before
    });
}

#[test]
fn held_requests_are_answered_by_the_change_that_they_wait_for() {
    let cluster = Cluster::start(3);
    cluster.publish(1, "h/x", b"1");
    cluster.wait_for(2, "h/x", b"1", Duration::from_secs(5));
    let snapshot = cluster.get(2, "/v1/snapshot", &[]);
    assert_eq!(snapshot.header("cache-control"), Some("max-age=1, stale-while-revalidate=0"));
    let snapshot = snapshot.json();
    let (incarnation, sequence) = (snapshot["incarnation"].as_str().unwrap(), snapshot["sequence"].as_u64().unwrap());
    // The root may lag behind: go on until there is nothing new.
    let mut cursor = format!("2.{incarnation}.{sequence}");
    std::thread::scope(|scope| {
        let addr = cluster.addr(2);
        let holding = scope.spawn(move || {
            loop {
                let answer = request(&addr, "GET", &format!("/v1/changes/{cursor}/h"), &[], b"");
                assert_eq!(answer.status, 200, "{}", answer.text());
                let json = answer.json();
                assert!(json["next"].as_str().unwrap() != cursor);
                if json["entries"].as_array().unwrap().iter().any(|entry| entry["path"] == "h/y") {
                    assert_eq!(answer.header("cache-control"), Some("max-age=60, stale-while-revalidate=0"));
                    return json;
                }
                cursor = json["next"].as_str().unwrap().to_owned();
            }
        });
        std::thread::sleep(Duration::from_millis(500));
        assert!(!holding.is_finished(), "nothing has changed yet");
        cluster.publish(5, "elsewhere/z", b"no concern");
        cluster.publish(5, "h/y", b"hello");
        let started = Instant::now();
        let json = holding.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(json["entries"].as_array().unwrap().len(), 1, "{json}");
        assert_eq!(json["entries"][0]["inline"], "aGVsbG8=");
    });
    let malformed = cluster.get(2, "/v1/changes/nonsense", &[]);
    assert_eq!((malformed.status, malformed.header("cache-control")), (400, Some("no-store")));
    let unknown = cluster.get(2, "/v1/changes/2.0-999.1", &[]);
    assert_eq!((unknown.json()["full"].as_bool(), unknown.header("cache-control")), (Some(true), Some("max-age=1")));
    let etag = cluster.get(2, "/v1/config/h/y", &[]).header("etag").unwrap().to_owned();
    let started = Instant::now();
    let waited = cluster.get(2, "/v1/config/h/y", &[&format!("If-None-Match: {etag}"), "Prefer: wait=1"]);
    assert_eq!(waited.status, 304);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn refusals_say_what_is_wrong() {
    let cluster = Cluster::start(4);
    let rejected = |answer: Answer, status: u16| {
        assert_eq!((answer.status, answer.header("acms-outcome")), (status, Some("rejected")), "{}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.json()["outcome"], "rejected");
        assert!(answer.json()["reason"].is_string() && answer.json()["remedy"].is_string());
    };
    rejected(cluster.put(1, "p", b"x", &["If-None-Match: *"]), 501);
    rejected(cluster.put(1, "p", b"x", &["If-Match: \"1.1.0\""]), 501);
    rejected(cluster.put(1, "p", b"x", &["ACMS-Known-UID: soon"]), 400);
    rejected(cluster.put(1, "p", b"x", &["ACMS-Order: none"]), 400);
    rejected(cluster.put(1, "p", b"x", &["ACMS-Flags: deleted"]), 400);
    rejected(cluster.put(1, "../p", b"x", &[]), 400);
    rejected(raw(&cluster.addr(1), b"PUT /v1/config/p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), 411);
    let huge = b"PUT /v1/config/p HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n";
    rejected(raw(&cluster.addr(1), huge), 413);
    rejected(raw(&cluster.addr(1), b"PUT /v1/config/p HTTP/1.1\r\nContent-Length: 1\r\n\r\nx"), 400);
    let method = request(&cluster.addr(1), "POST", "/v1/config/p", &[], b"");
    assert_eq!((method.status, method.header("allow")), (405, Some("GET, HEAD, PUT, DELETE, OPTIONS")));
    rejected(request(&cluster.addr(1), "DELETE", "/v1/snapshot", &[], b""), 405);
    assert_eq!(cluster.get(1, "/v1/nothing", &[]).status, 404);
    assert_eq!(cluster.get(1, "/healthz", &[]).body, b"ok\n");
    assert!(cluster.get(1, "/metrics", &[]).text().contains("\nacms_http_requests_total "));
    assert_eq!(cluster.get(1, "/v1/status", &[]).json()["sp"], 1);
    cluster.publish(1, "c/file", b"x");
    rejected(cluster.put(1, "c/file/below", b"x", &[]), 409);
    assert_eq!(cluster.put(1, "k/a", b"1", &["Idempotency-Key: one"]).status, 201);
    rejected(cluster.put(1, "k/b", b"2", &["Idempotency-Key: one"]), 409);
    let by_key = cluster.get(1, "/v1/publications?key=one", &[]).json();
    assert_eq!((by_key["outcome"].as_str(), by_key["agreed"].as_bool()), (Some("accepted"), Some(true)), "{by_key}");
}

#[test]
fn a_pipeline_is_answered_in_order_and_a_slow_reader_gets_all() {
    let cluster = Cluster::start(5);
    let content = noise(60 << 10);
    cluster.publish(1, "pipe/file", &content);
    let mut bytes = Vec::new();
    for index in 0..40 {
        let put = format!("PUT /v1/config/pipe/n HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{index:02}");
        bytes.extend_from_slice(put.as_bytes());
        bytes.extend_from_slice(b"GET /v1/config/pipe/n HTTP/1.1\r\nHost: a\r\n\r\n");
        bytes.extend_from_slice(b"GET /v1/config/pipe/file HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    bytes.extend_from_slice(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(cluster.addr(1)).unwrap();
    stream.write_all(&bytes).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let mut at = 0;
    let mut next = || {
        let answer = parse(&all[at..]);
        let len: usize = answer.header("content-length").unwrap().parse().unwrap();
        at += answer.head.len() + 4 + len;
        (answer.status, answer.body[..len].to_vec())
    };
    for index in 0..40 {
        assert_eq!(next().0, 201, "put {index}");
        assert_eq!(next(), (200, format!("{index:02}").into_bytes()), "a publisher reads what it wrote");
        assert!(next() == (200, content.clone()), "get {index}");
    }
    assert_eq!(next(), (200, b"ok\n".to_vec()));
    assert_eq!(at, all.len());
}

#[test]
fn a_store_and_an_address_belong_to_one_process() {
    let mut cluster = Cluster::start(6);
    let second = |config: &Path, args: &[&str]| {
        let run = Command::new(ACMS).args(["storage-point", "--config"]).arg(config).args(args).output().unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    let (code, said) = second(&cluster.config(1), &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("another process has this store open"), "{said}");
    let copy = cluster.dir.path().join("copy");
    let other = cluster.config(2);
    cluster.kill(2);
    fs::rename(other.parent().unwrap().join("store"), &copy).unwrap();
    let (code, said) = second(&other, &[]);
    assert!(code == Some(2) && said.contains("acms init"), "{said}");
    let (code, said) = second(&cluster.config(3), &["--store", copy.to_str().unwrap()]);
    assert!(code == Some(2) && said.contains("belongs to storage point 2"), "{said}");
    let publish = format!("{}1:7400", cluster.base);
    let args = ["--store", copy.to_str().unwrap(), "--listen-publish", &publish, "--listen-deliver", &publish];
    let (code, said) = second(&other, &args);
    assert!(code == Some(2) && said.contains("cannot listen at"), "{said}");
    let (code, said) = second(&other, &["--check"]);
    assert_eq!(code, Some(2), "its store is gone: {said}");
    let (code, said) = second(&other, &["--check", "--store", copy.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_storage_point_told_to_stop_finishes_and_ends_well() {
    let mut cluster = Cluster::start(7);
    cluster.publish(3, "stop/x", b"x");
    let child = cluster.processes[2].as_mut().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut status = None;
    wait_until("it ends", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
    cluster.start_sp(3);
    assert_eq!(cluster.get(3, "/v1/config/stop/x", &[]).body, b"x");
    assert_eq!(cluster.get(3, "/v1/snapshot", &[]).json()["incarnation"], "0-2");
}

#[test]
fn a_second_process_on_the_same_store_or_address_is_refused() {
    let cluster = Cluster::start_some(19, 1, &[]);
    cluster.publish(1, "a", b"once");
    let refused = |config: &Path, variables: &[(&str, String)]| {
        let mut command = Command::new(ACMS);
        command.args(["storage-point", "--exit-with-parent", "--config"]).arg(config).envs(variables.iter().cloned());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    // The same store at other addresses: two that speak for one storage point would break every promise.
    let other = |port: u16| format!("{}9:{port}", cluster.base);
    let variables = [("ACMS_LISTEN_PUBLISH", 7400), ("ACMS_LISTEN_DELIVER", 7400), ("ACMS_LISTEN_PEER", 7500)];
    let variables = variables.map(|(name, port)| (name, other(port)));
    let text = refused(&cluster.config(1), &variables);
    assert!(text.contains("store") && text.contains("another process"), "{text}");
    // Another store at the same address.
    let copy = cluster.dir.path().join("other");
    let made = Command::new(ACMS)
        .args(["init", copy.to_str().unwrap(), "--cluster", "e2e", "--storage-points", "1"])
        .args(["--address-base", &format!("{}0", cluster.base)])
        .output()
        .unwrap();
    assert!(made.status.success());
    let text = refused(&copy.join("sp1/acms.toml"), &[]);
    assert!(text.contains("cannot listen at") && text.contains("stop the process that has the address"), "{text}");
    assert_eq!(cluster.get(1, "/v1/config/a", &[]).body, b"once", "the first one goes on");
}
