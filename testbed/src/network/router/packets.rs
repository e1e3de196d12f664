//! Packets on their way.

use super::super::{Arrivals, HostId};
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    net::Ipv4Addr,
};

/// Buffers that are kept for the next packets.
const SPARE_MAX: usize = 1024;

/// Whom an IPv4 packet is for.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| destination.into())
}

/// A packet that arrives at some time.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) due_ns: u64,
    /// How it came: of those that are due at once, the first is first.
    number: u64,
    pub(super) to: HostId,
    /// It may have waited so long before the router saw it.
    pub(super) unseen_ns: u64,
    pub(super) bytes: Vec<u8>,
}

impl Ord for Packet {
    /// The earliest is the greatest.
    fn cmp(&self, other: &Packet) -> Ordering {
        (other.due_ns, other.number).cmp(&(self.due_ns, self.number))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Packet) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.number == other.number
    }
}

impl Eq for Packet {}

/// All packets on their way, and buffers for more.
#[derive(Default, Debug)]
pub(super) struct InFlight {
    packets: BinaryHeap<Packet>,
    number: u64,
    spare: Vec<Vec<u8>>,
}

impl InFlight {
    /// `bytes` arrive at `to` as often as `arrivals` says.
    pub(super) fn add(&mut self, to: HostId, arrivals: Arrivals, unseen_ns: u64, bytes: &[u8]) {
        for due_ns in arrivals {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.extend_from_slice(bytes);
            self.packets.push(Packet { due_ns, number: self.number, to, unseen_ns, bytes: copy });
            self.number += 1;
        }
    }

    /// The next packet that is due by now.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Packet> {
        let next = self.packets.peek_mut().filter(|packet| packet.due_ns <= now_ns)?;
        Some(PeekMut::pop(next))
    }

    /// When the next one is due.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.packets.peek().map(|packet| packet.due_ns)
    }

    /// The buffer of a packet that has arrived.
    pub(super) fn give_back(&mut self, mut bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_the_order_of_their_times_and_the_first_first() {
        let mut all = InFlight::default();
        for (due_ns, name) in [(5, b"b"), (3, b"a"), (5, b"c")] {
            all.add(HostId(1), Arrivals::at(due_ns), 0, name);
        }
        assert!(all.pop(2).is_none());
        let out: Vec<_> = std::iter::from_fn(|| all.pop(9)).map(|packet| packet.bytes).collect();
        assert_eq!(out, [b"a", b"b", b"c"]);
        assert_eq!(all.next_due_ns(), None);
    }

    #[test]
    fn only_a_whole_ipv4_head_is_addressed() {
        let mut packet = [0; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 0, 0, 7]);
        assert_eq!(destination(&packet), Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(destination(&packet[..19]), None);
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
    }
}
