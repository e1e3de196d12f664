//! Fleets of storage points and receivers under load and faults, measured and checked.
//!
//! One vocabulary: a [`scenario`] describes fleet, workload, faults and expectations. A [`backend`] runs it. A
//! [`trace`] of events comes out. [`metrics`] and [`checks`] read only the trace. A [`report`] shows them.
//!
//! ```text
//! scenario --> backend (local) --> trace --> metrics + checks --> report
//! ```

pub mod backend;
pub mod checks;
pub mod cli;
mod facts;
pub mod faults;
pub mod hunt;
pub mod judge;
pub mod metrics;
pub mod network;
pub mod progress;
pub mod report;
mod results;
pub mod run;
pub mod scenario;
pub mod system;
pub mod trace;
pub mod workload;

pub use backend::local::cluster;
