//! `acms man`: manual pages, one for the program and one for each command.

use std::{fs, io, path::PathBuf, process::ExitCode};

/// Arguments of `acms man`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the pages are written; made if absent
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes the pages of `command`.
pub fn write(command: clap::Command, args: &Args) -> ExitCode {
    let name = command.get_name().to_owned();
    match try_write(command, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = args.directory.display();
            eprintln!("{name}: the manual cannot be written to {place}: {error}\n  remedy: name another directory");
            ExitCode::from(2)
        }
    }
}

fn try_write(command: clap::Command, args: &Args) -> io::Result<()> {
    fs::create_dir_all(&args.directory)?;
    // `help` is a command that clap makes, with pages for nothing.
    clap_mangen::generate_to(command.disable_help_subcommand(true), &args.directory)
}
