//! A trace as a history of operations, for those who own other checkers.
//!
//! One JSON object a line, in the form that Jepsen's and Porcupine's users know: `{"index", "time", "process", "type",
//! "f", "key", "value", ...}`. `type` is `invoke`, then `ok` (accepted), `fail` (rejected: it did not and will not happen)
//! or `info` (undetermined). `f` is `write` (one attempt at publishing `value`, the hash of a content or null for a
//! deletion, as the path `key`) or `read` (what a storage point's index held of a path at the end). A process has one
//! operation under way at a time; after `info` its number is not used again. Attempts and outcomes belong together by
//! the word `attempt=...` in their causes; without it, of overlapping attempts under one idempotency key the earliest is
//! taken to end first. A storage point whose index was read to its end has been asked for every path that was ever
//! written: of those that it does not have it reads null.

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
    /// What tells it from others under its key.
    attempt: Option<String>,
    process: u64,
    path: Text,
    value: Option<Hash>,
}

/// Who reads at a storage point, and of which paths it has read something.
#[derive(Debug, Default)]
struct Reader {
    process: u64,
    found: BTreeSet<Text>,
}

/// The number of an attempt, and the rest of a cause.
fn attempt(cause: Option<&str>) -> (Option<&str>, Option<&str>) {
    let Some(cause) = cause else { return (None, None) };
    let number = cause.split(' ').find_map(|word| word.strip_prefix("attempt="));
    match cause.strip_prefix("attempt=") {
        Some(rest) => (number, rest.split_once(' ').map(|(_, rest)| rest)),
        None => (number, Some(cause)),
    }
}

/// Writes the history of the events that it is given. What fails is told by [`History::finish`].
#[derive(Debug)]
pub struct History<W> {
    to: W,
    index: u64,
    open: BTreeMap<Text, VecDeque<Open>>,
    free: BTreeSet<u64>,
    processes: u64,
    readers: BTreeMap<Text, Reader>,
    /// Paths that were ever written.
    written: BTreeSet<Text>,
    failed: Option<io::Error>,
}

impl<W: Write> History<W> {
    /// A history written to `to`.
    pub fn new(to: W) -> History<W> {
        let (open, readers, free, written) = Default::default();
        History { to, index: 0, open, free, processes: 0, readers, written, failed: None }
    }

    /// The next event.
    pub fn observe(&mut self, event: &Event) {
        match event.kind {
            Kind::Invoke => self.invoke(event),
            Kind::Outcome => self.end(event),
            Kind::AuditSp => self.read(event),
            Kind::AuditEnd if event.outcome.as_deref() == Some("complete") && event.process.starts_with("sp") => {
                self.read_nothing(event);
            }
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
        let attempt = attempt(event.cause.as_deref()).0.map(str::to_owned);
        self.written.insert(Text::clone(path));
        self.open.entry(Text::clone(key)).or_default().push_back(Open {
            attempt,
            process,
            path: Text::clone(path),
            value,
        });
    }

    fn end(&mut self, event: &Event) {
        let Some(key) = &event.publication else { return };
        let (number, error) = attempt(event.cause.as_deref());
        let Some(all) = self.open.get_mut(key) else { return };
        let place = all.iter().position(|open| number.is_some() && open.attempt.as_deref() == number);
        let Some(open) = all.remove(place.unwrap_or(0)) else { return };
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
        self.line(event, open.process, kind, "write", &open.path, open.value, error);
    }

    fn read(&mut self, event: &Event) {
        let Some(path) = &event.path else { return };
        let process = self.reader(&event.process);
        if let Some(reader) = self.readers.get_mut(&event.process) {
            reader.found.insert(Text::clone(path));
        }
        let value = event.hash.filter(|_| !event.is_deletion());
        self.line(&Event { uid: None, ..event.clone() }, process, "invoke", "read", path, None, None);
        self.line(event, process, "ok", "read", path, value, None);
    }

    /// The whole index was read: it has nothing of the other paths.
    fn read_nothing(&mut self, event: &Event) {
        let process = self.reader(&event.process);
        let found = self.readers.remove(&event.process).unwrap_or_default().found;
        let missing: Vec<Text> = self.written.difference(&found).cloned().collect();
        let event = Event { uid: None, ..event.clone() };
        for path in missing {
            self.line(&event, process, "invoke", "read", &path, None, None);
            self.line(&event, process, "ok", "read", &path, None, None);
        }
        self.free.insert(process);
    }

    /// The process that reads at a storage point.
    fn reader(&mut self, name: &Text) -> u64 {
        if let Some(reader) = self.readers.get(name) {
            return reader.process;
        }
        let process = self.new_process();
        self.readers.insert(Text::clone(name), Reader { process, ..Reader::default() });
        process
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

    fn lines(text: &str) -> Vec<serde_json::Value> {
        let mut history = History::new(Vec::new());
        trace(text).events().iter().for_each(|event| history.observe(event));
        let text = String::from_utf8(history.to).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn overlapping_attempts_end_with_their_own_outcomes() {
        let lines = lines(
            "1 publisher invoke key=k1 path=a hash=x cause=sp1;attempt=1-1
             2 publisher invoke key=k1 path=a hash=x cause=sp2;attempt=2-1
             3 publisher outcome key=k1 path=a outcome=rejected cause=attempt=2-1;no;quorum
             4 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted cause=attempt=1-1",
        );
        let shown: Vec<_> = lines.iter().map(|line| (line["process"].as_u64(), line["type"].as_str())).collect();
        let (first, second) = (Some(0), Some(1));
        let expected = [(first, Some("invoke")), (second, Some("invoke")), (second, Some("fail")), (first, Some("ok"))];
        assert_eq!(shown, expected);
        assert_eq!((&lines[2]["error"], &lines[3]["error"]), (&"no quorum".into(), &serde_json::Value::Null));
    }

    #[test]
    fn what_was_written_and_is_not_there_is_read_as_null() {
        let lines = lines(
            "1 publisher invoke key=k1 path=a hash=x
             2 publisher outcome key=k1 path=a uid=10.1.0 outcome=accepted
             3 publisher invoke key=k2 path=b hash=y
             4 publisher outcome key=k2 path=b uid=11.1.0 outcome=accepted
             5 sp1 audit_sp path=a uid=10.1.0 hash=x
             6 sp1 audit_end outcome=complete
             6 sp2 audit_end outcome=incomplete",
        );
        let reads: Vec<_> = lines.iter().filter(|line| line["f"] == "read" && line["type"] == "ok").collect();
        assert_eq!(reads.len(), 2, "{reads:?}");
        assert!(reads[1]["key"] == "b" && reads[1]["value"].is_null());
    }

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
