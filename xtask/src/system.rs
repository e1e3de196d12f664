//! Packages of the operating system: installed only where they are missing and only if one may.

use crate::step::{Failure, Steps};
use std::{os::unix::fs::MetadataExt, path::Path};

/// Installs packages of the distribution, or says which ones are needed.
pub(crate) fn install(steps: &Steps, packages: &[&str], why: &str) -> Result<(), Failure> {
    let by_hand = format!("install it with:  sudo apt-get install {}", packages.join(" "));
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(Failure::new(why, by_hand));
    }
    let apt = || steps.command("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    steps.run("List the system's packages", apt().args(["update", "-qq"]))?;
    let install = apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    steps.run(&format!("Install {} ({why})", packages.join(", ")), install)
}
