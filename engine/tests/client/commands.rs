//! The `acms` command: what it prints and what its exit code says.

use crate::server::{Reply, Server, nobody, outcome, response};
use serde_json::Value;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Output, Stdio},
};

fn acms(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acms"));
    for name in ["ACMS_TO", "ACMS_FROM", "ACMS_PUBLISHER"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn accepting() -> Server {
    Server::start(|_, _| Reply::Say(outcome(201, "accepted", ",\"uid\":\"5.1.0\"")))
}

#[test]
fn exit_codes_tell_the_outcome() {
    let accepting = accepting();
    let rejecting = Server::start(|_, _| {
        Reply::Say(outcome(503, "rejected", r#","reason":"no quorum","remedy":"start the others""#))
    });
    let unsure = Server::start(|_, _| Reply::Say(outcome(202, "undetermined", r#","reason":"no agreement yet""#)));
    let nobody = nobody();
    for (url, expected, text) in [
        (&accepting.url, 0, "etc/motd accepted as 5.1.0"),
        (&rejecting.url, 1, "remedy: start the others"),
        (&unsure.url, 3, "no agreement yet"),
        (&nobody, 2, "remedy: check that the storage point runs"),
    ] {
        let output = acms(&["publish", "--to", url, "etc/motd", "-"]);
        assert_eq!(code(&output), expected);
        assert!((stdout(&output) + &stderr(&output)).contains(text), "{output:?}");
        let output = acms(&["--json", "delete", "--to", url, "etc/motd"]);
        assert_eq!(code(&output), expected);
        let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
        assert!(line.get("outcome").or(line.get("error")).is_some() && stderr(&output).is_empty(), "{output:?}");
    }
    for wrong in [&["publish", "a"][..], &["publish", "--to", "x", "a", "-"], &["publish", "--to", &nobody, "/a", "-"]]
    {
        assert_eq!(code(&acms(wrong)), 2);
    }
}

#[test]
fn a_tree_is_published_without_secrets() {
    let server = accepting();
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    let write = |name: &str, mode: u32| {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    };
    write("motd", 0o644);
    write("bin/run", 0o755);
    write("shadow", 0o640);
    write("private/key", 0o644);
    write("with space", 0o644);
    fs::set_permissions(root.join("private"), Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
    let name = root.to_str().unwrap();
    let output = acms(&["--json", "publish", "--to", &server.url, "--tree", name, "etc/"]);
    assert_eq!(code(&output), 0);
    let summary: Value = serde_json::from_str(stdout(&output).lines().last().unwrap()).unwrap();
    for (count, expected) in [("files", 2), ("accepted", 2), ("skipped", 3), ("unnameable", 1), ("failed", 0)] {
        assert_eq!(summary[count], expected, "{count}");
    }
    let mut seen: Vec<_> =
        server.seen().into_iter().map(|r| (r.target.clone(), r.header("ACMS-Flags").is_some())).collect();
    seen.sort();
    assert_eq!(seen, [("/v1/config/etc/bin/run".to_owned(), true), ("/v1/config/etc/motd".to_owned(), false)]);
    let output = acms(&["publish", "--to", &server.url, "--all", "-j", "2", "--tree", name, ""]);
    assert!(stdout(&output).starts_with("4 of 4 files accepted, 1 without a legal name, 1 skipped"), "{output:?}");
    let output = acms(&["publish", "--to", &nobody(), "--tree", name, ""]);
    assert_eq!(code(&output), 2);
    assert_eq!(stderr(&output).matches("cannot be reached").count(), 1, "said once: {}", stderr(&output));
}

#[test]
fn get_prints_saves_or_says_that_there_is_nothing() {
    let server = Server::start(|_, request| match request.target.as_str() {
        "/v1/config/bin/run" => Reply::Say(response(200, "ETag: \"5.1.0\"\r\nACMS-Flags: executable\r\n", "a\0b")),
        _ => Reply::Say(response(404, "", r#"{"reason":"nothing there","remedy":"-"}"#)),
    });
    let output = acms(&["get", "--from", &server.url, "bin/run"]);
    assert_eq!((code(&output), stdout(&output).as_str()), (0, "a\0b"));
    let output = acms(&["--json", "get", "--from", &server.url, "bin/run"]);
    let line: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&line["inline"], &line["uid"], &line["size"]), (&"YQBi".into(), &"5.1.0".into(), &3.into()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run");
    assert_eq!(code(&acms(&["get", "--from", &server.url, "bin/run", "--output", file.to_str().unwrap()])), 0);
    assert_eq!(fs::read(&file).unwrap(), b"a\0b");
    assert_ne!(fs::metadata(&file).unwrap().permissions().mode() & 0o100, 0);
    let output = acms(&["get", "--from", &server.url, "nothing"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("remedy"));
}

#[test]
fn status_lists_those_that_cannot_be_reached_too() {
    let status =
        r#"{"sp":2,"incarnation":"0-1","root":"00112233445566778899","protocol":{"paths":3,"pending":0},"as_of_us":1}"#;
    let server = Server::start(move |_, _| Reply::Say(response(200, "", status)));
    let dead = nobody();
    let output = acms(&["status", "--from", &server.url, "--from", &dead]);
    assert_eq!(code(&output), 1);
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[1].starts_with("2 ") && lines[1].contains("001122334455 "), "{text}");
    assert!(lines[2].contains(&dead) && lines[2].contains("does not answer"), "{text}");
    assert!(text.contains("remedy: check that the storage point runs") && text.ends_with("degraded\n"), "{text}");
    let output = acms(&["--json", "status", "--from", &format!("{},{dead}", server.url)]);
    let lines: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["reachable"], &lines[1]["reachable"]), (&true.into(), &false.into()));
    assert_eq!((&lines[2]["verdict"], code(&output)), (&"degraded".into(), 1));
    assert_eq!(code(&acms(&["status", "--from", &dead])), 2);
}

#[test]
fn init_writes_what_a_storage_point_reads_and_overwrites_nothing() {
    use acms_engine::runtime::config::StoragePointConfig;
    let directory = tempfile::tempdir().unwrap();
    let cluster = directory.path().join("cluster");
    let name = cluster.to_str().unwrap();
    let output = acms(&["init", name, "--storage-points", "3", "--cluster", "demo", "--address-base", "127.23.45.0"]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).contains("acms storage-point --config"));
    for id in 1..=3 {
        let config = StoragePointConfig::load(&cluster.join(format!("sp{id}/acms.toml")), &Default::default()).unwrap();
        assert_eq!((config.cluster.as_str(), config.me.0, config.members.len()), ("demo", id, 3));
        assert_eq!(config.publish.to_string(), format!("127.23.45.{id}:7400"));
        assert_eq!(config.peer.to_string(), format!("127.23.45.{id}:7500"));
        assert!(config.store.join("identity").exists());
    }
    let output = acms(&["init", name]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("exists"));
    for wrong in [&["--cluster", "a b"][..], &["--storage-points", "0"], &["--address-base", "255.255.255.255"]] {
        let place = directory.path().join("other");
        assert_eq!(code(&acms(&[&["init", place.to_str().unwrap()], wrong].concat())), 2);
        assert!(!place.exists());
    }
}
