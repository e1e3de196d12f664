//! What a receiver holds, durably: `DIR/~acms/state`, one JSON object per line, later lines win (engine/docs/FORMATS.md).
//!
//! `DIR/~acms/intent` has the lines of the batch that is being applied, written before any of its files is put in
//! place: after a crash it tells which files are newer than the state says, so that no path can go back.

use super::disk::Line as Entry;
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

/// State and intent, open for writing.
#[derive(Debug)]
pub(super) struct StateFile {
    directory: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
    /// The same, before the last append.
    len_before: u64,
    intent: File,
}

fn text(lines: &[Entry]) -> String {
    lines.iter().map(|(path, held)| line(path, held)).collect()
}

impl StateFile {
    /// Opens what `directory` has; made if absent.
    pub(super) fn open(directory: PathBuf) -> Result<StateFile, StateError> {
        let open = |name: &str| {
            let file = directory.join(name);
            let opened = File::options().read(true).write(true).create(true).truncate(false).open(&file);
            opened.map_err(|error| StateError::System { file: file.display().to_string(), error })
        };
        let (file, intent) = (open("state")?, open("intent")?);
        Ok(StateFile { file, len: 0, len_before: 0, intent, directory })
    }

    /// The state. A torn last line, which was never durable, is cut off.
    pub(super) fn load(&mut self) -> Result<BTreeMap<Path, Held>, StateError> {
        let file = self.directory.join("state").display().to_string();
        let mut text = Vec::new();
        if let Err(error) = (&self.file).read_to_end(&mut text) {
            return Err(StateError::System { file, error });
        }
        let (mut held, mut len, mut lines) = (BTreeMap::new(), 0, 0);
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            lines += 1;
            match parse(piece).filter(|_| piece.ends_with(b"\n")) {
                Some((path, entry)) => drop(held.insert(path, entry)),
                None if len + piece.len() == text.len() => break,
                None => return Err(StateError::Damaged { file, line: lines }),
            }
            len += piece.len();
        }
        (self.len, self.len_before) = (len as u64, len as u64);
        if lines != held.len() || len != text.len() {
            self.rewrite(&held).map_err(|error| StateError::System { file, error })?;
        }
        Ok(held)
    }

    /// The entries of the last intent, as far as they are whole.
    pub(super) fn intended(&mut self) -> io::Result<Vec<Entry>> {
        let mut text = Vec::new();
        self.intent.read_to_end(&mut text)?;
        Ok(text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).filter_map(parse).collect())
    }

    pub(super) fn write_intent(&mut self, lines: &[Entry]) -> io::Result<()> {
        self.intent.set_len(0)?;
        self.intent.write_all_at(text(lines).as_bytes(), 0)
    }

    pub(super) fn flush_intent(&mut self) -> io::Result<()> {
        self.intent.sync_data()
    }

    pub(super) fn append(&mut self, lines: &[Entry]) -> io::Result<()> {
        let text = text(lines);
        self.len_before = self.len;
        self.file.write_all_at(text.as_bytes(), self.len)?;
        self.len += text.len() as u64;
        Ok(())
    }

    pub(super) fn undo_append(&mut self) {
        self.len = self.len_before;
        let _ = self.file.set_len(self.len);
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the state anew if most of it is superseded.
    pub(super) fn tidy(&mut self, held: &BTreeMap<Path, Held>) -> io::Result<()> {
        let live = held.len() as u64 * 256;
        if self.len > REWRITE_LEN_MIN && self.len > 4 * live { self.rewrite(held) } else { Ok(()) }
    }

    fn rewrite(&mut self, held: &BTreeMap<Path, Held>) -> io::Result<()> {
        let name = self.directory.join("state.new");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&name)?;
        let mut out = io::BufWriter::new(&file);
        let mut len = 0;
        for (path, held) in held {
            let line = line(path, held);
            len += line.len() as u64;
            out.write_all(line.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        std::fs::rename(&name, self.directory.join("state"))?;
        File::open(&self.directory)?.sync_all()?;
        (self.file, self.len, self.len_before) = (file, len, len);
        Ok(())
    }
}
