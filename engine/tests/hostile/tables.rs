//! Every row of `engine/docs/HOSTILE.md`.

use crate::{
    client::{Client, get, metric, publish},
    processes::Pair,
    table::{self, Listener, Row},
};
use acms_engine::wire::Hello;

/// The limits that the tables are written for.
const LIMITS: &str = "head = \"1s\"\nbody = \"1s\"\nwrite = \"1s\"\nidle = \"2s\"\ncontent = \"100KiB\"";

fn counter(row: &Row) -> Option<String> {
    let tier = if row.listener == Listener::Peer { "peer" } else { "http" };
    row.reason.as_ref().map(|reason| format!("acms_{tier}_refused_total{{reason=\"{reason}\"}}"))
}

/// Plays a row at an address. What is wrong, if anything is.
fn play(row: &Row, addr: &str, hello: Option<&Hello>) -> Result<(), String> {
    let mut client = Client::connect(addr);
    let sent = table::bytes(&row.sent, hello);
    client.send(&sent);
    if row.listener == Listener::Peer {
        // Its hello, and what it says to a peer that seems to be one.
        while !client.has_ended() {}
        return Ok(());
    }
    for status in &row.answers {
        let method = if sent.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        match client.answer_to(method) {
            Some(answer) if answer.status() == *status => {
                if *status >= 400 && answer.header("cache-control") != Some("no-store") {
                    return Err("a cache may keep the refusal".to_owned());
                }
                if row.is_closed && *status == *row.answers.last().unwrap_or(status) {
                    assert_eq!(answer.header("connection"), Some("close"), "{}", row.what);
                }
            }
            Some(answer) => return Err(format!("{} instead of {status}: {}", answer.status(), answer.text())),
            None => return Err(format!("no answer instead of {status}")),
        }
    }
    if row.is_closed {
        return if client.has_ended() { Ok(()) } else { Err("the connection goes on".to_owned()) };
    }
    client.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    match client.answer_to("GET") {
        Some(answer) if answer.status() == 200 && answer.body == b"ok\n" => Ok(()),
        Some(answer) => Err(format!("{} to the request behind it", answer.status())),
        None => Err("the connection has ended".to_owned()),
    }
}

/// Plays rows one after the other; each must be counted, and the storage point must answer the next request.
fn play_all(pair: &mut Pair, rows: &[Row], addr: &str, hello: Option<&Hello>) {
    let mut wrong = Vec::new();
    for row in rows {
        let counter = counter(row);
        let count = |pair: &Pair| counter.as_ref().map_or(0, |name| metric(&pair.publish(), name));
        let before = count(pair);
        let mut played = play(row, addr, hello);
        if played.is_ok() && counter.is_some() && count(pair) != before + 1 {
            played = Err(format!("it was counted {} times", count(pair) - before));
        }
        wrong.extend(played.err().map(|what| format!("{} ({:?}): {what}", row.what, row.listener)));
        assert!(pair.are_alive(), "{}: a storage point has ended", row.what);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn rows_of(listeners: &[Listener]) -> Vec<Row> {
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| listeners.contains(&row.listener)).collect();
    assert!(rows.len() >= 4, "the tables of {listeners:?} are gone");
    rows
}

#[test]
fn at_the_http_listeners() {
    let mut pair = Pair::start(1, LIMITS);
    let (publisher, reader) = (pair.publish(), pair.deliver());
    publish(&publisher, "a", b"before");
    play_all(&mut pair, &rows_of(&[Listener::Http, Listener::Publish]), &publisher, None);
    play_all(&mut pair, &rows_of(&[Listener::Http, Listener::Deliver]), &reader, None);
    assert_eq!(get(&reader, "/v1/config/a").body, b"before", "nothing of it was published");
    publish(&publisher, "a", b"after");
    assert_eq!(get(&reader, "/v1/config/a").body, b"after");
}

#[test]
fn at_the_peer_listener() {
    let mut pair = Pair::start(2, LIMITS);
    let addr = pair.peer();
    let hello = table::hello_of(addr.parse().unwrap()).unwrap();
    play_all(&mut pair, &rows_of(&[Listener::Peer]), &addr, Some(&hello));
    publish(&pair.publish(), "a", b"after");
}

#[test]
fn strangers_beyond_the_limit_are_turned_away_and_peers_come_through_again() {
    let pair = Pair::start(3, LIMITS);
    let counter = "acms_peer_refused_total{reason=\"too_many\"}";
    let mut strangers: Vec<Client> = (0..80).map(|_| Client::connect(&pair.peer())).collect();
    publish(&pair.publish(), "a", b"links that are up stay up");
    let started = std::time::Instant::now();
    while metric(&pair.publish(), counter) == 0 {
        assert!(started.elapsed().as_secs() < 20, "80 strangers are taken");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Those taken are silent, and go.
    strangers.iter_mut().for_each(|stranger| while !stranger.has_ended() {});
    table::hello_of(pair.peer().parse().unwrap()).unwrap();
}
