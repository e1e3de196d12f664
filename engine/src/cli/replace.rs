//! `acms replace`: a new, empty store in place of one whose disk is lost.
//!
//! Its number must be above that of every store that this storage point ever had, or bits of a lost store would count for
//! the new one: so a quorum of the others is asked for the greatest that they know.

use super::{Exit, init::nonce, output::Output};
use crate::{
    client::{Client, ClientOptions, Credentials, Url},
    protocol::{SpId, SpSet, StoreId, quorum::Quorum},
    runtime::config::{Overrides, StoragePointConfig},
    store::{DirStorage, Store, StoreIdentity},
};
use std::{fs, path::PathBuf, time::Duration};

/// Arguments of `acms replace`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Configuration file of the storage point whose store is lost
    #[arg(long, env = "ACMS_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// URLs of the other storage points, instead of those in the configuration
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    from: Vec<Url>,
    #[command(flatten)]
    overrides: Overrides,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    match try_run(args) {
        Ok((config, number)) => {
            let store = config.store.display().to_string();
            if output.json {
                output.object(&serde_json::json!({"sp": config.me.0, "store": store, "number": number}));
            } else {
                output.line(&format!(
                    "Store {number} of storage point {} is made in {store}.\nStart it; the others fill it before it serves:\n  \
                     acms storage-point --config {}",
                    config.me,
                    args.config.display()
                ));
            }
            Exit::Done
        }
        Err((what, remedy)) => {
            output.error(&what, remedy);
            Exit::Failed
        }
    }
}

type Problem = (String, &'static str);

fn try_run(args: &Args) -> Result<(StoragePointConfig, u32), Problem> {
    let config = StoragePointConfig::load(&args.config, &args.overrides)
        .map_err(|error| (error.to_string(), "mend the configuration file"))?;
    let is_empty = fs::read_dir(&config.store).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty {
        let what = format!("{} is not empty", config.store.display());
        return Err((what, "if what is in it is lost or damaged, move it away; else start the storage point as it is"));
    }
    let number = greatest_number(&config, &args.from)?
        .checked_add(1)
        .ok_or_else(|| ("no greater store number is left".to_owned(), "make a new cluster"))?;
    let make = || {
        fs::create_dir_all(&config.store)?;
        let identity = StoreIdentity {
            cluster: config.cluster.clone(),
            sp: config.me,
            store: StoreId { number, nonce: nonce()? },
        };
        Store::create(DirStorage::new(&config.store)?, &identity).map_err(std::io::Error::other)
    };
    make().map_err(|error| {
        (format!("{} cannot be made: {error}", config.store.display()), "see to the disk, and try again")
    })?;
    Ok((config, number))
}

/// The greatest store number of this storage point that a quorum of the others knows.
fn greatest_number(config: &StoragePointConfig, from: &[Url]) -> Result<u32, Problem> {
    let others = config.members.iter().filter(|member| SpId(member.id) != config.me);
    let urls: Vec<Url> = match from.is_empty() {
        true => others.filter_map(|member| member.url.as_ref()?.parse().ok()).collect(),
        false => from.to_vec(),
    };
    let name_them = "name the other storage points with --from";
    let timeout = Duration::from_secs(3);
    // It shows what it has as a storage point.
    let credentials = config.tls.as_ref().map_or_else(Credentials::default, |files| Credentials {
        ca: Some(files.authority.clone()),
        cert: Some(files.certificate.clone()),
        cert_key: Some(files.key.clone()),
        ..Credentials::default()
    });
    let options =
        ClientOptions { connect_timeout: timeout, io_timeout: timeout, credentials, ..ClientOptions::default() };
    let client = Client::new(urls, options).map_err(|error| (error.to_string(), name_them))?;
    let (mut answered, mut greatest, mut problems) = (SpSet::EMPTY, 0, Vec::new());
    for (at, url) in client.urls().iter().enumerate() {
        match client.status_of(at) {
            Ok(status) if status["cluster"] == config.cluster.as_str() => {
                let number = &status["stores"][config.me.to_string()];
                let sp = status["sp"].as_u64().and_then(|sp| u8::try_from(sp).ok()).map(SpId);
                answered = answered.union(sp.filter(|sp| *sp != config.me).into_iter().collect());
                greatest = greatest.max(number.as_u64().and_then(|number| number.try_into().ok()).unwrap_or(0));
            }
            Ok(_) => problems.push(format!("{url} belongs to another cluster")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let members: Vec<SpId> = config.members.iter().map(|member| SpId(member.id)).collect();
    let quorum = Quorum::new(&config.quorum, &members).map_err(|error| (error.to_string(), "mend acms.quorum"))?;
    if !quorum.is_quorum(answered) && members.len() > 1 {
        let answered: Vec<String> = answered.iter().map(|sp| sp.to_string()).collect();
        let what = format!(
            "a quorum of the other storage points must say which stores they know; only [{}] did. {}",
            answered.join(", "),
            problems.join("; ")
        );
        return Err((what, "start them, or name them with --from; without a quorum the cluster cannot fill a store"));
    }
    Ok(greatest)
}
