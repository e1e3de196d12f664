//! What TLS costs: GETs and publications at a cluster that speaks it, beside one that does not, in turns on one machine.
//! The clients run here too and encrypt as much as the storage points do; so the processor time of the storage points for
//! each request stands beside the rates.
//!
//! `cargo run --release -p acms-bench --bin tls-cost [-- ROUNDS SECONDS]`

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside, cpu_s, memory_kib},
};
use acms_engine::{
    client::{Body, Client, ClientOptions, Credentials, GetOptions, PublishOptions, Verdict},
    protocol::Path,
    tls::ClientTls,
};
use std::{
    io::Write as _,
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Connections at once: threads of this process.
const READERS: usize = 8;
const PUBLISHERS: usize = 16;
/// Connections that hold a request.
const HELD: usize = 1_000;
const SIZES: [(&str, usize); 2] = [("bench/small", 1 << 10), ("bench/large", 1 << 20)];

/// One cluster, and how to speak to it.
struct Side {
    cluster: Cluster,
    client: Client,
}

impl Side {
    fn start(dir: &std::path::Path, tls: bool) -> Result<Side, Failure> {
        let init: &[&str] = if tls { &["--tls"] } else { &["--no-tls"] };
        let started = Cluster::start_as(&acms_beside()?, dir, 3, init, |config| config);
        let cluster = started?;
        let file = |name: &str| tls.then(|| dir.join("publisher").join(name));
        let credentials = Credentials {
            ca: file("authority.pem"),
            cert: file("certificate.pem"),
            cert_key: file("key.pem"),
            ..Credentials::default()
        };
        let url = format!("{}://{}", if tls { "https" } else { "http" }, cluster.addresses[0]);
        let client = Client::from_texts(&[url], ClientOptions { credentials, ..ClientOptions::default() })?;
        for (path, len) in SIZES {
            let body = Body::Bytes((0..len).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>().into());
            publish(&client, &path.parse()?, &body)?;
        }
        Ok(Side { cluster, client })
    }

    /// Runs `work` on so many threads for this time: (requests a second, processor microseconds of storage point 1 for
    /// each).
    fn measure<W>(&self, threads: usize, time: Duration, work: W) -> Result<[f64; 2], Failure>
    where
        W: Fn(&Client, u64) -> Result<(), Failure> + Sync,
    {
        let (next, until) = (AtomicU64::new(0), Instant::now() + time);
        let pid = self.cluster.pid(1);
        let (before, began) = (cpu_s(pid)?, Instant::now());
        let one = || -> Result<(), Failure> {
            while Instant::now() < until {
                work(&self.client, next.fetch_add(1, Ordering::Relaxed))?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
            all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a thread has failed".into())))
        })?;
        let count = next.into_inner() as f64;
        let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_s(pid)? - before);
        Ok([count / took, cpu / count * 1e6])
    }
}

fn publish(client: &Client, path: &Path, body: &Body) -> Result<(), Failure> {
    let result = client.publish(path, body, &PublishOptions::default())?;
    match result.outcome {
        Verdict::Accepted => Ok(()),
        other => Err(format!("{path}: {other:?}, {:?}", result.reason).into()),
    }
}

fn read(client: &Client, path: &Path, len: usize) -> Result<(), Failure> {
    let found = client.get(path, &GetOptions::default())?.ok_or("it is gone")?;
    if found.bytes.len() == len { Ok(()) } else { Err("it is not whole".into()) }
}

/// Median, smallest and greatest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

/// Memory of a storage point for each connection that holds a request: user memory, KiB.
fn held_kib(side: &Side, tls: Option<&ClientTls>) -> Result<f64, Failure> {
    let pid = side.cluster.pid(1);
    let address = side.cluster.addresses[0];
    let memory = || memory_kib(pid, "RssAnon");
    let cursor = side.client.snapshot()?.cursor();
    let request = format!("GET /v1/changes/{cursor}/nothing/here HTTP/1.1\r\nHost: sp\r\n\r\n").into_bytes();
    let mut open = Vec::new();
    let mut before = 0;
    for count in 0..HELD + HELD / 10 {
        // What is taken once and for all is not counted.
        if count == HELD / 10 {
            std::thread::sleep(Duration::from_millis(200));
            before = memory()?;
        }
        let mut tcp = TcpStream::connect(address)?;
        let mut session = tls.map(|tls| tls.connect(&address.ip().to_string())).transpose()?;
        match &mut session {
            None => tcp.write_all(&request)?,
            Some(session) => {
                let len = session.write(&mut tcp, &request)?;
                assert_eq!(len, request.len(), "a blocking socket takes all");
            }
        }
        open.push((tcp, session));
    }
    std::thread::sleep(Duration::from_millis(500));
    Ok((memory()?.saturating_sub(before)) as f64 / HELD as f64)
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let time = Duration::from_secs_f64(arguments.next().map_or(Ok(3.0), |text| text.parse())?);
    let dir = tempfile::tempdir()?;
    let sides = [Side::start(&dir.path().join("plain"), false)?, Side::start(&dir.path().join("tls"), true)?];
    println!("| what | plain, 1/s | TLS, 1/s | rate, TLS / plain | CPU us, plain | CPU us, TLS |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let row = |name: &str, threads: usize, work: &(dyn Fn(&Client, u64) -> Result<(), Failure> + Sync)| {
        let (mut plain, mut tls, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let [a, b] = [sides[0].measure(threads, time, work)?, sides[1].measure(threads, time, work)?];
            ratios.push(b[0] / a[0]);
            plain.push(a);
            tls.push(b);
        }
        let median = |all: &[[f64; 2]], at: usize| spread(all.iter().map(|one| one[at]).collect())[0];
        let [middle, least, most] = spread(ratios);
        println!(
            "| {name} | {:.0} | {:.0} | {middle:.2} ({least:.2}-{most:.2}) | {:.0} | {:.0} |",
            median(&plain, 0),
            median(&tls, 0),
            median(&plain, 1),
            median(&tls, 1)
        );
        Ok::<(), Failure>(())
    };
    for (path, len) in SIZES {
        let path: Path = path.parse()?;
        row(&format!("GET of {} KiB, {READERS} connections", len >> 10), READERS, &|client, _| {
            read(client, &path, len)
        })?;
    }
    let body = Body::Bytes(vec![7; 1 << 10].into());
    row(&format!("publication of 1 KiB, {PUBLISHERS} publishers"), PUBLISHERS, &|client, count| {
        publish(client, &format!("bench/p{}", count % 1_000).parse()?, &body)
    })?;
    let tls = Credentials { ca: Some(dir.path().join("tls/publisher/authority.pem")), ..Credentials::default() };
    let tls = tls.tls(sides[1].client.urls())?;
    let held = [held_kib(&sides[0], None)?, held_kib(&sides[1], tls.as_ref())?];
    println!(
        "\nA held request: {:.1} KiB of user memory in plain text, {:.1} KiB with TLS ({HELD} connections)",
        held[0], held[1]
    );
    Ok(())
}
