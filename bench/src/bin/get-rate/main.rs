//! How many GETs one storage point answers in a second, beside nginx that serves the same bytes from files.
//!
//! Both are processes of their own and so is this client; they take turns, so that whatever else the machine does
//! meets both. nginx has one worker, as the storage point has one loop, `open_file_cache`, `sendfile` and no access log.

mod client;
mod nginx;

use acms_bench::{
    Failure,
    cluster::{Cluster, acms_beside, cpu_s},
};
use acms_engine::{
    client::{Body, Client, ClientOptions, PublishOptions},
    protocol::Hash,
    runtime::process::raise_open_files,
};
use clap::Parser;
use nginx::Nginx;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Measures GETs of one storage point beside nginx.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Connections, each with one request under way
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1000])]
    connections: Vec<usize>,
    /// Bytes of the object
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 10, 1 << 20])]
    sizes: Vec<usize>,
    /// Turns of each server
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The acms program; by default the one beside this program
    #[arg(long)]
    acms: Option<PathBuf>,
    /// The nginx program
    #[arg(long, default_value = "nginx")]
    nginx: PathBuf,
}

/// A server under test.
struct Server {
    name: &'static str,
    address: SocketAddr,
    pids: Vec<u32>,
}

/// What is asked for.
struct Case {
    answer: u16,
    size: usize,
    connections: usize,
    target: String,
}

#[derive(Default)]
struct Series {
    per_s: Vec<f64>,
    cpu_us: Vec<f64>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    raise_open_files();
    let acms = args.acms.clone().map_or_else(acms_beside, Ok)?;
    let dir = tempfile::tempdir_in(acms.parent().ok_or("no directory")?)?;
    let cluster = Cluster::start(&acms, &dir.path().join("cluster"), 1, |config| config)?;
    let url = format!("http://{}", cluster.addresses[0]);
    let client = Client::new(vec![url.parse()?], ClientOptions::default())?;
    let nginx = Nginx::start(&args.nginx, &dir.path().join("nginx"))?;
    let servers = [
        Server { name: "acms", address: cluster.addresses[0], pids: vec![cluster.pid(1)] },
        Server { name: "nginx", address: nginx.address, pids: nginx.workers()? },
    ];
    println!(
        "answer\tbytes\tconnections\tacms_per_s\tacms_min\tacms_max\tnginx_per_s\tnginx_min\tnginx_max\tratio\t\
         ratio_min\tratio_max\tacms_cpu_us\tnginx_cpu_us"
    );
    for size in &args.sizes {
        let content: Vec<u8> = (0..*size).map(|at| (at * 7 % 251) as u8).collect();
        client.publish(
            &format!("bench/{size}").parse()?,
            &Body::Bytes(content.clone().into()),
            &PublishOptions::default(),
        )?;
        let hash = Hash::of(&content);
        nginx.serve(&format!("v1/objects/{hash}"), &content)?;
        for connections in &args.connections {
            for answer in [200, 304] {
                let target = format!("/v1/objects/{hash}");
                measure(&args, &servers, &Case { answer, size: *size, connections: *connections, target })?;
            }
        }
    }
    Ok(())
}

/// Lets the servers take turns at one case, and prints its line.
fn measure(args: &Args, servers: &[Server; 2], case: &Case) -> Result<(), Failure> {
    let mut series = [Series::default(), Series::default()];
    let mut load = Vec::new();
    for server in servers {
        let mut clients = client::Clients::connect(server.address, case)?;
        clients.run(Duration::from_millis(300)).map_err(|error| format!("{}: {error}", server.name))?;
        load.push(clients);
    }
    for _ in 0..args.rounds {
        for (at, server) in servers.iter().enumerate() {
            let cpu = || server.pids.iter().map(|pid| cpu_s(*pid)).sum::<Result<f64, _>>();
            let before = cpu()?;
            let (answers, elapsed) = load[at].run(Duration::from_secs_f64(args.seconds))?;
            series[at].per_s.push(answers as f64 / elapsed.as_secs_f64());
            series[at].cpu_us.push((cpu()? - before) * 1e6 / answers as f64);
        }
    }
    let ratios: Vec<f64> = series[0].per_s.iter().zip(&series[1].per_s).map(|(acms, nginx)| acms / nginx).collect();
    let [acms, nginx] = &series;
    let Case { answer, size, connections, .. } = case;
    println!(
        "{answer}\t{size}\t{connections}\t{}\t{}\t{}\t{:.1}\t{:.1}",
        spread(&acms.per_s, 0),
        spread(&nginx.per_s, 0),
        spread(&ratios, 2),
        median(&acms.cpu_us),
        median(&nginx.cpu_us)
    );
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Median, least and greatest.
fn spread(values: &[f64], digits: usize) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = values.iter().copied().fold(0.0, f64::max);
    format!("{:.digits$}\t{least:.digits$}\t{greatest:.digits$}", median(values))
}
