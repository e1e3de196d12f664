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

/// Checks every file of a target's corpus.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(&dir).unwrap() {
        let file = file.unwrap().path();
        let input = std::fs::read(&file).unwrap();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
        assert!(checked.is_ok(), "{}", file.display());
        count += 1;
    }
    assert!(count >= 5, "{} has hardly anything in it", dir.display());
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
