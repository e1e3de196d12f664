//! Publishers: each attempt is one request and has exactly one outcome. A retry is an attempt of its own under the same key.

use super::Attempt;
use crate::{
    network::router::Namespace,
    trace::{Kind, Recorder, Template, Text, now_ns},
};
use acms_engine::protocol::{Hash, Order, Path, Uid, api::OutcomeAnswer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Method, Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};

/// Longest body that is read.
const BODY_LEN_MAX: usize = 1 << 30;

/// A connection that takes requests.
pub(crate) type Sender = http1::SendRequest<Full<Bytes>>;

/// An HTTP client that keeps connections for later requests.
#[derive(Default, Debug)]
pub struct Client {
    idle: Mutex<BTreeMap<String, Vec<Sender>>>,
    /// From where each server is reached, if not from here.
    places: BTreeMap<String, Namespace>,
}

/// An HTTP answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nothing was sent.
    #[error("not connected: {0}")]
    NotConnected(std::io::Error),
    /// The request or the answer was cut off: the other side may have acted on it.
    #[error("connection lost: {0}")]
    Lost(String),
    /// No answer in time: the other side may have acted on the request.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl Client {
    /// Idle connections kept for each server.
    const IDLE_MAX: usize = 256;

    /// Reaches each of these servers from a network namespace, and others from here.
    pub fn from_places(places: BTreeMap<String, Namespace>) -> Client {
        Client { places, ..Client::default() }
    }

    /// Sends `request` to `authority` (`127.0.0.1:7400`) and reads the answer.
    pub async fn send(
        &self,
        authority: &str,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<Answer, ClientError> {
        let exchange = self.exchange(authority, request);
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(ClientError::Timeout(limit)))
    }

    /// Reads `path` (`/v1/status`) from `authority`.
    pub async fn get(&self, authority: &str, path: &str) -> Result<Answer, ClientError> {
        let request = Request::get(path).header("host", authority).body(Full::default());
        let request = request.map_err(|error| ClientError::Lost(error.to_string()))?;
        self.send(authority, request, Duration::from_secs(30)).await
    }

    async fn exchange(&self, authority: &str, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
        let mut sender = match self.take_idle(authority) {
            Some(sender) => sender,
            None => connect(authority, self.places.get(authority)).await?,
        };
        let answer = ask(&mut sender, request).await?;
        self.keep(authority, sender);
        Ok(answer)
    }

    fn take_idle(&self, authority: &str) -> Option<Sender> {
        let mut idle = self.idle.lock().expect("nothing panics while it holds this");
        let senders = idle.get_mut(authority)?;
        senders.retain(|sender| !sender.is_closed());
        let usable = senders.iter().position(Sender::is_ready)?;
        Some(senders.swap_remove(usable))
    }

    fn keep(&self, authority: &str, sender: Sender) {
        let mut idle = self.idle.lock().expect("nothing panics while it holds this");
        let senders = idle.entry(authority.to_owned()).or_default();
        if !sender.is_closed() && senders.len() < Client::IDLE_MAX {
            senders.push(sender);
        }
    }
}

/// Connects to a server, from a namespace if that is where it is reached.
pub(crate) async fn connect(authority: &str, place: Option<&Namespace>) -> Result<Sender, ClientError> {
    let stream = match place {
        None => TcpStream::connect(authority).await,
        Some(place) => connect_from(place, authority).await,
    };
    let stream = stream.map_err(ClientError::NotConnected)?;
    stream.set_nodelay(true).map_err(ClientError::NotConnected)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| ClientError::Lost(causes(&error)))?;
    // Ends with the connection; what failed is told to whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends a request on a connection as soon as it takes one, and reads the answer to its end.
pub(crate) async fn ask(sender: &mut Sender, request: Request<Full<Bytes>>) -> Result<Answer, ClientError> {
    let lost = |error: hyper::Error| ClientError::Lost(causes(&error));
    sender.ready().await.map_err(lost)?;
    let (head, body) = sender.send_request(request).await.map_err(lost)?.into_parts();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: whole(body).await? })
}

/// A body, read to its end.
pub(crate) async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, BODY_LEN_MAX).collect().await;
    Ok(body.map_err(|error| ClientError::Lost(error.to_string()))?.to_bytes())
}

/// A socket belongs to the namespace in which it was made.
async fn connect_from(place: &Namespace, authority: &str) -> std::io::Result<TcpStream> {
    let place = place.clone();
    let made = tokio::task::spawn_blocking(move || place.within(TcpSocket::new_v4)).await;
    let address =
        authority.parse().map_err(|_| std::io::Error::other(format!("{authority} is not IPv4 and a port")))?;
    made.map_err(std::io::Error::other)??.connect(address).await
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// What a publisher was told, or concluded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// `accepted`, `rejected` or `undetermined`.
    pub outcome: &'static str,
    /// The publication's name, if it was told.
    pub uid: Option<Uid>,
    /// Why it was not accepted.
    pub cause: Option<String>,
    /// How long the attempt took.
    pub took: Duration,
}

impl Published {
    /// Whether it was accepted.
    pub fn is_accepted(&self) -> bool {
        self.outcome == "accepted"
    }
}

/// Hands publications to storage points. There are no retries: each attempt has one outcome, and a lost connection is
/// *undetermined*.
#[derive(Debug)]
pub struct Publisher {
    client: Client,
    name: Text,
    recorder: Recorder,
    attempts: AtomicU64,
    told: Mutex<Option<Uid>>,
}

impl Publisher {
    /// A storage point answers within 9 s of the content's last progress; this is beyond it.
    const ANSWER_WITHIN: Duration = Duration::from_secs(15);

    /// A publisher that records its attempts under `name`.
    pub fn new(name: &str, recorder: Recorder) -> Publisher {
        Publisher::with(Client::default(), name, recorder)
    }

    /// The same, with a client of the caller's.
    pub fn with(client: Client, name: &str, recorder: Recorder) -> Publisher {
        Publisher { client, name: name.into(), recorder, attempts: AtomicU64::new(0), told: Mutex::default() }
    }

    /// Its HTTP client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Attempts begun so far.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    /// The greatest UID that it was told so far.
    fn told(&self) -> Option<Uid> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, uid: Option<Uid>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        *told = uid.max(*told);
    }

    /// Publishes `content` (`None`: deletes the file) at the SP that serves `authority`; the attempt was due at
    /// `scheduled_ns`.
    pub async fn publish(&self, authority: &str, path: &Path, content: Option<Bytes>, scheduled_ns: u64) -> Published {
        let hash = Hash::of(content.as_deref().unwrap_or_default());
        let (path, key) = (path.clone(), None);
        let attempt = Attempt { at: Duration::ZERO, to: 0, path, content, hash, key, known: false, order: None };
        self.make_at(authority, authority, attempt, scheduled_ns).await
    }

    /// Makes an attempt at the SP that serves `authority`, in a cluster with that order; it was due at `scheduled_ns`.
    pub async fn make(&self, authority: &str, attempt: Attempt, order: Order, scheduled_ns: u64) -> Published {
        let order = if attempt.order.unwrap_or(order) == Order::Fast { "fast" } else { "strict" };
        let place = format!("sp{} order={order}", attempt.to + 1);
        self.make_at(authority, &place, attempt, scheduled_ns).await
    }

    async fn make_at(&self, authority: &str, place: &str, attempt: Attempt, scheduled_ns: u64) -> Published {
        let Attempt { path, content, hash, key, known, order, .. } = attempt;
        let number = self.attempts.fetch_add(1, Ordering::Relaxed);
        let key = key.unwrap_or_else(|| format!("{}-{number:06}", self.name));
        let known = if known { self.told() } else { None };
        let about = Template { publication: Some(&key), path: Some(path.as_str()), ..Template::default() };
        self.recorder.note_at(scheduled_ns, &self.name, 0, Kind::Scheduled, about);
        let (is_deletion, cause) = (content.is_none(), format!("{place} attempt={number}"));
        let deleted = is_deletion.then_some("deleted");
        let invoke = Template { hash: Some(hash), uid: known, outcome: deleted, cause: Some(&cause), ..about };
        let begun_ns = self.recorder.note(&self.name, 0, Kind::Invoke, invoke);
        let method = if is_deletion { Method::DELETE } else { Method::PUT };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/v1/config/{path}"))
            .header("host", authority)
            .header("idempotency-key", &key)
            .header("acms-publisher", &*self.name)
            // Explicitly: without a body it would be left out, and a PUT needs it.
            .header("content-length", content.as_ref().map_or(0, Bytes::len));
        if let Some(known) = known {
            request = request.header("acms-known-uid", known.to_string());
        }
        if let Some(order) = order {
            request = request.header("acms-order", if order == Order::Fast { "fast" } else { "strict" });
        }
        let request = request.body(Full::new(content.unwrap_or_default()));
        let request = request.expect("paths and keys have only characters that headers may have");
        let answer = self.client.send(authority, request, Publisher::ANSWER_WITHIN).await;
        let took = Duration::from_nanos(now_ns() - begun_ns);
        let published = interpret(answer, took);
        self.hear(published.uid);
        let cause = format!("attempt={number} {}", published.cause.as_deref().unwrap_or_default());
        let outcome = Template {
            uid: published.uid,
            hash: Some(hash),
            outcome: Some(published.outcome),
            cause: Some(cause.trim_end()),
            ..about
        };
        self.recorder.note(&self.name, 0, Kind::Outcome, outcome);
        published
    }
}

/// What an answer, or its absence, means (promise P8).
fn interpret(answer: Result<Answer, ClientError>, took: Duration) -> Published {
    let undetermined = |cause: String| Published { outcome: "undetermined", uid: None, cause: Some(cause), took };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return undetermined(error.to_string()),
    };
    let header = answer.headers.get("acms-outcome").and_then(|value| value.to_str().ok());
    let body: OutcomeAnswer = serde_json::from_slice(&answer.body).unwrap_or_default();
    let cause = body.reason.or_else(|| body.superseded_by.map(|uid| format!("superseded by {uid}")));
    let outcome = match (header, answer.status) {
        (Some("accepted"), 200..=299) if body.uid.is_some() => "accepted",
        (Some("rejected"), 400..) => "rejected",
        (Some("undetermined"), _) => "undetermined",
        (header, status) => {
            let header = header.unwrap_or("none");
            return undetermined(format!("an answer that is no outcome: status {status}, ACMS-Outcome {header}"));
        }
    };
    Published { outcome, uid: body.uid, cause, took }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, outcome: Option<&str>, body: &str) -> Published {
        let mut headers = HeaderMap::new();
        if let Some(outcome) = outcome {
            headers.insert("acms-outcome", outcome.parse().unwrap());
        }
        interpret(Ok(Answer { status, headers, body: body.to_owned().into() }), Duration::ZERO)
    }

    #[test]
    fn only_what_an_sp_says_is_more_than_undetermined() {
        let accepted = answer(201, Some("accepted"), r#"{"uid":"5.1.0","outcome":"accepted"}"#);
        assert_eq!((accepted.outcome, accepted.uid), ("accepted", Some("5.1.0".parse().unwrap())));
        let rejected = answer(503, Some("rejected"), r#"{"outcome":"rejected","reason":"no quorum"}"#);
        assert_eq!((rejected.outcome, rejected.cause.as_deref()), ("rejected", Some("no quorum")));
        assert_eq!(answer(202, Some("undetermined"), "{}").outcome, "undetermined");
        assert_eq!(answer(201, None, "").outcome, "undetermined");
        assert_eq!(answer(201, Some("accepted"), "{}").outcome, "undetermined");
        assert_eq!(answer(502, None, "<html>").outcome, "undetermined");
        let lost = interpret(Err(ClientError::Lost("reset".into())), Duration::ZERO);
        assert_eq!(lost.outcome, "undetermined");
    }
}
