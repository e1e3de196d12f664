//! Packets on their way.

use super::{
    super::{Arrivals, HostId},
    tolerance_ns,
};
use std::{
    cmp::Ordering,
    collections::{BinaryHeap, binary_heap::PeekMut},
    net::Ipv4Addr,
};

/// Buffers that are kept for the next packets.
const SPARE_MAX: usize = 1024;

/// ICMP types.
pub(super) const ECHO_REQUEST: u8 = 8;
pub(super) const ECHO_REPLY: u8 = 0;

/// Bytes before each packet at a TUN device (`virtio_net_hdr`): whether its checksum is still to be computed, and whether it
/// stands for several packets of TCP that are to be cut.
pub(super) const HEAD_LEN: usize = 10;
const GSO_TYPE: usize = 1;
const GSO_SIZE: usize = 4;
const GSO_NONE: u8 = 0;
const GSO_TCP: u8 = 1;
const ADDRESSES: std::ops::Range<usize> = 12..20;
const TCP: u8 = 6;

/// Whom an IPv4 packet is for.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_v4.then(|| destination.into())
}

/// The identifier and sequence number of an ICMP echo request or reply.
pub(super) fn echo_key(packet: &[u8]) -> Option<u32> {
    const ICMP: u8 = 1;
    if *packet.get(9)? != ICMP {
        return None;
    }
    let message = packet.get(ip_head_len(packet)..)?;
    let key: [u8; 4] = message.get(4..8)?.try_into().ok()?;
    matches!(message[0], ECHO_REQUEST | ECHO_REPLY).then(|| u32::from_be_bytes(key))
}

fn ip_head_len(packet: &[u8]) -> usize {
    usize::from(packet[0] & 0xf) * 4
}

/// How what a device gave, its head and an IPv4 packet, is to be cut into packets of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    /// Bytes of the heads of IP and TCP, which each packet has.
    heads_len: usize,
    /// Bytes of each packet beside them; the last may have fewer.
    size: usize,
    /// How many packets.
    pub(super) count: u32,
}

impl Cut {
    /// None if it is one packet.
    pub(super) fn of(frame: &[u8]) -> Option<Cut> {
        let (head, packet) = frame.split_at_checked(HEAD_LEN)?;
        let size = usize::from(u16::from_ne_bytes([head[GSO_SIZE], head[GSO_SIZE + 1]]));
        if head[GSO_TYPE] & !0x80 != GSO_TCP || size == 0 || *packet.get(9)? != TCP {
            return None;
        }
        let tcp = ip_head_len(packet);
        let heads_len = tcp + usize::from(*packet.get(tcp + 12)? >> 4) * 4;
        let count = packet.len().checked_sub(heads_len)?.div_ceil(size);
        (2..=64).contains(&count).then_some(Cut { heads_len, size, count: count as u32 })
    }

    /// Bytes of all packets on the wire.
    pub(super) fn wire_len(&self, packet_len: usize) -> usize {
        packet_len + (self.count as usize - 1) * self.heads_len
    }

    /// The packets that are not lost, as few frames as can be: one for each run of them.
    pub(super) fn survivors(&self, frame: &[u8], lost: u64, mut give: impl FnMut(&[u8])) {
        let is_lost = |packet: u32| lost >> packet & 1 == 1;
        let mut from = 0;
        while from < self.count {
            let to = (from..self.count).find(|packet| is_lost(*packet)).unwrap_or(self.count);
            if to > from {
                give(&self.run(frame, from as usize, to as usize));
            }
            from = to + 1;
        }
    }

    /// A frame of the packets `from` to `to`.
    fn run(&self, frame: &[u8], from: usize, to: usize) -> Vec<u8> {
        const FIN_AND_PUSH: u8 = 0x09;
        const CONGESTION_WINDOW_REDUCED: u8 = 0x80;
        let (head, packet) = frame.split_at(HEAD_LEN);
        let (heads, data) = packet.split_at(self.heads_len);
        let data = &data[from * self.size..data.len().min(to * self.size)];
        let mut run = [head, heads, data].concat();
        if to - from == 1 {
            run[GSO_TYPE] = GSO_NONE;
            run[GSO_SIZE..GSO_SIZE + 2].fill(0);
        }
        let packet = &mut run[HEAD_LEN..];
        let ip_len = ip_head_len(packet);
        let (total, tcp_len) = (packet.len() as u16, (packet.len() - ip_len) as u16);
        let put = |packet: &mut [u8], at: usize, value: u16| packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        let get = |packet: &[u8], at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        put(packet, 2, total);
        let id = get(packet, 4).wrapping_add(from as u16);
        put(packet, 4, id);
        put(packet, 10, 0);
        let sum = !sum(&packet[..ip_len], 0);
        put(packet, 10, sum);
        let sequence: [u8; 4] = packet[ip_len + 4..ip_len + 8].try_into().expect("four bytes");
        let sequence = u32::from_be_bytes(sequence).wrapping_add((from * self.size) as u32);
        packet[ip_len + 4..ip_len + 8].copy_from_slice(&sequence.to_be_bytes());
        if to < self.count as usize {
            packet[ip_len + 13] &= !FIN_AND_PUSH;
        }
        if from > 0 {
            packet[ip_len + 13] &= !CONGESTION_WINDOW_REDUCED;
        }
        // Of what the kernel has still to sum up, the field has the sum of what is not in the packet: addresses, protocol
        // and length.
        let pseudo = self::sum(&packet[ADDRESSES], u32::from(TCP) + u32::from(tcp_len));
        put(packet, ip_len + 16, pseudo);
        run
    }
}

/// The sum of the Internet protocols, of an even number of bytes (RFC 1071).
pub(super) fn sum(bytes: &[u8], more: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum::<u32>() + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A packet that arrives at some time.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) due_ns: u64,
    /// How it came: of those that are due at once, the first is first.
    number: u64,
    pub(super) to: HostId,
    /// How many packets of the wire it is.
    pub(super) count: u32,
    /// It may have waited so long before the router saw it.
    pub(super) unseen_ns: u64,
    /// It is late if it arrives so long after it is due.
    pub(super) tolerated_ns: u64,
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
    /// `bytes` that were taken now, and are `count` packets of the wire, arrive at `to` as often as `arrivals` says.
    pub(super) fn add(
        &mut self,
        now_ns: u64,
        to: HostId,
        arrivals: Arrivals,
        unseen_ns: u64,
        count: u32,
        bytes: &[u8],
    ) {
        for due_ns in arrivals {
            let mut copy = self.spare.pop().unwrap_or_default();
            copy.extend_from_slice(bytes);
            let tolerated_ns = tolerance_ns(due_ns.saturating_sub(now_ns));
            self.packets.push(Packet { due_ns, number: self.number, to, count, unseen_ns, tolerated_ns, bytes: copy });
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
            all.add(0, HostId(1), Arrivals::at(due_ns), 0, 1, name);
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

    /// A frame of TCP with a head of 20 bytes each, and so much data, to be cut into pieces of `size`.
    fn frame(len: u16, size: u16) -> Vec<u8> {
        let mut frame = vec![0; HEAD_LEN + 40];
        (frame[0], frame[GSO_TYPE]) = (1, GSO_TCP);
        frame[GSO_SIZE..GSO_SIZE + 2].copy_from_slice(&size.to_ne_bytes());
        let packet = &mut frame[HEAD_LEN..];
        (packet[0], packet[9], packet[20 + 12], packet[20 + 13]) = (0x45, TCP, 0x50, 0x99);
        packet[4..6].copy_from_slice(&[1, 255]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[24..28].copy_from_slice(&u32::MAX.to_be_bytes());
        frame.extend((0..len).map(|at| at as u8));
        frame
    }

    #[test]
    fn what_is_not_lost_of_many_packets_goes_on_as_if_it_had_been_sent_so() {
        let frame = frame(450, 100);
        let cut = Cut::of(&frame).unwrap();
        assert_eq!((cut.count, cut.heads_len, cut.wire_len(490)), (5, 40, 490 + 4 * 40));
        let mut runs = Vec::new();
        cut.survivors(&frame, 0b00100, |run| runs.push(run.to_vec()));
        assert_eq!(runs.iter().map(|run| run.len() - 50).collect::<Vec<_>>(), [200, 150]);
        let second = &runs[1][HEAD_LEN..];
        assert_eq!(second[40..], frame[HEAD_LEN + 40 + 300..]);
        assert_eq!((&second[2..4], &second[4..6]), (&190_u16.to_be_bytes()[..], &[2, 2][..]));
        assert_eq!(second[24..28], 299_u32.to_be_bytes());
        assert_eq!((runs[0][HEAD_LEN + 33], second[33]), (0x90, 0x19), "the last one ends, the first one tells");
        assert_eq!(!sum(&second[..20], 0), 0, "the checksum of IP is right");
        assert_eq!((runs[0][GSO_TYPE], runs[1][GSO_TYPE]), (GSO_TCP, GSO_TCP));

        let mut one = Vec::new();
        cut.survivors(&frame, 0b01111, |run| one.push(run.to_vec()));
        assert_eq!((one.len(), one[0].len(), one[0][GSO_TYPE], one[0][GSO_SIZE]), (1, 100, GSO_NONE, 0));
        let mut whole = Vec::new();
        cut.survivors(&frame, 0, |run| whole.push(run.to_vec()));
        assert_eq!(whole[0][HEAD_LEN + 40..], frame[HEAD_LEN + 40..]);
    }

    #[test]
    fn one_packet_is_not_cut() {
        assert_eq!(Cut::of(&frame(100, 100)), None);
        assert_eq!(Cut::of(&frame(450, 0)), None);
        assert_eq!(Cut::of(&frame(450, 1)), None, "more than a burst has");
        assert_eq!(Cut::of(&[]), None);
    }
}
