//! What faults do to processes, links and clocks of this machine. Each begins, is seen to have its effect, ends, and is seen
//! to be undone.

use super::{
    clocks::Clocks,
    disk::{Disk, Trouble},
    front::Front,
    hosts::{Ending, Hosts},
    process::ProcessError,
    wan::Wan,
};
use crate::{
    backend::BackendError,
    faults::{FaultKind, Occurrence, replies::Misbehaviour},
    network::PPM,
    progress::Progress,
    scenario::{Fault, Span},
    system::{Program, replace_args},
    trace::{Kind, Recorder, Template, Text},
    workload::Publisher,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

const SLOW_FLUSH: Duration = Duration::from_millis(100);
const FLAP: Duration = Duration::from_secs(1);
const LOOP_UP: Duration = Duration::from_secs(1);
const LOOP_DOWN: Duration = Duration::from_millis(100);
/// A process that was started again is ready within this.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether a fault has shown.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A link that works again answers within this, beyond its round trip.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const PINGS: u32 = 5;
/// A disk that works again is used within this, or nobody needs it now. So is a cache whose replies are good again.
const USED_WITHIN: Duration = Duration::from_secs(2);
/// A clock that was moved shows it within this.
const CLOCK_WITHIN: Duration = Duration::from_secs(5);
/// So far off it may be when it is looked at: the answer travels, and the process reads its file every 100 ms. A clock that is
/// moved by less than twice the least of it cannot be told from one that is not.
const CLOCK_ERROR_US: u64 = 1_000_000;
const CLOCK_ERROR_US_MIN: u64 = 300_000;
/// A clock that moves evenly is looked at so long before the end, when it is almost as far off as it will be.
const CLOCK_LOOK: Duration = Duration::from_millis(500);

/// Faults by name, for people to see.
pub(super) type Active = Arc<Mutex<BTreeSet<String>>>;

/// Brings faults about.
pub(super) struct Injector {
    pub(super) hosts: Arc<Mutex<Hosts>>,
    pub(super) wan: Option<Arc<Wan>>,
    pub(super) clocks: Arc<Clocks>,
    pub(super) disks: Arc<BTreeMap<String, Disk>>,
    pub(super) fronts: Arc<BTreeMap<String, Front>>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) authorities: Vec<String>,
    pub(super) program: Program,
    pub(super) recorder: Recorder,
    pub(super) testbed: Text,
    pub(super) progress: Progress,
    /// The faults that have begun to show and are not undone.
    pub(super) active: Active,
    /// What a reader of the results should know.
    pub(super) notes: Mutex<Vec<String>>,
}

/// One fault at one host.
struct Case<'f> {
    number: u64,
    fault: &'f Fault,
    host: &'f str,
    ends: Instant,
}

impl Case<'_> {
    fn no_effect(&self, what: String) -> BackendError {
        let name = format!("{} of {}", self.fault.kind, self.host);
        BackendError::Process(ProcessError::NoEffect { name, what })
    }
}

impl Injector {
    /// Brings about one occurrence of `faults`, the `number`-th, counted from `begun`, from its beginning to its end.
    pub(super) async fn inject(
        &self,
        number: usize,
        faults: &[Fault],
        occurrence: &Occurrence,
        begun: Instant,
    ) -> Result<(), BackendError> {
        let Occurrence { fault, host, begins, ends } = occurrence;
        let case = Case { number: number as u64, fault: &faults[*fault], host, ends: begun + *ends };
        sleep_until(begun + *begins).await;
        match case.fault.kind {
            FaultKind::Kill => self.down(&case, Ending::Killed).await,
            FaultKind::Restart => self.down(&case, Ending::Asked).await,
            FaultKind::Pause => self.still(&case).await,
            FaultKind::CrashLoop => self.crash_loop(&case).await,
            FaultKind::DiskLost => self.disk_lost(&case).await,
            FaultKind::DiskFull => self.disk(&case, Trouble::Full).await,
            FaultKind::DiskFail => self.disk(&case, Trouble::Fails).await,
            FaultKind::DiskSlow => {
                let by = case.fault.delay.map_or(SLOW_FLUSH, |Span(by)| by);
                self.disk(&case, Trouble::Slow(by)).await
            }
            FaultKind::ClockJump | FaultKind::ClockSkew => self.clock(&case).await,
            kind if kind.is_of_replies() => {
                self.replies(&case).await;
                Ok(())
            }
            kind if kind.is_of_link() => match &self.wan {
                Some(wan) => self.link(&case, wan).await,
                None => {
                    self.tell(format!("left out, as there is no network here: {kind} of {host}"));
                    Ok(())
                }
            },
            other => Err(case.no_effect(format!("this backend cannot do {other}"))),
        }
    }

    // ---- Processes ------------------------------------------------------------------------------------------------

    async fn down(&self, case: &Case<'_>, ending: Ending) -> Result<(), BackendError> {
        if self.on_hosts(case.host, move |hosts, host| hosts.take_down(host, ending)).await? {
            self.note(case, Kind::Fault);
        }
        sleep_until(case.ends).await;
        self.up(case.host).await?;
        self.note(case, Kind::FaultUndone);
        Ok(())
    }

    /// At return it is ready, unless something else keeps it down.
    async fn up(&self, host: &str) -> Result<(), BackendError> {
        if let Some(container) = self.on_hosts(host, |hosts, host| hosts.container(host)).await? {
            // Without the lock, as making one takes its time. What is wrong is said at the start.
            let _ = blocking(move || container.prepare()).await;
        }
        if let Some(ready) = self.on_hosts(host, |hosts, host| hosts.let_up(host)).await? {
            // Without the lock: other faults have their own times.
            blocking(move || ready.wait(READY_WITHIN, None)).await?;
        }
        Ok(())
    }

    async fn still(&self, case: &Case<'_>) -> Result<(), BackendError> {
        if self.on_hosts(case.host, |hosts, host| hosts.hold_still(host)).await? {
            self.note(case, Kind::Fault);
        }
        sleep_until(case.ends).await;
        self.on_hosts(case.host, |hosts, host| hosts.go_on(host)).await?;
        self.note(case, Kind::FaultUndone);
        Ok(())
    }

    async fn crash_loop(&self, case: &Case<'_>) -> Result<(), BackendError> {
        let (up, down) = periods(case.fault, LOOP_UP, LOOP_DOWN);
        let mut has_shown = false;
        loop {
            let ran = self.on_hosts(case.host, |hosts, host| hosts.take_down(host, Ending::Killed)).await?;
            if ran && !std::mem::replace(&mut has_shown, true) {
                self.note(case, Kind::Fault);
            }
            sleep_until(case.ends.min(Instant::now() + down)).await;
            if Instant::now() + up >= case.ends {
                break;
            }
            // It need not be ready before it is killed again.
            self.on_hosts(case.host, |hosts, host| hosts.let_up(host)).await?;
            sleep(up).await;
        }
        sleep_until(case.ends).await;
        self.up(case.host).await?;
        self.note(case, Kind::FaultUndone);
        Ok(())
    }

    // ---- Disks ----------------------------------------------------------------------------------------------------

    /// The disk is in trouble. A process that ends because of it is started again when it is not.
    async fn disk(&self, case: &Case<'_>, trouble: Trouble) -> Result<(), BackendError> {
        let Some(disk) = self.disks.get(case.host) else { return Ok(()) };
        disk.trouble(case.number, trouble);
        let (mut has_shown, mut has_ended) = (false, false);
        loop {
            if !has_shown && disk.hits(case.number) > 0 {
                has_shown = true;
                self.note(case, Kind::Fault);
            }
            has_ended |= trouble == Trouble::Fails && self.on_hosts(case.host, Hosts::take_end).await?;
            if Instant::now() >= case.ends {
                break;
            }
            sleep_until(case.ends.min(Instant::now() + LOOK_EVERY)).await;
        }
        disk.mend(case.number);
        if trouble == Trouble::Fails && has_shown && !has_ended {
            // A call that has failed at the last moment.
            sleep(LOOK_EVERY).await;
            has_ended = self.on_hosts(case.host, Hosts::take_end).await?;
        }
        let (passed_before, is_sound) = disk.passed();
        if has_ended {
            self.up(case.host).await?;
        }
        let given_up = Instant::now() + USED_WITHIN;
        while is_sound && disk.passed().0 == passed_before && Instant::now() < given_up {
            sleep(LOOK_EVERY).await;
        }
        match has_shown {
            true => self.note(case, Kind::FaultUndone),
            false => self.harmless(case),
        }
        Ok(())
    }

    /// The process is killed and its store is gone; a new one takes its place.
    async fn disk_lost(&self, case: &Case<'_>) -> Result<(), BackendError> {
        let home = self.on_hosts(case.host, |hosts, host| {
            hosts.take_down(host, Ending::Killed)?;
            Ok(hosts.cluster.dir().join(host))
        });
        let home = home.await?;
        let store = home.join("store");
        let lost = |what, source| BackendError::System { what, source };
        let gone = store.clone();
        match blocking(move || std::fs::remove_dir_all(&gone)).await {
            // Another fault has lost it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(|error| lost(format!("removing {}", store.display()), error))?,
        }
        self.note(case, Kind::Fault);
        sleep_until(case.ends).await;
        self.replace(case, home.join("acms.toml")).await?;
        self.up(case.host).await?;
        self.note(case, Kind::FaultUndone);
        Ok(())
    }

    /// `acms replace`, where the storage point stands. Others may be away for a while, so it is tried again.
    async fn replace(&self, case: &Case<'_>, config: PathBuf) -> Result<(), BackendError> {
        let mut command = self.program.command(&replace_args(&config));
        command.stdin(Stdio::null());
        if let Some(namespace) = self.wan.as_ref().and_then(|wan| wan.namespace(case.host)) {
            namespace.enter(&mut command);
        }
        let given_up = Instant::now() + READY_WITHIN;
        loop {
            let (output, again) = blocking(move || (command.output(), command)).await;
            command = again;
            let what = match output {
                Ok(output) if output.status.success() => return Ok(()),
                Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= given_up {
                return Err(case.no_effect(format!("acms replace: {what}")));
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    // ---- Replies of caches ----------------------------------------------------------------------------------------

    async fn replies(&self, case: &Case<'_>) {
        let Some(front) = self.fronts.get(case.host) else { return };
        let fault = case.number as usize;
        let part_ppm = case.fault.part.map_or(PPM, |part| part.0);
        front.misbehave(Misbehaviour { kind: case.fault.kind, part_ppm, fault });
        let mut has_shown = false;
        while Instant::now() < case.ends {
            if !has_shown && front.hits(fault) > 0 {
                has_shown = true;
                self.note(case, Kind::Fault);
            }
            sleep_until(case.ends.min(Instant::now() + LOOK_EVERY)).await;
        }
        front.behave(fault);
        // A reply of the last moment.
        if !has_shown && front.hits(fault) > 0 {
            has_shown = true;
            self.note(case, Kind::Fault);
        }
        let ((passed_before, is_good), given_up) = (front.passed(), Instant::now() + USED_WITHIN);
        while is_good && front.passed().0 == passed_before && Instant::now() < given_up {
            sleep(LOOK_EVERY).await;
        }
        match has_shown {
            true => self.note(case, Kind::FaultUndone),
            false => self.harmless(case),
        }
    }

    // ---- Links ----------------------------------------------------------------------------------------------------

    async fn link(&self, case: &Case<'_>, wan: &Arc<Wan>) -> Result<(), BackendError> {
        let witnesses = wan.witnesses(case.fault, case.host);
        let mut has_shown = false;
        let (up, down) = periods(case.fault, FLAP, FLAP);
        loop {
            wan.disturb(case.number, case.fault, case.host);
            let until = match case.fault.kind {
                FaultKind::Flap => case.ends.min(Instant::now() + down),
                _ => case.ends,
            };
            while !has_shown && Instant::now() < until {
                if let Some((from, to)) = witnesses {
                    let wan = Arc::clone(wan);
                    // What it answers does not matter: the packet meets the fault.
                    let _ = blocking(move || wan.ping(from, to, LOOK_EVERY)).await;
                }
                if wan.has_bitten(case.number) {
                    has_shown = true;
                    self.note(case, Kind::Fault);
                } else {
                    sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
                }
            }
            sleep_until(until).await;
            wan.restore(case.number);
            if Instant::now() + up >= case.ends || case.fault.kind != FaultKind::Flap {
                break;
            }
            sleep(up).await;
        }
        sleep_until(case.ends).await;
        if let Some((from, to)) = witnesses {
            let (wan, within) = (Arc::clone(wan), ANSWER_WITHIN);
            // Another fault may still be there: then there is nothing to be seen.
            let answers = move || -> std::io::Result<bool> {
                for _ in 0..PINGS {
                    if !wan.is_sound(from, to) || wan.ping(from, to, within)?.is_some() {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            if !blocking(answers).await.map_err(|error| case.no_effect(error.to_string()))? {
                return Err(case.no_effect("nothing passes although it was undone".to_owned()));
            }
        }
        match has_shown {
            true => self.note(case, Kind::FaultUndone),
            false => self.harmless(case),
        }
        Ok(())
    }

    // ---- Clocks ---------------------------------------------------------------------------------------------------

    async fn clock(&self, case: &Case<'_>) -> Result<(), BackendError> {
        let by_us = case.fault.by.map_or(0, |by| by.0);
        let failed = |error: std::io::Error| case.no_effect(error.to_string());
        let (clocks, recorder, number) = (&self.clocks, &self.recorder, case.number as usize);
        let jumps = case.fault.kind == FaultKind::ClockJump;
        if jumps {
            clocks.jump(case.host, by_us, recorder).map_err(failed)?;
        } else {
            let within = case.ends.saturating_duration_since(Instant::now());
            clocks.skew(case.host, number, by_us, within, recorder).map_err(failed)?;
        }
        let mut is_seen;
        if jumps {
            is_seen = self.see_clock(case, case.ends).await?;
            self.note(case, Kind::Fault);
        } else {
            self.note(case, Kind::Fault);
            sleep_until(case.ends - CLOCK_LOOK).await;
            is_seen = self.see_clock(case, case.ends + CLOCK_WITHIN).await?;
        }
        sleep_until(case.ends).await;
        if jumps {
            clocks.jump(case.host, -by_us, recorder).map_err(failed)?;
        } else {
            clocks.unskew(case.host, number, recorder).map_err(failed)?;
        }
        is_seen &= self.see_clock(case, Instant::now() + CLOCK_WITHIN).await?;
        self.note(case, Kind::FaultUndone);
        if !is_seen {
            self.tell(format!("{} of {}: its clock was not looked at in time", case.fault.kind, case.host));
        }
        Ok(())
    }

    /// Waits until a storage point's clock shows what it is to show. False if nobody could tell until then: nobody can ask a
    /// receiver, nor a storage point that is down or cut off, and little differences are those of the asking.
    async fn see_clock(&self, case: &Case<'_>, until: Instant) -> Result<bool, BackendError> {
        let number = case.host.strip_prefix("sp").and_then(|number| number.parse::<usize>().ok());
        let Some(authority) = number.and_then(|number| self.authorities.get(number - 1)) else { return Ok(false) };
        let tolerated_us = case.fault.by.map_or(0, |by| by.0.unsigned_abs() / 2).min(CLOCK_ERROR_US);
        if tolerated_us < CLOCK_ERROR_US_MIN {
            return Ok(false);
        }
        let mut wrong_since = None;
        loop {
            let due_us = self.clocks.ahead_us(case.host).unwrap_or(0);
            match self.shown_ahead_us(authority).await {
                Some(shown_us) if shown_us.abs_diff(due_us) <= tolerated_us => return Ok(true),
                Some(shown_us) if wrong_since.get_or_insert_with(Instant::now).elapsed() >= CLOCK_WITHIN => {
                    return Err(case.no_effect(format!("its clock is {shown_us} us ahead, not {due_us} us")));
                }
                Some(_) => {}
                None => wrong_since = None,
            }
            if wrong_since.is_none() && Instant::now() >= until {
                return Ok(false);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// How far a storage point's clock is ahead of this machine's, by its own word.
    async fn shown_ahead_us(&self, authority: &str) -> Option<i64> {
        let asked = self.publisher.client().get(authority, "/v1/status");
        let before = Instant::now();
        let answer = tokio::time::timeout(CLOCK_WITHIN, asked).await.ok()?.ok()?;
        let status: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let now_us = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_micros() as i64;
        // It was read while the question was on its way, half of the time ago as far as anyone knows.
        Some(status["clock_us"].as_i64()? - now_us + before.elapsed().as_micros() as i64 / 2)
    }

    // ---- What is said of it ---------------------------------------------------------------------------------------

    async fn on_hosts<T: Send + 'static>(
        &self,
        host: &str,
        act: impl FnOnce(&mut Hosts, &str) -> Result<T, ProcessError> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (hosts, host) = (Arc::clone(&self.hosts), host.to_owned());
        Ok(blocking(move || act(&mut lock(&hosts), &host)).await?)
    }

    fn note(&self, case: &Case<'_>, kind: Kind) {
        let name = format!("{} {}", case.fault.kind, case.host);
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        let word = match kind {
            Kind::Fault => {
                active.insert(name.clone());
                "fault:"
            }
            _ => {
                active.remove(&name);
                "undone:"
            }
        };
        drop(active);
        self.progress.note(&format!("{word} {name}"));
        let about = Template { cause: Some(case.host), outcome: Some(case.fault.kind.name()), ..Template::default() };
        self.recorder.note(&self.testbed, 0, kind, about);
    }

    fn harmless(&self, case: &Case<'_>) {
        self.tell(format!("{} of {} met nothing that it could harm", case.fault.kind, case.host));
    }

    fn tell(&self, what: String) {
        self.progress.note(&what);
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}

fn periods(fault: &Fault, up: Duration, down: Duration) -> (Duration, Duration) {
    (fault.up.map_or(up, |Span(up)| up), fault.down.map_or(down, |Span(down)| down))
}

pub(super) fn lock(hosts: &Mutex<Hosts>) -> MutexGuard<'_, Hosts> {
    hosts.lock().expect("nothing panics while it holds the hosts")
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("work on the hosts does not panic")
}
