//! A cluster of storage points as processes on this machine.

pub use crate::system::Program;

use super::{
    clocks,
    disk::Disk,
    ledger,
    process::{Launch, Place, Process, ProcessError, stop_all},
};
use crate::{
    backend::Stop,
    network::{HostId, router},
    scenario::AcmsOptions,
    system::{init_args, storage_point_args},
    trace::{Recorder, now_ns},
    workload::Random,
};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tempfile::TempDir;

/// Port where storage points take publications and serve.
pub const PUBLISH_PORT: u16 = 7400;
/// Port where storage points talk to each other.
pub const PEER_PORT: u16 = 7500;

/// How long processes have to end by themselves before they are killed.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// How many storage points.
    pub storage_points: u8,
    /// How to start `acms`.
    pub program: Program,
    /// The cluster's name.
    pub name: String,
    /// Where configurations, stores and logs go; by default a temporary directory that goes away with the cluster.
    pub dir: Option<PathBuf>,
    /// Options of acceptance.
    pub acms: AcmsOptions,
    /// Where the SPs' events go.
    pub recorder: Option<Recorder>,
    /// Variables for single SPs.
    pub env: BTreeMap<u8, Vec<(OsString, OsString)>>,
    /// How far the clocks of single SPs are off, in microseconds; see [`LocalCluster::set_clock_offset`].
    pub clock_offsets_us: BTreeMap<u8, i64>,
    /// How long an SP may take to serve.
    pub ready_within: Duration,
    /// Ends the start early.
    pub stop: Option<Stop>,
    /// Where each SP runs, at the address that [`router::address`] gives to the host of that number; none: on loopback.
    pub places: Vec<Place>,
    /// Disks of single SPs that may be in trouble.
    pub disks: BTreeMap<u8, Disk>,
}

impl ClusterOptions {
    /// A cluster with defaults.
    pub fn new(storage_points: u8, program: Program) -> ClusterOptions {
        ClusterOptions {
            storage_points,
            program,
            name: "local".to_owned(),
            dir: None,
            acms: AcmsOptions::default(),
            recorder: None,
            env: BTreeMap::new(),
            clock_offsets_us: BTreeMap::new(),
            ready_within: Duration::from_secs(20),
            stop: None,
            places: Vec::new(),
            disks: BTreeMap::new(),
        }
    }
}

/// Why there is no cluster, or why it did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// A directory or file could not be made.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No block of loopback addresses was free.
    #[error("no free block of loopback addresses 127.x.y.0 was found: {0}")]
    NoAddresses(io::Error),
    /// `acms init` failed.
    #[error("`acms init` failed ({status}):\n{log}")]
    Init {
        /// How it ended.
        status: String,
        /// What it said.
        log: String,
    },
    /// A configuration that `acms init` wrote could not be changed.
    #[error("{path}: {what}")]
    Config {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A process did not do what it was told.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// There is no such storage point.
    #[error("there is no storage point {0}")]
    NoSuchStoragePoint(u8),
}

/// Storage points on loopback addresses of their own. Dropping it kills them and removes its temporary directory.
#[derive(Debug)]
pub struct LocalCluster {
    // Before the directory: processes end before their files go.
    storage_points: Vec<Process>,
    addresses: Vec<Ipv4Addr>,
    ready_within: Duration,
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

impl LocalCluster {
    /// Makes a cluster and starts it; at return every SP serves.
    pub fn start(options: ClusterOptions) -> Result<LocalCluster, ClusterError> {
        let stop = options.stop.clone();
        let mut cluster = LocalCluster::prepare(options)?;
        for process in &mut cluster.storage_points {
            process.start()?;
        }
        for process in &cluster.storage_points {
            process.wait_ready(cluster.ready_within, stop.as_ref())?;
        }
        Ok(cluster)
    }

    fn prepare(options: ClusterOptions) -> Result<LocalCluster, ClusterError> {
        let (dir, temporary) = match options.dir {
            Some(ref dir) => (dir.clone(), None),
            None => {
                let made = ledger::make_directory(ledger::Kind::Cluster, None);
                let made = made.map_err(|source| ClusterError::Io { path: std::env::temp_dir(), source })?;
                (made.path().to_owned(), Some(made))
            }
        };
        let base = match options.places.is_empty() {
            true => free_addresses(options.storage_points)?,
            false => Ipv4Addr::from(u32::from(router::address(HostId(0))) - 1),
        };
        init(&options, &dir, base)?;
        let mut storage_points = Vec::new();
        for sp in 1..=options.storage_points {
            let home = dir.join(format!("sp{sp}"));
            configure(&home.join("acms.toml"), &options)?;
            let mut env = options.env.get(&sp).cloned().unwrap_or_default();
            if let Some(offset_us) = options.clock_offsets_us.get(&sp) {
                set_clock(&clock_file(&home), *offset_us)?;
                env.push(clocks::variable(&clock_file(&home)));
            }
            let launch = Launch {
                name: format!("sp{sp}").into(),
                members: Vec::new(),
                program: options.program.clone(),
                args: storage_point_args(&home.join("acms.toml")),
                env,
                log: dir.join(format!("sp{sp}.log")),
                place: options.places.get(usize::from(sp) - 1).cloned().unwrap_or_default(),
                disk: options.disks.get(&sp).cloned(),
            };
            storage_points.push(Process::new(launch, options.recorder.clone()));
        }
        let addresses = (1..=options.storage_points).map(|sp| address(base, sp)).collect();
        Ok(LocalCluster { storage_points, addresses, ready_within: options.ready_within, dir, _temporary: temporary })
    }

    /// How many storage points it has.
    pub fn len(&self) -> u8 {
        self.storage_points.len() as u8
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.storage_points.is_empty()
    }

    /// Where configurations, stores and logs are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `http://127.x.y.z:7400` of each storage point, which takes everything.
    pub fn urls(&self) -> Vec<String> {
        self.authorities().into_iter().map(|authority| format!("http://{authority}")).collect()
    }

    /// `127.x.y.z:7400` of each storage point.
    pub fn authorities(&self) -> Vec<String> {
        self.addresses.iter().map(|address| format!("{address}:{PUBLISH_PORT}")).collect()
    }

    /// A free address beside those of the storage points, on loopback: the `number`-th, from 0.
    pub fn address_beside(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(*self.addresses.last().expect("there is a storage point")) + 1 + number)
    }

    /// The process of a storage point, counted from 1.
    pub fn process(&mut self, sp: u8) -> Result<&mut Process, ClusterError> {
        let process = usize::from(sp).checked_sub(1).and_then(|i| self.storage_points.get_mut(i));
        process.ok_or(ClusterError::NoSuchStoragePoint(sp))
    }

    /// All processes.
    pub fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.storage_points.iter_mut()
    }

    /// SIGKILL; at return the process is gone.
    pub fn kill(&mut self, sp: u8) -> Result<(), ClusterError> {
        Ok(self.process(sp)?.kill()?)
    }

    /// Stops a storage point from running; at return it stands still.
    pub fn pause(&mut self, sp: u8) -> Result<(), ClusterError> {
        Ok(self.process(sp)?.pause()?)
    }

    /// Lets a paused storage point run.
    pub fn resume(&mut self, sp: u8) -> Result<(), ClusterError> {
        Ok(self.process(sp)?.resume()?)
    }

    /// Starts a storage point again, stopping it gracefully if it runs; at return it serves.
    pub fn restart(&mut self, sp: u8) -> Result<(), ClusterError> {
        let within = self.ready_within;
        let process = self.process(sp)?;
        if process.is_running() {
            process.stop_gracefully(within)?;
        }
        Ok(process.start()?.wait(within, None)?)
    }

    /// Variables of a storage point's next start, in place of those it had.
    pub fn set_env(&mut self, sp: u8, env: Vec<(OsString, OsString)>) -> Result<(), ClusterError> {
        self.process(sp)?.set_env(env);
        Ok(())
    }

    /// Puts a storage point's clock `offset_us` microseconds ahead, within 100 ms. Only for SPs that were given an
    /// offset (0 will do) when the cluster was made.
    pub fn set_clock_offset(&self, sp: u8, offset_us: i64) -> Result<(), ClusterError> {
        set_clock(&clock_file(&self.dir.join(format!("sp{sp}"))), offset_us)
    }

    /// Ends all: SIGTERM, and SIGKILL after 3 s.
    pub fn stop(&mut self) {
        stop_all(&mut self.storage_points, STOP_GRACE);
    }
}

fn address(base: Ipv4Addr, sp: u8) -> Ipv4Addr {
    let [a, b, c, _] = base.octets();
    Ipv4Addr::new(a, b, c, sp)
}

/// A block 127.A.B.0 in which nobody listens where storage points will.
fn free_addresses(storage_points: u8) -> Result<Ipv4Addr, ClusterError> {
    let mut random = Random::new(now_ns() ^ u64::from(std::process::id()) << 32, "loopback addresses");
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..64 {
        // Not 127.0.x.y, where people's own services are.
        let base = Ipv4Addr::new(127, 1 + random.below(254) as u8, random.below(256) as u8, 0);
        let ports = (1..=storage_points).flat_map(|sp| [PUBLISH_PORT, PEER_PORT].map(|port| (address(base, sp), port)));
        match ports.map(TcpListener::bind).collect::<Result<Vec<_>, _>>() {
            Ok(_) => return Ok(base),
            Err(error) => last = error,
        }
    }
    Err(ClusterError::NoAddresses(last))
}

fn init(options: &ClusterOptions, dir: &Path, base: Ipv4Addr) -> Result<(), ClusterError> {
    fs::create_dir_all(dir).map_err(|source| ClusterError::Io { path: dir.to_owned(), source })?;
    let args = init_args(dir, options.storage_points, &options.name, base);
    let mut command = options.program.command(&args);
    let output = command.stdin(Stdio::null()).output();
    let failed = |status, log| ClusterError::Init { status, log };
    let output = output.map_err(|error| failed(format!("{command:?}: {error}"), String::new()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string(), String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(())
}

fn clock_file(home: &Path) -> PathBuf {
    home.join("clock-offset-us")
}

fn set_clock(file: &Path, offset_us: i64) -> Result<(), ClusterError> {
    clocks::write_offset(file, offset_us).map_err(|source| ClusterError::Io { path: file.to_owned(), source })
}

/// Writes what differs from the defaults into a configuration that `acms init` made.
fn configure(path: &Path, options: &ClusterOptions) -> Result<(), ClusterError> {
    let is_alone = !options.places.is_empty();
    if options.acms == AcmsOptions::default() && !is_alone {
        return Ok(());
    }
    let io = |source| ClusterError::Io { path: path.to_owned(), source };
    let wrong = |what: String| ClusterError::Config { path: path.to_owned(), what };
    let text = fs::read_to_string(path).map_err(io)?;
    let mut config: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let mut extend = |name: &str, with: toml::Table| -> Result<(), ClusterError> {
        let section = config.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        let section = section.as_table_mut().ok_or_else(|| wrong(format!("`{name}` is not a section")))?;
        section.extend(with);
        Ok(())
    };
    extend("acms", toml::Table::try_from(&options.acms).map_err(|error| wrong(error.to_string()))?)?;
    if is_alone {
        // Nobody else is on that network.
        extend("listen", toml::toml! { plain_text = ["deliver", "publish", "peer"] })?;
        extend("publishers", toml::toml! { anonymous = true })?;
    }
    fs::write(path, config.to_string()).map_err(io)
}
