//! Quantities as people write them: `250ms`, `40s`, `2m`; `-3s`; `900`, `64KiB`, `1MiB`, `1KiB..64KiB`; `3..7`; `0.05`.
//!
//! All are kept as integers, so that what a seed draws from them is the same on every machine.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, time::Duration};

macro_rules! as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$name, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

as_text!(Span, Shift, SpanRange, Bytes, ByteRange, Range);

/// A text is no duration or size.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not {1}")]
pub struct BadUnit(String, &'static str);

/// A length of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Span, BadUnit> {
        let bad = || BadUnit(text.to_owned(), "a duration such as 250ms, 40s or 2m");
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        if unit == "ns" {
            return number.parse().map(|nanos| Span(Duration::from_nanos(nanos))).map_err(|_| bad());
        }
        let number: f64 = number.parse().map_err(|_| bad())?;
        let seconds = match unit {
            "us" => number / 1e6,
            "ms" => number / 1e3,
            "s" => number,
            "m" | "min" => number * 60.0,
            "h" => number * 3600.0,
            _ => return Err(bad()),
        };
        Duration::try_from_secs_f64(seconds).map(Span).map_err(|_| bad())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.subsec_nanos().is_multiple_of(1_000) {
            return write!(f, "{}ns", self.0.as_nanos());
        }
        match self.0.as_micros() {
            micros if micros.is_multiple_of(1_000_000) => write!(f, "{}s", micros / 1_000_000),
            micros if micros.is_multiple_of(1_000) => write!(f, "{}ms", micros / 1_000),
            micros => write!(f, "{micros}us"),
        }
    }
}

impl Span {
    /// In nanoseconds.
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// So many microseconds.
    pub fn from_micros(micros: u64) -> Span {
        Span(Duration::from_micros(micros))
    }
}

/// How far a clock is off, in microseconds: ahead, or behind if negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Shift(pub i64);

impl FromStr for Shift {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Shift, BadUnit> {
        let bad = || BadUnit(text.to_owned(), "an offset such as 3s or -250ms");
        let (is_behind, length) = match text.strip_prefix('-') {
            Some(length) => (true, length),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let length: Span = length.parse().map_err(|_| bad())?;
        let micros = i64::try_from(length.0.as_micros()).map_err(|_| bad())?;
        Ok(Shift(if is_behind { -micros } else { micros }))
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        write!(f, "{sign}{}", Span::from_micros(self.0.unsigned_abs()))
    }
}

/// Lengths of time from the first to the second, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanRange(pub Span, pub Span);

impl FromStr for SpanRange {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<SpanRange, BadUnit> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let range = SpanRange(from.trim().parse()?, to.trim().parse()?);
        if range.0 <= range.1 { Ok(range) } else { Err(BadUnit(text.to_owned(), "a range from shorter to longer")) }
    }
}

impl fmt::Display for SpanRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

/// Whole numbers from the first to the second, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range(pub u64, pub u64);

impl FromStr for Range {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Range, BadUnit> {
        let bad = || BadUnit(text.to_owned(), "a range such as 3..7");
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| text.trim().parse().map_err(|_| bad());
        let range = Range(number(from)?, number(to)?);
        if range.0 <= range.1 { Ok(range) } else { Err(bad()) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

/// A part of a whole, from 0 to 1, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Fraction(pub u32);

impl Fraction {
    /// The whole.
    pub const ALL: Fraction = Fraction(1_000_000);

    /// This part of `whole`.
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / 1_000_000) as u64
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Serialize for Fraction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1e6)
    }
}

impl<'de> Deserialize<'de> for Fraction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fraction, D::Error> {
        let value = f64::deserialize(deserializer)?;
        if !(0.0..=1.0).contains(&value) {
            return Err(D::Error::custom(format!("{value} is not a part of a whole, from 0 to 1")));
        }
        Ok(Fraction((value * 1e6 + 0.5) as u32))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Bytes, BadUnit> {
        let bad = || BadUnit(text.to_owned(), "a size such as 900, 64KiB or 1MiB");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Bytes).ok_or_else(bad)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// Sizes from the first to the second, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange(pub Bytes, pub Bytes);

impl FromStr for ByteRange {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<ByteRange, BadUnit> {
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        let range = ByteRange(from.trim().parse()?, to.trim().parse()?);
        if range.0 <= range.1 { Ok(range) } else { Err(BadUnit(text.to_owned(), "a range from smaller to larger")) }
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_and_show() {
        for (text, micros) in [("250ms", 250_000), ("40s", 40_000_000), ("2m", 120_000_000), ("1.5s", 1_500_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.0.as_micros(), micros);
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for nanos in [1, 999, 1_001, 1_000_000_001, 86_400_000_000_007] {
            let span = Span(Duration::from_nanos(nanos));
            assert_eq!(span.to_string().parse(), Ok(span), "{span}");
        }
        for (text, bytes) in [("900", 900), ("64KiB", 65_536), ("1MiB", 1 << 20), ("0", 0)] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes));
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!("1KiB..64KiB".parse::<ByteRange>().unwrap(), ByteRange(Bytes(1024), Bytes(65536)));
        for bad in ["", "5", "s", "5 parsecs", "-1s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        for bad in ["", "1KB", "99999999999GiB", "-1"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
        assert!("2KiB..1KiB".parse::<ByteRange>().is_err());
    }

    #[test]
    fn offsets_ranges_and_parts_read_and_show() {
        for (text, micros) in [("3s", 3_000_000), ("-250ms", -250_000), ("+1us", 1), ("0s", 0)] {
            let shift: Shift = text.parse().unwrap();
            assert_eq!((shift.0, shift.to_string().parse()), (micros, Ok(shift)));
        }
        assert_eq!("3..7".parse(), Ok(Range(3, 7)));
        assert_eq!("5".parse(), Ok(Range(5, 5)));
        let spans: SpanRange = "100ms..2s".parse().unwrap();
        assert_eq!(spans.to_string(), "100ms..2s");
        assert!("7..3".parse::<Range>().is_err() && "2s..1s".parse::<SpanRange>().is_err());
        assert!("3".parse::<Shift>().is_err());

        #[derive(Serialize, Deserialize)]
        struct Holder {
            part: Fraction,
        }
        for millionths in [0, 1, 500, 50_000, 333_333, 999_999, 1_000_000] {
            let text = toml::to_string(&Holder { part: Fraction(millionths) }).unwrap();
            assert_eq!(toml::from_str::<Holder>(&text).unwrap().part, Fraction(millionths), "{text}");
        }
        assert!(toml::from_str::<Holder>("part = 1.5").is_err());
    }
}
