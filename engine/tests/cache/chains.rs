//! Receivers behind caches behind caches; and caches that would ask each other for ever.

use super::{
    http::{ask, get, metric},
    world::{World, noise, publish, wait_until},
};

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
}
