//! Requests whose answer waits for a change: by prefix those of the changes feed, one by one those of a path.
//!
//! Wake-ups come in rounds. What changed while a round is being written waits for the next round, so under load answers
//! carry more instead of coming more often. Within a round each body is built once and shared.

use crate::{
    protocol::{
        Duration, Instant, Path, Prefix,
        api::{Changes, Cursor},
        io::ChangesAnswer,
    },
    runtime::{
        http::answer::{HttpDate, Outbox},
        storage_point::{
            connection::{ConnectionId, State},
            core::Core,
            environment::Changed,
            read::ConfigRead,
        },
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
};

/// A changes request is held this long at most.
const HOLD_TIME: Duration = Duration::from_secs(25);
/// Contents up to this are put into the answer ...
const INLINE_LEN_MAX: u64 = 4 << 10;
/// ... up to this in all.
const INLINE_TOTAL_MAX: u64 = 64 << 10;
/// Answers written before the rest of the loop has its turn.
const ROUND_SLICE: usize = 256;

#[derive(Debug)]
struct ChangesHold {
    cursor: Cursor,
    prefix: Prefix,
    until: Instant,
}

/// An answer of the changes feed that many connections may be sent.
#[derive(Clone, Debug)]
pub(super) struct SharedAnswer {
    /// Head and body, for a plain GET on a connection that stays open.
    pub(super) whole: Bytes,
    body: Bytes,
    is_full: bool,
}

impl SharedAnswer {
    fn new(changes: &Changes, date: &HttpDate) -> SharedAnswer {
        let mut body = serde_json::to_vec(changes).unwrap_or_default();
        body.push(b'\n');
        let mut answer = SharedAnswer { whole: Bytes::new(), body: body.into(), is_full: changes.full };
        let (mut bytes, mut queue) = (Vec::with_capacity(256 + answer.body.len()), VecDeque::new());
        let mut out = Outbox {
            bytes: &mut bytes,
            queue: &mut queue,
            date: date.clone(),
            head_only: false,
            close: false,
            is_http10: false,
        };
        answer.write_head(&mut out);
        out.body(&answer.body);
        answer.whole = bytes.into();
        answer
    }

    fn write_head(&self, out: &mut Outbox<'_>) {
        let age = if self.is_full { "max-age=1" } else { "max-age=60, stale-while-revalidate=0" };
        out.begin(200).header("Cache-Control", age).header("Content-Type", "application/json");
    }

    /// Writes the answer in the form that the request asked for.
    pub(super) fn write(&self, out: &mut Outbox<'_>) {
        self.write_head(out);
        out.shared_body(self.body.clone());
    }
}

/// All requests that are held.
#[derive(Debug, Default)]
pub(super) struct Holds {
    groups: BTreeMap<String, BTreeSet<ConnectionId>>,
    changes: BTreeMap<ConnectionId, ChangesHold>,
    configs: BTreeMap<ConnectionId, (ConfigRead, Instant)>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
    /// Prefixes whose requests may have an answer.
    dirty: BTreeSet<String>,
    /// All of them may have one, if only that the sequence has moved.
    idle: bool,
    /// Those of the current round that are still to be looked at, and whether moving on suffices for them.
    round: VecDeque<(ConnectionId, bool)>,
    bodies: BTreeMap<(Cursor, String), SharedAnswer>,
    bodies_sequence: u64,
}

impl Holds {
    /// How many requests are held.
    pub(super) fn len(&self) -> usize {
        self.changes.len() + self.configs.len()
    }

    /// Whether a round is under way.
    pub(super) fn is_busy(&self) -> bool {
        !self.round.is_empty()
    }

    /// The first time at which a held request has to be looked at.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    fn hold_changes(&mut self, id: ConnectionId, cursor: Cursor, prefix: Prefix, until: Instant) {
        self.groups.entry(prefix.as_str().to_owned()).or_default().insert(id);
        self.deadlines.insert((until, id));
        self.changes.insert(id, ChangesHold { cursor, prefix, until });
    }

    /// Holds a read of a path.
    pub(super) fn hold_config(&mut self, id: ConnectionId, read: ConfigRead, until: Instant) {
        self.deadlines.insert((until, id));
        self.configs.insert(id, (read, until));
    }

    /// The connection is gone, or has its answer.
    pub(super) fn release(&mut self, id: ConnectionId) {
        if let Some(hold) = self.changes.remove(&id) {
            self.deadlines.remove(&(hold.until, id));
            if let Some(group) = self.groups.get_mut(hold.prefix.as_str()) {
                group.remove(&id);
                if group.is_empty() {
                    self.groups.remove(hold.prefix.as_str());
                }
            }
        }
        if let Some((_, until)) = self.configs.remove(&id) {
            self.deadlines.remove(&(until, id));
        }
    }

    /// All connections with a held request.
    pub(super) fn connections(&self) -> Vec<ConnectionId> {
        self.changes.keys().chain(self.configs.keys()).copied().collect()
    }

    /// Notes which prefixes a change concerns: those it lies under, and those that it hides.
    fn mark(&mut self, path: &Path) {
        let path = path.as_str();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([0, path.len()]);
        for prefix in ends.map(|end| &path[..end]) {
            if self.groups.contains_key(prefix) {
                self.dirty.insert(prefix.to_owned());
            }
        }
        let below = format!("{path}/");
        let hidden = self.groups.range(below.clone()..).take_while(|(prefix, _)| prefix.starts_with(&below));
        self.dirty.extend(hidden.map(|(prefix, _)| prefix.clone()));
    }

    /// Begins a round if one is due and none is under way.
    fn begin_round(&mut self) {
        if self.is_busy() {
            return;
        }
        if mem::take(&mut self.idle) {
            self.dirty.clear();
            self.round.extend(self.changes.keys().map(|id| (*id, true)));
        } else {
            for prefix in mem::take(&mut self.dirty) {
                self.round.extend(self.groups.get(&prefix).into_iter().flatten().map(|id| (*id, false)));
            }
        }
        if self.is_busy() {
            self.bodies.clear();
        }
    }
}

/// Answers a request of the changes feed, or holds it.
pub(super) fn changes(
    core: &mut Core,
    id: ConnectionId,
    cursor: Cursor,
    prefix: Prefix,
    out: &mut Outbox<'_>,
) -> State {
    core.counters.changes_total += 1;
    if core.holds.is_busy() {
        // The round under way comes first; this one has its turn in the next.
        core.holds.dirty.insert(prefix.as_str().to_owned());
    } else if let Some(answer) = answer_for(core, cursor, &prefix, false) {
        answer.write(out);
        return State::Head;
    }
    let until = core.now.instant.after(HOLD_TIME);
    core.holds.hold_changes(id, cursor, prefix, until);
    State::Held
}

/// The answer to a request, if it has one now; with `moving_on`, that the sequence has moved is one.
fn answer_for(core: &mut Core, cursor: Cursor, prefix: &Prefix, moving_on: bool) -> Option<SharedAnswer> {
    let here = core.sp.cursor();
    if !core.holds.is_busy() && core.holds.bodies_sequence != here.sequence {
        core.holds.bodies.clear();
    }
    core.holds.bodies_sequence = here.sequence;
    let key = (cursor, prefix.as_str().to_owned());
    if let Some(answer) = core.holds.bodies.get(&key) {
        return Some(answer.clone());
    }
    let mut changes = match core.sp.changes(core.now.wall, cursor, prefix) {
        ChangesAnswer::Now(changes) => changes,
        ChangesAnswer::Hold if moving_on && here > cursor => core.sp.changes_now(core.now.wall, cursor, prefix),
        ChangesAnswer::Hold => return None,
    };
    fill_in(core, &mut changes);
    let answer = SharedAnswer::new(&changes, &core.date);
    core.holds.bodies.insert(key, answer.clone());
    Some(answer)
}

/// Puts small contents into the answer.
fn fill_in(core: &Core, changes: &mut Changes) {
    let mut room = INLINE_TOTAL_MAX;
    for entry in &mut changes.entries {
        if entry.flags.deleted || entry.size > INLINE_LEN_MAX.min(room) {
            continue;
        }
        // What cannot be read now the receiver fetches by hash.
        let read = if entry.size == 0 { Ok(Bytes::new()) } else { core.io.contents.read(&entry.hash, 0, entry.size) };
        if let Ok(bytes) = read {
            room -= entry.size;
            entry.inline = Some(bytes.into());
        }
    }
}

/// Notes what a cycle has changed, and gives the reads of paths that may have an answer now.
pub(super) fn note_changes(core: &mut Core, changed: &Changed) -> Vec<ConnectionId> {
    core.holds.idle |= changed.idle;
    changed.paths.iter().for_each(|path| core.holds.mark(path));
    if core.holds.configs.is_empty() || (changed.paths.is_empty() && !changed.knowledge) {
        return Vec::new();
    }
    let concerned = |read: &ConfigRead| read.at_least.is_some() || changed.paths.contains(&read.path);
    core.holds.configs.iter().filter(|(_, (read, _))| concerned(read)).map(|(id, _)| *id).collect()
}

/// A slice of the current round: connections and their answers. Their holds are released.
pub(super) fn next_answers(core: &mut Core) -> Vec<(ConnectionId, SharedAnswer)> {
    core.holds.begin_round();
    let mut answers = Vec::new();
    for _ in 0..ROUND_SLICE {
        let Some((id, moving_on)) = core.holds.round.pop_front() else { break };
        let Some(hold) = core.holds.changes.get(&id) else { continue };
        let (cursor, prefix) = (hold.cursor, hold.prefix.clone());
        if let Some(answer) = answer_for(core, cursor, &prefix, moving_on) {
            core.holds.release(id);
            answers.push((id, answer));
        }
    }
    answers
}

/// Requests that have been held long enough: reads of paths to be looked at again. Those of the changes feed join the
/// next round.
pub(super) fn take_overdue(core: &mut Core) -> Vec<ConnectionId> {
    let now = core.now.instant;
    let mut reads = Vec::new();
    while let Some((until, id)) = core.holds.deadlines.first().copied().filter(|(until, _)| *until <= now) {
        core.holds.deadlines.remove(&(until, id));
        if core.holds.changes.contains_key(&id) {
            core.holds.round.push_back((id, true));
        } else {
            reads.push(id);
        }
    }
    reads
}

/// The read that a connection waits with; it is no longer held.
pub(super) fn take_config(core: &mut Core, id: ConnectionId) -> Option<ConfigRead> {
    let read = core.holds.configs.get(&id).map(|(read, _)| read.clone());
    if read.is_some() {
        core.holds.release(id);
    }
    read
}
