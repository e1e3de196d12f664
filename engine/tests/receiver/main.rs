//! The receiver: scripts one can read, any sequence of answers, and the process against a real socket.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes, files and sockets, too")]

mod application;
mod applying;
mod end_to_end;
mod fleet;
mod property;
mod script;
mod source;

#[test]
fn scripts() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/datadriven");
    let names = [
        "first_walk",
        "feeds",
        "sources",
        "nearest",
        "caches",
        "applying",
        "polling",
        "waiting",
        "blocked",
        "hidden",
        "restarts",
    ];
    for name in names {
        let name = format!("receiver_{name}");
        let path = directory.join(&name).with_extension("txt");
        let text = std::fs::read_to_string(&path).unwrap();
        let actual = script::rewrite(&text);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, actual).unwrap();
        } else {
            assert_eq!(text, actual, "{name}: run with UPDATE_EXPECT=1 to take the new results over");
        }
    }
}
