//! `acms history`: the versions of a path that a storage point keeps.

use super::{Exit, Source, output::Output};
use crate::{
    client::ClientOptions,
    protocol::{Path, api::Version},
};

/// Arguments of `acms history`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    from: Source,
    /// The path, such as edge/routes.json
    path: Path,
}

pub(super) fn run(args: &Args, output: Output) -> Exit {
    let history = args.from.client(ClientOptions::default()).and_then(|client| client.history(&args.path));
    match history {
        Err(error) => output.client_error(&error),
        Ok(None) => {
            output.error(&format!("nothing was ever published under {}", args.path), "check its spelling");
            Exit::Refused
        }
        Ok(Some(history)) => {
            for version in &history.versions {
                match output.json {
                    true => output.object(version),
                    false => output.line(&line(version)),
                }
            }
            Exit::Done
        }
    }
}

fn line(Version { entry, publisher, accepted_us }: &Version) -> String {
    let flags: Vec<&str> = entry.flags.names().collect();
    let flags = if flags.is_empty() { String::new() } else { format!("  {}", flags.join(",")) };
    let time = utc(accepted_us / 1_000_000);
    format!("{}  {time}  {:>10} bytes  {:.12}  by {publisher}{flags}", entry.uid, entry.size, entry.hash.to_string())
}

/// Seconds since 1970 as date and time; days are counted in years that begin with March, so that leap days come last.
fn utc(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }
}
