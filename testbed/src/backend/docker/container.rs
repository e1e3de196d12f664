//! A host in a container: made when its process is first started and again after it has died, with the interface of the emulated
//! network put into its namespace each time.

use super::{
    agent::{Answer, Request},
    engine::{Engine, EngineError, Spec},
    pidfd,
    wire::{Door, Wire},
};
use crate::backend::local::{Listener, Wan};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::Signal,
};
use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// A container's agent is there within this.
const AGENT_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether it will never be.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One host's container, over all its lives.
#[derive(Debug)]
pub struct Container {
    pub(super) name: String,
    pub(super) engine: Arc<Engine>,
    pub(super) wan: Arc<Wan>,
    /// The directory of the run.
    pub(super) run: PathBuf,
    pub(super) spec: Spec,
    pub(super) gate: Arc<Gate>,
    pub(super) state: Mutex<State>,
}

/// Whether no container is made any more: the run is over. Held for reading while one is made.
pub(super) type Gate = RwLock<bool>;

#[derive(Default, Debug)]
pub(super) struct State {
    life: Option<Life>,
    is_paused: bool,
}

/// One life of a container.
#[derive(Debug)]
struct Life {
    id: String,
    agent: Arc<Agent>,
}

/// What process 1 of a container is asked by, one question at a time.
#[derive(Debug)]
struct Agent(Mutex<Wire>);

/// What has been started in a container.
#[derive(Debug)]
pub(in crate::backend) struct Started {
    pub(in crate::backend) child: ContainerChild,
    /// What its file system calls arrive at, if it is watched.
    pub(in crate::backend) listener: Option<Listener>,
}

/// A process in a container.
#[derive(Debug)]
pub(in crate::backend) struct ContainerChild {
    pid: u32,
    descriptor: OwnedFd,
    agent: Arc<Agent>,
}

impl Container {
    /// Makes the container, if there is none.
    pub(in crate::backend) fn prepare(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.life.is_none() {
            state.life = Some(self.begin()?);
        }
        Ok(())
    }

    /// Starts a process in it, in a new container if there is none or it has died.
    pub(in crate::backend) fn start(
        &self,
        command: Vec<String>,
        env: Vec<(String, String)>,
        watched: bool,
        files: [BorrowedFd<'_>; 2],
    ) -> io::Result<Started> {
        let mut state = self.lock();
        let request = Request::Start { command, env, watched };
        let answer = match &state.life {
            Some(life) => life.agent.ask(&request, &files)?,
            None => None,
        };
        let (answer, agent) = match (answer, &state.life) {
            (Some(answer), Some(life)) => (answer, Arc::clone(&life.agent)),
            _ => {
                *state = State::default();
                let life = self.begin()?;
                let agent = Arc::clone(&state.life.insert(life).agent);
                let gone = || io::Error::other(format!("the container of {} has ended at once", self.name));
                (agent.ask(&request, &files)?.ok_or_else(gone)?, agent)
            }
        };
        let (descriptor, listener) = match answer {
            (Answer::Started, files) => {
                let mut files = files.into_iter();
                (files.next(), files.next())
            }
            (Answer::Failed(what), _) => return Err(io::Error::other(what)),
            (Answer::Ended(_), _) => (None, None),
        };
        let descriptor = descriptor.ok_or_else(|| io::Error::other("the agent did not say what it has started"))?;
        let child = ContainerChild { pid: pidfd::number(descriptor.as_fd())?, descriptor, agent };
        Ok(Started { child, listener: listener.map(Listener::from) })
    }

    /// Makes the container, and its interface.
    fn begin(&self) -> io::Result<Life> {
        let meeting = self.run.join("agents").join(&self.name);
        fs::create_dir_all(&meeting)?;
        let socket = meeting.join("agent");
        let door = Door::at(&socket)?;
        let is_over = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if *is_over {
            return Err(io::Error::other("the run is over"));
        }
        let id = self.engine.run(&self.name, &self.spec, &self.run, &socket).map_err(io::Error::other)?;
        drop(is_over);
        let meet = || -> io::Result<Arc<Agent>> {
            let wire = self.welcome(&door, &id)?;
            // By its number outside of the container.
            self.wan.renew(&self.name, wire.peer()?.as_raw().cast_unsigned())?;
            Ok(Arc::new(Agent(Mutex::new(wire))))
        };
        match meet() {
            Ok(agent) => Ok(Life { id, agent }),
            Err(error) => {
                // What has failed matters more.
                let _ = self.engine.remove(&id);
                Err(error)
            }
        }
    }

    /// Waits for the agent of a container that was just started.
    fn welcome(&self, door: &Door, id: &str) -> io::Result<Wire> {
        let given_up = Instant::now() + AGENT_WITHIN;
        let timeout = PollTimeout::try_from(LOOK_EVERY).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(door.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) | Err(nix::Error::EINTR) => {}
                Ok(_) => return door.accept(),
                Err(error) => return Err(error.into()),
            }
            let what = match self.engine.ended(id) {
                Some(how) => format!("has ended at once: {how}"),
                None if Instant::now() >= given_up => format!("did not begin within {AGENT_WITHIN:?}"),
                None => continue,
            };
            return Err(io::Error::other(format!("the container of {} {what}", self.name)));
        }
    }

    /// Ends the container. A process that is started later gets a new one.
    pub(in crate::backend) fn end(&self) -> Result<(), EngineError> {
        let State { life, is_paused } = std::mem::take(&mut *self.lock());
        let Some(life) = life else { return Ok(()) };
        if is_paused {
            // What is paused cannot be killed.
            self.engine.pause_or_not(&life.id, false)?;
        }
        self.engine.remove(&life.id)
    }

    /// Stops all in it from running; at return the engine shows it so.
    pub(in crate::backend) fn pause(&self) -> Result<(), EngineError> {
        self.pause_or_not(true)
    }

    /// Lets it go on, if it is paused.
    pub(in crate::backend) fn resume(&self) -> Result<(), EngineError> {
        self.pause_or_not(false)
    }

    fn pause_or_not(&self, pauses: bool) -> Result<(), EngineError> {
        let mut state = self.lock();
        let Some(life) = state.life.as_ref().filter(|_| state.is_paused != pauses) else { return Ok(()) };
        self.engine.pause_or_not(&life.id, pauses)?;
        state.is_paused = pauses;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Asks, and waits for the answer; none if the container has ended.
    fn ask(&self, request: &Request, files: &[BorrowedFd<'_>]) -> io::Result<Option<(Answer, Vec<OwnedFd>)>> {
        let wire = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match wire.send(request, files) {
            Ok(()) => wire.receive(),
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl ContainerChild {
    /// Its number outside of the container.
    pub(in crate::backend) fn id(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal.
    pub(in crate::backend) fn signal(&self, signal: Signal) -> io::Result<()> {
        pidfd::send_signal(self.descriptor.as_fd(), signal)
    }

    /// Whether it has ended.
    pub(in crate::backend) fn has_ended(&self) -> io::Result<bool> {
        self.ends(PollTimeout::ZERO)
    }

    /// Waits for its end, once. Not while its container is paused: then nobody in it answers.
    pub(in crate::backend) fn wait(&mut self) -> io::Result<ExitStatus> {
        while !self.ends(PollTimeout::NONE)? {}
        let status = match self.agent.ask(&Request::Wait, &[])? {
            Some((Answer::Ended(status), _)) => status,
            Some((answer, _)) => return Err(io::Error::other(format!("the agent said {answer:?}"))),
            // With the container everything in it is killed.
            None => Signal::SIGKILL as i32,
        };
        Ok(ExitStatus::from_raw(status))
    }

    fn ends(&self, within: PollTimeout) -> io::Result<bool> {
        match poll(&mut [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)], within) {
            Err(nix::Error::EINTR) => Ok(false),
            ended => Ok(ended? > 0),
        }
    }
}

/// All containers of a run. Dropping it removes them, and the image.
#[derive(Debug)]
pub(in crate::backend) struct Containers {
    pub(super) engine: Arc<Engine>,
    pub(super) run: PathBuf,
    /// What they have in common.
    pub(super) spec: Spec,
    pub(super) gate: Arc<Gate>,
}

impl Containers {
    /// Of a host on this network, which sees these directories.
    pub(in crate::backend) fn host(&self, name: &str, wan: &Arc<Wan>, sees: Vec<PathBuf>) -> Arc<Container> {
        let (engine, wan, run) = (Arc::clone(&self.engine), Arc::clone(wan), self.run.clone());
        let spec = Spec { sees, ..self.spec.clone() };
        let (name, gate) = (name.to_owned(), Arc::clone(&self.gate));
        Arc::new(Container { name, engine, wan, run, spec, gate, state: Mutex::default() })
    }

    /// Removes all of them and the image; at return none is left, and none is made any more.
    pub(in crate::backend) fn remove(&self) -> Result<(), EngineError> {
        self.close();
        self.engine.remove_run(&self.run).map(drop)
    }

    /// From now on none is made; whether that was so before.
    fn close(&self) -> bool {
        std::mem::replace(&mut *self.gate.write().unwrap_or_else(PoisonError::into_inner), true)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        // Who comes to the end of a run has done it, and knows what came of it.
        if !self.close() {
            let _ = self.engine.remove_run(&self.run);
        }
    }
}
