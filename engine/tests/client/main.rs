//! The client and the command line against a server that says what a test wants it to say.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "real processes and sockets are the point")]

mod commands;
mod publishing;
mod reading;
mod server;

use acms_engine::client::{Client, ClientOptions};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Far more than anything takes that does not wait for a time limit, on a busy machine too ...
const SOON: Duration = Duration::from_secs(20);
/// ... and a time limit that is beyond it.
const LONG: Duration = Duration::from_secs(60);

fn options() -> ClientOptions {
    ClientOptions {
        publisher: "tester".into(),
        io_timeout: Duration::from_secs(5),
        retry_timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    }
}

fn client(urls: &[&str]) -> Client {
    Client::from_texts(urls, options()).unwrap()
}

/// Wants to stop after a while.
struct Stopper(Instant);

impl Stopper {
    fn after(duration: Duration) -> Stopper {
        Stopper(Instant::now() + duration)
    }

    fn options(&self) -> ClientOptions {
        let at = self.0;
        ClientOptions { io_timeout: LONG, should_stop: Some(Arc::new(move || Instant::now() >= at)), ..options() }
    }

    fn stopped_for(&self) -> Duration {
        self.0.elapsed()
    }
}
