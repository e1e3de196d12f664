//! What the commands do, step by step.

use crate::{
    python::Environment,
    step::{Failure, Steps},
    system,
};
use clap::ValueEnum;
use std::{os::unix::process::CommandExt, path::PathBuf, time::Instant};

const CARGO_DENY_VERSION: &str = "0.20.2";

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// All tests of the Rust crates.
    Rust,
    /// Deliberately broken builds, each of which the right checker must catch.
    Mutants,
    /// The Python package, from its wheel.
    Python,
}

/// Builds the two binaries and runs the built-in scenario `quickstart`; its exit code becomes ours.
pub(crate) fn demo(steps: &Steps, arguments: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    build(steps)?;
    println!("   built in {:.1} s; now the run itself:\n", started.elapsed().as_secs_f64());
    let run = steps.command("target/release/acms-testbed").args(["run", "quickstart"]).args(arguments);
    println!("   {run}\n");
    // In place of this process: so signals and the exit code are the testbed's own.
    let error = run.into_command().exec();
    Err(Failure::new(format!("target/release/acms-testbed: {error}"), "is the file system full or mounted noexec?"))
}

fn build(steps: &Steps) -> Result<(), Failure> {
    let build = steps.cargo().args(["build", "--release", "--locked", "--bins"]);
    steps.run("Build acms and acms-testbed", build)
}

/// All tests, or the named parts.
pub(crate) fn test(steps: &Steps, only: &[Part]) -> Result<(), Failure> {
    let wanted = |part| only.is_empty() || only.contains(&part);
    if wanted(Part::Rust) {
        other_caches(steps);
        let test = steps.cargo().args(["test", "--release", "--locked", "--workspace"]);
        steps.run("Test the Rust crates", test)?;
    }
    if wanted(Part::Mutants) {
        // Of the whole workspace, so that dependencies have the features they had above and are not built again.
        let test = steps.cargo().args(["test", "--release", "--locked", "--workspace"]);
        let test = test.args(["--features", "acms-testbed/mutants", "--test", "mutants"]);
        let tested = steps.run("Test the checkers by broken builds", test);
        // That build put its binaries where people look for theirs: put the honest ones back, whatever came of it.
        build(steps)?;
        tested?;
    }
    if wanted(Part::Python) {
        test_python(steps)?;
    }
    Ok(())
}

/// Has nginx and Varnish installed, if one may: without them the tests of caches leave them out, and say so. Tests start
/// their own, so the daemons of the packages are not wanted.
fn other_caches(steps: &Steps) {
    let servers: [(&str, &str, &str, &[&str]); 2] =
        [("nginx", "-v", "nginx-light", &["nginx"]), ("varnishd", "-V", "varnish", &["varnish", "varnishncsa"])];
    let missing = servers.iter().filter(|(program, option, ..)| !steps.command(program).args([option]).succeeds());
    let (packages, daemons): (Vec<&str>, Vec<&[&str]>) =
        missing.map(|(.., package, daemons)| (*package, *daemons)).unzip();
    if !packages.is_empty()
        && let Err(failure) =
            system::install_idle(steps, &packages, &daemons.concat(), "tests of other people's caches need them")
    {
        println!("\nLEFT OUT: receivers behind {}\n{failure}", packages.join(" and "));
    }
}

fn test_python(steps: &Steps) -> Result<(), Failure> {
    let environment = Environment::prepare(steps)?;
    let wheel = environment.install_wheel()?;
    let stubs = environment.module("mypy.stubtest").args(["acms"]);
    steps.run("Compare the stubs with the extension", stubs)?;
    let test = environment.module("pytest").args(["bindings/python", "--quiet"]).env("ACMS_WHEEL", wheel);
    steps.run("Test the Python package", test)
}

/// Everything that can be said about the code without running it.
pub(crate) fn lint(steps: &Steps) -> Result<(), Failure> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !steps.cargo().args([tool, "--version"]).succeeds() {
            let remedy = format!("add it to your Rust:  rustup component add {component}");
            return Err(Failure::new(format!("cargo {tool} is missing"), remedy));
        }
    }
    steps.run("Check the format", steps.cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        steps.cargo().args(["clippy", "--release", "--locked", "--workspace", "--all-targets", "--all-features"]);
    steps.run("Check the lints", clippy.args(["--", "--deny", "warnings"]))?;
    let document = steps.cargo().args(["doc", "--release", "--locked", "--workspace", "--no-deps", "--lib"]);
    steps.run("Check the documentation", document.env("RUSTDOCFLAGS", "--deny warnings"))?;
    let deny = steps.command(cargo_deny(steps)?).args([
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ]);
    steps.run("Check the dependencies", deny)?;

    let environment = Environment::prepare(steps)?;
    let sources = "bindings/python";
    steps
        .run("Check the format of the Python code", environment.module("ruff").args(["format", "--check", sources]))?;
    steps.run("Check the Python code", environment.module("ruff").args(["check", sources]))?;
    let types = environment.module("mypy").args(["--config-file", "bindings/python/pyproject.toml"]);
    steps.run("Check the types of the Python code", types.args(["bindings/python/python", "bindings/python/tests"]))
}

/// Finds cargo-deny, or installs it into the workspace.
fn cargo_deny(steps: &Steps) -> Result<PathBuf, Failure> {
    let tools = steps.root().join("target/tools");
    let installed = tools.join("bin/cargo-deny");
    for program in [PathBuf::from("cargo-deny"), installed.clone()] {
        let version = steps.command(&program).arg("--version").output();
        if version.is_some_and(|text| text.ends_with(CARGO_DENY_VERSION)) {
            return Ok(program);
        }
    }
    // Not optimized: it builds in half the time and runs for a second.
    let install = steps.cargo().args(["install", "--locked", "--debug", "cargo-deny", "--version", CARGO_DENY_VERSION]);
    let install = install.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    steps.run("Install cargo-deny", install)?;
    Ok(installed)
}

/// The criterion benches, then the programs that measure.
pub(crate) fn bench(steps: &Steps, arguments: &[String]) -> Result<(), Failure> {
    build(steps)?;
    let bench = steps.cargo().args(["bench", "--locked", "--package", "acms-bench", "--bench", "*", "--"]);
    steps.run("Run the benches", bench.args(arguments))?;
    steps.run("Measure durable commits", steps.command("target/release/log-flush"))?;
    steps.run("Measure publications", steps.command("target/release/publish-load"))?;
    steps.run("Measure the judging of a trace", steps.command("target/release/check-trace"))
}
