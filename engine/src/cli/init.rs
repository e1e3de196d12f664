//! `acms init`: the configuration and the empty stores of a new cluster.

use super::{Exit, certificate::LIFETIME, output::Output};
use crate::{
    backup::{self, Backup},
    protocol::{Config, Limits, Mode, Order, QuorumSystem, SpId, StoreId, config::ConfigError},
    store::{DirStorage, Store, StoreIdentity},
    tls::{Authority, AuthorityError, Grant, Identity},
};
use std::{
    fmt::Write,
    fs, io,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// Arguments of `acms init`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where to write; each storage point gets a directory in it
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// How many storage points; an odd number, as an even one tolerates no more failures than the one below
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=63))]
    storage_points: u8,
    /// Name of the cluster: letters, digits and -
    #[arg(long, default_value = "acms", value_name = "NAME", conflicts_with = "restore")]
    cluster: String,
    /// Fill the stores with this backup (see acms backup), under its cluster's name, so that receivers go on. What was
    /// published after it stays at the receivers that have it until its path is published again
    #[arg(long, value_name = "DIR")]
    restore: Option<PathBuf>,
    /// How publications are accepted: fused (one round trip) or two-phase (as the paper has it)
    #[arg(long, default_value = "fused", value_name = "MODE", value_parser = mode)]
    mode: Mode,
    /// Which storage points are a quorum: majority, weighted:1=3,2=1,3=1, hierarchical:(1,2,3),(4,5,6),(7,8,9), sets:1+2,2+3,1+3
    #[arg(long, default_value_t, value_name = "SYSTEM")]
    quorum: QuorumSystem,
    /// All storage points on this address: number i on ports PORT+i (HTTP) and PORT+100+i (peers)
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS", conflicts_with = "address_base")]
    host: IpAddr,
    /// Each storage point on an address of its own: number i on this one plus i, ports PORT (HTTP) and PORT+100 (peers)
    #[arg(long, value_name = "A.B.C.0")]
    address_base: Option<Ipv4Addr>,
    /// See above
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=65000))]
    port: u16,
    /// Make an authority and certificates, and have everything encrypted (default where an address is not loopback)
    #[arg(long, overrides_with = "no_tls")]
    tls: bool,
    /// Make none
    #[arg(long)]
    no_tls: bool,
    /// A host name by which clients reach the storage points, for their certificates; may be given again
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

impl Args {
    /// Whether there are to be certificates.
    fn has_tls(&self, members: &[Member]) -> bool {
        self.tls || (!self.no_tls && members.iter().any(|member| !member.http.ip().is_loopback()))
    }
}

/// A storage point's port for its peers is this much above that for HTTP.
pub(super) const PEER_PORT_ABOVE: u16 = 100;

/// Addresses of one storage point.
struct Member {
    id: u8,
    http: SocketAddr,
    peer: SocketAddr,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let backup = match args.restore.as_deref().map(backup::open).transpose() {
        Ok(backup) => backup,
        Err(error) => {
            output.error(&error.to_string(), "name a directory that acms backup has made; nothing was written");
            return Exit::Failed;
        }
    };
    let args = &match &backup {
        Some(backup) => Args { cluster: backup.head.snapshot.cluster.clone(), ..args.clone() },
        None => args.clone(),
    };
    let members = match plan(args) {
        Ok(members) => members,
        Err((what, remedy)) => {
            output.error(&what, remedy);
            return Exit::Failed;
        }
    };
    let remedy = "remove what was written, see to the cause, and run acms init again";
    for member in &members {
        if let Err(error) = create(args, &members, member, backup.as_ref()) {
            output.error(&format!("storage point {} cannot be made: {error}", member.id), remedy);
            return Exit::Failed;
        }
    }
    if args.has_tls(&members)
        && let Err(error) = certify(args, &members)
    {
        output.error(&format!("certificates cannot be made: {error}"), remedy);
        return Exit::Failed;
    }
    tell(args, &members, output);
    Exit::Done
}

/// Addresses of all storage points, after everything that can be checked was.
fn plan(args: &Args) -> Result<Vec<Member>, (String, &'static str)> {
    let members = (1..=args.storage_points).map(|id| addresses(args, id)).collect::<Option<Vec<Member>>>();
    let members = members.ok_or((
        format!("{} plus {} is no address", args.host, args.storage_points),
        "choose a base such as 127.23.45.0",
    ))?;
    let config = Config {
        cluster: args.cluster.clone(),
        epoch: 1,
        me: SpId(1),
        store: StoreId::default(),
        members: members.iter().map(|member| SpId(member.id)).collect(),
        mode: args.mode,
        order: Order::default(),
        quorum: args.quorum.clone(),
        max_drift: Duration::from_secs(3600),
        limits: Limits::default(),
    };
    config.validate().map_err(|error| {
        let remedy = match error {
            ConfigError::Quorum(_) => "write a quorum system of which any two quorums share a storage point",
            _ => "choose another name with --cluster",
        };
        (error.to_string(), remedy)
    })?;
    for member in &members {
        let place = place(args, member.id);
        if place.exists() {
            return Err((format!("{} exists", place.display()), "name another directory: nothing is overwritten"));
        }
    }
    Ok(members)
}

fn addresses(args: &Args, id: u8) -> Option<Member> {
    let (address, offset) = match args.address_base {
        Some(base) => (IpAddr::V4(Ipv4Addr::from(u32::from(base).checked_add(id.into())?)), 0),
        None => (args.host, u16::from(id)),
    };
    let on = |port: u16| SocketAddr::new(address, port + offset);
    Some(Member { id, http: on(args.port), peer: on(args.port + PEER_PORT_ABOVE) })
}

fn place(args: &Args, id: u8) -> PathBuf {
    args.directory.join(format!("sp{id}"))
}

fn create(args: &Args, members: &[Member], member: &Member, backup: Option<&Backup>) -> io::Result<()> {
    let place = place(args, member.id);
    let store = place.join("store");
    fs::create_dir_all(&store)?;
    create_store(args, member, &store, backup)?;
    fs::write(place.join("acms.toml"), configuration(args, members, member))
}

/// The authority, and certificates of all storage points and of one publisher.
fn certify(args: &Args, members: &[Member]) -> Result<(), AuthorityError> {
    let authority = Authority::create(&args.cluster, &args.directory.join("authority"))?;
    let cluster = || args.cluster.clone();
    for member in members {
        let mut names = vec![member.http.ip().to_string()];
        if member.http.ip().is_loopback() {
            names.push("localhost".to_owned());
        }
        names.extend(args.names.iter().cloned());
        let identity = Identity::StoragePoint { cluster: cluster(), sp: SpId(member.id) };
        authority.issue(&identity, &names, LIFETIME)?.write(&place(args, member.id))?;
    }
    let grant = Grant::new("publisher", Vec::new())?;
    let publisher = authority.issue(&Identity::Publisher { cluster: cluster(), grant }, &[], LIFETIME)?;
    publisher.write(&args.directory.join("publisher"))
}

/// The file that `acms storage-point` reads.
fn configuration(args: &Args, members: &[Member], member: &Member) -> String {
    let Member { id, http, peer } = member;
    let Args { cluster, quorum, .. } = args;
    let mode = mode_name(args.mode);
    let mut text = format!(
        "# Storage point {id} of cluster {cluster}. What is not written here has its default.\n\
         cluster = \"{cluster}\"\n\
         epoch = 1                      # number of this configuration; equal on all storage points\n\n\
         [storage_point]\n\
         id = {id}\n\
         store = \"store\"                # relative to this file's directory\n\n\
         [listen]\n\
         deliver = \"{http}\"   # for receivers and caches; reading only, unless equal to publish\n\
         publish = \"{http}\"   # for publishers; takes everything\n\
         peer = \"{peer}\"      # for the other storage points\n\n\
         [acms]\n\
         mode = \"{mode}\"               # how publications are accepted; equal on all storage points\n\
         quorum = \"{quorum}\"          # which storage points are a quorum; equal on all storage points\n"
    );
    let scheme = if args.has_tls(members) {
        text.push_str(
            "\n[tls]                           # files beside this one; read again when they change, and on SIGHUP\n\
             authority = \"authority.pem\"\n\
             certificate = \"certificate.pem\"\n\
             key = \"key.pem\"\n",
        );
        "https"
    } else {
        "http"
    };
    for Member { id, http, peer } in members {
        let member = format!("\n[[members]]\nid = {id}\npeer = \"{peer}\"\nurl = \"{scheme}://{http}\"\n");
        text.push_str(&member);
    }
    text
}

fn mode(text: &str) -> Result<Mode, String> {
    let all = [Mode::Fused, Mode::TwoPhase];
    all.into_iter().find(|mode| mode_name(*mode) == text).ok_or_else(|| "write fused or two-phase".to_owned())
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Fused => "fused",
        Mode::TwoPhase => "two-phase",
    }
}

/// 64 random bits.
pub(super) fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn tell(args: &Args, members: &[Member], output: Output) {
    let config = |id: u8| place(args, id).join("acms.toml");
    let has_tls = args.has_tls(members);
    let url = |member: &Member| format!("{}://{}", if has_tls { "https" } else { "http" }, member.http);
    if output.json {
        let sps: Vec<_> = members
            .iter()
            .map(|member| {
                serde_json::json!({
                    "sp": member.id, "config": config(member.id).to_string_lossy(),
                    "url": url(member), "peer": member.peer.to_string(),
                })
            })
            .collect();
        return output.object(&serde_json::json!({"cluster": args.cluster, "storage_points": sps}));
    }
    let mut text = format!(
        "Cluster {} of {} storage points is laid out in {}.\n",
        args.cluster,
        members.len(),
        args.directory.display()
    );
    if members.len().is_multiple_of(2) {
        let _ = writeln!(text, "An even number tolerates no more failures than {} would.", members.len() - 1);
    }
    text += "\nStart each of them, on its own terminal or machine:\n";
    for member in members {
        let _ = writeln!(text, "  acms storage-point --config {}", config(member.id).display());
    }
    if has_tls {
        let directory = args.directory.display();
        let _ = write!(
            text,
            "\nWhat is said is encrypted, and who publishes shows a certificate. The authority's key is \
             {directory}/authority/authority.key: keep it, and keep it apart.\nTell clients once whom they trust and \
             who they are:\n  export ACMS_CA={directory}/publisher/authority.pem \
             ACMS_CERT={directory}/publisher/certificate.pem ACMS_KEY={directory}/publisher/key.pem\n"
        );
    }
    let first = url(&members[0]);
    let _ = write!(
        text,
        "\nThen publish something and look at it:\n  \
         acms publish --to {first} etc/motd /etc/motd\n  acms get --from {first} etc/motd\n  acms status --from {}",
        members.iter().map(url).collect::<Vec<_>>().join(",")
    );
    output.line(&text);
}

/// An empty store, number 0, or one with what the backup has.
fn create_store(args: &Args, member: &Member, directory: &Path, backup: Option<&Backup>) -> io::Result<()> {
    let store = StoreId { number: backup.map_or(0, Backup::store_number), nonce: nonce()? };
    let identity = StoreIdentity { cluster: args.cluster.clone(), sp: SpId(member.id), store };
    let storage = DirStorage::new(directory)?;
    match backup {
        Some(backup) => backup.fill(storage, &identity).map_err(io::Error::other),
        None => Store::create(storage, &identity).map_err(io::Error::other),
    }
}
