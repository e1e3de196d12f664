//! The virtual environment at `.venv`: its interpreter, the tools in it, and the wheel.

use crate::{
    step::{Failure, Invocation, Steps},
    system,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const NAMES: [&str; 5] = ["python3.14", "python3.13", "python3.12", "python3.11", "python3"];
const REQUIREMENTS: &str = "bindings/python/requirements-dev.txt";
const WHEELS: &str = "target/wheels";

/// A virtual environment that holds the tools.
pub(crate) struct Environment<'a> {
    steps: &'a Steps,
    python: PathBuf,
}

impl<'a> Environment<'a> {
    /// Makes it if it is not there or does not work, and installs what its requirements name if they changed.
    pub(crate) fn prepare(steps: &'a Steps) -> Result<Environment<'a>, Failure> {
        let directory = steps.root().join(".venv");
        let python = directory.join("bin/python");
        if version(steps.command(&python)).is_none() {
            create(steps, &directory)?;
        }
        let environment = Environment { steps, python };
        environment.install_tools(&directory.join("requirements-installed.txt"))?;
        Ok(environment)
    }

    fn install_tools(&self, stamp: &Path) -> Result<(), Failure> {
        let wanted = self.steps.root().join(REQUIREMENTS);
        let wanted = fs::read(&wanted)
            .map_err(|error| Failure::new(format!("{}: {error}", wanted.display()), "restore the file"))?;
        if fs::read(stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        self.steps.run("Install the Python tools", self.pip().args(["-r", REQUIREMENTS]))?;
        fs::write(stamp, wanted)
            .map_err(|error| Failure::new(format!("{}: {error}", stamp.display()), "make .venv writable"))
    }

    fn pip(&self) -> Invocation {
        self.module("pip").args(["--disable-pip-version-check", "--quiet", "install"])
    }

    /// `python -m name`.
    pub(crate) fn module(&self, name: &str) -> Invocation {
        let bin = self.python.parent().expect("the interpreter lies in a directory");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([bin.to_owned()].into_iter().chain(std::env::split_paths(&path)));
        let invocation = self.steps.command(self.relative()).args(["-m", name]);
        // Shown as typed by hand, so only where a tool looks up another one by name.
        match path {
            Ok(path) if name == "maturin" => invocation.quiet_env("PATH", path),
            _ => invocation,
        }
    }

    fn relative(&self) -> &Path {
        self.python.strip_prefix(self.steps.root()).unwrap_or(&self.python)
    }

    /// Builds the wheel with the profile that everything uses, and installs it.
    pub(crate) fn install_wheel(&self) -> Result<PathBuf, Failure> {
        let out = self.steps.root().join(WHEELS);
        for old in wheels(&out) {
            fs::remove_file(&old)
                .map_err(|error| Failure::new(format!("{}: {error}", old.display()), "remove the file"))?;
        }
        let build = self.module("maturin").args(["build", "--release", "--locked"]);
        let build = build.args(["--manifest-path", "bindings/python/Cargo.toml", "--out", WHEELS]);
        self.steps.run("Build the wheel", build.arg("--interpreter").arg(self.relative()))?;
        let wheel = wheels(&out).pop().ok_or_else(|| Failure::new("maturin made no wheel", "read its output"))?;
        let install = self.pip().args(["--force-reinstall", "--no-deps", "--no-index"]).arg(&wheel);
        self.steps.run("Install the wheel", install)?;
        Ok(wheel)
    }
}

fn wheels(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "whl")).collect()
}

/// The version of an interpreter that works.
fn version(interpreter: Invocation) -> Option<(u32, u32)> {
    let text = interpreter.args(["-c", "import sys; print(*sys.version_info[:2])"]).output()?;
    let (major, minor) = text.split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn create(steps: &Steps, directory: &Path) -> Result<(), Failure> {
    let suits = |name: &&&str| version(steps.command(name)).is_some_and(|version| version >= (3, 11));
    let Some(name) = NAMES.iter().find(suits) else {
        let why = "no Python of version 3.11 or newer found";
        system::install(steps, &["python3", "python3-venv"], why)?;
        return make(steps, "python3", directory);
    };
    if !steps.command(name).args(["-c", "import ensurepip, venv"]).succeeds() {
        system::install(steps, &[&format!("{name}-venv")], "Python's venv module is missing")?;
    }
    make(steps, name, directory)
}

fn make(steps: &Steps, name: &str, directory: &Path) -> Result<(), Failure> {
    let create = steps.command(name).args(["-m", "venv", "--clear"]).arg(directory);
    steps.run("Make the virtual environment .venv", create)
}
