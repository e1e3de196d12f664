//! Real processes in containers: the hosts of the local backend, each in a container of its own, whose only interface the
//! emulated network has. Nothing is pulled: the image is made of the testbed's own program.

mod agent;
mod container;
mod engine;
mod image;
mod pidfd;
mod wire;

pub(crate) use agent::main as agent;
pub use container::Container;
pub(super) use container::{ContainerChild, Containers};
pub use engine::EngineError;

use super::{Backend, BackendError, Context, local};
use crate::{scenario::Scenario, system::Program, trace::Sink};
use engine::{Engine, PROGRAM, Spec};
use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Runs every host in a container of this machine's engine.
#[derive(Clone, Copy, Default, Debug)]
pub struct DockerBackend;

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn run(&self, scenario: &Scenario, context: &Context, sink: &mut dyn Sink) -> Result<Vec<String>, BackendError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(BackendError::NotRoot);
        }
        let engine = Arc::new(Engine::connect()?);
        let version = engine.version()?;
        let make = |work: &Path| {
            context.progress.phase(&format!("making an image for the container engine {version}"));
            let (containers, program) = make(scenario, context, work, Arc::clone(&engine))?;
            let said = format!("hosts are in containers of engine {version}, and run {}", program.display());
            Ok(Some((containers, said)))
        };
        local::run_here(self.name(), scenario, context, sink, make)
    }
}

/// No container yet, but the image that they are made of, and the program in it.
fn make(
    scenario: &Scenario,
    context: &Context,
    work: &Path,
    engine: Arc<Engine>,
) -> Result<(Containers, PathBuf), BackendError> {
    let system = |source| BackendError::System { what: "making what the image is made of".to_owned(), source };
    let program = program(&context.program).map_err(system)?;
    let spec = Spec {
        sees: Vec::new(),
        memory: scenario.containers.memory.map(|memory| memory.0),
        nano_cpus: scenario.containers.cpus.map(|cpus| (cpus * 1e9) as u64),
    };
    // From here on all goes when this does.
    let containers = Containers { engine, run: work.to_owned(), spec, gate: Arc::default() };
    let archive = work.join("image.tar");
    image::write_archive(&program, &archive).map_err(system)?;
    containers.engine.import(&archive, work)?;
    fs::remove_file(&archive).map_err(system)?;
    Ok((containers, program))
}

/// How `acms` is started in a container.
pub(super) fn program_inside() -> Program {
    Program { command: [PROGRAM, "acms"].map(Into::into).into() }
}

/// The testbed's own program: the one that runs, or, in a process of Python's, the one on the path.
fn program(acms: &Program) -> io::Result<PathBuf> {
    const NAME: &str = "acms-testbed";
    let running = acms.command.first().map(PathBuf::from).filter(|path| path.ends_with(NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(NAME));
    running.into_iter().chain(on_path).find(|path| is_program(path)).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "containers run the program acms-testbed, which is not on the path: build it (cargo build -p acms-testbed) and \
             put it there",
        )
    })
}

/// Whether an image can have it: the script that Python puts in its place is none.
fn is_program(path: &Path) -> bool {
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// Who has no engine has no containers.
fn is_absent(error: &bollard::errors::Error) -> bool {
    matches!(error, bollard::errors::Error::SocketNotFoundError(_))
}

/// Removes the containers and images of runs that are over, if there is an engine: a line for each.
pub(super) fn clean(is_over: impl Fn(&Path) -> bool) -> Result<Vec<String>, EngineError> {
    let engine = match Engine::connect() {
        Err(EngineError::Silent(error)) if is_absent(&error) => return Ok(Vec::new()),
        Err(EngineError::Silent(error)) => return Ok(vec![format!("not looked for\tcontainers: {error}")]),
        engine => engine?,
    };
    let mut done = Vec::new();
    for run in engine.runs()?.into_iter().filter(|run| is_over(run)) {
        let count = engine.remove_run(&run)?;
        done.push(format!("removed\t{count} containers and the image of {}", run.display()));
    }
    Ok(done)
}
