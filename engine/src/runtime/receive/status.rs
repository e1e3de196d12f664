//! `DIR/~acms/status.json`: what a receiver is doing, for people and monitoring, written anew when it has changed, at most
//! once a second. It is replaced as a whole and never flushed: after a crash the state says what is true.

use super::tree::OWN;
use crate::protocol::{Duration, Instant, Micros, Path, receiver::Receiver};
use serde::Serialize;
use std::{collections::BTreeMap, io, path::PathBuf};

/// Shortest time between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Most blocked paths that are named.
const NAMED_MAX: usize = 100;

/// What the event loop knows of a receiver.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) source: Option<String>,
    /// `<sp>.<incarnation>.<sequence>` of the last snapshot of which all is in place.
    pub(super) cursor: Option<String>,
    pub(super) as_of_us: u64,
    /// Why, of each blocked path.
    pub(super) blocked: BTreeMap<Path, String>,
    pub(super) is_stale: bool,
    pub(super) command_failures: u64,
    pub(super) event_readers_dropped: u64,
}

#[derive(Serialize)]
struct Blocked<'a> {
    path: &'a Path,
    cause: &'a str,
}

#[derive(Serialize)]
struct Status<'a> {
    running: bool,
    pid: u32,
    id: &'a str,
    written_at_us: u64,
    source: Option<&'a str>,
    snapshot: Option<&'a str>,
    as_of_us: u64,
    stale: bool,
    paths: usize,
    blocked_count: usize,
    blocked: Vec<Blocked<'a>>,
    sources_left: u64,
    moves: u64,
    wrong_hashes: u64,
    malformed: u64,
    nodes: u64,
    contents: u64,
    command_failures: u64,
    event_readers_dropped: u64,
}

/// The file.
#[derive(Debug)]
pub(super) struct StatusFile {
    directory: PathBuf,
    written_at: Option<Instant>,
    is_dirty: bool,
    pub(super) known: Known,
}

impl StatusFile {
    /// In the directory `into`, which is open.
    pub(super) fn new(into: &std::path::Path) -> StatusFile {
        StatusFile { directory: into.join(OWN), written_at: None, is_dirty: true, known: Known::default() }
    }

    /// Something has changed.
    pub(super) fn touch(&mut self) {
        self.is_dirty = true;
    }

    /// When [`write`](StatusFile::write) is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_dirty.then(|| self.written_at.map_or(Instant(0), |at| at.after(WRITE_EVERY)))
    }

    /// Writes it. That it cannot be written hinders nothing.
    pub(super) fn write(&mut self, now: Instant, wall: Micros, receiver: &Receiver, running: bool) {
        (self.is_dirty, self.written_at) = (false, Some(now));
        let (known, counters) = (&self.known, receiver.counters());
        let blocked = known.blocked.iter().take(NAMED_MAX).map(|(path, cause)| Blocked { path, cause });
        let status = Status {
            running,
            pid: std::process::id(),
            id: &receiver.config().id,
            written_at_us: wall.0,
            source: known.source.as_deref(),
            snapshot: known.cursor.as_deref(),
            as_of_us: known.as_of_us,
            stale: known.is_stale,
            paths: receiver.held().values().filter(|held| !held.flags.deleted).count(),
            blocked_count: known.blocked.len(),
            blocked: blocked.collect(),
            sources_left: counters.sources_left,
            moves: counters.moves,
            wrong_hashes: counters.wrong_hashes,
            malformed: counters.malformed,
            nodes: counters.nodes,
            contents: counters.contents,
            command_failures: known.command_failures,
            event_readers_dropped: known.event_readers_dropped,
        };
        if let Err(error) = self.replace(&status) {
            tracing::debug!("the status cannot be written: {error}");
        }
    }

    fn replace(&self, status: &Status<'_>) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(status)?;
        text.push(b'\n');
        let new = self.directory.join("status.new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, self.directory.join("status.json"))
    }
}
