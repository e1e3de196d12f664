//! What putting entries in place needs of a disk: few verbs, so that the same order of operations runs on the real file
//! system and on a simulated one that loses power.

use super::state::StateError;
use crate::protocol::{
    Hash, Path,
    receiver::{Content, Held, Reached, Recovered, StagedId},
};
use std::{collections::BTreeMap, io};

/// Why something cannot be done at a path.
#[derive(Debug)]
pub enum DiskError {
    /// Something that is not the receiver's is in the way.
    Blocked(String),
    /// The disk refused.
    System(io::Error),
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> DiskError {
        DiskError::System(error)
    }
}

/// A path and its entry, as state and intent have them.
pub type Line = (Path, Held);

/// A directory of files that a receiver keeps, with what the receiver notes about them. What is written is seen at
/// once and durable only once it is flushed; a rename or removal once its directory is.
///
/// `touched` gets the directories whose entries a call has changed.
pub trait Disk {
    /// What errors call it.
    fn name(&self) -> String;
    /// The state that was recorded, later lines first to last put together. A torn end is cut off.
    fn load_state(&mut self) -> Result<Recovered, StateError>;
    /// The lines of the last durable intent, and of one that may have come before or after it, as far as they are whole.
    fn intended(&mut self) -> io::Result<Vec<Line>>;
    /// Writes an intent. The last one that is durable stays until this one is.
    fn write_intent(&mut self, lines: &[Line]) -> io::Result<()>;
    /// Makes the intent durable.
    fn flush_intent(&mut self) -> io::Result<()>;
    /// Adds lines to the state, and what the receiver has come to.
    fn append_state(&mut self, lines: &[Line], reached: Option<&Reached>) -> io::Result<()>;
    /// Makes the state durable.
    fn flush_state(&mut self) -> io::Result<()>;
    /// Takes the lines appended last out of the state again: they could not be made durable.
    fn undo_append(&mut self);
    /// Writes the state anew, durably and whole or not at all, if most of it is superseded. It says `held` and `reached`.
    fn tidy_state(&mut self, held: &BTreeMap<Path, Held>, reached: Option<&Reached>) -> io::Result<()>;

    /// Writes a content to the temporary of this number in the batch. A staged content becomes it.
    fn write_temporary(&mut self, at: usize, content: &Content, executable: bool) -> io::Result<()>;
    /// Makes a temporary's content durable.
    fn flush_temporary(&mut self, at: usize) -> io::Result<()>;
    /// Removes a temporary, if it is there.
    fn remove_temporary(&mut self, at: usize);
    /// Removes a staged content, if it is there.
    fn remove_staged(&mut self, id: StagedId);

    /// Renames a temporary to `path`.
    fn place(&mut self, at: usize, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError>;
    /// Removes the file at `path` and the directories above it that are empty then. What is no file stays.
    fn remove(&mut self, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError>;
    /// Sets the mode of the file at `path`, durably; false if there is none.
    fn set_mode(&mut self, path: &Path, executable: bool) -> Result<bool, DiskError>;
    /// Makes the entries of a directory durable; one that is gone has none.
    fn flush_directory(&mut self, directory: &str) -> io::Result<()>;
    /// Makes everything durable that was written so far: one flush for many files.
    fn flush_all(&mut self) -> io::Result<()>;

    /// Whether nothing is at `path`.
    fn is_absent(&self, path: &Path) -> io::Result<bool>;
    /// Whether a regular file of `size` bytes is at `path`, executable or not.
    fn is_file_of(&self, path: &Path, size: u64, executable: bool) -> io::Result<bool>;
    /// Hash of the file at `path`.
    fn hash_of(&self, path: &Path) -> io::Result<Hash>;
}
