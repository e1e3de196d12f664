//! How the event loops wait.

use crate::protocol::Duration;
use mio::{Events, Poll};
use std::io;

/// Waits for events. A process that stood still is told nothing but that (`EINTR`): what has come meanwhile is seen before
/// it is judged to be late.
pub(super) fn wait(poll: &mut Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
    let mut waited = poll.poll(events, timeout);
    while waited.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
        waited = poll.poll(events, Some(Duration::ZERO));
    }
    waited
}
