//! The header `Range`: one range of bytes.

/// What part of an object is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// All of it: the header is none that is understood here.
    Whole,
    /// The bytes from the first to before the second.
    Part(u64, u64),
    /// Nothing that exists.
    Unsatisfiable,
}

/// Understands `bytes=a-b`, `bytes=a-` and `bytes=-n`; several ranges at once get the whole.
pub fn parse(text: &str, len: u64) -> Wanted {
    let range = text.trim().split_once('=').filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes"));
    let Some((first, last)) = range.and_then(|(_, range)| range.trim().split_once('-')) else {
        return Wanted::Whole;
    };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // More than any object has is all the same.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (first, last, number(first), number(last)) {
        ("", _, _, Some(0)) => Wanted::Unsatisfiable,
        ("", _, _, Some(_)) if len == 0 => Wanted::Unsatisfiable,
        ("", _, _, Some(suffix)) => Wanted::Part(len.saturating_sub(suffix), len),
        (_, "", Some(start), _) if start < len => Wanted::Part(start, len),
        (_, _, Some(start), Some(end)) if start > end => Wanted::Whole,
        (_, _, Some(start), Some(end)) if start < len => Wanted::Part(start, len.min(end.saturating_add(1))),
        (_, "", Some(_), _) | (_, _, Some(_), Some(_)) => Wanted::Unsatisfiable,
        _ => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0, 1)),
            ("bytes=2-5", Wanted::Part(2, 6)),
            ("bytes=2-500", Wanted::Part(2, 10)),
            ("bytes=2-99999999999999999999", Wanted::Part(2, 10)),
            ("bytes=-99999999999999999999", Wanted::Part(0, 10)),
            ("bytes=99999999999999999999-", Wanted::Unsatisfiable),
            ("Bytes= 2-5 ", Wanted::Part(2, 6)),
            ("bytes=9-", Wanted::Part(9, 10)),
            ("bytes=-3", Wanted::Part(7, 10)),
            ("bytes=-30", Wanted::Part(0, 10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=10-11", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=0-1, -1", Wanted::Whole),
            ("bytes=0--1", Wanted::Whole),
            ("bytes 0-1", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=1", Wanted::Whole),
        ] {
            assert_eq!(parse(text, 10), wanted, "{text}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Unsatisfiable);
    }
}
