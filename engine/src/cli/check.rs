//! `acms storage-point --check`: says what is wrong with a configuration, without running it.

use super::output::Output;
use crate::runtime::{
    check::{Problem, Setting, check, settings},
    config::{ConfigFileError, Overrides, StoragePointConfig},
    spelling::nearest,
};
use clap::CommandFactory as _;
use std::{path::Path, process::ExitCode};

/// Variables that no argument names.
const OTHER_VARIABLES: [&str; 4] = ["ACMS_LOG", "ACMS_CLOCK_OFFSET", "ACMS_MUTANT", "ACMS_PROTOCOL_VERSION_MAX"];

/// Prints what is wrong, and with `verbose` each setting and where it is from. Fails if the storage point would not start.
pub(super) fn run(file: &Path, overrides: &Overrides, verbose: bool, output: Output) -> ExitCode {
    let config = match StoragePointConfig::load(file, overrides) {
        Ok(config) => config,
        Err(error) => {
            tell_error(&error, output);
            return ExitCode::from(2);
        }
    };
    let mut problems = check(&config);
    problems.extend(unknown_variables());
    let is_fatal = problems.iter().any(|problem| problem.fatal);
    let text = if verbose { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    let settings = if verbose { settings(&config, &text, overrides) } else { Vec::new() };
    tell(file, &config, &problems, &settings, output);
    ExitCode::from(if is_fatal { 2 } else { 0 })
}

fn tell_error(error: &ConfigFileError, output: Output) {
    if output.json {
        let key = error.key();
        return output
            .object(&serde_json::json!({"usable": false, "problems": [{"key": key, "what": error.to_string()}]}));
    }
    output.remark(&error.to_string(), None);
}

fn tell(file: &Path, config: &StoragePointConfig, problems: &[Problem], settings: &[Setting], output: Output) {
    let usable = !problems.iter().any(|problem| problem.fatal);
    if output.json {
        return output.object(&serde_json::json!({
            "config": file.to_string_lossy(), "cluster": config.cluster, "sp": config.me.0,
            "members": config.members.len(), "usable": usable, "problems": problems, "settings": settings,
        }));
    }
    for Setting { key, value, from } in settings {
        output.line(&format!("{key}\t{value}\t{from}"));
    }
    for Problem { key, what, remedy, fatal } in problems {
        let word = if *fatal { "error" } else { "warning" };
        output.line(&format!("{word}: {key}: {what}\n  remedy: {remedy}"));
    }
    let verdict = if usable { "can be used" } else { "cannot be used" };
    let (me, members) = (config.me, config.members.len());
    output.line(&format!("{}: storage point {me} of {members} members, {verdict}", file.display()));
}

/// Variables that look like this program's and mean nothing to it.
fn unknown_variables() -> Vec<Problem> {
    let mut known: Vec<String> = OTHER_VARIABLES.map(str::to_owned).to_vec();
    variables_of(&super::Cli::command(), &mut known);
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter(|name| name.starts_with("ACMS_") && !known.contains(name));
    let told = unknown.map(|name| {
        let remedy = match nearest(&name, known.iter().map(String::as_str)) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "unset it".to_owned(),
        };
        Problem { key: "environment", what: format!("nothing is called {name}"), remedy, fatal: false }
    });
    told.collect()
}

fn variables_of(command: &clap::Command, known: &mut Vec<String>) {
    let named = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    known.extend(named);
    command.get_subcommands().for_each(|command| variables_of(command, known));
}
