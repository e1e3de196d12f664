//! Configuration: what counts, and what `--check` says of it.

use crate::cluster::{Cluster, command, text};
use serde_json::Value;
use std::process::Output;

fn check(cluster: &Cluster, flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let config = cluster.config(1);
    let fixed = ["--json", "storage-point", "--check", "--verbose", "--config", config.to_str().unwrap()];
    let mut command = command(&[&fixed, flags].concat());
    command.envs(variables.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> Value {
    serde_json::from_str(&text(&output.stdout)).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A setting's value, and where it is from.
fn setting(said: &Value, key: &str) -> (String, String) {
    let all = said["settings"].as_array().unwrap();
    let one = all.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("no {key} in {said}"));
    (one["value"].as_str().unwrap().to_owned(), one["from"].as_str().unwrap().to_owned())
}

#[test]
fn variables_count_more_than_the_file_and_flags_more_than_both() {
    let cluster = Cluster::lay_out(5, 3);
    let store = cluster.config(1).with_file_name("store").display().to_string();
    let other = format!("{store}/../store");
    let base = cluster.url(1).replace("http://", "").replace(":7400", "");
    let addr = |port: u16| format!("{base}:{port}");
    let keys = [
        ("storage_point.store", "store", "ACMS_STORE", "store".to_owned(), store.clone(), other),
        ("listen.deliver", "listen-deliver", "ACMS_LISTEN_DELIVER", addr(7400), addr(7600), addr(7700)),
        ("listen.publish", "listen-publish", "ACMS_LISTEN_PUBLISH", addr(7400), addr(7601), addr(7701)),
        ("listen.peer", "listen-peer", "ACMS_LISTEN_PEER", addr(7500), addr(7602), addr(7702)),
    ];
    for (key, flag, variable, in_file, in_variable, in_flag) in keys {
        let alone = said(&check(&cluster, &[], &[]));
        assert_eq!(setting(&alone, key), (in_file, "file".into()), "{alone}");
        assert_eq!((&alone["usable"], &alone["problems"]), (&true.into(), &Value::Array(vec![])), "{alone}");
        let with_variable = said(&check(&cluster, &[], &[(variable, &in_variable)]));
        assert_eq!(setting(&with_variable, key), (in_variable.clone(), format!("variable {variable}")));
        let flag = format!("--{flag}");
        let with_flag = said(&check(&cluster, &[&flag, &in_flag], &[(variable, &in_variable)]));
        assert_eq!(setting(&with_flag, key), (in_flag, format!("flag {flag}")));
    }
    let defaults = said(&check(&cluster, &[], &[]));
    assert_eq!(setting(&defaults, "acms.order"), ("strict".into(), "default".into()));
    assert_eq!(setting(&defaults, "members.2.id").0, "3");
}

#[test]
fn check_finds_what_would_keep_a_storage_point_from_starting_or_being_found() {
    let mut cluster = Cluster::lay_out(6, 3);
    let other_store = cluster.config(2).with_file_name("store").display().to_string();
    let taken = cluster.url(1).replace("http://", "").replace(":7400", ":7650");
    let _listener = std::net::TcpListener::bind(&taken).unwrap();
    let cases: [(&[&str], &str, &str, i32); 6] = [
        (&["--store", "/nonexistent"], "storage_point.store", "is no directory", 2),
        (&["--store", &other_store], "storage_point.store", "belongs to storage point 2", 2),
        (&["--store", "/tmp"], "storage_point.store", "/tmp", 2),
        (&["--listen-publish", &taken], "listen.publish", "cannot listen", 2),
        (&["--listen-publish", "192.0.2.1:7400"], "listen.publish", "nothing said there would be encrypted", 2),
        (&["--listen-peer", "127.0.0.1:7999"], "listen.peer", "the others look for this storage point at", 0),
    ];
    for (flags, key, what, code) in cases {
        let output = check(&cluster, flags, &[]);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(code), "{told}");
        let problem = &told["problems"][0];
        assert!(problem["key"] == key && problem["what"].as_str().unwrap().contains(what), "{told}");
    }
    let told = said(&check(&cluster, &[], &[("ACMS_LISTEN_PEAR", "x")]));
    assert_eq!(told["problems"][0]["remedy"], "did you mean ACMS_LISTEN_PEER?", "{told}");

    let text_of = std::fs::read_to_string(cluster.config(1)).unwrap();
    std::fs::write(cluster.config(1), text_of.replace("deliver =", "delivr =")).unwrap();
    let output = check(&cluster, &[], &[]);
    let told = said(&output);
    assert_eq!((output.status.code(), &told["problems"][0]["key"]), (Some(2), &"delivr".into()));
    let what = told["problems"][0]["what"].as_str().unwrap();
    assert!(what.contains("line") && what.contains("did you mean `deliver`?"), "{what}");
    std::fs::write(cluster.config(1), text_of).unwrap();

    // One that runs has its addresses and its store, and nothing is wrong with that.
    cluster.start_sp(1);
    let told = said(&check(&cluster, &[], &[]));
    assert_eq!((&told["usable"], &told["problems"]), (&true.into(), &Value::Array(vec![])), "{told}");
}
