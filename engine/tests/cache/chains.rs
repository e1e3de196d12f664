//! Receivers behind caches behind caches; and caches that would ask each other for ever.

use super::{
    http::{ask, get, metric, receive, send},
    origin::{Origin, answer, refusal},
    world::{World, noise, publish, wait_until},
};
use std::sync::{Mutex, mpsc};

#[test]
fn receivers_behind_one_two_and_three_tiers_converge() {
    let mut world = World::new(20);
    let (_sp, origin) = world.storage_point();
    let large = noise(3_000_000, 1);
    publish(&origin, "etc/small", b"one");
    publish(&origin, "etc/large", &large);
    let (_one, tier1) = world.cache("tier1", &[&origin], &[]);
    let (_two, tier2) = world.cache("tier2", &[&tier1], &[]);
    let (_three, tier3) = world.cache("tier3", &[&tier2], &[]);
    let urls = [&tier1, &tier2, &tier3];
    let names = ["r1", "r2", "r3", "p1", "p3"];
    let _receivers = [
        world.receiver("r1", &[&tier1], &[]),
        world.receiver("r2", &[&tier2], &[]),
        world.receiver("r3", &[&tier3], &[]),
        world.receiver("p1", &[&tier1], &["--poll", "500ms"]),
        world.receiver("p3", &[&tier3], &["--poll", "500ms"]),
    ];
    for name in names {
        world.wait_for_file(name, "etc/small", b"one");
        world.wait_for_file(name, "etc/large", &large);
    }
    // What is new goes through all tiers.
    for (path, content) in [("etc/small", &b"two"[..]), ("etc/new", b""), ("etc/other/large", &noise(200_000, 2))] {
        publish(&origin, path, content);
        for name in names {
            world.wait_for_file(name, path, content);
        }
    }
    let status = get(&tier3, "/v1/status").json();
    assert_eq!(
        status["tiers_above"], 2,
        "each knows how many are before it, for who asks first gives up last: {status}"
    );
    // The large content left the storage point once, whoever asked; each tier has the same objects.
    let objects: Vec<u64> = urls.iter().map(|url| metric(url, "acms_cache_objects")).collect();
    assert!(objects[0] >= objects[2] && objects[2] > 0, "{objects:?}");
    let fetched = metric(&origin, "acms_http_objects_total");
    let asked = metric(&tier1, "acms_cache_upstream_requests_total{kind=\"object\"}");
    assert_eq!(fetched, asked, "only the first tier asks the storage point");
}

#[test]
fn a_cache_leaves_a_source_that_is_down_for_another_one() {
    let mut world = World::new(21);
    let (_sp, origin) = world.storage_point();
    publish(&origin, "a", b"one");
    let (mut one, tier1) = world.cache("one", &[&origin], &[]);
    let (_other, tier1b) = world.cache("other", &[&origin], &[]);
    let dead = format!("http://{}", world.address());
    let (_two, tier2) = world.cache("two", &[&dead, &tier1, &tier1b], &[]);
    let _receiver = world.receiver("r", &[&tier2], &[]);
    world.wait_for_file("r", "a", b"one");
    one.kill();
    publish(&origin, "a", b"two");
    world.wait_for_file("r", "a", b"two");
}

#[test]
fn requests_that_go_in_a_circle_are_refused() {
    let mut world = World::new(22);
    let (one, two) = (world.address(), world.address());
    let urls = [format!("http://{one}"), format!("http://{two}")];
    let _caches = [world.cache_at("one", &one, &[&urls[1]], &[]), world.cache_at("two", &two, &[&urls[0]], &[])];
    let answer = get(&urls[0], "/v1/snapshot");
    assert_eq!((answer.status, answer.header("cache-control")), (502, Some("no-store")), "{}", answer.text());
    wait_until("one of them has seen it", || urls.iter().any(|url| metric(url, "acms_cache_loops_total") > 0));
    // A request says itself that it has been here.
    let name = get(&urls[0], "/v1/status").json()["cache"].as_str().unwrap().to_owned();
    for names in [format!("CDN-Loop: other, {name};abc=1"), format!("CDN-Loop: {}", ["x"; 8].join(", "))] {
        let answer = ask(&urls[0], "GET", "/v1/snapshot", &[&names], b"");
        assert_eq!((answer.status, answer.header("cache-control")), (508, Some("no-store")), "{}", answer.text());
        assert!(answer.json()["remedy"].is_string());
    }
    // Who has another source asks that, too.
    let (_sp, origin) = world.storage_point();
    let (_three, three) = world.cache("three", &[&urls[0], &origin], &[]);
    assert_eq!(get(&three, "/v1/snapshot").status, 200);
}

/// Names of so many caches, as a header.
fn passed(count: usize) -> String {
    format!("CDN-Loop: {}", ["other"; 8][..count].join(", "))
}

#[test]
fn what_a_request_came_through_concerns_nobody_else() {
    let mut world = World::new(23);
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let origin = Origin::start(move |request| {
        let names = request.header("cdn-loop").unwrap().split(',').count();
        if names >= 7 {
            may_go_on.lock().unwrap().recv().unwrap();
        }
        match names {
            8.. => refusal(508),
            7 => refusal(431),
            _ => answer("no-store", b"{}"),
        }
    });
    let (_cache, url) = world.cache("cache", &[&origin.url], &[]);
    for (count, status) in [(7, 508), (6, 431)] {
        let names = passed(count);
        let ask = |headers: &[&str]| send(&url, "GET", "/v1/snapshot", headers, b"");
        let before = origin.count("/");
        let refused = ask(&[&names]);
        wait_until("the source is asked", || origin.count("/") == before + 1);
        let (with, without) = ([ask(&[&passed(2)]), ask(&[&passed(2)])], [ask(&[]), ask(&[])]);
        wait_until("all wait", || get(&url, "/v1/status").json()["http"]["waiting"] == 5);
        go_on.send(()).unwrap();
        let refused = receive(refused);
        assert_eq!((refused.status, refused.header("cache-control")), (status, Some("no-store")), "{}", refused.text());
        for stream in with.into_iter().chain(without) {
            assert_eq!(receive(stream).status, 200);
        }
        assert_eq!(origin.count("/"), before + 2, "the others are one request");
    }
    // More than a head has room for is not sent on.
    let before = origin.count("/");
    let answer = ask(&url, "GET", "/v1/snapshot", &[&format!("CDN-Loop: {}", "x".repeat(1_025))], b"");
    assert_eq!((answer.status, origin.count("/")), (508, before));
    assert_eq!(ask(&url, "GET", "/v1/snapshot", &[&format!("CDN-Loop: {}", "x".repeat(1_000))], b"").status, 200);
    let status = get(&url, "/v1/status").json();
    let source = &status["sources"][0];
    assert!(source["up"] == true && source["failures_total"] == 0, "{source}");
    assert_eq!(metric(&url, "acms_cache_upstream_failures_total"), 0);
}

#[test]
fn a_request_that_came_through_too_many_for_the_next_tier_leaves_that_as_it_is() {
    let mut world = World::new(24);
    let (_sp, origin) = world.storage_point();
    let (_one, tier1) = world.cache("one", &[&origin], &[]);
    let (_two, tier2) = world.cache("two", &[&tier1], &[]);
    for _ in 0..2 {
        assert_eq!(ask(&tier2, "GET", "/v1/snapshot", &[&passed(7)], b"").status, 508);
    }
    assert_eq!(get(&tier2, "/v1/snapshot").status, 200);
    assert_eq!(get(&tier2, "/v1/status").json()["sources"][0]["failures_total"], 0);
}
