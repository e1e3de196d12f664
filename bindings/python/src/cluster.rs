//! `RawCluster`: storage points as processes of this machine.

use crate::{
    blocking::{interruptible, undoable},
    command::acms_of_this_interpreter,
    error::exception,
};
use acms_testbed::{
    backend::Stop,
    cluster::{ClusterError, ClusterOptions, LocalCluster},
};
use pyo3::prelude::*;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

/// Storage points as processes of this machine; `acms.Cluster` is what people use.
#[pyclass(module = "acms._acms", frozen)]
pub(crate) struct RawCluster {
    /// `None` once stopped.
    cluster: Arc<Mutex<Option<LocalCluster>>>,
    #[pyo3(get)]
    urls: Vec<String>,
    #[pyo3(get)]
    directory: PathBuf,
}

#[pymethods]
impl RawCluster {
    /// Returns once all of them serve.
    #[new]
    fn new(py: Python<'_>, storage_points: u8, directory: Option<PathBuf>) -> PyResult<RawCluster> {
        let stop = Stop::new();
        let mut options = ClusterOptions::new(storage_points, acms_of_this_interpreter(py)?);
        options.dir = directory;
        options.stop = Some(stop.clone());
        let started = undoable(py, || LocalCluster::start(options), move || stop.request())?;
        let cluster = started.map_err(|error| failed(py, &error))?;
        let (urls, directory) = (cluster.urls(), cluster.dir().to_owned());
        Ok(RawCluster { cluster: Arc::new(Mutex::new(Some(cluster))), urls, directory })
    }

    fn kill(&self, py: Python<'_>, storage_point: u8) -> PyResult<()> {
        self.with(py, move |cluster| cluster.kill(storage_point))
    }

    fn restart(&self, py: Python<'_>, storage_point: u8) -> PyResult<()> {
        self.with(py, move |cluster| cluster.restart(storage_point))
    }

    fn pause(&self, py: Python<'_>, storage_point: u8) -> PyResult<()> {
        self.with(py, move |cluster| cluster.pause(storage_point))
    }

    fn resume(&self, py: Python<'_>, storage_point: u8) -> PyResult<()> {
        self.with(py, move |cluster| cluster.resume(storage_point))
    }

    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let cluster = Arc::clone(&self.cluster);
        let stop = move || {
            if let Some(mut cluster) = lock(&cluster).take() {
                cluster.stop();
            }
        };
        // A second Ctrl-C waits for this all the same: it is bounded, and nothing may be left behind.
        undoable(py, stop, || {})
    }
}

impl RawCluster {
    fn with(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&mut LocalCluster) -> Result<(), ClusterError> + Send + 'static,
    ) -> PyResult<()> {
        let cluster = Arc::clone(&self.cluster);
        match interruptible(py, move || lock(&cluster).as_mut().map(act))? {
            Some(done) => done.map_err(|error| failed(py, &error)),
            None => Err(exception(py, "ProcessFailed", ("the cluster is stopped",))),
        }
    }
}

/// A panic while it was held has been reported; what it guards can still be stopped.
fn lock(cluster: &Mutex<Option<LocalCluster>>) -> MutexGuard<'_, Option<LocalCluster>> {
    cluster.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn failed(py: Python<'_>, error: &ClusterError) -> PyErr {
    let class = match error {
        ClusterError::NoSuchStoragePoint(_) => "Invalid",
        _ => "ProcessFailed",
    };
    exception(py, class, (error.to_string(),))
}
