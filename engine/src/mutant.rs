//! Deliberately broken variants of the engine, for testing the checkers.
//!
//! Only a build with the feature `mutants` has them; there the variable `ACMS_MUTANT` names the one to be. In every
//! other build [`active`] is constantly false and the broken code is gone.

/// Whether this process is to be the variant `name`.
#[cfg(feature = "mutants")]
pub fn active(name: &str) -> bool {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("ACMS_MUTANT").ok()).as_deref() == Some(name)
}

/// Never: this build has no mutants.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn active(_name: &str) -> bool {
    false
}
