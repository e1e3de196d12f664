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
    Network::new(seed, table, hosts, settings, Delivery::Datagram)
}

/// Every packet is lost, without end.
const LOSES_ALL: Disturbance = Disturbance { loss_ppm: PPM, loss_until_ns: u64::MAX, ..Disturbance::NONE };

fn arrival(net: &mut Network, now_ns: u64, from: HostId, to: HostId, len: u64) -> Option<u64> {
    net.stream(now_ns, from, to, len).map(|arrival| arrival.at_ns)
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
    assert_eq!(net.datagram(7, A, B, 100).into_iter().collect::<Vec<_>>(), [7 + there]);
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
        let arrivals: Vec<u64> = net.datagram(now, A, B, 100).into_iter().collect();
        lost += u64::from(arrivals.is_empty());
        twice += u64::from(arrivals.len() == 2);
        late += arrivals.iter().filter(|at| **at > now + delay).count() as u64;
        assert!(arrivals.iter().all(|at| *at >= now + delay && *at <= now + 2 * delay + 2 * MS));
    }
    assert!(is_near(lost, count / 20, 5), "{lost}");
    assert!(is_near(twice, (count - lost) / 50, 5), "{twice}");
    assert!(is_near(late, (count - lost + twice) / 10, 5), "{late}");
    let counters = net.counters();
    assert_eq!((counters.lost, counters.duplicated, counters.reordered), (lost, twice, late));
}

#[test]
fn what_is_held_back_is_overtaken() {
    let mut net = network(3, LinkSettings { reorder_ppm: 300_000, ..LinkSettings::default() });
    let arrivals: Vec<u64> = (0..1_000).flat_map(|i| net.datagram(i * MS, A, B, 100)).collect();
    assert!(!arrivals.is_sorted());
    let mut net = network(3, LinkSettings { jitter_ppm: 500_000, ..LinkSettings::default() });
    let arrivals: Vec<u64> = (0..1_000).flat_map(|i| net.datagram(i * MS, A, B, 100)).collect();
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
            arrivals.extend(net.datagram(i * MS, A, B, 100));
            if busy {
                net.datagram(i * MS, B, A, 100);
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
fn a_rate_lets_through_so_many_bytes_a_second() {
    let mut net = network(6, LinkSettings { rate: Some(1_000_000), ..LinkSettings::default() });
    let delay = net.one_way_ns(A, B);
    let arrivals: Vec<u64> = (0..1_000).flat_map(|_| net.datagram(0, A, B, 1_000)).collect();
    assert_eq!(arrivals.len(), 1_000, "a queue without bound loses nothing");
    assert_eq!(arrivals[0], delay + MS);
    assert_eq!(arrivals[999], delay + 1_000 * MS);
    assert_eq!(arrival(&mut net, 5_000 * MS, A, B, 500_000), Some(5_500 * MS + delay), "the line was free again");
    assert_eq!(arrival(&mut net, 0, B, A, 100), Some(100_000 + net.one_way_ns(B, A)), "the other direction is free");
}

#[test]
fn a_full_queue_drops_packets_and_makes_streams_wait() {
    let settings = LinkSettings { rate: Some(1_000_000), queue: Queue::DropTail(10_000), ..LinkSettings::default() };
    let mut net = network(7, settings);
    let through = (0..100).map(|_| net.datagram(0, A, B, 1_000).count()).sum::<usize>();
    assert_eq!(through, 10);
    assert_eq!(net.counters().overflowed, 90);
    assert_eq!(net.datagram(5 * MS, A, B, 1_000).count(), 1, "half of it has left");
    assert_eq!(arrival(&mut net, 0, B, A, 1_000_000), Some(1_000 * MS + net.one_way_ns(B, A)));
}

#[test]
fn a_stream_keeps_order_and_shows_loss_as_delay() {
    let mut net = network(8, LinkSettings { loss_ppm: 100_000, jitter_ppm: 50_000, ..LinkSettings::default() });
    let (delay, round_trip) = (net.one_way_ns(A, B), net.round_trip_ns(A, B));
    let (mut last, mut late, count) = (0, 0, 20_000);
    for i in 0..count {
        let now = i * 100_000 * MS;
        let at = arrival(&mut net, now, A, B, 100).expect("not cut");
        assert!(at >= last && at >= now + delay * 95 / 100);
        last = at;
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
    let arrival = net.stream(0, A, B, 100).expect("not cut");
    // The time-outs double, so the next one comes within twice the time.
    assert!(arrival.at_ns >= until && arrival.at_ns < 3 * until, "{arrival:?}");
    assert_eq!(arrival.silent_ns, arrival.at_ns, "nothing came before");
    net.disturbances().end(1);
    assert_eq!(net.stream(4 * until, A, B, 100).expect("not cut").silent_ns, 0);
}

#[test]
fn nothing_passes_a_cut_and_everything_after_it() {
    let mut net = network(10, LinkSettings::default());
    net.disturbances().begin(1, Hosts::one(A), Hosts::one(B), Disturbance::CUT);
    assert!(net.is_cut(A, B) && !net.is_cut(B, A));
    assert_eq!(arrival(&mut net, 0, A, B, 1), None);
    assert_eq!(net.transmit(0, A, B, 1), Arrivals::NEVER);
    assert!(arrival(&mut net, 0, B, A, 1).is_some());
    assert_eq!(net.counters().cut, 2);
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
    assert_eq!(net.datagram(0, B, A, 1), Arrivals::NEVER);
}

#[test]
fn a_new_connection_is_not_held_up_by_the_old_one() {
    let mut net = network(12, LinkSettings { rate: None, ..LinkSettings::default() });
    let delay = net.one_way_ns(A, B);
    net.disturbances().begin(
        1,
        Hosts::one(A),
        Hosts::one(B),
        Disturbance { delay_ns: 9_000 * MS, ..Disturbance::default() },
    );
    arrival(&mut net, 0, A, B, 1);
    net.disturbances().end(1);
    assert_eq!(arrival(&mut net, MS, A, B, 1), Some(delay + 9_000 * MS), "in order");
    net.reconnect(A, B);
    assert_eq!(arrival(&mut net, 2 * MS, A, B, 1), Some(delay + 2 * MS));
}
