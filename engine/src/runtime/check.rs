//! What can be found out about a storage point's configuration without running it: whether its store is there and its
//! own, whether its addresses are this machine's, whether others will find it; and where each value comes from.

use crate::{
    client::Url,
    runtime::{
        config::{Overrides, StoragePointConfig},
        storage_point::{self, AccessError},
    },
    store::{DirStorage, Storage as _, Store, StoreError},
};
use serde::Serialize;
use std::{
    io,
    net::{SocketAddr, TcpListener},
};
use toml::{Table, Value};

/// Something that is not right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Problem {
    /// The key it is about.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// The storage point does not start with it.
    pub fatal: bool,
}

fn problem(key: &'static str, what: String, remedy: &str, fatal: bool) -> Problem {
    Problem { key, what, remedy: remedy.to_owned(), fatal }
}

/// All problems of a configuration that was loaded, which is to say that it has no others.
pub fn check(config: &StoragePointConfig) -> Vec<Problem> {
    let (mut problems, is_running) = check_store(config);
    problems.extend(check_listeners(config, is_running));
    problems.extend(check_members(config));
    problems.extend(check_access(config));
    problems
}

/// Whether certificates and tokens can be used.
fn check_access(config: &StoragePointConfig) -> Option<Problem> {
    let error = storage_point::check_access(config).err()?;
    let key = match error {
        AccessError::Tls(_) => "tls",
        AccessError::Tokens(_) => "publishers.tokens",
    };
    Some(problem(key, error.to_string(), "make new ones with `acms certificate` or `acms token`", true))
}

/// Problems of the store, and whether a process has it.
fn check_store(config: &StoragePointConfig) -> (Vec<Problem>, bool) {
    const KEY: &str = "storage_point.store";
    let path = config.store.display();
    let of = |error: StoreError, remedy: &str| problem(KEY, format!("{path}: {error}"), remedy, true);
    let make = "name the directory that acms init or acms replace has made";
    let storage = match config.store.is_dir().then(|| DirStorage::new(&config.store)) {
        None => return (vec![problem(KEY, format!("{path} is no directory"), make, true)], false),
        Some(Err(error)) => {
            let remedy = "give the user who runs it the right to read and write there";
            return (vec![problem(KEY, format!("{path} cannot be used: {error}"), remedy, true)], false);
        }
        Some(Ok(storage)) => storage,
    };
    let identity = match Store::identity(&storage) {
        Ok(identity) => identity,
        Err(error) => return (vec![of(error, make)], false),
    };
    let (found, wanted) = ((&identity.cluster, identity.sp), (&config.cluster, config.me));
    if found != wanted {
        let what = format!("{path} belongs to storage point {} of cluster {}", found.1, found.0);
        return (vec![problem(KEY, what, "name the store of this storage point", true)], false);
    }
    match storage.lock() {
        Ok(Some(_)) => (Vec::new(), false),
        Ok(None) => (Vec::new(), true),
        Err(error) => {
            let what = format!("{path} cannot be locked: {error}");
            (vec![problem(KEY, what, "give the user who runs it the right to write there", true)], false)
        }
    }
}

/// Whether the addresses can be listened at. Those of a storage point that runs are in use, as they should be.
fn check_listeners(config: &StoragePointConfig, is_running: bool) -> Vec<Problem> {
    let of_one = |(key, addr): (&'static str, SocketAddr)| {
        let error = TcpListener::bind(addr).err()?;
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse if is_running => return None,
            io::ErrorKind::AddrInUse => "stop what listens there, or choose another port",
            io::ErrorKind::AddrNotAvailable => "write an address of this machine, or 0.0.0.0 for all of them",
            _ => "choose another address or port, or give the user who runs it the right",
        };
        Some(problem(key, format!("cannot listen at {addr}: {error}"), remedy, true))
    };
    let mut listeners = vec![("listen.publish", config.publish), ("listen.peer", config.peer)];
    listeners.extend((config.deliver != config.publish).then_some(("listen.deliver", config.deliver)));
    listeners.into_iter().filter_map(of_one).collect()
}

fn check_members(config: &StoragePointConfig) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.members.len().is_multiple_of(2) {
        let what = format!("an even number of members tolerates no more failures than {}", config.members.len() - 1);
        problems.push(problem("members", what, "add or leave out one", false));
    }
    for member in &config.members {
        if let Some(Err(error)) = member.url.as_ref().map(|url| url.parse::<Url>()) {
            problems.push(problem("members", error.to_string(), "write the address as http://host:port", false));
        }
    }
    let me = config.members.iter().find(|member| member.id == config.me.0);
    if let Some(me) = me.filter(|me| !is_reached_at(config.peer, me.peer)) {
        let what = format!("the others look for this storage point at {}, it listens at {}", me.peer, config.peer);
        let remedy = "write the same address for both, unless something between forwards one to the other";
        problems.push(problem("listen.peer", what, remedy, false));
    }
    problems
}

fn is_reached_at(listens: SocketAddr, dialled: SocketAddr) -> bool {
    listens.port() == dialled.port() && (listens.ip().is_unspecified() || listens.ip() == dialled.ip())
}

/// A key with the value that counts, and where that is from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Setting {
    /// As in the file.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `file`, `variable NAME`, `flag --name` or `default`.
    pub from: String,
}

/// All settings: those of the file `text` and the defaults of the rest, with `overrides` in their place.
pub fn settings(config: &StoragePointConfig, text: &str, overrides: &Overrides) -> Vec<Setting> {
    let mut settings = Vec::new();
    let written: Table = toml::from_str(text).unwrap_or_default();
    flatten("", &Value::Table(written), &mut settings);
    let defaults = [
        ("acms.mode", word(&config.mode)),
        ("acms.order", word(&config.order)),
        ("acms.quorum", config.quorum.to_string()),
        ("acms.max_drift", format!("{:?}", config.max_drift)),
        ("retention.versions", config.limits.versions_kept.to_string()),
        ("retention.roots", format!("{:?}", config.limits.roots_kept)),
        ("limits.publish", format!("{:?}", config.limits.publish)),
        ("limits.content", format!("{}B", config.limits.content_len_max)),
        ("limits.head", format!("{:?}", config.times.head)),
        ("limits.body", format!("{:?}", config.times.body)),
        ("limits.write", format!("{:?}", config.times.write)),
        ("limits.idle", format!("{:?}", config.times.idle)),
    ];
    for (key, value) in defaults {
        if !settings.iter().any(|setting| setting.key == key) {
            settings.push(Setting { key: key.to_owned(), value, from: "default".to_owned() });
        }
    }
    for (key, name, value) in overrides.given() {
        let variable = format!("ACMS_{}", name.to_uppercase().replace('-', "_"));
        let is_of_variable = std::env::var(&variable).is_ok_and(|text| text == value);
        let from = if is_of_variable { format!("variable {variable}") } else { format!("flag --{name}") };
        settings.retain(|setting| setting.key != key);
        settings.push(Setting { key: key.to_owned(), value, from });
    }
    settings.sort_by(|a, b| a.key.cmp(&b.key));
    settings
}

/// As the file has it.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| Some(value.as_str()?.to_owned())).unwrap_or_default()
}

fn flatten(key: &str, value: &Value, settings: &mut Vec<Setting>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::Table(table) => table.iter().for_each(|(name, value)| flatten(&below(name), value, settings)),
        Value::Array(values) if values.iter().any(Value::is_table) => {
            values.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, settings));
        }
        other => {
            let value = other.as_str().map_or_else(|| other.to_string(), str::to_owned);
            settings.push(Setting { key: key.to_owned(), value, from: "file".to_owned() });
        }
    }
}
