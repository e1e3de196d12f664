//! How long packets may have waited before the router took them: it had no processor, or others had their turn.

use std::{fs::File, os::unix::fs::FileExt};

/// Frames that an interface keeps for the router, at most.
const QUEUE_LEN: usize = 500;

/// How long a thread has waited for a processor, by the kernel's count.
pub(super) struct RunDelay(Option<File>);

impl RunDelay {
    /// Of the thread that asks. Where the kernel does not count, it is always zero.
    pub(super) fn of_this_thread() -> RunDelay {
        RunDelay(File::open("/proc/thread-self/schedstat").ok())
    }

    /// So far, in nanoseconds.
    pub(super) fn ns(&self) -> u64 {
        let mut text = [0; 96];
        let Some(len) = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()) else { return 0 };
        let figure = std::str::from_utf8(&text[..len]).ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
        figure.unwrap_or(0)
    }
}

/// How long something has waited that is taken now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unseen {
    /// It came when the router was to wake up.
    Exactly(u64),
    /// It came at some time within this.
    Within(u64),
}

impl Unseen {
    /// The same of something that may have waited so long already.
    pub(super) fn or_longer(self, within_ns: u64) -> Unseen {
        if within_ns > self.longest_ns() { Unseen::Within(within_ns) } else { self }
    }

    /// Half of the time in which it may have come: more is as likely as less.
    pub(super) fn expected_ns(self) -> u64 {
        match self {
            Unseen::Exactly(ns) => ns,
            Unseen::Within(ns) => ns / 2,
        }
    }

    pub(super) fn longest_ns(self) -> u64 {
        match self {
            Unseen::Exactly(ns) | Unseen::Within(ns) => ns,
        }
    }
}

/// What a host has sent and its turns have left behind.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Backlog {
    /// What had come before the first of these times is gone since the second.
    marks_ns: Option<(u64, u64)>,
    /// Frames taken since the second.
    taken: usize,
}

impl Backlog {
    /// A frame that is taken now has waited no longer than this.
    pub(super) fn waited_ns(&self, now_ns: u64) -> u64 {
        self.marks_ns.map_or(0, |(before_ns, _)| now_ns - before_ns)
    }

    /// A turn took so many frames, the first of which may have come at `since_ns`, and left more behind or none.
    pub(super) fn note(&mut self, since_ns: u64, now_ns: u64, taken: usize, has_more: bool) {
        if !has_more {
            *self = Backlog::default();
            return;
        }
        let (_, after_ns) = *self.marks_ns.get_or_insert((since_ns, now_ns));
        self.taken += taken;
        if self.taken >= QUEUE_LEN {
            *self = Backlog { marks_ns: Some((after_ns, now_ns)), taken: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_a_backlog_have_waited_since_the_queue_was_last_seen_empty_or_a_queue_ago() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.waited_ns(5), 0);
        backlog.note(90, 100, 32, true);
        assert_eq!(backlog.waited_ns(130), 40, "since before the first turn");
        (2..=15_u64).for_each(|turn| backlog.note(90, turn * 100, 32, true));
        assert_eq!(backlog.waited_ns(1_600), 1_510, "480 frames are less than a queue");
        backlog.note(90, 1_600, 32, true);
        assert_eq!(backlog.waited_ns(1_650), 1_550, "all that had come by the first turn are gone");
        backlog.note(90, 1_700, 3, false);
        assert_eq!(backlog, Backlog::default());
    }

    #[test]
    fn what_came_at_an_unknown_time_has_waited_half_of_it() {
        assert_eq!(Unseen::Exactly(7).or_longer(5).expected_ns(), 7);
        let longer = Unseen::Exactly(7).or_longer(20);
        assert_eq!((longer.expected_ns(), longer.longest_ns()), (10, 20));
        assert_eq!(Unseen::Within(30).or_longer(20).expected_ns(), 15);
    }

    #[test]
    fn a_thread_that_waits_for_a_processor_is_seen_to() {
        use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
        use std::time::{Duration, Instant};
        let this_thread = nix::unistd::Pid::from_raw(0);
        let allowed = sched_getaffinity(this_thread).unwrap();
        let place = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).unwrap();
        let mut one = CpuSet::new();
        one.set(place).unwrap();
        // Two threads, both of which want the same processor.
        let spin = || {
            sched_setaffinity(this_thread, &one).unwrap();
            let (delay, began) = (RunDelay::of_this_thread(), Instant::now());
            while began.elapsed() < Duration::from_millis(300) {}
            // Where the kernel does not count there is nothing to see.
            if delay.0.is_some() { delay.ns() } else { u64::MAX }
        };
        let waited = std::thread::scope(|scope| {
            let other = scope.spawn(spin);
            scope.spawn(spin).join().unwrap().max(other.join().unwrap())
        });
        assert!(waited > 10_000_000, "{waited} ns");
    }
}
