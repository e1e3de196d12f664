//! The hunt: seeds draw scenarios, the simulated backend runs them, the checks judge, and what fails is shrunk into a
//! bundle that can be run again.
//!
//! A seed alone decides what is run; which thread runs it, and what else runs, changes nothing.

pub mod bundle;
mod draw;
mod mutants;
mod runner;
mod shrink;
mod simplify;
mod sound;
mod table;
mod trial;

pub use draw::draw;
pub use mutants::{catch, choose_mutant, mutants, with_mutant};
pub use runner::{HuntError, HuntOptions, hunt};
pub use shrink::{Budget, Shrunk, shrink};
pub use sound::{SOUND_FAST_US, unsound};
pub use table::{CheckCount, Count, Failure, Report};
pub use trial::{Backend, Looked, Tally, Trial, Violation, recorded, trial, trial_again_by};
