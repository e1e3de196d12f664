//! A simulated pull-through cache, as nginx or `acms cache` would be: keeps answers by URL for as long as they allow,
//! asks upstream once for all who ask for the same, and may be told to misbehave.

use super::{
    client::{Client, Ended},
    connection::{ConnectionId, Segment},
    directory::ContentPool,
    host::{HostId, Input},
    http::Answer,
    reads::max_age,
    shared::{Ending, Shared},
};
use crate::{
    faults::FaultKind,
    trace::{Kind, Template, Text},
    workload::Random,
};
use acms_engine::protocol::{Duration, Hash, receiver::Failure};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

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
/// Snapshots remembered for a rollback, and the time between them.
const PAST_COUNT: usize = 32;
const PAST_GAP_NS: u64 = 2_000_000_000;

/// A way to misbehave, while a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Misbehaviour {
    /// How: one of the faults of caches.
    pub(super) kind: FaultKind,
    /// Answers that it concerns, of a million.
    pub(super) part_ppm: u32,
    /// The fault's number.
    pub(super) fault: usize,
}

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
    /// Snapshots of earlier times.
    past: VecDeque<(u64, Answer)>,
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

fn is_object(target: &str) -> bool {
    target.starts_with("/v1/objects/")
}

fn is_snapshot(target: &str) -> bool {
    target == "/v1/snapshot"
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
            past: VecDeque::new(),
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
        if let Some(fault) = self.misbehaves(FaultKind::CacheRollback) {
            let past = self.past.front().filter(|_| is_snapshot(target)).map(|(_, answer)| answer.clone());
            if past.is_some() || !is_fresh {
                shared.bitten.push(fault);
                return past.or_else(|| self.use_kept(target));
            }
        }
        if !is_fresh {
            let fault = self.misbehaves(FaultKind::CacheStale)?;
            shared.bitten.push(fault);
        }
        self.use_kept(target)
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
            let gap = self.past.back().is_none_or(|(at_ns, _)| shared.now_ns - at_ns >= PAST_GAP_NS);
            if is_snapshot(target) && gap {
                self.past.push_back((shared.now_ns, answer.clone()));
                if self.past.len() > PAST_COUNT {
                    self.past.pop_front();
                }
            }
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

    // ---- Misbehaviour ---------------------------------------------------------------------------------------------

    /// Whether this reply is one of those that a fault hits; the fault's number.
    fn misbehaves(&mut self, kind: FaultKind) -> Option<usize> {
        let CacheHost { misbehaviours, random, .. } = self;
        let mut hits = misbehaviours.iter().filter(|misbehaviour| misbehaviour.kind == kind);
        hits.find(|hit| random.below(1_000_000) < u64::from(hit.part_ppm)).map(|hit| hit.fault)
    }

    /// A body with one byte changed. Nothing but the hash tells a damaged object, or a damaged content that comes with
    /// the changes; the rest has no hash until snapshots are signed, so that only damage to its form can be seen.
    fn damaged(&mut self, body: &Bytes, at: usize, is_object: bool) -> Bytes {
        let mut bytes = body.to_vec();
        let inline = if is_object { None } else { inline_content(body, &mut self.random) };
        match inline.filter(|_| self.random.below(4) > 0) {
            Some(text) => {
                let at = text.start + self.random.below(text.len() as u64) as usize;
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            }
            None => bytes[at] = if is_object { bytes[at] ^ 0x10 } else { 0xff },
        }
        bytes.into()
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
            let at = self.random.below(answer.body.len() as u64) as usize;
            if let Some(fault) = self.misbehaves(FaultKind::CacheCorrupt) {
                shared.bitten.push(fault);
                answer.body = self.damaged(&answer.body, at, is_object(target));
            }
            if let Some(fault) = self.misbehaves(FaultKind::CacheTruncate) {
                shared.bitten.push(fault);
                answer.body = answer.body.slice(..at);
                // With or without a length in the head that says so.
                answer.is_cut = self.random.below(2) == 0;
            }
        }
        shared.send(connection, me, Segment::Answer(answer));
    }
}

/// Where the base64 of one of the contents stands that come with the changes in `body`, if there are any.
fn inline_content(body: &[u8], random: &mut Random) -> Option<Range<usize>> {
    const KEY: &[u8] = b"\"inline\":\"";
    let begins = body.windows(KEY.len()).enumerate().filter(|(_, bytes)| *bytes == KEY).map(|(at, _)| at + KEY.len());
    let texts = begins.filter_map(|at| Some(at..at + body[at..].iter().position(|byte| *byte == b'"')?));
    // The last characters may hold bits that no byte gets: another one there is no other content, or none at all.
    let mut texts: Vec<Range<usize>> = texts.map(|text| text.start..text.end.saturating_sub(4)).collect();
    texts.retain(|text| !text.is_empty());
    let chosen = random.below(texts.len() as u64) as usize;
    (!texts.is_empty()).then(|| texts.swap_remove(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_that_come_with_changes_are_found_without_their_last_characters() {
        let body = br#"{"entries":[{"path":"a","inline":"QUJDREVGRw=="},{"path":"b","inline":"QQ=="}],"inline":""}"#;
        let mut random = Random::new(1, "test");
        for _ in 0..20 {
            let found = inline_content(body, &mut random).unwrap();
            assert_eq!(&body[found], b"QUJDREVG");
        }
        assert_eq!(inline_content(b"{}", &mut random), None);
    }

    #[test]
    fn most_damage_to_changes_is_another_content_in_a_sound_form() {
        let random = Random::new(1, "test");
        let mut cache = CacheHost::new("cache1", Vec::new(), 0, ContentPool::default(), random);
        let body = Bytes::from_static(br#"{"entries":[{"path":"a","inline":"QUJDREVGRw=="}]}"#);
        let damaged: Vec<Bytes> = (0..200).map(|at| cache.damaged(&body, at % body.len(), false)).collect();
        assert!(damaged.iter().all(|other| *other != body));
        let sound = damaged.iter().filter_map(|body| serde_json::from_slice::<serde_json::Value>(body).ok());
        let other = sound.filter(|json| json["entries"][0]["inline"].as_str().is_some_and(|text| text.len() == 12));
        assert!((120..180).contains(&other.count()));
    }
}
