//! Slow clients are cut off, and cost nobody else anything.

use crate::{
    client::{Client, get, metric, publish, request},
    processes::Pair,
};
use std::time::{Duration, Instant};

const LIMITS: &str = "head = \"1s\"\nbody = \"5s\"\nwrite = \"1s\"\nidle = \"2s\"";
const TIMEOUTS: &str = "acms_http_refused_total{reason=\"timeout\"}";

/// Sends a byte every 100 ms until the server ends the connection, or for `limit`. Whether it has ended.
fn drip(client: &mut Client, limit: Duration) -> bool {
    let started = Instant::now();
    while started.elapsed() < limit {
        if !client.send(b"x") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

#[test]
fn slow_clients_are_cut_off() {
    let pair = Pair::start(4, LIMITS);
    let addr = pair.publish();
    publish(&addr, "large", &vec![7; 32 << 20]);
    let before = metric(&addr, TIMEOUTS);
    std::thread::scope(|scope| {
        // A head that goes on by a byte now and then is no progress.
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: ");
            drip(&mut client, Duration::from_secs(2));
            assert_eq!(client.answer_to("GET").map(|answer| answer.status()), Some(408));
        });
        // A body that goes on is: it may take its time, more than one that does not.
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"PUT /v1/config/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n");
            for _ in 0..14 {
                client.send(b"x");
                std::thread::sleep(Duration::from_millis(500));
            }
            assert_eq!(client.answer_to("PUT").map(|answer| answer.status()), Some(201));
        });
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"PUT /v1/config/slow2 HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\nx");
            let answer = client.answer_to("PUT").unwrap();
            assert_eq!((answer.status(), answer.header("acms-outcome")), (408, Some("rejected")));
        });
        // Asked for much, takes nothing.
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"GET /v1/config/large HTTP/1.1\r\nHost: a\r\n\r\n");
            std::thread::sleep(Duration::from_secs(8));
            let mut read = 0;
            loop {
                let bytes = client.read();
                if bytes.is_empty() {
                    break;
                }
                read += bytes.len();
            }
            assert!(read < 32 << 20, "it was not cut off");
        });
        // Idle between requests.
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.answer_to("GET").map(|answer| answer.status()), Some(200));
            let started = Instant::now();
            assert!(client.has_ended() && started.elapsed() >= Duration::from_millis(1500));
        });
        // Refused, and goes on sending for ever.
        scope.spawn(|| {
            let mut client = Client::connect(&addr);
            client.send(b"nonsense\r\n\r\n");
            assert_eq!(client.answer_to("GET").map(|answer| answer.status()), Some(400));
            assert!(drip(&mut client, Duration::from_secs(20)), "it is listened to for ever");
        });
        // All others are served meanwhile.
        scope.spawn(|| {
            let started = Instant::now();
            while started.elapsed() < Duration::from_secs(4) {
                assert_eq!(get(&addr, "/healthz").status(), 200);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    });
    assert!(metric(&addr, TIMEOUTS) - before >= 3, "a head, a body and a reader");
}

#[test]
fn clients_that_end_or_reset_in_the_middle_leave_nothing_behind() {
    let pair = Pair::start(5, LIMITS);
    let addr = pair.publish();
    for _ in 0..50 {
        let mut half = Client::connect(&addr);
        half.send(b"PUT /v1/config/a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nxxx");
        half.end_sending();
        let mut gone = Client::connect(&addr);
        gone.send(b"GET /v1/changes/2.0-1.99999999 HTTP/1.1\r\nHost: a\r\n\r\nGET /v1/status HTTP/1.1\r\nHo");
    }
    let started = Instant::now();
    while metric(&addr, "acms_http_connections") > 1 {
        assert!(started.elapsed() < Duration::from_secs(20), "connections are left");
        std::thread::sleep(Duration::from_millis(50));
    }
    // One that has ended its side gets the answer to what it had asked.
    let mut half = Client::connect(&addr);
    half.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    half.end_sending();
    assert_eq!(half.answer_to("GET").map(|answer| answer.status()), Some(200));
    assert_eq!(request(&addr, "PUT", "/v1/config/b", &[], b"x").status(), 201);
}
