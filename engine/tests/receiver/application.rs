//! What the application sees beside the directory: commands, the socket of events, the alarm, the status file.

use super::{
    end_to_end::{PATIENCE, Process, Server},
    source::Mood,
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    path::Path as FilePath,
    process::{Child, Command},
    time::Instant,
};

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn status(into: &FilePath) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(into.join("~acms/status.json")).ok()?).ok()
}

/// The runs of a command that appends its input to `log`, each ended by a line with its variables.
fn runs(log: &FilePath) -> Vec<(Vec<Value>, String)> {
    let (mut runs, mut lines) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        match line.strip_prefix("end ") {
            Some(variables) => runs.push((std::mem::take(&mut lines), variables.to_owned())),
            None => lines.push(serde_json::from_str(line).unwrap()),
        }
    }
    runs
}

#[test]
fn a_command_is_told_of_all_changes_again_after_a_failure_and_after_a_crash() {
    let server = Server::start(1);
    let (into, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, fails) = (beside.path().join("log"), beside.path().join("fails"));
    let command = format!(
        "test -e {} && exit 3; cat >> {log}; echo end $ACMS_CHANGES $ACMS_DIRECTORY >> {log}; echo is seen nowhere",
        fails.display(),
        log = log.display()
    );
    let more = ["--on-change", &command, "--id", "r"];
    server.publish("etc/a", 1, Some(b"a"));
    server.publish("etc/b", 2, Some(b"b"));
    let mut process = Process::start(&[&server], into.path(), &more);
    process.wait_for("command_done", "");
    let told = runs(&log);
    assert_eq!(told.len(), 1);
    let paths: Vec<&str> = told[0].0.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!((paths, told[0].1.as_str()), (vec!["etc/a", "etc/b"], &*format!("2 {}", into.path().display())));
    // While it fails, what changes is put together, each path as it is last.
    std::fs::write(&fails, "").unwrap();
    server.publish("etc/a", 3, Some(b"aa"));
    assert!(process.wait_for("command_failed", "")["cause"].as_str().unwrap().contains("exit status: 3"));
    server.publish("etc/a", 4, None);
    server.publish("etc/c", 5, Some(b"c"));
    process.wait_for("applied", "etc/c");
    std::fs::remove_file(&fails).unwrap();
    process.wait_for("command_done", "");
    let (lines, _) = runs(&log).pop().unwrap();
    let told: Vec<_> = lines.iter().map(|line| (line["path"].as_str().unwrap(), line["deleted"] == true)).collect();
    assert_eq!(told, [("etc/a", true), ("etc/c", false)]);
    assert!(into.path().join("~acms/told").exists());
    // Killed before the command has taken note of a change, it is told of everything at the next start.
    std::fs::write(&fails, "").unwrap();
    server.publish("etc/b", 6, Some(b"bb"));
    process.wait_for("command_failed", "");
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    std::fs::remove_file(&fails).unwrap();
    let process = Process::start(&[&server], into.path(), &more);
    process.wait_for("command_done", "");
    let (lines, _) = runs(&log).pop().unwrap();
    let paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["etc/a", "etc/b", "etc/c"]);
    assert_eq!(process.stop(), 0);
    // All told: nothing is said at the next start.
    let count = runs(&log).len();
    let process = Process::start(&[&server], into.path(), &more);
    process.wait_for("current", "");
    server.publish("etc/d", 7, Some(b"d"));
    process.wait_for("command_done", "");
    assert_eq!(runs(&log)[count..].iter().map(|(lines, _)| lines.len()).collect::<Vec<_>>(), [1]);
    assert_eq!(process.stop(), 0);
}

#[test]
fn with_once_the_command_is_waited_for_and_a_failure_is_told() {
    let server = Server::start(1);
    let (into, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (log, told) = (beside.path().join("log"), into.path().join("~acms/told"));
    let run = |command: &str| {
        let mut process = Process::start(&[&server], into.path(), &["--once", "--on-change", command]);
        let code = process.child.wait().unwrap().code().unwrap();
        let kinds: Vec<_> = process.events.iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect();
        let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
        (code, count("command_done"), count("command_failed"))
    };
    server.publish("etc/a", 1, Some(b"a"));
    let note = format!("cat >> {log}; echo end $ACMS_CHANGES >> {log}", log = log.display());
    assert_eq!(run(&format!("sleep 1; {note}")), (0, 1, 0));
    assert_eq!(runs(&log).len(), 1);
    assert!(told.exists());
    // It is tried once, and told of everything at the next start.
    server.publish("etc/b", 2, Some(b"b"));
    assert_eq!(run("exit 3"), (1, 0, 1));
    assert!(!told.exists());
    assert_eq!(run(&note), (0, 1, 0));
    let (lines, _) = runs(&log).pop().unwrap();
    let paths: Vec<&str> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["etc/a", "etc/b"]);
    // With nothing to tell it is not run.
    assert_eq!(run("exit 3"), (0, 0, 0));
}

#[test]
fn a_command_that_takes_too_long_is_ended_and_so_is_one_whose_receiver_ends() {
    let server = Server::start(1);
    let (into, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let pid_file = beside.path().join("pid");
    let command = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 600 & wait", pid_file.display());
    server.publish("etc/a", 1, Some(b"a"));
    let limit = ["--on-change", &command, "--command-limit", "300ms"];
    let process = Process::start(&[&server], into.path(), &limit);
    assert!(process.wait_for("command_failed", "")["cause"].as_str().unwrap().contains("ended after 300ms"));
    let is_alive = |pid: i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(-pid), None).is_ok();
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    eventually("the command's group is gone", || (!is_alive(pid)).then_some(()));
    assert_eq!(process.stop(), 0);
    for kills in [false, true] {
        let _ = std::fs::remove_file(&pid_file);
        let mut process = Process::start(&[&server], into.path(), &["--on-change", &command]);
        let pid: i32 = eventually("it runs", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        if kills {
            process.child.kill().unwrap();
            process.child.wait().unwrap();
            // The shell at least; what it has started is its own affair.
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
            eventually("it is gone", || state().is_none_or(|stat| stat.contains(") Z ")).then_some(()));
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        } else {
            assert_eq!(process.stop(), 0);
            eventually("it is gone", || (!is_alive(pid)).then_some(()));
        }
    }
}

/// A receiver whose events go to a socket; stopped when dropped.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn any_number_of_readers_follow_the_events_on_a_socket() {
    let server = Server::start(1);
    let (into, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let socket = beside.path().join("events");
    let mut command = Command::new(env!("CARGO_BIN_EXE_acms"));
    command.args(["receive", "--subscribe", "etc", "--source", &server.url, "--events"]);
    command.arg(format!("unix:{}", socket.display())).arg("--into").arg(into.path());
    let mut process = Listening(command.spawn().unwrap());
    let connect = || eventually("the socket", || UnixStream::connect(&socket).ok());
    let readers = [connect(), connect()];
    let early = connect();
    drop(early);
    eventually("current", || status(into.path())?["snapshot"].as_str().map(drop));
    server.publish("etc/a", 1, Some(b"a"));
    for reader in readers {
        reader.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut lines =
            BufReader::new(reader).lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let event = lines.find(|event| event["kind"] == "applied").unwrap();
        assert_eq!(event["path"], "etc/a");
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(process.0.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert!(process.0.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn a_receiver_that_has_become_stale_says_so_and_that_it_is_fresh_again() {
    let server = Server::start(1);
    let (into, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = beside.path().join("log");
    let command = format!("echo $ACMS_STATE >> {}", log.display());
    server.publish("etc/a", 1, Some(b"a"));
    server.source.lock().unwrap().mood = Mood::Silent;
    let more = ["--stale-after", "600ms", "--on-stale", &command, "--poll", "200ms"];
    let process = Process::start(&[&server], into.path(), &more);
    process.wait_for("stale", "");
    eventually("the status says it", || (status(into.path())?["stale"] == true).then_some(()));
    // A source whose as-of follows the clock.
    server.source.lock().unwrap().follows_wall = true;
    server.source.lock().unwrap().mood = Mood::Good;
    process.wait_for("fresh", "");
    eventually("both told", || (std::fs::read_to_string(&log).ok()? == "stale\nfresh\n").then_some(()));
    let fresh = eventually("the status says it", || status(into.path()).filter(|status| status["stale"] == false));
    assert!(fresh["as_of_us"].as_u64().unwrap() > 1_000_000_000_000_000);
    assert_eq!(process.stop(), 0);
}

#[test]
fn the_status_file_tells_where_a_receiver_stands() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(into.path().join("etc/full")).unwrap();
    std::fs::write(into.path().join("etc/full/mine"), "x").unwrap();
    server.publish("etc/a", 1, Some(b"a"));
    server.publish("etc/b", 2, None);
    server.publish("etc/full", 3, Some(b"blocked"));
    let process = Process::start(&[&server], into.path(), &["--id", "r7"]);
    process.wait_for("current", "");
    let told = eventually("current", || status(into.path()).filter(|status| status["snapshot"].is_string()));
    let expected = [
        ("running", Value::from(true)),
        ("pid", process.child.id().into()),
        ("id", "r7".into()),
        ("source", server.url.as_str().into()),
        ("paths", 1.into()),
        ("blocked_count", 1.into()),
        ("stale", false.into()),
    ];
    for (name, value) in expected {
        assert_eq!(told[name], value, "{name} of {told}");
    }
    assert_eq!(told["blocked"][0]["path"], "etc/full");
    assert!(told["blocked"][0]["cause"].as_str().unwrap().contains("directory"));
    assert_eq!(process.stop(), 0);
    assert_eq!(status(into.path()).unwrap()["running"], false);
}
