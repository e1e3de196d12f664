//! `cargo xtask fuzz`: the fuzz targets of `engine/fuzz`, one after the other, each for a number of executions.
//!
//! The saved corpus of a target is one file below `engine/fuzz/saved`: inputs, each behind its length. It is unpacked into
//! cargo-fuzz's directory before a run; `--save` minimises what is there after it and packs it again.

use crate::step::{Failure, Invocation, Steps};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

/// All targets.
pub(crate) const TARGETS: [&str; 6] = ["http", "response", "frames", "log", "nodes", "config"];
/// Longest inputs: beyond these nothing new happens.
const LEN_MAX: [(&str, u32); 6] =
    [("http", 12_000), ("response", 4096), ("frames", 4096), ("log", 1024), ("nodes", 2048), ("config", 2048)];
/// A saved corpus has no more bytes: the smallest inputs are kept.
const SAVED_LEN_MAX: usize = 48 << 10;
const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// What libFuzzer said of a run.
#[derive(Default)]
struct Figures {
    executions: u64,
    edges: u64,
    features: u64,
    corpus: u64,
}

/// Runs the targets, and prints a table that is tab-separated.
pub(crate) fn run(steps: &Steps, target: Option<&str>, executions: u64, save: bool) -> Result<(), Failure> {
    if let Some(wrong) = target.filter(|target| !TARGETS.contains(target)) {
        return Err(Failure::new(format!("no target {wrong}"), format!("there are: {}", TARGETS.join(", "))));
    }
    let cargo_fuzz = cargo_fuzz(steps)?;
    let fuzz = |command: &str| in_engine(steps, &cargo_fuzz).arg(command).args(["-s", "none"]);
    steps.run("Build the fuzz targets", fuzz("build"))?;
    let mut table = String::from("target\texecutions\tper_s\tedges\tfeatures\tcorpus\tfindings\n");
    let (mut found, mut early) = (Vec::new(), Vec::new());
    for target in TARGETS.into_iter().filter(|name| target.is_none_or(|target| target == *name)) {
        let len_max = LEN_MAX.iter().find(|(name, _)| *name == target).map_or(4096, |(_, len)| *len);
        let options = [
            format!("-runs={executions}"),
            format!("-max_len={len_max}"),
            "-timeout=20".to_owned(),
            "-rss_limit_mb=2048".to_owned(),
            "-use_value_profile=1".to_owned(),
            "-print_final_stats=1".to_owned(),
        ];
        unpack(steps, target)?;
        let before = artifacts(steps, target);
        let started = Instant::now();
        println!("\n== Fuzz {target}");
        let (figures, is_good) = follow(fuzz("run").arg(target).arg("--").args(options))?;
        let per_s = figures.executions as f64 / started.elapsed().as_secs_f64().max(0.001);
        let findings: Vec<PathBuf> =
            artifacts(steps, target).into_iter().filter(|artifact| !before.contains(artifact)).collect();
        let Figures { executions, edges, features, corpus } = figures;
        let count = findings.len();
        table += &format!("{target}\t{executions}\t{per_s:.0}\t{edges}\t{features}\t{corpus}\t{count}\n");
        if count > 0 {
            found.push(format!("{target}: {findings:?}"));
        } else if !is_good {
            early.push(target);
        }
        if save {
            steps.run(&format!("Minimise the corpus of {target}"), fuzz("cmin").arg(target))?;
            pack(steps, target)?;
        }
    }
    print!("\n{table}");
    if !found.is_empty() {
        return Err(Failure::new(
            format!("the fuzzer found something: {}", found.join("; ")),
            "copy the input to engine/fuzz/found/TARGET-WHAT, where a test takes it up, and mend what it breaks",
        ));
    }
    if !early.is_empty() {
        return Err(Failure::new(
            format!("the fuzzer ended early, without a finding: {}", early.join(", ")),
            "read what it said last; if somebody stopped it, run it again for the rest",
        ));
    }
    Ok(())
}

fn in_engine(steps: &Steps, program: &Path) -> Invocation {
    let engine = steps.root().join("engine");
    steps.command(program).directory(&engine).quiet_env("CARGO_INCREMENTAL", "0")
}

fn artifacts(steps: &Steps, target: &str) -> Vec<PathBuf> {
    let dir = steps.root().join("engine/fuzz/artifacts").join(target);
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn corpus(steps: &Steps, target: &str) -> PathBuf {
    steps.root().join("engine/fuzz/corpus").join(target)
}

fn saved(steps: &Steps, target: &str) -> PathBuf {
    steps.root().join("engine/fuzz/saved").join(target)
}

fn unusable(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    let shown = path.display().to_string();
    move |error| Failure::new(format!("{shown}: {error}"), "check the file and its permissions")
}

/// Puts the saved inputs where cargo-fuzz looks for them, beside what it has found there before.
fn unpack(steps: &Steps, target: &str) -> Result<(), Failure> {
    let (from, to) = (saved(steps, target), corpus(steps, target));
    let packed = fs::read(&from).map_err(unusable(&from))?;
    fs::create_dir_all(&to).map_err(unusable(&to))?;
    let (mut rest, mut number) = (packed.as_slice(), 0);
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = u32::from_le_bytes(*len) as usize;
        let Some((input, after)) = after.split_at_checked(len) else {
            return Err(Failure::new(format!("{} is cut off", from.display()), "restore the file"));
        };
        fs::write(to.join(format!("saved-{number}")), input).map_err(unusable(&to))?;
        (rest, number) = (after, number + 1);
    }
    Ok(())
}

/// Saves the inputs that cargo-fuzz has, the smallest first, as far as there is room.
fn pack(steps: &Steps, target: &str) -> Result<(), Failure> {
    let (from, to) = (corpus(steps, target), saved(steps, target));
    let entries = fs::read_dir(&from).map_err(unusable(&from))?.flatten();
    let mut inputs: Vec<Vec<u8>> = entries.filter_map(|entry| fs::read(entry.path()).ok()).collect();
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut packed = Vec::new();
    for input in inputs {
        if packed.len() + 4 + input.len() > SAVED_LEN_MAX {
            break;
        }
        packed.extend((input.len() as u32).to_le_bytes());
        packed.extend(input);
    }
    fs::write(&to, packed).map_err(unusable(&to))
}

/// Runs a fuzzer and shows what it says now and then. Returns its figures and whether it ended well.
fn follow(invocation: Invocation) -> Result<(Figures, bool), Failure> {
    use std::io::{BufRead as _, BufReader};
    let shown = invocation.to_string();
    println!("   {shown}");
    let failed = |error: std::io::Error| Failure::new(format!("{shown}: {error}"), "repeat it by hand");
    let mut child = invocation.into_command().stdin(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut figures = Figures::default();
    for line in BufReader::new(child.stderr.take().expect("it is a pipe")).lines().map_while(Result::ok) {
        if !figures.take(&line) {
            println!("   {line}");
        }
    }
    let status = child.wait().map_err(failed)?;
    Ok((figures, status.success()))
}

impl Figures {
    /// Takes the figures of a line; false if it has none and somebody should see it.
    fn take(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |text: &str| text.split('/').next().unwrap_or_default().parse().unwrap_or_default();
        for pair in words.windows(2) {
            match pair[0] {
                "cov:" => self.edges = number(pair[1]),
                "ft:" => self.features = number(pair[1]),
                "corp:" => self.corpus = number(pair[1]),
                "stat::number_of_executed_units:" => self.executions = number(pair[1]),
                _ => {}
            }
        }
        // Each time that the count has doubled, one line.
        let is_progress = words.first().is_some_and(|first| first.starts_with('#')) && !words.contains(&"pulse");
        is_progress || line.starts_with("stat::") || line.starts_with("INFO:") || line.is_empty()
    }
}

/// Finds cargo-fuzz, or installs it into the workspace.
fn cargo_fuzz(steps: &Steps) -> Result<PathBuf, Failure> {
    let tools = steps.root().join("target/tools");
    let installed = tools.join("bin/cargo-fuzz");
    for program in [PathBuf::from("cargo-fuzz"), installed.clone()] {
        if steps.command(&program).arg("--version").succeeds() {
            return Ok(program);
        }
    }
    let install = steps.cargo().args(["install", "--locked", "--debug", "cargo-fuzz", "--version", CARGO_FUZZ_VERSION]);
    let install = install.arg("--root").arg(&tools).arg("--target-dir").arg(tools.join("build"));
    steps.run("Install cargo-fuzz", install)?;
    Ok(installed)
}
