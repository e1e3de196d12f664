//! Exceptions: the classes are Python's (`acms._errors`), loaded when one is first raised, so that children that run a
//! command line never load them.

use pyo3::{prelude::*, types::PyTuple};

/// An exception of the class `name` with these arguments.
pub(crate) fn exception<'py>(
    py: Python<'py>,
    name: &str,
    arguments: impl IntoPyObject<'py, Target = PyTuple, Error = PyErr, Output = Bound<'py, PyTuple>>,
) -> PyErr {
    let made = py.import("acms._errors").and_then(|module| module.getattr(name)?.call1(arguments.into_pyobject(py)?));
    made.map_or_else(|error| error, PyErr::from_value)
}
