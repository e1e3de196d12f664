//! `acms-testbed up` and `exec`: a fleet to look around in.

use super::{PASSED, Which, fail, prepare, print, tell};
use crate::{
    backend::{BackendError, Context, HostPlace, Stop, local},
    network::router::join,
    progress::Progress,
    run::backend,
    scenario::Scenario,
    system::Program,
    trace::Sink,
};
use std::{
    ffi::OsString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Start the hosts of a scenario and its network, publish its files, and stay until Ctrl-C, or until the terminal is closed.
///
/// Prints a tab-separated line for each host: its name, its address, its process and its network namespace. `exec` runs commands
/// where a host is. Nothing is judged, and nothing is left behind. A scenario for virtual time is started as `local`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    acms-testbed up wan --set fleet.receivers=20\n  \
    acms-testbed exec sp1 ss -tn\n  \
    acms-testbed exec publisher2 acms-testbed acms status --from http://10.0.0.2:7400")]
pub(super) struct Up {
    #[command(flatten)]
    which: Which,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Run a command on the network of a host that `up` has started.
///
/// Its exit code is the command's.
#[derive(clap::Args, Debug)]
pub(super) struct Exec {
    /// The host's name, as `up` has printed it.
    host: String,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Where `up` writes down what it has printed, in a directory of its own.
const HOSTS: &str = "hosts.tsv";

/// Events of a run that nobody judges.
struct Nowhere;

impl Sink for Nowhere {
    fn record(&mut self, _event: crate::trace::Event) {}
}

pub(super) fn up(args: Up, program: Program) -> u8 {
    let scenario = match to_visit(&args.which) {
        Ok(scenario) => scenario,
        Err(why) => return fail(why),
    };
    let stop = Stop::new();
    if let Err(error) = prepare(&scenario, stop.clone()) {
        return fail(error);
    }
    let progress = if args.quiet { Progress::silent() } else { Progress::on_stderr() };
    let context = Context {
        program,
        progress: progress.clone(),
        stop,
        keep: false,
        logs: None,
        captures: Vec::new(),
        linger: Some(show),
    };
    let ended = backend(scenario.backend).run(&scenario, &context, &mut Nowhere);
    progress.finish();
    match ended {
        Ok(_) | Err(BackendError::Interrupted) => PASSED,
        Err(error) => fail(error),
    }
}

/// A scenario whose hosts are somewhere.
fn to_visit(which: &Which) -> Result<Scenario, String> {
    let load = |beside: &[(String, String)]| which.load(beside).map_err(|error| error.to_string());
    let scenario = load(&[])?;
    match (scenario.backend.is_real(), &which.backend) {
        (true, _) => Ok(scenario),
        (false, None) => load(&[("backend".to_owned(), "local".to_owned())]),
        (false, Some(_)) => {
            Err("in virtual time there is nobody to visit: use the backend `local` or `docker`".to_owned())
        }
    }
}

/// Prints where all hosts are, and writes it down for `exec`.
fn show(hosts: &[HostPlace]) {
    let mut table = "host\taddress\tprocess\tnamespace\n".to_owned();
    for HostPlace { name, address, pid, namespace } in hosts {
        let address = address.map_or("-".to_owned(), |address| address.to_string());
        let pid = pid.map_or("-".to_owned(), |pid| pid.to_string());
        let namespace = namespace.as_ref().map_or("-".into(), |namespace| namespace.display().to_string());
        table += &format!("{name}\t{address}\t{pid}\t{namespace}\n");
    }
    print(&table);
    let written = local::own_directory().map_or(Ok(()), |dir| fs::write(dir.join(HOSTS), &table));
    match written {
        Ok(()) => tell("all hosts are there; Ctrl-C ends them"),
        Err(error) => tell(format!("`exec` will not find them: {error}")),
    }
}

/// Returns only if the command could not be run.
pub(super) fn exec(args: &Exec) -> u8 {
    let (owner, namespace) = match find(&args.host) {
        Ok(found) => found,
        Err(why) => return fail(why),
    };
    if let Some(Err(error)) = namespace.map(|namespace| join(owner, &namespace)) {
        return fail(format!("cannot enter the network of {}: {error}", args.host));
    }
    let error: io::Error = Command::new(&args.command[0]).args(&args.command[1..]).exec();
    fail(format!("{}: {error}", Path::new(&args.command[0]).display()))
}

/// The testbed whose host it is, and the host's namespace, if it has one.
fn find(host: &str) -> Result<(u32, Option<PathBuf>), String> {
    let living = local::living().map_err(|error| error.to_string())?;
    let tables = living.iter().filter_map(|(pid, dir)| Some((*pid, fs::read_to_string(dir.join(HOSTS)).ok()?)));
    let tables: Vec<(u32, String)> = tables.collect();
    let (pid, table) = match &tables[..] {
        [] => return Err("there is no fleet to look around in: start one with `acms-testbed up SCENARIO`".to_owned()),
        [one] => one,
        several => {
            let pids: Vec<String> = several.iter().map(|(pid, _)| pid.to_string()).collect();
            return Err(format!("several fleets are up (processes {}): end all but one", pids.join(", ")));
        }
    };
    let row = |line: &str| -> Option<Option<PathBuf>> {
        let mut cells = line.split('\t');
        (cells.next()? == host).then(|| cells.nth(2).filter(|namespace| *namespace != "-").map(PathBuf::from))
    };
    let found = table.lines().skip(1).find_map(row);
    let names = || table.lines().skip(1).filter_map(|line| line.split('\t').next());
    found.map(|namespace| (*pid, namespace)).ok_or_else(|| {
        let hint = acms_engine::runtime::spelling::nearest(host, names());
        let hint = hint.map_or(String::new(), |nearest| format!("; did you mean {nearest}?"));
        format!("no host is called {host}{hint}")
    })
}
