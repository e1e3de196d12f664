//! `RawClient`: publishing and reading over HTTP.

use crate::{blocking::interruptible, error::exception};
use acms_engine::{
    client::{
        Body, Client, ClientError, ClientOptions, Credentials, GetOptions, PublishOptions, PublishResult, Verdict,
    },
    protocol::{Order, Path, Uid, api::PublicationAnswer},
};
use bytes::Bytes;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyTuple},
};
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

/// No system waits longer for anything.
const TIMEOUT_S_MAX: f64 = 1e6;
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// Publishes to and reads from storage points; `acms.Client` is what people use.
#[pyclass(module = "acms._acms", frozen)]
pub(crate) struct RawClient {
    client: Arc<Client>,
    #[pyo3(get)]
    urls: Vec<String>,
}

/// What is published: bytes, or the name of a file.
#[derive(FromPyObject)]
enum Content<'py> {
    Bytes(Bound<'py, PyBytes>),
    File(PathBuf),
}

#[pymethods]
impl RawClient {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the keywords of the Python class")]
    fn new(
        py: Python<'_>,
        urls: Vec<String>,
        publisher: String,
        timeout: f64,
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        token: Option<String>,
    ) -> PyResult<RawClient> {
        if !(timeout > 0.0 && timeout <= TIMEOUT_S_MAX) {
            return Err(exception(py, "Invalid", (format!("a timeout of {timeout} s cannot be"),)));
        }
        let timeout = Duration::from_secs_f64(timeout);
        let options = ClientOptions {
            connect_timeout: timeout.min(CONNECT_TIMEOUT_MAX),
            io_timeout: timeout,
            retry_timeout: timeout,
            publisher,
            credentials: Credentials { ca, cert, cert_key: key, token, ..Credentials::default() },
            ..ClientOptions::default()
        };
        let client = Client::from_texts(&urls, options).map_err(|error| failed(py, &error))?;
        Ok(RawClient { client: Arc::new(client), urls })
    }

    /// The UID, once accepted.
    #[expect(clippy::too_many_arguments, reason = "the keywords of the Python method")]
    fn publish(
        &self,
        py: Python<'_>,
        path: &str,
        content: Content<'_>,
        executable: bool,
        content_type: Option<String>,
        key: Option<String>,
        known_uid: Option<&str>,
        order: Option<&str>,
    ) -> PyResult<String> {
        let path: Path = parse(py, "path", path)?;
        let body = match content {
            Content::Bytes(bytes) => Body::Bytes(Bytes::copy_from_slice(bytes.as_bytes())),
            Content::File(name) => Body::File(name),
        };
        let options = PublishOptions {
            key,
            known: known_uid.map(|uid| parse(py, "UID", uid)).transpose()?,
            order: order.map(|word| order_named(py, word)).transpose()?,
            executable,
            content_type,
            content_of: None,
        };
        let client = Arc::clone(&self.client);
        accepted(py, interruptible(py, move || client.publish(&path, &body, &options))?)
    }

    /// The UID of the deletion, once accepted.
    fn delete(&self, py: Python<'_>, path: &str, key: Option<String>, known_uid: Option<&str>) -> PyResult<String> {
        let path: Path = parse(py, "path", path)?;
        let known = known_uid.map(|uid| parse(py, "UID", uid)).transpose()?;
        let options = PublishOptions { key, known, ..PublishOptions::default() };
        let client = Arc::clone(&self.client);
        accepted(py, interruptible(py, move || client.delete(&path, &options))?)
    }

    /// (UID, content, media type, executable)
    fn get<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        at_least: Option<&str>,
    ) -> PyResult<(String, Bound<'py, PyBytes>, String, bool)> {
        let name: Path = parse(py, "path", path)?;
        let waits = at_least.is_some();
        let options = GetOptions { at_least: at_least.map(|uid| parse(py, "UID", uid)).transpose()? };
        let client = Arc::clone(&self.client);
        let found = match interruptible(py, move || client.get(&name, &options))? {
            Err(ClientError::Refused { status: 503, reason, remedy, .. }) if waits => {
                return Err(exception(py, "Timeout", (reason, remedy)));
            }
            found => found.map_err(|error| failed(py, &error))?,
        };
        let found = found.ok_or_else(|| exception(py, "NotFound", (format!("no agreed file is at {path}"),)))?;
        Ok((found.uid.to_string(), PyBytes::new(py, &found.bytes), found.content_type, found.flags.executable))
    }

    /// (outcome, UID, paths, agreed, holders, superseded by, reason)
    fn outcome<'py>(&self, py: Python<'py>, uid: Option<&str>, key: Option<String>) -> PyResult<Bound<'py, PyTuple>> {
        let client = Arc::clone(&self.client);
        let found = match (uid, key) {
            (Some(uid), _) => {
                let uid: Uid = parse(py, "UID", uid)?;
                interruptible(py, move || client.outcome(uid))?
            }
            (None, key) => interruptible(py, move || client.outcome_by_key(&key.unwrap_or_default()))?,
        };
        let found = found.map_err(|error| failed(py, &error))?;
        let PublicationAnswer { outcome, entries, holders, agreed } =
            found.ok_or_else(|| exception(py, "NotFound", ("no such publication is known",)))?;
        let paths: Vec<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
        let uid = outcome.uid.map(|uid| uid.to_string());
        let superseded_by = outcome.superseded_by.map(|uid| uid.to_string());
        let (paths, holders) = (PyTuple::new(py, paths)?, PyTuple::new(py, holders)?);
        (outcome.outcome, uid, paths, agreed, holders, superseded_by, outcome.reason).into_pyobject(py)
    }

    /// (URL, status as JSON) of each storage point that answers.
    fn status(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        let client = Arc::clone(&self.client);
        let answers =
            interruptible(py, move || (0..client.urls().len()).map(|i| client.status_of(i)).collect::<Vec<_>>())?;
        let answered = self.urls.iter().zip(answers).filter_map(|(url, answer)| Some((url.clone(), answer.ok()?)));
        Ok(answered.map(|(url, answer)| (url, answer.to_string())).collect())
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(py: Python<'_>, what: &str, text: &str) -> PyResult<T> {
    text.parse().map_err(|error| exception(py, "Invalid", (format!("{text:?} is no {what}: {error}"),)))
}

fn order_named(py: Python<'_>, word: &str) -> PyResult<Order> {
    match word {
        "strict" => Ok(Order::Strict),
        "fast" => Ok(Order::Fast),
        _ => Err(exception(py, "Invalid", (format!("order is \"strict\" or \"fast\", not {word:?}"),))),
    }
}

/// Accepted, or an exception that says why not.
fn accepted(py: Python<'_>, result: Result<PublishResult, ClientError>) -> PyResult<String> {
    let PublishResult { outcome, uid, superseded_by, reason, remedy, .. } =
        result.map_err(|error| failed(py, &error))?;
    let uid = uid.map(|uid| uid.to_string());
    let reason = reason.unwrap_or_else(|| "no reason was given".to_owned());
    match (outcome, uid) {
        (Verdict::Accepted, Some(uid)) => Ok(uid),
        (Verdict::Rejected, uid) => Err(exception(py, "Rejected", (reason, remedy, uid))),
        (Verdict::Accepted | Verdict::Undetermined, uid) => {
            let superseded_by = superseded_by.map(|uid| uid.to_string());
            Err(exception(py, "Undetermined", (reason, remedy, uid, superseded_by)))
        }
    }
}

fn failed(py: Python<'_>, error: &ClientError) -> PyErr {
    let class = match error {
        ClientError::NoUrl | ClientError::BadUrl(_) | ClientError::BadOption { .. } => "Invalid",
        ClientError::Unreachable { .. } | ClientError::Tls { .. } | ClientError::Lost { .. } => "Unreachable",
        ClientError::Refused { .. } => "Refused",
        _ => "AcmsError",
    };
    exception(py, class, (error.to_string(), error.remedy()))
}
