//! The saved inputs of the fuzz targets, each checked as the fuzzer checks it (`cargo xtask fuzz` finds new ones).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "the corpora are files")]
#![allow(unreachable_pub, reason = "the targets are public where the fuzzer is built")]

#[path = "../fuzz/src/config.rs"]
mod config;
#[path = "../fuzz/src/frames.rs"]
mod frames;
#[path = "../fuzz/src/http.rs"]
mod http;
#[path = "../fuzz/src/log.rs"]
mod log;
#[path = "../fuzz/src/nodes.rs"]
mod nodes;
#[path = "../fuzz/src/response.rs"]
mod response;
#[path = "../fuzz/src/split.rs"]
mod split;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Checks the saved corpus of a target, a file of inputs each behind its length (four bytes, little-endian), and what
/// the fuzzer has found, each in a file of its own.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let saved = fs::read(fuzz.join("saved").join(target)).unwrap();
    let (mut rest, mut count) = (saved.as_slice(), 0);
    while let Some((len, after)) = rest.split_first_chunk() {
        let (input, after) = after.split_at(u32::from_le_bytes(*len) as usize);
        let checked = catch_unwind(AssertUnwindSafe(|| check(input)));
        assert!(checked.is_ok(), "input {count} of {target}: {:?}", String::from_utf8_lossy(input));
        (rest, count) = (after, count + 1);
    }
    assert!(count >= 5, "hardly anything is saved of {target}");
    for found in fs::read_dir(fuzz.join("found")).unwrap().map(|entry| entry.unwrap().path()) {
        if found.file_name().unwrap().to_string_lossy().starts_with(&format!("{target}-")) {
            let checked = catch_unwind(AssertUnwindSafe(|| check(&fs::read(&found).unwrap())));
            assert!(checked.is_ok(), "{}", found.display());
        }
    }
}

#[test]
fn requests() {
    replay("http", http::check);
}

#[test]
fn responses() {
    replay("response", response::check);
}

#[test]
fn frames_and_links() {
    replay("frames", frames::check);
}

#[test]
fn logs_and_checkpoints() {
    replay("log", log::check);
}

#[test]
fn index_nodes() {
    replay("nodes", nodes::check);
}

#[test]
fn configurations() {
    replay("config", config::check);
}
