//! What HTTP/1.1 promises its clients (RFC 9110, RFC 9112).

use crate::{
    client::{Client, get, metric, publish, request},
    processes::Pair,
};
use acms_engine::protocol::Hash;
use std::time::{Duration, Instant};

fn limits() -> &'static str {
    "content = \"1MiB\""
}

/// Every header, but for the one that tells the time.
fn headers(answer: &crate::client::Answer) -> Vec<(String, String)> {
    answer.head.headers.iter().filter(|(name, _)| name != "date").cloned().collect()
}

#[test]
fn head_is_get_without_its_body() {
    let pair = Pair::start(6, limits());
    let addr = pair.publish();
    let content = b"hello".as_slice();
    let uid = publish(&addr, "a", content).header("acms-uid").unwrap().to_owned();
    let large = vec![7; 200_000];
    publish(&addr, "large", &large);
    let targets = [
        "/v1/config/a".to_owned(),
        "/v1/config/large".to_owned(),
        "/v1/config/absent".to_owned(),
        format!("/v1/objects/{}", Hash::of(content)),
        format!("/v1/objects/{}", Hash::of(&large)),
        format!("/v1/publications/{uid}"),
        "/v1/index/a".to_owned(),
        "/v1/openapi.json".to_owned(),
        "/v1/nothing".to_owned(),
        "/v1/config/%zz".to_owned(),
        "/healthz".to_owned(),
    ];
    for target in targets {
        let (whole, head) = (get(&addr, &target), request(&addr, "HEAD", &target, &[], b""));
        assert_eq!((whole.status(), headers(&whole)), (head.status(), headers(&head)), "{target}");
        assert_eq!(whole.header("content-length"), Some(whole.body.len().to_string().as_str()), "{target}");
        assert!(whole.header("cache-control").is_some() && whole.header("date").is_some(), "{target}");
    }
    // A range is of GET only; a held answer has no body either, and the next one is where it belongs.
    let object = format!("/v1/objects/{}", Hash::of(content));
    assert_eq!(request(&addr, "HEAD", &object, &["Range: bytes=0-1"], b"").status(), 200);
    let snapshot = get(&addr, "/v1/snapshot").json();
    let cursor = format!("2.{}.{}", snapshot["incarnation"].as_str().unwrap(), snapshot["sequence"]);
    let mut client = Client::connect(&addr);
    client.send(format!("HEAD /v1/changes/{cursor} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    publish(&addr, "b", b"wakes it");
    let held = client.answer_to("HEAD").unwrap();
    assert!(held.status() == 200 && held.header("content-length").is_some_and(|len| len != "0"));
    client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to("GET").unwrap().body, b"ok\n");
}

/// Conditions of a read, at a resource that has this entity tag.
fn check_conditions(addr: &str, target: &str, tag: &str) {
    let ask = |target: &str, headers: &[&str]| request(addr, "GET", target, headers, b"");
    let status = |header: String| ask(target, &[&header]).status();
    assert_eq!(status(format!("If-None-Match: {tag}")), 304, "{target}");
    assert_eq!(status(format!("If-None-Match: \"x\", W/{tag}")), 304, "weak comparison");
    assert_eq!(ask(target, &["If-None-Match: \"x\"", &format!("If-None-Match: {tag}")]).status(), 304, "two lines");
    assert_eq!(status("If-None-Match: *".to_owned()), 304);
    assert_eq!(status("If-None-Match: \"x\"".to_owned()), 200);
    assert_eq!(status("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT".to_owned()), 200, "nothing has a date");
    assert_eq!(status(format!("If-Match: {tag}")), 200);
    assert_eq!(status(format!("If-Match: W/{tag}")), 412, "strong comparison");
    assert_eq!(status("If-Match: \"x\"".to_owned()), 412);
    assert_eq!(ask(target, &[&format!("If-None-Match: {tag}")]).header("etag"), Some(tag));
}

#[test]
fn conditions_and_ranges() {
    let pair = Pair::start(7, limits());
    let addr = pair.publish();
    let published = publish(&addr, "a", b"0123456789");
    let uid = published.header("acms-uid").unwrap().to_owned();
    let etag = published.header("etag").unwrap().to_owned();
    assert_eq!(etag, format!("\"{uid}\""));
    let object = format!("/v1/objects/{}", Hash::of(b"0123456789"));
    let tag = format!("\"{}\"", Hash::of(b"0123456789"));
    let ask = |target: &str, headers: &[&str]| request(&addr, "GET", target, headers, b"");
    check_conditions(&addr, "/v1/config/a", &etag);
    check_conditions(&addr, &object, &tag);
    let part = |range: &str, more: &str| {
        let answer = ask(&object, &[&format!("Range: {range}"), more]);
        (answer.status(), answer.header("content-range").map(str::to_owned), answer.text())
    };
    let some = |text: &str| Some(text.to_owned());
    let whole = (200, None, "0123456789".to_owned());
    assert_eq!(part("bytes=2-4", "A: b"), (206, some("bytes 2-4/10"), "234".to_owned()));
    assert_eq!(part("bytes=7-", "A: b"), (206, some("bytes 7-9/10"), "789".to_owned()));
    assert_eq!(part("bytes=-2", "A: b"), (206, some("bytes 8-9/10"), "89".to_owned()));
    assert_eq!(part("bytes=2-4", &format!("If-Range: {tag}")), (206, some("bytes 2-4/10"), "234".to_owned()));
    assert_eq!(part("bytes=2-4", "If-Range: \"x\""), whole);
    assert_eq!(part("bytes=2-4", &format!("If-Range: W/{tag}")), whole, "strong comparison");
    assert_eq!(part("bytes=2-4", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"), whole);
    assert_eq!(part("bytes=0-1,4-5", "A: b"), whole, "several ranges get the whole");
    assert_eq!(part("lines=0-1", "A: b"), whole);
    let beyond = ask(&object, &["Range: bytes=10-"]);
    assert_eq!((beyond.status(), beyond.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(beyond.header("cache-control"), Some("no-store"));
    assert_eq!(part("bytes=2-4", &format!("If-None-Match: {tag}")).0, 304, "a condition comes before a range");
}

#[test]
fn bodies_of_all_kinds() {
    let pair = Pair::start(8, limits());
    let addr = pair.publish();
    publish(&addr, "warm", b"up");
    let mut client = Client::connect(&addr);
    // Chunks with extensions and trailers, one after the other and behind them another request.
    client.send(
        b"PUT /v1/config/chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b;c\"\r\nhello\r\n\
          6\r\n world\r\n000;last\r\nX-Sum: 1\r\nEmpty:\r\n\r\n\
          PUT /v1/config/two HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n2\
          GET /v1/config/two HTTP/1.1\r\nHost: a\r\n\r\n\
          DELETE /v1/config/two HTTP/1.1\r\nHost: a\r\n\r\n\
          GET /v1/config/two HTTP/1.1\r\nHost: a\r\n\r\n\
          GET https://elsewhere:1/v1/config/chunked?x HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let answers: Vec<_> = (0..6).map(|_| client.answer_to("GET").unwrap()).collect();
    let statuses: Vec<u16> = answers.iter().map(crate::client::Answer::status).collect();
    assert_eq!(statuses, [201, 201, 200, 201, 404, 200]);
    assert_eq!((answers[2].text().as_str(), answers[5].text().as_str()), ("2", "hello world"));
    // 100 Continue is said once, before the body, and not where the body has come or is not wanted.
    client.send(b"PUT /v1/config/asked HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-Continue\r\n\r\n");
    let interim = client.read();
    assert_eq!(String::from_utf8_lossy(&interim), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"yes");
    assert_eq!(client.answer_to("PUT").unwrap().status(), 201);
    client.send(b"PUT /v1/config/asked HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nno");
    assert!(client.read().starts_with(b"HTTP/1.1 201"));
    client.send(
        b"PUT /v1/config/asked HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\nIf-Match: *\r\n\r\n",
    );
    assert!(client.read().starts_with(b"HTTP/1.1 501"));
    assert!(client.has_ended(), "nobody knows whether the body still comes");
    // HTTP/1.0: no Host, closed unless asked for, and no 100 Continue.
    let mut old = Client::connect(&addr);
    old.send(
        b"PUT /v1/config/old HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n",
    );
    std::thread::sleep(Duration::from_millis(100));
    old.send(b"xGET /v1/config/old HTTP/1.0\r\n\r\n");
    let put = old.answer_to("PUT").unwrap();
    assert_eq!(
        (put.status(), put.header("connection"), put.text().contains("accepted")),
        (201, Some("keep-alive"), true)
    );
    assert_eq!(old.answer_to("GET").unwrap().body, b"x");
    assert!(old.has_ended());
}

#[test]
fn methods_by_listener() {
    let pair = Pair::start(9, limits());
    let everything = "GET, HEAD, PUT, DELETE, OPTIONS";
    for (addr, config) in [(pair.publish(), everything), (pair.deliver(), "GET, HEAD, OPTIONS")] {
        let allow = |method: &str, target: &str| {
            let answer = request(&addr, method, target, &[], b"");
            (answer.status(), answer.header("allow").map(str::to_owned))
        };
        assert_eq!(allow("OPTIONS", "*"), (204, Some(config.to_owned())));
        assert_eq!(allow("OPTIONS", "/v1/config/a"), (204, Some(config.to_owned())));
        assert_eq!(allow("POST", "/v1/config/a"), (405, Some(config.to_owned())));
        assert_eq!(allow("OPTIONS", "/v1/snapshot"), (204, Some("GET, HEAD, OPTIONS".to_owned())));
        assert_eq!(allow("DELETE", "/v1/snapshot"), (405, Some("GET, HEAD, OPTIONS".to_owned())));
        assert_eq!(allow("OPTIONS", "/v1/nothing").0, 404);
    }
    let refused = request(&pair.deliver(), "PUT", "/v1/config/a", &[], b"x");
    assert_eq!((refused.status(), refused.header("acms-outcome")), (405, Some("rejected")));
    assert_eq!(refused.json()["outcome"], "rejected");
}

#[test]
fn reads_that_wait() {
    let pair = Pair::start(10, limits());
    let addr = pair.publish();
    let uid = publish(&addr, "a", b"1").header("acms-uid").unwrap().to_owned();
    let etag = format!("If-None-Match: \"{uid}\"");
    let at_least = |uid: &str| request(&addr, "GET", "/v1/config/a", &[&format!("ACMS-At-Least: {uid}")], b"");
    assert_eq!(at_least(&uid).status(), 200);
    assert_eq!(at_least("1.1.0").status(), 200, "an older one is superseded");
    // A list of preferences, of which one is understood.
    let started = Instant::now();
    let answer = request(&addr, "GET", "/v1/config/a", &[&etag, "Prefer: respond-async, Wait=1"], b"");
    // It counts from when it last looked at its clock, which may be a little before the request came.
    let took = started.elapsed();
    assert!(answer.status() == 304 && took >= Duration::from_millis(900), "{} after {took:?}", answer.status());
    let started = Instant::now();
    let answer = request(&addr, "GET", "/v1/config/a", &[&etag, "Prefer: wait=soon"], b"");
    assert!(answer.status() == 304 && started.elapsed() < Duration::from_secs(20));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| request(&addr, "GET", "/v1/config/a", &[&etag, "Prefer: wait=30"], b""));
        let (micros, rest) = uid.split_once('.').unwrap();
        let later = format!("{}.{rest}", micros.parse::<u64>().unwrap() + 1);
        let waits_for = scope.spawn(move || at_least(&later));
        // An answer that nobody ever gets: not within its time.
        let never = scope.spawn(|| {
            let started = Instant::now();
            let unknown = "99999999999999999.1.0";
            let answer = request(&addr, "GET", "/v1/config/b", &[&format!("ACMS-At-Least: {unknown}")], b"");
            (answer.status(), started.elapsed())
        });
        let started = Instant::now();
        while metric(&addr, "acms_http_held") < 3 {
            assert!(started.elapsed() < Duration::from_secs(20), "not all of them wait");
            std::thread::sleep(Duration::from_millis(20));
        }
        publish(&addr, "a", b"2");
        let waited = waiting.join().unwrap();
        assert_eq!((waited.status(), waited.text().as_str()), (200, "2"));
        assert_eq!(waits_for.join().unwrap().text(), "2");
        let (status, took) = never.join().unwrap();
        assert!(status == 503 && took >= Duration::from_millis(9_900), "{status} after {took:?}");
    });
}
