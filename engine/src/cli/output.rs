//! What commands print: text for people, or one JSON object per line.

use super::Exit;
use crate::client::{ClientError, PublishResult, Verdict};
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
