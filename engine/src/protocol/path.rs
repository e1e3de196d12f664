//! Names of configuration files.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// Why a text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPath {
    /// Nothing there.
    #[error("a path has 1 to 16 segments; this one has none")]
    Empty,
    /// Over 1,024 bytes.
    #[error("a path has 1,024 bytes at most")]
    TooLong,
    /// Over 16 segments.
    #[error("a path has 16 segments at most")]
    TooDeep,
    /// `//`, or a slash at either end.
    #[error("a path has no empty segment, and no slash at its start or end")]
    EmptySegment,
    /// Over 255 bytes.
    #[error("a segment of a path has 255 bytes at most")]
    SegmentTooLong,
    /// `.` or `..`.
    #[error("a path has no segment `.` or `..`")]
    Dots,
    /// Starts with `~`.
    #[error("no segment of a path starts with `~`")]
    Tilde,
    /// A character outside the grammar.
    #[error("a path has only letters, digits and . _ @ + : = , ~ - in its segments")]
    BadCharacter,
}

/// Name of a configuration file: 1-16 segments of `[A-Za-z0-9._@+:=,~-]{1,255}` joined by `/`, 1,024 bytes at most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// Most bytes of a path.
    pub const LEN_MAX: usize = 1024;
    /// Most segments of a path.
    pub const SEGMENTS_MAX: usize = 16;
    /// Most bytes of a segment.
    pub const SEGMENT_LEN_MAX: usize = 255;

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` can be a segment of a path.
    pub fn is_segment(text: &str) -> bool {
        check_segment(text).is_ok()
    }

    /// Its segments, from the root.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether this path is a proper prefix of `other` by whole segments: the two cannot both be files.
    pub fn is_above(&self, other: &str) -> bool {
        other.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_segment(segment: &str) -> Result<(), BadPath> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+:=,~-".contains(&byte);
    match segment {
        "" => Err(BadPath::EmptySegment),
        "." | ".." => Err(BadPath::Dots),
        _ if segment.starts_with('~') => Err(BadPath::Tilde),
        _ if segment.len() > Path::SEGMENT_LEN_MAX => Err(BadPath::SegmentTooLong),
        _ if !segment.bytes().all(allowed) => Err(BadPath::BadCharacter),
        _ => Ok(()),
    }
}

impl FromStr for Path {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Path, BadPath> {
        if text.is_empty() {
            return Err(BadPath::Empty);
        }
        if text.len() > Path::LEN_MAX {
            return Err(BadPath::TooLong);
        }
        if text.split('/').count() > Path::SEGMENTS_MAX {
            return Err(BadPath::TooDeep);
        }
        text.split('/').try_for_each(check_segment)?;
        Ok(Path(text.into()))
    }
}

/// What a receiver subscribes to: whole segments; a trailing `/` is dropped; the empty prefix is everything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix as text, without a trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `path` is this prefix or lies below it.
    pub fn covers(&self, path: &str) -> bool {
        self.0.is_empty() || path == self.0 || self.is_below(path)
    }

    /// Whether a change of `path` concerns this prefix: it is covered, or it is a proper prefix of the prefix and so
    /// hides what is below.
    pub fn concerns(&self, path: &Path) -> bool {
        self.covers(path.as_str()) || path.is_above(&self.0)
    }

    fn is_below(&self, path: &str) -> bool {
        path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Prefix {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Prefix, BadPath> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Prefix::default());
        }
        text.parse::<Path>().map(|path| Prefix(path.as_str().to_owned()))
    }
}
