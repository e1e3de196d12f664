//! What packages need: units, the protocol of service managers, completion, manual pages.

use crate::cluster::{Cluster, PATIENCE, Process, acms, command, printed};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::Path,
    process::Command,
};

fn received(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

/// Runs `run` until its service manager has heard that it serves and that it lives, then has it stop; `look` is called in
/// between. What else the manager hears is not allowed.
fn watch(place: &Path, run: &mut Command, look: impl FnOnce()) {
    let manager = UnixDatagram::bind(place).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    run.env("NOTIFY_SOCKET", place).env("WATCHDOG_USEC", "400000");
    let mut process = Process::start(run);
    let mut said = vec![received(&manager)];
    while said.iter().filter(|what| *what == "WATCHDOG=1").count() < 4 || !said.contains(&"READY=1".to_owned()) {
        said.push(received(&manager));
    }
    look();
    kill(Pid::from_raw(process.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
    manager.set_nonblocking(true).unwrap();
    let mut buffer = [0; 256];
    while let Ok(len) = manager.recv(&mut buffer) {
        said.push(String::from_utf8(buffer[..len].to_vec()).unwrap());
    }
    assert_eq!(said.iter().filter(|what| *what == "READY=1").count(), 1, "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("STOPPING=1"), "{said:?}");
}

#[test]
fn a_service_manager_hears_when_a_storage_point_serves_lives_and_stops() {
    let cluster = Cluster::lay_out(8, 1);
    let config = cluster.config(1);
    let mut run = command(&["storage-point", "--exit-with-parent", "--config", config.to_str().unwrap()]);
    watch(&cluster.dir.path().join("notify"), &mut run, || {
        assert!(acms(&["ls", "--from", &cluster.url(1)]).status.success(), "ready means that it serves");
    });
}

#[test]
fn a_service_manager_hears_when_a_cache_serves_lives_and_stops() {
    let cluster = Cluster::start(19, 1);
    let addr = cluster.url(2).replace("http://", "");
    // As the unit has it: all by variables.
    let mut run = command(&["cache"]);
    run.args(["--exit-with-parent"]).env("ACMS_SOURCE", cluster.url(1)).env("ACMS_LISTEN", &addr);
    run.env("ACMS_STORE", cluster.dir.path().join("kept"));
    watch(&cluster.dir.path().join("notify"), &mut run, || {
        let mut stream = TcpStream::connect(&addr).unwrap();
        stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "ready means that it serves: {answer}");
    });
}

#[test]
fn units_are_sound() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let units: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!units.is_empty());
    // Programs must exist to be verified; this one is here.
    let directory = tempfile::tempdir().unwrap();
    for unit in units {
        let text = fs::read_to_string(&unit).unwrap();
        assert!(text.contains("/usr/bin/acms ") && text.contains("ProtectSystem=strict"), "{}", unit.display());
        assert!(text.contains("\nType=notify\n"), "each tells when it serves: {}", unit.display());
        let name = unit.file_name().unwrap().to_str().unwrap().replace("@.", "@sp1.");
        let copy = directory.path().join(name);
        fs::write(&copy, text.replace("/usr/bin/acms ", &format!("{} ", env!("CARGO_BIN_EXE_acms")))).unwrap();
        // Not where there is no manual: the pages are in a package.
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output();
        let Ok(verified) = verified else { return eprintln!("systemd-analyze is not installed: not asked") };
        let said = String::from_utf8_lossy(&verified.stderr);
        let name = copy.file_name().unwrap().to_str().unwrap();
        let of_it: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(verified.status.success() || of_it.is_empty(), "{said}");
        assert!(of_it.is_empty(), "{said}");
    }
}

#[test]
fn completion_and_manual_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completion", shell]);
        assert!(script.contains("storage-point") && script.contains("subscribe"), "{shell}");
    }
    let bash = tempfile::NamedTempFile::new().unwrap();
    fs::write(bash.path(), printed(&["completion", "bash"])).unwrap();
    let parsed = Command::new("bash").arg("-n").arg(bash.path()).output().unwrap();
    assert!(parsed.status.success(), "{parsed:?}");
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("man");
    printed(&["man", directory.to_str().unwrap()]);
    for page in ["acms.1", "acms-storage-point.1", "acms-watch.1", "acms-receive.1"] {
        let text = fs::read_to_string(directory.join(page)).unwrap_or_else(|_| panic!("no {page}"));
        assert!(text.contains(".SH NAME") && text.contains(".SH OPTIONS"), "{page}");
    }
}
