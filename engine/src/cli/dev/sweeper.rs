//! Who removes the temporary directory of `acms dev`: a process that waits until the one that has started it is gone, by
//! whatever signal.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// How names of directories begin that may be removed.
pub(super) const PREFIX: &str = "acms-dev-";
/// Storage points that die with their parent may still write when the sweeper begins.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// The sweeper's other side. Dropped, it waits until the directory is gone.
pub(super) struct Sweeper(Child);

impl Sweeper {
    /// Of `directory`, which is made afterwards.
    pub(super) fn start(mut command: Command, directory: &Path) -> io::Result<Sweeper> {
        command.arg("--sweep").arg(directory).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for the cluster, not for who tidies up behind it.
        command.process_group(0);
        command.spawn().map(Sweeper)
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits for the end of standard input, then removes `directory`.
pub(super) fn sweep(directory: &Path) {
    let name = directory.file_name().and_then(OsStr::to_str).unwrap_or_default();
    if !name.starts_with(PREFIX) {
        return;
    }
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let directory = PathBuf::from(directory);
    for _ in 0..ATTEMPTS {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => thread::sleep(PAUSE),
            // It may be made anew by a storage point that is not dead yet.
            _ if directory.exists() => thread::sleep(PAUSE),
            _ => return,
        }
    }
}
