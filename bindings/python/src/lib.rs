//! The extension module `acms._acms`; the package `acms` re-exports what people use.
//!
//! Every call that may block runs beside the interpreter (`blocking::interruptible`): the GIL is free meanwhile and
//! Ctrl-C is seen within 50 ms.

mod blocking;
mod client;
mod cluster;
mod command;
mod error;
mod scenario;

use pyo3::prelude::*;

/// The extension module; what people use is re-exported by `acms`.
#[pymodule]
mod _acms {
    use super::*;

    #[pymodule_export]
    use client::RawClient;
    #[pymodule_export]
    use cluster::RawCluster;
    #[pymodule_export]
    use command::{main, testbed_main};
    #[pymodule_export]
    use scenario::{RawStop, resolve_scenario, run_scenario};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
