//! `acms certificate`: certificates of a cluster's authority, for those who join later or whose old ones expire.

use super::{Exit, output::Output};
use crate::{
    protocol::{Prefix, SpId},
    runtime::units::parse_duration,
    tls::{Authority, AuthorityError, Grant, Identity, Issued},
};
use std::{path::PathBuf, time::Duration};

/// How long certificates are valid if nobody says so.
pub(super) const LIFETIME: Duration = Duration::from_secs(365 * 86_400);

/// Arguments of `acms certificate`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The authority's directory, made by `acms init --tls`
    #[arg(long, env = "ACMS_AUTHORITY", value_name = "DIR")]
    authority: PathBuf,
    /// Where certificate.pem, key.pem and authority.pem go; a new directory, or one that has none
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is valid, such as 90d or 12h (default: 365d)
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    lifetime: Option<Duration>,
    #[command(subcommand)]
    holder: Holder,
}

#[derive(clap::Subcommand, Debug)]
enum Holder {
    /// For one who publishes.
    Publisher {
        /// The name that stands in its publications
        name: String,
        /// It may publish only this path and what is below; may be given again
        #[arg(long, value_name = "PREFIX")]
        under: Vec<Prefix>,
    },
    /// For a storage point.
    StoragePoint {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u8).range(1..=63))]
        id: u8,
        /// A host name or address by which clients reach it; may be given again
        #[arg(long = "name", value_name = "HOST", required = true)]
        names: Vec<String>,
    },
    /// For a cache that speaks HTTPS.
    Cache {
        /// What it is called
        name: String,
        /// A host name or address by which clients reach it; may be given again
        #[arg(long = "name", value_name = "HOST", required = true)]
        names: Vec<String>,
    },
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = parse_duration(text).map_err(|error| error.to_string())?;
    let years = Duration::from_secs(20 * 365 * 86_400);
    if lifetime.is_zero() || lifetime > years { Err("write a time up to 20 years".into()) } else { Ok(lifetime) }
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    match issue(args) {
        Ok(identity) => {
            let out = args.out.display();
            match output.json {
                true => output.object(&serde_json::json!({"holder": identity.to_string(), "directory": args.out})),
                false => output.line(&format!("{identity} has certificate.pem, key.pem and authority.pem in {out}")),
            }
            Exit::Done
        }
        Err(error) => {
            output
                .error(&error.to_string(), "name the directory that `acms init --tls` made, and a new one to write to");
            Exit::Failed
        }
    }
}

fn issue(args: &Args) -> Result<Identity, AuthorityError> {
    let authority = Authority::open(&args.authority)?;
    let cluster = authority.cluster().to_owned();
    let (identity, names) = match &args.holder {
        Holder::Publisher { name, under } => {
            (Identity::Publisher { cluster, grant: Grant::new(name, under.clone())? }, &[][..])
        }
        Holder::StoragePoint { id, names } => (Identity::StoragePoint { cluster, sp: SpId(*id) }, &names[..]),
        Holder::Cache { name, names } => (Identity::Cache { cluster, name: name.clone() }, &names[..]),
    };
    let issued: Issued = authority.issue(&identity, names, args.lifetime.unwrap_or(LIFETIME))?;
    issued.write(&args.out)?;
    Ok(identity)
}
