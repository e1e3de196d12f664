//! nginx and Varnish in place of `acms cache`, with the configurations that the project ships. Where one of them is not
//! installed its tests say loudly that they are left out.

use super::{
    http::{ask, get, metric, receive, send},
    world::{World, cursor, hash, noise, publish, wait_until},
};
use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A server that is no part of ACMS.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children end with it only if it is asked to.
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// Whether there is such a program; if not, that is said past the capture of test output.
fn has(program: &str, version: &str) -> bool {
    let found = Command::new(program).arg(version).output().is_ok();
    if !found {
        let line = format!("LEFT OUT: {program} is not installed, so caches of its kind are not tested\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    found
}

fn shipped(name: &str, words: &[(&str, &str)]) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/caches").join(name);
    let text = fs::read_to_string(file).unwrap();
    words.iter().fold(text, |text, (word, value)| text.replace(&format!("@{word}@"), value))
}

fn started(mut command: Command, log: &Path, url: String) -> Server {
    let log = fs::File::create(log).unwrap();
    let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let server = Server { child, url };
    let address = server.url.strip_prefix("http://").unwrap().to_owned();
    wait_until("the server takes connections", || TcpStream::connect(&address).is_ok());
    server
}

fn nginx(world: &mut World, name: &str, source: &str) -> Server {
    let (address, run, store) = (world.address(), world.path(&format!("{name}-run")), world.path(name));
    for directory in [&run, &store] {
        fs::create_dir(directory).unwrap();
        // Its workers may run as somebody else.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::set_permissions(store.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let text = shipped(
        "nginx.conf",
        &[
            ("LISTEN", &address),
            ("SOURCE", source.strip_prefix("http://").unwrap()),
            ("BACKUPS", ""),
            ("STORE", store.to_str().unwrap()),
            ("RUN", run.to_str().unwrap()),
        ],
    );
    let config = world.path(&format!("{name}.conf"));
    fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(config).arg("-e").arg(run.join("start.log")).args(["-g", "daemon off;"]);
    started(command, &run.join("output.log"), format!("http://{address}"))
}

fn varnish(world: &mut World, name: &str, source: &str) -> Server {
    let (address, run) = (world.address(), world.path(name));
    fs::set_permissions(run.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let (host, port) = source.strip_prefix("http://").unwrap().split_once(':').unwrap();
    let words = [("HOST1", host), ("PORT1", port), ("HOST2", host), ("PORT2", port), ("NAME", name)];
    let config = world.path(&format!("{name}.vcl"));
    fs::write(&config, shipped("varnish.vcl", &words)).unwrap();
    let mut command = Command::new("varnishd");
    command.args(["-F", "-a", &address, "-s", "malloc,64m", "-p", "thread_pool_max=2000", "-t", "0"]);
    command.arg("-f").arg(config).arg("-n").arg(run);
    started(command, &world.path(&format!("{name}.log")), format!("http://{address}"))
}

/// What every cache must do, this one between receivers and a storage point.
fn receivers_converge_behind(test: u8, start: impl Fn(&mut World, &str, &str) -> Server, per_change_max: u64) {
    let mut world = World::new(test);
    let (_sp, origin) = world.storage_point();
    let large = noise(2_000_000, 1);
    publish(&origin, "etc/small", b"one");
    publish(&origin, "etc/large", &large);
    let first = start(&mut world, "first", &origin);
    let second = start(&mut world, "second", &first.url);
    let (_ours, ours) = world.cache("ours", &[&second.url], &[]);
    let receivers = [
        ("r1", &first.url, &[][..]),
        ("p1", &first.url, &["--poll", "500ms"]),
        ("r2", &second.url, &[]),
        ("r3", &ours, &[]),
        ("p3", &ours, &["--poll", "500ms"]),
    ];
    let running: Vec<_> = receivers.iter().map(|(name, source, more)| world.receiver(name, &[source], more)).collect();
    let all_have = |path: &str, content: &[u8]| {
        receivers.iter().for_each(|(name, ..)| world.wait_for_file(name, path, content));
    };
    all_have("etc/small", b"one");
    all_have("etc/large", &large);
    for (path, content) in [("etc/small", &b"two"[..]), ("etc/other", &noise(100_000, 2))] {
        publish(&origin, path, content);
        all_have(path, content);
    }
    drop(running);
    // What they had asked last may still be on its way.
    std::thread::sleep(Duration::from_millis(500));

    // However many wait for the same change, the storage point has few requests, and all get the answer.
    let target = format!("/v1/changes/{}/etc", cursor(&origin));
    let before = metric(&origin, "acms_http_changes_total");
    let held: Vec<_> = (0..60).map(|_| send(&first.url, "GET", &target, &[], b"")).collect();
    wait_until("one request is held", || metric(&origin, "acms_http_held") >= 1);
    std::thread::sleep(Duration::from_millis(300));
    publish(&origin, "etc/small", b"three");
    for stream in held {
        let changes = receive(stream);
        assert_eq!(changes.status, 200, "{}", changes.text());
        assert_eq!(changes.json()["entries"][0]["path"], "etc/small");
    }
    let asked = metric(&origin, "acms_http_changes_total") - before;
    assert!((1..=per_change_max).contains(&asked), "{asked} requests for one change");

    // Parts come out of the whole; what is not there is not kept as missing; nothing but reading is passed on.
    let object = |content: &[u8]| format!("/v1/objects/{}", hash(content));
    let part = ask(&first.url, "GET", &object(&large), &["Range: bytes=1000-1999"], b"");
    assert!(part.status == 206 && part.body == large[1_000..2_000], "{}", part.head);
    assert_eq!(get(&first.url, &object(b"later")).status, 404);
    publish(&origin, "etc/later", b"later");
    assert_eq!(get(&first.url, &object(b"later")).body, b"later");
    for (method, target, status) in
        [("PUT", "/v1/config/a", 405), ("GET", "/v1/config/etc/small", 404), ("GET", "/healthz", 200)]
    {
        assert_eq!(ask(&first.url, method, target, &[], b"").status, status, "{method} {target}");
    }
}

/// What is refused says that it may not be kept, also where nobody is behind the cache.
fn errors_are_not_kept(test: u8, start: impl Fn(&mut World, &str, &str) -> Server) {
    let mut world = World::new(test);
    let (mut sp, origin) = world.storage_point();
    let first = start(&mut world, "first", &origin);
    wait_until("it passes on", || get(&first.url, "/v1/snapshot").status == 200);
    sp.kill();
    wait_until("the snapshot is kept no more", || get(&first.url, "/v1/snapshot").status >= 500);
    let failed = get(&first.url, &format!("/v1/objects/{}", hash(b"nothing")));
    assert!(failed.status >= 500 && failed.header("cache-control") == Some("no-store"), "{}", failed.text());
    let (_sp, origin) = world.storage_point_again();
    publish(&origin, "a", b"nothing");
    wait_until("it passes on again", || get(&first.url, &format!("/v1/objects/{}", hash(b"nothing"))).status == 200);
}

#[test]
fn receivers_converge_behind_nginx() {
    if has("nginx", "-v") {
        // One, but for what the receivers before had still on its way.
        receivers_converge_behind(40, nginx, 3);
    }
}

#[test]
fn receivers_converge_behind_varnish() {
    if has("varnishd", "-V") {
        receivers_converge_behind(41, varnish, 20);
    }
}

#[test]
fn nginx_keeps_no_errors() {
    if has("nginx", "-v") {
        errors_are_not_kept(42, nginx);
    }
}

#[test]
fn varnish_keeps_no_errors() {
    if has("varnishd", "-V") {
        errors_are_not_kept(43, varnish);
    }
}
