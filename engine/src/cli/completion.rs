//! `acms completion`: a script that completes commands and options in a shell.

use clap_complete::{Shell, generate};
use std::io::Write as _;

/// Arguments of `acms completion`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
bash: acms completion bash > /etc/bash_completion.d/acms\n\
zsh:  acms completion zsh > \"${fpath[1]}/_acms\"\n\
fish: acms completion fish > ~/.config/fish/completions/acms.fish")]
pub struct Args {
    /// For which shell
    shell: Shell,
}

/// Prints the script for `command`.
pub fn print(mut command: clap::Command, args: &Args) {
    let (name, mut script) = (command.get_name().to_owned(), Vec::new());
    generate(args.shell, &mut command, name, &mut script);
    // A closed standard output is no reason to fail.
    let _ = std::io::stdout().write_all(&script);
}
