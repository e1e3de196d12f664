//! The directory that a receiver keeps, reached component by component without following links: nothing outside it is
//! ever touched, whatever somebody put into it.

use super::disk::DiskError;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Where receivers keep what is theirs, beneath the directory. No path starts with `~`.
pub(super) const OWN: &str = "~acms";
/// A temporary beside its target, where that is on another file system.
const BESIDE: &str = "~acms-new";

impl From<Errno> for DiskError {
    fn from(errno: Errno) -> DiskError {
        DiskError::System(errno.into())
    }
}

/// The directory.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    umask: Mode,
    /// The root's file system.
    device: u64,
    /// Directories with new entries that are on other file systems, which one flush of the root's does not reach.
    foreign: RefCell<BTreeSet<String>>,
}

/// Whether the kernel resolves a path beneath a directory by itself (since 5.6, and where no filter keeps it from that).
static HAS_OPENAT2: AtomicBool = AtomicBool::new(true);

/// What of the file system's refusals will not pass by itself, and concerns this path only.
fn refused(path: &str, error: Errno) -> DiskError {
    use Errno::{EACCES, EILSEQ, EINVAL, ENAMETOOLONG, EPERM, EROFS};
    match error {
        EACCES | EPERM | EROFS | ENAMETOOLONG | EILSEQ | EINVAL => {
            DiskError::Blocked(format!("{path} cannot be there: {}", error.desc()))
        }
        other => other.into(),
    }
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_RDONLY);

/// Directory and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Tree> {
        let root = nix::fcntl::open(root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty())?;
        let device = fstat(&root)?.st_dev;
        Ok(Tree { root, umask: umask(), device, foreign: RefCell::default() })
    }

    /// The directory `path` (empty: the root), if all of its components are directories.
    fn directory(&self, path: &str) -> nix::Result<OwnedFd> {
        if HAS_OPENAT2.load(Ordering::Relaxed) {
            let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
            let how = OpenHow::new().flags(DIRECTORY).resolve(resolve);
            match openat2(&self.root, if path.is_empty() { "." } else { path }, how) {
                Err(Errno::ENOSYS | Errno::EPERM) => HAS_OPENAT2.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        self.walk_to(path)
    }

    /// The same, one component after the other.
    fn walk_to(&self, path: &str) -> nix::Result<OwnedFd> {
        let mut at = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            at = openat(&at, segment, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    /// The entries of `directory`, which is open as `at`, have changed.
    fn touch(&self, at: &OwnedFd, directory: &str, touched: &mut Vec<String>) {
        if fstat(at).is_ok_and(|stat| stat.st_dev != self.device) {
            self.foreign.borrow_mut().insert(directory.to_owned());
        }
        touched.push(directory.to_owned());
    }

    /// The directory `path`, made if absent; `made` gets the directories that have new entries.
    pub(super) fn make_directory(&self, path: &str, made: &mut Vec<String>) -> Result<OwnedFd, DiskError> {
        if let Ok(at) = self.directory(path) {
            return Ok(at);
        }
        let mut at = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        let mut end = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let above = &path[..end];
            end += segment.len() + usize::from(end > 0);
            let next = match openat(&at, segment, DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    match mkdirat(&at, segment, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => self.touch(&at, above, made),
                        Err(error) => return Err(refused(&path[..end], error)),
                    }
                    openat(&at, segment, DIRECTORY, Mode::empty())
                }
                other => other,
            };
            at = next.map_err(|error| match error {
                Errno::ENOTDIR | Errno::ELOOP => {
                    DiskError::Blocked(format!("{} is there and is no directory", &path[..end]))
                }
                error => refused(&path[..end], error),
            })?;
        }
        Ok(at)
    }

    /// What is at `path` itself, links not followed; none if nothing is.
    pub(super) fn stat(&self, path: &str) -> io::Result<Option<FileStat>> {
        let (directory, name) = split(path);
        let absent = |error: Errno| match error {
            Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP => Ok(None),
            error => Err(error.into()),
        };
        let directory = match self.directory(directory) {
            Ok(directory) => directory,
            Err(error) => return absent(error),
        };
        fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(Some).or_else(absent)
    }

    /// Whether a regular file of `size` bytes is at `path`, executable or not for its owner.
    pub(super) fn is_file_of(&self, path: &str, size: u64, executable: bool) -> io::Result<bool> {
        let Some(stat) = self.stat(path)? else { return Ok(false) };
        let regular = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFREG;
        let mode = |mode: Mode| mode.contains(Mode::S_IXUSR);
        let right = mode(Mode::from_bits_truncate(stat.st_mode)) == mode(self.mode(executable));
        Ok(regular && right && u64::try_from(stat.st_size) == Ok(size))
    }

    /// Opens the regular file at `path` for reading.
    pub(super) fn open_file(&self, path: &str) -> io::Result<File> {
        let (directory, name) = split(path);
        let directory = self.directory(directory)?;
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&directory, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// Mode of a file.
    pub(super) fn mode(&self, executable: bool) -> Mode {
        let mode = Mode::from_bits_truncate(if executable { 0o755 } else { 0o644 });
        mode.difference(self.umask)
    }

    /// Puts `own/name` in the place of `path`. `touched` gets the directories that changed.
    pub(super) fn place(
        &self,
        own: &OwnedFd,
        name: &str,
        path: &str,
        touched: &mut Vec<String>,
    ) -> Result<(), DiskError> {
        let (directory, target) = split(path);
        let at = self.make_directory(directory, touched)?;
        self.touch(&at, directory, touched);
        let rename = || match renameat(own, name, &at, target) {
            Err(Errno::EXDEV) => {
                copy_beside(own, name, &at)?;
                renameat(&at, BESIDE, &at, target)?;
                unlinkat(own, name, UnlinkatFlags::NoRemoveDir)
            }
            other => other,
        };
        let in_the_way = |error| matches!(error, Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR);
        let result = match rename() {
            // A directory that deletions have emptied makes room.
            Err(error) if in_the_way(error) && unlinkat(&at, target, UnlinkatFlags::RemoveDir).is_ok() => rename(),
            other => other,
        };
        result.map_err(|error| {
            let is_directory = in_the_way(error);
            if is_directory { DiskError::Blocked(format!("a directory is at {path}")) } else { refused(path, error) }
        })
    }

    /// Removes the file at `path` and the directories above it that are empty then. What is no file stays.
    pub(super) fn remove(&self, path: &str, touched: &mut Vec<String>) -> Result<(), DiskError> {
        let (mut directory, mut name) = split(path);
        let mut flags = UnlinkatFlags::NoRemoveDir;
        loop {
            let at = match self.directory(directory) {
                Ok(at) => at,
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match unlinkat(&at, name, flags) {
                Ok(()) => self.touch(&at, directory, touched),
                Err(Errno::ENOENT) => {}
                Err(_) if matches!(flags, UnlinkatFlags::RemoveDir) => return Ok(()),
                Err(Errno::EISDIR) => return Ok(()),
                Err(error) => return Err(refused(path, error)),
            }
            if directory.is_empty() {
                return Ok(());
            }
            (directory, name) = split(directory);
            flags = UnlinkatFlags::RemoveDir;
        }
    }

    /// Sets the mode of the file at `path`, durably; false if there is none.
    pub(super) fn set_mode(&self, path: &str, executable: bool) -> Result<bool, DiskError> {
        let file = match self.open_file(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(DiskError::System(error)),
            Err(_) => return Ok(false),
        };
        nix::sys::stat::fchmod(&file, self.mode(executable))?;
        file.sync_all().map_err(DiskError::System)?;
        Ok(true)
    }

    /// Makes the entries of a directory durable; one that is gone has none.
    pub(super) fn sync_directory(&self, path: &str) -> io::Result<()> {
        match self.directory(path) {
            Ok(at) => File::from(at).sync_all(),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes everything written to this file system durable: one flush for a batch of many files.
    pub(super) fn sync_all(&self) -> io::Result<()> {
        nix::unistd::syncfs(&self.root)?;
        self.foreign.borrow().iter().try_for_each(|directory| self.sync_directory(directory))?;
        self.foreign.borrow_mut().clear();
        Ok(())
    }
}

/// `own/name` is on another file system than the directory `at`: a copy under a name that no path has.
fn copy_beside(own: &OwnedFd, name: &str, at: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut from = File::from(openat(own, name, flags | OFlag::O_RDONLY, Mode::empty())?);
    // What an earlier try has left; and whatever else is there is not written into.
    match unlinkat(at, BESIDE, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error),
    }
    let create = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let mut to = File::from(openat(at, BESIDE, create, Mode::from_bits_truncate(0o600))?);
    let copied = io::copy(&mut from, &mut to).and_then(|_| from.metadata()).and_then(|metadata| {
        to.set_permissions(metadata.permissions())?;
        to.sync_all()
    });
    copied.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)))
}

/// The umask, read without setting it, once.
fn umask() -> Mode {
    static UMASK: OnceLock<Mode> = OnceLock::new();
    *UMASK.get_or_init(read_umask)
}

fn read_umask() -> Mode {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let bits = value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o022);
    Mode::from_bits_truncate(bits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn with_and_without_openat2_nothing_leads_out_of_the_directory() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("a/out")).unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a/in")).unwrap();
        std::fs::write(root.path().join("a/file"), "x").unwrap();
        let tree = Tree::open(root.path()).unwrap();
        for (path, is_there) in
            [("", true), ("a", true), ("a/b", true), ("a/out", false), ("a/in", false), ("a/file", false), ("c", false)]
        {
            assert_eq!(tree.directory(path).is_ok(), is_there, "{path:?}");
            assert_eq!(tree.walk_to(path).is_ok(), is_there, "{path:?} by hand");
        }
        let mut touched = Vec::new();
        for path in ["a/out/x", "a/in/x", "a/file/x"] {
            let made = tree.make_directory(path, &mut touched);
            assert!(matches!(made, Err(DiskError::Blocked(cause)) if cause.contains("is no directory")), "{path}");
        }
        assert!(touched.is_empty() && std::fs::read_dir(outside.path()).unwrap().next().is_none());
    }
}
