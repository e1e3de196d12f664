//! Reading from one of several storage points.

use crate::{
    SOON, Stopper, client, options,
    server::{Reply, Server, nobody, response},
};
use acms_engine::{
    client::{Client, ClientError, ClientOptions, GetOptions},
    protocol::{Hash, Path},
};
use std::time::Duration;

fn path() -> Path {
    "etc/motd".parse().unwrap()
}

fn content(etag: &str, body: &str) -> Reply {
    let headers = format!("ETag: \"{etag}\"\r\nACMS-Flags: executable\r\nContent-Type: text/plain\r\n");
    Reply::Say(response(200, &headers, body))
}

#[test]
fn a_content_with_all_that_is_said_of_it() {
    let server = Server::start(|_, _| content("5.1.0", "hello"));
    let options = GetOptions { at_least: Some("4.1.0".parse().unwrap()) };
    let fetched = client(&[&nobody(), &server.url]).get(&path(), &options).unwrap().unwrap();
    assert_eq!((&fetched.bytes[..], fetched.size, fetched.uid), (&b"hello"[..], 5, "5.1.0".parse().unwrap()));
    assert!(fetched.flags.executable && fetched.content_type == "text/plain" && fetched.url == server.url);
    assert_eq!(server.seen()[0].header("ACMS-At-Least"), Some("4.1.0"));
}

#[test]
fn nothing_published_is_none_but_something_else_at_that_address_is_an_error() {
    let server = Server::start(|_, _| Reply::Say(response(404, "", r#"{"reason":"nothing there","remedy":"-"}"#)));
    assert_eq!(client(&[&server.url]).get(&path(), &GetOptions::default()), Ok(None));
    for other in [response(404, "", "<html>"), response(200, "", "hello"), "SSH-2.0-x\r\n\r\n".into()] {
        let server = Server::start(move |_, _| Reply::SayAndClose(other.clone()));
        assert!(client(&[&server.url]).get(&path(), &GetOptions::default()).is_err());
    }
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let server = Server::start(|_, _| Reply::SayAndClose(response(200, "ETag: \"5.1.0\"\r\n", "x")));
    let client = client(&[&server.url]);
    for _ in 0..3 {
        assert!(client.get(&path(), &GetOptions::default()).unwrap().is_some());
    }
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn a_storage_point_that_says_nothing_is_asked_once_on_a_new_connection_or_a_kept_one() {
    let silent = Server::start(|_, _| Reply::Silence);
    let falls_silent = Server::start(|before, _| if before == 0 { content("5.1.0", "hello") } else { Reply::Silence });
    let other = Server::start(|_, _| content("6.1.0", "hello"));
    let impatient = || ClientOptions { io_timeout: Duration::from_secs(2), ..options() };
    let get = |client: &Client| client.get(&path(), &GetOptions::default()).unwrap().unwrap().url;
    let client = Client::from_texts(&[&silent.url, &other.url], impatient()).unwrap();
    assert_eq!(get(&client), other.url);
    assert_eq!(silent.seen().len(), 1);
    let client = Client::from_texts(&[&falls_silent.url, &other.url], impatient()).unwrap();
    assert_eq!((get(&client), get(&client)), (falls_silent.url.clone(), other.url.clone()));
    let seen: Vec<usize> = falls_silent.seen().iter().map(|request| request.connection).collect();
    assert_eq!(seen, [0, 0]);
}

#[test]
fn a_content_that_ends_early_is_fetched_elsewhere_or_an_error() {
    let cut = Server::start(|_, _| {
        Reply::SayAndClose("HTTP/1.1 200 OK\r\nETag: \"5.1.0\"\r\nContent-Length: 9\r\n\r\nhel".into())
    });
    let error = client(&[&cut.url]).get(&path(), &GetOptions::default()).unwrap_err();
    assert!(matches!(error, ClientError::Lost { .. }), "{error}");
    let whole = Server::start(|_, _| content("5.1.0", "hello"));
    let fetched = client(&[&cut.url, &whole.url]).get(&path(), &GetOptions::default()).unwrap().unwrap();
    assert_eq!(&fetched.bytes[..], b"hello");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("motd");
    std::fs::write(&file, "old").unwrap();
    client(&[&cut.url]).get_to_file(&path(), &GetOptions::default(), &file).unwrap_err();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");
    client(&[&cut.url, &whole.url]).get_to_file(&path(), &GetOptions::default(), &file).unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hello");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn objects_are_checked() {
    let server = Server::start(|_, _| Reply::Say(response(200, "", "hello")));
    let client = client(&[&server.url]);
    assert_eq!(client.object(&Hash::of(b"hello")).unwrap().unwrap(), "hello");
    assert!(matches!(client.object(&Hash::of(b"other")), Err(ClientError::Corrupt { .. })));
}

#[test]
fn listings_are_read_to_their_end() {
    let entry = |path: &str| {
        let hash = Hash::of(b"");
        format!(r#"{{"path":"{path}","uid":"5.1.0","hash":"{hash}","size":0,"type":"","flags":[]}}"#)
    };
    let server = Server::start(move |_, request| {
        let (entries, next) = match request.target.as_str() {
            "/v1/index/etc" => (entry("etc/a"), r#","next":"etc/a +""#),
            "/v1/index/etc?after=etc%2Fa%20%2B" => (entry("etc/b"), ""),
            other => panic!("{other}"),
        };
        Reply::Say(response(200, "", &format!(r#"{{"entries":[{entries}]{next}}}"#)))
    });
    let listed = client(&[&server.url]).list(&"etc/".parse().unwrap()).unwrap();
    let paths: Vec<&str> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["etc/a", "etc/b"]);
    let endless = Server::start(|_, _| Reply::Say(response(200, "", r#"{"entries":[],"next":"x"}"#)));
    assert!(client(&[&endless.url]).list(&"etc".parse().unwrap()).is_err());
}

#[test]
fn a_refusal_is_told_with_its_remedy() {
    let text = r#"{"reason":"not here in time","remedy":"ask another"}"#;
    let server = Server::start(move |_, _| Reply::Say(response(503, "", text)));
    let error = client(&[&server.url]).get(&path(), &GetOptions::default()).unwrap_err();
    assert_eq!(error.remedy(), "ask another");
    assert!(error.to_string().contains("not here in time"));
}

#[test]
fn reading_stops_soon_when_asked_to() {
    let server = Server::start(|_, _| Reply::Silence);
    let stopper = Stopper::after(Duration::from_millis(150));
    let client = Client::from_texts(&[&server.url], stopper.options()).unwrap();
    assert_eq!(client.snapshot(), Err(ClientError::Interrupted));
    assert!(stopper.stopped_for() < SOON);
}
