//! Frames between storage points: any bytes, in any pieces, are the same frames or the same error, and links keep to
//! what their hello allows.

use crate::split;
use acms_engine::{
    protocol::{Instant, SpId, StoreId, message::Header},
    wire::{
        Decoder, Frame, HEAD_LEN, Hello, Versions, WireError, encode_frame, encode_hello, encode_ping,
        link::{Action, LinkEvent, Links},
    },
};

fn header(sp: u8) -> Header {
    Header { epoch: 1, config: [7; 8], from: SpId(sp), store: StoreId { number: 0, nonce: 9 }, stores: Vec::new() }
}

fn hello(sp: u8) -> Hello {
    Hello { cluster: "c".to_owned(), header: header(sp), versions: Versions::FIRST }
}

/// One input: a kind, how the rest is cut, the rest. Kind 0: as it is. Other kinds make frames of it: 1, lengths and
/// checksums are put right; 2, a frame's body after a hello; 3, one message of a frame after a hello.
pub fn check(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let Some((bytes, _)) = split::cut(rest) else { return };
    let made = match kind & 3 {
        0 => bytes.to_vec(),
        1 => put_right(bytes),
        2 => [encode_hello(&hello(1)).expect("it is short"), framed(2, bytes)].concat(),
        _ => [encode_hello(&hello(1)).expect("it is short"), framed(2, &one_message(bytes))].concat(),
    };
    let seeded = [&rest[..1], &made].concat();
    let Some((bytes, ends)) = split::cut(&seeded) else { return };
    let ends: Vec<usize> = ends.collect();
    check_decoder(bytes, &ends);
    check_links(bytes, &ends);
}

/// A frame with this body, whose length and checksum are right.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = encode_ping().to_vec();
    frame[3] = kind;
    frame[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    frame[8..12].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Pieces of the input as frames: two bytes of length, a kind, a body.
fn put_right(mut bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    while let [low, high, kind, rest @ ..] = bytes {
        let (body, rest) = rest.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(rest.len()));
        frames.extend(framed(*kind, body));
        bytes = rest;
    }
    frames
}

/// A body with a good header and one message.
fn one_message(bytes: &[u8]) -> Vec<u8> {
    let empty = encode_frame(&header(1), &[]).expect("it is short");
    let mut body = empty[HEAD_LEN..empty.len() - 4].to_vec();
    body.extend(1u32.to_le_bytes());
    body.extend((bytes.len() as u32).to_le_bytes());
    body.extend(bytes);
    body
}

fn decode(bytes: &[u8], ends: &[usize]) -> (Vec<Frame>, Option<WireError>, u64) {
    let mut decoder = Decoder::new();
    let (mut frames, mut at) = (Vec::new(), 0);
    for &end in ends {
        decoder.push(&bytes[at..end]);
        at = end;
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.next(), Err(error), "an error stays");
                    return (frames, Some(error), decoder.skipped_total());
                }
            }
        }
    }
    (frames, None, decoder.skipped_total())
}

fn check_decoder(bytes: &[u8], ends: &[usize]) {
    let pieces = decode(bytes, ends);
    assert_eq!(pieces, decode(bytes, &[bytes.len()]), "the same frames, however they came");
    for frame in pieces.0 {
        let encoded = match &frame {
            Frame::Hello(hello) => encode_hello(hello),
            Frame::Messages(header, messages) => encode_frame(header, messages),
            Frame::Ping => continue,
        };
        let encoded = encoded.expect("what came in a frame fits one");
        assert_eq!(decode(&encoded, &[encoded.len()]), (vec![frame], None, 0), "what decodes, encodes and decodes");
    }
}

fn events(links: &mut Links<u32>) -> Vec<LinkEvent> {
    std::iter::from_fn(|| links.poll_event()).collect()
}

/// The events of a link to storage point 2 over which `bytes` come from one that dialled it.
fn linked(bytes: &[u8], ends: &[usize]) -> (Vec<LinkEvent>, bool) {
    let now = Instant(1_000_000_000);
    let mut links = Links::<u32>::new(SpId(2), hello(2), (1..=3).map(SpId), 7, now).expect("the hello is short");
    assert!(links.accepted(5, now));
    let (mut at, mut all, mut closed) = (0, Vec::new(), false);
    for &end in ends {
        links.received(5, &bytes[at..end], now);
        at = end;
        all.extend(events(&mut links));
        closed |= std::iter::from_fn(|| links.poll_action()).any(|action| action == Action::Close(5));
    }
    (all, closed)
}

fn check_links(bytes: &[u8], ends: &[usize]) {
    let (events, closed) = linked(bytes, ends);
    assert_eq!((&events, closed), (&linked(bytes, &[bytes.len()]).0, closed));
    let mut is_up = false;
    for event in events {
        match event {
            LinkEvent::Up(sp, theirs) => {
                assert!(!is_up && sp == SpId(1) && theirs.from == sp);
                assert_eq!((theirs.epoch, theirs.config), (1, [7; 8]), "only of the same configuration");
                is_up = true;
            }
            LinkEvent::Messages(sp, theirs, _) => assert!(is_up && theirs.from == sp, "nothing before the hello"),
            LinkEvent::Down(..) => {
                assert!(is_up && closed);
                is_up = false;
            }
            LinkEvent::Failed(..) => assert!(closed && !is_up),
        }
    }
}
