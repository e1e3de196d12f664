//! Hosts in containers: faults have their effect and are undone there too, and nothing is left. Where no engine answers, or
//! this is not root, that is said and the tests are left out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use acms_testbed::trace::{self, Kind};
use common::{run, testbed};
use nix::unistd::geteuid;
use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Three storage points, two caches and some receivers, with faults that need the engine, the agent, the filter of calls or the
/// proxy.
const SCENARIO: &str = r#"
    name = "contained"
    duration = "16s"
    fleet = { storage_points = 3, caches = 2, receivers = 4 }
    network = { rtt = "azure-50", jitter = 0.05 }
    containers = { memory = "256MiB", cpus = 1.5 }
    workload = { files = 10, size = "200..4KiB", updates_per_s = 5 }
    [[faults]]
    kind = "kill"
    target = "sp1"
    at = "1s"
    for = "2s"
    [[faults]]
    kind = "pause"
    target = "receiver2"
    at = "2s"
    for = "3s"
    [[faults]]
    kind = "restart"
    target = ["sp2", "receiver3"]
    at = "5s"
    for = "1s"
    [[faults]]
    kind = "isolate"
    target = "cache1"
    at = "7s"
    for = "3s"
    [[faults]]
    kind = "disk-slow"
    target = "sp3"
    delay = "50ms"
    at = "8s"
    for = "3s"
    [[faults]]
    kind = "clock-jump"
    target = "sp1"
    by = "20s"
    at = "10s"
    for = "3s"
    [[faults]]
    kind = "cache-corrupt"
    target = "cache2"
    part = 0.5
    at = "11s"
    for = "3s"
"#;

/// Why there are no containers here.
fn lacks_containers() -> Option<&'static str> {
    let ping = || {
        use std::io::{Read as _, Write as _};
        let mut engine = std::os::unix::net::UnixStream::connect("/var/run/docker.sock")?;
        engine.set_read_timeout(Some(Duration::from_secs(5)))?;
        engine.write_all(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")?;
        let mut answer = String::new();
        engine.read_to_string(&mut answer).map(|_| answer)
    };
    match ping() {
        _ if !geteuid().is_root() => Some("this is not root"),
        Ok(answer) if answer.contains("200 OK") => None,
        _ => Some("no container engine answers"),
    }
}

/// One at a time: what one has killed the other would clean.
static ALONE: Mutex<()> = Mutex::new(());

/// What `clean` has to do in a directory for temporary files.
fn cleaned(place: &Path) -> Vec<String> {
    let output = testbed().arg("clean").env("TMPDIR", place).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let place = place.to_str().unwrap();
    text.lines().filter(|line| line.contains(place)).map(str::to_owned).collect()
}

#[test]
fn hosts_in_containers_fail_are_well_again_and_leave_nothing() {
    if let Some(why) = lacks_containers() {
        eprintln!("LEFT OUT: {why}");
        return;
    }
    let _alone = ALONE.lock();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("scenario.toml");
    fs::write(&file, SCENARIO).unwrap();
    let place = home.path().to_str().unwrap();
    let args = ["--backend", "docker", "--seed", "3", "--pcap", "sp2"];
    let ran = run(file.to_str().unwrap(), &args, &[("TMPDIR", place)]);
    let result = ran.expect_result();
    assert!(result.checks.iter().all(|check| check.held), "{}", ran.text());
    assert_eq!(result.backend, "docker");
    assert!(
        result.notes.iter().any(|note| note.starts_with("hosts are in containers of engine ")),
        "{:?}",
        result.notes
    );
    let mut faults: Vec<String> =
        result.faults.iter().map(|fault| format!("{} {}", fault.kind, fault.target)).collect();
    faults.sort_unstable();
    let expected = [
        "cache-corrupt cache2",
        "clock-jump sp1",
        "disk-slow sp3",
        "isolate cache1",
        "kill sp1",
        "pause receiver2",
        "restart receiver3",
        "restart sp2",
    ];
    assert_eq!(faults, expected, "{:?}", result.notes);
    assert!(result.faults.iter().all(|fault| fault.undone), "{:?}", result.faults);
    let trace = trace::read(&ran.dir.join("events.arrow")).unwrap();
    let starts = |name: &str| trace.of(Kind::Start).filter(|event| &*event.process == name).count();
    assert_eq!((starts("sp1"), starts("sp2"), starts("receiver3"), starts("receiver1")), (2, 2, 2, 1));
    assert!(result.network.probes > 100 && result.resources.storage_point.cpu_s.unwrap() > 0.0);
    // Before and after it got another container, too.
    assert!(fs::metadata(ran.dir.join("sp2.pcap")).unwrap().len() > 10_000);
    // Far from one another.
    assert!(result.publish.latency_ms.p50.unwrap() > 50.0, "{:?}", result.publish.latency_ms);
    assert_eq!(cleaned(home.path()), [""; 0], "something was left");
}

#[test]
fn nothing_of_a_killed_testbed_is_left_once_it_is_cleaned_up() {
    if let Some(why) = lacks_containers() {
        eprintln!("LEFT OUT: {why}");
        return;
    }
    let _alone = ALONE.lock();
    let home = tempfile::tempdir().unwrap();
    let mut command = testbed();
    command.env("TMPDIR", home.path());
    command
        .args(["run", "smoke", "--backend", "docker", "--set", "duration=60s", "--out"])
        .arg(home.path().join("results"));
    // A container that is paused does not see its testbed die.
    command.args(["--set", "faults.0.kind=pause", "--set", "faults.0.at=0s", "--set", "faults.0.for=50s"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(running.stderr.take().unwrap()));
    let begun = Instant::now();
    let is_paused = said.any(|line| line.is_ok_and(|line| line.contains("fault: pause")));
    assert!(is_paused && begun.elapsed() < Duration::from_secs(60));
    running.kill().unwrap();
    running.wait().unwrap();
    let lines = cleaned(home.path());
    assert!(lines.iter().any(|line| line.contains("containers and the image of")), "{lines:?}");
    assert_eq!(cleaned(home.path()), [""; 0]);
}
