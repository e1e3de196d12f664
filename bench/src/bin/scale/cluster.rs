//! A cluster of real processes on loopback: started, killed, started again, and looked at.

use crate::Failure;
use acms_bench::cluster::{address_base, memory_kib};
use acms_engine::client::{
    Client, ClientOptions,
    response::{ResponseParser, encode_request},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// A storage point that does not serve so long after its start never will.
const READY_TIME: Duration = Duration::from_secs(900);

pub(crate) struct Cluster {
    acms: PathBuf,
    dir: PathBuf,
    base: String,
    children: Vec<Option<Child>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.children.iter_mut().flatten() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Cluster {
    pub(crate) fn start(acms: &Path, dir: &Path, count: u8, more: &str) -> Result<Cluster, Failure> {
        let base = address_base().trim_end_matches('0').to_owned();
        let made = Command::new(acms)
            .args(["init", "--storage-points", &count.to_string(), "--address-base", &format!("{base}0")])
            .arg(dir)
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err(format!("{} init failed", acms.display()).into());
        }
        let children = (0..count).map(|_| None).collect();
        let mut cluster = Cluster { acms: acms.to_owned(), dir: dir.to_owned(), base, children };
        for sp in 1..=count {
            fs::OpenOptions::new().append(true).open(cluster.config(sp))?.write_all(more.as_bytes())?;
            cluster.spawn(sp)?;
        }
        (1..=count).try_for_each(|sp| cluster.wait_ready(sp))?;
        Ok(cluster)
    }

    pub(crate) fn sps(&self) -> std::ops::RangeInclusive<u8> {
        1..=self.children.len() as u8
    }

    fn config(&self, sp: u8) -> PathBuf {
        self.dir.join(format!("sp{sp}/acms.toml"))
    }

    pub(crate) fn store(&self, sp: u8) -> PathBuf {
        self.dir.join(format!("sp{sp}/store"))
    }

    pub(crate) fn address(&self, sp: u8) -> String {
        format!("{}{sp}:7400", self.base)
    }

    pub(crate) fn url(&self, sp: u8) -> String {
        format!("http://{}", self.address(sp))
    }

    pub(crate) fn client(&self, sp: u8) -> Result<Client, Failure> {
        let options = ClientOptions { io_timeout: Duration::from_secs(300), ..ClientOptions::default() };
        Ok(Client::from_texts(&[self.url(sp)], options)?)
    }

    pub(crate) fn pid(&self, sp: u8) -> Option<u32> {
        self.children[usize::from(sp) - 1].as_ref().map(Child::id)
    }

    pub(crate) fn spawn(&mut self, sp: u8) -> Result<(), Failure> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("log{sp}")))?;
        let child = Command::new(&self.acms)
            .args(["storage-point", "--exit-with-parent", "--config"])
            .arg(self.config(sp))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.children[usize::from(sp) - 1] = Some(child);
        Ok(())
    }

    /// Until `/healthz` answers.
    pub(crate) fn wait_ready(&mut self, sp: u8) -> Result<(), Failure> {
        let (began, address) = (Instant::now(), self.address(sp));
        while began.elapsed() < READY_TIME {
            if TcpStream::connect(&address).is_ok() && get(&address, "/healthz").is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.children[usize::from(sp) - 1]
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("storage point {sp} ended: {status}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("storage point {sp} at {address} did not start").into())
    }

    pub(crate) fn kill(&mut self, sp: u8) -> Result<(), Failure> {
        if let Some(mut child) = self.children[usize::from(sp) - 1].take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn stop(&mut self, sp: u8) -> Result<(), Failure> {
        if let Some(mut child) = self.children[usize::from(sp) - 1].take() {
            terminate(&child)?;
            child.wait()?;
        }
        Ok(())
    }

    /// The disk of a dead storage point is lost, and replaced.
    pub(crate) fn replace(&self, sp: u8) -> Result<(), Failure> {
        fs::remove_dir_all(self.store(sp))?;
        let made = Command::new(&self.acms).args(["replace", "--config"]).arg(self.config(sp)).output()?;
        match made.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&made.stderr).into_owned().into()),
        }
    }

    /// Waits until each storage point has little log behind its last checkpoint.
    pub(crate) fn wait_for_checkpoints(&self) -> Result<Duration, Failure> {
        let began = Instant::now();
        for sp in self.sps() {
            while metric(&self.address(sp), "acms_store_uncovered_bytes")? > 4 << 20 {
                if began.elapsed() > Duration::from_secs(300) {
                    return Err(format!("storage point {sp} makes no checkpoint").into());
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(began.elapsed())
    }
}

pub(crate) fn terminate(child: &Child) -> Result<(), Failure> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
    Ok(nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?)
}

/// The body of a plain GET, over a connection of its own.
pub(crate) fn get(address: &str, target: &str) -> Result<String, Failure> {
    request(address, "GET", target).map(|(_, body)| body)
}

/// Status and body of a request without a body, over a connection of its own.
pub(crate) fn request(address: &str, method: &str, target: &str) -> Result<(u16, String), Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    stream.write_all(&encode_request(method, address, target, &[("Connection", "close")]))?;
    let mut parser = ResponseParser::new(method == "HEAD", 1 << 30);
    let (mut buffer, mut body) = (vec![0; 64 << 10], Vec::new());
    while !parser.is_done() {
        match stream.read(&mut buffer)? {
            0 => drop(parser.end()?),
            len => drop(parser.push(&buffer[..len])?),
        }
        body.extend_from_slice(&parser.take_body());
    }
    let status = parser.head().map_or(0, |head| head.status);
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

pub(crate) fn metric(address: &str, name: &str) -> Result<u64, Failure> {
    let text = get(address, "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("no metric {name}"))?.trim().parse()?)
}

/// A field of `/proc/<pid>/status`, in MiB.
pub(crate) fn memory_mib(pid: u32, field: &str) -> Result<f64, Failure> {
    Ok(memory_kib(pid, field).map_err(|error| error.to_string())? as f64 / 1024.0)
}

/// A real `acms receive`, with its events.
pub(crate) struct Receive {
    pub(crate) child: Child,
    events: Receiver<String>,
}

impl Drop for Receive {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Receive {
    pub(crate) fn start(acms: &Path, source: &str, into: &Path, more: &[&str]) -> Result<Receive, Failure> {
        let mut child = Command::new(acms)
            .args(["receive", "--exit-with-parent", "--events", "-", "--source", source, "--subscribe", "", "--into"])
            .arg(into)
            .args(more)
            .env("ACMS_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let (sender, events) = channel();
        std::thread::spawn(move || {
            lines.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Ok(Receive { child, events })
    }

    /// Waits for an event with all of these texts.
    pub(crate) fn wait_for(&self, texts: &[&str]) -> Result<(), Failure> {
        loop {
            let line = self.events.recv_timeout(Duration::from_secs(900))?;
            if texts.iter().all(|text| line.contains(text)) {
                return Ok(());
            }
        }
    }

    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        terminate(&self.child)?;
        self.child.wait()?;
        Ok(())
    }
}
