//! Answers: status line, headers and small bodies appended to a buffer that many answers share.

use bytes::Bytes;
use std::{
    collections::VecDeque,
    fmt::{self, Display, Write as _},
    fs::File,
    sync::Arc,
};

/// Bodies above this are sent from where they are, not copied.
const COPIED_LEN_MAX: usize = 16 << 10;

/// The reason phrase of a status.
pub fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Unknown",
    }
}

/// A part of what waits to be written to a connection.
#[derive(Debug)]
pub enum Piece {
    /// These bytes.
    Bytes(Bytes),
    /// This part of a file.
    File {
        /// The file.
        file: Arc<File>,
        /// Next byte.
        offset: u64,
        /// After the last byte.
        end: u64,
    },
}

/// What one connection is to be sent: bytes gathered now, and what was gathered before and not yet written.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Gathered; not yet in the queue.
    pub bytes: &'a mut Vec<u8>,
    /// To be written before `bytes`.
    pub queue: &'a mut VecDeque<Piece>,
    /// Value of the Date header.
    pub date: HttpDate,
    /// The client sent HEAD: no bodies.
    pub head_only: bool,
    /// The answer being written is the last of its connection.
    pub close: bool,
    /// The client spoke HTTP/1.0, where staying open must be said.
    pub is_http10: bool,
}

impl<'a> Outbox<'a> {
    /// For plain GETs on a connection that stays open.
    pub fn new(bytes: &'a mut Vec<u8>, queue: &'a mut VecDeque<Piece>, date: HttpDate) -> Outbox<'a> {
        Outbox { bytes, queue, date, head_only: false, close: false, is_http10: false }
    }

    /// Begins an answer.
    pub fn begin(&mut self, status: u16) -> &mut Self {
        self.bytes.extend_from_slice(b"HTTP/1.1 ");
        let _ = write!(Utf8(self.bytes), "{status} {}\r\nDate: ", phrase(status));
        self.bytes.extend_from_slice(self.date.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
        if self.close {
            self.bytes.extend_from_slice(b"Connection: close\r\n");
        } else if self.is_http10 {
            self.bytes.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        self
    }

    /// A header; its value has no line breaks.
    pub fn header(&mut self, name: &str, value: impl Display) -> &mut Self {
        let _ = write!(Utf8(self.bytes), "{name}: {value}\r\n");
        self
    }

    /// Ends an answer that has no body and whose status forbids one, or that a HEAD asked for.
    pub fn no_body(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Ends an answer with a body that is copied.
    pub fn body(&mut self, body: &[u8]) {
        self.length(body.len() as u64);
        if !self.head_only {
            self.bytes.extend_from_slice(body);
        }
    }

    /// Ends an answer with a body that may be shared between connections.
    pub fn shared_body(&mut self, body: Bytes) {
        if self.head_only || body.len() <= COPIED_LEN_MAX {
            return self.body(&body);
        }
        self.length(body.len() as u64);
        self.queue_bytes();
        self.queue.push_back(Piece::Bytes(body));
    }

    /// Ends an answer with the bytes `offset..end` of a file as its body.
    pub fn file_body(&mut self, file: Arc<File>, offset: u64, end: u64) {
        self.length(end - offset);
        if !self.head_only {
            self.file_part(file, offset, end);
        }
    }

    /// Ends the head of an answer whose body of `len` bytes follows, as [`file_part`](Outbox::file_part)s.
    pub fn length(&mut self, len: u64) {
        self.header("Content-Length", len).no_body();
    }

    /// The bytes `offset..end` of a file as the next part of a body.
    pub fn file_part(&mut self, file: Arc<File>, offset: u64, end: u64) {
        if end <= offset {
            return;
        }
        if !self.bytes.is_empty() {
            self.queue_bytes();
        }
        match self.queue.back_mut() {
            Some(Piece::File { file: last, end: last_end, .. }) if Arc::ptr_eq(last, &file) && *last_end == offset => {
                *last_end = end;
            }
            _ => self.queue.push_back(Piece::File { file, offset, end }),
        }
    }

    fn queue_bytes(&mut self) {
        self.queue.push_back(Piece::Bytes(std::mem::take(self.bytes).into()));
    }

    /// An error answer: `Cache-Control: no-store` and the reason and remedy as JSON. `extra` adds headers.
    pub fn error(&mut self, status: u16, reason: &str, remedy: &str, extra: impl FnOnce(&mut Self)) {
        let body = crate::protocol::api::OutcomeAnswer {
            reason: Some(reason.to_owned()),
            remedy: Some(remedy.to_owned()).filter(|remedy| !remedy.is_empty()),
            ..Default::default()
        };
        self.begin(status).header("Cache-Control", "no-store").header("Content-Type", "application/json");
        extra(self);
        self.json(&body);
    }

    /// Ends an answer with `value` as JSON; the Content-Type has been said.
    pub fn json(&mut self, value: &impl serde::Serialize) {
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        self.shared_body(body.into());
    }
}

/// Lets `write!` append to bytes.
struct Utf8<'a>(&'a mut Vec<u8>);

impl fmt::Write for Utf8<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The value of a Date header, made at most once a second.
#[derive(Clone, Debug)]
pub struct HttpDate {
    seconds: u64,
    text: [u8; 29],
}

impl Default for HttpDate {
    fn default() -> HttpDate {
        HttpDate { seconds: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }
    }
}

impl HttpDate {
    /// Sets the date to `seconds` since 1970.
    pub fn update(&mut self, seconds: u64) {
        if seconds == self.seconds {
            return;
        }
        self.seconds = seconds;
        let days = seconds / 86_400;
        let (year, month, day) = civil(days);
        let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = MONTHS[(month - 1) as usize];
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        let text = format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
        if let Ok(text) = text.as_bytes().try_into() {
            self.text = text;
        }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

/// Year, month and day of a day since 1970, by the Gregorian calendar (Hinnant's `civil_from_days`).
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let mut date = HttpDate::default();
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_210_096, "Thu, 29 Feb 2024 12:34:56 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            date.update(seconds);
            assert_eq!(std::str::from_utf8(date.as_bytes()).unwrap(), text);
        }
    }

    #[test]
    fn an_answer_as_bytes() {
        let (mut bytes, mut queue, date) = (Vec::new(), VecDeque::new(), HttpDate::default());
        let mut out =
            Outbox { bytes: &mut bytes, queue: &mut queue, date, head_only: false, close: true, is_http10: false };
        out.error(404, "nothing here", "", |out| {
            out.header("X", 1);
        });
        let expected = "HTTP/1.1 404 Not Found\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nConnection: close\r\n\
            Cache-Control: no-store\r\nContent-Type: application/json\r\nX: 1\r\nContent-Length: 26\r\n\r\n\
            {\"reason\":\"nothing here\"}\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert!(queue.is_empty());
    }
}
