//! Durations and sizes as people write them: `9s`, `250ms`, `1h`; `64KiB`, `256MiB`.

use std::time::Duration;

/// A text is no duration or size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadUnit {
    /// Not a duration.
    #[error("{0:?} is no duration: write a number and us, ms, s, min, h or d, such as 9s or 250ms")]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is no size: write a number and B, KiB, MiB or GiB, such as 256MiB")]
    Size(String),
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..digits].parse().ok()?, text[digits..].trim()))
}

/// Parses `9s`, `250ms`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, BadUnit> {
    let parsed = split(text).and_then(|(number, unit)| {
        let micros = match unit {
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "min" => 60_000_000,
            "h" => 3_600_000_000,
            "d" => 86_400_000_000,
            _ => return None,
        };
        number.checked_mul(micros).map(Duration::from_micros)
    });
    parsed.ok_or_else(|| BadUnit::Duration(text.to_owned()))
}

/// Parses `64KiB`, `256MiB`, `1GiB`, `100B`: a number of bytes.
pub fn parse_size(text: &str) -> Result<u64, BadUnit> {
    let parsed = split(text).and_then(|(number, unit)| {
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.checked_mul(1 << shift)
    });
    parsed.ok_or_else(|| BadUnit::Size(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        assert_eq!(parse_duration("9s"), Ok(Duration::from_secs(9)));
        assert_eq!(parse_duration("250 ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("90d"), Ok(Duration::from_secs(90 * 24 * 3600)));
        for bad in ["", "s", "9", "-1s", "1.5s", "9 sec", "99999999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(parse_size("0B"), Ok(0));
        for bad in ["", "MiB", "1MB", "99999999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
