//! The extension module `acms._acms`; the package `acms` re-exports what people use.

use pyo3::prelude::*;

/// The extension module; what people use is re-exported by `acms`.
#[pymodule]
mod _acms {
    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
