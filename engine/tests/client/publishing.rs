//! One honest outcome for each submission (promise P8), whatever becomes of connections.

use crate::{
    Stopper, client, options,
    server::{Reply, Request, Server, nobody, outcome, response},
};
use acms_engine::{
    client::{Body, Client, ClientError, PublishOptions, PublishResult, Verdict},
    protocol::{Order, Path, Uid},
};
use bytes::Bytes;
use std::time::{Duration, Instant};

const ACCEPTED: &str = ",\"uid\":\"5.1.0\"";

fn path() -> Path {
    "etc/motd".parse().unwrap()
}

fn body() -> Body {
    Body::Bytes(Bytes::from_static(b"hello"))
}

fn publish(client: &Client) -> Result<PublishResult, ClientError> {
    client.publish(&path(), &body(), &PublishOptions::default())
}

fn accepting() -> Server {
    Server::start(|_, _| Reply::Say(outcome(201, "accepted", ACCEPTED)))
}

/// Nothing is known under any key.
fn unknown() -> Reply {
    Reply::Say(response(404, "", r#"{"reason":"not known","remedy":"-"}"#))
}

#[test]
fn everything_that_was_asked_for_is_sent_and_the_connection_is_kept() {
    let server = accepting();
    let client = client(&[&server.url]);
    let all = PublishOptions {
        key: Some("k 1".into()),
        known: Some("3.2.0".parse().unwrap()),
        order: Some(Order::Fast),
        executable: true,
        content_type: Some("text/plain".into()),
        content_of: None,
    };
    let result = client.publish(&path(), &body(), &all).unwrap();
    assert_eq!(
        (result.outcome, result.uid, result.attempts),
        (Verdict::Accepted, Some("5.1.0".parse::<Uid>().unwrap()), 1)
    );
    client.delete(&path(), &PublishOptions::default()).unwrap();
    let seen = server.seen();
    let (put, delete) = (&seen[0], &seen[1]);
    assert_eq!(
        (put.method.as_str(), put.target.as_str(), put.body.as_slice()),
        ("PUT", "/v1/config/etc/motd", &b"hello"[..])
    );
    for (name, value) in [
        ("Idempotency-Key", "k 1"),
        ("ACMS-Publisher", "tester"),
        ("ACMS-Known-UID", "3.2.0"),
        ("ACMS-Order", "fast"),
        ("ACMS-Flags", "executable"),
        ("Content-Type", "text/plain"),
    ] {
        assert_eq!(put.header(name), Some(value), "{name}");
    }
    assert_eq!((delete.method.as_str(), delete.connection), ("DELETE", put.connection));
    let key = delete.header("Idempotency-Key").unwrap();
    assert_eq!(key.len(), 32, "a random key is always sent");
}

#[test]
fn rejected_says_why_and_what_to_do() {
    let more = r#","reason":"no quorum","remedy":"start the others""#;
    let server = Server::start(move |_, _| Reply::Say(outcome(503, "rejected", more)));
    let result = publish(&client(&[&server.url])).unwrap();
    assert_eq!(result.outcome, Verdict::Rejected);
    assert_eq!((result.reason.as_deref(), result.remedy.as_deref()), (Some("no quorum"), Some("start the others")));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn undetermined_names_what_superseded_it() {
    let more = r#","uid":"4.1.0","superseded_by":"9.1.0","reason":"superseded by 9.1.0""#;
    let server = Server::start(move |_, _| Reply::Say(outcome(202, "undetermined", more)));
    let result = publish(&client(&[&server.url])).unwrap();
    assert_eq!((result.outcome, result.superseded_by), (Verdict::Undetermined, Some("9.1.0".parse().unwrap())));
}

#[test]
fn a_storage_point_that_cannot_be_reached_is_passed_over() {
    let server = accepting();
    let client = client(&[&nobody(), &server.url]);
    assert_eq!(publish(&client).unwrap().attempts, 1);
    let begun = Instant::now();
    publish(&client).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(server.seen()[0].connection, server.seen()[1].connection, "the one that answered is preferred");
}

#[test]
fn when_none_can_be_reached_nothing_was_sent_and_that_is_an_error() {
    let error = publish(&client(&[&nobody(), &nobody()])).unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable { url, .. } if url.contains(", ")), "{error}");
}

#[test]
fn a_lost_connection_is_tried_again_elsewhere_with_the_same_key() {
    let losing = Server::start(|_, _| Reply::SayAndClose(String::new()));
    let server = accepting();
    let result = publish(&client(&[&losing.url, &server.url])).unwrap();
    assert_eq!((result.outcome, result.attempts), (Verdict::Accepted, 2));
    let key = |request: &Request| request.header("Idempotency-Key").map(str::to_owned);
    assert_eq!(key(&losing.seen()[0]), key(&server.seen()[0]));
    assert_eq!(key(&server.seen()[0]), Some(result.key));
}

#[test]
fn connections_lost_time_and_again_are_undetermined() {
    for broken in ["", "HTTP/1.1 201 Created\r\nACMS-Outcome: accepted\r\nContent-Length: 50\r\n\r\n{\"outcome\""] {
        let server = Server::start(|_, _| Reply::SayAndClose(broken.into()));
        let begun = Instant::now();
        let result = publish(&client(&[&server.url])).unwrap();
        assert_eq!(result.outcome, Verdict::Undetermined);
        assert!(result.attempts > 1 && result.reason.is_some() && result.remedy.unwrap().contains(&result.key));
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn a_later_rejection_does_not_make_an_earlier_attempt_rejected() {
    let server = Server::start(|before, request| match (request.method.as_str(), before) {
        ("PUT", 0) => Reply::SayAndClose(String::new()),
        ("PUT", _) => Reply::Say(outcome(503, "rejected", r#","reason":"no quorum""#)),
        _ => unknown(),
    });
    let result = publish(&client(&[&server.url])).unwrap();
    assert_eq!(result.outcome, Verdict::Undetermined);
    assert!(result.reason.unwrap().contains("no quorum"));
}

#[test]
fn what_was_agreed_is_found_by_its_key() {
    let losing = Server::start(|_, request| match request.method.as_str() {
        "PUT" => Reply::SayAndClose(String::new()),
        _ => unknown(),
    });
    let knowing = Server::start(|_, request| match request.method.as_str() {
        "PUT" => Reply::SayAndClose(String::new()),
        _ => Reply::Say(response(
            200,
            "",
            r#"{"outcome":"accepted","uid":"7.2.0","entries":[],"holders":[1,2,3],"agreed":true}"#,
        )),
    });
    let result = publish(&client(&[&losing.url, &knowing.url])).unwrap();
    assert_eq!((result.outcome, result.uid), (Verdict::Accepted, Some("7.2.0".parse().unwrap())));
    let asked = knowing.seen().into_iter().find(|request| request.method == "GET").unwrap();
    assert_eq!(asked.target, format!("/v1/publications?key={}&publisher=tester", result.key));
}

#[test]
fn an_answer_without_outcome_came_from_something_else_and_is_undetermined() {
    for status in [200, 201, 404, 502] {
        let server = Server::start(move |_, _| Reply::Say(response(status, "", "<html>")));
        let result = publish(&client(&[&server.url])).unwrap();
        assert_eq!((result.outcome, result.attempts), (Verdict::Undetermined, 1));
        assert!(result.reason.unwrap().contains(&status.to_string()));
    }
}

#[test]
fn an_answer_before_the_body_was_sent_is_heard() {
    let more = r#","reason":"too large","remedy":"publish less""#;
    let server = Server::hasty(move |_, _| Reply::SayAndClose(outcome(413, "rejected", more)));
    let large = Body::Bytes(vec![1; 64 << 20].into());
    let result = client(&[&server.url]).publish(&path(), &large, &PublishOptions::default()).unwrap();
    assert_eq!((result.outcome, result.reason.as_deref()), (Verdict::Rejected, Some("too large")));
}

#[test]
fn files_are_published_whole_or_not_at_all() {
    let server = accepting();
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("content");
    let content: Vec<u8> = (0..300_000u32).map(|i| i as u8).collect();
    std::fs::write(&name, &content).unwrap();
    let client = client(&[&server.url]);
    client.publish(&path(), &Body::File(name.clone()), &PublishOptions::default()).unwrap();
    assert!(server.seen()[0].body == content);
    std::fs::remove_file(&name).unwrap();
    let error = client.publish(&path(), &Body::File(name), &PublishOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::File { .. }));
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn an_interrupted_publication_is_undetermined_and_soon() {
    let server = Server::start(|_, _| Reply::Silence);
    let stopper = Stopper::after(Duration::from_millis(150));
    let client = Client::from_texts(&[&server.url], stopper.options()).unwrap();
    let result = publish(&client).unwrap();
    assert!(stopper.stopped_for() < Duration::from_millis(200));
    assert_eq!(result.outcome, Verdict::Undetermined);
    assert_eq!(publish(&client), Err(ClientError::Interrupted), "nothing is sent once the caller wants to stop");
}

#[test]
fn names_that_no_header_carries_are_refused() {
    let server = accepting();
    let client = client(&[&server.url]);
    for key in ["", " k", "k\r\nEvil: 1", "é", &"k".repeat(256)] {
        let options = PublishOptions { key: Some(key.into()), ..PublishOptions::default() };
        let error = client.publish(&path(), &body(), &options).unwrap_err();
        assert!(matches!(error, ClientError::BadOption { .. }), "{key:?}");
    }
    let options = acms_engine::client::ClientOptions { publisher: "a\nb".into(), ..options() };
    assert!(Client::from_texts(&[&server.url], options).is_err());
    assert_eq!(server.seen().len(), 0);
}
