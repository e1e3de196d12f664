//! One direction of a link: what becomes of what has left the sender.

use super::Disturbance;
use crate::workload::Random;

/// Parts in a million: the unit of chances and of jitter.
pub const PPM: u32 = 1_000_000;
/// Bytes that a segment of a stream carries.
pub const SEGMENT_LEN_MAX: u64 = 1_460;
/// Segments that must follow a lost one for its loss to be noticed without a time-out.
const DUPLICATE_ACKS: u64 = 3;
/// A stream's retransmission time-out beyond the round trip.
const RTO_MIN_NS: u64 = 200_000_000;
/// A time-out is doubled up to this.
const RTO_MAX_NS: u64 = 60_000_000_000;
/// Least time that a reordered packet is held back.
const HELD_BACK_NS_MIN: u64 = 1_000_000;

/// What becomes of packets when more is sent than the rate lets through. Streams wait: their senders slow down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// What comes waits, however long.
    Delay,
    /// Up to so many bytes wait; a packet beyond is lost, unless it is alone.
    DropTail(u64),
}

impl Queue {
    /// Whether a packet of `len` bytes finds room behind `waiting` bytes.
    pub fn takes(self, waiting: u64, len: u64) -> bool {
        match self {
            Queue::Delay => true,
            Queue::DropTail(room) => waiting == 0 || waiting + len <= room,
        }
    }
}

/// Properties of every direction of a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkSettings {
    /// The delay of a packet is off by up to this part of it, either way; half of it on average is seldom, none is most
    /// likely (the sum of two even draws).
    pub jitter_ppm: u32,
    /// Packets lost, of a million.
    pub loss_ppm: u32,
    /// Packets that arrive twice, of a million.
    pub duplicate_ppm: u32,
    /// Packets that are held back by up to one more delay, so that later ones overtake them, of a million.
    pub reorder_ppm: u32,
    /// Bytes a second that a host can send to all others together, and as many that it can receive; none: no limit.
    pub rate: Option<u64>,
    /// What happens to packets beyond a rate.
    pub queue: Queue,
}

impl Default for LinkSettings {
    fn default() -> LinkSettings {
        LinkSettings { jitter_ppm: 0, loss_ppm: 0, duplicate_ppm: 0, reorder_ppm: 0, rate: None, queue: Queue::Delay }
    }
}

/// Times at which something sent arrives: none, one or two, in any order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Arrivals([Option<u64>; 2]);

impl Arrivals {
    /// Never.
    pub const NEVER: Arrivals = Arrivals([None, None]);

    /// Once.
    pub fn at(ns: u64) -> Arrivals {
        Arrivals([Some(ns), None])
    }

    /// How often it arrives.
    pub fn count(self) -> usize {
        self.into_iter().count()
    }
}

impl IntoIterator for Arrivals {
    type Item = u64;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<u64>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// What becomes of packets that have left together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Burst {
    /// When those arrive that do.
    pub arrivals: Arrivals,
    /// Those that are lost: the first is the lowest bit.
    pub lost: u64,
}

/// A part of a stream that has left its sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its bytes.
    pub len: u64,
    /// When its first byte left.
    pub begun_ns: u64,
    /// When its last byte left.
    pub sent_ns: u64,
    /// Bytes of the same message that follow it.
    pub following: u64,
}

/// What a disturbance did to something sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Harm {
    /// It was lost, or one of its segments was; the least loss, of a million, that would have lost it.
    pub(super) lost_ppm: Option<u32>,
}

/// State of one direction.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    delay_ns: u64,
    settings: LinkSettings,
    random: Random,
    /// When the line is free, where a disturbance narrows it.
    pub(super) free_at_ns: u64,
    /// When the latest packet arrives.
    arrived_ns: u64,
}

impl Direction {
    pub(super) fn new(delay_ns: u64, settings: LinkSettings, random: Random) -> Direction {
        Direction { delay_ns, settings, random, free_at_ns: 0, arrived_ns: 0 }
    }

    /// See [`Network::burst`](super::Network::burst).
    pub(super) fn burst(&mut self, sent_ns: u64, packets: u32, disturbance: &Disturbance) -> (Burst, Harm) {
        let mut harm = Harm::default();
        let mut lost = 0_u64;
        for packet in 0..packets {
            lost |= u64::from(self.is_lost(disturbance.loss_ppm, &mut harm)) << packet;
        }
        if lost.count_ones() == packets {
            return (Burst { arrivals: Arrivals::NEVER, lost }, harm);
        }
        let first = self.arrival(sent_ns, disturbance);
        let twice = self.chance(self.settings.duplicate_ppm);
        let arrivals = Arrivals([Some(first), twice.then(|| self.arrival(sent_ns, disturbance))]);
        (Burst { arrivals, lost }, harm)
    }

    /// When a packet that left the sender at `sent_ns` arrives: in order, unless it is held back.
    fn arrival(&mut self, sent_ns: u64, disturbance: &Disturbance) -> u64 {
        let at = sent_ns + self.delay(disturbance);
        if self.chance(self.settings.reorder_ppm) {
            return at + HELD_BACK_NS_MIN + self.random.below(self.delay_ns + disturbance.delay_ns + HELD_BACK_NS_MIN);
        }
        // Jitter alone keeps the order. What was sent when the way was longer is overtaken.
        if self.arrived_ns <= at + 2 * self.jitter_ns(disturbance) {
            self.arrived_ns = self.arrived_ns.max(at);
            return self.arrived_ns;
        }
        at
    }

    /// See [`Network::stream`](super::Network::stream). `back_ns`: delay of the other direction.
    pub(super) fn stream(&mut self, part: Part, back_ns: u64, disturbance: &Disturbance) -> (u64, Harm) {
        let mut harm = Harm::default();
        let segments = segments(part.len);
        let all = segments + part.following.div_ceil(SEGMENT_LEN_MAX);
        let mut arrived_ns = part.sent_ns + self.delay(disturbance);
        if self.settings.loss_ppm.max(disturbance.loss_ppm) > 0 {
            for segment in 0..segments {
                if self.is_lost(disturbance.loss_ppm, &mut harm) {
                    let span_ns = u128::from(part.sent_ns - part.begun_ns) * u128::from(segment + 1);
                    let left_ns = part.begun_ns + (span_ns / u128::from(segments)) as u64;
                    let again_ns = self.retransmitted(left_ns, all - 1 - segment, back_ns, disturbance);
                    arrived_ns = arrived_ns.max(again_ns);
                }
            }
        }
        (arrived_ns, harm)
    }

    /// When a segment that was lost at `sent_ns` arrives at last.
    fn retransmitted(&mut self, sent_ns: u64, following: u64, back_ns: u64, disturbance: &Disturbance) -> u64 {
        let round_trip_ns = self.delay_ns + disturbance.delay_ns + back_ns;
        let mut timeout_ns = round_trip_ns + RTO_MIN_NS;
        let mut at = sent_ns + if following >= DUPLICATE_ACKS { round_trip_ns } else { timeout_ns };
        // With all packets lost a direction would be cut; a thousand tries are as good.
        for _ in 0..1_000 {
            let is_over = at >= disturbance.loss_until_ns;
            if !self.is_lost(if is_over { 0 } else { disturbance.loss_ppm }, &mut Harm::default()) {
                break;
            }
            at += timeout_ns;
            timeout_ns = (timeout_ns * 2).min(RTO_MAX_NS);
        }
        at + self.delay(disturbance)
    }

    /// Whether a packet is lost by chance: its own, or more where a disturbance makes it so.
    fn is_lost(&mut self, disturbed_ppm: u32, harm: &mut Harm) -> bool {
        let own_ppm = self.settings.loss_ppm;
        let ppm = own_ppm.max(disturbed_ppm);
        if ppm == 0 {
            return false;
        }
        let drawn = self.random.below(u64::from(PPM)) as u32;
        if drawn >= own_ppm && drawn < ppm {
            harm.lost_ppm = Some(harm.lost_ppm.map_or(drawn, |other| other.min(drawn)));
        }
        drawn < ppm
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.chance(ppm)
    }

    /// The delay of one packet.
    fn delay(&mut self, disturbance: &Disturbance) -> u64 {
        let (delay_ns, off_ns) = (self.delay_ns + disturbance.delay_ns, self.jitter_ns(disturbance));
        if off_ns == 0 {
            return delay_ns;
        }
        let drawn = self.random.below(off_ns + 1) + self.random.below(off_ns + 1);
        (delay_ns + drawn).saturating_sub(off_ns)
    }

    fn jitter_ns(&self, disturbance: &Disturbance) -> u64 {
        let delay_ns = u128::from(self.delay_ns + disturbance.delay_ns);
        (delay_ns * u128::from(self.settings.jitter_ppm) / u128::from(PPM)) as u64
    }
}

/// Segments of so many bytes of a stream.
fn segments(len: u64) -> u64 {
    len.div_ceil(SEGMENT_LEN_MAX).max(1)
}
