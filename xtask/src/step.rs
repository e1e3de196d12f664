//! Steps: commands that are announced, timed, and easy to repeat by hand when they fail.

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A step that failed, or that could not be done, and what to do about it.
pub(crate) struct Failure {
    what: String,
    remedy: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n  {}", self.what, self.remedy)
    }
}

/// What was done so far, and how long it took.
pub(crate) struct Steps {
    root: PathBuf,
    done: RefCell<Vec<(String, Duration, bool)>>,
}

impl Steps {
    pub(crate) fn new() -> Steps {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().expect("xtask lies in the workspace").to_owned();
        Steps { root, done: RefCell::default() }
    }

    /// The workspace's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A command that runs in the workspace's directory.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Invocation {
        Invocation { command: with_directory(program, &self.root), environment: Vec::new(), directory: None }
    }

    /// Cargo, the one that runs this.
    pub(crate) fn cargo(&self) -> Invocation {
        self.command(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, title: &str, invocation: Invocation) -> Result<(), Failure> {
        let shown = invocation.to_string();
        println!("\n== {title}\n   {shown}");
        let mut command = invocation.command;
        let started = Instant::now();
        let status = command.stdin(Stdio::null()).status();
        let elapsed = started.elapsed();
        let remedy = || format!("repeat it with:  cd {} && {shown}", self.root.display());
        let result = match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::new(format!("{title}: {status}"), remedy())),
            Err(error) => Err(Failure::new(format!("{title}: {error}"), remedy())),
        };
        println!("   {} in {:.1} s", if result.is_ok() { "done" } else { "FAILED" }, elapsed.as_secs_f64());
        self.done.borrow_mut().push((title.to_owned(), elapsed, result.is_ok()));
        result
    }

    /// One line per step, with its time.
    pub(crate) fn print_summary(&self) {
        let done = self.done.borrow();
        if done.is_empty() {
            return;
        }
        println!();
        for (title, elapsed, ok) in done.iter() {
            println!("{} {:8.1} s  {title}", if *ok { "ok    " } else { "FAILED" }, elapsed.as_secs_f64());
        }
        let total: Duration = done.iter().map(|(_, elapsed, _)| elapsed).sum();
        println!("       {:8.1} s  in all", total.as_secs_f64());
    }
}

fn with_directory(program: impl AsRef<OsStr>, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    // `cargo run` sets these for xtask; a command typed by hand has none of them, and builds must not differ.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
            command.env_remove(&name);
        }
    }
    command
}

/// A command before it runs; shown as one would type it.
pub(crate) struct Invocation {
    command: Command,
    environment: Vec<(String, OsString)>,
    /// Another one than the workspace's.
    directory: Option<PathBuf>,
}

impl Invocation {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Invocation {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<T: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = T>) -> Invocation {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Invocation {
        self.command.env(name, value.as_ref());
        self.environment.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs in `directory`, which is shown.
    pub(crate) fn directory(mut self, directory: &Path) -> Invocation {
        self.command.current_dir(directory);
        self.directory = Some(directory.to_owned());
        self
    }

    /// As [`Invocation::env`], but not shown.
    pub(crate) fn quiet_env(mut self, name: &str, value: impl AsRef<OsStr>) -> Invocation {
        self.command.env(name, value);
        self
    }

    /// Whether it can be run and succeeds; prints nothing.
    pub(crate) fn succeeds(mut self) -> bool {
        let quiet = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    }

    /// What it prints, if it succeeds.
    pub(crate) fn output(mut self) -> Option<String> {
        let output = self.command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The command itself, to be executed in place of this process.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(directory) = &self.directory {
            write!(f, "cd {} && ", quoted(directory.as_os_str()))?;
        }
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", quoted(value))?;
        }
        let program = Path::new(self.command.get_program());
        let is_cargo = program.file_name() == Some(OsStr::new("cargo"));
        write!(f, "{}", if is_cargo { "cargo".to_owned() } else { quoted(program.as_os_str()) })?;
        self.command.get_args().try_for_each(|argument| write!(f, " {}", quoted(argument)))
    }
}

fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
