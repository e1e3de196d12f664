//! What a storage point says of itself to people: `/v1/status`.

use crate::{
    protocol::{SpId, io::PeerSeen},
    runtime::storage_point::core::Core,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

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
                "protocol_version": core.io.peers.version(sp),
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
pub(super) struct Disk {
    pub(super) bytes: u64,
    /// What this process may still use of it.
    pub(super) free_bytes: u64,
}

/// As the system says, if it does.
pub(super) fn disk(core: &Core) -> Option<Disk> {
    let disk = nix::sys::statvfs::statvfs(&core.config.store).ok()?;
    let unit = disk.fragment_size();
    Some(Disk { bytes: disk.blocks() * unit, free_bytes: disk.blocks_available() * unit })
}
