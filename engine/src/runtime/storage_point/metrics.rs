//! What a storage point says of itself to Prometheus: `/metrics` (engine/docs/METRICS.md lists it).

use crate::{
    protocol::SpId,
    runtime::{
        exposition::{Exposition, seconds},
        refusals,
        storage_point::{core::Core, status::disk},
    },
};

/// The text of `/metrics`.
pub(super) fn metrics(core: &Core) -> String {
    let mut text = Exposition::default();
    of_process(core, &mut text);
    of_publications(core, &mut text);
    of_peers(core, &mut text);
    of_store(core, &mut text);
    of_http(core, &mut text);
    refusals::metrics(&[("http", &core.http.refusals), ("peer", &core.io.peers.refusals)], &mut text);
    text.finish()
}

fn of_process(core: &Core, text: &mut Exposition) {
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    text.gauges("build_info", "Always 1; the label is the program's version.", "version", version);
    let uptime = core.now.instant.since(core.started.instant);
    text.gauge("uptime_seconds", "Time since the start.", uptime.as_secs());
    let as_of = seconds(core.sp.snapshot(core.now.wall).as_of_us);
    text.gauge("as_of_timestamp_seconds", "Nothing accepted before this time, since 1970, is missing here.", as_of);
    let clock = seconds(core.now.wall.0);
    text.gauge("clock_timestamp_seconds", "The wall clock, since 1970, by which as-of is to be judged.", clock);
}

fn of_publications(core: &Core, text: &mut Exposition) {
    let protocol = core.sp.status();
    text.counter("publications_agreed_total", "Publications agreed.", protocol.agreed_total);
    text.counter("submissions_accepted_total", "Submissions accepted.", protocol.accepted_total);
    text.counter("submissions_rejected_total", "Submissions rejected.", protocol.rejected_total);
    text.counter("submissions_undetermined_total", "Submissions left undetermined.", protocol.undetermined_total);
    text.gauge("submissions", "Submissions under way.", protocol.submissions);
    text.gauge("publications_pending", "Publications not yet agreed.", protocol.pending);
    text.gauge("paths", "Live paths in the index.", protocol.paths);
    let damaged = protocol.contents_damaged_total;
    text.counter("contents_damaged_total", "Contents found damaged, and fetched again.", damaged);
    let help = "From the whole content to accepted, of accepted submissions.";
    text.histogram("acceptance_seconds", help, &core.io.acceptance);
}

fn of_peers(core: &Core, text: &mut Exposition) {
    text.gauge("peers_connected", "Other storage points with a link.", core.sp.status().peers_connected);
    let peers = &core.io.peers;
    let others = core.config.members.iter().filter(|member| member.id != core.config.me.0);
    let up = others.map(|member| (member.id, u8::from(peers.is_up(SpId(member.id)))));
    text.gauges("peer_up", "Whether there is a link to this storage point.", "peer", up);
    let queued = peers.up();
    text.gauges("peer_queued_bytes", "Bytes that wait to be sent to this storage point.", "peer", queued);
    let round_trips = core.sp.peers_seen().map(|(sp, seen)| (sp, seen.round_trip.as_secs_f64()));
    text.gauges("peer_round_trip_seconds", "The last round of as-of with this storage point.", "peer", round_trips);
    let offsets = core.sp.peers_seen().map(|(sp, seen)| (sp, seen.clock_offset_us as f64 / 1e6));
    text.gauges("peer_clock_offset_seconds", "Its clock minus the one here, when it last answered.", "peer", offsets);
    let help = "Connections of peers, or of strangers, refused, by reason.";
    text.counters("peer_refused_total", help, "reason", peers.refused());
}

fn of_store(core: &Core, text: &mut Exposition) {
    text.counter("commits_total", "Commits of the log.", core.counters.commits_total);
    let help = "From the wish that something be durable until it is, waiting for the commit before included.";
    text.histogram("commit_seconds", help, core.io.commit.latency());
    text.histogram("store_flush_seconds", "One commit of the log: its write and its flush.", core.io.commit.flushes());
    if let Some(disk) = disk(core) {
        text.gauge("store_disk_bytes", "Bytes of the disk that the store is on.", disk.bytes);
        text.gauge("store_disk_free_bytes", "Bytes of that disk that may still be used.", disk.free_bytes);
    }
    let store = core.io.maintenance.figures();
    text.gauge("store_log_bytes", "Bytes of the log's segments.", store.log_bytes);
    text.gauge("store_alive_bytes", "Bytes of contents in the log that are needed.", store.alive_bytes);
    text.gauge("store_uncovered_bytes", "Bytes of the log behind the last checkpoint.", store.uncovered_bytes);
    text.gauge("store_publications", "Publications that are remembered.", store.publications);
    text.counter("store_checkpoints_total", "Checkpoints.", store.checkpoints_total);
    text.counter("store_checkpoint_bytes_total", "Bytes of checkpoints.", store.checkpoint_bytes_total);
    text.counter("store_copied_bytes_total", "Bytes of contents moved by compaction.", store.copied_bytes_total);
    text.counter("store_segments_freed_total", "Segments of the log given up.", store.freed_total);
    text.counter("store_failures_total", "Checkpoints that failed.", store.failures_total);
    text.gauge("store_contents_corrupt", "Contents found corrupt by compaction.", store.corrupt);
}

fn of_http(core: &Core, text: &mut Exposition) {
    let (counters, http) = (&core.counters, &core.http);
    text.gauge("http_connections", "Open HTTP connections.", http.connections);
    text.counter("http_connections_total", "HTTP connections taken.", http.connections_total);
    let refused = http.connections_refused_total;
    text.counter("http_connections_refused_total", "HTTP connections over the limit.", refused);
    text.counter("http_requests_total", "HTTP requests.", http.requests_total);
    text.counter("http_bad_requests_total", "HTTP requests with a malformed head.", http.bad_requests_total);
    let refused = http.refused.each().map(|(cause, count)| (cause.label(), count));
    text.counters("http_refused_total", "HTTP requests and connections refused, by reason.", "reason", refused);
    text.counter("http_objects_total", "Objects served.", counters.objects_total);
    text.counter("http_configs_total", "Contents served by path.", counters.configs_total);
    text.counter("http_changes_total", "Requests of the changes feed.", counters.changes_total);
    let answered = counters.changes_answered_total;
    text.counter("http_changes_held_answered_total", "Held requests of the changes feed answered.", answered);
    text.gauge("http_held", "Held requests.", core.holds.len());
    text.counter("http_sent_bytes_total", "Bytes of answers.", http.bytes_out_total);
}
