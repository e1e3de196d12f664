//! What a process of the engine asks of the system at its start.

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::Signal,
    },
    unistd::getppid,
};
use std::{fs::File, io::Read as _};

/// Raises the limit of open files to the hard limit; returns what it is then.
pub fn raise_open_files() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Lets the kernel kill this process when the one that started it ends. Ends the process at once if that has happened
/// already.
pub fn exit_with_parent() -> std::io::Result<()> {
    let parent = getppid();
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        std::process::exit(1);
    }
    Ok(())
}

/// A random number from the system.
pub fn random_seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}
