//! One honest outcome for each submission (promise P8), whatever becomes of connections.

use crate::{
    LONG, SOON, Stopper, client, options,
    server::{Reply, Request, Server, nobody, outcome, response},
};
use acms_engine::{
    client::{Body, Client, ClientError, ClientOptions, PublishOptions, PublishResult, Verdict},
    protocol::{Hash, Order, Path, Uid},
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
fn unknown() -> String {
    response(404, "", r#"{"reason":"not known","remedy":"-"}"#)
}

/// An entry of the publication `uid`, with flags such as `"executable"`.
fn entry(uid: &str, path: &str, content: &[u8], flags: &str) -> String {
    let (hash, size) = (Hash::of(content), content.len());
    format!(r#""path":"{path}","uid":"{uid}","hash":"{hash}","size":{size},"type":"","flags":[{flags}]"#)
}

/// The agreed publication 7.2.0, which has this entry.
fn agreed(entry: &str) -> String {
    let entries = format!(r#""entries":[{{{entry}}}],"holders":[1,2,3],"agreed":true"#);
    response(200, "", &format!(r#"{{"outcome":"accepted","uid":"7.2.0",{entries}}}"#))
}

/// Loses each publication, and answers each question with this.
fn losing(answer: impl Fn(&Request) -> String + Send + Sync + 'static) -> Server {
    Server::start(move |_, request| match request.method.as_str() {
        "GET" => Reply::Say(answer(request)),
        _ => Reply::SayAndClose(String::new()),
    })
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
    let patient = ClientOptions { io_timeout: LONG, retry_timeout: LONG, ..options() };
    let client = Client::from_texts(&[&nobody(), &server.url], patient).unwrap();
    assert_eq!(publish(&client).unwrap().attempts, 1);
    let begun = Instant::now();
    publish(&client).unwrap();
    assert!(begun.elapsed() < SOON);
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
        assert!(begun.elapsed() < SOON);
    }
}

#[test]
fn a_later_rejection_does_not_make_an_earlier_attempt_rejected() {
    let server = Server::start(|before, request| match (request.method.as_str(), before) {
        ("PUT", 0) => Reply::SayAndClose(String::new()),
        ("PUT", _) => Reply::Say(outcome(503, "rejected", r#","reason":"no quorum""#)),
        _ => Reply::Say(unknown()),
    });
    let result = publish(&client(&[&server.url])).unwrap();
    assert_eq!(result.outcome, Verdict::Undetermined);
    assert!(result.reason.unwrap().contains("no quorum"));
}

#[test]
fn what_was_agreed_is_found_by_its_key() {
    let ignorant = losing(|_| unknown());
    let knowing = losing(|_| agreed(&entry("7.2.0", "etc/motd", b"hello", "")));
    let result = publish(&client(&[&ignorant.url, &knowing.url])).unwrap();
    assert_eq!((result.outcome, result.uid), (Verdict::Accepted, Some("7.2.0".parse().unwrap())));
    let asked = knowing.seen().into_iter().find(|request| request.method == "GET").unwrap();
    assert_eq!(asked.target, format!("/v1/publications?key={}&publisher=tester", result.key));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("content");
    std::fs::write(&file, "hello").unwrap();
    let result = client(&[&knowing.url]).publish(&path(), &Body::File(file), &PublishOptions::default()).unwrap();
    assert_eq!(result.outcome, Verdict::Accepted);
    let deleted = losing(|_| agreed(&entry("7.2.0", "etc/motd", b"", "\"deleted\"")));
    let result = client(&[&deleted.url]).delete(&path(), &PublishOptions::default()).unwrap();
    assert_eq!(result.outcome, Verdict::Accepted);
}

#[test]
fn another_publication_under_the_key_is_not_taken_for_the_one_that_was_lost() {
    let (lost, taken) = (losing(|_| unknown()), r#","reason":"the key is taken by another""#);
    for (path_there, content, flags) in
        [("etc/motd", "other", ""), ("etc/issue", "hello", ""), ("etc/motd", "hello", "\"executable\"")]
    {
        let found = agreed(&entry("7.2.0", path_there, content.as_bytes(), flags));
        let other = Server::start(move |_, request| match request.method.as_str() {
            "GET" => Reply::Say(found.clone()),
            _ => Reply::Say(outcome(409, "rejected", taken)),
        });
        let options = PublishOptions { key: Some("k".into()), ..PublishOptions::default() };
        let result = client(&[&lost.url, &other.url]).publish(&path(), &body(), &options).unwrap();
        assert_eq!((result.outcome, result.uid), (Verdict::Undetermined, None), "{path_there} {content} {flags}");
        assert!(result.reason.as_ref().is_some_and(|reason| reason.contains("taken by another")), "{result:?}");
        assert!(result.remedy.as_ref().is_some_and(|remedy| remedy.contains("7.2.0")), "{result:?}");
        assert!(other.seen().iter().any(|request| request.method == "GET"));
    }
}

#[test]
fn a_version_that_was_published_again_is_found_by_its_key_if_it_is_that_version() {
    for (content, expected) in [("old", Verdict::Accepted), ("other", Verdict::Undetermined)] {
        let server = losing(move |request| match request.target.as_str() {
            "/v1/history/etc/motd" => {
                let version = entry("3.1.0", "etc/motd", b"old", "\"executable\"");
                let version = format!(r#"{{{version},"publisher":"tester","accepted_us":3}}"#);
                response(200, "", &format!(r#"{{"path":"etc/motd","versions":[{version}]}}"#))
            }
            _ => agreed(&entry("7.2.0", "etc/motd", content.as_bytes(), "\"executable\"")),
        });
        let (uid, options) = ("3.1.0".parse().unwrap(), PublishOptions::default());
        let result = client(&[&server.url]).publish_again(&path(), uid, &options).unwrap();
        assert_eq!(result.outcome, expected, "{result:?}");
    }
}

#[test]
fn storage_points_that_do_not_say_what_became_of_it_are_not_waited_for_beyond_the_time_of_retries() {
    for silent in ["/v1/publications", "/v1/uploads"] {
        let server = Server::start(move |_, request| match request.method.as_str() {
            "GET" if request.target.starts_with(silent) => Reply::Silence,
            "GET" => Reply::Say(unknown()),
            _ => Reply::SayAndClose(String::new()),
        });
        let patient = ClientOptions { io_timeout: LONG, retry_timeout: Duration::from_secs(3), ..options() };
        let client = Client::from_texts(&[&server.url], patient).unwrap();
        let (begun, large) = (Instant::now(), Body::Bytes(vec![1; 1 << 20].into()));
        let result = client.publish(&path(), &large, &PublishOptions::default()).unwrap();
        assert_eq!(result.outcome, Verdict::Undetermined);
        assert!(begun.elapsed() < SOON, "{silent}: {:?}", begun.elapsed());
        assert!(server.seen().iter().any(|request| request.target.starts_with(silent)), "{silent} was not asked for");
    }
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
    assert!(stopper.stopped_for() < SOON);
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
    let options = ClientOptions { publisher: "a\nb".into(), ..options() };
    assert!(Client::from_texts(&[&server.url], options).is_err());
    assert_eq!(server.seen().len(), 0);
}
