//! What a cluster of real processes costs when there is much of everything: many paths, or a very large content.
//!
//! `--paths N` fills a cluster and measures what one change, a restart, a lost disk and a new receiver cost; `--large SIZE`
//! publishes one content of that size while small ones go on. One line of name and value for each figure.

mod cluster;
mod large;
mod load;
mod paths;
mod proxy;

pub(crate) use acms_bench::Failure;
use acms_bench::cluster::{Cluster, acms_beside};
use acms_engine::runtime::units::parse_size;
use clap::Parser;
use cluster::memory_mib;
use std::path::PathBuf;

/// Measures a cluster on this machine with many paths, or with one very large content.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Args {
    /// So many paths of 100 to 1,000 bytes.
    #[arg(long, default_value_t = 100_000)]
    paths: u64,
    /// All of them in one directory, instead of 100 in each.
    #[arg(long)]
    flat: bool,
    /// One content of this size instead, such as 1GiB.
    #[arg(long, value_parser = |text: &str| parse_size(text).map_err(|error| error.to_string()))]
    large: Option<u64>,
    /// With --large: small publications at 50 a second, so many before and so many beside it.
    #[arg(long, default_value_t = 3_000)]
    samples: u64,
    /// Storage points.
    #[arg(long, default_value_t = 3)]
    storage_points: u8,
    /// Publishers that fill the cluster.
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Leave out the receiver that starts with nothing.
    #[arg(long)]
    no_receiver: bool,
    /// The acms program; by default the one beside this program.
    #[arg(long)]
    acms: Option<PathBuf>,
    /// Where stores and files are made (and removed); by default beside this program.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// One figure.
pub(crate) fn say(name: &str, value: f64) {
    println!("{name}\t{value:.3}");
}

/// Memory of each storage point that runs.
pub(crate) fn say_memory(cluster: &Cluster, when: &str, field: &str) -> Result<(), Failure> {
    for sp in 1..=cluster.addresses.len() as u8 {
        say(&format!("{when}_sp{sp}_{}_mib", field.to_lowercase()), memory_mib(cluster.pid(sp), field)?);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let beside = acms_beside()?;
    let acms = args.acms.clone().unwrap_or_else(|| beside.clone());
    let dir = tempfile::tempdir_in(args.dir.as_deref().or(beside.parent()).ok_or("no directory")?)?;
    match args.large {
        Some(size) => large::run(&args, &acms, dir.path(), size),
        None => paths::run(&args, &acms, dir.path()),
    }
}
