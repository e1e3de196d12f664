//! `acms dev`: a whole small cluster on this machine, to try things out.
//!
//! Each storage point is a process of its own, so that one may be killed, and what the others do then be seen; stop
//! signals, the log and the clock are a process's, too. Invariant: however this process ends, its children end with it,
//! and what it has made in a temporary directory goes away. The kernel sees to the children ([`exit_with_parent`]), a
//! sweeper, which waits for this process's end, to the directory.
//!
//! [`exit_with_parent`]: crate::runtime::process::exit_with_parent

mod children;
mod sweeper;

use super::{
    Exit, LogFormat,
    init::{PEER_PORT_ABOVE, nonce},
    output::Output,
};
use crate::runtime::{config::StoragePointConfig, signal::StopSignals};
use children::Children;
use std::{
    ffi::OsString,
    fs::DirBuilder,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use sweeper::Sweeper;

/// Between looks at children and signals.
const TICK: Duration = Duration::from_millis(50);
/// First ports that are tried unless one is named.
const PORTS: std::ops::Range<u16> = 7400..17400;
const PORTS_STEP: usize = 200;
/// So often, others may take ports between the look at them and their use.
const ATTEMPTS: u32 = 4;

/// Arguments of `acms dev`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Ctrl-C ends the storage points; without --dir everything they have stored goes away then. One that is \
    killed is started again after 5 s."
)]
pub struct Args {
    /// How many storage points
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=63))]
    storage_points: u8,
    /// Keep everything in this directory, and go on with what is in it [default: a temporary one that goes away]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Storage point i listens on port N+i for HTTP and N+100+i for its peers [default: the first free ones from 7400]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=65000))]
    port: Option<u16>,
    /// Removes this directory once standard input has ended
    #[arg(long, hide = true, value_name = "DIR")]
    sweep: Option<PathBuf>,
}

/// What went wrong, and what to do.
type Problem = (String, String);

/// One storage point, as it was laid out.
struct Member {
    id: u8,
    config: PathBuf,
    url: String,
}

pub(super) fn run(args: &Args, program: Vec<OsString>, log_format: LogFormat, output: Output) -> Exit {
    if let Some(directory) = &args.sweep {
        sweeper::sweep(directory);
        return Exit::Done;
    }
    match try_run(args, &Program(program), log_format, output) {
        Ok(()) => Exit::Done,
        Err((what, remedy)) => {
            output.error(&what, &remedy);
            Exit::Failed
        }
    }
}

/// How to run `acms`.
struct Program(Vec<OsString>);

impl Program {
    fn command(&self, command: &str) -> Command {
        let (name, first) =
            self.0.split_first().map_or(("acms".into(), &[][..]), |(name, first)| (name.clone(), first));
        let mut begun = Command::new(name);
        begun.args(first).arg(command);
        begun
    }
}

fn system(error: std::io::Error) -> Problem {
    (format!("the system refused: {error}"), "see to the cause, and try again".to_owned())
}

fn try_run(args: &Args, program: &Program, log_format: LogFormat, output: Output) -> Result<(), Problem> {
    let signals = StopSignals::new().map_err(system)?;
    // Dropped last, once no child uses the directory any more.
    let (_sweeper, directory) = match &args.dir {
        Some(directory) => (None, directory.clone()),
        None => temporary(program).map(|(sweeper, directory)| (Some(sweeper), directory)).map_err(system)?,
    };
    let Some((members, mut children)) = bring_up(args, program, &directory, log_format, &signals)? else {
        return Ok(());
    };
    tell(args, &directory, &members, &children, output);
    while !signals.take() {
        children.start_again();
        std::thread::sleep(TICK);
    }
    Ok(())
}

/// Lays the cluster out if that has not been done, and starts it. None: told to stop meanwhile.
fn bring_up<'a>(
    args: &Args,
    program: &'a Program,
    directory: &Path,
    log_format: LogFormat,
    signals: &StopSignals,
) -> Result<Option<(Vec<Member>, Children<'a>)>, Problem> {
    let is_new = !directory.join("sp1").exists();
    let mut attempts_left = if is_new && args.port.is_none() { ATTEMPTS } else { 1 };
    loop {
        if !directory.join("sp1").exists() {
            lay_out(args, program, directory)?;
        }
        let members = members(directory)?;
        let mut children = Children::new(program, log_format);
        for member in &members {
            children.start(member.id, &member.config).map_err(system)?;
        }
        let ended = loop {
            if signals.take() {
                return Ok(None);
            }
            if children.all_serve() {
                return Ok(Some((members, children)));
            }
            match children.first_ended() {
                Some(problem) => break problem,
                None => std::thread::sleep(TICK),
            }
        };
        attempts_left -= 1;
        if attempts_left == 0 {
            return Err((ended, "see what it has said above".to_owned()));
        }
        // Somebody else has taken a port that was free a moment ago: with others, all goes well.
        drop(children);
        for member in &members {
            std::fs::remove_dir_all(directory.join(format!("sp{}", member.id))).map_err(system)?;
        }
        std::thread::sleep(TICK * (1 + std::process::id() % 10));
    }
}

/// A directory of this process alone, and who removes it.
fn temporary(program: &Program) -> std::io::Result<(Sweeper, PathBuf)> {
    let name = format!("{}{}-{:016x}", sweeper::PREFIX, std::process::id(), nonce()?);
    let directory = std::env::temp_dir().join(name);
    let sweeper = Sweeper::start(program.command("dev"), &directory)?;
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok((sweeper, directory))
}

fn lay_out(args: &Args, program: &Program, directory: &Path) -> Result<(), Problem> {
    let port = match args.port {
        Some(port) => port,
        None => free_ports(args.storage_points).ok_or_else(|| {
            ("no ports are free on 127.0.0.1".to_owned(), "name one with --port, or end what listens there".to_owned())
        })?,
    };
    let mut init = program.command("init");
    init.arg(directory).args(["--cluster", "dev", "--storage-points", &args.storage_points.to_string()]);
    init.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    let made = init.output().map_err(system)?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err((format!("the cluster cannot be laid out: {}", said.trim_end()), "name another directory".to_owned()))
}

/// The first of a few ranges of ports in which all that are needed are free now.
fn free_ports(storage_points: u8) -> Option<u16> {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut starts = PORTS.step_by(PORTS_STEP);
    starts.find(|start| {
        (1..=u16::from(storage_points)).all(|sp| is_free(start + sp) && is_free(start + PEER_PORT_ABOVE + sp))
    })
}

/// The storage points that are laid out in `directory`.
fn members(directory: &Path) -> Result<Vec<Member>, Problem> {
    let config = |id: u8| directory.join(format!("sp{id}")).join("acms.toml");
    let ids = (1..=63).take_while(|id| config(*id).exists());
    let loaded = ids.map(|id| match StoragePointConfig::load(&config(id), &Default::default()) {
        Ok(loaded) => Ok(Member { id, config: config(id), url: loaded.publish_url() }),
        Err(error) => Err((error.to_string(), "mend the configuration file, or name another directory".to_owned())),
    });
    loaded.collect()
}

fn tell(args: &Args, directory: &Path, members: &[Member], children: &Children<'_>, output: Output) {
    let pid = |id: u8| children.pid(id).unwrap_or_default();
    if output.json {
        let sps = members.iter().map(|Member { id, config, url }| {
            serde_json::json!({"sp": id, "url": url, "config": config.to_string_lossy(), "pid": pid(*id)})
        });
        let sps: Vec<_> = sps.collect();
        return output.object(&serde_json::json!({"directory": directory.to_string_lossy(), "storage_points": sps}));
    }
    let mut text = format!("\n{} storage points serve, in {}:\n", members.len(), directory.display());
    for Member { id, url, .. } in members {
        text += &format!("  sp{id}  {url}  process {}\n", pid(*id));
    }
    let (first, last) = (&members[0], &members[members.len() - 1]);
    text += &format!(
        "\nTry, on another terminal:\n  \
         acms watch --from {last}\n  \
         echo hello | curl -T - {first}/v1/config/etc/motd\n  \
         curl {last}/v1/config/etc/motd\n  \
         acms publish --to {first} etc/hosts /etc/hosts\n  \
         acms ls --from {last} --long\n  \
         acms receive --source {last} --subscribe etc --into ./files\n  \
         acms status --from {first}\n",
        first = first.url,
        last = last.url,
    );
    if members.len() > 2 {
        text += &format!("  kill -9 {}     # the others go on; it is started again after 5 s\n", pid(last.id));
    }
    text += match args.dir {
        Some(_) => "\nCtrl-C ends it; the directory stays.",
        None => "\nCtrl-C ends it, and nothing stays.",
    };
    output.line(&text);
}
