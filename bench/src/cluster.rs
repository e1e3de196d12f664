//! Storage points as processes of this machine, and what the kernel says of a process.

use crate::Failure;
use acms_engine::client::response::{ResponseParser, encode_request};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A storage point that does not serve so long after its start never will: it may have much to read, or a store to fill.
const READY_TIME: Duration = Duration::from_secs(900);

/// The `acms` program beside the one that runs.
pub fn acms_beside() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.parent().ok_or("the program lies in no directory")?.join("acms"))
}

/// A loopback network of this process's own, another one at each call: `127.x.y.0`.
pub fn address_base() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let block = (std::process::id() + CALLS.fetch_add(1, Ordering::Relaxed)) % 60_000;
    format!("127.{}.{}.0", 10 + block / 250, 1 + block % 250)
}

/// A cluster on loopback addresses; its processes end with it.
#[derive(Debug)]
pub struct Cluster {
    /// One for each storage point, the first has id 1.
    pub children: Vec<Child>,
    /// Where each takes HTTP.
    pub addresses: Vec<SocketAddr>,
    dir: PathBuf,
    acms: PathBuf,
    is_encrypted: bool,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Cluster {
    /// Lays a cluster of `count` out in `dir`, lets `configure` change the text of each configuration, and starts it.
    pub fn start(acms: &Path, dir: &Path, count: u8, configure: impl Fn(String) -> String) -> Result<Cluster, Failure> {
        Cluster::start_as(acms, dir, count, &[], configure)
    }

    /// The same with more arguments for `acms init`.
    pub fn start_as(
        acms: &Path,
        dir: &Path,
        count: u8,
        init: &[&str],
        configure: impl Fn(String) -> String,
    ) -> Result<Cluster, Failure> {
        // Whatever was written before, a build for one, is not to be written back while something is measured.
        nix::unistd::sync();
        let base = address_base();
        let made = Command::new(acms)
            .args(["init", "--storage-points", &count.to_string(), "--address-base", &base])
            .args(init)
            .arg(dir)
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(format!("{} init failed", acms.display()).into());
        }
        let is_encrypted = fs::read_to_string(dir.join("sp1/acms.toml"))?.contains("\n[tls]");
        let (children, addresses) = (Vec::new(), Vec::new());
        let mut cluster = Cluster { children, addresses, dir: dir.into(), acms: acms.into(), is_encrypted };
        for sp in 1..=count {
            let config = cluster.config(sp);
            fs::write(&config, configure(fs::read_to_string(&config)?))?;
            let child = cluster.spawn(sp)?;
            cluster.children.push(child);
            cluster.addresses.push(format!("{}.{sp}:7400", base.trim_end_matches(".0")).parse()?);
        }
        (1..=count).try_for_each(|sp| cluster.wait_ready(sp))?;
        Ok(cluster)
    }

    /// The configuration of storage point `sp`.
    pub fn config(&self, sp: u8) -> PathBuf {
        self.dir.join(format!("sp{sp}/acms.toml"))
    }

    /// A process of storage point `sp`, whose log goes to `acms.log` beside its configuration.
    pub fn spawn(&self, sp: u8) -> Result<Child, Failure> {
        let config = self.config(sp);
        let log = fs::File::options().create(true).append(true).open(config.with_file_name("acms.log"))?;
        let mut command = Command::new(&self.acms);
        command.args(["storage-point", "--exit-with-parent", "--config"]).arg(config);
        Ok(command.stdout(Stdio::null()).stderr(log).spawn()?)
    }

    /// Starts storage point `sp`, which has ended, again and waits until it serves.
    pub fn start_again(&mut self, sp: u8) -> Result<(), Failure> {
        *self.child(sp) = self.spawn(sp)?;
        self.wait_ready(sp)
    }

    /// Waits until `/healthz` of storage point `sp` answers; with TLS, until it takes connections.
    pub fn wait_ready(&mut self, sp: u8) -> Result<(), Failure> {
        let (began, address) = (Instant::now(), self.addresses[usize::from(sp) - 1]);
        while began.elapsed() < READY_TIME {
            let is_up = match self.is_encrypted {
                true => TcpStream::connect(address).is_ok(),
                false => request(address, "GET", "/healthz").is_ok(),
            };
            if is_up {
                return Ok(());
            }
            if let Some(status) = self.child(sp).try_wait()? {
                return Err(format!("storage point {sp} ended: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("the storage point at {address} did not start").into())
    }

    /// Kills storage point `sp`, as a crash would.
    pub fn kill(&mut self, sp: u8) -> Result<(), Failure> {
        self.child(sp).kill()?;
        self.child(sp).wait()?;
        Ok(())
    }

    /// Stops storage point `sp`, as an operator would.
    pub fn stop(&mut self, sp: u8) -> Result<(), Failure> {
        terminate(self.child(sp))?;
        self.child(sp).wait()?;
        Ok(())
    }

    fn child(&mut self, sp: u8) -> &mut Child {
        &mut self.children[usize::from(sp) - 1]
    }

    /// Process id of storage point `sp`.
    pub fn pid(&self, sp: u8) -> u32 {
        self.children[usize::from(sp) - 1].id()
    }
}

/// Asks a process to stop.
pub fn terminate(child: &Child) -> Result<(), Failure> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
}

/// Status and body of a request without a body in plain text, over a connection of its own.
pub fn request(address: SocketAddr, method: &str, target: &str) -> Result<(u16, String), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    stream.write_all(&encode_request(method, &address.to_string(), target, &[("Connection", "close")]))?;
    let mut parser = ResponseParser::new(method == "HEAD", 1 << 30);
    let (mut buffer, mut body) = (vec![0; 64 << 10], Vec::new());
    while !parser.is_done() {
        match stream.read(&mut buffer)? {
            0 => drop(parser.end()?),
            len => drop(parser.push(&buffer[..len])?),
        }
        body.extend_from_slice(&parser.take_body());
    }
    let status = parser.head().map_or(0, |head| head.status);
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Seconds of processor time that a process has used.
pub fn cpu_s(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("stat")?.1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// A figure in KiB of a process: `VmRSS`, `VmHWM` (the greatest resident size so far), `RssAnon`.
pub fn memory_kib(pid: u32, name: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.and_then(|text| text.split_whitespace().next()).ok_or("no such figure of memory")?.parse()?)
}
