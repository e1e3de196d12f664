//! Versions of the protocol between storage points, and which of them a link has.
//!
//! A program speaks its own version and the one before, so that storage points can be replaced one by one, and by one
//! version at a time. Hellos say what is spoken, in a form that never changes; a link has the greatest that both ends speak.

use super::VERSION;
use std::fmt;

/// The version in the head of a hello, whatever the link will have.
pub const HELLO_VERSION: u8 = 1;

/// The versions that a program speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The smallest.
    pub min: u8,
    /// The greatest.
    pub max: u8,
}

impl Versions {
    /// What hellos mean that say nothing of versions.
    pub const FIRST: Versions = Versions { min: 1, max: 1 };

    /// What a program of version `newest` speaks.
    pub const fn up_to(newest: u8) -> Versions {
        Versions { min: if newest > 1 { newest - 1 } else { 1 }, max: newest }
    }

    /// The version of a link between programs that speak these; none: they have none in common.
    pub fn shared_with(self, other: Versions) -> Option<u8> {
        let greatest = self.max.min(other.max);
        (greatest >= self.min.max(other.min)).then_some(greatest)
    }
}

impl Default for Versions {
    fn default() -> Versions {
        Versions::up_to(VERSION)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.min == self.max {
            true => write!(f, "version {}", self.max),
            false => write!(f, "versions {} to {}", self.min, self.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_a_version_in_common_and_others_have_none() {
        let shared = |one, other| Versions::up_to(one).shared_with(Versions::up_to(other));
        for (one, other, version) in [(1, 1, Some(1)), (1, 2, Some(1)), (3, 2, Some(2)), (3, 3, Some(3)), (1, 3, None)]
        {
            assert_eq!((shared(one, other), shared(other, one)), (version, version), "{one} and {other}");
        }
    }
}
