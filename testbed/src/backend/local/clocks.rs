//! Wall clocks of processes that are wrong on purpose: each adds what its file says.

use crate::{
    backend::clock::{Clock, Skew},
    trace::{Kind, Recorder, Template, Text, now_ns},
};
use acms_engine::runtime::clock::OFFSET_VARIABLE;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// How often clocks that move are set.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// A clock is set when it is off by so much from what it is to show.
const RESOLUTION_US: u64 = 200;

/// The clocks of a run that may be wrong.
#[derive(Debug)]
pub(super) struct Clocks {
    begun_ns: u64,
    dials: Mutex<BTreeMap<String, Dial>>,
}

#[derive(Debug)]
struct Dial {
    clock: Clock,
    file: PathBuf,
    shown_us: i64,
}

impl Clocks {
    /// None yet.
    pub(super) fn new() -> Clocks {
        Clocks { begun_ns: now_ns(), dials: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Dial>> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        now_ns() - self.begun_ns
    }

    /// A host's clock is wrong as `clock` says from now on, by way of `file`.
    pub(super) fn add(&self, host: &str, clock: Clock, file: PathBuf, recorder: &Recorder) -> io::Result<()> {
        let shown_us = clock.ahead_us(self.now_ns());
        write_offset(&file, shown_us)?;
        self.note(host, &clock, recorder);
        self.lock().insert(host.to_owned(), Dial { clock, file, shown_us });
        Ok(())
    }

    /// Sets the clocks that have moved.
    pub(super) fn tick(&self) -> io::Result<()> {
        let now_ns = self.now_ns();
        for dial in self.lock().values_mut() {
            let due_us = dial.clock.ahead_us(now_ns);
            if due_us.abs_diff(dial.shown_us) > RESOLUTION_US {
                write_offset(&dial.file, due_us)?;
                dial.shown_us = due_us;
            }
        }
        Ok(())
    }

    /// Moves a host's clock by so much at once.
    pub(super) fn jump(&self, host: &str, by_us: i64, recorder: &Recorder) -> io::Result<()> {
        self.change(host, recorder, |clock, _| clock.offset_us += by_us)
    }

    /// Moves it evenly, so that it is off by so much after `within`; `fault` ends that.
    pub(super) fn skew(
        &self,
        host: &str,
        fault: usize,
        by_us: i64,
        within: Duration,
        recorder: &Recorder,
    ) -> io::Result<()> {
        self.change(host, recorder, |clock, now_ns| {
            let to_ns = now_ns + u64::try_from(within.as_nanos()).unwrap_or(u64::MAX / 2);
            clock.skews.push(Skew { fault, from_ns: now_ns, to_ns, by_us });
        })
    }

    /// Sets it back to where it was without `fault`.
    pub(super) fn unskew(&self, host: &str, fault: usize, recorder: &Recorder) -> io::Result<()> {
        self.change(host, recorder, |clock, _| clock.skews.retain(|skew| skew.fault != fault))
    }

    /// How far a host's clock is ahead now.
    pub(super) fn ahead_us(&self, host: &str) -> Option<i64> {
        self.lock().get(host).map(|dial| dial.clock.ahead_us(self.now_ns()))
    }

    fn change(&self, host: &str, recorder: &Recorder, change: impl FnOnce(&mut Clock, u64)) -> io::Result<()> {
        let now_ns = self.now_ns();
        if let Some(dial) = self.lock().get_mut(host) {
            change(&mut dial.clock, now_ns);
            self.note(host, &dial.clock, recorder);
        }
        self.tick()
    }

    fn note(&self, host: &str, clock: &Clock, recorder: &Recorder) {
        let told = clock.told(self.now_ns());
        recorder.note(&Text::from(host), 0, Kind::Clock, Template { cause: Some(&told), ..Template::default() });
    }
}

/// The variable by which a process finds its file.
pub(super) fn variable(file: &Path) -> (OsString, OsString) {
    (OFFSET_VARIABLE.into(), file.into())
}

/// By rename, so that nobody reads half a number.
pub(super) fn write_offset(file: &Path, offset_us: i64) -> io::Result<()> {
    let new = file.with_extension("new");
    fs::write(&new, format!("{offset_us}\n")).and_then(|()| fs::rename(&new, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_moved_shows_in_its_file_and_in_the_trace() {
        let dir = tempfile::tempdir().unwrap();
        let (clocks, recorder, file) = (Clocks::new(), Recorder::new(), dir.path().join("sp1.clock"));
        let shown = || fs::read_to_string(&file).unwrap().trim().parse::<i64>().unwrap();
        clocks.add("sp1", Clock { offset_us: -5, ..Clock::default() }, file.clone(), &recorder).unwrap();
        assert_eq!(shown(), -5);
        clocks.jump("sp1", 30_000_000, &recorder).unwrap();
        assert_eq!(shown(), 29_999_995);
        clocks.skew("sp1", 7, -1_000_000, Duration::ZERO, &recorder).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        clocks.tick().unwrap();
        assert_eq!((shown(), clocks.ahead_us("sp1")), (28_999_995, Some(28_999_995)));
        clocks.unskew("sp1", 7, &recorder).unwrap();
        clocks.jump("sp1", -30_000_000, &recorder).unwrap();
        assert_eq!(shown(), -5);
        let told: Vec<_> = recorder.finish().events().iter().map(|event| event.cause.clone().unwrap()).collect();
        assert_eq!((told.len(), &*told[0], &*told[1]), (5, "-5", "29999995"));
    }
}
