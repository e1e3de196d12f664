//! The phases of a run: start, load, updates with faults, quiesce, audit, stop.

use super::{
    audit::{audit_receiver, audit_storage_point, root},
    cluster::{ClusterError, ClusterOptions, LocalCluster},
    hosts::{Hosts, ReceiverOptions},
    process::ProcessError,
};
use crate::{
    backend::{BackendError, Context},
    checks::DELIVERY_BOUND,
    faults::{Step, plan},
    progress::Progress,
    scenario::Scenario,
    trace::{Kind, Recorder, Template, Text, Trace, now_ns},
    workload::{Contents, Published, Publisher, Updates},
};
use acms_engine::protocol::Hash;
use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::task::JoinSet;

/// How long processes have to end by themselves.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// The same after Ctrl-C, when someone waits.
const INTERRUPTED_GRACE: Duration = Duration::from_millis(700);

struct Run<'r> {
    scenario: &'r Scenario,
    context: &'r Context,
    recorder: Recorder,
    testbed: Text,
    hosts: Arc<Mutex<Hosts>>,
    publisher: Arc<Publisher>,
    authorities: Vec<String>,
    notes: Vec<String>,
}

pub(super) async fn run(
    scenario: &Scenario,
    context: &Context,
    work: &Path,
) -> Result<(Trace, Vec<String>), BackendError> {
    let contents = Contents::of(&scenario.workload, scenario.seed)?;
    let recorder = Recorder::new();
    let testbed: Text = "testbed".into();
    context.progress.phase(&format!("starting {} storage points", scenario.fleet.storage_points));
    let hosts = start_cluster(scenario, context, work, &recorder)?;
    let mut run = Run {
        scenario,
        context,
        testbed,
        authorities: hosts.cluster.authorities(),
        hosts: Arc::new(Mutex::new(hosts)),
        publisher: Arc::new(Publisher::new("publisher", recorder.clone())),
        recorder,
        notes: Vec::new(),
    };
    let result = run.all(&contents, work).await;
    let grace = if result.is_ok() { STOP_GRACE } else { INTERRUPTED_GRACE };
    let hosts = Arc::clone(&run.hosts);
    // Killed and reaped by the time this returns.
    blocking(move || lock(&hosts).stop(grace)).await;
    result?;
    if run.recorder.bad_lines() > 0 {
        run.notes.push(format!("{} event lines of processes could not be read", run.recorder.bad_lines()));
    }
    Ok((run.recorder.finish(), run.notes))
}

fn lock(hosts: &Mutex<Hosts>) -> MutexGuard<'_, Hosts> {
    hosts.lock().expect("nothing panics while it holds the hosts")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the hosts does not panic")
}

fn start_cluster(
    scenario: &Scenario,
    context: &Context,
    work: &Path,
    recorder: &Recorder,
) -> Result<Hosts, BackendError> {
    let options = ClusterOptions {
        name: "testbed".to_owned(),
        dir: Some(work.join("cluster")),
        acms: scenario.acms.clone(),
        recorder: Some(recorder.clone()),
        stop: Some(context.stop.clone()),
        ..ClusterOptions::new(scenario.fleet.storage_points, context.program.clone())
    };
    Ok(Hosts::new(LocalCluster::start(options).map_err(interrupted)?))
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
        self.start_receivers(work).await?;
        self.load(contents).await?;
        self.updates(contents).await?;
        self.quiesce().await?;
        self.audit().await
    }

    fn progress(&self) -> &Progress {
        &self.context.progress
    }

    fn phase(&self, name: &str) {
        self.recorder.note(&self.testbed, 0, Kind::Phase, Template { cause: Some(name), ..Template::default() });
    }

    async fn start_receivers(&mut self, work: &Path) -> Result<(), BackendError> {
        let count = self.scenario.fleet.receivers;
        self.progress().phase(&format!("starting {count} receivers"));
        self.phase("start");
        let options = ReceiverOptions {
            program: self.context.program.clone(),
            sources: self.authorities.iter().map(|authority| format!("http://{authority}")).collect(),
            subscriptions: self.scenario.subscriptions(),
            poll: self.scenario.fleet.poll.map(|interval| interval.0),
            env: Vec::new(),
        };
        let (hosts, home) = (Arc::clone(&self.hosts), work.join("receivers"));
        let (recorder, stop) = (self.recorder.clone(), self.context.stop.clone());
        let started = move || lock(&hosts).start_receivers(count, &home, &options, &recorder, &stop);
        blocking(started).await.map_err(interrupted)
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
        for (i, file) in contents.files.iter().enumerate() {
            while under_way.len() >= self.scenario.workload.concurrency as usize {
                self.finished(under_way.join_next(), &mut done, &mut refused).await?;
            }
            let (publisher, authority) = (Arc::clone(&self.publisher), self.authority(i).to_owned());
            let (path, content) = (file.path.clone(), file.content.clone());
            under_way.spawn(async move { publisher.publish(&authority, &path, Some(content), now_ns()).await });
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

    fn authority(&self, i: usize) -> &str {
        &self.authorities[i % self.authorities.len()]
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
        let faults = self.faults(begun);
        let publish = async {
            for (i, update) in
                Updates::new(&contents.files, &self.scenario.workload, duration, self.scenario.seed).enumerate()
            {
                tokio::time::sleep_until(begun + update.at).await;
                let due_ns = begun_ns + u64::try_from(update.at.as_nanos()).unwrap_or(u64::MAX);
                let (publisher, authority) = (Arc::clone(&self.publisher), self.authority(i).to_owned());
                under_way
                    .spawn(async move { publisher.publish(&authority, &update.path, update.content, due_ns).await });
                while under_way.try_join_next().is_some() {}
                self.progress().at(begun.elapsed().as_secs(), duration.as_secs(), "seconds of updates");
            }
            tokio::time::sleep_until(begun + duration).await;
            // Every attempt has an outcome before the end is judged.
            while under_way.join_next().await.is_some() {}
        };
        let both = async { tokio::join!(faults, publish).0 };
        self.context.stop.unless(both).await?
    }

    async fn faults(&self, begun: tokio::time::Instant) -> Result<(), BackendError> {
        for step in plan(&self.scenario.faults, &self.scenario.hosts(), self.scenario.duration.0) {
            tokio::time::sleep_until(begun + step.at).await;
            self.progress().note(&format!(
                "{} {} {}",
                if step.begins { "fault:" } else { "undone:" },
                step.kind,
                step.host
            ));
            let (hosts, recorder, testbed) =
                (Arc::clone(&self.hosts), self.recorder.clone(), Text::clone(&self.testbed));
            blocking(move || take_step(&hosts, &recorder, &testbed, &step)).await?;
        }
        Ok(())
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
            let live = hosts.receivers.iter().filter(|receiver| receiver.process.is_running());
            live.map(|receiver| (Text::clone(receiver.process.name()), receiver.dir.clone())).collect()
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

fn take_step(hosts: &Mutex<Hosts>, recorder: &Recorder, testbed: &Text, step: &Step) -> Result<(), ProcessError> {
    let kind = step.kind.to_string();
    let about = Template { cause: Some(&step.host), outcome: Some(&kind), ..Template::default() };
    if step.begins {
        lock(hosts).begin(step.kind, &step.host)?;
        recorder.note(testbed, 0, Kind::Fault, about);
        return Ok(());
    }
    let readiness = lock(hosts).undo(step.kind, &step.host)?;
    if let Some(readiness) = readiness {
        // Without the lock: other faults have their own times.
        readiness.wait(Duration::from_secs(30), None)?;
    }
    recorder.note(testbed, 0, Kind::FaultUndone, about);
    Ok(())
}
