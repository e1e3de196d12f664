//! What the hunt has found: each scenario broke a promise once, and holds every check since.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use acms_testbed::{backend::simulated, hunt::trial, scenario::Scenario};

fn holds(name: &str, text: &str) {
    let scenario = Scenario::parse(name, text, &[]).unwrap();
    let trial = trial(&scenario, &|scenario, sink| simulated::run(scenario, sink).map(drop)).unwrap();
    assert!(trial.violations.is_empty(), "{name}: {:?}", trial.violations);
    assert!(trial.tally.outcomes.contains_key("accepted"), "{name}: {:?}", trial.tally);
}

/// P7, seed 35 of `storm`: as-of rose without what the peer had recovered, as its reply gave the root before it.
#[test]
fn as_of_after_restart() {
    holds("as-of-after-restart", include_str!("found/as-of-after-restart.toml"));
}

/// P7, seeds 186, 291 and 293 of `storm`: a receiver's as-of rose before a file was back that a deletion had brought to
/// light again.
#[test]
fn hidden_path_shown_again() {
    holds("hidden-path-shown-again-186", include_str!("found/hidden-path-shown-again-186.toml"));
    holds("hidden-path-shown-again-291", include_str!("found/hidden-path-shown-again-291.toml"));
}

/// P8, seed 1755 of `storm`: a store that took the place of another did not tell of the key of a publication that its
/// predecessor had named, so a retry made a second publication.
#[test]
fn key_of_the_earlier_store() {
    holds("key-of-the-earlier-store", include_str!("found/key-of-the-earlier-store.toml"));
}

/// P8, seeds 390, 3907 and 4442 of `storm`: `two-phase`, a retry that had taken a UID was rejected though its key had come
/// to name an agreed publication meanwhile.
#[test]
fn retry_given_up_after_agreement() {
    holds("retry-given-up-after-agreement", include_str!("found/retry-given-up-after-agreement.toml"));
}

/// P6, seeds 536 and 2989 of `storm`: a cache kept a truncated object for good, and every receiver behind it asked again
/// for the same URL.
#[test]
fn bad_copy_in_a_second_tier() {
    holds("bad-copy-in-a-second-tier", include_str!("found/bad-copy-in-a-second-tier.toml"));
}

/// P7, seed 3263 of `storm`: a walk that one feed began ended the walk that another had begun at the root of another
/// storage point, behind the same cache.
#[test]
fn two_feeds_two_walks() {
    holds("two-feeds-two-walks", include_str!("found/two-feeds-two-walks.toml"));
}

/// P1, seed 73 of `storm`: a large content that had rotted after it was compared was handed out, and never mended.
#[test]
fn large_content_rots_after_comparison() {
    holds("large-content-rots", include_str!("found/large-content-rots.toml"));
}

/// P6 and P7, seed 864 of `refinement`: `two-phase`, a storage point that had stored a publication and missed everything
/// that followed never asked what became of it: its as-of stood still, and its index lacked it.
#[test]
fn stored_and_never_told() {
    holds("stored-and-never-told", include_str!("found/stored-and-never-told.toml"));
}

/// P6, seeds 1476 and 2992 of `edge`: a cache kept bad copies of nodes under every name that receivers had asked for them
/// by, one after the other, and each receiver had to walk through those of all, of one node after another.
#[test]
fn bad_copies_under_many_names() {
    holds("bad-copies-under-many-names", include_str!("found/bad-copies-under-many-names.toml"));
    holds("bad-copies-of-many-nodes", include_str!("found/bad-copies-of-many-nodes.toml"));
}

/// Seed 1475 of `refinement`: the replay of the specification knew no reply to a joining storage point between two writes of
/// one commit.
#[test]
fn join_reply_between_two_writes() {
    holds("join-reply-between-two-writes", include_str!("found/join-reply-between-two-writes.toml"));
}

/// Seed 1352 of `refinement`: nor the own bit in one write with the publication, where a crash came before the flush returned.
#[test]
fn own_bit_written_with_content() {
    holds("own-bit-written-with-content", include_str!("found/own-bit-written-with-content.toml"));
}

/// Seed 3739 of `refinement`: nor a publication that is first seen when its write, and the drop that follows, are over.
#[test]
fn named_once_it_is_dropped() {
    holds("named-once-it-is-dropped", include_str!("found/named-once-it-is-dropped.toml"));
}

/// Seeds 4354 and 5945 of `refinement`: nor a publication that a joining storage point let go before its content came.
#[test]
fn let_go_while_joining() {
    holds("let-go-while-joining", include_str!("found/let-go-while-joining.toml"));
}
