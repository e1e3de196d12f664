//! Results: `result.json`, histograms, the summary on standard output, the page for people.

mod compare;
mod page;
mod result;
mod summary;
mod svg;

pub use compare::compare;
pub use page::page;
pub(crate) use result::commit;
pub use result::{CheckResult, Expectation, RunResult};
pub use summary::{check_lines, summary};
