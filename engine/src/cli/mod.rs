//! The `acms` commands.
//!
//! Exit codes: 0 done (accepted, found), 1 rejected or not found, 2 wrong usage or no storage point can be reached,
//! 3 undetermined.

pub mod backup;
pub mod cache;
pub mod certificate;
mod check;
pub mod completion;
pub mod delete;
pub mod dev;
pub mod get;
pub mod history;
pub mod init;
mod log;
pub mod ls;
pub mod man;
pub mod outcome;
mod output;
pub mod publish;
pub mod receive;
pub mod replace;
pub mod status;
pub mod storage_point;
pub mod token;
mod tree;
pub mod watch;

use crate::client::{Client, ClientError, ClientOptions, Credentials, Url};
use clap::{CommandFactory as _, Parser, Subcommand};
pub use log::log_to_stderr;
use output::Output;
use std::{ffi::OsString, process::ExitCode};

/// ACMS: replicates, agrees on and delivers configuration files.
#[derive(Parser, Debug)]
#[command(
    name = "acms",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 done, 1 rejected or not found, 2 wrong usage or no storage point reached, 3 undetermined."
)]
struct Cli {
    /// Print one JSON object per line instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// How the log on standard error looks; ACMS_LOG chooses what it says (error, warn, info, debug, module=level).
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, env = "ACMS_LOG_FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

/// How log lines look.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a whole small cluster on this machine, to try things out.
    Dev(dev::Args),
    /// Write the configuration and stores of a new cluster.
    Init(init::Args),
    /// Make a certificate of a cluster's authority: for a publisher, a storage point or a cache.
    Certificate(certificate::Args),
    /// Make a token by which storage points know a publisher.
    Token(token::Args),
    /// Make a new store for a storage point whose disk is lost; the others fill it when it starts.
    Replace(replace::Args),
    /// Run one storage point.
    StoragePoint(storage_point::Args),
    /// Keep a directory equal to the latest agreed publications.
    Receive(receive::Args),
    /// Keep what receivers ask for near them: a cache between them and storage points.
    Cache(cache::Args),
    /// Publish a file, standard input or a directory tree.
    Publish(publish::Args),
    /// Print or save the latest agreed content of a path.
    Get(get::Args),
    /// Copy all that a running cluster serves into a directory, for init --restore.
    Backup(backup::Args),
    /// List the versions of a path that are kept.
    History(history::Args),
    /// Delete a path.
    Delete(delete::Args),
    /// List what is published.
    Ls(ls::Args),
    /// Follow what changes.
    Watch(watch::Args),
    /// Say what became of a publication.
    Outcome(outcome::Args),
    /// Show how a cluster is, and what to do about it.
    Status(status::Args),
    /// Print a script that completes commands and options in a shell.
    Completion(completion::Args),
    /// Write the manual pages.
    Man(man::Args),
}

/// What the exit code says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    Done = 0,
    Refused = 1,
    Failed = 2,
    Undetermined = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The `acms` binary.
pub fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

/// `acms` with these arguments, the program's name first. What it starts is this executable, run as `acms`.
pub fn run(args: Vec<OsString>) -> ExitCode {
    run_as(std::env::current_exe().into_iter().map(OsString::from).collect(), args)
}

/// The same for programs that contain `acms`: `program`, a command and its first arguments, is how to run it again.
pub fn run_as(program: Vec<OsString>, args: Vec<OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed standard output is no reason to fail.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    log_to_stderr(cli.log_format);
    let output = Output { json: cli.json };
    match cli.command {
        Command::Dev(args) => dev::run(&args, program, cli.log_format, output).into(),
        Command::Init(args) => init::run(&args, output).into(),
        Command::Certificate(args) => certificate::run(&args, output).into(),
        Command::Token(args) => token::run(&args, output).into(),
        Command::Replace(args) => replace::run(&args, output).into(),
        Command::StoragePoint(args) => storage_point::run(args, output),
        Command::Receive(args) => receive::run(args),
        Command::Cache(args) => cache::run(args),
        Command::Publish(args) => publish::run(&args, output).into(),
        Command::Get(args) => get::run(&args, output).into(),
        Command::Backup(args) => backup::run(&args, output).into(),
        Command::History(args) => history::run(&args, output).into(),
        Command::Delete(args) => delete::run(&args, output).into(),
        Command::Ls(args) => ls::run(&args, output).into(),
        Command::Watch(args) => watch::run(&args, output).into(),
        Command::Outcome(args) => outcome::run(&args, output).into(),
        Command::Status(args) => status::run(&args, output).into(),
        Command::Completion(args) => {
            completion::print(Cli::command(), &args);
            ExitCode::SUCCESS
        }
        Command::Man(args) => man::write(Cli::command(), &args),
    }
}

/// Whom to publish at.
#[derive(clap::Args, Clone, Debug)]
struct To {
    /// Address of a storage point, http(s)://host:port; may be given again: the next one is tried if one cannot be reached
    #[arg(long = "to", env = "ACMS_TO", value_name = "URL", value_delimiter = ',', required = true)]
    urls: Vec<Url>,
    /// Who publishes
    #[arg(long, env = "ACMS_PUBLISHER", default_value = "anonymous", value_name = "NAME")]
    publisher: String,
    #[command(flatten)]
    credentials: Credentials,
}

impl To {
    fn client(&self) -> Result<Client, ClientError> {
        let (publisher, credentials) = (self.publisher.clone(), self.credentials.clone());
        let options = ClientOptions { publisher, credentials, ..ClientOptions::default() };
        Client::new(self.urls.clone(), options)
    }
}

/// Whom to read from.
#[derive(clap::Args, Clone, Debug)]
struct Source {
    /// Address of a storage point or cache, http(s)://host:port; may be given again
    #[arg(long = "from", env = "ACMS_FROM", value_name = "URL", value_delimiter = ',', required = true)]
    urls: Vec<Url>,
    #[command(flatten)]
    credentials: Credentials,
}

impl Source {
    fn client(&self, options: ClientOptions) -> Result<Client, ClientError> {
        let credentials = self.credentials.clone();
        Client::new(self.urls.clone(), ClientOptions { credentials, ..options })
    }
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory as _;

    #[test]
    fn no_two_arguments_have_one_name() {
        Cli::command().debug_assert();
    }
}
