//! What a receiver holds, durably: `DIR/~acms/state`, one JSON object per line, later lines win (engine/docs/FORMATS.md).
//!
//! `DIR/~acms/intent` and `intent-2` have, by turns, the lines of the batch that is being applied, written before any of
//! its files is put in place: after a crash they tell which files are newer than the state says, so that no path can go
//! back. One is only overwritten once the other is durable.

use super::disk::Line as Entry;
use crate::protocol::{
    Flags, Hash, Path, Prefix, Uid,
    api::Snapshot,
    receiver::{Held, Presence, Reached, Recovered},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

/// The state is written anew when it is longer than this and mostly superseded.
const REWRITE_LEN_MIN: u64 = 64 << 10;
/// The format, which the first line names. A state without that line is of format 1, which had entries only.
const FORMAT: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormatLine {
    format: u32,
}

#[derive(Serialize, Deserialize)]
struct ReachedLine {
    snapshot: Snapshot,
    subscribed: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: Path,
    uid: Uid,
    hash: Hash,
    flags: Vec<String>,
    size: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hidden: bool,
}

/// The line of an entry, its end included.
pub fn line(path: &Path, held: &Held) -> String {
    let line = Line {
        path: path.clone(),
        uid: held.uid,
        hash: held.hash,
        flags: held.flags.names().map(str::to_owned).collect(),
        size: held.size,
        hidden: held.presence == Presence::Hidden,
    };
    json_line(&line)
}

fn json_line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("a line of plain values");
    text.push('\n');
    text
}

/// The first line of a state, its end included.
pub fn format_line() -> String {
    json_line(&FormatLine { format: FORMAT })
}

/// The line of what was reached, its end included.
pub fn reached_line(reached: &Reached) -> String {
    let subscribed = reached.prefixes.iter().map(|prefix| prefix.as_str().to_owned()).collect();
    json_line(&ReachedLine { snapshot: reached.snapshot.clone(), subscribed })
}

fn parse_reached(text: &[u8]) -> Option<Reached> {
    let line: ReachedLine = serde_json::from_slice(text).ok()?;
    let prefixes: Result<Vec<Prefix>, _> = line.subscribed.iter().map(|prefix| prefix.parse()).collect();
    Some(Reached { snapshot: line.snapshot, prefixes: prefixes.ok()? })
}

fn parse(text: &[u8]) -> Option<(Path, Held)> {
    let line: Line = serde_json::from_slice(text).ok()?;
    let mut flags = Flags::default();
    for name in &line.flags {
        match name.as_str() {
            "executable" => flags.executable = true,
            "deleted" => flags.deleted = true,
            _ => return None,
        }
    }
    let presence = if line.hidden { Presence::Hidden } else { Presence::Whole };
    Some((line.path, Held { uid: line.uid, hash: line.hash, size: line.size, flags, presence }))
}

/// The state cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refused.
    #[error("{file}: {error}")]
    System {
        /// Which file.
        file: String,
        /// What it said.
        error: io::Error,
    },
    /// A line that is not the last one makes no sense.
    #[error("{file} is damaged at line {line}; move it away to begin anew with an empty state")]
    Damaged {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
    },
    /// A later version wrote it.
    #[error("{file} is of format {format}, and this version knows none above {FORMAT}")]
    Format {
        /// Which file.
        file: String,
        /// Of which format.
        format: u32,
    },
}

/// State and intent.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    /// Open for writing, but while the receiver [rests](StateFile::rest).
    files: Option<Files>,
    /// Bytes of whole lines.
    len: u64,
    /// The same, before the last append.
    len_before: u64,
    /// Which intent was made durable last; the other one is written next.
    durable: usize,
    /// That is written and not durable yet.
    is_written: bool,
}

#[derive(Debug)]
struct Files {
    state: File,
    /// None if only what was reached is to be noted.
    intents: Option<[File; 2]>,
}

impl Files {
    /// What `directory` has; made if absent.
    fn open(directory: &std::path::Path, with_intents: bool) -> Result<Files, StateError> {
        let open = |name: &str| {
            let file = directory.join(name);
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&file);
            opened.map_err(|error| StateError::System { file: file.display().to_string(), error })
        };
        let intents = if with_intents { Some([open("intent")?, open("intent-2")?]) } else { None };
        Ok(Files { state: open("state")?, intents })
    }
}

fn text(lines: &[Entry]) -> String {
    lines.iter().map(|(path, held)| line(path, held)).collect()
}

impl StateFile {
    /// Opens what `directory` has; made if absent.
    pub(super) fn open(directory: PathBuf) -> Result<StateFile, StateError> {
        let files = Some(Files::open(&directory, true)?);
        Ok(StateFile { files, len: 0, len_before: 0, durable: 1, is_written: false, directory })
    }

    /// Closes the files until [`wake`](StateFile::wake).
    pub(super) fn rest(&mut self) {
        self.files = None;
    }

    /// Opens the files again, if they are closed; those for intents only if it has to be.
    pub(super) fn wake(&mut self, with_intents: bool) -> io::Result<()> {
        if self.files.is_none() {
            let files = Files::open(&self.directory, with_intents);
            self.files = Some(files.map_err(|error| match error {
                StateError::System { error, .. } => error,
                other => io::Error::other(other.to_string()),
            })?);
        }
        Ok(())
    }

    fn files(&self) -> io::Result<&Files> {
        self.files.as_ref().ok_or_else(|| io::Error::other("the state is not open"))
    }

    fn intents(&self) -> io::Result<&[File; 2]> {
        self.files()?.intents.as_ref().ok_or_else(|| io::Error::other("the intents are not open"))
    }

    /// The state. A torn last line, which was never durable, is cut off.
    pub(super) fn load(&mut self) -> Result<Recovered, StateError> {
        let file = self.directory.join("state").display().to_string();
        let mut text = Vec::new();
        if let Err(error) = self.files().and_then(|files| (&files.state).read_to_end(&mut text)) {
            return Err(StateError::System { file, error });
        }
        let (mut recovered, mut len, mut lines) = (Recovered::default(), 0, 0);
        let mut is_current = false;
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            lines += 1;
            let whole = piece.ends_with(b"\n");
            if let Some((path, entry)) = parse(piece).filter(|_| whole) {
                recovered.held.insert(path, entry);
            } else if let Some(reached) = parse_reached(piece).filter(|_| whole) {
                recovered.reached = Some(reached);
            } else if let Some(format) = serde_json::from_slice::<FormatLine>(piece).ok().filter(|_| lines == 1) {
                if format.format > FORMAT {
                    return Err(StateError::Format { file, format: format.format });
                }
                is_current = format.format == FORMAT;
            } else if len + piece.len() == text.len() {
                break;
            } else {
                return Err(StateError::Damaged { file, line: lines });
            }
            len += piece.len();
        }
        (self.len, self.len_before) = (len as u64, len as u64);
        let needed = 1 + recovered.held.len() + usize::from(recovered.reached.is_some());
        // An empty state is begun with the first lines that it gets.
        if text.is_empty() {
            return Ok(recovered);
        }
        if !is_current || lines != needed || len != text.len() {
            let Recovered { held, reached } = &recovered;
            self.rewrite(held, reached.as_ref()).map_err(|error| StateError::System { file, error })?;
        }
        Ok(recovered)
    }

    /// The entries of both intents, as far as they are whole.
    pub(super) fn intended(&mut self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for mut intent in self.intents()? {
            let mut text = Vec::new();
            intent.read_to_end(&mut text)?;
            let whole = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
            entries.extend(whole.filter_map(parse));
        }
        Ok(entries)
    }

    pub(super) fn write_intent(&mut self, lines: &[Entry]) -> io::Result<()> {
        let intent = &self.intents()?[1 - self.durable];
        intent.set_len(0)?;
        intent.write_all_at(text(lines).as_bytes(), 0)?;
        self.is_written = true;
        Ok(())
    }

    pub(super) fn flush_intent(&mut self) -> io::Result<()> {
        self.intents()?[1 - self.durable].sync_data()?;
        self.intent_is_durable();
        Ok(())
    }

    /// The intent that was written has been flushed: the other one is not needed any more.
    pub(super) fn intent_is_durable(&mut self) {
        if std::mem::take(&mut self.is_written) {
            self.durable = 1 - self.durable;
        }
    }

    pub(super) fn append(&mut self, lines: &[Entry], reached: Option<&Reached>) -> io::Result<()> {
        let mut text = if self.len == 0 { format_line() } else { String::new() };
        text.push_str(&self::text(lines));
        text.extend(reached.map(reached_line));
        self.len_before = self.len;
        self.files()?.state.write_all_at(text.as_bytes(), self.len)?;
        self.len += text.len() as u64;
        Ok(())
    }

    pub(super) fn undo_append(&mut self) {
        self.len = self.len_before;
        let _ = self.files().and_then(|files| files.state.set_len(self.len));
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.files()?.state.sync_data()
    }

    /// Writes the state anew if most of it is superseded.
    pub(super) fn tidy(&mut self, held: &BTreeMap<Path, Held>, reached: Option<&Reached>) -> io::Result<()> {
        let live = held.len() as u64 * 256;
        if self.len > REWRITE_LEN_MIN && self.len > 4 * live { self.rewrite(held, reached) } else { Ok(()) }
    }

    fn rewrite(&mut self, held: &BTreeMap<Path, Held>, reached: Option<&Reached>) -> io::Result<()> {
        let name = self.directory.join("state.new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&name)?;
        let mut out = io::BufWriter::new(&file);
        let mut len = 0;
        let lines = std::iter::once(format_line()).chain(held.iter().map(|(path, held)| line(path, held)));
        for line in lines.chain(reached.map(reached_line)) {
            len += line.len() as u64;
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        std::fs::rename(&name, self.directory.join("state"))?;
        File::open(&self.directory)?.sync_all()?;
        if let Some(files) = &mut self.files {
            files.state = file;
        }
        (self.len, self.len_before) = (len, len);
        Ok(())
    }
}
