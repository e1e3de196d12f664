//! The testbed's router of real packets beside the kernel's own pairs of interfaces (veth): how exactly it keeps to the
//! delays that it is asked for, and what a packet costs.
//!
//! Each flow is between two network namespaces of its own. Prints one tab-separated line for each way, delay and number of
//! flows. Needs root, or a user namespace, and `/dev/net/tun`; `ip` for veth.

use acms_bench::{Failure, cluster::cpu_s};
use acms_testbed::{
    network::{
        Disturbance, Host, HostId, Hosts, LinkSettings, Network, Region, Table,
        router::{InterfaceSettings, Namespace, Router, address},
    },
    trace::now_ns,
};
use clap::Parser;
use hdrhistogram::Histogram;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpStream, UdpSocket},
};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Measures the router of real packets beside veth
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Round trips that are asked for, in milliseconds; veth has only its own
    #[arg(long, value_delimiter = ',', default_values_t = [0, 20, 200])]
    round_trips_ms: Vec<u64>,
    /// Flows at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100])]
    flows: Vec<usize>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Round trips a second that each flow measures
    #[arg(long, default_value_t = 20)]
    pings_per_s: u64,
}

const PORT: u16 = 4000;
const DATAGRAM_LEN: usize = 1200;
/// Bytes of a read or write of a stream.
const CHUNK_LEN: usize = 64 << 10;

/// Two hosts that talk to each other.
struct Pair {
    near: (Namespace, Ipv4Addr),
    far: (Namespace, Ipv4Addr),
}

/// A way between pairs of hosts.
enum Way {
    Router(Router),
    Veth,
}

impl Way {
    fn router(flows: usize, round_trip_ms: u64) -> Result<(Way, Vec<Pair>), Failure> {
        let host = |at: usize| Host { name: format!("host{at}").into(), region: Region(0) };
        let hosts = (0..2 * flows).map(host).collect();
        let network = Network::new(1, Table::loopback(), hosts, LinkSettings::default());
        let router = Router::start(network, &InterfaceSettings::default())?;
        let delay_ns = round_trip_ms * 1_000_000 / 2;
        let longer = Disturbance { delay_ns, ..Disturbance::NONE };
        router.network().disturbances().begin(1, Hosts::All, Hosts::All, longer);
        let end = |at: usize| {
            let host = HostId(at as u32);
            (router.namespace(host), address(host))
        };
        let pairs = (0..flows).map(|flow| Pair { near: end(2 * flow), far: end(2 * flow + 1) }).collect();
        Ok((Way::Router(router), pairs))
    }

    fn veth(flows: usize) -> Result<(Way, Vec<Pair>), Failure> {
        let pairs = (0..flows).map(|_| {
            let (near, far) = (Namespace::empty()?, Namespace::empty()?);
            let (here, there) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
            let there_path = far.path().display().to_string();
            ip(&near, &["link", "add", "name", "near", "type", "veth", "peer", "name", "far", "netns", &there_path])?;
            for (namespace, name, address) in [(&near, "near", here), (&far, "far", there)] {
                ip(namespace, &["address", "add", &format!("{address}/24"), "dev", name])?;
                ip(namespace, &["link", "set", name, "up"])?;
            }
            Ok(Pair { near: (near, here), far: (far, there) })
        });
        Ok((Way::Veth, pairs.collect::<Result<_, Failure>>()?))
    }

    /// The least that a round trip can take.
    fn asked_ns(&self) -> u64 {
        match self {
            Way::Router(router) => {
                let mut network = router.network();
                let delay_ns = network.disturbances().of(HostId(0), HostId(1)).delay_ns;
                network.round_trip_ns(HostId(0), HostId(1)) + 2 * delay_ns
            }
            Way::Veth => 0,
        }
    }

    fn late_us_p99(&self) -> Option<u64> {
        match self {
            Way::Router(router) => Some(router.stats().lateness_ns.value_at_quantile(0.99) / 1000),
            Way::Veth => None,
        }
    }
}

fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("ip");
    command.args(arguments);
    namespace.enter(&mut command);
    let output = command.output().map_err(|error| format!("ip, of the package iproute2: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into()),
    }
}

fn udp(end: &(Namespace, Ipv4Addr)) -> Result<UdpSocket, Failure> {
    let socket = end.0.within(|| std::net::UdpSocket::bind((end.1, PORT)))?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket))
}

/// All sockets of one end, and what waits for them.
fn poll_all<S: mio::event::Source>(sockets: &mut [S], interest: Interest) -> Result<Poll, Failure> {
    let poll = Poll::new()?;
    for (at, socket) in sockets.iter_mut().enumerate() {
        poll.registry().register(socket, Token(at), interest)?;
    }
    Ok(poll)
}

/// Reads all datagrams that have come, and says of each which socket has it.
fn receive(
    poll: &mut Poll,
    events: &mut Events,
    sockets: &[UdpSocket],
    wait: Duration,
    mut take: impl FnMut(usize, &[u8]),
) {
    let mut buffer = [0; 2048];
    if poll.poll(events, Some(wait)).is_err() {
        return;
    }
    for event in events.iter() {
        let at = event.token().0;
        while let Ok(len) = sockets[at].recv(&mut buffer) {
            take(at, &buffer[..len]);
        }
    }
}

/// Nanoseconds of round trips beyond `asked_ns`.
fn pings(args: &Args, pairs: &[Pair], asked_ns: u64) -> Result<Histogram<u64>, Failure> {
    let (mut near, mut far) = connected(pairs)?;
    let (mut near_poll, mut far_poll) =
        (poll_all(&mut near, Interest::READABLE)?, poll_all(&mut far, Interest::READABLE)?);
    let stop = AtomicBool::new(false);
    let mut errors = Histogram::new_with_max(60_000_000_000, 3)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = Events::with_capacity(1024);
            while !stop.load(Ordering::Relaxed) {
                receive(&mut far_poll, &mut events, &far, Duration::from_millis(50), |at, datagram| {
                    let _ = far[at].send(datagram);
                });
            }
        });
        let mut events = Events::with_capacity(1024);
        let (began, gap) = (Instant::now(), Duration::from_secs(1) / (args.pings_per_s * pairs.len() as u64) as u32);
        let (mut sent, count) = (0, args.seconds * args.pings_per_s * pairs.len() as u64);
        let end = Duration::from_secs(args.seconds) + Duration::from_nanos(asked_ns) + Duration::from_millis(200);
        while began.elapsed() < end {
            while sent < count && began.elapsed() >= gap * sent as u32 {
                let _ = near[sent as usize % near.len()].send(&now_ns().to_le_bytes());
                sent += 1;
            }
            receive(&mut near_poll, &mut events, &near, Duration::from_millis(1), |_, datagram| {
                if let Ok(stamp) = datagram.try_into().map(u64::from_le_bytes) {
                    errors.saturating_record((now_ns() - stamp).saturating_sub(asked_ns));
                }
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    Ok(errors)
}

fn connected(pairs: &[Pair]) -> Result<(Vec<UdpSocket>, Vec<UdpSocket>), Failure> {
    let near: Vec<_> = pairs.iter().map(|pair| udp(&pair.near)).collect::<Result<_, _>>()?;
    let far: Vec<_> = pairs.iter().map(|pair| udp(&pair.far)).collect::<Result<_, _>>()?;
    for ((pair, near), far) in pairs.iter().zip(&near).zip(&far) {
        near.connect((pair.far.1, PORT).into())?;
        far.connect((pair.near.1, PORT).into())?;
    }
    Ok((near, far))
}

/// Packets that arrive in a second when as many are sent as go, and the processor time of one of them, in microseconds:
/// of both ends and the way between.
fn flood(args: &Args, pairs: &[Pair]) -> Result<(f64, f64), Failure> {
    let (near, mut far) = connected(pairs)?;
    let mut poll = poll_all(&mut far, Interest::READABLE)?;
    let stop = AtomicBool::new(false);
    let (before, began) = (cpu_s(std::process::id())?, Instant::now());
    let mut arrived = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                near.iter().for_each(|socket| drop(socket.send(&[7; DATAGRAM_LEN])));
            }
        });
        let mut events = Events::with_capacity(1024);
        while began.elapsed() < Duration::from_secs(args.seconds) {
            receive(&mut poll, &mut events, &far, Duration::from_millis(50), |_, _| arrived += 1);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_s(std::process::id())? - before);
    Ok((f64::from(arrived) / took, cpu * 1e6 / f64::from(arrived.max(1))))
}

/// Bits that streams carry in a second, all flows together.
fn streams(args: &Args, pairs: &[Pair]) -> Result<f64, Failure> {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for pair in pairs {
        let there = SocketAddr::from((pair.far.1, PORT));
        let listener = pair.far.0.within(|| std::net::TcpListener::bind(there))?;
        let stream = pair.near.0.within(|| std::net::TcpStream::connect(there))?;
        let (other, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        near.push(TcpStream::from_std(stream));
        far.push(TcpStream::from_std(other));
    }
    let (mut send_poll, mut receive_poll) =
        (poll_all(&mut near, Interest::WRITABLE)?, poll_all(&mut far, Interest::READABLE)?);
    let stop = AtomicBool::new(false);
    let (began, mut received) = (Instant::now(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut events, chunk) = (Events::with_capacity(1024), vec![7; CHUNK_LEN]);
            while !stop.load(Ordering::Relaxed) {
                let _ = send_poll.poll(&mut events, Some(Duration::from_millis(50)));
                for event in &events {
                    let mut stream = &near[event.token().0];
                    while stream.write(&chunk).is_ok_and(|_| !stop.load(Ordering::Relaxed)) {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let (mut events, mut chunk) = (Events::with_capacity(1024), vec![0; CHUNK_LEN]);
        while began.elapsed() < Duration::from_secs(args.seconds) {
            let _ = receive_poll.poll(&mut events, Some(Duration::from_millis(50)));
            for event in &events {
                loop {
                    match (&far[event.token().0]).read(&mut chunk) {
                        Ok(len) if len > 0 => received += len,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        _ => break,
                    }
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    Ok(received as f64 * 8.0 / began.elapsed().as_secs_f64())
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    println!(
        "way\tround_trip_ms\tflows\tround_trips\terror_ms_p50\terror_ms_p99\terror_ms_max\tlate_us_p99\t\
         packets_per_s\tcpu_us_per_packet\tstreams_mbit_per_s"
    );
    for flows in &args.flows {
        measure(&args, "veth", 0, Way::veth(*flows)?)?;
        for round_trip_ms in &args.round_trips_ms {
            measure(&args, "router", *round_trip_ms, Way::router(*flows, *round_trip_ms)?)?;
        }
    }
    Ok(())
}

fn measure(args: &Args, name: &str, round_trip_ms: u64, (way, pairs): (Way, Vec<Pair>)) -> Result<(), Failure> {
    let errors = pings(args, &pairs, way.asked_ns())?;
    let late = way.late_us_p99().map(|late| late.to_string()).unwrap_or_default();
    let (per_s, cpu_us) = flood(args, &pairs)?;
    let bits = streams(args, &pairs)?;
    let ms = |quantile: f64| errors.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "{name}\t{round_trip_ms}\t{}\t{}\t{:.3}\t{:.3}\t{:.3}\t{late}\t{per_s:.0}\t{cpu_us:.2}\t{:.0}",
        pairs.len(),
        errors.len(),
        ms(0.5),
        ms(0.99),
        ms(1.0),
        bits / 1e6
    );
    Ok(())
}
