//! A file system, or a directory, that takes `A` and `a` for one name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::{
    super::{
        disk::{Disk, DiskError, Line},
        files::FileDisk,
        state::StateError,
    },
    tests::{change, done},
    *,
};
use crate::protocol::{
    Hash,
    receiver::{Content, StagedId},
};

/// A real directory that ignores case, as far as files are concerned.
#[derive(Debug)]
struct IgnoresCase(FileDisk);

fn folded(path: &Path) -> Path {
    path.as_str().to_ascii_lowercase().parse().unwrap()
}

impl Disk for IgnoresCase {
    fn name(&self) -> String {
        self.0.name()
    }
    fn load_state(&mut self) -> Result<Recovered, StateError> {
        self.0.load_state()
    }
    fn intended(&mut self) -> io::Result<Vec<Line>> {
        self.0.intended()
    }
    fn write_intent(&mut self, lines: &[Line]) -> io::Result<()> {
        self.0.write_intent(lines)
    }
    fn flush_intent(&mut self) -> io::Result<()> {
        self.0.flush_intent()
    }
    fn append_state(&mut self, lines: &[Line], reached: Option<&Reached>) -> io::Result<()> {
        self.0.append_state(lines, reached)
    }
    fn flush_state(&mut self) -> io::Result<()> {
        self.0.flush_state()
    }
    fn undo_append(&mut self) {
        self.0.undo_append();
    }
    fn tidy_state(&mut self, held: &BTreeMap<Path, Held>, reached: Option<&Reached>) -> io::Result<()> {
        self.0.tidy_state(held, reached)
    }
    fn write_temporary(&mut self, at: usize, content: &Content, executable: bool) -> io::Result<()> {
        self.0.write_temporary(at, content, executable)
    }
    fn flush_temporary(&mut self, at: usize) -> io::Result<()> {
        self.0.flush_temporary(at)
    }
    fn remove_temporary(&mut self, at: usize) {
        self.0.remove_temporary(at);
    }
    fn remove_staged(&mut self, id: StagedId) {
        self.0.remove_staged(id);
    }
    fn place(&mut self, at: usize, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.0.place(at, &folded(path), touched)
    }
    fn remove(&mut self, path: &Path, touched: &mut Vec<String>) -> Result<(), DiskError> {
        self.0.remove(&folded(path), touched)
    }
    fn set_mode(&mut self, path: &Path, executable: bool) -> Result<bool, DiskError> {
        self.0.set_mode(&folded(path), executable)
    }
    fn flush_directory(&mut self, directory: &str) -> io::Result<()> {
        self.0.flush_directory(&directory.to_ascii_lowercase())
    }
    fn flush_all(&mut self) -> io::Result<()> {
        self.0.flush_all()
    }
    fn is_absent(&self, path: &Path) -> io::Result<bool> {
        self.0.is_absent(&folded(path))
    }
    fn is_file_of(&self, path: &Path, size: u64, executable: bool) -> io::Result<bool> {
        self.0.is_file_of(&folded(path), size, executable)
    }
    fn hash_of(&self, path: &Path) -> io::Result<Hash> {
        self.0.hash_of(&folded(path))
    }
}

#[test]
fn a_path_that_differs_only_in_case_is_blocked_and_leaves_the_other_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Applier::open(IgnoresCase(FileDisk::open(directory.path()).unwrap())).unwrap().0;
    let mut applier = open();
    // In one batch ...
    let batch = vec![
        change("etc/one", 1, Some("first"), None),
        change("etc/One", 1, Some("second"), None),
        change("etc/two", 1, Some("2"), None),
    ];
    let is_blocked = |applied: &Applied| matches!(applied, Applied::Blocked(cause) if cause.contains("etc/one"));
    let (results, _) = applier.apply(batch, None);
    assert!(results[0].1 == Applied::Done && is_blocked(&results[1].1) && results[2].1 == Applied::Done);
    let content = || std::fs::read_to_string(directory.path().join("etc/one")).unwrap();
    assert_eq!(content(), "first");
    // ... and in a later one, and after a restart.
    assert!(is_blocked(&applier.apply(vec![change("ETC/ONE", 2, Some("third"), None)], None).0[0].1));
    drop(applier);
    let mut applier = open();
    assert!(is_blocked(&applier.apply(vec![change("etc/One", 3, Some("second"), None)], None).0[0].1));
    assert!(done(&applier.apply(vec![change("etc/one", 4, Some("first again"), None)], None).0));
    assert_eq!(content(), "first again");
    // Once the other one is gone there is room, in the same batch, too.
    let batch = vec![change("etc/one", 5, None, None), change("etc/One", 3, Some("second"), None)];
    assert!(done(&applier.apply(batch, None).0));
    assert_eq!(content(), "second");
    // A file that is nobody's is replaced.
    std::fs::write(directory.path().join("etc/three"), "somebody's").unwrap();
    assert!(done(&applier.apply(vec![change("etc/three", 6, Some("3"), None)], None).0));
}
