//! Real packets of real kernels over the modelled network.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::network::{Disturbance, Host, Hosts, LinkSettings, Table};
use std::{
    collections::BTreeSet,
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

const PORT: u16 = 4000;

/// Two hosts in regions of the measured table, or none where namespaces may not be made.
fn two_hosts(settings: LinkSettings) -> Option<Router> {
    let table = Table::azure_50();
    let host = |name: &str, region: &str| Host { name: name.into(), region: table.region(region).unwrap() };
    let hosts = vec![host("a", "westeurope"), host("b", "northeurope")];
    match Router::start(Network::new(1, table.clone(), hosts, settings), &InterfaceSettings::default()) {
        Ok(router) => Some(router),
        Err(error) if error.kind() == ErrorKind::PermissionDenied || error.kind() == ErrorKind::NotFound => {
            eprintln!("LEFT OUT: no network namespaces or TUN devices here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn udp(router: &Router, host: HostId) -> UdpSocket {
    let socket = router.namespace(host).within(|| UdpSocket::bind((address(host), PORT))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Sends a datagram there and back; how long that took, if it came back.
fn round_trip(a: &UdpSocket, b: &UdpSocket) -> Option<Duration> {
    let (began, mut buffer) = (Instant::now(), [0; 64]);
    a.send_to(b"ping", b.local_addr().unwrap()).unwrap();
    let (len, from) = b.recv_from(&mut buffer).ok()?;
    b.send_to(&buffer[..len], from).unwrap();
    a.recv_from(&mut buffer).ok()?;
    Some(began.elapsed())
}

#[test]
fn packets_of_a_host_are_written_down() {
    let Some(router) = two_hosts(LinkSettings::default()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.pcap");
    router.capture(HostId(1), File::create(&path).unwrap()).unwrap();
    let (a, b) = (udp(&router, HostId(0)), udp(&router, HostId(1)));
    (0..3).for_each(|_| assert!(round_trip(&a, &b).is_some()));
    router.finish_captures().unwrap();
    let written = std::fs::read(&path).unwrap();
    // A head, and three datagrams of four bytes each way.
    assert_eq!(written.len(), 24 + 6 * (16 + 20 + 8 + 4));
    assert_eq!(written[24 + 16], 0x45, "an IPv4 head");
}

#[test]
fn a_host_may_get_another_namespace() {
    let Some(router) = two_hosts(LinkSettings::default()) else { return };
    let (a, b) = (udp(&router, HostId(0)), udp(&router, HostId(1)));
    assert!(round_trip(&a, &b).is_some());
    let (other, tun) = Namespace::make(address(HostId(1)), &InterfaceSettings::default()).unwrap();
    let before = router.namespace(HostId(1));
    router.renew(HostId(1), other, tun);
    assert!(router.namespace(HostId(1)) != before);
    let c = udp(&router, HostId(1));
    assert!((0..10).any(|_| round_trip(&a, &c).is_some()), "the new one is reached");
    assert!(round_trip(&a, &b).is_none(), "the old one is not");
}

#[test]
fn a_round_trip_takes_what_the_model_says() {
    let Some(router) = two_hosts(LinkSettings::default()) else { return };
    let (a, b) = (udp(&router, HostId(0)), udp(&router, HostId(1)));
    let asked = Duration::from_nanos(router.network().round_trip_ns(HostId(0), HostId(1)));
    let mut got: Vec<Duration> = (0..20).map(|_| round_trip(&a, &b).unwrap()).collect();
    got.sort();
    assert!(got[0] >= asked, "{:?} of {asked:?}", got[0]);
    // A machine that does other things is late now and then, not always.
    assert!(got[0] < asked + Duration::from_millis(5), "{:?} of {asked:?}", got[0]);
    let stats = router.stats();
    assert_eq!((stats.arrived, stats.lost, stats.cut, stats.refused), (40, 0, 0, 0));
    assert_eq!(stats.arrived_bytes, 40 * (20 + 8 + 4));
    assert_eq!(stats.lateness_ns.len(), 40);
}

#[test]
fn a_cut_in_one_direction_lets_nothing_through_until_it_is_undone() {
    let Some(router) = two_hosts(LinkSettings::default()) else { return };
    let (a, b) = (udp(&router, HostId(0)), udp(&router, HostId(1)));
    assert!(round_trip(&a, &b).is_some());
    router.network().disturbances().begin(7, Hosts::one(HostId(1)), Hosts::All, Disturbance::CUT);
    assert!(round_trip(&a, &b).is_none());
    assert_eq!(router.network().disturbances().take_bitten(), [7]);
    let stats = router.stats();
    assert_eq!((stats.arrived, stats.cut), (3, 1), "one direction only");
    assert!(router.network().disturbances().end(7));
    assert!(round_trip(&a, &b).is_some());
}

#[test]
fn tcp_gets_everything_over_a_lossy_link_at_the_rate_of_the_line() {
    const LEN: usize = 2 << 20;
    let settings = LinkSettings { loss_ppm: 2_000, rate: Some(4 << 20), ..LinkSettings::default() };
    let Some(router) = two_hosts(settings) else { return };
    let listener = router.namespace(HostId(1)).within(|| TcpListener::bind((address(HostId(1)), PORT))).unwrap();
    let receiver = std::thread::spawn(move || {
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all
    });
    let began = Instant::now();
    let sent: Vec<u8> = (0..LEN).map(|at| (at * 31 / 7) as u8).collect();
    let mut stream = router.namespace(HostId(0)).within(|| TcpStream::connect((address(HostId(1)), PORT))).unwrap();
    stream.write_all(&sent).unwrap();
    drop(stream);
    assert!(receiver.join().unwrap() == sent);
    assert!(began.elapsed() >= Duration::from_millis(480), "{:?}", began.elapsed());
    assert!(router.stats().lost > 0);
}

#[test]
fn a_process_that_enters_a_namespace_sees_its_interface_only() {
    let Some(router) = two_hosts(LinkSettings::default()) else { return };
    let mut command = std::process::Command::new("cat");
    command.arg("/proc/net/dev");
    router.namespace(HostId(1)).enter(&mut command);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let names: BTreeSet<&str> = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    assert!(names.contains("wan") && names.contains("lo") && !names.contains("eth0"), "{names:?}");
}
