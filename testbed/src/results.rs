//! The directory with a run's results, which belongs to that run alone: nothing else may be in it, as runs replace and remove
//! what is there.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) const TRACE: &str = "events.arrow";
pub(crate) const SCENARIO: &str = "scenario.toml";
pub(crate) const PAGE: &str = "report.html";
/// What a run writes last: with it, results are complete.
pub(crate) const LAST: &str = "result.json";
/// Logs of processes, where something has gone wrong.
pub(crate) const LOGS: &str = "logs";
/// Distributions, and packets.
const EXTENSIONS: [&str; 2] = ["hgrm", "pcap"];
const LOG_EXTENSION: &str = "log";

/// Why a directory cannot have a run's results. Nothing in it changed.
#[derive(Debug)]
pub(crate) enum NotFree {
    /// This is in it, which no run writes.
    Has(PathBuf),
    /// It cannot be made or read.
    Io(io::Error),
}

impl From<io::Error> for NotFree {
    fn from(error: io::Error) -> NotFree {
        NotFree::Io(error)
    }
}

/// Makes `dir` if it is absent, and removes the results of an earlier run: they are not to be taken for those of the next.
pub(crate) fn make_free(dir: &Path) -> Result<(), NotFree> {
    fs::create_dir_all(dir)?;
    if let Some(other) = paths(dir)?.into_iter().find(|path| !is_result(path)) {
        return Err(NotFree::Has(other));
    }
    Ok(remove_files(dir)?)
}

/// Removes what a run has written, and the directory if nothing else is in it. Whether that is gone; where there is none, it
/// has not been removed.
pub(crate) fn remove(dir: &Path) -> io::Result<bool> {
    match remove_files(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        removed => removed?,
    }
    Ok(fs::remove_dir(dir).is_ok())
}

fn remove_files(dir: &Path) -> io::Result<()> {
    for path in paths(dir)?.into_iter().filter(|path| is_result(path)) {
        if path.is_dir() {
            paths(&path)?
                .into_iter()
                .filter(|path| has_extension(path, &[LOG_EXTENSION]))
                .try_for_each(fs::remove_file)?;
            // Logs are all that it has, or it is somebody's.
            let _ = fs::remove_dir(&path);
        } else {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn paths(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

/// Whether a run writes a file or directory of this name.
fn is_result(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match path.is_dir() {
        true => {
            name == LOGS && paths(path).is_ok_and(|logs| logs.iter().all(|log| has_extension(log, &[LOG_EXTENSION])))
        }
        false => [TRACE, SCENARIO, PAGE, LAST].contains(&name) || has_extension(path, &EXTENSIONS),
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| extensions.contains(&extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_before_are_replaced_and_what_is_somebody_elses_stays() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("out/run");
        make_free(&dir).unwrap();
        let write = |name: &str| fs::write(dir.join(name), "").unwrap();
        [TRACE, SCENARIO, PAGE, LAST, "sp1.pcap", "publish-latency.hgrm"].into_iter().for_each(write);
        fs::create_dir(dir.join(LOGS)).unwrap();
        write("logs/sp1.log");
        make_free(&dir).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(remove(&dir).unwrap() && !dir.exists());
        assert!(!remove(&dir).unwrap(), "there is none");

        make_free(&dir).unwrap();
        for mine in ["notes.txt", "logs"] {
            write(LAST);
            if mine == "logs" {
                fs::create_dir(dir.join(mine)).unwrap();
                write("logs/diary");
                write("logs/sp1.log");
            } else {
                write(mine);
            }
            assert!(matches!(make_free(&dir), Err(NotFree::Has(other)) if other == dir.join(mine)));
            assert!(dir.join(LAST).exists(), "nothing changed");
            assert!(!remove(&dir).unwrap() && dir.join(mine).exists() && !dir.join(LAST).exists());
            let _ = fs::remove_file(dir.join(mine));
        }
        assert!(dir.join("logs/diary").exists());
    }
}
