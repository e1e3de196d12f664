//! HTTP as a client of storage points speaks it: blocking, with several storage points to choose from.
//!
//! Invariant (promise P8): [`Client::publish`] and [`Client::delete`] say *rejected* only if a storage point said so of
//! the only attempt, and fail with an error only if no attempt can have reached a storage point. Everything else that is
//! not *accepted* is *undetermined*.

mod connection;
pub(crate) mod growing;
mod publish;
mod read;
pub mod response;
mod url;
mod wire;

pub use publish::{Body, PublishOptions, PublishResult, Verdict};
pub use read::{Fetched, GetOptions, IndexPage};
pub use url::{BadUrl, Url};

use crate::tls::ClientTls;
use connection::{Connection, Failure, Patience, Sink, Source, connect, now};
use response::{Head, ResponseParser};
use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Idle connections are thrown away after this, before a storage point does so.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Most idle connections kept.
const IDLE_COUNT_MAX: usize = 64;
/// Most bytes of a token.
const TOKEN_LEN_MAX: usize = 1024;
/// Most bytes of an answer that is not a content.
const ANSWER_LEN_MAX: u64 = 64 << 20;
/// Most bytes of a content.
pub const CONTENT_LEN_MAX: u64 = 1 << 30;

/// Why a request came to nothing. No variant of it is returned by a publication that a storage point may have got.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No address was given.
    #[error("no address of a storage point was given")]
    NoUrl,
    /// An address is wrong.
    #[error(transparent)]
    BadUrl(#[from] BadUrl),
    /// An option is wrong.
    #[error("{what} is not usable: {detail}")]
    BadOption {
        /// Which.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// No connection could be made; nothing was sent.
    #[error("{url} cannot be reached: {detail}")]
    Unreachable {
        /// The address, or all of them.
        url: String,
        /// What the system said.
        detail: String,
    },
    /// TLS came to nothing; nothing was done.
    #[error("{url} cannot be spoken to: {problem}")]
    Tls {
        /// Who.
        url: String,
        /// What is wrong, with the server as "it".
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The connection ended or fell silent before the answer was complete.
    #[error("the connection was lost: {detail}")]
    Lost {
        /// How.
        detail: String,
    },
    /// The caller wanted to stop.
    #[error("interrupted")]
    Interrupted,
    /// The server said no.
    #[error("{url} answered {status}: {reason}")]
    Refused {
        /// Who.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said.
        reason: String,
        /// What it advised.
        remedy: Option<String>,
    },
    /// The answer is not what a storage point would say.
    #[error("{url} does not answer like a storage point: {detail}")]
    NotAcms {
        /// Who.
        url: String,
        /// What is odd.
        detail: String,
    },
    /// A local file cannot be read or written.
    #[error("the file cannot be used: {detail}")]
    File {
        /// What the system said.
        detail: String,
    },
    /// Bytes do not have the hash that names them.
    #[error("{url} sent bytes that do not have the hash {hash}")]
    Corrupt {
        /// Who.
        url: String,
        /// The hash asked for.
        hash: String,
    },
}

impl ClientError {
    /// What can be done about it.
    pub fn remedy(&self) -> String {
        match self {
            ClientError::NoUrl => "name at least one storage point, such as http://127.0.0.1:7401".into(),
            ClientError::BadUrl(_) => "write the address as http://host:port or https://host:port".into(),
            ClientError::BadOption { .. } => "correct it and try again".into(),
            ClientError::Unreachable { .. } => {
                "check that the storage point runs and that the address is its publish or deliver address".into()
            }
            ClientError::Tls { remedy, .. } => (*remedy).into(),
            ClientError::Lost { .. } => "try again, or at another storage point".into(),
            ClientError::Interrupted => "start it again when it suits".into(),
            ClientError::Refused { remedy, .. } => {
                remedy.clone().unwrap_or_else(|| "ask the one who runs the storage point".into())
            }
            ClientError::NotAcms { .. } => {
                "check that the address is that of a storage point, not of something else".into()
            }
            ClientError::File { .. } => "check the file and its permissions, then try again".into(),
            ClientError::Corrupt { .. } => "fetch it from another storage point and check the disk of this one".into(),
        }
    }
}

/// Asked every 100 ms while a request waits; true ends it.
pub type ShouldStop = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone, Default)]
struct Stop(Option<ShouldStop>);

impl Stop {
    fn asked(&self) -> bool {
        self.0.as_ref().is_some_and(|should_stop| should_stop())
    }
}

/// How a client behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// A connection must be made within this.
    pub connect_timeout: Duration,
    /// A connection on which nothing moves for this long is lost. Longer than a storage point takes for its answer.
    pub io_timeout: Duration,
    /// A publication whose connection was lost is tried again, under the same key, until this long after its start.
    pub retry_timeout: Duration,
    /// Who publishes. Storage points that know better, by certificate or token, go by that.
    pub publisher: String,
    /// Whom to trust at https:// addresses, and who this is.
    pub credentials: Credentials,
    /// Asked every 100 ms whether to stop.
    pub should_stop: Option<ShouldStop>,
}

/// Whom a client trusts, and what it shows of itself. Files are PEM, as `acms certificate` writes them.
#[derive(Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Credentials {
    /// Trust servers certified by this file's authorities (default: by those that this system trusts)
    #[arg(long, env = "ACMS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Show this certificate
    #[arg(long, env = "ACMS_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, env = "ACMS_KEY", value_name = "FILE")]
    pub cert_key: Option<PathBuf>,
    /// Show the token in this file, made by `acms token`
    #[arg(long, env = "ACMS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The token itself: for programs, as everybody can read the arguments of commands.
    #[arg(skip)]
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credentials { ca, cert, .. } = self;
        f.debug_struct("Credentials").field("ca", ca).field("cert", cert).finish_non_exhaustive()
    }
}

impl Credentials {
    /// What `urls` need of it.
    pub fn tls(&self, urls: &[Url]) -> Result<Option<ClientTls>, ClientError> {
        if !urls.iter().any(Url::is_https) {
            return Ok(None);
        }
        let load = ClientTls::load(self.ca.as_deref(), (self.cert.as_deref(), self.cert_key.as_deref()));
        load.map(Some).map_err(|error| ClientError::BadOption { what: "TLS", detail: error.to_string() })
    }

    /// The value of the header Authorization.
    fn authorization(&self) -> Result<Option<String>, ClientError> {
        let text = match (&self.token, &self.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|error| ClientError::File { detail: format!("{}: {error}", file.display()) })?,
            (None, None) => return Ok(None),
        };
        let token = text.trim();
        if token.is_empty() || token.len() > TOKEN_LEN_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let detail = "it must be one word, as `acms token` prints it".into();
            return Err(ClientError::BadOption { what: "the token", detail });
        }
        Ok(Some(format!("Bearer {token}")))
    }
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            connect_timeout: Duration::from_secs(3),
            io_timeout: Duration::from_secs(15),
            retry_timeout: Duration::from_secs(20),
            publisher: "anonymous".into(),
            credentials: Credentials::default(),
            should_stop: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}

/// Speaks to the first of several storage points that answers, and stays with it. May be shared between threads.
pub struct Client {
    urls: Vec<Url>,
    tls: Option<ClientTls>,
    authorization: Option<String>,
    options: ClientOptions,
    stop: Stop,
    /// The one that answered last.
    preferred: AtomicUsize,
    /// (index of the URL, connection)
    idle: Mutex<Vec<(usize, Connection)>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("urls", &self.urls).finish_non_exhaustive()
    }
}

/// A request without its body.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
    /// Most bytes of the answer's body.
    len_max: u64,
    /// Not on a connection that was used before.
    fresh: bool,
    /// Given up at this time.
    deadline: Option<Instant>,
    /// Added to how long its connection may be silent: what is asked for takes time.
    work_time: Duration,
}

impl Client {
    /// Of these storage points (or caches, for reading), in this order. Connects only when it must.
    pub fn new(urls: Vec<Url>, options: ClientOptions) -> Result<Client, ClientError> {
        if urls.is_empty() {
            return Err(ClientError::NoUrl);
        }
        check_name("the publisher's name", &options.publisher)?;
        let stop = Stop(options.should_stop.clone());
        let tls = options.credentials.tls(&urls)?;
        let authorization = options.credentials.authorization()?;
        Ok(Client { urls, tls, authorization, options, stop, preferred: AtomicUsize::new(0), idle: Mutex::default() })
    }

    /// Of these storage points, as text.
    pub fn from_texts<T: AsRef<str>>(urls: &[T], options: ClientOptions) -> Result<Client, ClientError> {
        let urls = urls.iter().map(|url| url.as_ref().parse()).collect::<Result<Vec<Url>, BadUrl>>()?;
        Client::new(urls, options)
    }

    /// The storage points, in the order given.
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// Indexes of the URLs, the preferred one first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.urls.len());
        (0..count).map(move |i| (first + i) % count)
    }

    fn take_idle(&self, url: usize) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = now().checked_sub(IDLE_MAX);
        idle.retain(|(_, connection)| oldest.is_none_or(|oldest| connection.used_at >= oldest));
        while let Some(at) = idle.iter().rposition(|(of, _)| *of == url) {
            let (_, connection) = idle.swap_remove(at);
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn put_idle(&self, url: usize, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX {
            idle.push((url, connection));
        }
    }

    /// One request at one storage point.
    fn attempt(&self, url: usize, request: &Request<'_>, source: Source<'_>, sink: Sink<'_>) -> Result<Head, Failure> {
        let unsent = |error| Failure { sent: false, stale: false, error };
        if self.stop.asked() {
            return Err(unsent(ClientError::Interrupted));
        }
        let idle = if request.fresh { None } else { self.take_idle(url) };
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                let left = request.deadline.map(|deadline| deadline.saturating_duration_since(now()));
                let timeout = self.options.connect_timeout.min(left.unwrap_or(Duration::MAX));
                connect(&self.urls[url], self.tls.as_ref(), timeout, &self.stop).map_err(unsent)?
            }
        };
        let mut headers = request.headers.to_vec();
        headers.extend(self.authorization.as_deref().map(|value| ("Authorization", value)));
        let host = self.urls[url].authority();
        let head = response::encode_request(request.method, &host, request.target, &headers);
        let mut parser = ResponseParser::new(request.method == "HEAD", request.len_max);
        let patience = Patience {
            io_timeout: self.options.io_timeout + request.work_time,
            deadline: request.deadline,
            should_stop: &self.stop,
        };
        let reusable = connection.exchange(&self.urls[url], head, source, &mut parser, sink, &patience)?;
        if reusable {
            self.put_idle(url, connection);
        }
        self.preferred.store(url, Ordering::Relaxed);
        Ok(parser.head().cloned().unwrap_or_default())
    }
}

/// Names of publishers and keys: printable, so that a header carries them unchanged.
fn check_name(what: &'static str, name: &str) -> Result<(), ClientError> {
    let fine = !name.is_empty() && name.len() <= crate::protocol::Manifest::NAME_LEN_MAX;
    if fine && name.trim() == name && name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    let detail = "it must have 1 to 255 printable ASCII characters, and no space at either end".into();
    Err(ClientError::BadOption { what, detail })
}

/// A query's value.
fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
