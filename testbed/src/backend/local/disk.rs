//! Disks that are full, slow or failing, as far as a process can see: what it asks of its file system is answered here.

use super::seccomp::{Call, Intent, Listener, Seen};
use nix::libc;
use std::{
    collections::BTreeMap,
    fs, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What is wrong with a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// No file grows and none is made. What a file has room for already can be written, as on file systems that write in place.
    Full,
    /// Writes and flushes fail.
    Fails,
    /// Flushes take so much longer.
    Slow(Duration),
}

/// How calls fared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Counts {
    /// Calls that failed or were delayed.
    pub(super) hit: u64,
    /// Calls that the kernel did at once.
    pub(super) passed: u64,
}

/// The disk of one host, over all lives of its process. Clones are the same disk.
#[derive(Clone, Default, Debug)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Default, Debug)]
struct State {
    /// By the number of the fault.
    troubles: BTreeMap<u64, (Trouble, Counts)>,
    passed: u64,
}

impl Disk {
    /// Answers the calls of a process of this disk, until it ends.
    pub(super) fn serve(&self, name: &str, listener: Listener) -> io::Result<()> {
        let disk = self.clone();
        let thread = std::thread::Builder::new().name(format!("{name} disk")).stack_size(256 << 10);
        thread.spawn(move || disk.answer_all(&listener)).map(drop)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the disk is in trouble, until [`Disk::mend`] of the same fault.
    pub(super) fn trouble(&self, fault: u64, trouble: Trouble) {
        self.lock().troubles.insert(fault, (trouble, Counts::default()));
    }

    /// Ends it.
    pub(super) fn mend(&self, fault: u64) {
        self.lock().troubles.remove(&fault);
    }

    /// How many calls a fault has hit so far.
    pub(super) fn hits(&self, fault: u64) -> u64 {
        self.lock().troubles.get(&fault).map_or(0, |(_, counts)| counts.hit)
    }

    /// How many calls were done at once so far, and whether nothing is wrong with it now.
    pub(super) fn passed(&self) -> (u64, bool) {
        let state = self.lock();
        (state.passed, state.troubles.is_empty())
    }

    fn answer_all(&self, listener: &Listener) {
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let mut delayed: Vec<(Instant, Call)> = Vec::new();
        loop {
            let now = Instant::now();
            delayed.retain(|(until, call)| {
                let waits = *until > now;
                if !waits {
                    listener.answer(call, None);
                }
                waits
            });
            let next = delayed.iter().map(|(until, _)| until.saturating_duration_since(now)).min();
            // Rounded up: the kernel waits whole milliseconds.
            let wait = next.map_or(LOOK_EVERY, |next| next + Duration::from_millis(1));
            match listener.next(wait) {
                Ok(Seen::Call(call)) => match self.verdict(&call) {
                    Verdict::Do => listener.answer(&call, None),
                    Verdict::Fail(error) => listener.answer(&call, Some(error)),
                    Verdict::Delay(by) => delayed.push((Instant::now() + by, call)),
                },
                Ok(Seen::Nothing) => {}
                Ok(Seen::End) => return,
                Err(error) => {
                    // With the listener the filter's answer is gone: calls fail, and the process ends.
                    tracing::warn!("a disk is answered for no more: {error}");
                    return;
                }
            }
        }
    }

    fn verdict(&self, call: &Call) -> Verdict {
        // A look at the file before the lock; only a full disk wants to know.
        let is_full = self.lock().troubles.values().any(|(trouble, _)| *trouble == Trouble::Full);
        let grows = is_full && grows(call);
        let is_of_file = !matches!(call.intent, Intent::Write { fd, offset: None, .. } if !is_file(call, fd));
        let mut state = self.lock();
        let mut verdict = Verdict::Do;
        for (trouble, counts) in state.troubles.values_mut() {
            let found = match trouble {
                Trouble::Full if grows => Verdict::Fail(libc::ENOSPC),
                Trouble::Fails if is_of_file => Verdict::Fail(libc::EIO),
                Trouble::Slow(by) if call.intent == Intent::Flush => Verdict::Delay(*by),
                _ => continue,
            };
            counts.hit += 1;
            verdict = verdict.worse(found);
        }
        state.passed += u64::from(verdict == Verdict::Do);
        verdict
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Verdict {
    Do,
    Delay(Duration),
    Fail(libc::c_int),
}

impl Verdict {
    fn worse(self, other: Verdict) -> Verdict {
        self.max(other)
    }
}

fn is_file(call: &Call, fd: libc::c_int) -> bool {
    fs::metadata(call.file(fd)).is_ok_and(|metadata| metadata.is_file())
}

/// Whether a call needs room on the disk.
fn grows(call: &Call) -> bool {
    let len_of = |fd| fs::metadata(call.file(fd)).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len());
    match call.intent {
        Intent::Flush => false,
        Intent::Write { fd, offset, len } => {
            len_of(fd).is_some_and(|is| offset.is_none_or(|offset| offset.saturating_add(len) > is))
        }
        Intent::Lengthen { fd, len } => len_of(fd).is_some_and(|is| len > is),
        Intent::Make { directory, path } => {
            call.path(directory, path).is_ok_and(|path| fs::symlink_metadata(path).is_err())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::seccomp::intercept, *};
    use std::{
        path::Path,
        process::{Command, Stdio},
    };

    /// What a shell on the disk says.
    fn shell(disk: &Disk, dir: &Path, script: &str) -> (bool, String, Duration) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).current_dir(dir).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let hook = intercept(&mut command).unwrap();
        let begun = Instant::now();
        let child = command.spawn().unwrap();
        disk.serve("test", hook.listener().unwrap()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned(), begun.elapsed())
    }

    /// Appends and flushes. (Standard output is not looked at.)
    const WRITE: &str = "head -c 8192 /dev/zero | tee -a file >/dev/null && sync -d file";

    #[test]
    fn a_full_disk_takes_nothing_more_and_what_is_there_stays() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        let refused = |script: &str| {
            let (is_good, text, _) = shell(&disk, dir.path(), script);
            assert!(!is_good && text.contains("No space left on device"), "{script}: {text}");
        };
        assert!(shell(&disk, dir.path(), WRITE).0);
        disk.trouble(7, Trouble::Full);
        for script in [WRITE, &WRITE.replace("file", "other"), "truncate -s 99999 file", "mkdir new"] {
            refused(script);
        }
        let (is_good, text, _) = shell(&disk, dir.path(), "truncate -s 4096 file && cat file >/dev/null");
        assert!(is_good, "{text}");
        assert!(disk.hits(7) >= 4 && !dir.path().join("other").exists());
        disk.mend(7);
        assert!(shell(&disk, dir.path(), &WRITE.replace("file", "other")).0);
        assert!(disk.passed().0 > 0 && disk.passed().1);
    }

    #[test]
    fn a_slow_disk_takes_longer_to_flush_and_a_failing_one_fails() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::default());
        disk.trouble(1, Trouble::Slow(Duration::from_millis(300)));
        let (is_good, text, took) = shell(&disk, dir.path(), WRITE);
        assert!(is_good && took >= Duration::from_millis(300), "{took:?} {text}");
        assert_eq!(disk.hits(1), 1);
        disk.trouble(2, Trouble::Fails);
        let (is_good, text, _) = shell(&disk, dir.path(), WRITE);
        assert!(!is_good && text.contains("Input/output error"), "{text}");
        disk.mend(1);
        disk.mend(2);
        let (is_good, text, _) = shell(&disk, dir.path(), WRITE);
        assert!(is_good && disk.hits(1) == 0, "{text}");
    }
}
