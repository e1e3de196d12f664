//! Caches as processes of this machine, with the configurations that the project ships.

use acms_bench::{Failure, cluster::terminate};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// All arrangements that there are.
pub(crate) const KINDS: [&str; 6] = ["direct", "nginx", "varnish", "acms", "acms-2", "acms-3"];
const NGINX: &str = include_str!("../../../../engine/docs/caches/nginx.conf");
const VARNISH: &str = include_str!("../../../../engine/docs/caches/varnish.vcl");

/// Caches between receivers and a storage point; they end with this.
pub(crate) struct Arrangement {
    /// Where receivers ask.
    pub(crate) url: String,
    children: Vec<Child>,
}

impl Drop for Arrangement {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // nginx and Varnish take their own children with them only if they are asked to end.
            terminate(child).ok();
            child.wait().ok();
        }
    }
}

impl Arrangement {
    /// Starts the caches of `kind` before `origin`.
    pub(crate) fn start(kind: &str, acms: &Path, dir: &Path, origin: &str) -> Result<Arrangement, Failure> {
        let mut caches = Arrangement { url: origin.to_owned(), children: Vec::new() };
        let host = origin.strip_prefix("http://").and_then(|rest| rest.rsplit_once('.')).ok_or("no address")?.0;
        for tier in 0..tiers(kind) {
            let address = format!("{host}.{}:7500", 100 + tier);
            let run = dir.join(format!("tier-{tier}"));
            fs::create_dir(&run)?;
            let mut command = match kind {
                "nginx" => nginx(&address, &caches.url, &run)?,
                "varnish" => varnish(&address, &caches.url, &run)?,
                _ => {
                    let mut command = Command::new(acms);
                    command.args(["cache", "--exit-with-parent", "--listen", &address, "--source", &caches.url]);
                    command.arg("--store").arg(run.join("store"));
                    command
                }
            };
            let log = fs::File::create(run.join("log"))?;
            let spawned = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
            caches
                .children
                .push(spawned.map_err(|error| format!("{kind} does not start ({error}); is it installed?"))?);
            caches.url = format!("http://{address}");
            wait_for(&caches.url, &run.join("log"))?;
        }
        Ok(caches)
    }
}

fn tiers(kind: &str) -> usize {
    match kind {
        "direct" => 0,
        "acms-2" => 2,
        "acms-3" => 3,
        _ => 1,
    }
}

fn open_to_all(dir: &Path) -> Result<(), Failure> {
    // Servers started by root serve as somebody else.
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o777);
    Ok(fs::set_permissions(dir, mode)?)
}

fn write(path: PathBuf, text: &str, words: &[(&str, &str)]) -> Result<PathBuf, Failure> {
    let text = words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value));
    fs::write(&path, text)?;
    Ok(path)
}

fn nginx(address: &str, source: &str, run: &Path) -> Result<Command, Failure> {
    open_to_all(run)?;
    open_to_all(run.parent().ok_or("no directory")?)?;
    let source = source.trim_start_matches("http://");
    let dir = run.to_str().ok_or("a directory without a name")?;
    let words = [("LISTEN", address), ("SOURCE", source), ("BACKUPS", ""), ("STORE", dir), ("RUN", dir)];
    let config = write(run.join("nginx.conf"), NGINX, &words)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(config).arg("-e").arg(run.join("start.log")).args(["-g", "daemon off;"]);
    Ok(command)
}

fn varnish(address: &str, source: &str, run: &Path) -> Result<Command, Failure> {
    open_to_all(run.parent().ok_or("no directory")?)?;
    let (host, port) = source.trim_start_matches("http://").split_once(':').ok_or("no port")?;
    let words = [("HOST1", host), ("PORT1", port), ("HOST2", host), ("PORT2", port), ("NAME", "bench")];
    let config = write(run.join("varnish.vcl"), VARNISH, &words)?;
    let mut command = Command::new("varnishd");
    command.args(["-F", "-a", address, "-s", "malloc,64m", "-p", "thread_pool_max=2000", "-t", "0", "-f"]);
    command.arg(config).arg("-n").arg(run.join("state"));
    Ok(command)
}

fn wait_for(url: &str, log: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !get(url, "/v1/snapshot").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
        if Instant::now() > deadline {
            return Err(format!("{url} does not serve: {}", fs::read_to_string(log).unwrap_or_default()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A whole answer as text.
pub(crate) fn get(url: &str, target: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: acms\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
