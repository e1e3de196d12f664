//! Storage points as processes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

const ACMS: &str = env!("CARGO_BIN_EXE_acms");
const READY_TIME: Duration = Duration::from_secs(120);

/// Storage points 2 and 3 of three, a quorum: whoever says that it is the first is a stranger.
pub(crate) struct Pair {
    dir: tempfile::TempDir,
    base: String,
    processes: Vec<Child>,
}

impl Pair {
    /// With these lines as `[limits]`. `test`: no two tests at the same addresses.
    pub(crate) fn start(test: u8, limits: &str) -> Pair {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("127.{}.{}.", 120 + test, 1 + std::process::id() % 250);
        let init = Command::new(ACMS)
            .args(["init", dir.path().join("c").to_str().unwrap(), "--cluster", "hostile", "--storage-points", "3"])
            .args(["--address-base", &format!("{base}0")])
            .output()
            .unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let mut pair = Pair { dir, base, processes: Vec::new() };
        let readies: Vec<_> = [2, 3].into_iter().map(|sp| pair.spawn(sp, limits)).collect();
        for ready in readies {
            assert!(ready.recv_timeout(READY_TIME).is_ok(), "a storage point is not ready");
        }
        pair
    }

    fn spawn(&mut self, sp: u8, limits: &str) -> std::sync::mpsc::Receiver<()> {
        let config = self.dir.path().join(format!("c/sp{sp}/acms.toml"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{text}\n[limits]\n{limits}\n")).unwrap();
        let mut child = Command::new(ACMS)
            .args(["storage-point", "--exit-with-parent", "--events", "-", "--config"])
            .arg(&config)
            .args(["--listen-deliver", &format!("{}{sp}:7300", self.base)])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let events = BufReader::new(child.stdout.take().unwrap());
        self.processes.push(child);
        let (ready, is_ready) = std::sync::mpsc::channel();
        // Somebody has to read, or the storage point stops.
        std::thread::spawn(move || {
            let lines = events.lines().map_while(Result::ok);
            lines.filter(|line| line.contains("\"kind\":\"ready\"")).for_each(|_| ready.send(()).unwrap_or_default());
        });
        is_ready
    }

    pub(crate) fn publish(&self) -> String {
        format!("{}2:7400", self.base)
    }

    pub(crate) fn deliver(&self) -> String {
        format!("{}2:7300", self.base)
    }

    pub(crate) fn peer(&self) -> String {
        format!("{}2:7500", self.base)
    }

    /// Whether both processes still run.
    pub(crate) fn are_alive(&mut self) -> bool {
        self.processes.iter_mut().all(|process| process.try_wait().unwrap().is_none())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
