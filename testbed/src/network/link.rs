//! One direction of a link: what becomes of what is sent over it.

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
const SECOND_NS: u128 = 1_000_000_000;

/// What a link does when more is sent than its rate lets through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// What comes waits, however long.
    Delay,
    /// Up to so many bytes wait; a packet beyond is lost.
    DropTail(u64),
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
    /// Bytes per second; none: no limit.
    pub rate: Option<u64>,
    /// What happens beyond the rate.
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

    /// How often it arrives.
    pub fn count(self) -> usize {
        self.into_iter().count()
    }
}

impl From<Option<u64>> for Arrivals {
    fn from(once: Option<u64>) -> Arrivals {
        Arrivals([once, None])
    }
}

impl IntoIterator for Arrivals {
    type Item = u64;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<u64>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

/// How a message of a stream arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamArrival {
    /// When the last byte of it can be read.
    pub at_ns: u64,
    /// How long the reader sees nothing of it because a lost segment has to be sent again.
    pub silent_ns: u64,
}

/// What happened on a direction, or on several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Packets and segments sent, retransmissions included.
    pub packets: u64,
    /// Bytes handed in.
    pub bytes: u64,
    /// Packets and segments lost by chance.
    pub lost: u64,
    /// Packets and messages lost, or segments delayed, because a queue was full.
    pub overflowed: u64,
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets held back.
    pub reordered: u64,
    /// Packets and messages sent over a cut direction.
    pub cut: u64,
}

impl LinkCounters {
    /// The sums.
    #[must_use]
    pub fn plus(self, other: LinkCounters) -> LinkCounters {
        LinkCounters {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            lost: self.lost + other.lost,
            overflowed: self.overflowed + other.overflowed,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            cut: self.cut + other.cut,
        }
    }
}

/// State of one direction.
#[derive(Clone, Debug)]
pub(super) struct Direction {
    delay_ns: u64,
    settings: LinkSettings,
    random: Random,
    /// When the line has sent all that was handed in.
    free_at_ns: u64,
    /// Nothing that keeps the order arrives before.
    arrived_ns: u64,
    counters: LinkCounters,
}

impl Direction {
    pub(super) fn new(delay_ns: u64, settings: LinkSettings, random: Random) -> Direction {
        Direction { delay_ns, settings, random, free_at_ns: 0, arrived_ns: 0, counters: LinkCounters::default() }
    }

    pub(super) fn counters(&self) -> LinkCounters {
        self.counters
    }

    pub(super) fn forget_order(&mut self) {
        self.arrived_ns = 0;
    }

    /// See [`Network::datagram`](super::Network::datagram).
    pub(super) fn datagram(&mut self, now_ns: u64, len: u64, disturbance: &Disturbance) -> Arrivals {
        self.counters.packets += 1;
        self.counters.bytes += len;
        if disturbance.cut {
            self.counters.cut += 1;
            return Arrivals::NEVER;
        }
        let Some(sent_ns) = self.line(now_ns, len, disturbance, true) else { return Arrivals::NEVER };
        if self.chance(self.settings.loss_ppm.max(disturbance.loss_ppm)) {
            self.counters.lost += 1;
            return Arrivals::NEVER;
        }
        let first = self.arrival(sent_ns, disturbance);
        let twice = self.chance(self.settings.duplicate_ppm.max(disturbance.duplicate_ppm));
        self.counters.duplicated += u64::from(twice);
        Arrivals([Some(first), twice.then(|| self.arrival(sent_ns, disturbance))])
    }

    /// When a packet that left the sender at `sent_ns` arrives: in order, unless it is held back.
    fn arrival(&mut self, sent_ns: u64, disturbance: &Disturbance) -> u64 {
        let at = sent_ns + self.delay(disturbance);
        if self.chance(self.settings.reorder_ppm.max(disturbance.reorder_ppm)) {
            self.counters.reordered += 1;
            return at + HELD_BACK_NS_MIN + self.random.below(self.delay_ns + disturbance.delay_ns + HELD_BACK_NS_MIN);
        }
        self.in_order(at)
    }

    /// See [`Network::stream`](super::Network::stream). `back_ns`: delay of the other direction.
    pub(super) fn stream(
        &mut self,
        now_ns: u64,
        len: u64,
        back_ns: u64,
        disturbance: &Disturbance,
    ) -> Option<StreamArrival> {
        self.counters.bytes += len;
        if disturbance.cut {
            self.counters.cut += 1;
            return None;
        }
        let segments = len.div_ceil(SEGMENT_LEN_MAX).max(1);
        let loss_ppm = self.settings.loss_ppm.max(disturbance.loss_ppm);
        let sent_ns = self.line(now_ns, len, disturbance, false).unwrap_or(now_ns);
        self.counters.packets += segments;
        let mut arrived_ns = sent_ns + self.delay(disturbance);
        let mut silent_ns = 0;
        if loss_ppm > 0 {
            for segment in 0..segments {
                if self.chance(loss_ppm) {
                    let following = segments - 1 - segment;
                    let begun_ns = self.segment_sent(now_ns, sent_ns, segment, segments);
                    let again_ns = self.retransmitted(begun_ns, following, back_ns, disturbance);
                    arrived_ns = arrived_ns.max(again_ns);
                    silent_ns = silent_ns.max(again_ns - begun_ns);
                }
            }
        }
        Some(StreamArrival { at_ns: self.in_order(arrived_ns), silent_ns })
    }

    /// When a segment left, if a message left from `now_ns` to `sent_ns` at an even rate.
    fn segment_sent(&self, now_ns: u64, sent_ns: u64, segment: u64, segments: u64) -> u64 {
        let span = u128::from(sent_ns - now_ns) * u128::from(segment + 1) / u128::from(segments);
        now_ns + span as u64
    }

    /// When a segment that was lost at `sent_ns` arrives at last.
    fn retransmitted(&mut self, sent_ns: u64, following: u64, back_ns: u64, disturbance: &Disturbance) -> u64 {
        let round_trip_ns = self.delay_ns + disturbance.delay_ns + back_ns;
        let mut timeout_ns = round_trip_ns + RTO_MIN_NS;
        self.counters.lost += 1;
        let mut at = sent_ns + if following >= DUPLICATE_ACKS { round_trip_ns } else { timeout_ns };
        // With all packets lost a direction would be cut; a thousand tries are as good.
        for _ in 0..1_000 {
            self.counters.packets += 1;
            let is_over = at >= disturbance.loss_until_ns;
            if !self.chance(self.settings.loss_ppm.max(if is_over { 0 } else { disturbance.loss_ppm })) {
                break;
            }
            self.counters.lost += 1;
            at += timeout_ns;
            timeout_ns = (timeout_ns * 2).min(RTO_MAX_NS);
        }
        at + self.delay(disturbance)
    }

    /// When the last of `len` bytes is on the line. None: the queue was full and a packet was dropped. A stream's
    /// sender waits for room instead, and its first overflow costs it nothing more here.
    fn line(&mut self, now_ns: u64, len: u64, disturbance: &Disturbance, drops: bool) -> Option<u64> {
        let Some(rate) = [self.settings.rate, disturbance.rate].into_iter().flatten().min() else {
            return Some(now_ns);
        };
        let rate = u128::from(rate.max(1));
        let begin_ns = self.free_at_ns.max(now_ns);
        if let Queue::DropTail(room) = self.settings.queue {
            let waiting = u128::from(begin_ns - now_ns) * rate / SECOND_NS;
            if waiting + u128::from(len) > u128::from(room) {
                self.counters.overflowed += 1;
                if drops {
                    return None;
                }
            }
        }
        let took_ns = u64::try_from(u128::from(len) * SECOND_NS / rate).unwrap_or(u64::MAX);
        self.free_at_ns = begin_ns.saturating_add(took_ns);
        Some(self.free_at_ns)
    }

    /// The delay of one packet.
    fn delay(&mut self, disturbance: &Disturbance) -> u64 {
        let delay_ns = self.delay_ns + disturbance.delay_ns;
        let off_ns = (u128::from(delay_ns) * u128::from(self.settings.jitter_ppm) / u128::from(PPM)) as u64;
        if off_ns == 0 {
            return delay_ns;
        }
        let drawn = self.random.below(off_ns + 1) + self.random.below(off_ns + 1);
        (delay_ns + drawn).saturating_sub(off_ns)
    }

    fn in_order(&mut self, at_ns: u64) -> u64 {
        self.arrived_ns = self.arrived_ns.max(at_ns);
        self.arrived_ns
    }

    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.random.below(u64::from(PPM)) < u64::from(ppm)
    }
}
