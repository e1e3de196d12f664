//! What the application sees of a receiver beside its directory and its events: a command that is run when paths have
//! changed, an alarm when the receiver is stale, and the file that says how it is.

use super::{
    alarm::{Alarm, Turn},
    hook::{Call, Hook, Ran},
    status::StatusFile,
    tree::OWN,
};
use crate::{
    protocol::{
        Hash, Instant, Path, Uid,
        receiver::{Applied, Event, Receiver},
    },
    runtime::{clock, events::EventStream},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::PathBuf,
};

/// A path that has changed, as the command reads it.
#[derive(Clone, Serialize, Debug)]
struct ChangedLine {
    path: Path,
    uid: Uid,
    hash: Hash,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

/// The command for changes, and what it has not been told.
///
/// Invariant: `~acms/told` is there only if the command has been told of everything that is in place; it goes before
/// anything is put in place. So after a crash the command is told of all paths, rather than of too few.
#[derive(Debug)]
struct OnChange {
    hook: Hook,
    told: PathBuf,
    is_told: bool,
    untold: BTreeMap<Path, ChangedLine>,
    /// What the run at hand was told.
    telling: BTreeMap<Path, ChangedLine>,
    /// Paths of which something may be in place that is not in `untold` yet.
    in_doubt: BTreeSet<Path>,
    /// Everything of a snapshot is in place: what a crash had left untold can be told.
    is_complete: bool,
}

/// The command for the alarm.
#[derive(Debug)]
struct OnStale {
    hook: Hook,
    /// What it has to be told.
    turn: Option<Turn>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    directory: PathBuf,
    id: String,
    on_change: Option<OnChange>,
    on_stale: Option<OnStale>,
    alarm: Option<Alarm>,
    status: Option<StatusFile>,
    as_of_us: u64,
}

impl Watch {
    /// For the receiver `id` of `directory`; none: it keeps no files.
    pub(super) fn new(directory: Option<PathBuf>, id: String) -> Watch {
        let directory = directory.unwrap_or_default();
        Watch { directory, id, on_change: None, on_stale: None, alarm: None, status: None, as_of_us: 0 }
    }

    /// Runs a command when paths have changed.
    pub(super) fn on_change(&mut self, hook: Hook, receiver: &Receiver) {
        let told = self.directory.join(OWN).join("told");
        let is_told = told.exists();
        let mut untold = BTreeMap::new();
        if !is_told {
            let held = receiver.held().iter();
            let line = |(path, held): (&Path, &crate::protocol::receiver::Held)| {
                let (uid, hash, deleted) = (held.uid, held.hash, held.flags.deleted);
                (path.clone(), ChangedLine { path: path.clone(), uid, hash, deleted })
            };
            untold = held.map(line).collect();
        }
        let (telling, in_doubt) = (BTreeMap::new(), BTreeSet::new());
        self.on_change = Some(OnChange { hook, told, is_told, untold, telling, in_doubt, is_complete: false });
    }

    /// Tells when as-of is older than this, and runs a command then if there is one.
    pub(super) fn on_stale(&mut self, alarm: Alarm, hook: Option<Hook>) {
        self.alarm = Some(alarm);
        self.on_stale = hook.map(|hook| OnStale { hook, turn: None });
    }

    /// Writes down how it is.
    pub(super) fn keep_status(&mut self, status: StatusFile) {
        self.status = Some(status);
    }

    /// Something is about to be put in place at these paths.
    pub(super) fn before_apply<'a>(&mut self, paths: impl Iterator<Item = &'a Path>) {
        let Some(on_change) = &mut self.on_change else { return };
        on_change.in_doubt.extend(paths.cloned());
        if !on_change.is_told {
            return;
        }
        let own = self.directory.join(OWN);
        let removed = std::fs::remove_file(&on_change.told).and_then(|()| File::open(own)?.sync_all());
        match removed {
            Ok(()) => on_change.is_told = false,
            Err(error) => tracing::warn!("{}: {error}", on_change.told.display()),
        }
    }

    /// What became of it. Events of what is in place are noted before the next [`go_on`](Watch::go_on).
    pub(super) fn after_apply(&mut self, results: &[(Path, Applied)]) {
        let Some(on_change) = &mut self.on_change else { return };
        for (path, applied) in results {
            // What has failed may be in place all the same, until another try says what it came to.
            if !matches!(applied, Applied::Failed(_)) {
                on_change.in_doubt.remove(path);
            }
        }
    }

    /// An event of the receiver.
    pub(super) fn note(&mut self, event: &Event, receiver: &Receiver, events: &mut EventStream) {
        match event {
            Event::Applied { path, uid, hash, deleted } => {
                if let Some(on_change) = &mut self.on_change {
                    let line = ChangedLine { path: path.clone(), uid: *uid, hash: *hash, deleted: *deleted };
                    on_change.untold.insert(path.clone(), line);
                }
            }
            Event::Current { snapshot } => {
                self.as_of_us = snapshot.as_of_us;
                self.on_change.iter_mut().for_each(|on_change| on_change.is_complete = true);
                let turn = self.alarm.as_mut().and_then(|alarm| alarm.note(clock::now(), snapshot.as_of_us));
                self.turn(turn, events);
            }
            _ => {}
        }
        let Some(status) = &mut self.status else { return };
        let known = &mut status.known;
        match event {
            Event::Source { source } => known.source = Some(receiver.config().sources[*source].clone()),
            Event::Applied { path, .. } => drop(known.blocked.remove(path)),
            Event::Blocked { path, cause } => drop(known.blocked.insert(path.clone(), cause.clone())),
            Event::Current { snapshot } => {
                known.cursor = Some(snapshot.cursor().to_string());
                known.as_of_us = snapshot.as_of_us;
            }
            _ => {}
        }
        status.touch();
    }

    fn turn(&mut self, turn: Option<Turn>, events: &mut EventStream) {
        let (Some(turn), Some(alarm)) = (turn, &self.alarm) else { return };
        let kind = if turn == Turn::Stale { "stale" } else { "fresh" };
        let age = alarm.age(clock::now());
        events.emit(kind, |fields| {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            fields.number("as_of_us", self.as_of_us).number("age_ms", age_ms);
        });
        match turn {
            Turn::Stale => tracing::warn!("stale: what was accepted in the last {age:?} may be missing here"),
            Turn::Fresh => tracing::info!("fresh again: nothing is missing that was accepted over {age:?} ago"),
        }
        self.on_stale.iter_mut().for_each(|on_stale| on_stale.turn = Some(turn));
        if let Some(status) = &mut self.status {
            status.known.is_stale = turn == Turn::Stale;
            status.touch();
        }
    }

    /// When [`go_on`](Watch::go_on) is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let has_news = |on_change: &&OnChange| on_change.has_news();
        let change = self.on_change.as_ref().filter(has_news).and_then(|on_change| on_change.hook.free_at());
        let stale = self.on_stale.as_ref().filter(|on_stale| on_stale.turn.is_some());
        let stale = stale.and_then(|on_stale| on_stale.hook.free_at());
        let alarm = self.alarm.as_ref().and_then(Alarm::due);
        [change, stale, alarm, self.status.as_ref().and_then(StatusFile::due)].into_iter().flatten().min()
    }

    /// Whether a command runs, or is to be told that the receiver has become stale or fresh.
    pub(super) fn is_busy(&self) -> bool {
        let changes = self.on_change.as_ref().is_some_and(|on_change| on_change.hook.is_running());
        let is_pending = |on_stale: &OnStale| on_stale.hook.is_running() || on_stale.turn.is_some();
        changes || self.on_stale.as_ref().is_some_and(is_pending)
    }

    /// Whether the command for changes has something to be told.
    pub(super) fn has_news(&self) -> bool {
        self.on_change.as_ref().is_some_and(OnChange::has_news)
    }

    /// Takes the ends of commands, runs them again where there is something to tell, and writes down how it is.
    pub(super) fn go_on(&mut self, receiver: &Receiver, events: &mut EventStream) {
        let now = clock::monotonic();
        if self.alarm.as_ref().and_then(Alarm::due).is_some_and(|due| due <= now) {
            let turn = self.alarm.as_mut().and_then(|alarm| alarm.look(clock::now()));
            self.turn(turn, events);
        }
        self.tell_changes(now, events);
        self.tell_turn(now, events);
        if let Some(status) = &mut self.status {
            status.known.event_readers_dropped = events.readers_dropped();
            if status.due().is_some_and(|due| due <= now) {
                status.write(now, clock::wall(), receiver, true);
            }
        }
    }

    fn tell_changes(&mut self, now: Instant, events: &mut EventStream) {
        let Some(on_change) = &mut self.on_change else { return };
        if let Some(ran) = on_change.hook.take_ran(now) {
            let told = std::mem::take(&mut on_change.telling);
            if ran.failure.is_none() {
                on_change.note_told();
            }
            if !emit_ran(events, "change", told.len(), &ran) {
                // What has changed again since is told as it is now.
                let newer = std::mem::replace(&mut on_change.untold, told);
                on_change.untold.extend(newer);
                self.status.iter_mut().for_each(|status| status.known.command_failures += 1);
            }
        }
        if on_change.has_news() && on_change.hook.is_free(now) {
            on_change.telling = std::mem::take(&mut on_change.untold);
            let mut input = Vec::new();
            for line in on_change.telling.values() {
                let _ = serde_json::to_writer(&mut input, line);
                input.push(b'\n');
            }
            let variables = vec![
                ("ACMS_DIRECTORY", self.directory.display().to_string()),
                ("ACMS_RECEIVER", self.id.clone()),
                ("ACMS_CHANGES", on_change.telling.len().to_string()),
                ("ACMS_AS_OF", self.as_of_us.to_string()),
            ];
            on_change.hook.run(now, Call { variables, input });
        }
    }

    fn tell_turn(&mut self, now: Instant, events: &mut EventStream) {
        let Some(on_stale) = &mut self.on_stale else { return };
        if let Some(ran) = on_stale.hook.take_ran(now) {
            emit_ran(events, "stale", 0, &ran);
        }
        if let Some(turn) = on_stale.turn.take_if(|_| on_stale.hook.is_free(now)) {
            let state = if turn == Turn::Stale { "stale" } else { "fresh" };
            let variables = vec![
                ("ACMS_STATE", state.to_owned()),
                ("ACMS_DIRECTORY", self.directory.display().to_string()),
                ("ACMS_RECEIVER", self.id.clone()),
                ("ACMS_AS_OF", self.as_of_us.to_string()),
            ];
            on_stale.hook.run(now, Call { variables, input: Vec::new() });
        }
    }

    /// The receiver ends, and its commands with it.
    pub(super) fn finish(&mut self, receiver: &Receiver) {
        (self.on_change, self.on_stale) = (None, None);
        if let Some(status) = &mut self.status {
            status.write(clock::monotonic(), clock::wall(), receiver, false);
        }
    }
}

impl OnChange {
    fn has_news(&self) -> bool {
        self.is_complete && !self.untold.is_empty()
    }

    /// The command has taken note of what it was told.
    fn note_told(&mut self) {
        if self.untold.is_empty() && self.in_doubt.is_empty() && !self.is_told {
            match File::create(&self.told) {
                Ok(_) => self.is_told = true,
                Err(error) => tracing::warn!("{}: {error}", self.told.display()),
            }
        }
    }
}

/// Says how a command has ended; whether it did well.
fn emit_ran(events: &mut EventStream, what: &str, changes: usize, ran: &Ran) -> bool {
    let took_ms = u64::try_from(ran.took.as_millis()).unwrap_or(u64::MAX);
    let kind = if ran.failure.is_some() { "command_failed" } else { "command_done" };
    events.emit(kind, |fields| {
        fields.plain("on", what).number("changes", changes as u64).number("took_ms", took_ms);
        if let Some(cause) = &ran.failure {
            fields.text("cause", cause);
        }
    });
    if let Some(cause) = &ran.failure {
        tracing::warn!("the command for --on-{what} has failed: {cause}");
    }
    ran.failure.is_none()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::protocol::{
        Duration, Prefix,
        receiver::{ReceiverConfig, Recovered},
    };
    use mio::{Poll, Token, Waker};
    use std::{iter::once, sync::Arc};

    /// A watch whose command takes note of everything, and its receiver.
    fn watch(directory: &std::path::Path) -> (Watch, Receiver) {
        std::fs::create_dir(directory.join(OWN)).unwrap();
        let (sources, prefixes) = (vec!["http://127.0.0.1:1".into()], vec![Prefix::default()]);
        let config = ReceiverConfig { id: "r".into(), sources, prefixes, poll: None };
        let receiver = Receiver::new(config, 1, Recovered::default()).unwrap();
        let waker = Arc::new(Waker::new(Poll::new().unwrap().registry(), Token(0)).unwrap());
        let mut watch = Watch::new(Some(directory.to_owned()), "r".into());
        watch.on_change(Hook::new("true".into(), Duration::from_secs(60), waker), &receiver);
        watch.on_change.as_mut().unwrap().is_complete = true;
        (watch, receiver)
    }

    fn note_applied(watch: &mut Watch, receiver: &Receiver, path: &Path) {
        let event = Event::Applied { path: path.clone(), uid: Uid::ZERO, hash: Hash::of(b""), deleted: false };
        watch.note(&event, receiver, &mut EventStream::none());
    }

    /// Has the command begin, something else happen, and the command end.
    fn run(watch: &mut Watch, receiver: &Receiver, meanwhile: impl FnOnce(&mut Watch)) {
        let mut events = EventStream::none();
        watch.go_on(receiver, &mut events);
        assert!(watch.is_busy());
        meanwhile(watch);
        while watch.is_busy() {
            std::thread::sleep(Duration::from_millis(5));
            watch.go_on(receiver, &mut events);
        }
    }

    #[test]
    fn not_everything_is_told_while_something_may_be_in_place_of_which_no_event_has_come() {
        let directory = tempfile::tempdir().unwrap();
        let (mut watch, receiver) = watch(directory.path());
        let told = directory.path().join(OWN).join("told");
        let (one, two): (Path, Path) = ("one".parse().unwrap(), "two".parse().unwrap());
        watch.before_apply(once(&one));
        watch.after_apply(&[(one.clone(), Applied::Done)]);
        note_applied(&mut watch, &receiver, &one);
        // The second batch begins while the command runs, and ends later.
        run(&mut watch, &receiver, |watch| watch.before_apply(once(&two)));
        assert!(!told.exists());
        // Its file may be in place although it could not be recorded.
        watch.after_apply(&[(two.clone(), Applied::Failed("the disk is full".into()))]);
        note_applied(&mut watch, &receiver, &one);
        run(&mut watch, &receiver, |_| {});
        assert!(!told.exists());
        watch.before_apply(once(&two));
        watch.after_apply(&[(two.clone(), Applied::Done)]);
        note_applied(&mut watch, &receiver, &two);
        run(&mut watch, &receiver, |_| {});
        assert!(told.exists());
        watch.before_apply(once(&one));
        assert!(!told.exists());
    }
}
