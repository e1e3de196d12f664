//! Systems under test: how their processes are started. This version has one, ACMS itself.

use acms_engine::protocol::Prefix;
use std::{
    ffi::{OsStr, OsString},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

/// How to start `acms`: a program and its first arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// For example `["/usr/bin/acms"]`, or `["python3", "-m", "acms"]`.
    pub command: Vec<OsString>,
}

impl Program {
    /// This very executable, which acts as `acms` when that is its first argument.
    pub fn this_executable() -> std::io::Result<Program> {
        Ok(Program { command: vec![std::env::current_exe()?.into(), "acms".into()] })
    }

    /// A command that runs `acms` with `args`.
    pub fn command(&self, args: &[OsString]) -> Command {
        let (program, first) =
            self.command.split_first().map_or((OsStr::new("acms"), &[][..]), |(p, f)| (p.as_os_str(), f));
        let mut command = Command::new(program);
        command.args(first).args(args);
        command
    }
}

/// `acms init`: configurations and stores of a cluster whose SP i listens on the i-th address after `base`.
pub(crate) fn init_args(dir: &Path, storage_points: u8, cluster: &str, base: Ipv4Addr) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["init".into(), dir.into()];
    args.extend(["--storage-points".into(), storage_points.to_string().into()]);
    args.extend(["--cluster".into(), cluster.into()]);
    args.extend(["--address-base".into(), base.to_string().into(), "--no-tls".into()]);
    args
}

/// `acms storage-point`, with its events on standard output.
pub(crate) fn storage_point_args(config: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["storage-point".into(), "--config".into(), config.into()];
    args.extend(["--events", "-", "--exit-with-parent"].map(OsString::from));
    args
}

/// `acms receive`, with its events on standard output.
pub(crate) fn receive_args(
    id: &str,
    sources: &[String],
    subscriptions: &[Prefix],
    poll: Option<Duration>,
    count: Option<u32>,
    into: &Path,
) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["receive".into()];
    for source in sources {
        args.extend(["--source".into(), source.into()]);
    }
    for prefix in subscriptions {
        args.extend(["--subscribe".into(), prefix.as_str().into()]);
    }
    if let Some(interval) = poll {
        args.extend(["--poll".into(), format!("{}ms", interval.as_millis()).into()]);
    }
    if let Some(count) = count {
        args.extend(["--count".into(), count.to_string().into()]);
    }
    args.extend(["--into".into(), into.into(), "--id".into(), id.into()]);
    args.extend(["--events", "-", "--exit-with-parent"].map(OsString::from));
    args
}

/// `acms cache`, with its events on standard output.
pub(crate) fn cache_args(sources: &[String], listen: SocketAddr, store: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["cache".into()];
    for source in sources {
        args.extend(["--source".into(), source.into()]);
    }
    args.extend(["--listen".into(), listen.to_string().into(), "--store".into(), store.into()]);
    args.extend(["--plain-text", "--events", "-", "--exit-with-parent"].map(OsString::from));
    args
}

/// `acms replace`: a new store for a storage point whose store is gone.
pub(crate) fn replace_args(config: &Path) -> Vec<OsString> {
    vec!["replace".into(), "--config".into(), config.into()]
}
