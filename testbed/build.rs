//! Notes which commit of the source tree is built, for results and bundles.

use std::process::{Command, Stdio};

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn main() {
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    println!("cargo::rustc-env=ACMS_COMMIT={}", commit.unwrap_or_else(|| "unknown".to_owned()));
    // Only what changes the build asks again: a commit of what was built before changes nothing but its name.
    for path in ["src", "../engine/src", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
}
