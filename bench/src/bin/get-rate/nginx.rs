//! nginx as it serves files best, with one worker.

use super::Failure;
use acms_bench::cluster::terminate;
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// A running nginx; it ends with this.
pub(super) struct Nginx {
    child: Child,
    pub(super) address: SocketAddr,
    dir: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to end, not when it is killed.
        terminate(&self.child).ok();
        self.child.wait().ok();
    }
}

impl Nginx {
    pub(super) fn start(program: &Path, dir: &Path) -> Result<Nginx, Failure> {
        fs::create_dir_all(dir.join("files"))?;
        // As root, workers run as somebody else, who must be able to reach the files.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let place = dir.display();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; {user} worker_processes 1; pid {place}/pid; error_log {place}/error.log;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n\
             access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 75;\n\
             open_file_cache max=1000 inactive=60s; open_file_cache_valid 60s; open_file_cache_min_uses 1;\n\
             client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
             uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
             server {{ listen {address} backlog=4096; root {place}/files; }}\n\
             }}\n"
        );
        fs::write(dir.join("nginx.conf"), config)?;
        let child = Command::new(program)
            .args(["-p", &dir.display().to_string(), "-c", "nginx.conf", "-e", "error.log"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} does not start ({error}); install nginx-light", program.display()))?;
        let nginx = Nginx { child, address, dir: dir.into() };
        let is_up = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            TcpStream::connect(address).is_ok()
        });
        if !is_up {
            return Err(format!("nginx does not listen; see {}", dir.join("error.log").display()).into());
        }
        Ok(nginx)
    }

    /// Puts a file where it is served.
    pub(super) fn serve(&self, path: &str, content: &[u8]) -> Result<(), Failure> {
        let file = self.dir.join("files").join(path);
        fs::create_dir_all(file.parent().ok_or("no directory")?)?;
        Ok(fs::write(file, content)?)
    }

    /// Process ids of the workers.
    pub(super) fn workers(&self) -> Result<Vec<u32>, Failure> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let pids: Vec<u32> = children.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        if pids.is_empty() { Err("nginx has no worker".into()) } else { Ok(pids) }
    }
}
