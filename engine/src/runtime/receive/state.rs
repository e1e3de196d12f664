//! What a receiver holds, durably: `DIR/~acms/state`, one JSON object per line, later lines win (engine/docs/FORMATS.md).
//!
//! `DIR/~acms/intent` has the lines of the batch that is being applied, written before any of its files is put in
//! place: after a crash it tells which files are newer than the state says, so that no path can go back.

use crate::protocol::{
    Flags, Hash, Path, Uid,
    receiver::{Held, Presence},
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
const REWRITE_LEN_MIN: u64 = 4 << 20;

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
    let mut text = serde_json::to_string(&line).expect("a line of plain values");
    text.push('\n');
    text
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
}

/// The state file, open for appending.
#[derive(Debug)]
pub(super) struct State {
    directory: PathBuf,
    file: File,
    len: u64,
    intent: File,
    /// Lines that could not be appended although their files are in place.
    unrecorded: String,
    pub(super) held: BTreeMap<Path, Held>,
}

impl State {
    /// Loads the state from `directory`. A torn last line, which was never durable, is cut off.
    pub(super) fn load(directory: PathBuf) -> Result<State, StateError> {
        let system = |name: &str, error| StateError::System { file: directory.join(name).display().to_string(), error };
        let open =
            |name: &str| File::options().read(true).write(true).create(true).truncate(false).open(directory.join(name));
        let file = open("state").map_err(|error| system("state", error))?;
        let intent = open("intent").map_err(|error| system("intent", error))?;
        let mut text = Vec::new();
        (&file).read_to_end(&mut text).map_err(|error| system("state", error))?;
        let (mut held, mut len, mut lines) = (BTreeMap::new(), 0, 0);
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            lines += 1;
            match parse(piece).filter(|_| piece.ends_with(b"\n")) {
                Some((path, entry)) => drop(held.insert(path, entry)),
                None if len + piece.len() == text.len() => break,
                None => {
                    let file = directory.join("state").display().to_string();
                    return Err(StateError::Damaged { file, line: lines });
                }
            }
            len += piece.len();
        }
        let superseded = lines != held.len() || len != text.len();
        let mut state = State { file, len: len as u64, intent, unrecorded: String::new(), held, directory };
        if superseded {
            state.rewrite().map_err(|error| system_error(&state.directory, error))?;
        }
        Ok(state)
    }

    /// The entries of the last intent, as far as they are whole.
    pub(super) fn intended(&mut self) -> io::Result<Vec<(Path, Held)>> {
        let mut text = Vec::new();
        self.intent.read_to_end(&mut text)?;
        Ok(text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).filter_map(parse).collect())
    }

    /// Says what the batch at hand is about to put in place. Durable once the caller has flushed [`State::intent`].
    pub(super) fn write_intent(&mut self, lines: &str) -> io::Result<()> {
        self.intent.set_len(0)?;
        let text = format!("{}{lines}", self.unrecorded);
        self.intent.write_all_at(text.as_bytes(), 0)
    }

    /// The intent's file.
    pub(super) fn intent(&self) -> &File {
        &self.intent
    }

    /// Appends `lines`, and makes them durable by `flush`. On failure they are kept for the next time.
    pub(super) fn append(&mut self, lines: &str, flush: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
        self.unrecorded.push_str(lines);
        let written = self.file.write_all_at(self.unrecorded.as_bytes(), self.len).and_then(|()| flush(&self.file));
        if let Err(error) = written {
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += self.unrecorded.len() as u64;
        self.unrecorded.clear();
        Ok(())
    }

    /// Writes the state anew if most of it is superseded. `held` must be what the file says.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        let live = self.held.len() as u64 * 256;
        if self.len > REWRITE_LEN_MIN && self.len > 4 * live && self.unrecorded.is_empty() {
            self.rewrite()
        } else {
            Ok(())
        }
    }

    fn rewrite(&mut self) -> io::Result<()> {
        let name = self.directory.join("state.new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&name)?;
        let mut out = io::BufWriter::new(&file);
        let mut len = 0;
        for (path, held) in &self.held {
            let line = line(path, held);
            len += line.len() as u64;
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        std::fs::rename(&name, self.directory.join("state"))?;
        File::open(&self.directory)?.sync_all()?;
        (self.file, self.len) = (file, len);
        Ok(())
    }
}

fn system_error(directory: &std::path::Path, error: io::Error) -> StateError {
    StateError::System { file: directory.join("state").display().to_string(), error }
}
