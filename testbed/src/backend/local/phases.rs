//! The phases of a run: start, load, updates with faults, quiesce, audit, stop.

use super::{
    audit::{audit_receiver, audit_storage_point, root},
    clocks::{self, Clocks},
    cluster::{ClusterError, ClusterOptions, LocalCluster, PUBLISH_PORT},
    disk::Disk,
    faults::{Active, Injector, blocking, lock},
    front::{BEHIND_PORT, Front},
    hosts::{CacheOptions, Hosts, ReceiverOptions},
    process::{Place, ProcessError},
    wan::Wan,
};
use crate::{
    backend::{BackendError, Context, HostPlace, clock::Clock, docker::Containers},
    checks::DELIVERY_BOUND,
    faults::occurrences,
    network::HostId,
    progress::Progress,
    scenario::{Clocks as WrongClocks, ContainerLimits, Scenario, ScenarioError},
    trace::{Kind, Recorder, Template, Text, Trace, now_ns},
    workload::{Attempt, Client, Contents, Published, Publisher, Random, attempts, load},
};
use acms_engine::protocol::Hash;
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::task::JoinSet;

/// How long processes have to end by themselves.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// The same after Ctrl-C, when someone waits.
const INTERRUPTED_GRACE: Duration = Duration::from_millis(700);

/// The round trip between any two hosts, unless a fault is in its way.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);

struct Run<'r> {
    scenario: &'r Scenario,
    context: &'r Context,
    containers: Option<Arc<Containers>>,
    recorder: Recorder,
    testbed: Text,
    hosts: Arc<Mutex<Hosts>>,
    publisher: Arc<Publisher>,
    authorities: Vec<String>,
    wan: Option<Arc<Wan>>,
    clocks: Arc<Clocks>,
    disks: Arc<BTreeMap<String, Disk>>,
    fronts: Arc<BTreeMap<String, Front>>,
    notes: Vec<String>,
}

pub(super) async fn run(
    scenario: &Scenario,
    context: &Context,
    work: &Path,
    containers: Option<Arc<Containers>>,
) -> Result<(Trace, Vec<String>), BackendError> {
    let contents = Contents::of(&scenario.workload, scenario.seed)?;
    let recorder = Recorder::new();
    let testbed: Text = "testbed".into();
    let mut notes = Vec::new();
    let wan = start_wan(scenario, context, containers.is_some(), &mut notes)?;
    let clocks = Arc::new(start_clocks(scenario, work, &recorder)?);
    context.progress.phase(&format!("starting {} storage points", scenario.fleet.storage_points));
    let disks = disks(scenario);
    let places = Places { wan: wan.as_ref(), containers: containers.as_deref() };
    let hosts = start_cluster(scenario, context, work, &recorder, places, &disks)?;
    let authorities = hosts.cluster.authorities();
    let places = authorities.iter().enumerate();
    let places = places.filter_map(|(sp, to)| Some((to.clone(), wan.as_ref()?.publisher(sp)?)));
    let client = Client::from_places(places.collect());
    let mut run = Run {
        scenario,
        context,
        containers,
        testbed,
        authorities,
        hosts: Arc::new(Mutex::new(hosts)),
        publisher: Arc::new(Publisher::with(client, "publisher", recorder.clone())),
        wan,
        clocks,
        disks: Arc::new(disks),
        fronts: Arc::default(),
        recorder,
        notes,
    };
    let ticking = tokio::spawn(tick(Arc::clone(&run.clocks)));
    let result = run.all(&contents, work).await;
    ticking.abort();
    context.progress.phase("stopping all processes");
    let grace = if result.is_ok() { STOP_GRACE } else { INTERRUPTED_GRACE };
    let hosts = Arc::clone(&run.hosts);
    // Killed and reaped by the time this returns.
    blocking(move || lock(&hosts).stop(grace)).await;
    if let Some(containers) = run.containers.clone() {
        // While their agents wait: if all ended by themselves at once, it would be too much for some engines.
        context.progress.phase("removing the containers");
        if let Err(error) = blocking(move || containers.remove()).await {
            let left = format!("containers are left, for `acms-testbed clean`: {error}");
            context.progress.note(&left);
            run.notes.push(left);
        }
    }
    if let Some(Err(error)) = run.wan.as_ref().map(|wan| wan.finish()) {
        run.notes.push(format!("packets in files are not complete: {error}"));
    }
    result?;
    if run.recorder.bad_lines() > 0 {
        run.notes.push(format!("{} event lines of processes could not be read", run.recorder.bad_lines()));
    }
    Ok((run.recorder.finish(), run.notes))
}

/// Sets the clocks that move, for ever.
async fn tick(clocks: Arc<Clocks>) {
    loop {
        tokio::time::sleep(clocks::TICK).await;
        let clocks = Arc::clone(&clocks);
        if let Err(error) = blocking(move || clocks.tick()).await {
            tracing::warn!("a clock cannot be set: {error}");
        }
    }
}

/// What the machine's processors have spent their time on so far (`/proc/stat`).
fn machine() -> Option<String> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let figures = text.lines().next()?.split_whitespace().skip(1).map(|word| word.parse::<u64>().unwrap_or(0));
    let [user, nice, system, idle, waiting, irq, softirq, stolen] =
        figures.take(8).collect::<Vec<_>>().try_into().ok()?;
    let (busy, idle) = (user + nice + system + irq + softirq, idle + waiting);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Some(format!("processors={processors} busy={busy} idle={idle} stolen={stolen}"))
}

/// The network that the scenario asks for, if it does and this machine lets us.
fn start_wan(
    scenario: &Scenario,
    context: &Context,
    is_contained: bool,
    notes: &mut Vec<String>,
) -> Result<Option<Arc<Wan>>, BackendError> {
    let is_free = scenario.containers != ContainerLimits::default() && !is_contained;
    if is_free {
        notes.push("left out: the limits of containers, as there are none here".to_owned());
    }
    let without = |notes: &mut Vec<String>| {
        if !context.captures.is_empty() {
            notes.push("left out: packets in files, as there is no emulated network".to_owned());
        }
        Ok(None)
    };
    if !scenario.needs_network() && !is_contained {
        return without(notes);
    }
    context.progress.phase(&format!("making a network of {} hosts", scenario.hosts().len()));
    match Wan::start(scenario) {
        Ok(wan) => {
            let control = wan.congestion_control();
            notes.push(format!("hosts have network namespaces of their own, TCP's congestion control is {control}"));
            for (host, file) in &context.captures {
                let failed = |source| BackendError::System { what: format!("writing the packets of {host}"), source };
                wan.capture(host, file).map_err(failed)?;
            }
            Ok(Some(Arc::new(wan)))
        }
        Err(error)
            if !is_contained && [io::ErrorKind::PermissionDenied, io::ErrorKind::NotFound].contains(&error.kind()) =>
        {
            let what = format!(
                "left out: the network between the hosts, who are all on loopback ({error}); it needs root, or user \
                 namespaces, and a /dev/net/tun that may be written"
            );
            context.progress.note(&what);
            notes.push(what);
            without(notes)
        }
        Err(source) => Err(BackendError::System { what: "making the network".to_owned(), source }),
    }
}

/// The clocks that are wrong from the beginning, and those that faults will move.
fn start_clocks(scenario: &Scenario, work: &Path, recorder: &Recorder) -> Result<Clocks, BackendError> {
    let failed = |source| BackendError::System { what: "setting the hosts' clocks".to_owned(), source };
    let clocks = Clocks::new();
    if scenario.clocks == WrongClocks::default() && !scenario.faults.iter().any(|fault| fault.kind.is_of_clock()) {
        return Ok(clocks);
    }
    let dir = work.join("clocks");
    fs::create_dir_all(&dir).map_err(failed)?;
    for host in scenario.hosts().into_iter().filter(|host| !host.starts_with("cache")) {
        clocks.add(&host, Clock::of(scenario, &host), dir.join(&host), recorder).map_err(failed)?;
    }
    Ok(clocks)
}

fn start_cluster(
    scenario: &Scenario,
    context: &Context,
    work: &Path,
    recorder: &Recorder,
    places: Places<'_>,
    disks: &BTreeMap<String, Disk>,
) -> Result<Hosts, BackendError> {
    let numbers = 1..=scenario.fleet.storage_points;
    let clock = |sp: u8| Some(clocks::variable(&clock_of(work, &format!("sp{sp}"))?));
    let dir = work.join("cluster");
    let place = |sp: u8| {
        let name = format!("sp{sp}");
        places.place(&name, sees(work, dir.join(&name)))
    };
    let options = ClusterOptions {
        name: "testbed".to_owned(),
        acms: scenario.acms.clone(),
        recorder: Some(recorder.clone()),
        stop: Some(context.stop.clone()),
        env: numbers.clone().filter_map(|sp| Some((sp, vec![clock(sp)?]))).collect(),
        disks: numbers.clone().filter_map(|sp| Some((sp, disks.get(&format!("sp{sp}"))?.clone()))).collect(),
        places: if places.wan.is_some() { numbers.map(place).collect() } else { Vec::new() },
        dir: Some(dir.clone()),
        ..ClusterOptions::new(scenario.fleet.storage_points, context.program.clone())
    };
    Ok(Hosts::new(LocalCluster::start(options).map_err(interrupted)?))
}

/// Where hosts are.
#[derive(Clone, Copy)]
struct Places<'p> {
    wan: Option<&'p Arc<Wan>>,
    containers: Option<&'p Containers>,
}

impl Places<'_> {
    /// Of a host that sees these directories, if it does not see all.
    fn place(&self, name: &str, sees: Vec<PathBuf>) -> Place {
        match (self.wan, self.containers) {
            (Some(wan), Some(containers)) => Place::In(containers.host(name, wan, sees)),
            (Some(wan), None) => wan.namespace(name).map_or(Place::Here, Place::On),
            (None, _) => Place::Here,
        }
    }
}

/// What a host sees in a container: its home, and the clocks that may be wrong.
fn sees(work: &Path, home: PathBuf) -> Vec<PathBuf> {
    let clocks = work.join("clocks");
    [Some(home), clocks.is_dir().then_some(clocks)].into_iter().flatten().collect()
}

/// The disks that will be in trouble.
fn disks(scenario: &Scenario) -> BTreeMap<String, Disk> {
    let hosts = scenario.hosts();
    let faults = scenario.faults.iter().filter(|fault| fault.kind.is_of_calls());
    let hit = faults.flat_map(|fault| fault.target.select(&hosts));
    hit.map(|host| (host.to_owned(), Disk::default())).collect()
}

/// The file that a host's clock follows, if it may be wrong.
fn clock_of(work: &Path, host: &str) -> Option<PathBuf> {
    let file = work.join("clocks").join(host);
    file.exists().then_some(file)
}

/// An interrupted wait is an interrupted run.
fn interrupted(error: ClusterError) -> BackendError {
    match error {
        ClusterError::Process(ProcessError::Interrupted) => BackendError::Interrupted,
        error => error.into(),
    }
}

/// By then all that is agreed is in the root.
const ROOT_TIME: Duration = Duration::from_millis(500);

impl Run<'_> {
    async fn all(&mut self, contents: &Contents, work: &Path) -> Result<(), BackendError> {
        self.measure_network().await?;
        self.start_fleet(work).await?;
        // Who lists every publication has said all that there is.
        if self.scenario.workload.publications.is_empty() {
            self.load(contents).await?;
        }
        if let Some(show) = self.context.linger {
            self.progress().finish();
            show(&self.places());
            self.context.stop.requested().await;
            return Err(BackendError::Interrupted);
        }
        self.updates(contents).await?;
        self.quiesce().await?;
        self.audit().await
    }

    /// Where all hosts are.
    fn places(&self) -> Vec<HostPlace> {
        let mut hosts = lock(&self.hosts);
        let storage_points = self.authorities.len();
        let processes: Vec<_> = hosts.processes().map(|process| (process.name().to_string(), process.pid())).collect();
        let caches = processes.len() - hosts.receivers.len() - storage_points;
        let publishers = (1..=storage_points).map(|sp| (format!("publisher{sp}"), None));
        let publishers = publishers.take(if self.wan.is_some() { usize::MAX } else { 0 });
        let place = |(at, (name, pid)): (usize, (String, Option<u32>))| {
            let id = HostId(at as u32);
            let beside = at.checked_sub(storage_points).filter(|number| *number < caches);
            let address = match (&self.wan, self.authorities.get(at), beside) {
                (Some(wan), ..) => Some(wan.address_of(id)),
                (None, Some(authority), _) => authority.split(':').next().and_then(|address| address.parse().ok()),
                (None, None, beside) => beside.map(|number| hosts.cluster.address_beside(number as u32)),
            };
            HostPlace { name, address, pid, namespace: self.wan.as_ref().map(|wan| wan.at(id).path()) }
        };
        processes.into_iter().chain(publishers).enumerate().map(place).collect()
    }

    fn progress(&self) -> &Progress {
        &self.context.progress
    }

    fn phase(&self, name: &str) {
        self.recorder.note(&self.testbed, 0, Kind::Phase, Template { cause: Some(name), ..Template::default() });
        if let Some(wan) = &self.wan {
            wan.say_carried(&self.recorder, &self.testbed);
        }
        if let Some(spent) = machine() {
            let about = Template { cause: Some(&spent), ..Template::default() };
            self.recorder.note(&self.testbed, 0, Kind::Machine, about);
        }
    }

    /// Measures each pair of hosts once, and goes on measuring.
    async fn measure_network(&mut self) -> Result<(), BackendError> {
        let Some(wan) = &self.wan else { return Ok(()) };
        let (pairs, takes) = wan.first_round();
        self.progress().phase(&format!("measuring {pairs} round trips"));
        let failed = |source| BackendError::System { what: "measuring the network".to_owned(), source };
        wan.measure(&self.recorder, &self.testbed).map_err(failed)?;
        self.context.stop.sleep(takes).await?;
        // A busy machine takes longer; pairs that it never asks count as not measured.
        let given_up = tokio::time::Instant::now() + takes * 3 + ROUND_TRIP_MAX;
        while !wan.has_asked_all() && tokio::time::Instant::now() < given_up {
            self.context.stop.sleep(Duration::from_millis(50)).await?;
        }
        self.context.stop.sleep(ROUND_TRIP_MAX).await
    }

    /// Starts caches and receivers; at return all serve or follow a source.
    async fn start_fleet(&mut self, work: &Path) -> Result<(), BackendError> {
        let (caches, count) = (self.scenario.fleet.caches, self.scenario.fleet.receivers);
        let with_caches = if caches > 0 { format!("{caches} caches and ") } else { String::new() };
        self.progress().phase(&format!("starting {with_caches}{count} receivers"));
        self.phase("start");
        let wrong = |error: ScenarioError| BackendError::Load(error.to_string());
        let by_process = self.scenario.by_process();
        let asked = by_process.sources(&by_process.network().map_err(wrong)?);
        let names = by_process.hosts();
        let first_cache = usize::from(self.scenario.fleet.storage_points);
        let mut listening = self.authorities.clone();
        for number in 0..caches {
            let address = match &self.wan {
                Some(wan) => wan.address(&names[first_cache + number as usize]),
                None => Some(lock(&self.hosts).cluster.address_beside(number)),
            };
            listening.extend(address.map(|address| format!("{address}:{PUBLISH_PORT}")));
        }
        let url = move |host: &HostId| Some(format!("http://{}", listening.get(host.0 as usize)?));
        let sources: BTreeMap<String, Vec<String>> =
            names.iter().cloned().zip(asked.iter().map(|sources| sources.iter().filter_map(&url).collect())).collect();
        let listens = |number: u32| url(&HostId(first_cache as u32 + number)).and_then(|url| url[7..].parse().ok());
        let mut listens: Vec<_> = (0..caches).filter_map(listens).collect();
        self.fronts = Arc::new(self.stand_in_front(&names[first_cache..], &mut listens));
        let fleet = self.scenario.fleet.clone();
        let (hosts, wan, work) = (Arc::clone(&self.hosts), self.wan.clone(), work.to_owned());
        let containers = self.containers.clone();
        let (recorder, stop, disks) = (self.recorder.clone(), self.context.stop.clone(), Arc::clone(&self.disks));
        let (program, subscriptions) = (self.context.program.clone(), self.scenario.subscriptions());
        let started = move || {
            let mut hosts = lock(&hosts);
            let places = Places { wan: wan.as_ref(), containers: containers.as_deref() };
            for (number, listen) in listens.into_iter().enumerate() {
                let name = format!("cache{}", number + 1);
                let (program, sources) = (program.clone(), sources[&name].clone());
                let home = work.join("caches");
                let place = places.place(&name, sees(&work, home.join(&name)));
                hosts.start_cache(&home, CacheOptions { program, sources, listen, place }, &recorder, &stop)?;
            }
            let options = |number: u32| {
                let own = format!("receiver{number}");
                let name = format!("receiver{}", (number - 1) / fleet.receivers_per_process + 1);
                ReceiverOptions {
                    program: program.clone(),
                    sources: sources[&name].clone(),
                    subscriptions: subscriptions.clone(),
                    poll: fleet.poll.map(|interval| interval.0),
                    env: clock_of(&work, &own).iter().map(|file| clocks::variable(file)).collect(),
                    place: places.place(&name, sees(&work, work.join("receivers").join(&own))),
                    disk: disks.get(&own).cloned(),
                }
            };
            let (count, per_process, home) = (fleet.receivers, fleet.receivers_per_process, work.join("receivers"));
            hosts.start_receivers(count, per_process, &home, options, &recorder, &stop)
        };
        blocking(started).await.map_err(interrupted)
    }

    /// Puts a proxy in front of each cache whose replies are to go wrong, which serves behind it then.
    fn stand_in_front(&self, caches: &[String], listens: &mut [SocketAddr]) -> BTreeMap<String, Front> {
        let faults = self.scenario.faults.iter().filter(|fault| fault.kind.is_of_replies());
        let hit: BTreeSet<&str> = faults.flat_map(|fault| fault.target.select(caches)).collect();
        let mut fronts = BTreeMap::new();
        for (name, listen) in caches.iter().zip(listens).filter(|(name, _)| hit.contains(name.as_str())) {
            let (wan, host) = (self.wan.clone(), name.clone());
            let place = move || wan.as_ref()?.namespace(&host);
            let random = Random::new(self.scenario.seed, &format!("replies of {name}"));
            fronts.insert(name.clone(), Front::start(*listen, place, random, self.progress().clone()));
            listen.set_port(BEHIND_PORT);
        }
        fronts
    }

    /// Publishes every file, spread over the storage points, and waits until all receivers have them.
    async fn load(&mut self, contents: &Contents) -> Result<(), BackendError> {
        self.phase("load");
        let total = contents.files.len();
        let skipped = contents.skipped_text();
        let kib = contents.bytes().div_ceil(1024);
        self.notes.push(format!("published {total} files ({}), {kib} KiB", contents.source));
        if !skipped.is_empty() {
            self.notes.push(format!("skipped {skipped}"));
        }
        self.progress().phase(&format!("publishing {total} files ({}), {kib} KiB", contents.source));
        let mut under_way = JoinSet::new();
        let (mut done, mut refused) = (0, Vec::new());
        for attempt in load(self.scenario, contents) {
            while under_way.len() >= self.scenario.workload.concurrency as usize {
                self.finished(under_way.join_next(), &mut done, &mut refused).await?;
            }
            under_way.spawn(self.attempt(attempt, now_ns()));
            self.progress().at(done as u64, total as u64, "accepted");
        }
        while !under_way.is_empty() {
            self.finished(under_way.join_next(), &mut done, &mut refused).await?;
            self.progress().at(done as u64, total as u64, "accepted");
        }
        if let Some(first) = refused.first() {
            let (refused, first) = (refused.len(), first.cause.as_deref().unwrap_or("no reason was given"));
            return Err(BackendError::Load(format!("{refused} of {total} publications were not accepted: {first}")));
        }
        self.progress().phase("waiting until all receivers have all files");
        self.wait_for_receivers().await
    }

    async fn finished(
        &self,
        next: impl Future<Output = Option<Result<Published, tokio::task::JoinError>>>,
        done: &mut usize,
        refused: &mut Vec<Published>,
    ) -> Result<(), BackendError> {
        if let Some(Ok(published)) = self.context.stop.unless(next).await? {
            *done += 1;
            if !published.is_accepted() {
                refused.push(published);
            }
        }
        Ok(())
    }

    /// Makes an attempt, which was due then.
    fn attempt(&self, attempt: Attempt, due_ns: u64) -> impl Future<Output = Published> + Send + use<> {
        let authority = self.authorities[attempt.to % self.authorities.len()].clone();
        let (publisher, order) = (Arc::clone(&self.publisher), self.scenario.acms.order);
        async move { publisher.make(&authority, attempt, order, due_ns).await }
    }

    /// Publishes updates as they are due, whether or not earlier ones have an outcome, while faults come and go.
    async fn updates(&mut self, contents: &Contents) -> Result<(), BackendError> {
        self.phase("updates");
        let duration = self.scenario.duration.0;
        let per_s = self.scenario.workload.updates_per_s;
        self.progress().phase(&format!("{per_s} updates a second for {}", self.scenario.duration));
        let begun = tokio::time::Instant::now();
        let begun_ns = now_ns();
        let mut under_way = JoinSet::new();
        let (active, tally) = (Arc::default(), Cell::new([0_u64; 3]));
        let faults = self.faults(begun, &active);
        let count = |published: Option<Result<Published, tokio::task::JoinError>>| {
            let Some(Ok(published)) = published else { return published.is_some() };
            let at = ["accepted", "undetermined"].iter().position(|outcome| *outcome == published.outcome).unwrap_or(2);
            let mut counts = tally.get();
            counts[at] += 1;
            tally.set(counts);
            true
        };
        let publish = async {
            for attempt in attempts(self.scenario, contents).take_while(|attempt| attempt.at < duration) {
                tokio::time::sleep_until(begun + attempt.at).await;
                let due_ns = begun_ns + u64::try_from(attempt.at.as_nanos()).unwrap_or(u64::MAX);
                under_way.spawn(self.attempt(attempt, due_ns));
                while count(under_way.try_join_next()) {}
            }
            tokio::time::sleep_until(begun + duration).await;
            // Every attempt has an outcome before the end is judged.
            while count(under_way.join_next().await) {}
        };
        let both = async {
            tokio::select! {
                (notes, ()) = async { tokio::join!(faults, publish) } => notes,
                never = self.show(contents.files.len(), begun, &tally, &active) => match never {},
            }
        };
        let notes = self.context.stop.unless(both).await??;
        self.notes.extend(notes);
        Ok(())
    }

    /// Shows how the updates go: outcomes so far, how many receivers are up to date, what goes wrong just now.
    async fn show(
        &self,
        files: usize,
        begun: tokio::time::Instant,
        tally: &Cell<[u64; 3]>,
        active: &Active,
    ) -> Infallible {
        /// Above so many pairs of a receiver and a path nobody counts them each time: publications wait meanwhile.
        const PAIRS_MAX: usize = 20_000;
        const EVERY: Duration = Duration::from_millis(500);
        let (subscriptions, duration) = (self.scenario.subscriptions(), self.scenario.duration.0.as_secs());
        let receivers = self.scenario.fleet.receivers as usize;
        if self.progress().is_silent() {
            std::future::pending::<()>().await;
        }
        loop {
            let [accepted, undetermined, rejected] = tally.get();
            let mut text = format!("s, {accepted} accepted");
            for (count, outcome) in [(undetermined, "undetermined"), (rejected, "rejected")] {
                text += &if count > 0 { format!(", {count} {outcome}") } else { String::new() };
            }
            // A fault that is just being brought about has them: then without.
            let live = self.hosts.try_lock().ok().map(|hosts| hosts.live_receivers());
            if let Some(live) = live.filter(|_| receivers.saturating_mul(files) <= PAIRS_MAX) {
                let (behind, pairs) = self.recorder.behind(&live, &subscriptions);
                let part = (pairs - behind) as f64 * 100.0 / pairs.max(1) as f64;
                text += &format!(", {part:.1} % up to date at {} of {receivers} receivers", live.len());
            }
            let active: Vec<String> = active.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
            if !active.is_empty() {
                text += &format!(", now: {}", active.join(", "));
            }
            self.progress().at(begun.elapsed().as_secs().min(duration), duration, &text);
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Each fault has its own time.
    async fn faults(&self, begun: tokio::time::Instant, active: &Active) -> Result<Vec<String>, BackendError> {
        let injector = Arc::new(Injector {
            hosts: Arc::clone(&self.hosts),
            wan: self.wan.clone(),
            clocks: Arc::clone(&self.clocks),
            disks: Arc::clone(&self.disks),
            fronts: Arc::clone(&self.fronts),
            publisher: Arc::clone(&self.publisher),
            authorities: self.authorities.clone(),
            program: self.context.program.clone(),
            recorder: self.recorder.clone(),
            testbed: Text::clone(&self.testbed),
            progress: self.context.progress.clone(),
            active: Arc::clone(active),
            notes: Mutex::default(),
        });
        let faults: Arc<[_]> = self.scenario.faults.clone().into();
        let mut under_way = JoinSet::new();
        let all = occurrences(&faults, &self.scenario.hosts(), self.scenario.duration.0);
        for (number, occurrence) in all.into_iter().enumerate() {
            let (injector, faults) = (Arc::clone(&injector), Arc::clone(&faults));
            under_way.spawn(async move { injector.inject(number, &faults, &occurrence, begun).await });
        }
        while let Some(ended) = under_way.join_next().await {
            ended.expect("a fault does not panic")?;
        }
        Ok(std::mem::take(&mut injector.notes.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Waits until all storage points serve the same index and all receivers hold the latest of every path.
    async fn quiesce(&mut self) -> Result<(), BackendError> {
        self.phase("quiesce");
        self.progress().phase("waiting until all hold the latest");
        self.wait_for_receivers().await
    }

    /// Gives up at the bound of promise P6, whose check then tells who is behind.
    async fn wait_for_receivers(&mut self) -> Result<(), BackendError> {
        let subscriptions = self.scenario.subscriptions();
        let begun_ns = now_ns();
        let bound_ns = u64::try_from(DELIVERY_BOUND.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let live = lock(&self.hosts).live_receivers();
            let (behind, pairs) = self.recorder.behind(&live, &subscriptions);
            self.progress().at(pairs - behind, pairs, "of receivers' files are the latest");
            if behind == 0 && self.context.stop.unless(self.storage_points_agree()).await? {
                return Ok(());
            }
            if lock(&self.hosts).note_ended() {
                self.notes.push("a process ended that nobody had told to".to_owned());
                return Ok(());
            }
            if now_ns() - begun_ns > bound_ns {
                let what = match behind {
                    0 => "the storage points' roots differ".to_owned(),
                    _ => format!("receivers were {behind} of {pairs} files behind"),
                };
                let about = Template { cause: Some(&what), ..Template::default() };
                self.recorder.note(&self.testbed, 0, Kind::Unsettled, about);
                self.notes.push(format!("after {DELIVERY_BOUND:?} not all was settled: {what}"));
                return Ok(());
            }
            self.context.stop.sleep(Duration::from_millis(50)).await?;
        }
    }

    /// Roots are made up to a quarter of a second after the entries in them: they must be equal, and stay.
    async fn storage_points_agree(&self) -> bool {
        let before = self.common_root().await;
        if before.is_none() {
            return false;
        }
        tokio::time::sleep(ROOT_TIME).await;
        self.common_root().await == before
    }

    async fn common_root(&self) -> Option<Hash> {
        let mut common = None;
        for authority in &self.authorities {
            let root = root(self.publisher.client(), authority).await?;
            if *common.get_or_insert(root) != root {
                return None;
            }
        }
        common
    }

    async fn audit(&mut self) -> Result<(), BackendError> {
        lock(&self.hosts).note_ended();
        self.phase("audit");
        self.progress().phase("comparing every index and every directory with what was accepted");
        for (i, authority) in self.authorities.iter().enumerate() {
            let name = format!("sp{}", i + 1).into();
            let client = self.publisher.client();
            let audit = audit_storage_point(client, authority, &name, &self.recorder, self.scenario.seed);
            self.context.stop.unless(audit).await?;
        }
        let receivers: Vec<_> = {
            let hosts = lock(&self.hosts);
            let live = hosts.receivers.iter().filter(|receivers| receivers.process.is_running());
            let named =
                live.flat_map(|receivers| receivers.process.names().iter().cloned().zip(receivers.dirs.clone()));
            named.collect()
        };
        let total = receivers.len() as u64;
        for (done, (name, dir)) in receivers.into_iter().enumerate() {
            let recorder = self.recorder.clone();
            self.context.stop.unless(blocking(move || audit_receiver(&name, &dir, &recorder))).await?;
            self.progress().at(done as u64 + 1, total, "directories compared");
        }
        Ok(())
    }
}
