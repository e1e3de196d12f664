//! What commands print: text for people, or one JSON object per line.

use super::Exit;
use crate::{
    client::{ClientError, PublishResult, Verdict},
    protocol::Flags,
    runtime::http::answer::civil,
};
use serde::Serialize;
use std::io::Write;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// A line on standard output. A reader that has gone away is no reason to fail.
    pub(super) fn line(self, text: &str) {
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// A JSON line on standard output.
    pub(super) fn object(self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("values that are printed have text keys and no failing parts");
        self.line(&text);
    }

    /// What went wrong, and what to do: for people on standard error.
    pub(super) fn error(self, what: &str, remedy: &str) {
        if self.json {
            self.object(&serde_json::json!({"error": what, "remedy": remedy}));
        } else {
            let _ = writeln!(std::io::stderr().lock(), "acms: {what}\n  remedy: {remedy}");
        }
    }

    /// Something beside the answer: for people on standard error.
    pub(super) fn remark(self, what: &str, remedy: Option<&str>) {
        let remedy = remedy.map(|remedy| format!("\n  remedy: {remedy}")).unwrap_or_default();
        let _ = writeln!(std::io::stderr().lock(), "acms: {what}{remedy}");
    }

    /// An error of the client.
    pub(super) fn client_error(self, error: &ClientError) -> Exit {
        self.error(&error.to_string(), &error.remedy());
        match error {
            ClientError::Refused { status: 400..500, .. } => Exit::Refused,
            _ => Exit::Failed,
        }
    }

    /// What became of a publication of `path`.
    pub(super) fn outcome(self, path: &str, result: &PublishResult) -> Exit {
        if self.json {
            #[derive(Serialize)]
            struct Line<'a> {
                path: &'a str,
                #[serde(flatten)]
                result: &'a PublishResult,
            }
            self.object(&Line { path, result });
        } else {
            self.outcome_text(path, result);
        }
        exit_of(result)
    }

    fn outcome_text(self, path: &str, result: &PublishResult) {
        let uid = result.uid.map(|uid| format!(" as {uid}")).unwrap_or_default();
        let word = match result.outcome {
            Verdict::Accepted => return self.line(&format!("{path} accepted{uid}")),
            Verdict::Rejected => "rejected",
            Verdict::Undetermined => "undetermined",
        };
        let reason = result.reason.as_deref().unwrap_or("no reason was given");
        let by = result.url.as_ref().map(|url| format!(" by {url}")).unwrap_or_default();
        let remedy = result.remedy.as_deref().unwrap_or("publish again with the same key");
        let text = format!("{path} {word}{uid}{by}: {reason}\n  remedy: {remedy}\n  key: {}", result.key);
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }
}

pub(super) fn exit_of(result: &PublishResult) -> Exit {
    match result.outcome {
        Verdict::Accepted => Exit::Done,
        Verdict::Rejected => Exit::Refused,
        Verdict::Undetermined => Exit::Undetermined,
    }
}

/// Microseconds since 1970 as RFC 3339 has it, to the millisecond.
pub(super) fn time(micros: u64) -> String {
    let (seconds, ms) = (micros / 1_000_000, micros / 1_000 % 1_000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Flags in a column; `-` is none.
pub(super) fn flags(flags: Flags, hidden: bool) -> String {
    let names: Vec<&str> = flags.names().chain(hidden.then_some("hidden")).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_flags() {
        assert_eq!(time(1_709_210_096_789_999), "2024-02-29T12:34:56.789Z");
        assert_eq!(flags(Flags::default(), false), "-");
        assert_eq!(flags(Flags { executable: true, deleted: false }, true), "executable,hidden");
    }
}
