//! What a cache answers: what it keeps at once; anything else once it has come from upstream, asked for once for all who
//! want it.

use super::{
    HTTP, UPSTREAM,
    answers::{Answer, Answers},
    arrivals::{Arrivals, Asked, ExchangeId},
    compare::Comparer,
    fetch::{CacheResult, Fetch, Incoming, Key, Kind, Passed, Waiter},
    listener::Certificate,
    sources::Sources,
    status::{self, Counters},
    store::{Found, ObjectStore},
};
use crate::{
    protocol::{Duration, Instant, Now, Prefix},
    runtime::{
        http::{
            answer::{HttpDate, Outbox},
            connection::{ConnectionId, Role},
            head::{Head, Method},
            object::{self, Body, ObjectRead},
            service::{Client, HttpCounters, IncomingBody, Next, Progress, Refusal, Refused, Service},
            target::{self, BadTarget, Resource},
        },
        upstream::{Io, Upstream, UpstreamRequest},
    },
    store::is_out_of_descriptors,
};
use rustls::ServerConfig;
use std::{collections::BTreeMap, io, sync::Arc};

/// Different things that may be fetched at once.
const FETCHES_MAX: usize = 1024;
/// Caches that a request may have passed before this one.
const PASSED_MAX: usize = 8;
/// Bytes of their names: far less than what the head of a request may have.
const PASSED_LEN_MAX: usize = 1 << 10;
/// What comes of a snapshot, and of changes.
const SNAPSHOT_LEN_MAX: u64 = 64 << 10;
const CHANGES_LEN_MAX: u64 = 64 << 20;
/// Greatest object that is passed on.
const OBJECT_LEN_MAX: u64 = 1 << 30;
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(3);
const OBJECT_TIMEOUT: Duration = Duration::from_secs(8);
/// A changes request, which a storage point holds for 25 s, is given up after this long by caches next to storage points;
/// each further tier waits longer, so that who asks first gives up last. Receivers wait for 35 s.
const CHANGES_TIMEOUT: Duration = Duration::from_secs(28);
const TIER_PATIENCE: Duration = Duration::from_secs(2);
const CHANGES_TIMEOUT_MAX: Duration = Duration::from_secs(34);
/// Slowest rate at which a large object may come.
const RATE_MIN_BYTES_PER_S: u64 = 16 << 10;
/// What this one is called in the header Via.
pub(super) const VIA: &str = "1.1 acms-cache";

/// All that a cache has beside its connections to clients.
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) store: ObjectStore,
    pub(super) answers: Answers,
    pub(super) fetches: BTreeMap<Key, Fetch>,
    pub(super) exchanges: BTreeMap<ExchangeId, Key>,
    /// What each waiting connection waits for.
    pub(super) waiting: BTreeMap<ConnectionId, Key>,
    pub(super) io: Io,
    pub(super) upstream: Upstream<Arrivals>,
    pub(super) sources: Sources,
    pub(super) comparer: Comparer,
    /// What clients are shown; nothing: they are spoken to in plain text.
    pub(super) certificate: Option<Certificate>,
    /// This cache in the header CDN-Loop: no other process has the same.
    pub(super) name: String,
    next_exchange: u64,
    /// Caches between this one and the storage points, as far as answers have said.
    pub(super) tiers_above: u32,
    pub(super) now: Now,
    pub(super) started: Now,
    date: HttpDate,
    pub(super) http: HttpCounters,
    pub(super) counters: Counters,
    pub(super) is_stopping: bool,
}

impl Cache {
    pub(super) fn new(
        store: ObjectStore,
        io: Io,
        sources: Sources,
        comparer: Comparer,
        certificate: Option<Certificate>,
        name: String,
        now: Now,
    ) -> Cache {
        let mut cache = Cache {
            store,
            answers: Answers::default(),
            fetches: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            waiting: BTreeMap::new(),
            io,
            upstream: Upstream::new(UPSTREAM, HTTP.connections - UPSTREAM, Arrivals::default()),
            sources,
            comparer,
            certificate,
            name,
            next_exchange: 0,
            tiers_above: 0,
            now,
            started: now,
            date: HttpDate::default(),
            http: HttpCounters::default(),
            counters: Counters::default(),
            is_stopping: false,
        };
        cache.set_now(now);
        cache
    }

    /// Bytes of answers that are being gathered in memory.
    pub(super) fn gathered(&self) -> usize {
        let lens = self.fetches.values().map(|fetch| match &fetch.incoming {
            Incoming::Memory(_, body) => body.len(),
            _ => 0,
        });
        lens.sum()
    }

    /// Another copy's name, as receivers draw it.
    pub(super) fn draw_again(&mut self) -> String {
        self.sources.draw_copy().to_string()
    }

    pub(super) fn set_now(&mut self, now: Now) {
        self.now = now;
        self.date.update(now.wall.0 / 1_000_000);
    }

    // ---- What is kept ---------------------------------------------------------------------------------------------

    /// Answers from what is kept, or waits for upstream.
    fn answer_text(
        &mut self,
        id: ConnectionId,
        key: Key,
        passed: Passed,
        out: &mut Outbox<'_>,
    ) -> Result<Next<NoBody>, Refused> {
        let kind = key.kind();
        if let Some(answer) = self.answers.find(&key.target(None), self.now.instant) {
            self.write_text(&answer, kind, CacheResult::Hit, out);
            return Ok(Next::Answered);
        }
        self.wait_for(id, key, None, passed, None)?;
        // Changes may be long in coming; without the client nobody wants them.
        Ok(if kind == Kind::Changes { Next::Hold } else { Next::Work })
    }

    pub(super) fn write_text(&mut self, answer: &Answer, kind: Kind, result: CacheResult, out: &mut Outbox<'_>) {
        let len = if out.head_only { 0 } else { answer.body.len() as u64 };
        self.counters.count(kind, result, len);
        answer.write(self.now.instant, out);
    }

    fn answer_object(
        &mut self,
        id: ConnectionId,
        read: ObjectRead,
        again: Option<String>,
        passed: Passed,
        out: &mut Outbox<'_>,
    ) -> Result<Next<NoBody>, Refused> {
        if read.is_unchanged() {
            // Its name says all; nobody has to be asked.
            self.counters.count(Kind::Object, CacheResult::Hit, 0);
            read.begin(0, out);
            return Ok(Next::Answered);
        }
        let hash = read.hash;
        if again.is_some() {
            self.store.doubt(&hash, self.now.instant);
        }
        let found = self.store.find(&hash, self.now.instant);
        if let Found::Unreadable(error) = &found
            && let Some(refused) = no_file_left(error)
        {
            return Err(refused);
        }
        let body = match found {
            Found::Small(bytes) => Body::Memory(bytes),
            Found::Large(file, len) => Body::File(file, len),
            Found::Uncompared(path) => {
                let fetch = self.fetches.entry(Key::Object(hash)).or_insert_with(|| {
                    self.comparer.give(hash, path);
                    Fetch::new(passed.clone(), again)
                });
                let (result, read) = (CacheResult::Hit, Some(read));
                fetch.waiters.push(Waiter { id, result, passed, read, streamed: None });
                self.waiting.insert(id, Key::Object(hash));
                return Ok(Next::Work);
            }
            Found::Unreadable(_) | Found::Missing => return self.join_object(id, read, again, passed, out),
        };
        self.write_object(&read, body, CacheResult::Hit, out);
        Ok(Next::Answered)
    }

    pub(super) fn write_object(&mut self, read: &ObjectRead, body: Body, result: CacheResult, out: &mut Outbox<'_>) {
        let part = read.begin(body.len(), out);
        let len = part.filter(|_| !out.head_only).map_or(0, |(start, end)| end - start);
        self.counters.count(Kind::Object, result, len);
        if let Some(part) = part {
            body.write(Some(part), out);
        }
    }

    /// Waits for an object, and takes what has come of it already.
    fn join_object(
        &mut self,
        id: ConnectionId,
        read: ObjectRead,
        again: Option<String>,
        passed: Passed,
        out: &mut Outbox<'_>,
    ) -> Result<Next<NoBody>, Refused> {
        let key = Key::Object(read.hash);
        self.wait_for(id, key.clone(), Some(read), passed, again)?;
        let Some(fetch) = self.fetches.get_mut(&key) else { return Ok(Next::Work) };
        let (Incoming::Stream(stream), Some(waiter)) = (&fetch.incoming, fetch.waiters.last_mut()) else {
            return Ok(Next::Work);
        };
        if waiter.stream(stream, &mut self.counters, out) {
            fetch.waiters.pop();
            self.waiting.remove(&id);
            return Ok(Next::Answered);
        }
        Ok(Next::Work)
    }

    // ---- What is not ----------------------------------------------------------------------------------------------

    /// Has `id` wait for what `key` names, which is asked for unless it is already.
    fn wait_for(
        &mut self,
        id: ConnectionId,
        key: Key,
        read: Option<ObjectRead>,
        passed: Passed,
        again: Option<String>,
    ) -> Result<(), Refused> {
        if let Some(fetch) = self.fetches.get_mut(&key) {
            fetch.waiters.push(Waiter { id, result: CacheResult::Collapsed, passed, read, streamed: None });
        } else {
            if self.fetches.len() >= FETCHES_MAX {
                let reason = "this cache waits for too many different things";
                return Err(Refused::new(503, reason, "try again after a while, or ask another source"));
            }
            let mut fetch = Fetch::new(passed.clone(), again);
            fetch.waiters.push(Waiter { id, result: CacheResult::Miss, passed, read, streamed: None });
            if !self.ask(&key, &mut fetch) {
                return Err(nobody_answers(502, "all were asked in vain a moment ago"));
            }
            self.fetches.insert(key.clone(), fetch);
        }
        self.waiting.insert(id, key);
        Ok(())
    }

    /// Asks the next source. Whether there is one.
    pub(super) fn ask(&mut self, key: &Key, fetch: &mut Fetch) -> bool {
        let now = self.now.instant;
        let Some(source) = self.sources.choose(now, &fetch.tried) else { return false };
        let id = ExchangeId(self.next_exchange);
        self.next_exchange += 1;
        fetch.exchange = Some((id, source));
        self.exchanges.insert(id, key.clone());
        let (body_len_max, timeout, timeout_in_all) = match key.kind() {
            Kind::Snapshot => (SNAPSHOT_LEN_MAX, SNAPSHOT_TIMEOUT, SNAPSHOT_TIMEOUT),
            Kind::Changes => {
                let timeout = (CHANGES_TIMEOUT + TIER_PATIENCE * self.tiers_above).min(CHANGES_TIMEOUT_MAX);
                (CHANGES_LEN_MAX, timeout, CHANGES_TIMEOUT_MAX)
            }
            Kind::Object => {
                let in_all = OBJECT_TIMEOUT * 4 + Duration::from_secs(OBJECT_LEN_MAX / RATE_MIN_BYTES_PER_S);
                (OBJECT_LEN_MAX, OBJECT_TIMEOUT, in_all)
            }
        };
        let part = match (&fetch.incoming, key) {
            (Incoming::Stream(stream), Key::Object(hash)) => {
                Some((format!("bytes={}-", stream.temporary.len()), object::etag_of(*hash)))
            }
            _ => None,
        };
        let names = match &fetch.passed {
            Some(passed) => format!("{passed}, {}", self.name),
            None => self.name.clone(),
        };
        let mut headers =
            vec![("User-Agent", concat!("acms-cache/", env!("CARGO_PKG_VERSION"))), ("Via", VIA), ("CDN-Loop", &names)];
        if let Some((range, etag)) = &part {
            headers.extend([("Range", range.as_str()), ("If-Range", etag)]);
        }
        self.counters.upstream_requests(key.kind());
        let (target, headers) = (&*key.target(fetch.again.as_deref()), &*headers);
        let request = UpstreamRequest { source, target, headers, body_len_max, timeout, timeout_in_all };
        self.upstream.begin(&mut self.io, now, &request, Asked::new(id));
        true
    }

    /// Nobody wants what comes of an exchange any more.
    pub(super) fn cancel(&mut self, id: ExchangeId) {
        self.exchanges.remove(&id);
        self.upstream.cancel(|asked| asked.id == id);
    }

    /// The names in CDN-Loop, where the request may be sent on.
    fn passed(&mut self, head: &Head<'_>) -> Result<Passed, Refused> {
        let mut names: Vec<String> = Vec::new();
        for value in head.all("cdn-loop") {
            let value = String::from_utf8_lossy(value);
            names.extend(value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
        }
        // A name may have parameters.
        let is_this = |name: &String| name.split(';').next().is_some_and(|name| name.trim() == self.name);
        let passed = names.join(", ");
        if names.iter().any(is_this) || names.len() >= PASSED_MAX || passed.len() > PASSED_LEN_MAX {
            self.counters.loops_total += 1;
            let reason = "the request has come through this cache before, or through too many";
            return Err(Refused::new(508, reason, "correct the sources of the caches: none may lead back to itself"));
        }
        Ok(Some(passed.into_boxed_str()).filter(|passed| !passed.is_empty()))
    }
}

/// A refusal because upstream fails.
pub(super) fn nobody_answers(status: u16, why: &str) -> Refused {
    let reason = format!("nobody behind this cache answers: {why}");
    Refused::new(status, reason, "try again after a few seconds, or ask another source")
}

/// A refusal because this process can open no file now; then it cannot ask upstream either.
pub(super) fn no_file_left(error: &io::Error) -> Option<Refused> {
    is_out_of_descriptors(error).then(|| {
        let reason = format!("this cache cannot open the object now: {error}");
        Refused::new(503, reason, "try again after a few seconds, or ask another source")
    })
}

/// No request has a body here.
#[derive(Debug)]
pub(super) enum NoBody {}

impl IncomingBody for NoBody {
    fn is_paused(&self) -> bool {
        match *self {}
    }

    fn waits_for_client(&self) -> bool {
        match *self {}
    }
}

impl Service for Cache {
    type Body = NoBody;

    fn now(&self) -> Instant {
        self.now.instant
    }

    fn date(&self) -> &HttpDate {
        &self.date
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    fn counters(&mut self) -> &mut HttpCounters {
        &mut self.http
    }

    fn tls(&self, _: Role) -> Option<Arc<ServerConfig>> {
        self.certificate.as_ref().map(Certificate::tls)
    }

    fn handle_request(
        &mut self,
        client: &Client,
        head: &Head<'_>,
        _: &[u8],
        out: &mut Outbox<'_>,
    ) -> Result<(Next<NoBody>, usize), Refused> {
        let resource = target::resource(head.path, head.query).map_err(|bad| match bad {
            BadTarget::NotFound => Refused::new(404, "no such resource", "the resources are under /v1/"),
            BadTarget::Malformed(reason) => Refused::new(400, reason, "correct the request's target"),
        })?;
        if !matches!(head.method, Method::Get | Method::Head) {
            return Err(Refused::method("GET, HEAD"));
        }
        let id = client.id;
        let next = match resource {
            Resource::Snapshot => {
                let passed = self.passed(head)?;
                self.answer_text(id, Key::Snapshot, passed, out)?
            }
            Resource::Changes(cursor, prefix) => {
                let passed = self.passed(head)?;
                let slash = if prefix == Prefix::default() { "" } else { "/" };
                let target = format!("/v1/changes/{cursor}{slash}{prefix}");
                self.answer_text(id, Key::Changes(target), passed, out)?
            }
            Resource::Object(hash) => {
                let passed = self.passed(head)?;
                let again = head.query.and_then(again_of);
                self.answer_object(id, ObjectRead::new(hash, head)?, again, passed, out)?
            }
            other => {
                status::answer(self, &other, out)?;
                Next::Answered
            }
        };
        Ok((next, 0))
    }

    fn handle_body(&mut self, _: ConnectionId, body: &mut NoBody, _: &[u8]) -> Result<(usize, Progress), Refusal> {
        match *body {}
    }

    fn handle_complete_body(&mut self, _: ConnectionId, body: NoBody) -> Next<NoBody> {
        match body {}
    }

    fn handle_broken_body(&mut self, body: NoBody) {
        match body {}
    }

    fn handle_closed(&mut self, id: ConnectionId) {
        let Some(key) = self.waiting.remove(&id) else { return };
        let Some(fetch) = self.fetches.get_mut(&key) else { return };
        fetch.waiters.retain(|waiter| waiter.id != id);
        // Anything else will be wanted again; changes that are held for nobody keep others away.
        if fetch.waiters.is_empty()
            && matches!(key, Key::Changes(_))
            && let Some(fetch) = self.fetches.remove(&key)
            && let Some((exchange, _)) = fetch.exchange
        {
            self.cancel(exchange);
        }
    }
}

/// Which copy a doubt asks for.
fn again_of(query: &str) -> Option<String> {
    let again = query.split('&').find_map(|pair| pair.strip_prefix("again="))?;
    // It becomes part of a request: digits, and not many.
    Some(again.chars().filter(char::is_ascii_digit).take(20).collect()).filter(|again: &String| !again.is_empty())
}
