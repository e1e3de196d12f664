//! What the links do against what was asked of them.

use super::*;

const A: HostId = HostId(0);
const B: HostId = HostId(1);
const MS: u64 = 1_000_000;

/// `a` in eastus, `b` in westeurope.
fn network(seed: u64, settings: LinkSettings) -> Network {
    let table = Table::azure_50();
    let host = |name: &str, region: &str| Host { name: name.into(), region: table.region(region).expect("a region") };
    let hosts = vec![host("a", "eastus"), host("b", "westeurope"), host("c", "eastus")];
    Network::new(seed, table, hosts, settings)
}

/// Every packet is lost, without end.
const LOSES_ALL: Disturbance = Disturbance { loss_ppm: PPM, loss_until_ns: u64::MAX, ..Disturbance::NONE };

/// When the last of `len` bytes of a stream arrives that is written at `now_ns`, handed over piece by piece.
fn arrival(net: &mut Network, now_ns: u64, from: HostId, to: HostId, len: u64) -> Option<u64> {
    let (mut begun_ns, mut following, mut arrived_ns) = (now_ns, len, 0);
    while following > 0 {
        let len = following.min(net.piece_len_max(from, to));
        following -= len;
        let sent_ns = net.hand_over(begun_ns, from, to, len)?;
        arrived_ns = arrived_ns.max(net.stream(from, to, Part { len, begun_ns, sent_ns, following }));
        begun_ns = sent_ns;
    }
    Some(arrived_ns)
}

/// When a packet that is sent at `now_ns` arrives.
fn packet(net: &mut Network, now_ns: u64, from: HostId, to: HostId, len: u64) -> Vec<u64> {
    let Some(sent_ns) = net.hand_over(now_ns, from, to, len) else { return Vec::new() };
    net.datagram(from, to, sent_ns).into_iter().collect()
}

fn mean(values: &[u64]) -> u64 {
    values.iter().sum::<u64>() / values.len() as u64
}

fn is_near(got: u64, asked: u64, percent: u64) -> bool {
    got.abs_diff(asked) * 100 <= asked * percent
}

#[test]
fn a_quiet_link_delays_by_the_table_each_direction_on_its_own() {
    let mut net = network(1, LinkSettings::default());
    let (there, back) = (net.one_way_ns(A, B), net.one_way_ns(B, A));
    assert!(there > 30 * MS && back > 30 * MS);
    assert_eq!(packet(&mut net, 7, A, B, 100), [7 + there]);
    assert_eq!(arrival(&mut net, 7, B, A, 100_000), Some(7 + back));
    assert_eq!(arrival(&mut net, 7, A, HostId(2), 100), Some(7 + MS / 2), "within a region");
    assert_eq!(net.round_trip_ns(A, B), there + back);
}

#[test]
fn loss_duplication_and_reordering_come_as_often_as_asked() {
    let settings =
        LinkSettings { loss_ppm: 50_000, duplicate_ppm: 20_000, reorder_ppm: 100_000, ..LinkSettings::default() };
    let mut net = network(2, settings);
    let delay = net.one_way_ns(A, B);
    let (mut lost, mut twice, mut late) = (0, 0, 0);
    let count = 200_000;
    for i in 0..count {
        let now = i * 10 * MS;
        let arrivals = packet(&mut net, now, A, B, 100);
        lost += u64::from(arrivals.is_empty());
        twice += u64::from(arrivals.len() == 2);
        late += arrivals.iter().filter(|at| **at > now + delay).count() as u64;
        assert!(arrivals.iter().all(|at| *at >= now + delay && *at <= now + 2 * delay + 2 * MS));
    }
    assert!(is_near(lost, count / 20, 5), "{lost}");
    assert!(is_near(twice, (count - lost) / 50, 5), "{twice}");
    assert!(is_near(late, (count - lost + twice) / 10, 5), "{late}");
}

#[test]
fn what_is_held_back_is_overtaken() {
    let mut net = network(3, LinkSettings { reorder_ppm: 300_000, ..LinkSettings::default() });
    let arrivals: Vec<u64> = (0..1_000).flat_map(|i| net.datagram(A, B, i * MS)).collect();
    assert!(!arrivals.is_sorted());
    let mut net = network(3, LinkSettings { jitter_ppm: 500_000, ..LinkSettings::default() });
    let arrivals: Vec<u64> = (0..1_000).flat_map(|i| net.datagram(A, B, i * MS)).collect();
    assert!(arrivals.is_sorted(), "jitter alone keeps the order");
}

#[test]
fn jitter_is_a_part_of_the_delay_and_keeps_its_middle() {
    let mut net = network(4, LinkSettings { jitter_ppm: 100_000, ..LinkSettings::default() });
    let delay = net.one_way_ns(A, B);
    let mut delays: Vec<u64> =
        (0..20_000).map(|i| arrival(&mut net, i * 1_000 * MS, A, B, 100).expect("not cut") - i * 1_000 * MS).collect();
    assert!(is_near(mean(&delays), delay, 1), "{} of {delay}", mean(&delays));
    delays.sort_unstable();
    assert!(is_near(delays[10_000], delay, 1));
    assert!(delays[0] >= delay * 9 / 10 && delays[19_999] <= delay * 11 / 10 + 1);
    assert!(delays[200] < delay * 93 / 100 && delays[19_800] > delay * 107 / 100, "it is used to the full");
}

#[test]
fn the_seed_decides_and_other_traffic_changes_nothing() {
    let settings = LinkSettings { jitter_ppm: 100_000, loss_ppm: 100_000, ..LinkSettings::default() };
    let draw = |seed: u64, busy: bool| {
        let mut net = network(seed, settings);
        let mut arrivals = Vec::new();
        for i in 0..500 {
            arrivals.extend(net.datagram(A, B, i * MS));
            if busy {
                net.datagram(B, A, i * MS);
                arrival(&mut net, i * MS, A, HostId(2), 10_000);
            }
        }
        arrivals
    };
    assert_eq!(draw(5, false), draw(5, false));
    assert_eq!(draw(5, false), draw(5, true));
    assert_ne!(draw(5, false), draw(6, false));
}

#[test]
fn a_rate_lets_through_so_many_bytes_a_second_of_a_host_each_way() {
    let mut net = network(6, LinkSettings { rate: Some(1_000_000), ..LinkSettings::default() });
    let (delay, c) = (net.one_way_ns(A, B), HostId(2));
    assert_eq!(arrival(&mut net, 0, A, B, 500_000), Some(500 * MS + delay));
    assert_eq!(arrival(&mut net, 0, A, c, 100_000), Some(600 * MS + MS / 2), "what a host sends to others waits, too");
    assert_eq!(arrival(&mut net, 0, c, B, 100_000), Some(600 * MS + net.one_way_ns(c, B)), "what it is sent, too");
    assert_eq!(arrival(&mut net, 0, B, A, 100_000), Some(100 * MS + net.one_way_ns(B, A)), "the other way is free");
    assert_eq!(arrival(&mut net, 5_000 * MS, A, B, 500_000), Some(5_500 * MS + delay), "the line was free again");
    assert_eq!(net.piece_len_max(A, A), u64::MAX, "a host has no line to itself");
}

#[test]
fn connections_share_a_line_evenly() {
    let mut net = network(6, LinkSettings { rate: Some(1_000_000), ..LinkSettings::default() });
    let piece = net.piece_len_max(A, B);
    assert!((14_000..=20_000).contains(&piece), "{piece}");
    // A long message to B, a short one to C that is written a little later: in turns.
    let mut long_ns = 0;
    for _ in 0..10 {
        long_ns = net.hand_over(long_ns, A, B, piece).expect("not cut");
    }
    let short_ns = net.hand_over(long_ns - 1, A, HostId(2), 1_000).expect("not cut");
    assert_eq!(short_ns, long_ns + MS);
}

#[test]
fn a_slow_link_leaves_no_backlog_behind() {
    let mut net = network(6, LinkSettings::default());
    let slow = Disturbance { rate: Some(8 << 10), ..Disturbance::default() };
    net.disturbances().begin(1, Hosts::one(A), Hosts::All, slow);
    // 700 KiB would take 87 s. The sender has handed over pieces for 10 s when the rate is back.
    let (mut now_ns, mut left) = (0, 700u64 << 10);
    while now_ns < 10_000 * MS {
        let piece = left.min(net.piece_len_max(A, B));
        now_ns = net.hand_over(now_ns, A, B, piece).expect("not cut");
        left -= piece;
    }
    assert!(left > 600 << 10);
    net.disturbances().end(1);
    assert_eq!(net.hand_over(now_ns, A, B, left), Some(now_ns));
    let by = arrival(&mut net, 10_000 * MS, A, B, 100).expect("not cut");
    assert!(by < 10_200 * MS, "at most one piece is on the line: {by}");
}

#[test]
fn a_full_queue_takes_no_packet_but_the_first() {
    let queue = Queue::DropTail(10_000);
    assert!(queue.takes(0, 10_000) && queue.takes(9_000, 1_000) && !queue.takes(9_001, 1_000));
    assert!(queue.takes(0, 20_000), "a long one gets through, alone");
    assert!(Queue::Delay.takes(1 << 40, 1));
}

#[test]
fn a_fault_bites_when_something_meets_it() {
    let mut net = network(6, LinkSettings { loss_ppm: 1_000, ..LinkSettings::default() });
    let lossy = Disturbance { loss_ppm: 500_000, loss_until_ns: u64::MAX, ..Disturbance::default() };
    net.disturbances().begin(1, Hosts::one(A), Hosts::one(B), Disturbance::CUT);
    net.disturbances().begin(2, Hosts::one(B), Hosts::All, Disturbance { delay_ns: 1, ..Disturbance::default() });
    net.disturbances().begin(3, Hosts::All, Hosts::one(HostId(2)), lossy);
    packet(&mut net, 0, HostId(2), A, 1);
    assert!(net.disturbances().take_bitten().is_empty(), "nothing met them");
    packet(&mut net, 0, A, B, 1);
    packet(&mut net, 0, A, B, 1);
    assert_eq!(net.disturbances().take_bitten(), [1], "once");
    packet(&mut net, 0, B, A, 1);
    assert_eq!(net.disturbances().take_bitten(), [2]);
    let sent = (0..100).take_while(|_| !packet(&mut net, 0, A, HostId(2), 1).is_empty()).count();
    assert!(sent < 20 && net.disturbances().take_bitten() == [3], "the first that is lost");
}

#[test]
fn a_stream_shows_loss_as_delay() {
    let mut net = network(8, LinkSettings { loss_ppm: 100_000, jitter_ppm: 50_000, ..LinkSettings::default() });
    let (delay, round_trip) = (net.one_way_ns(A, B), net.round_trip_ns(A, B));
    let (mut late, count) = (0, 20_000);
    for i in 0..count {
        let now = i * 100_000 * MS;
        let at = arrival(&mut net, now, A, B, 100).expect("not cut");
        assert!(at >= now + delay * 95 / 100);
        if at > now + delay * 11 / 10 {
            late += 1;
            assert!(at >= now + delay * 95 / 100 + round_trip + 200 * MS, "a single segment is lost to a time-out");
        }
    }
    assert!(is_near(late, count / 10, 7), "{late}");
}

#[test]
fn of_many_segments_a_lost_one_costs_a_round_trip() {
    let mut net = network(9, LinkSettings { loss_ppm: 1_000, ..LinkSettings::default() });
    let (delay, round_trip) = (net.one_way_ns(A, B), net.round_trip_ns(A, B));
    let mut fast = 0;
    for i in 0..2_000 {
        let now = i * 100_000 * MS;
        let at = arrival(&mut net, now, A, B, 100 * SEGMENT_LEN_MAX).expect("not cut") - now;
        fast += u64::from(at == delay + round_trip);
        assert!(at == delay || at == delay + round_trip || at >= delay + round_trip + 200 * MS);
    }
    // 1 - 0.999^97 of the messages lose one of the first 97 of their segments.
    assert!(is_near(fast, 2_000 * 92 / 1_000, 20), "{fast}");
}

#[test]
fn what_a_fault_lost_is_sent_again_soon_after_its_end() {
    let mut net = network(13, LinkSettings::default());
    let until = 3_000 * MS;
    net.disturbances().begin(1, Hosts::All, Hosts::All, Disturbance { loss_until_ns: until, ..LOSES_ALL });
    let at = arrival(&mut net, 0, A, B, 100).expect("not cut");
    // The time-outs double, so the next one comes within twice the time.
    assert!(at >= until && at < 3 * until, "{at}");
    net.disturbances().end(1);
    assert_eq!(arrival(&mut net, 4 * until, A, B, 100), Some(4 * until + net.one_way_ns(A, B)));
}

#[test]
fn nothing_passes_a_cut_and_everything_after_it() {
    let mut net = network(10, LinkSettings::default());
    net.disturbances().begin(1, Hosts::one(A), Hosts::one(B), Disturbance::CUT);
    assert_eq!(arrival(&mut net, 0, A, B, 1), None);
    assert!(arrival(&mut net, 0, B, A, 1).is_some());
    assert!(net.disturbances().end(1));
    assert!(arrival(&mut net, 0, A, B, 1).is_some());
}

#[test]
fn a_fault_slows_and_loses_on_its_directions_only() {
    let mut net = network(11, LinkSettings::default());
    let (there, back) = (net.one_way_ns(A, B), net.one_way_ns(B, A));
    let slow = Disturbance { delay_ns: 50 * MS, rate: Some(10_000), ..Disturbance::default() };
    net.disturbances().begin(1, Hosts::one(A), Hosts::All, slow);
    assert_eq!(arrival(&mut net, 0, A, B, 1_000), Some(there + 150 * MS));
    assert_eq!(arrival(&mut net, 0, B, A, 1_000), Some(back));
    net.disturbances().begin(2, Hosts::All, Hosts::All, LOSES_ALL);
    assert!(packet(&mut net, 0, B, A, 1).is_empty());
}

#[test]
fn a_packet_overtakes_those_sent_when_the_way_was_longer() {
    let mut net = network(12, LinkSettings::default());
    let long = Disturbance { delay_ns: 9_000 * MS, ..Disturbance::default() };
    net.disturbances().begin(1, Hosts::one(A), Hosts::one(B), long);
    packet(&mut net, 0, A, B, 1);
    net.disturbances().end(1);
    assert_eq!(packet(&mut net, MS, A, B, 1), [MS + net.one_way_ns(A, B)]);
}
