//! What is going to happen, in the order of virtual time; what is due at the same time happens as it was put in.

use super::{
    connection::{ConnectionId, Segment, Side},
    host::{HostId, Input},
};
use std::{cmp::Ordering, collections::BinaryHeap};

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A segment reaches one end of a connection.
    Arrival { connection: ConnectionId, at: Side, segment: Segment },
    /// An end of a connection goes on sending: a piece has left the line, or one met a cut and is tried again.
    GoOn { connection: ConnectionId, from: Side },
    /// A process gets an input, if it is still in that life.
    Input { host: HostId, life: u32, input: Input },
    /// The time for which a process asked last.
    Timer { host: HostId, life: u32 },
    /// A fault that goes on has its next step.
    Fault { number: usize },
}

#[derive(Debug)]
struct Slot {
    time_ns: u64,
    sequence: u64,
    happening: Happening,
}

impl Slot {
    fn key(&self) -> (u64, u64) {
        (self.time_ns, self.sequence)
    }
}

// Reversed: the heap gives its greatest first.
impl Ord for Slot {
    fn cmp(&self, other: &Slot) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Slot {
    fn partial_cmp(&self, other: &Slot) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Slot {
    fn eq(&self, other: &Slot) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Slot {}

/// Everything that is going to happen.
#[derive(Default, Debug)]
pub(super) struct Queue {
    slots: BinaryHeap<Slot>,
    sequence: u64,
}

impl Queue {
    /// Lets `happening` happen at `time_ns`.
    pub(super) fn push(&mut self, time_ns: u64, happening: Happening) {
        self.sequence += 1;
        self.slots.push(Slot { time_ns, sequence: self.sequence, happening });
    }

    /// The next thing, with its time, if it is due by `until_ns`.
    pub(super) fn pop(&mut self, until_ns: u64) -> Option<(u64, Happening)> {
        if self.slots.peek()?.time_ns > until_ns {
            return None;
        }
        self.slots.pop().map(|slot| (slot.time_ns, slot.happening))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_time_and_then_as_they_came() {
        let mut queue = Queue::default();
        for (time_ns, number) in [(5, 0), (3, 1), (5, 2), (4, 3)] {
            queue.push(time_ns, Happening::Fault { number });
        }
        let mut order = Vec::new();
        while let Some((time_ns, Happening::Fault { number })) = queue.pop(5) {
            order.push((time_ns, number));
        }
        assert_eq!(order, [(3, 1), (4, 3), (5, 0), (5, 2)]);
        queue.push(6, Happening::Fault { number: 0 });
        assert!(queue.pop(5).is_none() && queue.pop(6).is_some());
    }
}
