//! A trace as a history of operations, for those who own other checkers.
//!
//! One JSON object a line, in the form that Jepsen's and Porcupine's users know: `{"index", "time", "process", "type",
//! "f", "key", "value", ...}`. `type` is `invoke`, then `ok` (accepted), `fail` (rejected: it did not and will not happen)
//! or `info` (undetermined). `f` is `write` (one attempt at publishing `value`, the hash of a content or null for a
//! deletion, as the path `key`) or `read` (what a storage point's index held of a path at the end). A process has one
//! operation under way at a time; after `info` its number is not used again. Of overlapping attempts under one
//! idempotency key the earliest is taken to end first.

use super::{Event, Kind, Sink, Text};
use acms_engine::protocol::{Hash, Uid};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, Write},
};

#[derive(Serialize)]
struct Operation<'a> {
    index: u64,
    /// Nanoseconds, as in the trace.
    time: u64,
    process: u64,
    #[serde(rename = "type")]
    kind: &'static str,
    f: &'static str,
    key: &'a str,
    value: Option<Hash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<Uid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// An attempt that has no outcome yet.
#[derive(Debug)]
struct Open {
    process: u64,
    path: Text,
    value: Option<Hash>,
}

/// Writes the history of the events that it is given. What fails is told by [`History::finish`].
#[derive(Debug)]
pub struct History<W> {
    to: W,
    index: u64,
    open: BTreeMap<Text, VecDeque<Open>>,
    free: BTreeSet<u64>,
    processes: u64,
    readers: BTreeMap<Text, u64>,
    failed: Option<io::Error>,
}

impl<W: Write> History<W> {
    /// A history written to `to`.
    pub fn new(to: W) -> History<W> {
        let (open, readers) = (BTreeMap::new(), BTreeMap::new());
        History { to, index: 0, open, free: BTreeSet::new(), processes: 0, readers, failed: None }
    }

    /// The next event.
    pub fn observe(&mut self, event: &Event) {
        match event.kind {
            Kind::Invoke => self.invoke(event),
            Kind::Outcome => self.end(event),
            Kind::AuditSp => self.read(event),
            _ => {}
        }
    }

    /// How many lines there are; or why not all could be written.
    pub fn finish(mut self) -> io::Result<u64> {
        self.failed.map_or(Ok(()), Err)?;
        self.to.flush().map(|()| self.index)
    }

    fn new_process(&mut self) -> u64 {
        self.free.pop_first().unwrap_or_else(|| {
            self.processes += 1;
            self.processes - 1
        })
    }

    fn invoke(&mut self, event: &Event) {
        let (Some(key), Some(path)) = (&event.publication, &event.path) else { return };
        let process = self.new_process();
        let value = event.hash.filter(|_| !event.is_deletion());
        self.line(event, process, "invoke", "write", path, value, None);
        self.open.entry(Text::clone(key)).or_default().push_back(Open { process, path: Text::clone(path), value });
    }

    fn end(&mut self, event: &Event) {
        let Some(key) = &event.publication else { return };
        let Some(open) = self.open.get_mut(key).and_then(VecDeque::pop_front) else { return };
        if self.open.get(key).is_some_and(VecDeque::is_empty) {
            self.open.remove(key);
        }
        let kind = match event.outcome.as_deref() {
            Some("accepted") => "ok",
            Some("rejected") => "fail",
            _ => "info",
        };
        if kind != "info" {
            self.free.insert(open.process);
        }
        self.line(event, open.process, kind, "write", &open.path, open.value, event.cause.as_deref());
    }

    fn read(&mut self, event: &Event) {
        let Some(path) = &event.path else { return };
        let process = self.readers.get(&event.process).copied().unwrap_or_else(|| {
            let process = self.new_process();
            self.readers.insert(Text::clone(&event.process), process);
            process
        });
        let value = event.hash.filter(|_| !event.is_deletion());
        self.line(&Event { uid: None, ..event.clone() }, process, "invoke", "read", path, None, None);
        self.line(event, process, "ok", "read", path, value, None);
    }

    #[allow(clippy::too_many_arguments, reason = "one for each field of the line")]
    fn line(
        &mut self,
        event: &Event,
        process: u64,
        kind: &'static str,
        f: &'static str,
        key: &str,
        value: Option<Hash>,
        error: Option<&str>,
    ) {
        let operation = Operation {
            index: self.index,
            time: event.time_ns,
            process,
            kind,
            f,
            key,
            value,
            uid: event.uid.filter(|_| kind != "invoke"),
            idempotency_key: event.publication.as_deref(),
            error,
        };
        self.index += 1;
        if self.failed.is_none() {
            let written = serde_json::to_writer(&mut self.to, &operation).map_err(io::Error::from);
            self.failed = written.and_then(|()| self.to.write_all(b"\n")).err();
        }
    }
}

impl<W: Write> Sink for History<W> {
    fn record(&mut self, event: Event) {
        self.observe(&event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::testing::trace;

    #[test]
    fn operations_have_one_process_each_and_end_once() {
        let trace = trace(
            "1 publisher invoke key=k1 path=a hash=x
             2 publisher invoke key=k2 path=b hash=y
             3 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted
             4 publisher invoke key=k3 path=a hash=e outcome=deleted
             5 publisher outcome key=k2 outcome=undetermined cause=lost
             6 publisher outcome key=k3 outcome=rejected cause=late
             7 publisher invoke key=k2 path=b hash=y
             8 publisher outcome key=k2 uid=11.1.0 outcome=accepted
             9 sp1 audit_sp path=a uid=10.1.0 hash=x",
        );
        let mut history = History::new(Vec::new());
        trace.events().iter().for_each(|event| history.observe(event));
        let text = String::from_utf8(std::mem::take(&mut history.to)).unwrap();
        assert_eq!(history.finish().unwrap(), 10);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown: Vec<_> = lines
            .iter()
            .map(|line| format!("{} {} {} {}", line["process"], line["type"].as_str().unwrap(), line["f"], line["key"]))
            .collect();
        assert_eq!(
            shown,
            [
                r#"0 invoke "write" "a""#,
                r#"1 invoke "write" "b""#,
                r#"0 ok "write" "a""#,
                r#"0 invoke "write" "a""#,
                r#"1 info "write" "b""#,
                r#"0 fail "write" "a""#,
                r#"0 invoke "write" "b""#,
                r#"0 ok "write" "b""#,
                r#"0 invoke "read" "a""#,
                r#"0 ok "read" "a""#,
            ]
        );
        assert!(lines[3]["value"].is_null() && lines[0]["value"] == Hash::of(b"x").to_string());
        assert_eq!(
            (&lines[2]["uid"], &lines[4]["error"], &lines[9]["index"]),
            (&"10.1.0".into(), &"lost".into(), &9.into())
        );
    }
}
