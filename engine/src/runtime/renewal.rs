//! Files of certificates and tokens that are read again while a process runs, and what is said of them.
//!
//! Invariant: what changes after files were begun to be read is noticed at the next look.

use crate::{
    protocol::{Duration, Instant},
    runtime::clock,
};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};
use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// How often it is looked whether files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A certificate that expires within this is spoken of, once a day.
pub const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// Certificates are judged by the clock that everything else goes by.
#[derive(Debug)]
pub struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_micros(clock::wall().0)))
    }
}

/// What tells one state of a file from another.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The files, as they were when they were last read.
#[derive(Debug)]
pub struct RenewedFiles {
    files: Vec<(PathBuf, Stamp)>,
    looked_at: Instant,
    warned_at: Instant,
}

/// What a look has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// A file is not what it was: all are to be read again.
    pub is_changed: bool,
    /// It is a day since [`warn_of_expiry`](RenewedFiles::warn_of_expiry).
    pub is_day_over: bool,
}

impl RenewedFiles {
    /// Files that are about to be read.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>, now: Instant) -> RenewedFiles {
        let files = paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect();
        RenewedFiles { files, looked_at: now, warned_at: now }
    }

    /// They are about to be read again.
    pub fn mark(&mut self) {
        self.files.iter_mut().for_each(|(path, as_read)| *as_read = stamp(path));
    }

    /// Looks at them, if it is time to.
    pub fn look(&mut self, now: Instant) -> Seen {
        if now.since(self.looked_at) < LOOK_EVERY {
            return Seen::default();
        }
        self.looked_at = now;
        Seen {
            is_changed: self.files.iter().any(|(path, as_read)| stamp(path) != *as_read),
            is_day_over: now.since(self.warned_at) >= WARN_EVERY,
        }
    }

    /// Says that the certificate of this process expires within [`WARN_BEFORE`], if it does. `holder` is what the process
    /// is, and what `acms certificate` is told to make.
    pub fn warn_of_expiry(&mut self, holder: &str, expires: bool) {
        self.warned_at = self.looked_at;
        if expires {
            let (days, subcommand) = (WARN_BEFORE.as_secs() / 86_400, holder.replace(' ', "-"));
            tracing::warn!(
                "the certificate of this {holder} expires within {days} days, and then nobody speaks to it any more: make \
                 a new one with `acms certificate {subcommand}`"
            );
        }
    }

    /// When [`look`](RenewedFiles::look) is due; never where there are no files.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.files.is_empty()).then(|| self.looked_at.after(LOOK_EVERY))
    }
}

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len()))
}

/// Says what has come of reading `what` again; whether it is in force.
pub fn tell_of_reading<E: fmt::Display>(what: &str, read: Result<(), E>) -> bool {
    match &read {
        Ok(()) => tracing::info!("{what} were read again and are in force for what begins from now on"),
        Err(error) => tracing::error!("{what} stay as they were, for the new ones cannot be used: {error}"),
    }
    read.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_and_a_day_passes_once_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("certificate.pem");
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let seen = |is_changed, is_day_over| Seen { is_changed, is_day_over };
        let mut files = RenewedFiles::new([path.clone()], at(10));
        assert_eq!(files.poll_timeout(), Some(at(13)));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(files.look(at(12)), seen(false, false), "it is not time yet");
        assert_eq!(files.look(at(13)), seen(true, false));
        assert_eq!(files.look(at(16)), seen(true, false), "nobody has read it");
        files.mark();
        assert_eq!(files.look(at(19)), seen(false, false));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(files.look(at(22)), seen(true, false));
        files.mark();
        assert_eq!(files.look(at(22 + 86_400)), seen(false, true));
        files.warn_of_expiry("cache", true);
        assert_eq!(files.look(at(25 + 86_400)), seen(false, false));
        assert_eq!(RenewedFiles::new([], at(10)).poll_timeout(), None);
    }
}
