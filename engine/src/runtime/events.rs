//! The event stream of a process: one JSON object per line, one write for each, nothing buffered, so that what a killed
//! process knew is not lost. Field `t` is `CLOCK_MONOTONIC` in nanoseconds.

use crate::{
    protocol::{Instant, Uid},
    runtime::{clock, event_readers::EventReaders},
};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    fmt::{self, Display, Write as _},
    fs::File,
    io::{self, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
};

/// How long a reader may leave the pipe full before the process stops.
const FULL_MS_MAX: u16 = 2_000;

/// Where events go.
#[derive(Debug)]
pub struct EventStream {
    file: Option<File>,
    readers: Option<EventReaders>,
    line: String,
    broken: bool,
}

impl EventStream {
    /// Events go nowhere.
    pub fn none() -> EventStream {
        EventStream { file: None, readers: None, line: String::new(), broken: false }
    }

    /// Opens `target`: `-` is standard output, `unix:PATH` a Unix socket for any number of readers, anything else a file to
    /// append to (it is made if absent).
    pub fn open(target: &str) -> io::Result<EventStream> {
        let (mut file, mut readers) = (None, None);
        match target {
            "-" => file = Some(standard_output()?),
            target => match target.strip_prefix("unix:") {
                Some(path) => readers = Some(EventReaders::listen(path.as_ref())?),
                None => file = Some(File::options().append(true).create(true).open(target)?),
            },
        }
        Ok(EventStream { file, readers, line: String::with_capacity(512), broken: false })
    }

    /// Writes what waits for readers of a socket. True: something still does, and this should be called again soon.
    pub fn flush(&mut self) -> bool {
        let Some(readers) = self.readers.as_mut().filter(|readers| readers.has_pending()) else { return false };
        readers.flush();
        readers.has_pending()
    }

    /// How many readers of the socket did not keep up and were cut off.
    pub fn readers_dropped(&self) -> u64 {
        self.readers.as_ref().map_or(0, |readers| readers.dropped)
    }

    /// Whether anybody listens: if not, events need not be made.
    pub fn is_on(&self) -> bool {
        self.file.is_some() || self.readers.is_some()
    }

    /// Whether the reader is gone, or has not read for 2 s: the process should stop.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Writes an event that happened now; `fields` adds its fields.
    pub fn emit(&mut self, kind: &str, fields: impl FnOnce(&mut Fields<'_>)) {
        if self.is_on() {
            self.emit_at(clock::monotonic(), kind, fields);
        }
    }

    /// Writes an event that happened at `at`.
    pub fn emit_at(&mut self, at: Instant, kind: &str, fields: impl FnOnce(&mut Fields<'_>)) {
        if !self.is_on() {
            return;
        }
        self.line.clear();
        let _ = write!(self.line, "{{\"t\":{},\"kind\":\"{kind}\"", at.0);
        fields(&mut Fields(&mut self.line));
        self.line.push_str("}\n");
        if let Some(readers) = &mut self.readers {
            readers.write(self.line.as_bytes());
        }
        let Some(file) = &mut self.file else { return };
        if let Err(error) = write_line(file, self.line.as_bytes()) {
            tracing::warn!("the event stream ends: {error}");
            self.broken = true;
            self.file = None;
        }
    }
}

/// Standard output. If it is a pipe it is opened anew, so that not blocking is a matter of this process alone and not of
/// all that share the pipe's end.
fn standard_output() -> io::Result<File> {
    let inherited = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    if !inherited.metadata()?.file_type().is_fifo() {
        return Ok(inherited);
    }
    let reopened = File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open("/proc/self/fd/1");
    Ok(reopened.unwrap_or(inherited))
}

/// Waits for room, but not for good: a pipe that nobody reads must not stop the event loop.
fn write_line(file: &mut File, line: &[u8]) -> io::Result<()> {
    let mut rest = line;
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(len) => rest = &rest[len..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(file)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(file: &File) -> io::Result<()> {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    match poll(&mut polled, PollTimeout::from(FULL_MS_MAX)) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "its reader does not read")),
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Fields of the event that is being written. Names are plain words.
#[derive(Debug)]
pub struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    /// A text; anything in it is escaped as JSON wants it.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let _ = write!(self.0, ",\"{name}\":{}", JsonText(value));
        self
    }

    /// A value whose text needs no escape: hashes, UIDs, paths, addresses.
    pub fn plain(&mut self, name: &str, value: impl Display) -> &mut Self {
        let _ = write!(self.0, ",\"{name}\":\"{value}\"");
        self
    }

    /// A number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    /// True or false.
    pub fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    /// A UID, if there is one.
    pub fn uid(&mut self, uid: Option<Uid>) -> &mut Self {
        match uid {
            Some(uid) => self.plain("uid", uid),
            None => self,
        }
    }
}

/// A text as a JSON string, quotes included.
#[derive(Clone, Copy, Debug)]
pub struct JsonText<'a>(pub &'a str);

impl Display for JsonText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut rest = self.0;
        while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c.is_control()) {
            f.write_str(&rest[..at])?;
            let special = rest[at..].chars().next().expect("found there");
            match special {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                other => write!(f, "\\u{:04x}", u32::from(other))?,
            }
            rest = &rest[at + special.len_utf8()..];
        }
        f.write_str(rest)?;
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_json_for_each_event() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut events = EventStream::open(file.path().to_str().unwrap()).unwrap();
        events.emit_at(Instant(7), "agreed", |fields| {
            fields.plain("path", "etc/hosts").text("key", "a\"b\\c\n\u{1}é").number("sp", 3).flag("deleted", true);
        });
        events.emit_at(Instant(8), "stopping", |_| {});
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            serde_json::json!({"t": 7, "kind": "agreed", "path": "etc/hosts", "key": "a\"b\\c\n\u{1}é", "sp": 3,
                "deleted": true})
        );
        assert_eq!(lines[1], serde_json::json!({"t": 8, "kind": "stopping"}));
        assert!(!events.is_broken());
    }
}
