//! What a cluster of real processes keeps, and for how long: earlier versions, contents on its disks, backups.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and disks are the point")]

mod backup;
mod transfers;
mod versions;

use acms_engine::client::{Body, Client, ClientOptions, PublishOptions, Verdict};
use acms_engine::protocol::Uid;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const ACMS: &str = env!("CARGO_BIN_EXE_acms");
/// A storage point that does not serve so long after its start never will.
const READY_TIME: Duration = Duration::from_secs(120);

/// Storage points on addresses of their own; their processes end with this.
struct Cluster {
    dir: PathBuf,
    base: String,
    children: Vec<Child>,
}

impl Cluster {
    /// Three storage points, with `config` behind what `acms init` writes.
    fn start(test: u8, dir: &Path, init: &[&str], config: &str) -> Cluster {
        let base = format!("127.{}.{}.", 120 + test, 1 + std::process::id() % 250);
        let made = acms(
            &[&["init", dir.to_str().unwrap(), "--storage-points", "3", "--address-base", &format!("{base}0")], init]
                .concat(),
        );
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut cluster = Cluster { dir: dir.to_owned(), base, children: Vec::new() };
        for sp in 1..=3 {
            let file = dir.join(format!("sp{sp}/acms.toml"));
            fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(config.as_bytes()).unwrap();
            let mut command = Command::new(ACMS);
            command.args(["storage-point", "--exit-with-parent", "--config"]).arg(file);
            cluster.children.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        for sp in 1..=3 {
            wait(READY_TIME, || cluster.client(sp).snapshot().is_ok().then_some(()));
        }
        cluster
    }

    fn url(&self, sp: u8) -> String {
        format!("http://{}{sp}:7400", self.base)
    }

    fn client(&self, sp: u8) -> Client {
        Client::from_texts(&[self.url(sp)], ClientOptions { publisher: "test".into(), ..Default::default() }).unwrap()
    }

    fn publish(&self, sp: u8, path: &str, content: &[u8]) -> Uid {
        let body = Body::Bytes(content.to_vec().into());
        let result = self.client(sp).publish(&path.parse().unwrap(), &body, &PublishOptions::default()).unwrap();
        assert_eq!(result.outcome, Verdict::Accepted, "{result:?}");
        result.uid.unwrap()
    }

    /// Names of the files of large contents in a store.
    fn large_contents(&self, sp: u8) -> usize {
        let files = fs::read_dir(self.dir.join(format!("sp{sp}/store"))).unwrap();
        let names = files.filter_map(|file| file.unwrap().file_name().into_string().ok());
        names.filter(|name| name.starts_with("content-")).count()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn acms(args: &[&str]) -> Output {
    Command::new(ACMS).args(args).output().unwrap()
}

/// Waits until there is something.
fn wait<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < time, "nothing in {time:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Another content for each number.
fn noise(number: usize, len: usize) -> Vec<u8> {
    let word = |at: usize| acms_engine::protocol::Hash::of(&(number << 32 | at).to_le_bytes()).0;
    let mut bytes: Vec<u8> = (0..len.div_ceil(32)).flat_map(word).collect();
    bytes.truncate(len);
    bytes
}
