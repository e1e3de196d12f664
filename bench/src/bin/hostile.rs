//! Bad inputs at full rate: every row of `engine/docs/HOSTILE.md`, slow, half-closed and reset connections among them,
//! at one storage point of a cluster on this machine, which has to serve a good publication and a read every second
//! meanwhile, and to keep its memory.
//!
//! Prints a line of tab-separated figures every half minute. Fails if a storage point ends, or a good request does.

#[path = "../../../engine/tests/hostile/table.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod table;

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside, memory_kib},
};
use acms_engine::{
    client::response::{Progress, ResponseParser, encode_request},
    wire::Hello,
};
use clap::Parser;
use socket2::SockRef;
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use table::{Listener, Row};

/// Plays bad inputs at a storage point for some minutes.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Minutes to play.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Connections at full rate at once; as many again are slow.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// The acms program; by default the one beside this program.
    #[arg(long)]
    acms: Option<PathBuf>,
    /// Where the stores are made (and removed); by default beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// The limits that the tables are written for.
const LIMITS: &str = "\n[limits]\nhead = \"1s\"\nbody = \"1s\"\nwrite = \"1s\"\nidle = \"2s\"\ncontent = \"100KiB\"\n";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);
const LINE_EVERY: Duration = Duration::from_secs(30);

/// The storage point that is attacked.
struct Target {
    publish: SocketAddr,
    deliver: SocketAddr,
    peer: SocketAddr,
    hello: Hello,
}

impl Target {
    fn address(&self, listener: Listener, turn: usize) -> SocketAddr {
        match listener {
            Listener::Peer => self.peer,
            Listener::Deliver => self.deliver,
            Listener::Http if turn.is_multiple_of(2) => self.deliver,
            Listener::Http | Listener::Publish => self.publish,
        }
    }
}

/// What happened so far.
#[derive(Default)]
struct Seen {
    sent: AtomicU64,
    /// Complete plays whose answers were not those of the table.
    unexpected: AtomicU64,
    /// Connections that could not be made.
    unconnected: AtomicU64,
    slow: AtomicU64,
    /// By status; 0 is the end of a connection without an answer.
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Seen {
    fn note(&self, statuses: &[u16]) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for status in if statuses.is_empty() { &[0] } else { statuses } {
            *answers.entry(*status).or_default() += 1;
        }
    }
}

/// How a connection is ended by its client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// After all answers.
    Complete,
    /// The sending side first, then as above.
    HalfClosed,
    /// By a reset, at once.
    Reset,
    /// In the middle of what it sends.
    Cut,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let acms = args.acms.clone().map_or_else(acms_beside, Ok)?;
    let root = args.dir.clone().map_or_else(|| Ok(acms.parent().unwrap_or(&acms).to_owned()), Ok::<_, Failure>)?;
    let dir = tempfile::tempdir_in(root)?;
    let configure = |text: String| {
        let line = |line: &str| match line.trim_start().starts_with("deliver") {
            true => line.replace(":7400", ":7300") + "\n",
            false => format!("{line}\n"),
        };
        text.lines().map(line).collect::<String>() + LIMITS
    };
    let mut cluster = Cluster::start(&acms, &dir.path().join("cluster"), 3, configure)?;
    // Whoever says that it is the first is a stranger; the two others are a quorum.
    cluster.kill(1)?;
    let publish = cluster.addresses[1];
    let at = |port| SocketAddr::new(publish.ip(), port);
    let target = Target { publish, deliver: at(7300), peer: at(7500), hello: table::hello_of(at(7500))? };
    let pid = cluster.pid(2);
    let (seen, good, stop) = (Seen::default(), Good::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for number in 0..args.connections {
            let (seen, stop, target) = (&seen, &stop, &target);
            scope.spawn(move || attack(number, target, seen, stop));
        }
        scope.spawn(|| attack_slowly(args.connections, &target, &seen, &stop));
        scope.spawn(|| good.ask(&target, &stop));
        let played = report(&args, &mut cluster, pid, &seen, &good);
        stop.store(true, Ordering::Relaxed);
        played
    })
}

/// Prints a line every half minute until the time is over.
fn report(args: &Args, cluster: &mut Cluster, pid: u32, seen: &Seen, good: &Good) -> Result<(), Failure> {
    let (started, length) = (Instant::now(), Duration::from_secs_f64(args.minutes * 60.0));
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "s\tsent\tunconnected\tunexpected\tslow\tanswers\talive\trss_kib\tanon_kib\tgood\tfailed\tput_ms_max\tget_ms_max"
    );
    let mut is_over = false;
    while !is_over {
        let next = LINE_EVERY.min(length.saturating_sub(started.elapsed()));
        std::thread::sleep(next);
        is_over = started.elapsed() >= length;
        let is_alive = cluster.children[1].try_wait()?.is_none() && cluster.children[2].try_wait()?.is_none();
        if !is_alive {
            return Err("a storage point has ended".into());
        }
        let answers = seen.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers: Vec<String> = answers.iter().map(|(status, count)| format!("{status}={count}")).collect();
        let (put_us, get_us) = (good.put_us_max.swap(0, Ordering::Relaxed), good.get_us_max.swap(0, Ordering::Relaxed));
        println!(
            "{}\t{}\t{}\t{}\t{}\t{}\tyes\t{}\t{}\t{}\t{}\t{:.1}\t{:.1}",
            started.elapsed().as_secs(),
            load(&seen.sent),
            load(&seen.unconnected),
            load(&seen.unexpected),
            load(&seen.slow),
            answers.join(" "),
            memory_kib(pid, "VmRSS")?,
            memory_kib(pid, "RssAnon")?,
            load(&good.done),
            load(&good.failed),
            put_us as f64 / 1000.0,
            get_us as f64 / 1000.0,
        );
    }
    match load(&good.failed) {
        0 => Ok(()),
        failed => Err(format!("{failed} good requests failed").into()),
    }
}

/// Plays rows at full rate.
fn attack(number: usize, target: &Target, seen: &Seen, stop: &AtomicBool) {
    let is_slow =
        |row: &Row| row.answers.contains(&408) || row.reason.as_deref() == Some("silent") || row.sent.is_empty();
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| !is_slow(row)).collect();
    let mut turn = number;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let row = &rows[turn % rows.len()];
        let manner = match turn % 16 {
            3 => Manner::HalfClosed,
            7 => Manner::Reset,
            11 => Manner::Cut,
            _ => Manner::Complete,
        };
        seen.sent.fetch_add(1, Ordering::Relaxed);
        match play(row, target, turn, manner) {
            Ok(statuses) => {
                seen.note(&statuses);
                if manner == Manner::Complete && row.listener != Listener::Peer && statuses != row.answers {
                    seen.unexpected.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => drop(seen.unconnected.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Plays a row. The statuses of its answers, or that no connection could be made.
fn play(row: &Row, target: &Target, turn: usize, manner: Manner) -> std::io::Result<Vec<u16>> {
    let mut stream = TcpStream::connect_timeout(&target.address(row.listener, turn), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut sent = table::bytes(&row.sent, Some(&target.hello));
    if manner == Manner::Cut {
        sent.truncate(sent.len() * (turn % 31) / 31);
    }
    // That the other end has gone is what it may do.
    let _ = stream.write_all(&sent);
    match manner {
        Manner::Reset => {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            return Ok(Vec::new());
        }
        Manner::Cut => return Ok(Vec::new()),
        Manner::HalfClosed => drop(stream.shutdown(Shutdown::Write)),
        Manner::Complete => {}
    }
    Ok(read_answers(&mut stream, row))
}

fn read_answers(stream: &mut TcpStream, row: &Row) -> Vec<u16> {
    let (mut statuses, mut buffer, mut parser) = (Vec::new(), [0; 16 << 10], ResponseParser::new(false, 1 << 20));
    while row.is_closed || statuses.len() < row.answers.len() {
        let Ok(len @ 1..) = stream.read(&mut buffer) else { break };
        if row.listener == Listener::Peer {
            continue;
        }
        let mut rest = &buffer[..len];
        while let Ok(Progress::Done { unread }) = parser.push(rest) {
            statuses.extend(parser.head().map(|head| head.status));
            (rest, parser) = (&rest[rest.len() - unread..], ResponseParser::new(false, 1 << 20));
            if rest.is_empty() {
                break;
            }
        }
    }
    statuses
}

/// Holds connections that send a byte now and then, of a head, a body or a hello, or take nothing of an answer.
fn attack_slowly(count: usize, target: &Target, seen: &Seen, stop: &AtomicBool) {
    let beginnings: [(Listener, &[u8]); 5] = [
        (Listener::Publish, b"GET /healthz HTTP/1.1\r\nHost: a\r\nA: "),
        (Listener::Deliver, b""),
        (Listener::Publish, b"PUT /v1/config/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\n"),
        (Listener::Peer, b"AC\x01\x01"),
        (Listener::Deliver, b"GET /v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    let mut held: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        for (number, place) in held.iter_mut().enumerate() {
            let (listener, beginning) = beginnings[number % beginnings.len()];
            match place {
                None => {
                    let connected = TcpStream::connect_timeout(&target.address(listener, number), PATIENCE);
                    *place = connected.ok().filter(|stream| stream.set_nonblocking(true).is_ok());
                    if let Some(stream) = place {
                        seen.slow.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.write_all(beginning);
                    }
                }
                Some(stream) => match stream.write(b"x") {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => *place = None,
                    _ => {}
                },
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Good requests: one of each kind a second.
#[derive(Default)]
struct Good {
    done: AtomicU64,
    failed: AtomicU64,
    /// Since the last line.
    put_us_max: AtomicU64,
    get_us_max: AtomicU64,
}

impl Good {
    fn ask(&self, target: &Target, stop: &AtomicBool) {
        let mut number = 0u64;
        let mut is_warm = false;
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            number += 1;
            let content = format!("content {number}");
            let length = content.len().to_string();
            let put = [("Content-Length", length.as_str())];
            let published = exchange(target.publish, "PUT", &put, content.as_bytes());
            let put_time = started.elapsed();
            let read_at = Instant::now();
            let read = exchange(target.deliver, "GET", &[], b"");
            let is_good = published.is_some_and(|(status, _)| status == 201)
                && read.is_some_and(|(status, body)| status == 200 && body == content.as_bytes());
            // Until its links are up a storage point cannot accept anything.
            is_warm |= is_good;
            if is_warm {
                self.done.fetch_add(1, Ordering::Relaxed);
                self.failed.fetch_add(u64::from(!is_good), Ordering::Relaxed);
                self.put_us_max.fetch_max(put_time.as_micros() as u64, Ordering::Relaxed);
                self.get_us_max.fetch_max(read_at.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_secs(1).saturating_sub(started.elapsed()));
        }
    }
}

/// One request on a connection of its own: status and body.
fn exchange(addr: SocketAddr, method: &str, headers: &[(&str, &str)], body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
    let head = encode_request(method, "a", "/v1/config/good/file", headers);
    stream.write_all(&[head.as_slice(), body].concat()).ok()?;
    let (mut parser, mut buffer) = (ResponseParser::new(false, 1 << 20), [0; 16 << 10]);
    loop {
        let len = stream.read(&mut buffer).ok().filter(|len| *len > 0)?;
        if let Progress::Done { .. } = parser.push(&buffer[..len]).ok()? {
            return Some((parser.head()?.status, parser.take_body()));
        }
    }
}
