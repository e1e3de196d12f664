//! The files that a run starts from.
//!
//! Of a real tree only world-readable regular files are taken, without following links: a run copies what it publishes
//! into many directories and reports, and must never copy a secret there.

use super::Random;
use crate::scenario::{ByteRange, Bytes as Size, Workload};
use acms_engine::protocol::{Hash, Path};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path as FsPath, PathBuf},
};

/// A file to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct File {
    /// Where.
    pub path: Path,
    /// What.
    pub content: Bytes,
    /// Its hash.
    pub hash: Hash,
}

impl File {
    fn new(path: Path, content: Vec<u8>) -> File {
        File { path, hash: Hash::of(&content), content: content.into() }
    }
}

/// Files, and why others were left out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// By path.
    pub files: Vec<File>,
    /// How many were skipped, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// What they are, for people.
    pub source: String,
}

/// Why there is nothing to publish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The tree cannot be read at all.
    #[error("cannot read the tree {path}: {source}")]
    Tree {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No file of it can be published.
    #[error("no file of the tree {path} can be published ({skipped})")]
    Empty {
        /// Which.
        path: PathBuf,
        /// What was skipped, by reason.
        skipped: String,
    },
    /// The prefix is no path.
    #[error("workload.prefix {0:?}: {1}")]
    Prefix(String, acms_engine::protocol::path::BadPath),
}

impl Contents {
    /// The files of a workload.
    pub fn of(workload: &Workload, seed: u64) -> Result<Contents, FilesError> {
        match &workload.tree {
            Some(tree) => Contents::of_tree(workload, tree, seed),
            None => Contents::generated(workload, seed),
        }
    }

    /// Bytes of all contents.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.content.len() as u64).sum()
    }

    /// What was skipped, by reason, for people; empty if nothing was.
    pub fn skipped_text(&self) -> String {
        self.skipped.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ")
    }

    fn of_tree(workload: &Workload, tree: &FsPath, seed: u64) -> Result<Contents, FilesError> {
        let failed = |source| FilesError::Tree { path: tree.to_owned(), source };
        // The tree itself may be reached through a link; what is in it may not.
        let root = tree.canonicalize().map_err(failed)?;
        fs::read_dir(&root).map_err(failed)?;
        let prefix = match &workload.prefix {
            Some(prefix) => prefix.trim_end_matches('/').to_owned(),
            None => default_prefix(&root),
        };
        check_prefix(&prefix)?;
        let mut contents = Contents { source: tree.display().to_string(), ..Contents::default() };
        let mut candidates = Vec::new();
        for entry in walkdir::WalkDir::new(&root).sort_by_file_name() {
            match candidate(entry, &root, &prefix, workload.file_size_max.0) {
                Ok(Some(candidate)) => candidates.push(candidate),
                Ok(None) => {}
                Err(why) => *contents.skipped.entry(why).or_default() += 1,
            }
        }
        if let Some(files_max) = workload.files.filter(|max| candidates.len() > *max as usize) {
            *contents.skipped.entry("beyond workload.files").or_default() +=
                candidates.len() as u64 - u64::from(files_max);
            Random::new(seed, "files of the tree").shuffle(&mut candidates);
            candidates.truncate(files_max as usize);
            candidates.sort();
        }
        for (path, file) in candidates {
            match read_regular(&file, workload.file_size_max.0) {
                Ok(content) => contents.files.push(File::new(path, content)),
                Err(why) => *contents.skipped.entry(why).or_default() += 1,
            }
        }
        if contents.files.is_empty() {
            return Err(FilesError::Empty { path: tree.to_owned(), skipped: contents.skipped_text() });
        }
        Ok(contents)
    }

    fn generated(workload: &Workload, seed: u64) -> Result<Contents, FilesError> {
        let ByteRange(Size(min), Size(max)) = workload.size.unwrap_or(ByteRange(Size(100), Size(16 << 10)));
        let prefix = workload.prefix.as_deref().unwrap_or("files").trim_end_matches('/').to_owned();
        check_prefix(&prefix)?;
        let mut random = Random::new(seed, "generated files");
        let count = workload.files.unwrap_or(100);
        let mut files = Vec::new();
        for i in 0..count {
            let name = join(&prefix, &format!("{:02}/file-{i:05}.conf", i % 17));
            let path: Path = name.parse().map_err(|error| FilesError::Prefix(prefix.clone(), error))?;
            let len = log_uniform(&mut random, min, max);
            files.push(File::new(path, random.bytes(len as usize)));
        }
        let source = format!("generated, {}..{} each", Size(min), Size(max));
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Contents { files, source, ..Contents::default() })
    }
}

/// Small files are common and large ones rare: every number of binary digits is as likely. In integers, for logarithms
/// are not the same on every machine.
fn log_uniform(random: &mut Random, min: u64, max: u64) -> u64 {
    let digits = |len: u64| u64::from((len + 1).ilog2());
    let drawn = digits(min) + random.below(digits(max) - digits(min) + 1);
    let (low, high) = (((1 << drawn) - 1).max(min), ((2 << drawn) - 2).min(max));
    low + random.below(high - low + 1)
}

fn default_prefix(root: &FsPath) -> String {
    let name = root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // A name that is no segment of a path is left out.
    if name.parse::<Path>().is_ok() { name.to_owned() } else { String::new() }
}

fn check_prefix(prefix: &str) -> Result<(), FilesError> {
    if prefix.is_empty() {
        return Ok(());
    }
    prefix.parse::<Path>().map(drop).map_err(|error| FilesError::Prefix(prefix.to_owned(), error))
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

/// A file that may be published; `None` for directories; the reason for what is skipped.
fn candidate(
    entry: walkdir::Result<walkdir::DirEntry>,
    root: &FsPath,
    prefix: &str,
    size_max: u64,
) -> Result<Option<(Path, PathBuf)>, &'static str> {
    let entry = entry.map_err(|_| "in unreadable directories")?;
    let file_type = entry.file_type();
    if file_type.is_dir() {
        return Ok(None);
    }
    if file_type.is_symlink() {
        return Err("symbolic links");
    }
    if !file_type.is_file() {
        return Err("neither files nor directories");
    }
    let metadata = entry.metadata().map_err(|_| "unreadable")?;
    if metadata.mode() & 0o004 == 0 {
        return Err("not world-readable");
    }
    if metadata.len() > size_max {
        return Err("larger than workload.file_size_max");
    }
    let name =
        entry.path().strip_prefix(root).ok().and_then(|name| name.to_str()).ok_or("with names that are no paths")?;
    let path: Path = join(prefix, name).parse().map_err(|_| "with names that are no paths")?;
    Ok(Some((path, entry.into_path())))
}

/// Reads a file that was regular and world-readable when it was listed, and must be so still.
fn read_regular(file: &FsPath, size_max: u64) -> Result<Vec<u8>, &'static str> {
    use std::io::Read;
    let no_link_no_wait = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let opened = fs::OpenOptions::new().read(true).custom_flags(no_link_no_wait).open(file);
    let opened = opened.map_err(|_| "unreadable")?;
    let metadata = opened.metadata().map_err(|_| "unreadable")?;
    if !metadata.is_file() || metadata.mode() & 0o004 == 0 {
        return Err("changed meanwhile");
    }
    let mut content = Vec::new();
    opened.take(size_max + 1).read_to_end(&mut content).map_err(|_| "unreadable")?;
    if content.len() as u64 > size_max { Err("larger than workload.file_size_max") } else { Ok(content) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn write(dir: &FsPath, name: &str, content: &[u8], mode: u32) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_tree_gives_only_world_readable_regular_files_with_legal_names() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("conf");
        write(&tree, "a.conf", b"a", 0o644);
        write(&tree, "d/b.conf", b"", 0o604);
        write(&tree, "secret", b"key", 0o640);
        write(&tree, "with space", b"x", 0o644);
        write(&tree, "~tilde", b"x", 0o644);
        write(&tree, "big", &[0; 100], 0o644);
        symlink("a.conf", tree.join("link")).unwrap();
        symlink(&tree, dir.path().join("way")).unwrap();
        let workload = Workload { tree: Some(dir.path().join("way")), file_size_max: Size(99), ..Workload::default() };
        let contents = Contents::of(&workload, 1).unwrap();
        let paths: Vec<_> = contents.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["conf/a.conf", "conf/d/b.conf"]);
        assert_eq!(contents.files[0].hash, Hash::of(b"a"));
        let skipped: Vec<_> = contents.skipped.iter().map(|(why, count)| (*why, *count)).collect();
        assert_eq!(
            skipped,
            [
                ("larger than workload.file_size_max", 1),
                ("not world-readable", 1),
                ("symbolic links", 1),
                ("with names that are no paths", 2)
            ]
        );

        let some = Workload { files: Some(1), prefix: Some("p/".into()), ..workload.clone() };
        let contents = Contents::of(&some, 1).unwrap();
        assert_eq!(contents.files.len(), 1);
        assert!(contents.files[0].path.as_str().starts_with("p/"));
        assert_eq!(contents.skipped["beyond workload.files"], 1);
        assert_eq!(Contents::of(&some, 1).unwrap(), contents);
    }

    #[test]
    fn trees_without_a_file_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let workload = |tree| Workload { tree: Some(tree), ..Workload::default() };
        assert!(matches!(Contents::of(&workload(dir.path().join("none")), 1), Err(FilesError::Tree { .. })));
        assert!(matches!(Contents::of(&workload(dir.path().to_owned()), 1), Err(FilesError::Empty { .. })));
    }

    #[test]
    fn generated_files_follow_from_the_seed() {
        let workload = Workload {
            files: Some(40),
            size: Some("0..4KiB".parse().unwrap()),
            prefix: Some("x".into()),
            ..Workload::default()
        };
        let contents = Contents::of(&workload, 7).unwrap();
        assert_eq!(contents, Contents::of(&workload, 7).unwrap());
        assert_ne!(contents, Contents::of(&workload, 8).unwrap());
        assert_eq!(contents.files.len(), 40);
        assert!(contents.files.iter().all(|file| file.content.len() <= 4096 && file.path.as_str().starts_with("x/")));
        assert!(matches!(
            Contents::of(&Workload { prefix: Some("a b".into()), ..workload }, 7),
            Err(FilesError::Prefix(..))
        ));
    }
}
