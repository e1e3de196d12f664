//! The table of `acms status`: aligned columns; a storage point that does not answer has its error in place of figures.

use super::{
    Asked,
    answer::{Answer, Peer},
    verdict::clock_offsets,
};
use std::collections::BTreeMap;

const TITLES: [&str; 13] =
    ["SP", "URL", "VERSION", "UP", "STORE", "ROOT", "PATHS", "AS-OF", "PENDING", "PEERS", "CLOCK", "DISK", "LOG"];

/// The table's lines.
pub(super) fn lines(asked: &[Asked]) -> Vec<String> {
    let answers: Vec<&Answer> = asked.iter().filter_map(|one| one.answer.as_ref().ok()).collect();
    let offsets = clock_offsets(&answers);
    let mut rows = vec![TITLES.map(str::to_owned).to_vec()];
    rows.extend(asked.iter().map(|one| row(one, &offsets)));
    let mut widths = vec![0; TITLES.len()];
    for row in rows.iter().filter(|row| row.len() == TITLES.len()) {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.chars().count().max(*width));
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(one: &Asked, offsets: &BTreeMap<u8, i64>) -> Vec<String> {
    let answer = match &one.answer {
        Ok(answer) => answer,
        Err(_) => return vec!["?".into(), one.url.clone(), "does not answer".into()],
    };
    let peers: Vec<String> = answer.peers.iter().map(peer).collect();
    let offset = offsets.get(&answer.sp).map_or("-".into(), |us| format!("{:+.1}ms", *us as f64 / 1e3));
    let disk = match (answer.disk_used_percent(), answer.store.free_bytes) {
        (Some(used), Some(free)) => format!("{used}%, {} free", bytes(free)),
        _ => "-".into(),
    };
    vec![
        answer.sp.to_string(),
        one.url.clone(),
        answer.version.clone(),
        seconds(answer.uptime_s),
        answer.incarnation.clone(),
        answer.root.chars().take(12).collect(),
        answer.protocol.paths.to_string(),
        answer.as_of_age_ms().map_or("never".into(), age),
        answer.protocol.pending.to_string(),
        if peers.is_empty() { "-".into() } else { peers.join(" ") },
        offset,
        disk,
        bytes(answer.store.log.log_bytes),
    ]
}

fn peer(peer: &Peer) -> String {
    let state = match (peer.connected, peer.round_trip_us, peer.down_s) {
        (true, Some(us), _) => format!("{:.1}ms", us as f64 / 1e3),
        (true, None, _) => "up".into(),
        (false, _, Some(down)) => format!("down({})", seconds(down)),
        (false, ..) => "down".into(),
    };
    format!("{}:{state}", peer.id)
}

fn age(ms: u64) -> String {
    if ms < 10_000 { format!("{:.1}s", ms as f64 / 1e3) } else { seconds(ms / 1_000) }
}

fn seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}min", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or(format!("{bytes}B"), |(shift, name)| format!("{:.1}{name}", bytes as f64 / (1u64 << shift) as f64))
}
