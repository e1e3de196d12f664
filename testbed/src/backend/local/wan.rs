//! The emulated wide-area network of a run: hosts in namespaces of their own, the router between them, and what is measured
//! of it all the time.

use crate::{
    faults::links,
    network::{
        Disturbance, HostId, Network,
        router::{InterfaceSettings, Namespace, Probe, Prober, Router, address, ping},
    },
    scenario::{Direction, Fault, Scenario},
    trace::{Kind, Recorder, Template, Text},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Round trips measured a second: first of all pairs, then as long as the run lasts.
const FIRST_PER_S: f64 = 400.0;
const PER_S: f64 = 100.0;

/// Hosts, links and the thread that carries packets. Dropping it ends them.
#[derive(Debug)]
pub(in crate::backend) struct Wan {
    // Before the router, whose namespaces it uses.
    prober: Mutex<Option<Prober>>,
    router: Router,
    settings: InterfaceSettings,
    names: Arc<Vec<Text>>,
    hosts: BTreeMap<Text, HostId>,
    publishers: Vec<HostId>,
    pairs: Vec<(HostId, HostId)>,
    bitten: Mutex<BTreeSet<u64>>,
}

impl Wan {
    /// The hosts of a scenario, a receiver for each process of several, and what lies between them.
    pub(super) fn start(scenario: &Scenario) -> io::Result<Wan> {
        let scenario = &scenario.by_process();
        let network = scenario.network().map_err(io::Error::other)?;
        let pairs = pairs(scenario, &network);
        let names: Vec<Text> = network.hosts().iter().map(|host| Text::clone(&host.name)).collect();
        let hosts = names.iter().enumerate().map(|(at, name)| (Text::clone(name), HostId(at as u32))).collect();
        // Packets that travel together are late for a narrow line, and are not doubled or overtaken one by one.
        let plain = &scenario.network;
        let is_narrow = plain.rate.is_some() || scenario.faults.iter().any(|fault| fault.rate.is_some());
        let offload = !is_narrow && plain.duplicate.is_zero() && plain.reorder.is_zero();
        let settings = InterfaceSettings {
            offload,
            congestion_control: scenario.network.congestion_control.clone(),
            ..InterfaceSettings::default()
        };
        let router = Router::start(network, &settings)?;
        let publishers = (0..scenario.fleet.storage_points).map(|sp| scenario.publisher(sp)).collect();
        let (prober, bitten) = (Mutex::default(), Mutex::default());
        Ok(Wan { prober, router, settings, names: Arc::new(names), hosts, publishers, pairs, bitten })
    }

    /// Where a host stands.
    pub(super) fn namespace(&self, host: &str) -> Option<Namespace> {
        self.hosts.get(host).map(|host| self.router.namespace(*host))
    }

    /// A host is from now on in the namespace of a process, which has no interface yet.
    pub(in crate::backend) fn renew(&self, host: &str, pid: u32) -> io::Result<()> {
        let unknown = || io::Error::other(format!("no host is called {host}"));
        let id = *self.hosts.get(host).ok_or_else(unknown)?;
        let (namespace, tun) = Namespace::of_process(pid, address(id), &self.settings)?;
        self.router.renew(id, namespace, tun);
        Ok(())
    }

    /// Where the publisher beside a storage point stands; these are counted from 0.
    pub(super) fn publisher(&self, sp: usize) -> Option<Namespace> {
        self.publishers.get(sp).map(|host| self.router.namespace(*host))
    }

    /// Where a host of this number stands: hosts first, then publishers.
    pub(super) fn at(&self, host: HostId) -> Namespace {
        self.router.namespace(host)
    }

    /// Its address.
    pub(super) fn address_of(&self, host: HostId) -> Ipv4Addr {
        address(host)
    }

    /// Writes what a host sends and receives to a file.
    pub(super) fn capture(&self, host: &str, file: &Path) -> io::Result<()> {
        let unknown = || io::Error::other(format!("no host on the network is called {host}"));
        let id = *self.hosts.get(host).ok_or_else(unknown)?;
        self.router.capture(id, File::create(file)?)
    }

    /// A host's address there.
    pub(super) fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.get(host).map(|host| address(*host))
    }

    /// TCP's congestion control on its hosts.
    pub(super) fn congestion_control(&self) -> String {
        let file = "/proc/sys/net/ipv4/tcp_congestion_control";
        let read = self.router.namespace(HostId(0)).within(|| std::fs::read_to_string(file));
        read.map_or_else(|error| error.to_string(), |name| name.trim().to_owned())
    }

    /// How many pairs of hosts are measured, and how long that takes the first time.
    pub(super) fn first_round(&self) -> (usize, Duration) {
        (self.pairs.len(), Duration::from_secs_f64(self.pairs.len() as f64 / FIRST_PER_S))
    }

    /// Whether all of them were asked once.
    pub(super) fn has_asked_all(&self) -> bool {
        lock(&self.prober).as_ref().is_some_and(|prober| prober.asked() >= self.pairs.len())
    }

    /// Measures round trips from now on, and says of how many pairs.
    pub(super) fn measure(&self, recorder: &Recorder, testbed: &Text) -> io::Result<()> {
        let pairs = format!("pairs={}", self.pairs.len());
        recorder.note(testbed, 0, Kind::Probe, Template { cause: Some(&pairs), ..Template::default() });
        let (recorder, names) = (recorder.clone(), Arc::clone(&self.names));
        let tell = move |probe: Probe| {
            let [from, to] = [probe.from, probe.to].map(|host| &names[host.0 as usize]);
            let cause = format!("asked_us={} got_us={}", probe.asked_ns / 1000, probe.got_ns / 1000);
            let about = Template { outcome: Some(to), cause: Some(&cause), ..Template::default() };
            recorder.note(from, 0, Kind::Probe, about);
        };
        let prober = Prober::start(&self.router, self.pairs.clone(), FIRST_PER_S, PER_S, tell)?;
        *lock(&self.prober) = Some(prober);
        Ok(())
    }

    /// Measures no more, and writes no more packets down.
    pub(super) fn finish(&self) -> io::Result<()> {
        lock(&self.prober).take();
        self.router.finish_captures()
    }

    /// Says what was carried so far.
    pub(super) fn say_carried(&self, recorder: &Recorder, testbed: &Text) {
        let stats = self.router.stats();
        let cause = format!(
            "arrived={} bytes={} late={} lost={} cut={} stray={} refused={} late_us_p50={} late_us_p99={} late_us_max={}",
            stats.arrived,
            stats.arrived_bytes,
            stats.late,
            stats.lost,
            stats.cut,
            stats.stray,
            stats.refused,
            stats.lateness_ns.value_at_quantile(0.5) / 1000,
            stats.lateness_ns.value_at_quantile(0.99) / 1000,
            stats.lateness_ns.max() / 1000
        );
        recorder.note(testbed, 0, Kind::Carried, Template { cause: Some(&cause), ..Template::default() });
    }

    // ---- Faults ---------------------------------------------------------------------------------------------------

    /// Begins what `fault` does to the links of `host`, under a number.
    pub(super) fn disturb(&self, number: u64, fault: &Fault, host: &str) {
        if let Some(here) = self.hosts.get(host) {
            let mut network = self.router.network();
            links::disturb(network.disturbances(), number, fault, *here, &self.all_names(), u64::MAX);
        }
    }

    fn all_names(&self) -> Vec<String> {
        self.names.iter().map(|name| name.to_string()).collect()
    }

    /// Ends it.
    pub(super) fn restore(&self, number: u64) {
        self.router.network().disturbances().end(number);
    }

    /// Whether it has met anything yet.
    pub(super) fn has_bitten(&self, number: u64) -> bool {
        let mut bitten = lock(&self.bitten);
        bitten.extend(self.router.network().disturbances().take_bitten());
        bitten.contains(&number)
    }

    /// Hosts between which packets show what a fault does: the sender first.
    pub(super) fn witnesses(&self, fault: &Fault, host: &str) -> Option<(HostId, HostId)> {
        let here = *self.hosts.get(host)?;
        let peers = links::peers(fault, &self.all_names());
        let there = peers.into_iter().chain((0..2).map(HostId)).find(|peer| *peer != here)?;
        Some(if fault.direction() == Direction::In { (there, here) } else { (here, there) })
    }

    /// Sends a packet and waits for the answer so long.
    pub(super) fn ping(&self, from: HostId, to: HostId, within: Duration) -> io::Result<Option<Duration>> {
        ping(&self.router.namespace(from), address(to), within)
    }

    /// Whether nothing is wrong between two hosts, either way.
    pub(super) fn is_sound(&self, a: HostId, b: HostId) -> bool {
        let mut network = self.router.network();
        let disturbances = network.disturbances();
        [(a, b), (b, a)].into_iter().all(|(from, to)| disturbances.of(from, to) == Disturbance::NONE)
    }
}

/// Pairs that are measured: all storage points, and everyone with whom it asks.
fn pairs(scenario: &Scenario, network: &Network) -> Vec<(HostId, HostId)> {
    let n = scenario.fleet.storage_points;
    let storage_points = (0..n.into()).flat_map(|a| (a + 1..n.into()).map(move |b| (HostId(a), HostId(b))));
    let publishers = (0..n).map(|sp| (scenario.publisher(sp), HostId(sp.into())));
    let sources = scenario.sources(network).into_iter().enumerate();
    let asked = sources.flat_map(|(at, sources)| sources.into_iter().map(move |source| (HostId(at as u32), source)));
    storage_points.chain(publishers).chain(asked).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
