//! What caches spare a storage point: 200 receivers behind nginx, Varnish and `acms cache` in one to three tiers, following
//! changes or polling; requests that reach the storage point for each publication, and how long a publication takes to
//! every receiver.
//!
//!     cargo run --release -p acms-bench --bin cache-tiers -- [--receivers 200] [--publications 40] [--only KIND...]
//!
//! One line for each arrangement, separated by tabs. `direct` is without a cache. Publications are 1 KiB; the receivers are
//! one process that keeps no files, and a delivery counts when the content is verified.

mod arrangement;

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside},
};
use acms_engine::{
    client::{Body, Client, ClientOptions, PublishOptions, Verdict},
    protocol::Hash,
    runtime::clock,
};
use arrangement::{Arrangement, KINDS};
use clap::Parser;
use hdrhistogram::Histogram;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

const CONTENT_LEN: usize = 1024;
/// What has not come in this time is counted as missing.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Options {
    /// Receivers behind each arrangement
    #[arg(long, default_value_t = 200)]
    receivers: u32,
    /// Publications for receivers that follow changes
    #[arg(long, default_value_t = 40)]
    publications: u32,
    /// Milliseconds from one publication to the next
    #[arg(long, default_value_t = 500)]
    pause_ms: u64,
    /// Seconds from one poll to the next; publications then come one a poll
    #[arg(long, default_value_t = 10)]
    poll_s: u64,
    /// Publications for receivers that poll
    #[arg(long, default_value_t = 6)]
    polled_publications: u32,
    /// Only these: direct, nginx, varnish, acms, acms-2, acms-3
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
}

fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let acms = acms_beside()?;
    println!(
        "kind\tmode\treceivers\tpublications\torigin_requests_per_publication\tof_them_changes\tp50_ms\tp99_ms\tmax_ms\t\
         delivered\texpected"
    );
    for kind in KINDS.into_iter().filter(|kind| options.only.is_empty() || options.only.iter().any(|k| k == kind)) {
        for poll_s in [None, Some(options.poll_s)] {
            let dir = tempfile::tempdir()?;
            let cluster = Cluster::start(&acms, &dir.path().join("cluster"), 1, |text| text)?;
            let origin = format!("http://{}", cluster.addresses[0]);
            let caches = Arrangement::start(kind, &acms, dir.path(), &origin)?;
            run(&options, &acms, kind, &origin, &caches.url, poll_s)?;
        }
    }
    Ok(())
}

/// A process of receivers, which ends with this.
struct Receivers {
    child: Child,
    events: Receiver<serde_json::Value>,
}

impl Drop for Receivers {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Receivers {
    fn start(acms: &Path, count: u32, source: &str, poll_s: Option<u64>) -> Result<Receivers, Failure> {
        let mut command = Command::new(acms);
        command.args(["receive", "--discard", "--exit-with-parent", "--events", "-", "--subscribe", ""]);
        command.args(["--count", &count.to_string(), "--source", source]);
        if let Some(seconds) = poll_s {
            command.args(["--poll", &format!("{seconds}s")]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no events")?).lines().map_while(Result::ok);
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in lines {
                if serde_json::from_str(&line).is_ok_and(|event| sender.send(event).is_err()) {
                    return;
                }
            }
        });
        Ok(Receivers { child, events })
    }

    /// Waits until each has all that there is.
    fn wait_until_current(&self, count: u32) -> Result<(), Failure> {
        let mut current = BTreeSet::new();
        while current.len() < count as usize {
            let event = self.events.recv_timeout(PATIENCE).map_err(|_| "the receivers do not become current")?;
            if event["kind"] == "current" {
                current.insert(event["receiver"].as_u64());
            }
        }
        Ok(())
    }
}

fn run(
    options: &Options,
    acms: &Path,
    kind: &str,
    origin: &str,
    source: &str,
    poll_s: Option<u64>,
) -> Result<(), Failure> {
    let publisher = Client::from_texts(&[origin], ClientOptions::default())?;
    let receivers = Receivers::start(acms, options.receivers, source, poll_s)?;
    receivers.wait_until_current(options.receivers)?;
    let (count, pause) = match poll_s {
        None => (options.publications, Duration::from_millis(options.pause_ms)),
        Some(seconds) => (options.polled_publications, Duration::from_secs(seconds)),
    };
    // The first ones make connections and fill what is kept; they do not count.
    let warm = (count / 4).max(1);
    let mut begun: BTreeMap<String, u64> = BTreeMap::new();
    let mut before = (0, 0);
    let mut delays = Histogram::<u64>::new(3)?;
    for number in 0..warm + count {
        if number == warm {
            before = origin_requests(origin)?;
        }
        let content = content(number);
        let name = Hash::of(&content).to_string();
        let started = Instant::now();
        if number >= warm {
            begun.insert(name, clock::monotonic().0);
        }
        let path = format!("bench/{}", number % 8).parse()?;
        let result = publisher.publish(&path, &Body::Bytes(content.into()), &PublishOptions::default())?;
        if result.outcome != Verdict::Accepted {
            return Err(format!("a publication is not accepted: {result:?}").into());
        }
        take(&receivers, &begun, &mut delays, started + pause);
    }
    let expected = u64::from(count) * u64::from(options.receivers);
    let deadline = Instant::now() + PATIENCE.min(Duration::from_secs(poll_s.unwrap_or(0) * 3 + 10));
    while delays.len() < expected && Instant::now() < deadline {
        take(&receivers, &begun, &mut delays, Instant::now() + Duration::from_millis(100));
    }
    let after = origin_requests(origin)?;
    let mode = poll_s.map_or("follow".to_owned(), |seconds| format!("poll {seconds} s"));
    let each = |total: u64| total as f64 / f64::from(count);
    let ms = |us: u64| us as f64 / 1_000.0;
    println!(
        "{kind}\t{mode}\t{}\t{count}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{:.1}\t{}\t{expected}",
        options.receivers,
        // Without the publications themselves and one look at the figures.
        each(after.0 - before.0 - u64::from(count) - 1),
        each(after.1 - before.1),
        ms(delays.value_at_quantile(0.5)),
        ms(delays.value_at_quantile(0.99)),
        ms(delays.max()),
        delays.len(),
    );
    Ok(())
}

/// Takes what the receivers say until then.
fn take(receivers: &Receivers, begun: &BTreeMap<String, u64>, delays: &mut Histogram<u64>, until: Instant) {
    loop {
        let event = match receivers.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        if event["kind"] == "verified"
            && let Some(begun_ns) = event["hash"].as_str().and_then(|hash| begun.get(hash))
        {
            let delay_ns = event["t"].as_u64().unwrap_or_default().saturating_sub(*begun_ns);
            // It grows as far as it has to.
            delays.record(delay_ns / 1_000).ok();
        }
    }
}

fn content(number: u32) -> Vec<u8> {
    format!("{number:08} {} ", std::process::id()).into_bytes().into_iter().cycle().take(CONTENT_LEN).collect()
}

/// Requests that the storage point has had, and how many of them were for changes.
fn origin_requests(origin: &str) -> Result<(u64, u64), Failure> {
    let text = arrangement::get(origin, "/metrics")?;
    let figure = |name: &str| -> Result<u64, Failure> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.ok_or("a figure is missing")?.parse()?)
    };
    Ok((figure("acms_http_requests_total")?, figure("acms_http_changes_total")?))
}
