//! A simulated pull-through cache, as nginx or `acms cache` would be: keeps answers by URL for as long as they allow,
//! asks upstream once for all who ask for the same, and may be told to misbehave.

use super::{
    client::{Client, Ended},
    connection::{ConnectionId, Segment},
    directory::ContentPool,
    host::{HostId, Input},
    http::Answer,
    shared::{Ending, Shared},
};
use crate::{
    faults::replies::{Misbehaviour, Past, Spoilt, is_object, is_snapshot, max_age, old_reply, spoil},
    trace::{Kind, Template, Text},
    workload::Random,
};
use acms_engine::protocol::{Duration, Hash, receiver::Failure};
use std::collections::BTreeMap;

/// Bytes of answers that are kept.
const KEPT_LEN_MAX: u64 = 128 << 20;
/// What a kept answer costs beside its body.
const KEPT_COST: u64 = 256;
/// A changes request is given up after this long, by caches next to storage points; each further tier waits longer, so
/// that who asks first gives up last. Receivers wait 35 s.
const CHANGES_TIMEOUT: Duration = Duration::from_secs(28);
const TIER_PATIENCE: Duration = Duration::from_secs(2);
const OBJECT_TIMEOUT: Duration = Duration::from_secs(8);
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3);

/// A kept answer.
#[derive(Debug)]
struct Kept {
    answer: Answer,
    fresh_until_ns: u64,
    used: u64,
}

/// A cache's machine: what it keeps, and its process if that runs.
#[derive(Debug)]
pub(super) struct CacheHost {
    upstream: Vec<HostId>,
    /// In the order of preference, which differs from cache to cache.
    names: Vec<String>,
    /// 0 next to the storage points.
    tier: u32,
    pool: ContentPool,
    random: Random,
    pub(super) misbehaviours: Vec<Misbehaviour>,
    kept: BTreeMap<Text, Kept>,
    kept_len: u64,
    by_use: BTreeMap<u64, Text>,
    uses: u64,
    past: Past<Answer>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    client: Client<Asked>,
    /// Who waits for each URL that is asked for.
    waiting: BTreeMap<Text, Vec<ConnectionId>>,
    /// Place of the current upstream.
    at: usize,
}

#[derive(Debug)]
struct Asked {
    target: Text,
    at: usize,
    tries: usize,
}

impl CacheHost {
    /// A machine that keeps nothing yet and has no process. `upstream`: who is behind it, with their names.
    pub(super) fn new(
        name: &str,
        upstream: Vec<(HostId, String)>,
        tier: u32,
        pool: ContentPool,
        random: Random,
    ) -> CacheHost {
        let mut upstream = upstream;
        upstream.sort_by_cached_key(|(_, source)| Hash::of(format!("{name}\0{source}").as_bytes()));
        let (upstream, names) = upstream.into_iter().unzip();
        CacheHost {
            upstream,
            names,
            tier,
            pool,
            random,
            misbehaviours: Vec::new(),
            kept: BTreeMap::new(),
            kept_len: 0,
            by_use: BTreeMap::new(),
            uses: 0,
            past: Past::new(),
            running: None,
        }
    }

    /// The process is gone. Objects stay on the disk.
    pub(super) fn end(&mut self) {
        self.running = None;
        let gone: Vec<Text> = self.kept.keys().filter(|target| !is_object(target)).cloned().collect();
        gone.iter().for_each(|target| self.forget(target));
    }

    /// Takes an input and does all that follows from it now.
    pub(super) fn handle(&mut self, shared: &mut Shared<'_>, me: HostId, input: Input) {
        match input {
            Input::Boot => self.boot(shared, me),
            Input::Stop => {
                shared.say(me, Kind::Stopping, Template::default());
                shared.ended.push((me, Ending::Stopped));
            }
            Input::Timer => {
                let Some(running) = &mut self.running else { return };
                for ended in running.client.expire(shared, me) {
                    self.ended(shared, me, Some(ended));
                }
            }
            Input::Connected { connection } => {
                if let Some(running) = &mut self.running {
                    running.client.connected(shared, me, connection);
                }
            }
            Input::Closed { connection } => {
                let Some(running) = &mut self.running else { return };
                let ended = running.client.closed(shared, me, connection);
                self.ended(shared, me, ended);
            }
            Input::Segment { connection, segment: Segment::Answer(answer) } => {
                let Some(running) = &mut self.running else { return };
                let ended = running.client.answered(connection, answer);
                self.ended(shared, me, ended);
            }
            Input::Segment { connection, segment: Segment::Request(request) } => {
                self.request(shared, me, connection, request.target);
            }
            _ => {}
        }
        let deadline_ns = self.running.as_ref().and_then(|running| running.client.next_deadline_ns());
        shared.set_timer(me, deadline_ns.map(|at_ns| shared.instant_of(at_ns)));
    }

    fn boot(&mut self, shared: &mut Shared<'_>, me: HostId) {
        self.running = Some(Running { client: Client::new(), waiting: BTreeMap::new(), at: 0 });
        shared.host_mut(me).listens_http = true;
        shared.say(me, Kind::Ready, Template::default());
        let undone = std::mem::take(&mut shared.host_mut(me).undone_when_ready);
        shared.undone.extend(undone);
    }

    /// Somebody asks.
    fn request(&mut self, shared: &mut Shared<'_>, me: HostId, connection: ConnectionId, target: Text) {
        if let Some(answer) = self.kept_answer(shared, &target) {
            return self.send(shared, me, connection, &target, answer);
        }
        let Some(running) = &mut self.running else { return };
        if let Some(waiting) = running.waiting.get_mut(&target) {
            return waiting.push(connection);
        }
        running.waiting.insert(Text::clone(&target), vec![connection]);
        let at = running.at;
        self.ask(shared, me, Asked { target, at, tries: 0 });
    }

    /// What may be answered without asking.
    fn kept_answer(&mut self, shared: &mut Shared<'_>, target: &Text) -> Option<Answer> {
        let is_fresh = self.kept.get(target).map(|kept| shared.now_ns < kept.fresh_until_ns)?;
        if let Some(old) = old_reply(target, is_fresh, &self.past, &self.misbehaviours, &mut self.random) {
            shared.bitten.push(old.fault);
            return old.past.or_else(|| self.use_kept(target));
        }
        if is_fresh { self.use_kept(target) } else { None }
    }

    fn use_kept(&mut self, target: &Text) -> Option<Answer> {
        let kept = self.kept.get_mut(target)?;
        self.uses += 1;
        self.by_use.remove(&kept.used);
        self.by_use.insert(self.uses, Text::clone(target));
        kept.used = self.uses;
        Some(kept.answer.clone())
    }

    fn ask(&mut self, shared: &mut Shared<'_>, me: HostId, asked: Asked) {
        let Some(running) = &mut self.running else { return };
        let timeout = match &*asked.target {
            target if is_object(target) => OBJECT_TIMEOUT,
            target if is_snapshot(target) => SNAPSHOT_TIMEOUT,
            _ => CHANGES_TIMEOUT + TIER_PATIENCE * self.tier,
        };
        let to = self.upstream[asked.at];
        running.client.ask(shared, me, to, Text::clone(&asked.target), timeout, asked);
    }

    /// What was asked upstream has its answer, or gets none.
    fn ended(&mut self, shared: &mut Shared<'_>, me: HostId, ended: Option<Ended<Asked>>) {
        let Some((asked, result)) = ended else { return };
        let result = match result {
            Ok(answer) if answer.status < 500 => Ok(answer),
            Ok(answer) => Err(Failure::Broken(format!("it answered {}", answer.status))),
            Err(failure) => Err(failure),
        };
        match result {
            Ok(answer) => self.answered(shared, me, &asked.target, answer),
            Err(failure) => self.failed(shared, me, asked, &failure),
        }
    }

    fn answered(&mut self, shared: &mut Shared<'_>, me: HostId, target: &Text, mut answer: Answer) {
        if is_object(target) {
            answer.body = self.pool.share(&answer.body);
        }
        if answer.status == 200
            && let Some(age) = max_age(answer.control)
        {
            let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
            self.keep(target, answer.clone(), shared.now_ns.saturating_add(age_ns));
            self.past.note(shared.now_ns, target, &answer);
        }
        let waiting = self.running.as_mut().and_then(|running| running.waiting.remove(target));
        for connection in waiting.into_iter().flatten() {
            self.send(shared, me, connection, target, answer.clone());
        }
    }

    /// Asks the next upstream, or tells that none answers.
    fn failed(&mut self, shared: &mut Shared<'_>, me: HostId, asked: Asked, failure: &Failure) {
        let Some(running) = &mut self.running else { return };
        if running.at == asked.at {
            running.at = (running.at + 1) % self.upstream.len();
            let cause = format!("leaving {}: {failure}", self.names[asked.at]);
            shared.say(me, Kind::Error, Template { cause: Some(&cause), ..Template::default() });
        }
        if asked.tries + 1 < self.upstream.len() {
            let asked = Asked { at: running.at, tries: asked.tries + 1, ..asked };
            return self.ask(shared, me, asked);
        }
        let waiting = running.waiting.remove(&asked.target);
        for connection in waiting.into_iter().flatten() {
            shared.send(connection, me, Segment::Answer(Answer::refusal(502, "nobody behind this cache answers")));
        }
    }

    fn keep(&mut self, target: &Text, answer: Answer, fresh_until_ns: u64) {
        self.forget(target);
        self.uses += 1;
        self.kept_len += answer.body.len() as u64 + KEPT_COST;
        self.by_use.insert(self.uses, Text::clone(target));
        self.kept.insert(Text::clone(target), Kept { answer, fresh_until_ns, used: self.uses });
        while self.kept_len > KEPT_LEN_MAX
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = Text::clone(oldest);
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, target: &Text) {
        if let Some(kept) = self.kept.remove(target) {
            self.by_use.remove(&kept.used);
            self.kept_len -= kept.answer.body.len() as u64 + KEPT_COST;
        }
    }

    fn send(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        connection: ConnectionId,
        target: &str,
        mut answer: Answer,
    ) {
        if !self.misbehaviours.is_empty() && answer.status == 200 && !answer.body.is_empty() {
            let Spoilt { body, is_cut, faults } =
                spoil(&answer.body, is_object(target), &self.misbehaviours, &mut self.random);
            shared.bitten.extend(faults);
            (answer.body, answer.is_cut) = (body, is_cut || answer.is_cut);
        }
        shared.send(connection, me, Segment::Answer(answer));
    }
}
