//! What is asked of a cluster, and receivers of it, as processes of this machine.

use crate::Failure;
use acms_bench::cluster::{Cluster, memory_kib, request, terminate};
use acms_engine::client::{Client, ClientOptions};
use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

/// Waits until each storage point has little log behind its last checkpoint.
pub(crate) fn wait_for_checkpoints(cluster: &Cluster) -> Result<Duration, Failure> {
    let began = Instant::now();
    for address in &cluster.addresses {
        while metric(*address, "acms_store_uncovered_bytes")? > 4 << 20 {
            if began.elapsed() > Duration::from_secs(300) {
                return Err(format!("the storage point at {address} makes no checkpoint").into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(began.elapsed())
}

fn metric(address: SocketAddr, name: &str) -> Result<u64, Failure> {
    let (_, text) = request(address, "GET", "/metrics")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.ok_or_else(|| format!("no metric {name}"))?.trim().parse()?)
}

/// A client of the storage point at `address` that waits long.
pub(crate) fn client(address: SocketAddr) -> Result<Client, Failure> {
    let options = ClientOptions { io_timeout: Duration::from_secs(300), ..ClientOptions::default() };
    Ok(Client::from_texts(&[format!("http://{address}")], options)?)
}

/// The disk of storage point `sp`, which has ended, is lost, and replaced.
pub(crate) fn replace_disk(acms: &Path, cluster: &Cluster, sp: u8) -> Result<(), Failure> {
    let config = cluster.config(sp);
    std::fs::remove_dir_all(config.with_file_name("store"))?;
    let made = Command::new(acms).args(["replace", "--config"]).arg(config).output()?;
    match made.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&made.stderr).into_owned().into()),
    }
}

/// A field of `/proc/<pid>/status`, in MiB.
pub(crate) fn memory_mib(pid: u32, field: &str) -> Result<f64, Failure> {
    Ok(memory_kib(pid, field)? as f64 / 1024.0)
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
