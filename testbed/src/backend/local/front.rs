//! What stands in front of a cache whose replies are to go wrong: a proxy in the cache's own namespace through which all of
//! them pass, as they are but while a fault lasts. What is wrong with them then is what the simulator's caches do wrong.

use super::cluster::PUBLISH_PORT;
use crate::{
    faults::replies::{Misbehaviour, Past, Spoilt, is_object, max_age, old_reply, spoil},
    network::router::Namespace,
    progress::Progress,
    trace::now_ns,
    workload::{Answer, ClientError, Random, ask, connect, whole},
};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// Where the cache itself serves.
pub(super) const BEHIND_PORT: u16 = PUBLISH_PORT + 1;
/// How often it is looked whether the cache has got another namespace.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Bytes of answers that are kept for a fault that serves old ones; a content is never old.
const KEPT_LEN_MAX: usize = 64 << 20;

type Body = BoxBody<Bytes, io::Error>;

/// A proxy in front of a cache. Dropping the last clone ends it.
#[derive(Clone, Debug)]
pub(super) struct Front {
    state: Arc<Mutex<State>>,
    _serving: Arc<Serving>,
}

#[derive(Debug)]
struct Serving(AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct State {
    misbehaviours: Vec<Misbehaviour>,
    /// How many replies each fault has hit.
    hits: BTreeMap<usize, u64>,
    /// How many replies were passed on as they are.
    passed: u64,
    random: Random,
    kept: BTreeMap<String, Kept>,
    kept_len: usize,
    past: Past<Answer>,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    fresh_until_ns: u64,
}

/// A reply as it is sent.
struct Reply {
    answer: Answer,
    /// It ends before the length in its head.
    is_cut: bool,
}

impl Front {
    /// Stands in front of the cache at `address` from now on. `place` says where that is, each time it is asked.
    pub(super) fn start(
        address: SocketAddr,
        place: impl Fn() -> Option<Namespace> + Send + Sync + 'static,
        random: Random,
        progress: Progress,
    ) -> Front {
        let (misbehaviours, hits, kept) = Default::default();
        let state = State { misbehaviours, hits, passed: 0, random, kept, kept_len: 0, past: Past::new() };
        let state = Arc::new(Mutex::new(state));
        let serving = tokio::spawn(serve(address, Arc::new(place), Arc::clone(&state), progress));
        Front { state, _serving: Arc::new(Serving(serving.abort_handle())) }
    }

    /// From now on replies go wrong, until [`Front::behave`] of the same fault.
    pub(super) fn misbehave(&self, misbehaviour: Misbehaviour) {
        lock(&self.state).misbehaviours.push(misbehaviour);
    }

    /// Ends it.
    pub(super) fn behave(&self, fault: usize) {
        lock(&self.state).misbehaviours.retain(|misbehaviour| misbehaviour.fault != fault);
    }

    /// How many replies a fault has hit.
    pub(super) fn hits(&self, fault: usize) -> u64 {
        lock(&self.state).hits.get(&fault).copied().unwrap_or(0)
    }

    /// How many replies were passed on as they are, and whether all are now.
    pub(super) fn passed(&self) -> (u64, bool) {
        let state = lock(&self.state);
        (state.passed, state.misbehaviours.is_empty())
    }
}

impl State {
    /// What a fault answers without asking the cache.
    fn old_answer(&mut self, target: &str) -> Option<Answer> {
        let kept = self.kept.get(target)?;
        let is_fresh = now_ns() < kept.fresh_until_ns;
        let old = old_reply(target, is_fresh, &self.past, &self.misbehaviours, &mut self.random)?;
        *self.hits.entry(old.fault).or_default() += 1;
        Some(old.past.unwrap_or_else(|| kept.answer.clone()))
    }

    /// As a cache that starts again.
    fn forget(&mut self) {
        self.kept.clear();
        self.kept_len = 0;
    }

    /// Remembers what may be answered again.
    fn keep(&mut self, target: &str, answer: &Answer) {
        let control = answer.headers.get(CACHE_CONTROL).and_then(|control| control.to_str().ok());
        let Some(age) = control.and_then(max_age).filter(|_| answer.status == 200 && !is_object(target)) else {
            return;
        };
        if self.kept_len > KEPT_LEN_MAX {
            self.forget();
        }
        let now_ns = now_ns();
        let fresh_until_ns = now_ns.saturating_add(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        self.kept_len += answer.body.len();
        let before = self.kept.insert(target.to_owned(), Kept { answer: answer.clone(), fresh_until_ns });
        self.kept_len -= before.map_or(0, |before| before.answer.body.len());
        self.past.note(now_ns, target, answer);
    }

    /// What becomes of an answer on its way out.
    fn reply(&mut self, target: &str, mut answer: Answer) -> Reply {
        if self.misbehaviours.is_empty() || answer.status != 200 || answer.body.is_empty() {
            self.passed += 1;
            return Reply { answer, is_cut: false };
        }
        let Spoilt { body, is_cut, faults } =
            spoil(&answer.body, is_object(target), &self.misbehaviours, &mut self.random);
        self.passed += u64::from(faults.is_empty());
        faults.into_iter().for_each(|fault| *self.hits.entry(fault).or_default() += 1);
        answer.body = body;
        Reply { answer, is_cut }
    }
}

type Place = Arc<dyn Fn() -> Option<Namespace> + Send + Sync>;

/// Listens where the cache is, also when that is somewhere else.
async fn serve(address: SocketAddr, place: Place, state: Arc<Mutex<State>>, progress: Progress) {
    let behind = SocketAddr::new(address.ip(), BEHIND_PORT).to_string();
    let (mut last, mut has_told) = (None, false);
    loop {
        let namespace = place();
        // One that has failed is tried again after a while.
        if last.replace(namespace.clone()) == Some(namespace.clone()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match listen(address, namespace.clone()).await {
            Ok(listener) => {
                // What is under way ends with the place where it is.
                let mut conversations = JoinSet::new();
                while place() == namespace {
                    while conversations.try_join_next().is_some() {}
                    match tokio::time::timeout(LOOK_EVERY, listener.accept()).await {
                        Ok(Ok((stream, _))) => {
                            let (behind, namespace) = (behind.clone(), namespace.clone());
                            conversations.spawn(converse(stream, behind, namespace, Arc::clone(&state)));
                        }
                        Ok(Err(_)) => tokio::time::sleep(LOOK_EVERY).await,
                        Err(_) => {}
                    }
                }
            }
            Err(error) if !std::mem::replace(&mut has_told, true) => {
                progress.note(&format!("nothing stands in front of the cache at {address} yet: {error}"));
            }
            Err(_) => {}
        }
    }
}

async fn listen(address: SocketAddr, namespace: Option<Namespace>) -> io::Result<TcpListener> {
    let bind = move || match &namespace {
        Some(namespace) => namespace.within(|| std::net::TcpListener::bind(address)),
        None => std::net::TcpListener::bind(address),
    };
    let listener = tokio::task::spawn_blocking(bind).await.map_err(io::Error::other)??;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Passes on what one client asks, and what it is answered, as long as the cache is there.
async fn converse(stream: TcpStream, behind: String, namespace: Option<Namespace>, state: Arc<Mutex<State>>) {
    let Ok(sender) = connect(&behind, namespace.as_ref()).await else {
        // A cache that starts again knows nothing but contents.
        return lock(&state).forget();
    };
    let sender = tokio::sync::Mutex::new(sender);
    let pass = |request: Request<Incoming>| async {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let old = lock(&state).old_answer(&target);
        let answer = match old {
            Some(answer) => answer,
            None => {
                let (head, body) = request.into_parts();
                let request = Request::from_parts(head, Full::new(whole(body).await?));
                let answer = ask(&mut *sender.lock().await, request).await?;
                lock(&state).keep(&target, &answer);
                answer
            }
        };
        let reply = lock(&state).reply(&target, answer);
        Ok::<_, ClientError>(response(reply))
    };
    let _ = stream.set_nodelay(true);
    // An error ends the connection, as the cache would have; so does the end of the cache.
    let gone = async {
        while !sender.try_lock().is_ok_and(|sender| sender.is_closed()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(pass)) => {}
        () = gone => {}
    }
}

fn response(Reply { answer, is_cut }: Reply) -> Response<Body> {
    let Answer { status, mut headers, body } = answer;
    // Of the other connection.
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if !is_cut && !body.is_empty() {
        headers.insert(CONTENT_LENGTH, body.len().into());
    }
    let body: Body = match is_cut {
        false => Full::new(body).map_err(|never| match never {}).boxed(),
        true => {
            let parts = [Ok(Frame::data(body)), Err(io::Error::from(io::ErrorKind::UnexpectedEof))];
            StreamBody::new(stream::iter(parts)).boxed()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
