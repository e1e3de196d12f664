//! `acms.toml`: the configuration file of a storage point.

use crate::{
    protocol::{self, Limits, Mode, Order, QuorumSystem, SpId, StoreId},
    runtime::{
        http::connection::HttpTimes,
        spelling::nearest_in,
        units::{BadUnit, parse_duration, parse_size},
    },
    tls::TlsFiles,
};
use serde::Deserialize;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Why a configuration file is not used. Each message names the key and what to write instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFileError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}; `acms init DIR` writes the configuration of a new cluster")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no TOML of the right shape.
    #[error("{path}: {source}{}", hint(.source))]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What and where.
        source: Box<toml::de::Error>,
    },
    /// A value is not usable.
    #[error("{path}: {key}: {problem}")]
    Value {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl ConfigFileError {
    /// The key that is wrong, if it is one.
    pub fn key(&self) -> Option<&str> {
        match self {
            ConfigFileError::Value { key, .. } => Some(key),
            ConfigFileError::Parse { source, .. } => source.message().split('`').nth(1),
            ConfigFileError::Read { .. } => None,
        }
    }
}

fn hint(error: &toml::de::Error) -> String {
    nearest_in(error.message()).map(|nearest| format!("did you mean `{nearest}`?")).unwrap_or_default()
}

/// The file, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster: String,
    epoch: u32,
    storage_point: StoragePointSection,
    listen: ListenSection,
    members: Vec<Member>,
    #[serde(default)]
    acms: AcmsSection,
    #[serde(default)]
    limits: LimitsSection,
    tls: Option<TlsSection>,
    #[serde(default)]
    publishers: PublishersSection,
    #[serde(default)]
    retention: RetentionSection,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoragePointSection {
    id: u8,
    store: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListenSection {
    deliver: SocketAddr,
    publish: SocketAddr,
    peer: SocketAddr,
    /// These are not encrypted although there are certificates, or although others than this machine reach them.
    #[serde(default)]
    plain_text: Vec<Listener>,
}

/// What a storage point listens for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Listener {
    /// Receivers and caches.
    Deliver,
    /// Publishers.
    Publish,
    /// The other storage points.
    Peer,
}

/// Files, relative to the configuration's directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsSection {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishersSection {
    /// Who says no name may publish.
    anonymous: Option<bool>,
    tokens: Option<PathBuf>,
}

/// One storage point of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its id: 1 to 63.
    pub id: u8,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// Where people reach it; only shown.
    pub url: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcmsSection {
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    order: Order,
    max_drift: Option<String>,
    #[serde(default)]
    quorum: QuorumSystem,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    publish: Option<String>,
    content: Option<String>,
    head: Option<String>,
    body: Option<String>,
    write: Option<String>,
    idle: Option<String>,
}

impl LimitsSection {
    /// The time limits of HTTP, or the key that is wrong and why.
    fn http_times(&self) -> Result<HttpTimes, (&'static str, String)> {
        let mut times = HttpTimes::default();
        let keys = [
            ("limits.head", &self.head, &mut times.head),
            ("limits.body", &self.body, &mut times.body),
            ("limits.write", &self.write, &mut times.write),
            ("limits.idle", &self.idle, &mut times.idle),
        ];
        for (key, text, time) in keys {
            let Some(text) = text else { continue };
            *time = parse_duration(text).map_err(|error| (key, error.to_string()))?;
            if !HTTP_TIMES.contains(time) {
                return Err((key, "write a duration from 100ms to 10min".to_owned()));
            }
        }
        Ok(times)
    }
}

/// What the time limits of HTTP may be.
const HTTP_TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetentionSection {
    versions: Option<usize>,
    roots: Option<String>,
}

/// Values that the environment or the command line put in place of the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Overrides {
    /// Directory of the store, instead of storage_point.store
    #[arg(long, env = "ACMS_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Address for readers, instead of listen.deliver
    #[arg(long, env = "ACMS_LISTEN_DELIVER", value_name = "ADDRESS")]
    pub listen_deliver: Option<SocketAddr>,
    /// Address for publishers, instead of listen.publish
    #[arg(long, env = "ACMS_LISTEN_PUBLISH", value_name = "ADDRESS")]
    pub listen_publish: Option<SocketAddr>,
    /// Address for the other storage points, instead of listen.peer
    #[arg(long, env = "ACMS_LISTEN_PEER", value_name = "ADDRESS")]
    pub listen_peer: Option<SocketAddr>,
}

impl Overrides {
    /// Those that were given: key in the file, name of the flag (and, in capitals, of the variable), value.
    pub fn given(&self) -> Vec<(&'static str, &'static str, String)> {
        let store = self.store.as_ref().map(|store| store.display().to_string());
        let addr = |addr: Option<SocketAddr>| addr.map(|addr| addr.to_string());
        let all = [
            ("storage_point.store", "store", store),
            ("listen.deliver", "listen-deliver", addr(self.listen_deliver)),
            ("listen.publish", "listen-publish", addr(self.listen_publish)),
            ("listen.peer", "listen-peer", addr(self.listen_peer)),
        ];
        all.into_iter().filter_map(|(key, name, value)| Some((key, name, value?))).collect()
    }
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePointConfig {
    /// The cluster's name.
    pub cluster: String,
    /// Number of this configuration of the cluster.
    pub epoch: u32,
    /// This storage point.
    pub me: SpId,
    /// Directory of its store.
    pub store: PathBuf,
    /// GET and HEAD only, unless equal to `publish`.
    pub deliver: SocketAddr,
    /// Everything.
    pub publish: SocketAddr,
    /// For the other storage points.
    pub peer: SocketAddr,
    /// All storage points, ascending by id.
    pub members: Vec<Member>,
    /// How publications are accepted.
    pub mode: Mode,
    /// What UIDs are ordered by.
    pub order: Order,
    /// Which sets of storage points are quorums.
    pub quorum: QuorumSystem,
    /// How far an unagreed UID may be ahead of wall clocks.
    pub max_drift: Duration,
    /// Bounds and intervals.
    pub limits: Limits,
    /// Time limits of HTTP.
    pub times: HttpTimes,
    /// Certificates; none: nothing is encrypted.
    pub tls: Option<TlsFiles>,
    /// Not encrypted all the same.
    pub plain_text: Vec<Listener>,
    /// Whether those who do not show who they are may publish; nothing said: only in plain text on loopback.
    pub anonymous: Option<bool>,
    /// The tokens that publishers may show.
    pub tokens: Option<PathBuf>,
}

impl StoragePointConfig {
    /// Reads and checks `file`, with `overrides` in place of what it says.
    pub fn load(file: &Path, overrides: &Overrides) -> Result<StoragePointConfig, ConfigFileError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigFileError::Read { path: file.to_owned(), source })?;
        StoragePointConfig::parse(&text, file, overrides)
    }

    /// Checks `text` as if it had been read from `file`, whose directory relative paths start from.
    pub fn parse(text: &str, file: &Path, overrides: &Overrides) -> Result<StoragePointConfig, ConfigFileError> {
        let parsed: File = toml::from_str(text)
            .map_err(|source| ConfigFileError::Parse { path: file.to_owned(), source: Box::new(source) })?;
        let value = |key, problem: String| ConfigFileError::Value { path: file.to_owned(), key, problem };
        let unit = |key, error: BadUnit| value(key, error.to_string());
        let File {
            cluster,
            epoch,
            storage_point,
            listen,
            mut members,
            acms,
            limits: section,
            tls,
            publishers,
            retention,
        } = parsed;
        let mut limits = Limits::default();
        if let Some(text) = &section.publish {
            limits.publish = parse_duration(text).map_err(|error| unit("limits.publish", error))?;
        }
        if let Some(text) = &section.content {
            limits.content_len_max = parse_size(text).map_err(|error| unit("limits.content", error))?;
        }
        if limits.content_len_max > CONTENT_LEN_MAX {
            return Err(value("limits.content", "more than 1GiB; write 1GiB or less".to_owned()));
        }
        if limits.publish < Duration::from_millis(100) || limits.publish > Duration::from_secs(60) {
            return Err(value("limits.publish", "write a duration from 100ms to 60s".to_owned()));
        }
        let times = section.http_times().map_err(|(key, problem)| value(key, problem))?;
        if let Some(versions) = retention.versions {
            limits.versions_kept = versions;
        }
        if !(1..=VERSIONS_MAX).contains(&limits.versions_kept) {
            return Err(value("retention.versions", format!("write a number from 1 to {VERSIONS_MAX}")));
        }
        if let Some(text) = &retention.roots {
            limits.roots_kept = parse_duration(text).map_err(|error| unit("retention.roots", error))?;
        }
        // What is published again must still be there when it is agreed.
        if limits.roots_kept < limits.publish {
            return Err(value("retention.roots", "write no shorter a duration than limits.publish".to_owned()));
        }
        let max_drift = match &acms.max_drift {
            Some(text) => parse_duration(text).map_err(|error| unit("acms.max_drift", error))?,
            None => Duration::from_secs(3600),
        };
        members.sort_by_key(|member| member.id);
        let base = file.parent().unwrap_or(Path::new("."));
        let config = StoragePointConfig {
            cluster,
            epoch,
            me: SpId(storage_point.id),
            store: overrides.store.clone().unwrap_or_else(|| base.join(&storage_point.store)),
            deliver: overrides.listen_deliver.unwrap_or(listen.deliver),
            publish: overrides.listen_publish.unwrap_or(listen.publish),
            peer: overrides.listen_peer.unwrap_or(listen.peer),
            members,
            mode: acms.mode,
            order: acms.order,
            quorum: acms.quorum,
            max_drift,
            limits,
            times,
            tls: tls.map(|tls| TlsFiles {
                authority: base.join(tls.authority),
                certificate: base.join(tls.certificate),
                key: base.join(tls.key),
            }),
            plain_text: listen.plain_text,
            anonymous: publishers.anonymous,
            tokens: publishers.tokens.map(|tokens| base.join(tokens)),
        };
        config.protocol(StoreId::default()).validate().map_err(|error| {
            let key = match error {
                protocol::config::ConfigError::Cluster => "cluster",
                protocol::config::ConfigError::Quorum(_) => "acms.quorum",
                _ => "members",
            };
            value(key, error.to_string())
        })?;
        config.check_addresses().map_err(|(key, problem)| value(key, problem))?;
        config.check_plain_text().map_err(|(key, problem)| value(key, problem))?;
        Ok(config)
    }

    fn check_addresses(&self) -> Result<(), (&'static str, String)> {
        if self.peer == self.deliver || self.peer == self.publish {
            return Err(("listen.peer", format!("{} is taken by deliver or publish; use another port", self.peer)));
        }
        for (at, member) in self.members.iter().enumerate() {
            if self.members[..at].iter().any(|other| other.peer == member.peer) {
                return Err(("members", format!("two members have the peer address {}", member.peer)));
            }
        }
        Ok(())
    }

    fn check_plain_text(&self) -> Result<(), (&'static str, String)> {
        let listeners = [
            (Listener::Deliver, self.deliver, "listen.deliver", "deliver"),
            (Listener::Publish, self.publish, "listen.publish", "publish"),
            (Listener::Peer, self.peer, "listen.peer", "peer"),
        ];
        for (listener, addr, key, word) in listeners {
            if !addr.ip().is_loopback() && !self.speaks_tls(listener) && !self.plain_text.contains(&listener) {
                let problem = format!(
                    "others than this machine reach {addr}, and nothing said there would be encrypted; make \
                     certificates with `acms certificate storage-point` and name them under [tls], or, on a network \
                     that you trust, write plain_text = [\"{word}\"] under [listen]"
                );
                return Err((key, problem));
            }
        }
        Ok(())
    }

    /// Whether what is said at a listener is encrypted. Readers at the publish address are at that listener.
    pub fn speaks_tls(&self, listener: Listener) -> bool {
        let listener = match listener {
            Listener::Deliver if self.deliver == self.publish => Listener::Publish,
            other => other,
        };
        self.tls.is_some() && !self.plain_text.contains(&listener)
    }

    /// Whether somebody who does not show who it is may publish.
    pub fn allows_anonymous(&self) -> bool {
        let is_local = self.publish.ip().is_loopback() && !self.speaks_tls(Listener::Publish);
        self.anonymous.unwrap_or(is_local)
    }

    /// Where people publish.
    pub fn publish_url(&self) -> String {
        let scheme = if self.speaks_tls(Listener::Publish) { "https" } else { "http" };
        format!("{scheme}://{}", self.publish)
    }

    /// What the protocol needs of it, for the store that was found.
    pub fn protocol(&self, store: StoreId) -> protocol::Config {
        protocol::Config {
            cluster: self.cluster.clone(),
            epoch: self.epoch,
            me: self.me,
            store,
            members: self.members.iter().map(|member| SpId(member.id)).collect(),
            mode: self.mode,
            order: self.order,
            quorum: self.quorum.clone(),
            max_drift: self.max_drift,
            limits: self.limits.clone(),
        }
    }
}

/// Most versions of a path that may be kept.
const VERSIONS_MAX: usize = 1_000;
/// No limit may allow larger contents.
const CONTENT_LEN_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        cluster = "demo"
        epoch = 1
        [storage_point]
        id = 2
        store = "store"
        [listen]
        deliver = "127.0.0.1:7402"
        publish = "127.0.0.1:7402"
        peer = "127.0.0.1:7502"
        [[members]]
        id = 2
        peer = "127.0.0.1:7502"
        [[members]]
        id = 1
        peer = "127.0.0.1:7501"
        url = "http://127.0.0.1:7401"
    "#;

    fn parse(text: &str) -> Result<StoragePointConfig, String> {
        StoragePointConfig::parse(text, Path::new("/c/acms.toml"), &Overrides::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_and_order() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.store, Path::new("/c/store"));
        assert_eq!(config.members.iter().map(|m| m.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((config.max_drift, config.mode), (Duration::from_secs(3600), Mode::Fused));
        let other = parse(&format!("{GOOD}\n[acms]\norder=\"fast\"\nmax_drift=\"5min\"\n[limits]\ncontent=\"1MiB\""));
        let other = other.unwrap();
        assert_eq!((other.order, other.limits.content_len_max), (Order::Fast, 1 << 20));
        let times = parse(&format!("{GOOD}\n[limits]\nhead = \"1s\"\nwrite = \"2s\"")).unwrap().times;
        assert_eq!((times.head, times.body), (Duration::from_secs(1), HttpTimes::default().body));
        assert_ne!(config.protocol(StoreId::default()).hash(), other.protocol(StoreId::default()).hash());
    }

    #[test]
    fn what_is_encrypted_and_who_may_publish() {
        let config = parse(GOOD).unwrap();
        assert!(!config.speaks_tls(Listener::Publish) && config.allows_anonymous());
        let closed = parse(&format!("{GOOD}\n[publishers]\nanonymous = false\ntokens = \"t\"")).unwrap();
        assert!(!closed.allows_anonymous());
        assert_eq!(closed.tokens.as_deref(), Some(Path::new("/c/t")));
        const TLS: &str = "[tls]\nauthority = \"a\"\ncertificate = \"b\"\nkey = \"c\"\n";
        let public = GOOD.replace("deliver = \"127.0.0.1", "deliver = \"0.0.0.0");
        let config = parse(&format!("{public}\n{TLS}")).unwrap();
        assert!(config.speaks_tls(Listener::Deliver) && config.speaks_tls(Listener::Peer));
        assert!(!config.allows_anonymous());
        let asked = public.replacen("[[members", "plain_text = [\"deliver\"]\n[[members", 1);
        assert!(parse(&public).is_err() && parse(&asked).is_ok());
        let config = parse(&format!("{asked}\n{TLS}")).unwrap();
        assert!(!config.speaks_tls(Listener::Deliver) && config.speaks_tls(Listener::Publish));
    }

    #[test]
    fn errors_name_the_key() {
        let cases = [
            (GOOD.replace("epoch = 1", ""), "epoch"),
            (GOOD.replace("epoch", "epock"), "did you mean `epoch`?"),
            (GOOD.replace("peer = \"127.0.0.1:7501\"", "pear = \"127.0.0.1:7501\""), "did you mean `peer`?"),
            (GOOD.replace("id = 1", "id = 2"), "members"),
            (GOOD.replace("[storage_point]\n        id = 2", "[storage_point]\n        id = 3"), "members"),
            (GOOD.replace("7501", "7502"), "members"),
            (GOOD.replace("\"demo\"", "\"de mo\""), "cluster"),
            (GOOD.replace("publish = \"127.0.0.1:7402\"", "publish = \"127.0.0.1:7502\""), "listen.peer"),
            (format!("{GOOD}\n[limits]\npublish = \"9\""), "limits.publish"),
            (format!("{GOOD}\n[limits]\ncontent = \"9GiB\""), "limits.content"),
            (format!("{GOOD}\n[limits]\nhead = \"9\""), "limits.head"),
            (format!("{GOOD}\n[limits]\nidle = \"1h\""), "limits.idle"),
            (format!("{GOOD}\n[retention]\nversions = 0"), "retention.versions"),
            (format!("{GOOD}\n[retention]\nroots = \"1s\""), "retention.roots"),
            (format!("{GOOD}\n[acms]\nquorum = \"two\""), "quorum"),
            (format!("{GOOD}\n[acms]\nquorum = \"sets:1,2\""), "acms.quorum"),
            (format!("{GOOD}\n[acms]\nmode = \"slow\""), "mode"),
            (GOOD.replace("publish = \"127.0.0.1:7402\"", "publish = \"0.0.0.0:7402\""), "listen.publish"),
            (GOOD.replace("peer = \"127.0.0.1:7502\"\n        [[", "peer = \"[::]:7502\"\n        [["), "listen.peer"),
            (GOOD.replace("[[members", "plain_text = [\"peers\"]\n[[members"), "plain_text"),
        ];
        for (text, key) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(key), "{key} not named in: {error}");
        }
    }
}
