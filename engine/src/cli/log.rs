//! The log on standard error: a line for each event, as text or JSON.
//!
//! Levels: *error*, somebody has to do something; *warn*, something is wrong, and is borne or will be tried again; *info*,
//! what happens seldom (starts, stops, links); *debug* and *trace* are for who looks for a fault. Invariant: no place in
//! the program writes more than [`LINES_MAX`] lines in [`WINDOW`] at the first three levels, whoever is at the other end of
//! its connections; how many were left out is said with the next line from there.

use super::LogFormat;
use crate::runtime::{clock, events::JsonText};
use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{ParseError, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// What is written unless `ACMS_LOG` says otherwise.
const LEVEL: Level = Level::INFO;
const WINDOW: Duration = Duration::from_secs(10);
const LINES_MAX: u32 = 20;

/// The storage point that this process is.
static SP: OnceLock<u8> = OnceLock::new();

/// Every line from now on says that it is of this storage point.
pub(super) fn set_sp(sp: u8) {
    let _ = SP.set(sp);
}

/// Sends the log to standard error, at the levels that `ACMS_LOG` names (default: `info`). Only the first call counts.
pub fn log_to_stderr(format: LogFormat) {
    let named = std::env::var("ACMS_LOG").unwrap_or_default();
    let (levels, wrong) = match levels(&named) {
        Ok(levels) => (levels, None),
        Err(error) => (Targets::new().with_default(LEVEL), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().event_format(Lines { format, flood: Mutex::default() });
    let lines = lines.with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    let is_first = tracing_subscriber::registry().with(lines).with(levels).try_init().is_ok();
    if let Some(error) = wrong.filter(|_| is_first) {
        tracing::warn!(
            "ACMS_LOG={named:?} is not understood ({error}); write for example  warn,acms_engine::store=debug"
        );
    }
}

/// What `ACMS_LOG` asks for.
fn levels(named: &str) -> Result<Targets, ParseError> {
    if named.trim().is_empty() { Ok(Targets::new().with_default(LEVEL)) } else { named.parse() }
}

/// How events become lines.
struct Lines {
    format: LogFormat,
    flood: Mutex<HashMap<Identifier, Window>>,
}

/// What one place in the program has written of late.
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Lines {
    /// Whether a line may be written, and how many could not since the last one.
    fn admit(&self, event: &Event<'_>, now: Instant) -> Option<u64> {
        if *event.metadata().level() > Level::INFO {
            return Some(0);
        }
        let mut flood = self.flood.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Window { since: now, lines: 0, left_out: 0 };
        let window = flood.entry(event.metadata().callsite()).or_insert_with(fresh);
        window.admit(now)
    }
}

impl Window {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            (self.since, self.lines) = (now, 0);
        }
        if self.lines >= LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // An empty line is not written.
        let Some(left_out) = self.admit(event, Instant::now()) else { return Ok(()) };
        let time = super::output::time(clock::wall().0);
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let mut fields = Fields::new(self.format);
        event.record(&mut fields);
        let Fields { message, rest, .. } = fields;
        let sp = SP.get();
        match self.format {
            LogFormat::Text => {
                let sp = sp.map(|sp| format!(" sp{sp}")).unwrap_or_default();
                let left_out =
                    if left_out > 0 { format!(" ({left_out} like it were left out)") } else { String::new() };
                writeln!(out, "{time} {} {target}{sp}: {message}{rest}{left_out}", colored(*level, &out))
            }
            LogFormat::Json => {
                let message = JsonText(&message);
                write!(out, "{{\"time\":\"{time}\",\"level\":\"{level}\",\"target\":\"{target}\"")?;
                if let Some(sp) = sp {
                    write!(out, ",\"sp\":{sp}")?;
                }
                write!(out, ",\"message\":{message}{rest}")?;
                if left_out > 0 {
                    write!(out, ",\"left_out\":{left_out}")?;
                }
                writeln!(out, "}}")
            }
        }
    }
}

fn colored(level: Level, out: &Writer<'_>) -> String {
    let color = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        _ => 34,
    };
    if out.has_ansi_escapes() { format!("\x1b[{color}m{level:>5}\x1b[0m") } else { format!("{level:>5}") }
}

/// The message of an event, and its other fields as they are written.
struct Fields {
    format: LogFormat,
    message: String,
    rest: String,
}

impl Fields {
    fn new(format: LogFormat) -> Fields {
        Fields { format, message: String::new(), rest: String::new() }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        // Whatever comes from outside is one line.
        let value = value.replace(['\n', '\r'], " ");
        let _ = match (field.name(), self.format) {
            ("message", _) => {
                self.message = value;
                Ok(())
            }
            (name, LogFormat::Text) => write!(self.rest, " {name}={value}"),
            (name, LogFormat::Json) => write!(self.rest, ",\"{name}\":{}", JsonText(&value)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_that_the_variable_names() {
        let enabled = |named: &str, target: &str, level| levels(named).unwrap().would_enable(target, &level);
        for named in ["", " "] {
            assert!(enabled(named, "acms_engine::store", Level::INFO));
            assert!(!enabled(named, "acms_engine::store", Level::DEBUG));
        }
        let named = "error,acms_engine::store=debug";
        assert!(enabled(named, "acms_engine::store::log", Level::DEBUG));
        assert!(!enabled(named, "acms_engine::runtime", Level::WARN));
        assert!(levels("acms_engine=loud").is_err());
    }

    #[test]
    fn a_flood_is_cut_off_and_counted() {
        let start = Instant::now();
        let mut window = Window { since: start, lines: 0, left_out: 0 };
        let admitted = (0..100).filter(|_| window.admit(start).is_some()).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert_eq!(window.admit(start + WINDOW), Some(80));
        assert_eq!(window.admit(start + WINDOW), Some(0));
    }
}
