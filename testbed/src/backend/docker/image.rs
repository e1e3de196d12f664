//! The image of all hosts, made from nothing: the testbed's program, which is `acms`, too, and what it needs to run.

use super::engine::PROGRAM;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Writes an archive of `program` and the libraries that it names, if it is not a static one.
pub(super) fn write_archive(program: &Path, archive: &Path) -> io::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::new(File::create(archive)?));
    // Engines do not know files with holes.
    tar.sparse(false);
    let mut add = |from: &Path, to: &Path| {
        let within = to.strip_prefix("/").map_err(io::Error::other)?;
        tar.append_file(within, &mut File::open(from)?)
    };
    add(program, Path::new(PROGRAM))?;
    for library in libraries(program)? {
        add(&library, &library)?;
    }
    // Where an engine wants to put something, there must be something.
    for dir in ["dev", "proc", "sys", "etc", "tmp"] {
        let mut head = tar::Header::new_gnu();
        head.set_entry_type(tar::EntryType::Directory);
        head.set_mode(0o755);
        head.set_size(0);
        tar.append_data(&mut head, dir, io::empty())?;
    }
    tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The loader and the libraries of a program, by the word of its loader. None of a static program.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    // A static program does not know this variable: it tells its version.
    let mut command = Command::new(program);
    command.arg("--version").env("LD_TRACE_LOADED_OBJECTS", "1").stdin(Stdio::null());
    let told = String::from_utf8_lossy(&command.output()?.stdout).into_owned();
    let missing = told.lines().find(|line| line.contains("not found"));
    if let Some(missing) = missing {
        return Err(io::Error::other(format!("{} lacks a library: {}", program.display(), missing.trim())));
    }
    Ok(told.lines().filter_map(library).collect())
}

/// `name => /path (address)` or `/path (address)`.
fn library(line: &str) -> Option<PathBuf> {
    let (named, _) = line.trim().rsplit_once(" (0x")?;
    let path = named.rsplit(" => ").next()?;
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_has_the_program_and_all_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let (archive, program) = (dir.path().join("image.tar"), std::env::current_exe().unwrap());
        write_archive(&program, &archive).unwrap();
        let mut tar = tar::Archive::new(File::open(&archive).unwrap());
        let names: Vec<String> =
            tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names[0], "acms-testbed");
        let has = |part: &str| names.iter().any(|name| name.contains(part));
        assert!(libraries(&program).unwrap().is_empty() || (has("libc.so") && has("ld-linux")), "{names:?}");
        assert!(has("proc"));
    }

    #[test]
    fn a_loader_names_libraries_in_two_ways_and_one_that_is_no_file() {
        let told = "\tlinux-vdso.so.1 (0x00007f8acbf97000)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f8acbca4000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f8acbf99000)\nacms-testbed 0.1.0\n";
        let found: Vec<_> = told.lines().filter_map(library).collect();
        assert_eq!(found, [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]);
    }
}
