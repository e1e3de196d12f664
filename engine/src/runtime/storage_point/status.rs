//! What a storage point says of itself: `/v1/status` for people, `/metrics` for Prometheus.

use crate::{
    protocol::{SpId, io::PeerSeen},
    runtime::storage_point::core::Core,
    tls::Cause,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, fmt::Write as _};

/// What a storage point counts beside its protocol and its server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) objects_total: u64,
    pub(super) configs_total: u64,
    pub(super) changes_total: u64,
    pub(super) changes_answered_total: u64,
    pub(super) commits_total: u64,
}

/// The JSON of `/v1/status`.
pub(super) fn status(core: &Core) -> Value {
    let snapshot = core.sp.snapshot(core.now.wall);
    let disk = disk(core);
    json!({
        "cluster": snapshot.cluster,
        "sp": snapshot.sp,
        "incarnation": snapshot.incarnation,
        "epoch": core.config.epoch,
        "mode": core.config.mode,
        "quorum": core.config.quorum.to_string(),
        "sequence": core.sp.cursor().sequence,
        "root": snapshot.root,
        "root_sequence": snapshot.sequence,
        "as_of_us": snapshot.as_of_us,
        "clock_us": core.now.wall.0,
        "uptime_s": core.now.instant.since(core.started.instant).as_secs(),
        "version": env!("CARGO_PKG_VERSION"),
        "stores": core.sp.store_numbers().map(|(sp, number)| (sp.to_string(), number.into())).collect::<Map<_, _>>(),
        "peers": peers(core),
        "protocol": core.sp.status(),
        "store": {
            "free_bytes": disk.map(|disk| disk.free_bytes),
            "disk_bytes": disk.map(|disk| disk.bytes),
            "log": core.io.maintenance.figures(),
        },
        "http": {
            "connections": core.http.connections,
            "held": core.holds.len(),
            "requests_total": core.http.requests_total,
        },
    })
}

/// Each other member: its link, and how it was found when it last answered.
fn peers(core: &Core) -> Vec<Value> {
    let up: BTreeMap<SpId, usize> = core.io.peers.up().collect();
    let seen: BTreeMap<SpId, PeerSeen> = core.sp.peers_seen().collect();
    let others = core.config.members.iter().filter(|member| member.id != core.config.me.0);
    others
        .map(|member| {
            let sp = SpId(member.id);
            let down = core.io.peers.down(sp);
            let seen = seen.get(&sp);
            json!({
                "id": member.id, "url": member.url, "connected": up.contains_key(&sp),
                "queued_bytes": up.get(&sp).copied().unwrap_or_default(),
                "round_trip_us": seen.map(|seen| seen.round_trip.as_micros() as u64),
                "clock_offset_us": seen.map(|seen| seen.clock_offset_us),
                "down_s": down.map(|(since, _)| core.now.instant.since(since).as_secs()),
                "problem": down.and_then(|(_, problem)| problem),
            })
        })
        .collect()
}

/// The disk that a store is on.
#[derive(Clone, Copy, Debug)]
struct Disk {
    bytes: u64,
    /// What this process may still use of it.
    free_bytes: u64,
}

/// As the system says, if it does.
fn disk(core: &Core) -> Option<Disk> {
    let disk = nix::sys::statvfs::statvfs(&core.config.store).ok()?;
    let unit = disk.fragment_size();
    Some(Disk { bytes: disk.blocks() * unit, free_bytes: disk.blocks_available() * unit })
}

/// A counter with the label `reason`.
fn by_reason(text: &mut String, name: &str, help: &str, counts: impl Iterator<Item = (&'static str, u64)>) {
    let _ = writeln!(text, "# HELP acms_{name} {help}\n# TYPE acms_{name} counter");
    for (reason, count) in counts {
        let _ = writeln!(text, "acms_{name}{{reason=\"{reason}\"}} {count}");
    }
}

/// The text of `/metrics`.
pub(super) fn metrics(core: &Core) -> String {
    let (protocol, counters, http) = (core.sp.status(), &core.counters, &core.http);
    let mut text = String::with_capacity(4096);
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP acms_{name} {help}\n# TYPE acms_{name} {kind}\nacms_{name} {value}");
    };
    metric("publications_agreed_total", "counter", "Publications agreed since the start.", protocol.agreed_total);
    metric("submissions_accepted_total", "counter", "Submissions accepted since the start.", protocol.accepted_total);
    metric("submissions_rejected_total", "counter", "Submissions rejected since the start.", protocol.rejected_total);
    let undetermined = protocol.undetermined_total;
    metric("submissions_undetermined_total", "counter", "Submissions left undetermined since the start.", undetermined);
    metric("submissions", "gauge", "Submissions under way.", protocol.submissions as u64);
    metric("publications_pending", "gauge", "Publications not yet agreed.", protocol.pending as u64);
    metric("paths", "gauge", "Live paths in the index.", protocol.paths as u64);
    let damaged = protocol.contents_damaged_total;
    metric("contents_damaged_total", "counter", "Contents found damaged since the start, and fetched again.", damaged);
    metric("peers_connected", "gauge", "Other storage points with a link.", protocol.peers_connected as u64);
    metric("commits_total", "counter", "Commits of the log.", counters.commits_total);
    let store = core.io.maintenance.figures();
    metric("store_log_bytes", "gauge", "Bytes of the log's segments.", store.log_bytes);
    metric("store_alive_bytes", "gauge", "Bytes of contents in the log that are needed.", store.alive_bytes);
    metric("store_uncovered_bytes", "gauge", "Bytes of the log behind the last checkpoint.", store.uncovered_bytes);
    metric("store_publications", "gauge", "Publications that are remembered.", store.publications as u64);
    metric("store_checkpoints_total", "counter", "Checkpoints.", store.checkpoints_total);
    metric("store_checkpoint_bytes_total", "counter", "Bytes of checkpoints.", store.checkpoint_bytes_total);
    metric("store_copied_bytes_total", "counter", "Bytes of contents moved by compaction.", store.copied_bytes_total);
    metric("store_segments_freed_total", "counter", "Segments of the log given up.", store.freed_total);
    metric("store_failures_total", "counter", "Checkpoints that failed.", store.failures_total);
    metric("store_contents_corrupt", "gauge", "Contents found corrupt by compaction.", store.corrupt as u64);
    metric("http_connections", "gauge", "Open HTTP connections.", http.connections);
    metric("http_connections_total", "counter", "HTTP connections taken.", http.connections_total);
    let refused = http.connections_refused_total;
    metric("http_connections_refused_total", "counter", "HTTP connections over the limit.", refused);
    metric("http_requests_total", "counter", "HTTP requests.", http.requests_total);
    metric("http_bad_requests_total", "counter", "HTTP requests with a malformed head.", http.bad_requests_total);
    metric("http_objects_total", "counter", "Objects served.", counters.objects_total);
    metric("http_configs_total", "counter", "Contents served by path.", counters.configs_total);
    metric("http_changes_total", "counter", "Requests of the changes feed.", counters.changes_total);
    let answered = counters.changes_answered_total;
    metric("http_changes_held_answered_total", "counter", "Held requests of the changes feed answered.", answered);
    metric("http_held", "gauge", "Held requests.", core.holds.len() as u64);
    metric("http_bytes_out_total", "counter", "Bytes of answers.", http.bytes_out_total);
    let refused = http.refused.each().map(|(cause, count)| (cause.label(), count));
    by_reason(&mut text, "http_refused_total", "HTTP requests and connections refused, by reason.", refused);
    let refused = core.io.peers.refused();
    by_reason(&mut text, "peer_refused_total", "Connections of peers, or of strangers, refused, by reason.", refused);
    text += "# HELP acms_tls_refused_total Connections that came to nothing because of TLS, by listener and cause.\n\
             # TYPE acms_tls_refused_total counter\n";
    for (listener, refusals) in [("http", &http.refusals), ("peer", &core.io.peers.refusals)] {
        for cause in Cause::ALL {
            let (word, count) = (cause.word(), refusals.count(cause));
            let _ = writeln!(text, "acms_tls_refused_total{{listener=\"{listener}\",cause=\"{word}\"}} {count}");
        }
    }
    text
}
