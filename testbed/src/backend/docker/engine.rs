//! What is asked of the container engine, over its local socket.

use bollard::{
    Docker, body_try_stream,
    models::{ContainerCreateBody, ContainerSummaryStateEnum, HostConfig, HostConfigLogConfig, Mount, MountType},
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, ListContainersOptions, ListImagesOptions, RemoveContainerOptions,
        RemoveImageOptions, StartContainerOptions,
    },
};
use futures_util::{StreamExt as _, stream};
use std::{
    collections::HashMap,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, task::JoinSet};

/// What containers and images of the testbed are marked with; its value is the directory of the run.
const LABEL: &str = "acms-testbed";
/// Where the image has the testbed's program.
pub(super) const PROGRAM: &str = "/acms-testbed";
/// A container is gone within this after it was told to be.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Containers that are removed at once. An engine that is told to remove a hundred may stand still for ever.
const REMOVALS_MAX: usize = 4;
/// An engine that takes longer for an answer stands still.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CHUNK_LEN: usize = 1 << 20;

/// Why the engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Nobody is there.
    #[error("no container engine answers ({0}): start one, set DOCKER_HOST to its socket, or use the backend `local`")]
    Silent(Box<bollard::errors::Error>),
    /// It refused.
    #[error("the container engine, {what}: {error}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        error: Box<bollard::errors::Error>,
    },
    /// It agreed, and nothing happened.
    #[error("the container engine, {0}: it says that it was done, but it was not")]
    NoEffect(&'static str),
    /// What goes into the image could not be read, or the testbed's own threads could not be started.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: std::io::Error,
    },
}

/// What a host's container is like.
#[derive(Clone, Default, Debug)]
pub(super) struct Spec {
    /// The directories that it sees, where they are outside, too.
    pub(super) sees: Vec<PathBuf>,
    /// Bytes of memory that it may use; all, if none are said.
    pub(super) memory: Option<u64>,
    /// Billionths of a processor that it may use; all, if none are said.
    pub(super) nano_cpus: Option<u64>,
}

/// A container engine, and the thread that talks to it, so that everybody may wait for it who may wait at all.
#[derive(Debug)]
pub(super) struct Engine {
    docker: Docker,
    runtime: Option<Runtime>,
}

impl Engine {
    /// The engine of this machine, by `DOCKER_HOST` or where engines usually listen.
    pub(super) fn connect() -> Result<Engine, EngineError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime =
            runtime.map_err(|error| EngineError::System { what: "starting a thread for the engine", error })?;
        let docker = Docker::connect_with_defaults().map_err(|error| EngineError::Silent(error.into()))?;
        let docker = docker.with_timeout(ANSWER_WITHIN);
        let mut engine = Engine { docker, runtime: Some(runtime) };
        engine.docker =
            engine.wait(|docker| docker.negotiate_version()).map_err(|error| EngineError::Silent(error.into()))?;
        Ok(engine)
    }

    /// Waits for what is asked, wherever the caller is.
    fn wait<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, ask: impl FnOnce(Docker) -> F) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = ask(self.docker.clone());
        self.runtime.as_ref().expect("it is there until the engine is dropped").spawn(async move {
            // Who asked waits for the answer.
            let _ = answer.send(asked.await);
        });
        answered.recv().expect("what is asked of the engine does not panic")
    }

    /// Its version, for people.
    pub(super) fn version(&self) -> Result<String, EngineError> {
        let version = self.wait(|docker| async move { docker.version().await });
        let version = version.map_err(refused("telling its version"))?;
        let name = version.version.unwrap_or_default();
        Ok(format!("{name}, API {}", self.docker.client_version()))
    }

    /// Makes an image of the files in an archive, for a run.
    pub(super) fn import(&self, archive: &Path, run: &Path) -> Result<(), EngineError> {
        let unread = |error| EngineError::System { what: "reading what goes into the image", error };
        let mut file = File::open(archive).map_err(unread)?;
        let chunks = std::iter::from_fn(move || {
            let mut chunk = vec![0; CHUNK_LEN];
            match file.read(&mut chunk) {
                Ok(0) => None,
                read => Some(read.map(|len| {
                    chunk.truncate(len);
                    chunk.into()
                })),
            }
        });
        let options = CreateImageOptions {
            from_src: Some("-".into()),
            repo: Some(LABEL.into()),
            tag: Some(tag(run)),
            // In quotes: directories may have spaces.
            changes: vec![format!("LABEL {LABEL}={:?}", run.display().to_string())],
            ..CreateImageOptions::default()
        };
        let imported = self.wait(|docker| async move {
            let mut told = docker.create_image(Some(options), Some(body_try_stream(stream::iter(chunks))), None);
            while let Some(line) = told.next().await {
                line?;
            }
            Ok(())
        });
        imported.map_err(refused("importing the image"))
    }

    /// Makes a container of a run and starts it: its process 1 is an agent, which sees the directory of `socket`. Its id.
    pub(super) fn run(&self, name: &str, spec: &Spec, run: &Path, socket: &Path) -> Result<String, EngineError> {
        let sees = spec.sees.iter().map(PathBuf::as_path).chain(socket.parent());
        let host = HostConfig {
            // The testbed puts the only interface in.
            network_mode: Some("none".into()),
            auto_remove: Some(true),
            mounts: Some(sees.map(|dir| mount(&dir.display().to_string())).collect()),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            // What is said goes to the testbed.
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            memory: spec.memory.map(u64::cast_signed),
            // With swap it would be slow where it is to be stopped.
            memory_swap: spec.memory.map(u64::cast_signed),
            nano_cpus: spec.nano_cpus.map(u64::cast_signed),
            ..HostConfig::default()
        };
        let body = ContainerCreateBody {
            image: Some(format!("{LABEL}:{}", tag(run))),
            entrypoint: Some(
                [PROGRAM, "agent"].map(String::from).into_iter().chain([socket.display().to_string()]).collect(),
            ),
            env: Some(inherited()),
            hostname: Some(name.to_owned()),
            labels: Some(HashMap::from([(LABEL.to_owned(), run.display().to_string())])),
            // The agent ends with its testbed; who stops the container from outside is not kept waiting.
            stop_signal: Some("SIGKILL".into()),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let name = Some(format!("{}-{name}", tag(run)));
        let options = CreateContainerOptions { name, ..CreateContainerOptions::default() };
        let made = self.wait(|docker| async move {
            // One that has died may still be on its way out.
            let given_up = Instant::now() + GONE_WITHIN;
            let id = loop {
                match docker.create_container(Some(options.clone()), body.clone()).await {
                    Err(error) if status(&error) == Some(409) && Instant::now() < given_up => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    made => break made?.id,
                }
            };
            docker.start_container(&id, None::<StartContainerOptions>).await.map(|()| id)
        });
        made.map_err(refused("starting a container"))
    }

    /// Stops all in a container from running, or lets it go on; at return it shows that.
    pub(super) fn pause_or_not(&self, id: &str, pauses: bool) -> Result<(), EngineError> {
        let what = if pauses { "pausing a container" } else { "letting a container go on" };
        let id = id.to_owned();
        let is_paused = self.wait(|docker| async move {
            match pauses {
                true => docker.pause_container(&id).await?,
                false => docker.unpause_container(&id).await?,
            }
            let state = docker.inspect_container(&id, None).await?.state;
            Ok(state.and_then(|state| state.paused).unwrap_or(false))
        });
        match is_paused {
            Ok(is_paused) if is_paused == pauses => Ok(()),
            Ok(_) => Err(EngineError::NoEffect(what)),
            Err(error) => Err(refused(what)(error)),
        }
    }

    /// How a container ended, if it has; none if it runs, or nothing is known of it any more.
    pub(super) fn ended(&self, id: &str) -> Option<String> {
        let id = id.to_owned();
        let state = self.wait(|docker| async move { docker.inspect_container(&id, None).await });
        match state.map(|inspected| inspected.state) {
            Ok(Some(state)) if state.running == Some(false) => {
                let code = state.exit_code.unwrap_or_default();
                Some(format!("exit code {code} {}", state.error.unwrap_or_default()).trim_end().to_owned())
            }
            Err(error) if status(&error) == Some(404) => Some("it is gone".to_owned()),
            _ => None,
        }
    }

    /// Removes a container that is not paused; at return it is gone.
    pub(super) fn remove(&self, id: &str) -> Result<(), EngineError> {
        let id = id.to_owned();
        let removed = self.wait(|docker| async move { remove(&docker, &id).await });
        removed.map_err(refused("removing a container"))
    }

    /// The directories of the runs that have containers or images.
    pub(super) fn runs(&self) -> Result<Vec<PathBuf>, EngineError> {
        let filters = Some(HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]));
        let containers =
            ListContainersOptions { all: true, filters: filters.clone(), ..ListContainersOptions::default() };
        let images = ListImagesOptions { filters, ..ListImagesOptions::default() };
        let found = self.wait(|docker| async move {
            let containers = docker.list_containers(Some(containers)).await?;
            let images = docker.list_images(Some(images)).await?;
            let labels = containers.into_iter().filter_map(|container| container.labels);
            Ok(labels.chain(images.into_iter().map(|image| image.labels)).collect::<Vec<_>>())
        });
        let found = found.map_err(refused("listing what is the testbed's"))?;
        let mut runs: Vec<PathBuf> =
            found.into_iter().filter_map(|mut labels| labels.remove(LABEL)).map(PathBuf::from).collect();
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }

    /// Removes all containers and the image of a run; at return they are gone. How many containers there were.
    pub(super) fn remove_run(&self, run: &Path) -> Result<usize, EngineError> {
        let of_run = || Some(HashMap::from([("label".to_owned(), vec![format!("{LABEL}={}", run.display())])]));
        let options = ListContainersOptions { all: true, filters: of_run(), ..ListContainersOptions::default() };
        let images = ListImagesOptions { filters: of_run(), ..ListImagesOptions::default() };
        let removed = self.wait(|docker| async move {
            let containers = docker.list_containers(Some(options)).await?;
            let count = containers.len();
            let (mut under_way, mut result) = (JoinSet::new(), Ok(count));
            // One that cannot be removed is no reason to leave the others.
            let mut take = |removed: Result<Result<(), _>, _>| {
                let removed = removed.expect("removing does not panic").map(|()| count);
                result = std::mem::replace(&mut result, Ok(count)).and(removed);
            };
            for container in containers {
                let (docker, is_paused) = (docker.clone(), container.state == Some(ContainerSummaryStateEnum::PAUSED));
                let Some(id) = container.id else { continue };
                if under_way.len() >= REMOVALS_MAX
                    && let Some(removed) = under_way.join_next().await
                {
                    take(removed);
                }
                under_way.spawn(async move {
                    if is_paused {
                        // What is paused cannot be killed.
                        docker.unpause_container(&id).await?;
                    }
                    remove(&docker, &id).await
                });
            }
            while let Some(removed) = under_way.join_next().await {
                take(removed);
            }
            for image in docker.list_images(Some(images)).await? {
                let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
                result = result.and(docker.remove_image(&image.id, Some(options), None).await.map(|_| count));
            }
            result
        });
        removed.map_err(refused("removing what is the testbed's"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Wherever this is: waiting for its thread is not allowed everywhere.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What `what` is not done for.
fn refused(what: &'static str) -> impl FnOnce(bollard::errors::Error) -> EngineError {
    move |error| EngineError::Refused { what, error: error.into() }
}

/// Removes a container, and waits until it is gone.
async fn remove(docker: &Docker, id: &str) -> Result<(), bollard::errors::Error> {
    let given_up = Instant::now() + GONE_WITHIN;
    loop {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        match docker.remove_container(id, Some(options)).await {
            Err(error) if status(&error) == Some(404) => return Ok(()),
            // It is being removed already.
            Err(error) if status(&error) != Some(409) || Instant::now() >= given_up => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// A directory that is inside where it is outside.
fn mount(dir: &str) -> Mount {
    let (source, target) = (Some(dir.to_owned()), Some(dir.to_owned()));
    Mount { source, target, typ: Some(MountType::BIND), ..Mount::default() }
}

/// What a run is called among images and containers.
fn tag(run: &Path) -> String {
    let name = run.file_name().unwrap_or(run.as_os_str()).to_string_lossy();
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect()
}

/// The variables that processes inside share with the testbed.
fn inherited() -> Vec<String> {
    let is_ours = |name: &str| name.starts_with("ACMS_") || name.starts_with("RUST_");
    // What is no text is nobody's whom it concerns.
    let texts =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| is_ours(name)).map(|(name, value)| format!("{name}={value}")).collect()
}
