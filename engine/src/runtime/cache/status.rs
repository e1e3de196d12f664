//! What a cache says of itself: `/v1/status` for people, `/metrics` for Prometheus.

use super::{
    fetch::{CacheResult, Kind},
    service::Cache,
};
use crate::runtime::{
    exposition::Exposition,
    http::{answer::Outbox, service::Refused, target::Resource},
    refusals,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _};

/// What a cache counts beside its server and its store.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    /// Requests and bytes of bodies, by what was asked for and how it was answered.
    answered: BTreeMap<(Kind, CacheResult), (u64, u64)>,
    upstream: BTreeMap<Kind, u64>,
    pub(super) upstream_bytes_total: u64,
    pub(super) upstream_failures_total: u64,
    pub(super) wrong_hashes_total: u64,
    pub(super) loops_total: u64,
    pub(super) store_failures_total: u64,
}

impl Counters {
    /// A request has its answer, with so many bytes of body.
    pub(super) fn count(&mut self, kind: Kind, result: CacheResult, bytes: u64) {
        let (requests, total) = self.answered.entry((kind, result)).or_default();
        *requests += 1;
        *total += bytes;
    }

    /// Upstream is asked.
    pub(super) fn upstream_requests(&mut self, kind: Kind) {
        *self.upstream.entry(kind).or_default() += 1;
    }
}

/// Answers what a cache has of its own.
pub(super) fn answer(cache: &Cache, resource: &Resource, out: &mut Outbox<'_>) -> Result<(), Refused> {
    let (content_type, body) = match resource {
        Resource::Status => ("application/json", format!("{}\n", status(cache))),
        Resource::Metrics => ("text/plain; version=0.0.4", metrics(cache)),
        Resource::Health => ("text/plain", "ok\n".to_owned()),
        _ => {
            let remedy = "a cache has the snapshot, changes and objects; ask a storage point for the rest";
            return Err(Refused::new(404, "this is a cache", remedy));
        }
    };
    out.begin(200).header("Cache-Control", "no-store").header("Content-Type", content_type).body(body.as_bytes());
    Ok(())
}

fn status(cache: &Cache) -> Value {
    let now = cache.now.instant;
    let sources = cache.io.addresses.urls().zip(cache.sources.states()).enumerate().map(|(number, (url, state))| {
        json!({
            "url": url.to_string(), "current": number == cache.sources.current(), "up": state.is_up(now),
            "failures_total": state.failures_total,
        })
    });
    json!({
        "cache": cache.name,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": now.since(cache.started.instant).as_secs(),
        "clock_us": cache.now.wall.0,
        "tiers_above": cache.tiers_above,
        "sources": sources.collect::<Vec<_>>(),
        "store": {
            "objects": cache.store.len(), "bytes": cache.store.bytes(), "bytes_max": cache.store.bytes_max(),
        },
        "answers": { "kept": cache.answers.len(), "bytes": cache.answers.bytes() },
        "fetching": cache.fetches.len(),
        "http": {
            "connections": cache.http.connections,
            "waiting": cache.waiting.len(),
            "requests_total": cache.http.requests_total,
        },
    })
}

fn metrics(cache: &Cache) -> String {
    let (counters, http, store) = (&cache.counters, &cache.http, &cache.store);
    let mut text = String::with_capacity(4096);
    let mut labelled = |name: &str, help: &str, values: &[(String, u64)]| {
        let _ = writeln!(text, "# HELP acms_cache_{name} {help}\n# TYPE acms_cache_{name} counter");
        for (labels, value) in values {
            let _ = writeln!(text, "acms_cache_{name}{{{labels}}} {value}");
        }
    };
    let labels = |kind: &Kind, result: &CacheResult| format!("kind=\"{}\",result=\"{}\"", kind.word(), result.word());
    let requests: Vec<_> = counters.answered.iter().map(|((k, r), (requests, _))| (labels(k, r), *requests)).collect();
    let bytes: Vec<_> = counters.answered.iter().map(|((k, r), (_, bytes))| (labels(k, r), *bytes)).collect();
    let upstream: Vec<_> = counters.upstream.iter().map(|(k, n)| (format!("kind=\"{}\"", k.word()), *n)).collect();
    labelled("requests_total", "Requests answered, by what was asked for and how it was answered.", &requests);
    labelled("bytes_total", "Bytes of bodies of those answers.", &bytes);
    labelled("upstream_requests_total", "Requests to sources.", &upstream);
    let help = "HTTP requests and connections refused, by reason.";
    let _ = writeln!(text, "# HELP acms_http_refused_total {help}\n# TYPE acms_http_refused_total counter");
    for (cause, count) in http.refused.each() {
        let _ = writeln!(text, "acms_http_refused_total{{reason=\"{}\"}} {count}", cause.label());
    }
    let mut tls = Exposition::default();
    refusals::metrics(&[("http", &http.refusals)], &mut tls);
    text += &tls.finish();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP acms_{name} {help}\n# TYPE acms_{name} {kind}\nacms_{name} {value}");
    };
    metric("cache_upstream_bytes_total", "counter", "Bytes of bodies from sources.", counters.upstream_bytes_total);
    let failures = counters.upstream_failures_total;
    metric("cache_upstream_failures_total", "counter", "Requests to sources that failed.", failures);
    metric(
        "cache_wrong_hashes_total",
        "counter",
        "Objects from sources with a wrong hash.",
        counters.wrong_hashes_total,
    );
    metric("cache_loops_total", "counter", "Requests refused because they went in a circle.", counters.loops_total);
    metric("cache_objects", "gauge", "Objects on the disk.", store.len() as u64);
    metric("cache_disk_bytes", "gauge", "Bytes of disk that objects take.", store.bytes());
    metric("cache_evictions_total", "counter", "Objects that made room for others.", store.evictions_total);
    metric("cache_spoilt_total", "counter", "Objects found spoilt on the disk.", store.spoilt_total);
    let unreadable = store.unreadable_total;
    metric("cache_unreadable_total", "counter", "Reads of objects on the disk that failed.", unreadable);
    let failures = counters.store_failures_total;
    metric("cache_store_failures_total", "counter", "Objects that the disk did not take.", failures);
    metric("cache_answers_bytes", "gauge", "Bytes of kept snapshots and changes.", cache.answers.bytes() as u64);
    metric("cache_fetching", "gauge", "Different things being fetched.", cache.fetches.len() as u64);
    metric("http_connections", "gauge", "Open HTTP connections.", http.connections);
    metric("http_connections_total", "counter", "HTTP connections taken.", http.connections_total);
    let refused = http.connections_refused_total;
    metric("http_connections_refused_total", "counter", "HTTP connections over the limit.", refused);
    metric("http_requests_total", "counter", "HTTP requests.", http.requests_total);
    metric("http_bad_requests_total", "counter", "HTTP requests with a malformed head.", http.bad_requests_total);
    metric("http_held", "gauge", "Requests that wait.", cache.waiting.len() as u64);
    metric("http_sent_bytes_total", "counter", "Bytes of answers.", http.bytes_out_total);
    text
}
