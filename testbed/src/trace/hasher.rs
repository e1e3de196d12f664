//! The hash that names a trace: equal for equal events, and made while they come.

use super::Event;
use acms_engine::protocol::Hash;

/// BLAKE3 over every field of every event, in order. A text is its length (u32, little-endian) and its bytes, an absent
/// one the length `u32::MAX` alone; numbers are little-endian.
#[derive(Clone, Debug, Default)]
pub struct TraceHasher {
    hasher: blake3::Hasher,
    /// BLAKE3 is fastest over several KiB at once.
    buffer: Vec<u8>,
}

impl TraceHasher {
    const BUFFER_LEN: usize = 64 * 1024;

    /// The next event.
    pub fn update(&mut self, event: &Event) {
        let buffer = &mut self.buffer;
        buffer.extend_from_slice(&event.time_ns.to_le_bytes());
        buffer.extend_from_slice(&event.incarnation.to_le_bytes());
        put_text(buffer, Some(&event.process));
        put_text(buffer, Some(event.kind.name()));
        put_text(buffer, event.publication.as_deref());
        put_text(buffer, event.path.as_deref());
        match event.uid {
            Some(uid) => {
                buffer.push(1);
                buffer.extend_from_slice(&uid.micros.to_le_bytes());
                buffer.push(uid.sp.0);
                buffer.extend_from_slice(&uid.store.to_le_bytes());
            }
            None => buffer.push(0),
        }
        match &event.hash {
            Some(hash) => {
                buffer.push(1);
                buffer.extend_from_slice(&hash.0);
            }
            None => buffer.push(0),
        }
        put_text(buffer, event.outcome.as_deref());
        put_text(buffer, event.cause.as_deref());
        if buffer.len() >= TraceHasher::BUFFER_LEN {
            self.hasher.update(buffer);
            buffer.clear();
        }
    }

    /// The hash of all events so far.
    pub fn finish(mut self) -> Hash {
        self.hasher.update(&self.buffer);
        Hash(*self.hasher.finalize().as_bytes())
    }
}

fn put_text(buffer: &mut Vec<u8>, text: Option<&str>) {
    let len = text.map_or(u32::MAX, |text| u32::try_from(text.len()).expect("a text of an event is short"));
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.extend_from_slice(text.unwrap_or_default().as_bytes());
}
