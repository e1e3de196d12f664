//! One `acms cache`: what it keeps, what it asks for, and what it never gives out.

use super::{
    http::{ask, get, metric, parse, receive, send},
    origin::{OBJECT_CONTROL, Origin, Request, answer, refusal},
    world::{ACMS, PATIENCE, Process, World, cursor, hash, noise, publish, wait_until},
};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

fn object(content: &[u8]) -> String {
    format!("/v1/objects/{}", hash(content))
}

/// An origin that has these contents as objects, and as many bytes of each answer as `cut` says.
fn objects(contents: Vec<Vec<u8>>, cut: impl Fn(&Request, Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Origin {
    Origin::start(move |request| {
        let path = request.target.split('?').next().unwrap();
        match contents.iter().find(|content| object(content) == path) {
            Some(content) => cut(request, content.clone()),
            None => refusal(404),
        }
    })
}

#[test]
fn objects_are_fetched_once_and_kept_over_a_restart() {
    let mut world = World::new(1);
    let (small, large) = (noise(5_000, 1), noise(3_000_000, 2));
    let origin = objects(vec![small.clone(), large.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let address = world.address();
    let url = format!("http://{address}");
    let mut cache = world.cache_at("cache", &address, &[&origin.url], &[]);
    for content in [&small, &large] {
        for _ in 0..3 {
            let found = get(&url, &object(content));
            assert!((found.status, &found.body) == (200, content), "{}", found.head);
            assert_eq!(found.header("etag"), Some(&*format!("\"{}\"", hash(content))));
            assert_eq!(found.header("cache-control"), Some(OBJECT_CONTROL));
        }
    }
    assert_eq!(origin.count("/v1/objects/"), 2);
    assert_eq!(metric(&url, "acms_cache_requests_total{kind=\"object\",result=\"hit\"}"), 4);
    assert_eq!(metric(&url, "acms_cache_requests_total{kind=\"object\",result=\"miss\"}"), 2);
    let bytes = metric(&url, "acms_cache_bytes_total{kind=\"object\",result=\"hit\"}");
    assert_eq!(bytes, 2 * (small.len() + large.len()) as u64);

    // What was coming in when the process died is gone after its next start; what it had is there.
    cache.kill();
    fs::write(world.path("cache/tmp/1"), b"half of something").unwrap();
    let mut cache = world.cache_at("cache", &address, &[&origin.url], &[]);
    for content in [&small, &large] {
        let found = get(&url, &object(content));
        assert!((found.status, &found.body) == (200, content), "{}", found.head);
    }
    assert_eq!(origin.count("/v1/objects/"), 2);
    assert_eq!(fs::read_dir(world.path("cache/tmp")).unwrap().count(), 0);

    // What has rotted on the disk is noticed in the next life, before any of it goes out, and fetched again.
    cache.kill();
    for content in [&small, &large] {
        let name = hash(content);
        let file = world.path("cache/objects").join(&name[..2]).join(&name);
        let mut bytes = fs::read(&file).unwrap();
        bytes[4_000] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let _cache = world.cache_at("cache", &address, &[&origin.url], &[]);
    for content in [&small, &large] {
        let found = get(&url, &object(content));
        assert!((found.status, &found.body) == (200, content), "{}", found.head);
    }
    assert_eq!((origin.count("/v1/objects/"), metric(&url, "acms_cache_spoilt_total")), (4, 2));
}

#[test]
fn parts_and_conditions_are_answered_from_the_whole() {
    let mut world = World::new(2);
    let content = noise(200_000, 3);
    let origin = objects(vec![content.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let (_cache, url) = world.cache("cache", &[&origin.url], &[]);
    let (target, tag) = (object(&content), format!("\"{}\"", hash(&content)));
    // Before anything is kept: the name of an object says all about it.
    let unchanged = ask(&url, "GET", &target, &[&format!("If-None-Match: {tag}")], b"");
    assert_eq!((unchanged.status, unchanged.body.len(), origin.count("/")), (304, 0, 0));
    for range in ["Range: bytes=1000-1999", "Range: bytes=199999-", "Range: bytes=-500", "Range: bytes=0-199999"] {
        let part = ask(&url, "GET", &target, &[range], b"");
        let (span, _) = part.header("content-range").unwrap().strip_prefix("bytes ").unwrap().split_once('/').unwrap();
        let (start, end) = span.split_once('-').unwrap();
        let expected = &content[start.parse::<usize>().unwrap()..=end.parse::<usize>().unwrap()];
        assert!(part.status == 206 && part.body == expected, "{range}: {}", part.head);
    }
    assert_eq!(ask(&url, "GET", &target, &["Range: bytes=200000-"], b"").status, 416);
    let head = ask(&url, "HEAD", &target, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("200000"), 0));
    assert_eq!(origin.count("/"), 1, "one fetch of the whole served all of it");
}

#[test]
fn many_who_ask_at_once_are_one_request() {
    let mut world = World::new(3);
    let (small, large) = (noise(1_000, 4), noise(1_000_000, 5));
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let origin = objects(vec![small.clone(), large.clone()], move |_, content| {
        may_go_on.lock().unwrap().recv().unwrap();
        answer(OBJECT_CONTROL, &content)
    });
    let (_cache, url) = world.cache("cache", &[&origin.url], &[]);
    for content in [&small, &large] {
        let streams: Vec<_> = (0..50).map(|_| send(&url, "GET", &object(content), &[], b"")).collect();
        wait_until("all wait", || get(&url, "/v1/status").json()["http"]["waiting"] == 50);
        go_on.send(()).unwrap();
        for stream in streams {
            let found = receive(stream);
            assert!((found.status, &found.body) == (200, content), "{}", found.head);
        }
    }
    assert_eq!(origin.count("/"), 2);
    assert_eq!(metric(&url, "acms_cache_requests_total{kind=\"object\",result=\"collapsed\"}"), 98);
}

#[test]
fn a_large_object_is_passed_on_while_it_comes_and_never_whole_if_it_is_wrong() {
    let mut world = World::new(4);
    let content = noise(1_000_000, 6);
    let mut wrong = content.clone();
    wrong[900_000] ^= 1;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (go_on, may_go_on) = mpsc::channel();
    let sent = wrong.clone();
    let origin_thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // What is not read would make the end of the connection a reset.
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while reader.read_line(&mut String::new()).unwrap() > 2 {}
        let answer = answer(OBJECT_CONTROL, &sent);
        stream.write_all(&answer[..500_000]).unwrap();
        may_go_on.recv().unwrap();
        stream.write_all(&answer[500_000..]).unwrap();
    });
    let (_cache, url) = world.cache("cache", &[&origin], &[]);
    let mut stream = send(&url, "GET", &object(&content), &[], b"");
    let mut first = vec![0; 400_000];
    stream.read_exact(&mut first).unwrap();
    go_on.send(()).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    origin_thread.join().unwrap();
    let found = parse(&[first, rest].concat());
    assert_eq!((found.status, found.header("content-length")), (200, Some("1000000")));
    assert!(!found.is_whole(), "the connection is broken off before the end");
    assert!(found.body[..] == wrong[..found.body.len()]);
    assert_eq!(metric(&url, "acms_cache_wrong_hashes_total"), 1);
    assert_eq!(metric(&url, "acms_cache_objects"), 0, "nothing of it is kept");
}

#[test]
fn a_wrong_object_is_asked_for_elsewhere_and_a_doubt_reaches_further_up() {
    let mut world = World::new(5);
    let content = noise(2_000, 7);
    // A cache further up has a bad copy under the plain name.
    let wrong = noise(2_000, 8);
    let origin = objects(vec![content.clone()], move |request, content| match request.target.contains("?again=") {
        true => answer(OBJECT_CONTROL, &content),
        false => answer(OBJECT_CONTROL, &wrong),
    });
    let other = objects(vec![content.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let (_cache, url) = world.cache("cache", &[&origin.url, &other.url], &[]);
    for _ in 0..2 {
        let found = get(&url, &object(&content));
        assert!((found.status, &found.body) == (200, &content), "{}", found.text());
    }
    // The same with nobody else to ask: the receiver's doubt has to do it.
    let (_alone, url) = world.cache("alone", &[&origin.url], &[]);
    assert_eq!(get(&url, &object(&content)).status, 502);
    wait_until("the source is asked again", || {
        let found = get(&url, &format!("{}?again=7", object(&content)));
        found.status == 200 && found.body == content
    });
    assert!(origin.count(&format!("{}?again=7", object(&content))) > 0);
    assert_eq!(get(&url, &object(&content)).body, content, "and then it is kept under its name");
}

#[test]
fn a_transfer_that_breaks_goes_on_at_another_source() {
    let mut world = World::new(6);
    let content = noise(2_000_000, 9);
    let cut = |request: &Request, content: Vec<u8>| match request.header("range") {
        None => answer(OBJECT_CONTROL, &content)[..1_200_000].to_vec(),
        Some(range) => {
            let from: usize = range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
            let head = format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                content.len() - 1,
                content.len(),
                content.len() - from
            );
            [head.as_bytes(), &content[from..]].concat()
        }
    };
    let (one, two) = (objects(vec![content.clone()], cut), objects(vec![content.clone()], cut));
    let (_cache, url) = world.cache("cache", &[&one.url, &two.url], &[]);
    let found = get(&url, &object(&content));
    assert!((found.status, &found.body) == (200, &content), "{}", found.head);
    assert_eq!((one.count("/"), two.count("/")), (1, 1));
    assert!(metric(&url, "acms_cache_upstream_bytes_total") <= content.len() as u64, "nothing came twice");
}

#[test]
fn the_disk_is_bounded_and_what_was_not_used_for_longest_goes() {
    let mut world = World::new(7);
    let contents: Vec<Vec<u8>> = (0..24).map(|n| noise(100_000, 101 + 2 * n)).collect();
    let origin = objects(contents.clone(), |_, content| answer(OBJECT_CONTROL, &content));
    let (_cache, url) = world.cache("cache", &[&origin.url], &["--size", "1MiB"]);
    for content in &contents {
        assert_eq!(get(&url, &object(content)).body.len(), content.len());
        // The first is used all the time.
        assert_eq!(get(&url, &object(&contents[0])).status, 200);
        assert!(metric(&url, "acms_cache_disk_bytes") <= 1 << 20);
    }
    assert_eq!(origin.count(&object(&contents[0])), 1);
    assert_eq!(metric(&url, "acms_cache_evictions_total"), 14);
    get(&url, &object(&contents[1]));
    assert_eq!(origin.count(&object(&contents[1])), 2, "it was given up");
    let files = walkdir::WalkDir::new(world.path("cache/objects")).into_iter().filter_map(Result::ok);
    assert!(files.filter(|entry| entry.file_type().is_file()).count() <= 10);
    // One that does not fit at all is passed on all the same.
    let (_tiny, url) = world.cache(
        "tiny",
        &[&objects(vec![noise(3_000_000, 1)], |_, c| answer(OBJECT_CONTROL, &c)).url],
        &["--size", "1MiB"],
    );
    let found = get(&url, &object(&noise(3_000_000, 1)));
    assert!(found.body == noise(3_000_000, 1) && metric(&url, "acms_cache_objects") == 0);
}

#[test]
fn changes_are_one_held_request_upstream_and_answers_are_kept_as_long_as_they_say() {
    let mut world = World::new(8);
    let (_sp, origin) = world.storage_point();
    publish(&origin, "a/1", b"one");
    let (_cache, url) = world.cache("cache", &[&origin], &[]);
    let target = format!("/v1/changes/{}/a", cursor(&origin));
    let held: Vec<_> = (0..100).map(|_| send(&url, "GET", &target, &[], b"")).collect();
    wait_until("all wait", || get(&url, "/v1/status").json()["http"]["waiting"] == 100);
    let asked = |url: &str| metric(url, "acms_http_changes_total");
    assert_eq!(asked(&origin), 1);
    publish(&origin, "a/2", b"two");
    for stream in held {
        let changes = receive(stream);
        assert_eq!((changes.status, changes.header("age")), (200, Some("0")), "{}", changes.text());
        assert_eq!(changes.json()["entries"][0]["path"], "a/2");
    }
    // Who comes late, with another shape of the same prefix, gets the same.
    let late = get(&url, &format!("{target}/"));
    assert_eq!(late.json()["entries"][0]["path"], "a/2");
    assert_eq!(late.header("cache-control"), Some("max-age=60, stale-while-revalidate=0"));
    assert_eq!((asked(&origin), metric(&url, "acms_cache_requests_total{kind=\"changes\",result=\"hit\"}")), (1, 1));
    // Nobody waits any more: neither does the cache.
    let gone = send(&url, "GET", &format!("/v1/changes/{}/b", cursor(&origin)), &[], b"");
    wait_until("the storage point holds it", || metric(&origin, "acms_http_held") == 1);
    drop(gone);
    wait_until("the storage point holds it no more", || metric(&origin, "acms_http_held") == 0);
    // The snapshot is kept for a second.
    let before = metric(&url, "acms_cache_upstream_requests_total{kind=\"snapshot\"}");
    let started = Instant::now();
    let (mut answers, mut asked) = (0, 0);
    while asked < 3 {
        assert!(started.elapsed() < PATIENCE, "{answers} answers, {asked} requests");
        assert_eq!(get(&url, "/v1/snapshot").status, 200);
        answers += 1;
        asked = metric(&url, "acms_cache_upstream_requests_total{kind=\"snapshot\"}") - before;
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "{answers} answers, {asked} requests in {took:?}");
}

#[test]
fn what_is_refused_says_why_and_is_never_kept() {
    let mut world = World::new(9);
    let (mut sp, origin) = world.storage_point();
    let (mut cache, url) = world.cache("cache", &[&origin], &[]);
    for (method, target, status) in [
        ("GET", "/v1/config/a", 404),
        ("GET", "/v1/index", 404),
        ("GET", "/nothing", 404),
        ("PUT", "/v1/config/a", 405),
        ("DELETE", "/v1/snapshot", 405),
        ("POST", "/v1/snapshot", 405),
        ("GET", "/v1/objects/12", 400),
        ("GET", "/v1/changes/x", 400),
        ("GET", &object(b"nobody has this"), 404),
        ("GET", "/healthz", 200),
        ("GET", "/metrics", 200),
        ("HEAD", "/v1/snapshot", 200),
    ] {
        let answer = ask(&url, method, target, &[], b"");
        assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
        if status >= 400 {
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {target}");
            assert!(answer.json()["reason"].is_string() && answer.json()["remedy"].is_string(), "{}", answer.text());
        }
    }
    // An object that nobody had is found once somebody has it.
    publish(&origin, "a", b"nobody has this");
    assert_eq!(get(&url, &object(b"nobody has this")).body, b"nobody has this");
    // With the storage point gone what is kept is still given, and the rest is an honest error.
    sp.kill();
    assert_eq!(get(&url, &object(b"nobody has this")).status, 200);
    std::thread::sleep(Duration::from_millis(1_100));
    let failed = get(&url, "/v1/snapshot");
    assert_eq!((failed.status, failed.header("cache-control")), (502, Some("no-store")), "{}", failed.text());
    assert!(failed.json()["remedy"].is_string());
    let (took, is_well) = cache.terminate();
    assert!(is_well && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_cache_told_to_stop_ends_what_it_has_begun() {
    let mut world = World::new(10);
    let content = noise(6_000_000, 10);
    let origin = objects(vec![content.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let (mut cache, url) = world.cache("cache", &[&origin.url], &[]);
    assert_eq!(get(&url, &object(&content)).status, 200);
    // More than sockets take: it is under way when the signal comes.
    let reader = send(&url, "GET", &object(&content), &[], b"");
    reader.peek(&mut [0]).unwrap();
    cache.signal(Signal::SIGTERM);
    cache.wait_for("stopping");
    let found = receive(reader);
    assert!(found.body == content, "{} bytes", found.body.len());
    assert!(cache.child.wait().unwrap().success());
}

#[test]
fn a_cache_that_stood_still_reads_what_has_come_before_it_leaves_its_source() {
    let mut world = World::new(11);
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::start(move |_| {
        may_go_on.lock().unwrap().recv().unwrap();
        answer("max-age=1", b"{}")
    });
    let (cache, url) = world.cache("cache", &[&origin.url], &[]);
    let stream = send(&url, "GET", "/v1/snapshot", &[], b"");
    wait_until("the source is asked", || origin.count("/v1/snapshot") == 1);
    cache.signal(Signal::SIGSTOP);
    go_on.send(()).unwrap();
    // Longer than a source may take for its snapshot, which lies in the socket all the time.
    std::thread::sleep(Duration::from_millis(3_500));
    cache.signal(Signal::SIGCONT);
    let found = receive(stream);
    assert_eq!((found.status, &found.body[..]), (200, &b"{}"[..]), "{}", found.text());
    assert_eq!(metric(&url, "acms_cache_upstream_failures_total"), 0);
}

#[test]
fn an_object_that_cannot_be_read_is_asked_for_upstream_and_counts_as_sound() {
    let mut world = World::new(12);
    let (small, large) = (noise(1_000, 11), noise(1_000_000, 12));
    let origin = objects(vec![small.clone(), large.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let (_cache, url) = world.cache("cache", &[&origin.url], &[]);
    for content in [&small, &large] {
        assert_eq!(get(&url, &object(content)).status, 200);
        let name = hash(content);
        let file = world.path("cache/objects").join(&name[..2]).join(&name);
        fs::remove_file(&file).unwrap();
        // A link to itself cannot be opened, whoever asks.
        std::os::unix::fs::symlink(&file, &file).unwrap();
        for _ in 0..2 {
            let found = get(&url, &object(content));
            assert!((found.status, &found.body) == (200, content), "{}", found.head);
        }
        assert!(!file.is_symlink(), "what came takes its place");
    }
    let figures = ["unreadable_total", "spoilt_total", "objects"];
    let figures = figures.map(|name| metric(&url, &format!("acms_cache_{name}")));
    assert_eq!((origin.count("/v1/objects/"), figures), (4, [2, 0, 2]));
}

/// Asks on a connection that stays open.
fn ask_on(mut stream: &TcpStream, target: &str) -> u16 {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: acms\r\n\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    let mut len = 0;
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; len]).unwrap();
    status
}

#[test]
fn with_no_file_to_open_an_object_stays_where_it_is() {
    let mut world = World::new(13);
    let content = noise(1_000, 13);
    let origin = objects(vec![content.clone()], |_, content| answer(OBJECT_CONTROL, &content));
    let (address, store) = (world.address(), world.path("cache"));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", ACMS, "cache", "--listen", &address, "--store"]);
    command.arg(store).args(["--source", &origin.url]);
    let cache = Process::of(command, &world.path("cache.log"));
    cache.wait_for("ready");
    let url = format!("http://{address}");
    assert_eq!(get(&url, &object(&content)).status, 200);
    let client = TcpStream::connect(&address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask_on(&client, &object(&content)), 200);
    let others: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(&address).unwrap()).collect();
    wait_until("there is no file left", || ask_on(&client, &object(&content)) == 503);
    drop(others);
    wait_until("there are files again", || ask_on(&client, &object(&content)) == 200);
    assert_eq!((origin.count("/"), metric(&url, "acms_cache_spoilt_total")), (1, 0));
    assert!(metric(&url, "acms_cache_unreadable_total") > 0);
}
