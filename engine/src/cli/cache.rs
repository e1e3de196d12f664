//! `acms cache`: keeps what receivers ask for near them.

use crate::{
    client::{Credentials, Url},
    runtime::{
        cache::{self, Options},
        events::EventStream,
        process,
        units::parse_size,
    },
    tls::PairFiles,
};
use clap::builder::FalseyValueParser;
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

/// Arguments of `acms cache`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Storage point or other cache to pull from, http(s)://host:port; several stand in for each other.
    #[arg(long = "source", env = "ACMS_SOURCE", value_name = "URL", value_delimiter = ',', required = true, num_args = 1..)]
    sources: Vec<Url>,
    /// Address at which receivers are served; port 0 takes a free one.
    #[arg(long, env = "ACMS_LISTEN", value_name = "ADDR")]
    listen: SocketAddr,
    /// Serve receivers over HTTPS with this certificate, made by `acms certificate cache`; read again when it changes.
    #[arg(long, env = "ACMS_LISTEN_CERTIFICATE", value_name = "FILE", requires = "listen_key")]
    listen_certificate: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, env = "ACMS_LISTEN_KEY", value_name = "FILE", requires = "listen_certificate")]
    listen_key: Option<PathBuf>,
    /// Speak plain HTTP also at an address that other machines reach.
    #[arg(long, env = "ACMS_PLAIN_TEXT", value_parser = FalseyValueParser::new())]
    plain_text: bool,
    /// The directory for objects; made if absent. It belongs to the cache, which removes what it does not need.
    #[arg(long, env = "ACMS_STORE", value_name = "DIR")]
    store: PathBuf,
    /// Disk that objects may take, such as 10GiB; what was not used for longest makes room.
    #[arg(long, env = "ACMS_SIZE", value_name = "SIZE", default_value = "10GiB", value_parser = parse_store_size)]
    size: u64,
    #[command(flatten)]
    credentials: Credentials,
    /// Write events as JSON lines to this file; - is standard output.
    #[arg(long, value_name = "FILE")]
    events: Option<String>,
    /// End at once when the process that started this one ends.
    #[arg(long)]
    exit_with_parent: bool,
}

fn parse_store_size(text: &str) -> Result<u64, String> {
    const SIZE_MIN: u64 = 1 << 20;
    let size = parse_size(text).map_err(|error| error.to_string())?;
    if size < SIZE_MIN { Err("the smallest size is 1MiB".to_owned()) } else { Ok(size) }
}

/// Runs until it is stopped.
pub fn run(args: Args) -> ExitCode {
    match try_run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acms cache: {error}");
            ExitCode::from(2)
        }
    }
}

fn try_run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if args.exit_with_parent {
        process::exit_with_parent()?;
    }
    let events = match &args.events {
        Some(target) => {
            EventStream::open(target).map_err(|error| format!("cannot write events to {target}: {error}"))?
        }
        None => EventStream::none(),
    };
    let Args { sources, listen, plain_text, store, size: bytes_max, credentials, .. } = args;
    let tls = credentials.tls(&sources)?;
    let pair = args.listen_certificate.zip(args.listen_key);
    let certificate = pair.map(|(certificate, key)| PairFiles { certificate, key });
    cache::run(Options { sources, tls, listen, certificate, plain_text, store, bytes_max }, events)?;
    Ok(())
}
