//! Process 1 of a container: it starts `acms` when the testbed says so, over a socket that both see, and ends with the testbed.
//!
//! What it has started tells its events down a pipe of the testbed's, which also looks after it by a descriptor of the process
//! (`pidfd`): nothing that is measured passes through the agent or the engine.

use super::{pidfd, wire::Wire};
use crate::backend::local::intercept;
use acms_engine::protocol::Hash;
use serde::{Deserialize, Serialize};
use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    time::Duration,
};

/// What the testbed asks for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a process. With it come its standard output and its standard error.
    Start {
        /// The program and its arguments.
        command: Vec<String>,
        /// Variables beside the agent's own.
        env: Vec<(String, String)>,
        /// Its file system calls are answered by the testbed.
        watched: bool,
    },
    /// Wait for the end of the process that was started last.
    Wait,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It runs. With it come the descriptor of the process and, if it is watched, what its calls arrive at.
    Started,
    /// It has ended, with this status of `waitpid`.
    Ended(i32),
    /// It could not be done.
    Failed(String),
}

/// Agents whose testbed is gone end within this, one after the other.
const SPREAD_OVER: Duration = Duration::from_secs(5);

/// `acms-testbed agent SOCKET`.
pub(crate) fn main(socket: &Path) -> ExitCode {
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acms-testbed agent: {}: {error}", socket.display());
            ExitCode::FAILURE
        }
    }
}

/// Does what the testbed asks for, until it is gone. At return all in the container ends with this process.
fn serve(socket: &Path) -> io::Result<()> {
    let testbed = Wire::to(socket)?;
    let mut child: Option<Child> = None;
    while let Some((request, files)) = testbed.receive()? {
        let done = match request {
            Request::Start { command, env, watched } => start(&command, env, watched, files).map(|(started, files)| {
                child = Some(started);
                (Answer::Started, files)
            }),
            Request::Wait => {
                let none = || io::Error::other("nothing was started");
                let status = child.as_mut().ok_or_else(none).and_then(Child::wait);
                status.map(|status| (Answer::Ended(status.into_raw()), Vec::new()))
            }
        };
        let (answer, files) = done.unwrap_or_else(|error| (Answer::Failed(error.to_string()), Vec::new()));
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        testbed.send(&answer, &files)?;
    }
    // The testbed was killed, and a hundred containers that end at once are too much for some engines.
    let name = socket.parent().map_or(socket, |meeting| meeting).as_os_str().as_encoded_bytes();
    let part = u32::from(Hash::of(name).0[0]);
    std::thread::sleep(SPREAD_OVER.mul_f64(f64::from(part) / 256.0));
    Ok(())
}

fn start(
    command: &[String],
    env: Vec<(String, String)>,
    watched: bool,
    files: Vec<OwnedFd>,
) -> io::Result<(Child, Vec<OwnedFd>)> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
    let [output, errors] =
        <[OwnedFd; 2]>::try_from(files).map_err(|_| io::Error::other("it has nowhere to write its events"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(env).stdin(Stdio::null()).stdout(output).stderr(errors);
    let hook = watched.then(|| intercept(&mut command)).transpose()?;
    let mut child = command.spawn()?;
    // The command holds this end of the events' pipe, which must end with the process.
    drop(command);
    let described =
        || Ok([Some(pidfd::open(child.id())?), hook.map(|hook| hook.listener()).transpose()?.map(OwnedFd::from)]);
    let described: io::Result<[Option<OwnedFd>; 2]> = described();
    match described {
        Ok(files) => Ok((child, files.into_iter().flatten().collect())),
        Err(error) => {
            // Nobody would ever know of it.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}
