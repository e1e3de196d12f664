//! `acms dev`: a cluster from one command, of which nothing stays.

use crate::cluster::{PATIENCE, Process, command, printed, text};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

struct Dev {
    process: Process,
    directory: PathBuf,
    urls: Vec<String>,
    pids: Vec<i32>,
}

fn start(place: &Path, more: &[&str]) -> Dev {
    let mut command = command(&[&["--json", "dev"], more].concat());
    command.env("TMPDIR", place).stderr(std::fs::File::create(place.join("log")).unwrap());
    let process = Process::start(&mut command);
    let line = process.line();
    let said = std::fs::read_to_string(place.join("log")).unwrap();
    let told: Value = serde_json::from_str(&line.unwrap_or_else(|| panic!("it has ended: {said}"))).unwrap();
    let sps = told["storage_points"].as_array().unwrap();
    Dev {
        process,
        directory: told["directory"].as_str().unwrap().into(),
        urls: sps.iter().map(|sp| sp["url"].as_str().unwrap().to_owned()).collect(),
        pids: sps.iter().map(|sp| sp["pid"].as_i64().unwrap() as i32).collect(),
    }
}

impl Dev {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.child.id() as i32), signal).unwrap();
    }
}

fn is_gone(pid: i32) -> bool {
    // A zombie whose parent is dead is reaped by whoever inherits it; until then it has no memory.
    std::fs::read_to_string(format!("/proc/{pid}/statm")).is_ok_and(|text| text.starts_with("0 "))
        || kill(Pid::from_raw(pid), None).is_err()
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_cluster_from_one_command_bears_a_death_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let mut dev = start(place.path(), &[]);
    assert!(dev.directory.starts_with(place.path()) && dev.urls.len() == 3);
    let file = place.path().join("log");
    printed(&["publish", "--to", &dev.urls[0], "etc/motd", file.to_str().unwrap()]);

    kill(Pid::from_raw(dev.pids[2]), Signal::SIGKILL).unwrap();
    printed(&["publish", "--to", &dev.urls[1], "etc/more", file.to_str().unwrap()]);
    // It is started again, with what it had and what it has missed.
    wait_until("the third is back", || {
        let listed = crate::cluster::acms(&["ls", "--from", &dev.urls[2]]);
        text(&listed.stdout) == "etc/more\netc/motd\n" || text(&listed.stdout) == "etc/motd\netc/more\n"
    });
    let log = std::fs::read_to_string(place.path().join("log")).unwrap();
    assert!(log.contains("sp2 | ") && log.contains("storage point 3 has ended"), "{log}");

    dev.signal(Signal::SIGINT);
    assert_eq!(dev.process.child.wait().unwrap().code(), Some(0));
    assert!(!dev.directory.exists(), "the directory is gone when the command has ended");
    dev.pids.iter().for_each(|pid| assert!(is_gone(*pid)));
}

#[test]
fn killed_outright_it_leaves_nothing_either() {
    let place = tempfile::tempdir().unwrap();
    let dev = start(place.path(), &["--storage-points", "1"]);
    assert!(dev.directory.join("sp1/store").is_dir());
    dev.signal(Signal::SIGKILL);
    wait_until("its children are gone", || dev.pids.iter().all(|pid| is_gone(*pid)));
    wait_until("its directory is gone", || !dev.directory.exists());
}

#[test]
fn a_directory_that_was_named_is_kept_and_gone_on_with() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("kept");
    let args = ["--storage-points", "1", "--dir", directory.to_str().unwrap()];
    let file = place.path().join("log");
    let mut dev = start(place.path(), &args);
    printed(&["publish", "--to", &dev.urls[0], "etc/motd", file.to_str().unwrap()]);
    dev.signal(Signal::SIGTERM);
    assert_eq!(dev.process.child.wait().unwrap().code(), Some(0));
    let dev = start(place.path(), &args);
    assert_eq!(printed(&["ls", "--from", &dev.urls[0]]), "etc/motd\n");
}
