//! `acms receive` as a process against a small server on a loopback address.

use super::source::{Mood, Source};
use acms_engine::protocol::Instant;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path as FilePath,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant as Time},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A storage point's answers on a socket of its own.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) source: Arc<Mutex<Source>>,
    /// What was asked for, in order.
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn start(sp: u8) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let source = Arc::new(Mutex::new(Source::new(sp)));
        let asked = Arc::default();
        let (shared, noted) = (Arc::clone(&source), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, noted) = (Arc::clone(&shared), Arc::clone(&noted));
                std::thread::spawn(move || serve(stream, &shared, &noted));
            }
        });
        Server { url, source, asked }
    }

    pub(super) fn publish(&self, path: &str, micros: u64, content: Option<&[u8]>) {
        let uid = format!("{micros}.1.0").parse().unwrap();
        self.source.lock().unwrap().publish(&path.parse().unwrap(), uid, content, path.starts_with("bin/"));
    }
}

/// Answers requests until the connection ends, or, for a source that is down, at once with nothing.
fn serve(stream: TcpStream, source: &Mutex<Source>, asked: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let mut request = String::new();
        reader.read_line(&mut request).ok().filter(|len| *len > 0)?;
        let target = request.split(' ').nth(1)?.to_owned();
        asked.lock().ok()?.push(target.clone());
        let mut line = String::from("x");
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line).ok()?;
        }
        let (status, body) = loop {
            let mut source = source.lock().ok()?;
            if source.mood == Mood::Down {
                return None;
            }
            if source.mood != Mood::Silent && !source.holds(&target) {
                break source.answer(Instant(1), &target);
            }
            drop(source);
            std::thread::sleep(Duration::from_millis(5));
        };
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
        (&stream).write_all(&[head.as_bytes(), &body].concat()).ok()?;
    }
}

/// The process, stopped when dropped.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) events: mpsc::Receiver<Value>,
}

impl Process {
    pub(super) fn start(servers: &[&Server], into: &FilePath, more: &[&str]) -> Process {
        let into = into.to_str().unwrap();
        Process::start_with(servers, &[&["--into", into], more].concat())
    }

    pub(super) fn start_with(servers: &[&Server], more: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_acms"));
        command.arg("receive").args(["--subscribe", "etc", "bin", "--events", "-"]);
        command.arg("--source").args(servers.iter().map(|server| &server.url)).args(more).arg("--exit-with-parent");
        Process::of(command)
    }

    /// Of a command whose standard output is the events.
    pub(super) fn of(mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (sender, events) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Process { child, events }
    }

    /// The next event of this kind (and path).
    pub(super) fn wait_for(&self, kind: &str, path: &str) -> Value {
        let end = Time::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Time::now());
            let event = self.events.recv_timeout(left).unwrap_or_else(|_| panic!("no event {kind} {path}"));
            if event["kind"] == kind && (path.is_empty() || event["path"] == path) {
                return event;
            }
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub(super) fn stop(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn files(directory: &FilePath) -> BTreeMap<String, Vec<u8>> {
    let walk = walkdir::WalkDir::new(directory).into_iter().filter_entry(|entry| entry.file_name() != "~acms");
    let files = walk.map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let name = |entry: &walkdir::DirEntry| entry.path().strip_prefix(directory).unwrap().display().to_string();
    files.map(|entry| (name(&entry), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_directory_follows_its_source_and_then_another() {
    let (one, two) = (Server::start(1), Server::start(2));
    let large: Vec<u8> = (0..3 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for server in [&one, &two] {
        for i in 0..300 {
            server.publish(&format!("etc/d{}/f{i}", i % 7), i + 1, Some(format!("content {i}").as_bytes()));
        }
        server.publish("etc/large", 400, Some(&large));
        server.publish("etc/empty", 401, Some(b""));
        server.publish("bin/tool", 402, Some(b"#!/bin/sh\nexit 0\n"));
        server.publish("var/other", 403, Some(b"not subscribed"));
    }
    let into = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(into.path().join("etc/mine")).unwrap();
    std::fs::write(into.path().join("etc/mine/note"), "left alone").unwrap();
    let process = Process::start(&[&one, &two], into.path(), &[]);
    let source = process.wait_for("source", "")["source"].as_str().unwrap().to_owned();
    process.wait_for("current", "");
    let found = files(into.path());
    assert_eq!(found.len(), 304);
    assert!(found["etc/large"] == large);
    assert_eq!(found["etc/empty"], b"");
    assert_eq!(found["etc/mine/note"], b"left alone");
    let mode = |path: &str| std::fs::metadata(into.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/tool") & 0o700, mode("etc/empty") & 0o700), (0o700, 0o600));
    // Followed by the feed, with the content inline and not.
    let (first, second) = if source == one.url { (&one, &two) } else { (&two, &one) };
    first.publish("etc/d0/f0", 500, Some(b"short"));
    let event = process.wait_for("applied", "etc/d0/f0");
    assert_eq!(event["uid"], "500.1.0");
    first.publish("etc/d0/f7", 501, Some(&large[..100_000]));
    process.wait_for("applied", "etc/d0/f7");
    first.publish("bin/tool", 502, None);
    assert_eq!(process.wait_for("applied", "bin/tool")["deleted"], true);
    assert!(!into.path().join("bin").exists(), "emptied by a deletion");
    // The other source knows less, and nothing of that is taken over.
    second.publish("etc/new", 503, Some(b"only here"));
    first.source.lock().unwrap().mood = Mood::Down;
    assert_eq!(process.wait_for("source", "")["source"], second.url.as_str());
    process.wait_for("applied", "etc/new");
    process.wait_for("current", "");
    let found = files(into.path());
    assert_eq!(found["etc/d0/f0"], b"short");
    assert_eq!(found["etc/d0/f7"], &large[..100_000]);
    assert_eq!(found["etc/new"], b"only here");
    assert!(!found.contains_key("bin/tool"), "deleted, and not brought back by a source that does not know");
    assert_eq!(process.stop(), 0);
    assert_eq!(std::fs::read_dir(into.path().join("~acms/tmp")).unwrap().count(), 0);
}

#[test]
fn a_restart_fetches_only_what_is_missing() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    for i in 0..20 {
        server.publish(&format!("etc/f{i}"), i + 1, Some(format!("a content of some length {i}").as_bytes()));
    }
    let mut once = Process::start(&[&server], into.path(), &["--once"]);
    assert!(once.child.wait().unwrap().success());
    std::fs::remove_file(into.path().join("etc/f3")).unwrap();
    std::fs::write(into.path().join("etc/f4"), "cut").unwrap();
    std::fs::write(into.path().join("~acms/tmp/leftover"), "x").unwrap();
    let state = into.path().join("~acms/state");
    let mut text = std::fs::read(&state).unwrap();
    text.extend_from_slice(b"{\"path\":\"etc/f5\",\"uid\":\"99.1");
    std::fs::write(&state, text).unwrap();
    let process = Process::start(&[&server], into.path(), &[]);
    let mut fetched = Vec::new();
    loop {
        let event = process.events.recv_timeout(PATIENCE).unwrap();
        match event["kind"].as_str().unwrap() {
            "verified" => fetched.push(event["path"].as_str().unwrap().to_owned()),
            "current" => break,
            _ => {}
        }
    }
    fetched.sort();
    assert_eq!(fetched, ["etc/f3", "etc/f4"]);
    let found = files(into.path());
    assert!((0..20).all(|i| found[&format!("etc/f{i}")] == format!("a content of some length {i}").as_bytes()));
    // One directory has one receiver.
    let mut second = Process::start(&[&server], into.path(), &[]);
    assert_eq!(second.child.wait().unwrap().code(), Some(2));
    assert_eq!(process.stop(), 0);
}

#[test]
fn what_cannot_be_put_in_place_blocks_only_itself() {
    let server = Server::start(1);
    let (into, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir_all(into.path().join("etc/full")).unwrap();
    std::fs::write(into.path().join("etc/full/mine"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), into.path().join("etc/link")).unwrap();
    std::fs::write(outside.path().join("target"), "untouched").unwrap();
    std::os::unix::fs::symlink(outside.path().join("target"), into.path().join("etc/file")).unwrap();
    server.publish("etc/full", 1, Some(b"a file where a directory is"));
    server.publish("etc/link/inside", 2, Some(b"must not leave the directory"));
    server.publish("etc/file", 3, Some(b"takes the link's place"));
    server.publish("etc/fine", 4, Some(b"fine"));
    let mut process = Process::start(&[&server], into.path(), &["--once"]);
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
    let blocked: Vec<String> = process
        .events
        .iter()
        .filter(|event| event["kind"] == "blocked")
        .map(|event| event["path"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(blocked, ["etc/full", "etc/link/inside"]);
    assert_eq!(std::fs::read(into.path().join("etc/fine")).unwrap(), b"fine");
    assert_eq!(std::fs::read(into.path().join("etc/file")).unwrap(), b"takes the link's place");
    assert_eq!(std::fs::read(outside.path().join("target")).unwrap(), b"untouched");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn polling_and_following_come_to_the_same_by_requests_of_their_own() {
    let (polled, followed) = (Server::start(1), Server::start(2));
    let into = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for server in [&polled, &followed] {
        for i in 0..20 {
            server.publish(&format!("etc/f{i}"), i + 1, Some(format!("content {i}").as_bytes()));
        }
    }
    let polling = Process::start(&[&polled], into[0].path(), &["--poll", "200ms"]);
    let following = Process::start(&[&followed], into[1].path(), &[]);
    polling.wait_for("current", "");
    following.wait_for("current", "");
    for server in [&polled, &followed] {
        server.publish("etc/f3", 100, Some(b"changed"));
        server.publish("etc/f4", 101, None);
        server.publish("etc/new", 102, Some(b"new"));
    }
    for process in [&polling, &following] {
        process.wait_for("applied", "etc/new");
        process.wait_for("current", "");
    }
    let found = files(into[0].path());
    assert_eq!((found.len(), &found["etc/f3"][..]), (20, &b"changed"[..]));
    assert!(found == files(into[1].path()));
    let asked = |server: &Server, what: &str| {
        server.asked.lock().unwrap().iter().filter(|target| target.starts_with(what)).count()
    };
    assert_eq!((asked(&polled, "/v1/changes/"), asked(&followed, "/v1/snapshot")), (0, 1));
    assert!(asked(&polled, "/v1/snapshot") >= 2 && asked(&followed, "/v1/changes/") >= 2);
    assert_eq!((polling.stop(), following.stop()), (0, 0));
}

#[test]
fn a_receiver_that_stood_still_reads_what_has_come_before_it_leaves_its_source() {
    let server = Server::start(1);
    let into = tempfile::tempdir().unwrap();
    server.publish("etc/a", 1, Some(b"a"));
    server.source.lock().unwrap().mood = Mood::Silent;
    let process = Process::start(&[&server], into.path(), &[]);
    let end = Time::now() + PATIENCE;
    while server.asked.lock().unwrap().is_empty() {
        assert!(Time::now() < end, "it asks for nothing");
        std::thread::sleep(Duration::from_millis(5));
    }
    process.signal(Signal::SIGSTOP);
    server.source.lock().unwrap().mood = Mood::Good;
    // Longer than a source may take for its snapshot, which lies in the socket all the time.
    std::thread::sleep(Duration::from_millis(5_500));
    process.signal(Signal::SIGCONT);
    loop {
        let event = process.events.recv_timeout(PATIENCE).unwrap();
        assert_ne!(event["kind"], "error", "{event}");
        if event["kind"] == "current" {
            break;
        }
    }
    assert_eq!(process.stop(), 0);
}
