//! Real processes in containers: the hosts of the local backend, each in a container of its own, whose only interface the
//! emulated network has. Nothing is pulled: the image is made of the testbed's own program.

mod agent;
mod container;
mod engine;
mod image;
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
            let containers = make(scenario, context, work, Arc::clone(&engine))?;
            Ok(Some((containers, format!("hosts are in containers of engine {version}"))))
        };
        local::run_here(self.name(), scenario, context, sink, make)
    }
}

/// No container yet, but the image that they are made of.
fn make(scenario: &Scenario, context: &Context, work: &Path, engine: Arc<Engine>) -> Result<Containers, BackendError> {
    let system = |source| BackendError::System { what: "making what the image is made of".to_owned(), source };
    let program = program(&context.program).map_err(system)?;
    let spec = Spec {
        sees: Vec::new(),
        memory: scenario.containers.memory.map(|memory| memory.0),
        nano_cpus: scenario.containers.cpus.map(|cpus| (cpus * 1e9) as u64),
    };
    // From here on all goes when this does.
    let containers = Containers { engine, run: work.to_owned(), spec };
    let archive = work.join("image.tar");
    image::write_archive(&program, &archive).map_err(system)?;
    containers.engine.import(&archive, work)?;
    fs::remove_file(&archive).map_err(system)?;
    Ok(containers)
}

/// How `acms` is started in a container.
pub(super) fn program_inside() -> Program {
    Program { command: [PROGRAM, "acms"].map(Into::into).into() }
}

/// The testbed's own program: the one that runs, or, in a process of Python's, the one on the path.
fn program(acms: &Program) -> io::Result<PathBuf> {
    let is_it = |path: &Path| path.file_name().is_some_and(|name| name == "acms-testbed");
    let on_path = || {
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&dirs).map(|dir| dir.join("acms-testbed")).find(|path| path.is_file())
    };
    let running = acms.command.first().map(PathBuf::from).filter(|path| is_it(path));
    // A script of Python's is no program for an image.
    let is_program = |path: &PathBuf| {
        let mut magic = [0; 4];
        fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
    };
    running.or_else(on_path).filter(is_program).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "containers run the program acms-testbed, which is not on the path: build it (cargo build -p acms-testbed) and \
             put it there",
        )
    })
}

/// Removes the containers and images of runs that are over, if there is an engine: a line for each.
pub(super) fn clean(is_over: impl Fn(&Path) -> bool) -> Result<Vec<String>, EngineError> {
    let engine = match Engine::connect() {
        // Who has no engine has no containers.
        Err(EngineError::Silent(_)) => return Ok(Vec::new()),
        engine => engine?,
    };
    let mut done = Vec::new();
    for run in engine.runs()?.into_iter().filter(|run| is_over(run)) {
        let count = engine.remove_run(&run)?;
        done.push(format!("removed\t{count} containers and the image of {}", run.display()));
    }
    Ok(done)
}
