//! Storage points as processes of this machine, and what the kernel says of a process.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

type Failure = Box<dyn Error>;

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
        let mut cluster = Cluster { children: Vec::new(), addresses: Vec::new(), dir: dir.into(), acms: acms.into() };
        for sp in 1..=count {
            let config = cluster.config(sp);
            fs::write(&config, configure(fs::read_to_string(&config)?))?;
            let child = cluster.spawn(sp)?;
            cluster.children.push(child);
            cluster.addresses.push(format!("{}.{sp}:7400", base.trim_end_matches(".0")).parse()?);
        }
        (1..=count).try_for_each(|sp| cluster.wait_for(sp, Duration::from_secs(10)))?;
        Ok(cluster)
    }

    /// The configuration of storage point `sp`.
    pub fn config(&self, sp: u8) -> PathBuf {
        self.dir.join(format!("sp{sp}/acms.toml"))
    }

    /// Starts the process of storage point `sp`, whose log goes to `acms.log` beside its configuration.
    pub fn spawn(&self, sp: u8) -> Result<Child, Failure> {
        let config = self.config(sp);
        let log = fs::File::create(config.with_file_name("acms.log"))?;
        let mut command = Command::new(&self.acms);
        command.args(["storage-point", "--exit-with-parent", "--config"]).arg(config);
        Ok(command.stdout(Stdio::null()).stderr(log).spawn()?)
    }

    /// Waits until storage point `sp` takes connections.
    pub fn wait_for(&self, sp: u8, time: Duration) -> Result<(), Failure> {
        let address = self.addresses[usize::from(sp) - 1];
        let is_up = (0..time.as_millis() / 20).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            TcpStream::connect(address).is_ok()
        });
        if is_up { Ok(()) } else { Err(format!("the storage point at {address} did not start").into()) }
    }

    /// Process id of storage point `sp`.
    pub fn pid(&self, sp: u8) -> u32 {
        self.children[usize::from(sp) - 1].id()
    }
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
