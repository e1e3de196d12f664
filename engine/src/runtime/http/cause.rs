//! Why requests are refused, as `/metrics` counts it.

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a request, or a connection, is refused.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Cause {
            $($(#[$doc])* $name,)*
        }

        impl Cause {
            /// All of them.
            pub const ALL: &[Cause] = &[$(Cause::$name),*];

            /// The value of the label `reason`.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Cause::$name => $label,)*
                }
            }
        }
    };
}

causes! {
    /// Bytes that are no request head: closed.
    Head = "head",
    /// A line that ends without a carriage return: closed.
    LineEnd = "line_end",
    /// A head over its bounds: closed.
    HeadTooLarge = "head_too_large",
    /// A target over its bound: closed.
    TargetTooLong = "target_too_long",
    /// Another version of HTTP: closed.
    Version = "version",
    /// A method that nobody has heard of: closed.
    Method = "method",
    /// No target that a request can have, or one that names nothing well.
    Target = "target",
    /// Host is missing, repeated or no name of a host: closed.
    Host = "host",
    /// Content-Length is no number, or more than one: closed.
    ContentLength = "content_length",
    /// Transfer-Encoding is not what is taken, or stands beside Content-Length: closed.
    TransferEncoding = "transfer_encoding",
    /// An expectation that cannot be met: closed.
    Expectation = "expectation",
    /// A chunked body breaks its framing: closed.
    Chunk = "chunk",
    /// A header that is malformed, or repeated where it must not be.
    Header = "header",
    /// Who asks may not do this.
    Forbidden = "forbidden",
    /// Nothing has this name.
    NotFound = "not_found",
    /// The resource does not take this method here.
    NotAllowed = "not_allowed",
    /// The publication does not say how long it is.
    LengthRequired = "length_required",
    /// The content is longer than the limit.
    TooLarge = "too_large",
    /// The content is encoded.
    Encoding = "encoding",
    /// A condition that cannot be met, or does not hold.
    Condition = "condition",
    /// A range beyond the object's end.
    Range = "range",
    /// A head, a body or a reader that took too long: closed.
    Timeout = "timeout",
    /// Too much is under way already.
    Overloaded = "overloaded",
    /// Too many connections: closed.
    Connections = "connections",
    /// Refused for another reason.
    Other = "other",
}

impl Cause {
    /// What a refusal with this status is about, where nobody says more.
    pub const fn of_status(status: u16) -> Cause {
        match status {
            400 => Cause::Header,
            401 | 403 => Cause::Forbidden,
            404 => Cause::NotFound,
            405 => Cause::NotAllowed,
            408 => Cause::Timeout,
            411 => Cause::LengthRequired,
            412 => Cause::Condition,
            413 => Cause::TooLarge,
            415 => Cause::Encoding,
            416 => Cause::Range,
            503 => Cause::Overloaded,
            _ => Cause::Other,
        }
    }
}

/// How often something was refused, by cause.
#[derive(Clone, Copy, Debug, Default)]
pub struct CauseCounts([u64; Cause::ALL.len()]);

impl CauseCounts {
    /// Once more.
    pub fn count(&mut self, cause: Cause) {
        self.0[cause as usize] += 1;
    }

    /// Each cause, and how often.
    pub fn each(&self) -> impl Iterator<Item = (Cause, u64)> + '_ {
        Cause::ALL.iter().map(|cause| (*cause, self.0[*cause as usize]))
    }
}
