//! What was meant, perhaps: the nearest right name of an unknown one.

/// The one of `known` that is most like `name`, if any is.
pub fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |other: &str| strsim::damerau_levenshtein(name, other);
    known
        .map(|other| (likeness(other), other))
        .min()
        .filter(|(distance, _)| *distance <= name.chars().count() / 3)
        .map(|(_, other)| other)
}

/// What was meant by the unknown name that a message of serde complains of, which quotes it and then the right ones.
pub fn nearest_in(message: &str) -> Option<&str> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown"))?;
    nearest(unknown, quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_and_what_is_not() {
        let known = || ["deliver", "publish", "peer"].into_iter();
        assert_eq!(nearest("pulbish", known()), Some("publish"));
        assert_eq!(nearest("address", known()), None);
        assert_eq!(nearest_in("unknown field `per`, expected one of `deliver`, `peer`"), Some("peer"));
        assert_eq!(nearest_in("missing field `peer`"), None);
    }
}
