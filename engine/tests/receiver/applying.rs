//! The rules of putting files in place, by a real process on real file systems.

use super::end_to_end::{PATIENCE, Process, Server, files};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::Path as FilePath,
    process::{Command, Output},
    time::{Duration, Instant},
};

/// Runs a script in a mount namespace of its own; none where the kernel permits that to nobody, or not to us.
fn in_mount_namespace(script: &str, arguments: &[&str]) -> Option<Output> {
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-ec", script, env!("CARGO_BIN_EXE_acms")]);
        command.args(arguments).output()
    };
    if !unshare("mount -t tmpfs none /mnt").is_ok_and(|output| output.status.success()) {
        eprintln!("left out: no user and mount namespaces here");
        return None;
    }
    Some(unshare(script).unwrap())
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_directory_on_another_file_system_is_kept_by_copies_beside_the_target() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    server.publish("etc/here", 1, Some(b"here"));
    server.publish("etc/other/small", 2, Some(b"small"));
    server.publish("etc/other/d/large", 3, Some(&large));
    server.publish("etc/other/gone", 4, Some(b"x"));
    server.publish("bin/tool", 5, Some(b"tool"));
    std::fs::create_dir_all(into.path().join("etc/other")).unwrap();
    // What a crash has left of an earlier try is in nobody's way.
    let script = r#"
        mount -t tmpfs none "$1/etc/other"
        echo leftover > "$1/etc/other/~acms-new"
        "$0" receive --source "$2" --subscribe etc bin --into "$1" --once
        find "$1/etc/other" -type f | sort
        sha256sum < "$1/etc/other/d/large"
        cat "$1/etc/other/small"
    "#;
    let Some(output) = in_mount_namespace(script, &[into.path().to_str().unwrap(), &server.url]) else { return };
    let other = into.path().join("etc/other");
    let told = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = told.lines().collect();
    let found: Vec<String> = ["d/large", "gone", "small"].map(|name| other.join(name).display().to_string()).into();
    assert!(output.status.success() && lines[..3] == found && lines[4] == "small", "{}", text(&output));
    let expected = {
        let file = into.path().join("expected");
        std::fs::write(&file, &large).unwrap();
        let output = Command::new("sha256sum").stdin(std::fs::File::open(file).unwrap()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(lines[3], expected.trim());
}

#[test]
fn a_directory_that_cannot_be_written_blocks_what_is_in_it_and_nothing_else() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    server.publish("etc/fine", 1, Some(b"fine"));
    server.publish("etc/fixed/one", 2, Some(b"1"));
    server.publish("etc/fixed/d/two", 3, Some(b"2"));
    std::fs::create_dir_all(into.path().join("etc/fixed")).unwrap();
    let script = r#"
        mount -t tmpfs -o ro none "$1/etc/fixed"
        set +e
        "$0" receive --source "$2" --subscribe etc --into "$1" --once --events "$1/events"
        echo "exit $?"
        mount -o remount,rw "$1/etc/fixed"
        "$0" receive --source "$2" --subscribe etc --into "$1" --once --events "$1/events"
        echo "exit $?"
        cat "$1/etc/fixed/one" "$1/etc/fixed/d/two"
    "#;
    let Some(output) = in_mount_namespace(script, &[into.path().to_str().unwrap(), &server.url]) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "exit 1\nexit 0\n12", "{}", text(&output));
    let events = std::fs::read_to_string(into.path().join("events")).unwrap();
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let blocked: BTreeMap<String, String> = events
        .filter(|event| event["kind"] == "blocked")
        .map(|event| (event["path"].as_str().unwrap().to_owned(), event["cause"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(blocked.keys().collect::<Vec<_>>(), ["etc/fixed/d/two", "etc/fixed/one"]);
    assert!(blocked.values().all(|cause| cause.contains("Read-only file system")), "{blocked:?}");
    assert_eq!(files(into.path())["etc/fine"], b"fine");
}

#[test]
fn a_full_disk_keeps_what_is_too_large_away_and_nothing_else() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    server.publish("etc/a", 1, Some(b"a"));
    server.publish("etc/large", 2, Some(&vec![7; 3 << 20]));
    server.publish("etc/z", 3, Some(b"z"));
    let script = r#"
        mount -t tmpfs -o size=2M none "$1"
        mkdir "$1/d"
        "$0" receive --source "$2" --subscribe etc --into "$1/d" --events "$1/events" &
        for i in $(seq 200); do test -e "$1/d/etc/z" && grep -q "etc/large cannot be stored" "$1/events" && break; sleep 0.1; done
        cat "$1/d/etc/a" "$1/d/etc/z"
        mount -o remount,size=20M "$1"
        for i in $(seq 200); do test -e "$1/d/etc/large" && break; sleep 0.1; done
        kill $!
        wait $!
        wc -c < "$1/d/etc/large"
    "#;
    let Some(output) = in_mount_namespace(script, &[into.path().to_str().unwrap(), &server.url]) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "az3145728\n", "{}", text(&output));
}

#[test]
fn modes_are_those_of_the_umask_and_only_the_executable_flag_is_published() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    server.publish("etc/d/file", 1, Some(b"file"));
    server.publish("bin/tool", 2, Some(b"tool"));
    let script = "umask 027; exec \"$0\" receive --source \"$1\" --subscribe etc bin --into \"$2\" --once";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_acms"), &server.url]).arg(into.path());
    assert!(command.status().unwrap().success());
    let mode = |path: &str| std::fs::metadata(into.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("etc/d/file"), mode("bin/tool"), mode("etc/d")), (0o640, 0o750, 0o750));
}

/// Content of the n-th version of a file: large enough that half of one would show.
fn version(file: u64, n: u64) -> Vec<u8> {
    format!("{file} {n}\n").repeat(if file == 0 { 60_000 } else { 400 }).into_bytes()
}

/// Every file is whole; gives the version of each.
fn versions(into: &FilePath) -> BTreeMap<u64, u64> {
    let of_file = |(path, bytes): (String, Vec<u8>)| {
        let text = String::from_utf8(bytes).unwrap();
        let mut words = text.lines().next().unwrap_or_else(|| panic!("{path} is empty")).split(' ');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        let (file, n) = (number(), number());
        assert!(text.as_bytes() == version(file, n), "{path} is not whole");
        (file, n)
    };
    files(into).into_iter().map(of_file).collect()
}

#[test]
fn killed_at_any_time_it_leaves_whole_files_that_never_go_back() {
    const FILES: u64 = 12;
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    let publish = |n: u64| {
        for file in 0..FILES {
            server.publish(&format!("etc/d{}/f{file}", file % 3), n * FILES + file + 1, Some(&version(file, n)));
        }
    };
    let (mut before, mut n, mut cut) = (BTreeMap::new(), 0, 0);
    let mut rounds = 0;
    // At least twelve times, and until it was killed while a file was on its way.
    while rounds < 12 || (cut == 0 && rounds < 100) {
        rounds += 1;
        n += 1;
        publish(n);
        let mut process = Process::start(&[&server], into.path(), &[]);
        let end = Instant::now() + Duration::from_millis(40 + rounds % 12 * 35);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            n += 1;
            publish(n);
        }
        // The last version is being put in place.
        std::thread::sleep(Duration::from_micros(rounds % 10 * 700));
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        let after = versions(into.path());
        for (file, was) in &before {
            assert!(after.get(file).is_some_and(|is| is >= was), "file {file} was {was}: {after:?}");
        }
        cut += usize::from(std::fs::read_dir(into.path().join("~acms/tmp")).is_ok_and(|left| left.count() > 0));
        before = after;
    }
    assert!(cut > 0 && !before.is_empty(), "it was never killed at work");
    let process = Process::start(&[&server], into.path(), &[]);
    process.wait_for("current", "");
    let end = Instant::now() + PATIENCE;
    while versions(into.path()).values().any(|is| *is != n) {
        assert!(Instant::now() < end, "it does not come to version {n}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(process.stop(), 0);
}
