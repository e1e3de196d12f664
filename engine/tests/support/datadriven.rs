//! Scripts that one can read: blocks of commands, a line `----`, and what they print.
//!
//! `UPDATE_EXPECT=1 cargo test ...` writes the output that was seen into the scripts.

use std::{fmt::Write as _, fs, path::Path};

/// Runs every script of `tests/datadriven` whose name starts with `prefix`, each with a fresh `run` that is given one
/// line after the other and appends what happens.
pub fn run_all<R: FnMut(&str, &mut String)>(prefix: &str, mut fresh: impl FnMut() -> R) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/datadriven");
    let mut found = 0;
    let mut files: Vec<_> = fs::read_dir(&dir).expect("scripts").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.ends_with(".txt") {
            found += 1;
            run_one(&file, &name, fresh());
        }
    }
    assert!(found > 0, "no script {prefix}*.txt");
}

fn run_one<R: FnMut(&str, &mut String)>(file: &Path, name: &str, mut run: R) {
    let text = fs::read_to_string(file).expect("a script");
    let mut rewritten = String::new();
    let mut lines = text.lines().peekable();
    while lines.peek().is_some() {
        let mut output = String::new();
        for line in lines.by_ref().take_while(|line| *line != "----") {
            writeln!(rewritten, "{line}").expect("a string takes all");
            if !line.is_empty() && !line.starts_with('#') {
                println!("{name}: {line}");
                run(line, &mut output);
            }
        }
        let mut expected = String::new();
        while let Some(line) = lines.next_if(|line| !line.is_empty()) {
            writeln!(expected, "{line}").expect("a string takes all");
        }
        while lines.next_if(|line| line.is_empty()).is_some() {}
        if std::env::var_os("UPDATE_EXPECT").is_none() {
            assert_eq!(expected, output, "{name}, after:\n{rewritten}");
        }
        write!(rewritten, "----\n{output}{}", if lines.peek().is_some() { "\n" } else { "" })
            .expect("a string takes all");
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(file, rewritten).expect("the script is rewritten");
    }
}
