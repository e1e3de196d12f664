//! Large contents whose upload broke off, at a storage point that has its hands full.

use crate::{
    client::{Client, get, publish, request},
    interface::break_an_upload_off,
    processes::Pair,
};
use acms_engine::runtime::process::raise_open_files;
use std::time::{Duration, Instant};

/// More bodies than come in at once.
const BODIES: usize = 5_000;
/// Open files beside the connections of those.
const DESCRIPTORS_KEPT: usize = 1_000;

#[test]
fn a_content_that_broke_off_stays_for_a_publisher_that_is_refused() {
    if raise_open_files() < (BODIES + DESCRIPTORS_KEPT) as u64 {
        println!("skipped: too few files may be open here");
        return;
    }
    let pair = Pair::start(12, "content = \"1MiB\"");
    let addr = pair.publish();
    publish(&addr, "warm", b"up");
    break_an_upload_off(&addr);
    let received = get(&addr, "/v1/uploads?key=cut").json()["received"].as_u64().unwrap();
    let rest = vec![7; 100_000 - received as usize];
    let range = format!("Content-Range: bytes {received}-99999/100000");
    let go_on = || request(&addr, "PUT", "/v1/config/etc/cut", &["Idempotency-Key: cut", &range], &rest);
    let mut bodies = Vec::new();
    loop {
        let mut body = Client::connect(&addr);
        body.send(b"PUT /v1/config/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
        if body.read().starts_with(b"HTTP/1.1 503") {
            break;
        }
        bodies.push(body);
        assert!(bodies.len() < BODIES, "there is no end to them");
    }
    assert_eq!(go_on().status(), 503);
    drop(bodies);
    let started = Instant::now();
    let mut answer = go_on();
    while answer.status() == 503 && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
        answer = go_on();
    }
    assert_eq!(answer.status(), 201, "{}", answer.text());
}
