//! Packages of the operating system: installed only where they are missing and only if one may.

use crate::step::{Failure, Steps};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

/// Debian's hook that says which daemons packages may start when they are installed.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// By which ours is known.
const MARK: &str = "made by `cargo xtask`";
/// What it says of a daemon that is not to be started.
const DENIED: i32 = 101;

/// Installs packages of the distribution, or says which ones are needed.
pub(crate) fn install(steps: &Steps, packages: &[&str], why: &str) -> Result<(), Failure> {
    install_idle(steps, packages, &[], why)
}

/// As [`install`]; the `daemons` that come with the packages are not started, now or with the machine.
pub(crate) fn install_idle(steps: &Steps, packages: &[&str], daemons: &[&str], why: &str) -> Result<(), Failure> {
    let by_hand = format!("install it with:  sudo apt-get install {}", packages.join(" "));
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(Failure::new(why, by_hand));
    }
    let _policy = match daemons.is_empty() {
        true => None,
        false => Some(Policy::deny(Path::new(POLICY), daemons).map_err(|error| {
            let remedy = format!("{by_hand}, which may start {}", daemons.join(" and "));
            Failure::new(format!("{why}, and {POLICY} cannot keep their daemons from starting: {error}"), remedy)
        })?),
    };
    let apt = || steps.command("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    steps.run("List the system's packages", apt().args(["update", "-qq"]))?;
    let install = apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages);
    steps.run(&format!("Install {} ({why})", packages.join(", ")), install)?;
    for failure in daemons.iter().filter_map(|daemon| disable(steps, daemon).err()) {
        println!("\n{failure}");
    }
    Ok(())
}

/// Debian's packages have their daemons started with the machine.
fn disable(steps: &Steps, daemon: &str) -> Result<(), Failure> {
    let is_there = |place: String| Path::new(&place).exists();
    if !is_there(format!("/lib/systemd/system/{daemon}.service")) && !is_there(format!("/etc/init.d/{daemon}")) {
        return Ok(());
    }
    let disable = match is_there("/usr/bin/systemctl".to_owned()) {
        true => steps.command("systemctl").args(["--quiet", "disable", daemon]),
        false => steps.command("update-rc.d").args([daemon, "disable"]),
    };
    steps.run(&format!("Keep {daemon} from starting with the machine"), disable)
}

/// A policy that denies daemons their start for as long as this lives.
///
/// Both `invoke-rc.d` and `deb-systemd-invoke` ask it; the run level (`RUNLEVEL=1`) matters to neither where systemd runs. A
/// policy that is there is its owner's, and only asked. Ours denies nothing but these daemons, nor anything once this
/// process is gone, so that no harm comes of one that is left behind by a kill.
struct Policy {
    /// Where it is, if it is ours.
    made: Option<PathBuf>,
}

impl Policy {
    fn deny(path: &Path, daemons: &[&str]) -> io::Result<Policy> {
        if fs::read_to_string(path).is_ok_and(|text| text.contains(MARK)) {
            fs::remove_file(path)?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o755).open(path) {
            Ok(mut file) => {
                let policy = Policy { made: Some(path.to_owned()) };
                file.write_all(text(daemons)?.as_bytes())?;
                Ok(policy)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                for daemon in daemons {
                    let mut asked = Command::new(path);
                    asked.args([*daemon, "start"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    if asked.status()?.code() != Some(DENIED) {
                        return Err(io::Error::other(format!("the one that is there lets {daemon} start")));
                    }
                }
                Ok(Policy { made: None })
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.made.as_ref().map(fs::remove_file) {
            eprintln!("remove {POLICY}, which was made for this: {error}");
        }
    }
}

/// Asked as `policy-rc.d [--quiet] NAME[.service] start ...`.
fn text(daemons: &[&str]) -> io::Result<String> {
    let names: Vec<String> = daemons.iter().map(|name| format!("*\" {name} \"* | *\" {name}.service \"*")).collect();
    let (process, name) = (process::id(), fs::read_to_string("/proc/self/comm")?);
    Ok(format!(
        "#!/bin/sh\n# {MARK}, which removes it when it has installed packages: their daemons are not started.\n\
         case \" $* \" in\n{})\n    [ \"$(cat /proc/{process}/comm 2>/dev/null)\" = '{}' ] && exit {DENIED} ;;\nesac\nexit 0\n",
        names.join(" | "),
        name.trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_denies_its_daemons_and_goes() -> io::Result<()> {
        let dir = std::env::temp_dir().join(format!("xtask-policy-{}", process::id()));
        fs::create_dir_all(&dir)?;
        let path = dir.join("policy-rc.d");
        let asked = |arguments: &[&str]| Command::new("sh").arg(&path).args(arguments).status().map(|it| it.code());
        let policy = Policy::deny(&path, &["nginx", "varnish"])?;
        for denied in [&["nginx.service", "start"][..], &["--quiet", "varnish", "(start)", "5"]] {
            assert_eq!(asked(denied)?, Some(DENIED), "{denied:?}");
        }
        assert_eq!(asked(&["ssh.service", "restart"])?, Some(0), "somebody else's");
        drop(policy);
        assert!(!path.exists());

        // One that a killed process has left denies nothing, and is replaced.
        fs::write(&path, text(&["nginx"])?.replace(&format!("/proc/{}/", process::id()), "/proc/0/"))?;
        assert_eq!(asked(&["nginx", "start"])?, Some(0));
        drop(Policy::deny(&path, &["nginx"])?);
        assert!(!path.exists());

        for (code, denies) in [(DENIED, true), (0, false)] {
            fs::write(&path, format!("#!/bin/sh\nexit {code}\n"))?;
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            assert_eq!(Policy::deny(&path, &["nginx"]).is_ok(), denies);
            assert!(path.exists(), "it is its owner's");
        }
        fs::remove_dir_all(&dir)
    }
}
