//! The directory that a receiver keeps, reached component by component without following links: nothing outside it is
//! ever touched, whatever somebody put into it.

use super::disk::DiskError;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{fs::File, io, os::fd::OwnedFd, path::Path, sync::OnceLock};

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
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_RDONLY);

/// Directory and name of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

impl Tree {
    pub(super) fn open(root: &Path) -> io::Result<Tree> {
        let root = nix::fcntl::open(root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY, Mode::empty())?;
        Ok(Tree { root, umask: umask() })
    }

    /// The directory `path` (empty: the root), if all of its components are directories.
    fn directory(&self, path: &str) -> nix::Result<OwnedFd> {
        let mut at = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            at = openat(&at, segment, DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    }

    /// The directory `path`, made if absent; `made` gets the directories that have new entries.
    pub(super) fn make_directory(&self, path: &str, made: &mut Vec<String>) -> Result<OwnedFd, DiskError> {
        let mut at = openat(&self.root, ".", DIRECTORY, Mode::empty())?;
        let mut end = 0;
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let above = &path[..end];
            end += segment.len() + usize::from(end > 0);
            let next = match openat(&at, segment, DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    match mkdirat(&at, segment, Mode::from_bits_truncate(0o755)) {
                        Ok(()) | Err(Errno::EEXIST) => made.push(above.to_owned()),
                        Err(error) => return Err(error.into()),
                    }
                    openat(&at, segment, DIRECTORY, Mode::empty())
                }
                other => other,
            };
            at = next.map_err(|error| match error {
                Errno::ENOTDIR | Errno::ELOOP => {
                    DiskError::Blocked(format!("{} is there and is no directory", &path[..end]))
                }
                error => error.into(),
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
        touched.push(directory.to_owned());
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
            if in_the_way(error) { DiskError::Blocked(format!("a directory is at {path}")) } else { error.into() }
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
                Ok(()) => touched.push(directory.to_owned()),
                Err(Errno::ENOENT) => {}
                Err(_) if matches!(flags, UnlinkatFlags::RemoveDir) => return Ok(()),
                Err(Errno::EISDIR | Errno::EPERM) => return Ok(()),
                Err(error) => return Err(error.into()),
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
        Ok(nix::unistd::syncfs(&self.root)?)
    }
}

/// `own/name` is on another file system than the directory `at`: a copy under a name that no path has.
fn copy_beside(own: &OwnedFd, name: &str, at: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mut from = File::from(openat(own, name, flags | OFlag::O_RDONLY, Mode::empty())?);
    let create = flags | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
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
