//! The log: what each line says, and that nobody can flood it.

use crate::cluster::{ACMS, Cluster};
use acms_engine::{
    protocol::{SpId, StoreId, message::Header},
    wire::{Hello, Versions, encode_hello},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

#[test]
fn every_line_says_when_what_and_who_and_strangers_do_not_flood_it() {
    let mut cluster = Cluster::lay_out(11, 1);
    cluster.spawn(1, ACMS, &[("ACMS_LOG_FORMAT", "json")]);
    cluster.wait_ready(1);
    let store = StoreId { number: 0, nonce: 1 };
    let header = Header { epoch: 1, config: [0; 8], from: SpId(9), store, stores: Vec::new() };
    let hello = encode_hello(&Hello { cluster: "other".into(), header, versions: Versions::default() }).unwrap();
    let peer = cluster.url(1).replace("http://", "").replace(":7400", ":7500");
    for _ in 0..60 {
        let mut stream = TcpStream::connect(&peer).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(&hello).unwrap();
        // It is refused once it has been read.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    cluster.stop(1);
    let log = cluster.log(1);
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for line in &lines {
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(["ERROR", "WARN", "INFO"].contains(&line["level"].as_str().unwrap()), "{line}");
        assert!(line["target"].as_str().is_some_and(|target| target.starts_with("acms_engine::")), "{line}");
        assert!(line["sp"] == 1 && line["message"].is_string(), "{line}");
    }
    let of_strangers = log.lines().filter(|line| line.contains("a stranger says")).count();
    assert!((1..=40).contains(&of_strangers), "{of_strangers} lines of 60 strangers; 20 in each 10 s\n{log}");
    assert!(lines.iter().any(|line| line["message"].as_str().unwrap().contains("stopping")), "{log}");
}
