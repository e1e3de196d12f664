//! What comes from upstream: kept if it is right, and given to all who wait for it; another source is asked where one has
//! failed.

use super::{
    Loop,
    answers::Answer,
    fetch::{Fetch, Incoming, Key, Kind, Stream, Waiter},
    service::{Cache, no_file_left, nobody_answers},
    store::{Found, SMALL_LEN_MAX},
};
use crate::{
    client::response::Head,
    protocol::{Duration, Hash, Instant, api::OutcomeAnswer},
    runtime::{
        http::{
            answer::Outbox,
            connection::ConnectionId,
            object::Body,
            server::Written,
            service::{Refused, Service as _},
        },
        upstream::{Sink, UpstreamError},
    },
};
use std::{io, mem};

/// Most bytes of answers that are gathered in memory at once.
const GATHERED_LEN_MAX: usize = 256 << 20;
/// An answer up to this is gathered in any case.
const SMALL_ANSWER_LEN_MAX: usize = 1 << 20;

/// Names a request; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ExchangeId(pub(super) u64);

/// What comes of a request: a head, then parts of the body, then the end; or a failure at any time.
#[derive(Debug)]
enum Arrival {
    /// Status and headers.
    Head(Head),
    /// A part of the body.
    Body(Vec<u8>),
    /// The answer is complete.
    End,
    /// There will be no more.
    Failed(UpstreamError),
}

/// What has come and has not been dealt with; what is of no use any more may be among it.
#[derive(Default, Debug)]
pub(super) struct Arrivals(Vec<(ExchangeId, Arrival)>);

/// A request that awaits its answer.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: ExchangeId,
    is_head_told: bool,
}

impl Asked {
    pub(super) fn new(id: ExchangeId) -> Asked {
        Asked { id, is_head_told: false }
    }
}

impl Sink for Arrivals {
    const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    type Incoming = Asked;

    fn take(&mut self, asked: &mut Asked, head: &Head, part: Vec<u8>) -> Result<(), UpstreamError> {
        if !mem::replace(&mut asked.is_head_told, true) {
            self.0.push((asked.id, Arrival::Head(head.clone())));
        }
        if !part.is_empty() {
            self.0.push((asked.id, Arrival::Body(part)));
        }
        Ok(())
    }

    fn complete(&mut self, asked: Asked, _: u16) {
        self.0.push((asked.id, Arrival::End));
    }

    fn fail(&mut self, _: Instant, asked: Asked, error: UpstreamError) {
        self.0.push((asked.id, Arrival::Failed(error)));
    }
}

/// What a source answers to the names of caches in a request: they are too long, or there are too many, or its own.
const PASSED_REFUSED: [u16; 2] = [431, 508];

/// Why something cannot be fetched any further.
enum Problem {
    /// It is the source's.
    Source(UpstreamError),
    /// It is this cache's.
    Disk(io::Error),
    /// It is the request's: the source answers this to the caches that it came through.
    Passed(u16),
}

fn broken(problem: impl Into<String>) -> Problem {
    Problem::Source(UpstreamError::Broken(problem.into()))
}

impl Loop {
    /// Takes what has come from upstream, and what was compared.
    pub(super) fn take_arrivals(&mut self) {
        loop {
            let arrivals = mem::take(&mut self.cache.upstream.sink.0);
            if arrivals.is_empty() {
                break;
            }
            for (id, arrival) in arrivals {
                self.handle_arrival(id, arrival);
            }
        }
        while let Some((hash, is_right)) = self.cache.comparer.take() {
            self.handle_compared(hash, is_right);
        }
    }

    fn handle_arrival(&mut self, id: ExchangeId, arrival: Arrival) {
        let Some(key) = self.cache.exchanges.get(&id).cloned() else { return };
        let problem = match arrival {
            Arrival::Head(head) => self.handle_head(&key, head).err(),
            Arrival::Body(bytes) => self.handle_body(&key, &bytes).err(),
            Arrival::End => {
                self.cache.exchanges.remove(&id);
                return self.handle_end(key);
            }
            Arrival::Failed(error) => {
                self.cache.exchanges.remove(&id);
                return self.handle_failure(key, &error);
            }
        };
        let Some(problem) = problem else { return };
        self.cache.cancel(id);
        match problem {
            Problem::Source(error) => self.handle_failure(key, &error),
            Problem::Disk(error) => self.handle_full_disk(&key, &error),
            Problem::Passed(status) => self.handle_refused_names(key, status),
        }
    }

    fn handle_head(&mut self, key: &Key, head: Head) -> Result<(), Problem> {
        let Some(fetch) = self.cache.fetches.get_mut(key) else { return Ok(()) };
        // Where this cache is the first, the source itself leads in a circle.
        if fetch.passed.is_some() && PASSED_REFUSED.contains(&head.status) {
            return Err(Problem::Passed(head.status));
        }
        if key.kind() != Kind::Object {
            let vias = head.headers.iter().filter(|(name, _)| name == "via");
            self.cache.tiers_above = vias.map(|(_, value)| value.split(',').count() as u32).sum();
        }
        let len = head.header("content-length").and_then(|len| len.parse::<u64>().ok());
        match (&mut fetch.incoming, head.status) {
            // It goes on where another source has broken off.
            (Incoming::Stream(stream), 206) => {
                let wanted = format!("bytes {}-{}/{}", stream.temporary.len(), stream.total - 1, stream.total);
                if head.header("content-range").map(str::trim) != Some(&wanted) {
                    return Err(broken("it goes on with another part than it was asked for"));
                }
                stream.skip = 0;
                return Ok(());
            }
            (Incoming::Stream(stream), 200) => {
                if len != Some(stream.total) {
                    return Err(broken("the object has another length than elsewhere"));
                }
                stream.skip = stream.temporary.len();
                return Ok(());
            }
            (Incoming::Stream(_), status) => return Err(broken(format!("it answers {status}"))),
            _ => {}
        }
        fetch.incoming = match len {
            Some(total) if key.kind() == Kind::Object && head.status == 200 && total > SMALL_LEN_MAX => {
                let temporary = self.cache.store.begin(total).map_err(Problem::Disk)?;
                let hasher = Box::new(blake3::Hasher::new());
                Incoming::Stream(Stream { temporary, hasher, total, skip: 0, ready: 0 })
            }
            _ => Incoming::Memory(head, Vec::new()),
        };
        self.pass_on(key);
        Ok(())
    }

    fn handle_body(&mut self, key: &Key, bytes: &[u8]) -> Result<(), Problem> {
        self.cache.counters.upstream_bytes_total += bytes.len() as u64;
        let Some(fetch) = self.cache.fetches.get_mut(key) else { return Ok(()) };
        match &mut fetch.incoming {
            Incoming::Nothing => {}
            Incoming::Memory(_, body) => {
                body.extend_from_slice(bytes);
                let is_long = body.len() > SMALL_ANSWER_LEN_MAX;
                if is_long && (key.kind() == Kind::Object || self.cache.gathered() > GATHERED_LEN_MAX) {
                    return Err(broken("it sends more than can be gathered here"));
                }
            }
            Incoming::Stream(stream) => {
                if stream.temporary.len() + bytes.len() as u64 > stream.total + stream.skip {
                    return Err(broken("more comes than was said"));
                }
                stream.append(bytes).map_err(Problem::Disk)?;
                self.pass_on(key);
            }
        }
        Ok(())
    }

    /// Sends those who wait for a large object what has come of it.
    fn pass_on(&mut self, key: &Key) {
        let Some(fetch) = self.cache.fetches.get_mut(key) else { return };
        if !matches!(fetch.incoming, Incoming::Stream(_)) {
            return;
        }
        let ids: Vec<_> = fetch.waiters.iter().map(|waiter| waiter.id).collect();
        for id in ids {
            let Loop { http, cache, .. } = self;
            http.answer(cache, id, |cache, out| {
                let Some(fetch) = cache.fetches.get_mut(key) else { return Written::Nothing };
                let Some(at) = fetch.waiters.iter().position(|waiter| waiter.id == id) else { return Written::Nothing };
                let Incoming::Stream(stream) = &fetch.incoming else { return Written::Nothing };
                if !fetch.waiters[at].stream(stream, &mut cache.counters, out) {
                    return Written::Part;
                }
                fetch.waiters.remove(at);
                cache.waiting.remove(&id);
                Written::Whole
            });
        }
    }

    // ---- The end --------------------------------------------------------------------------------------------------

    fn handle_end(&mut self, key: Key) {
        let Some(mut fetch) = self.cache.fetches.remove(&key) else { return };
        let source = fetch.exchange.take().map(|(_, source)| source);
        match (mem::replace(&mut fetch.incoming, Incoming::Nothing), &key) {
            (Incoming::Stream(stream), Key::Object(hash)) => self.end_stream(*hash, fetch, stream, source),
            (Incoming::Memory(head, body), key) if head.status == 200 => match key {
                Key::Object(hash) if Hash::of(&body) == *hash => {
                    self.answered(source);
                    self.keep_small(*hash, &body);
                    self.give_object(&Body::Memory(body.into()), fetch.waiters);
                }
                Key::Object(_) => self.wrong_hash(key.clone(), fetch, source),
                _ if serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() => {
                    self.ask_another(
                        key.clone(),
                        fetch,
                        source,
                        &UpstreamError::Broken("it sends no sound JSON".into()),
                    );
                }
                _ => {
                    self.answered(source);
                    let answer = Answer::new(&head, body.into(), self.cache.now.instant);
                    self.give_text(key, &answer, fetch.waiters);
                }
            },
            (Incoming::Memory(head, body), key) => self.refused(key.clone(), fetch, source, head.status, &body),
            _ => {}
        }
    }

    /// A source has done what it was asked for.
    fn answered(&mut self, source: Option<usize>) {
        source.into_iter().for_each(|source| self.cache.sources.succeeded(source));
    }

    fn keep_small(&mut self, hash: Hash, body: &[u8]) {
        if let Err(error) = self.cache.store.keep_small(hash, body, self.cache.now.instant) {
            self.complain_of_disk(&error);
        }
    }

    fn complain_of_disk(&mut self, error: &io::Error) {
        self.cache.counters.store_failures_total += 1;
        tracing::warn!("the disk does not take an object: {error}");
    }

    fn end_stream(&mut self, hash: Hash, mut fetch: Fetch, mut stream: Stream, source: Option<usize>) {
        let is_whole = stream.temporary.len() == stream.total;
        let is_right = is_whole && Hash(*stream.hasher.finalize().as_bytes()) == hash;
        if !is_right {
            // Those who have a part of it must not take it for the beginning of something else.
            for waiter in fetch.waiters.extract_if(.., |waiter| waiter.streamed.is_some()) {
                self.break_off(&waiter);
            }
            return self.wrong_hash(Key::Object(hash), fetch, source);
        }
        self.answered(source);
        stream.ready = stream.total;
        for mut waiter in fetch.waiters {
            self.give(waiter.id, |cache, out| {
                waiter.stream(&stream, &mut cache.counters, out);
            });
        }
        if let Err(error) = self.cache.store.keep(hash, stream.temporary, self.cache.now.instant) {
            self.complain_of_disk(&error);
        }
    }

    /// Writes the answer of one who waited; it is complete with that.
    fn give(&mut self, id: ConnectionId, write: impl FnOnce(&mut Cache, &mut Outbox<'_>)) {
        self.cache.waiting.remove(&id);
        self.http.answer(&mut self.cache, id, |cache, out| {
            write(cache, out);
            Written::Whole
        });
    }

    fn give_object(&mut self, body: &Body, waiters: Vec<Waiter>) {
        for waiter in waiters {
            let Some(read) = &waiter.read else { continue };
            self.give(waiter.id, |cache, out| cache.write_object(read, body.clone(), waiter.result, out));
        }
    }

    fn give_text(&mut self, key: &Key, answer: &Answer, waiters: Vec<Waiter>) {
        self.cache.answers.keep(&key.target(None), answer, self.cache.now.instant);
        for waiter in waiters {
            self.give(waiter.id, |cache, out| cache.write_text(answer, key.kind(), waiter.result, out));
        }
    }

    // ---- Failure --------------------------------------------------------------------------------------------------

    fn handle_failure(&mut self, key: Key, error: &UpstreamError) {
        let Some(mut fetch) = self.cache.fetches.remove(&key) else { return };
        let source = fetch.exchange.take().map(|(_, source)| source);
        if matches!(fetch.incoming, Incoming::Memory(..)) {
            fetch.incoming = Incoming::Nothing;
        }
        self.ask_another(key, fetch, source, error);
    }

    fn wrong_hash(&mut self, key: Key, mut fetch: Fetch, source: Option<usize>) {
        self.cache.counters.wrong_hashes_total += 1;
        // A copy that another cache keeps may be bad: another name of the object has it fetched from further up.
        fetch.again = Some(self.cache.draw_again());
        self.ask_another(key, fetch, source, &UpstreamError::Broken("an object of it has the wrong hash".into()));
    }

    /// An answer that is neither right nor kept.
    fn refused(&mut self, key: Key, mut fetch: Fetch, source: Option<usize>, status: u16, body: &[u8]) {
        if !(400..500).contains(&status) {
            return self.ask_another(key, fetch, source, &UpstreamError::Broken(format!("it answers {status}")));
        }
        self.answered(source);
        if status == 404 && key.kind() == Kind::Object {
            // Another one may know more.
            fetch.tried.extend(source);
            if self.ask_again(&key, &mut fetch) {
                self.cache.fetches.insert(key, fetch);
                return;
            }
            let remedy = "begin again at the snapshot, or ask another source";
            return self.refuse(fetch.waiters, &Refused::new(404, "no such object at any source", remedy));
        }
        let said: OutcomeAnswer = serde_json::from_slice(body).unwrap_or_default();
        let reason = said.reason.unwrap_or_else(|| format!("the source answers {status}"));
        self.refuse(fetch.waiters, &Refused::new(status, reason, "correct the request"));
    }

    /// A source has failed: another one is asked, if there is one.
    fn ask_another(&mut self, key: Key, mut fetch: Fetch, source: Option<usize>, error: &UpstreamError) {
        self.cache.counters.upstream_failures_total += 1;
        if let Some(source) = source {
            fetch.tried.push(source);
            if self.cache.sources.failed(source, self.cache.now.instant) {
                let cause = format!("leaving {}: {error}", self.sources[source]);
                tracing::warn!("{cause}");
                self.events.emit("error", |fields| {
                    fields.text("cause", &cause);
                });
            }
        }
        if self.ask_again(&key, &mut fetch) {
            self.cache.fetches.insert(key, fetch);
            return;
        }
        let status = if matches!(error, UpstreamError::TimedOut) { 504 } else { 502 };
        self.give_up(fetch.waiters, &nobody_answers(status, &error.to_string()));
    }

    /// A source refuses the caches that a request came through. That is no failure of the source, for anybody can name
    /// caches; and it concerns only those who came through the same: for the others the source is asked again.
    fn handle_refused_names(&mut self, key: Key, status: u16) {
        let Some(mut fetch) = self.cache.fetches.remove(&key) else { return };
        fetch.exchange = None;
        let refused: Vec<Waiter> = fetch.waiters.extract_if(.., |waiter| waiter.passed == fetch.passed).collect();
        // First whoever came through the fewest, so that long lists keep nobody else waiting.
        let next = fetch.waiters.iter().min_by_key(|waiter| waiter.passed_count());
        fetch.passed = next.and_then(|waiter| waiter.passed.clone());
        // The fetch is there again before anybody is answered, who may ask for the same at once.
        let left = if !fetch.waiters.is_empty() && self.ask_again(&key, &mut fetch) {
            self.cache.fetches.insert(key, fetch);
            Vec::new()
        } else {
            fetch.waiters
        };
        self.give_up(left, &nobody_answers(502, "all were asked in vain a moment ago"));
        let reason = "the caches that the request has come through are too many for a source, or one of them twice";
        let remedy = "correct the sources of the caches: none may lead back to itself";
        self.give_up(refused, &Refused::new(status, reason, remedy));
    }

    fn ask_again(&mut self, key: &Key, fetch: &mut Fetch) -> bool {
        !self.cache.is_stopping && self.cache.ask(key, fetch)
    }

    /// Ends what was asked for in vain: who has a part of the answer is broken off, the others are refused.
    fn give_up(&mut self, mut waiters: Vec<Waiter>, refused: &Refused) {
        for waiter in waiters.extract_if(.., |waiter| waiter.streamed.is_some()) {
            self.break_off(&waiter);
        }
        self.refuse(waiters, refused);
    }

    fn refuse(&mut self, waiters: Vec<Waiter>, refused: &Refused) {
        for waiter in waiters {
            self.cache.http.refused.count(refused.refusal.cause);
            self.give(waiter.id, |cache, out| cache.refuse(None, refused, out));
        }
    }

    /// The disk of this cache does not take a large object.
    fn handle_full_disk(&mut self, key: &Key, error: &io::Error) {
        self.complain_of_disk(error);
        let Some(fetch) = self.cache.fetches.remove(key) else { return };
        let reason = format!("the disk of this cache does not take the object: {error}");
        self.give_up(fetch.waiters, &Refused::new(503, reason, "ask another source"));
    }

    /// Ends the connection of one who has a part of an answer that will not be complete.
    fn break_off(&mut self, waiter: &Waiter) {
        self.cache.waiting.remove(&waiter.id);
        self.http.close(&mut self.cache, waiter.id);
    }

    // ---- Objects of an earlier life -------------------------------------------------------------------------------

    fn handle_compared(&mut self, hash: Hash, is_right: io::Result<bool>) {
        let found = self.cache.store.compared(&hash, is_right, self.cache.now.instant);
        let key = Key::Object(hash);
        let Some(mut fetch) = self.cache.fetches.remove(&key) else { return };
        if let Found::Large(file, len) = found {
            return self.give_object(&Body::File(file, len), fetch.waiters);
        }
        if let Found::Unreadable(error) = &found
            && let Some(refused) = no_file_left(error)
        {
            return self.refuse(fetch.waiters, &refused);
        }
        if self.ask_again(&key, &mut fetch) {
            self.cache.fetches.insert(key, fetch);
        } else {
            self.refuse(fetch.waiters, &nobody_answers(502, "all were asked in vain a moment ago"));
        }
    }
}
