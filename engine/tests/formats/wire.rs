//! Frames: what is encoded comes back, in parts of any size; what anyone else sends is refused or harmless.

use crate::generated::{header, message};
use acms_engine::protocol::{
    Hash, Manifest, Message, SpId, StoreId, Uid,
    durable::InlineContent,
    message::{CHUNK_LEN, Header, Vector},
};
use acms_engine::wire::{
    Decoder, FRAME_LEN_MAX, FRAME_LEN_TARGET, Frame, HEAD_LEN, Hello, VERSION, Versions, WireError, encode_frame,
    encode_frames, encode_hello, encode_ping,
};
use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

fn decode_all(bytes: &[u8], step: usize) -> Result<Vec<Frame>, WireError> {
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    for part in bytes.chunks(step.max(1)) {
        decoder.push(part);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    assert_eq!(decoder.buffered(), 0);
    Ok(frames)
}

fn some_header() -> Header {
    Header { epoch: 1, config: [7; 8], from: SpId(2), store: StoreId { number: 0, nonce: 9 }, stores: Vec::new() }
}

/// A frame with this body and a right checksum.
fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = encode_ping().to_vec();
    frame[3] = kind;
    frame[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    frame[8..12].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

proptest! {
    #[test]
    fn frames_come_back_from_parts_of_any_size(
        cluster in "[a-z0-9-]{1,63}", header in header(), messages in vec(message(), 0..12), step in 1usize..600,
        min in 1u8..4, more in 0u8..3,
    ) {
        let versions = Versions { min, max: min + more };
        let hello = Hello { cluster, header: header.clone(), versions };
        let mut bytes = encode_hello(&hello).unwrap();
        bytes.extend(encode_ping());
        bytes.extend(encode_frame(&header, &messages).unwrap());
        let expected = vec![Frame::Hello(hello), Frame::Ping, Frame::Messages(header, messages)];
        prop_assert_eq!(decode_all(&bytes, step), Ok(expected));
    }

    #[test]
    fn any_damaged_byte_is_noticed(header in header(), messages in vec(message(), 0..4), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let mut bytes = encode_frame(&header, &messages).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        // A damaged length may also make the frame look longer than it is: then the rest never comes.
        match decoder.next() {
            Ok(None) => prop_assert!((4..8).contains(&at)),
            Ok(Some(frame)) => prop_assert!(at == 3, "{frame:?}"),
            Err(_) => {}
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(kind in 0..5u8, body in vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::new();
        decoder.push(&framed(kind, &body));
        let _ = decoder.next();
    }

    #[test]
    fn arbitrary_messages_never_panic(tag in 0..15u8, fields in vec(any::<u8>(), 0..300)) {
        let mut frame = encode_frame(&some_header(), &[]).unwrap()[HEAD_LEN..].to_vec();
        let count_at = frame.len() - 4;
        frame[count_at..].copy_from_slice(&1u32.to_le_bytes());
        frame.extend_from_slice(&(fields.len() as u32 + 1).to_le_bytes());
        frame.push(tag);
        frame.extend_from_slice(&fields);
        let mut decoder = Decoder::new();
        decoder.push(&framed(2, &frame));
        // What is understood has one encoding only.
        if let Ok(Some(Frame::Messages(header, messages))) = decoder.next() && decoder.skipped_total() == 0 {
            let again = encode_frame(&header, &messages).unwrap();
            prop_assert_eq!(&again[HEAD_LEN..], frame.as_slice());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), step in 1usize..50) {
        let mut decoder = Decoder::new();
        for part in bytes.chunks(step) {
            decoder.push(part);
            let _ = decoder.next();
        }
    }
}

#[test]
fn unknown_messages_are_skipped_and_counted() {
    let known = Message::Vector(Vector { uid: Uid::ZERO, bits: Default::default() });
    let frame = encode_frame(&some_header(), &[known.clone(), known.clone()]).unwrap();
    let mut body = frame[HEAD_LEN..].to_vec();
    let header_len = encode_frame(&some_header(), &[]).unwrap().len() - HEAD_LEN - 4;
    body[header_len..header_len + 4].copy_from_slice(&3u32.to_le_bytes());
    let unknown = [&3u32.to_le_bytes()[..], &[99, 1, 2]].concat();
    body.splice(header_len + 4..header_len + 4, unknown);
    let mut decoder = Decoder::new();
    decoder.push(&framed(2, &body));
    assert_eq!(decoder.next(), Ok(Some(Frame::Messages(some_header(), vec![known.clone(), known]))));
    assert_eq!(decoder.skipped_total(), 1);
}

#[test]
fn a_hello_may_have_fields_of_a_later_version() {
    let hello = Hello { cluster: "demo".into(), header: some_header(), versions: Versions::up_to(4) };
    let mut body = encode_hello(&hello).unwrap()[HEAD_LEN..].to_vec();
    body.extend_from_slice(b"later");
    assert_eq!(decode_all(&framed(1, &body), 7), Ok(vec![Frame::Hello(hello)]));
}

#[test]
fn what_is_no_frame_is_refused_as_early_as_possible() {
    let refuse = |bytes: &[u8]| {
        let mut decoder = Decoder::expecting_hello();
        decoder.push(bytes);
        let error = decoder.next().unwrap_err();
        assert_eq!(decoder.next(), Err(error), "an error stays");
        error
    };
    assert_eq!(refuse(b"G"), WireError::Magic);
    assert_eq!(refuse(b"AB"), WireError::Magic);
    assert_eq!(refuse(b"AC\x02"), WireError::Version(VERSION + 1));
    assert_eq!(refuse(&framed(9, b"")), WireError::Kind(9));
    assert_eq!(refuse(&encode_ping()), WireError::NoHello);
    assert_eq!(refuse(&encode_frame(&some_header(), &[]).unwrap()), WireError::NoHello);
    let mut huge = framed(1, b"");
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(refuse(&huge), WireError::TooLarge { .. }));
}

#[test]
fn frames_are_split_and_keep_their_order() {
    let chunk = |number: u64| Message::ContentChunk {
        hash: Hash::default(),
        offset: number * u64::from(CHUNK_LEN),
        total: u64::MAX / 2,
        bytes: Bytes::from(vec![number as u8; CHUNK_LEN as usize]),
    };
    let messages: Vec<Message> = (0..11).map(chunk).collect();
    let encoded = encode_frames(&some_header(), &messages);
    assert_eq!((encoded.frames.len(), encoded.left_out), (3, 0));
    assert!(encoded.frames.iter().all(|frame| frame.len() <= FRAME_LEN_TARGET + 2 * CHUNK_LEN as usize));
    let mut back = Vec::new();
    for frame in decode_all(&encoded.frames.concat(), 100_000).unwrap() {
        let Frame::Messages(header, messages) = frame else { panic!("{frame:?}") };
        assert_eq!(header, some_header());
        back.extend(messages);
    }
    assert_eq!(back, messages);
}

#[test]
fn a_message_that_fits_no_frame_is_left_out_alone() {
    let vector = Message::Vector(Vector { uid: Uid::ZERO, bits: Default::default() });
    let node = |len: usize| Message::Node { bytes: Bytes::from(vec![0; len]) };
    let messages = [vector.clone(), node(FRAME_LEN_MAX), vector.clone(), node(FRAME_LEN_MAX - 100), vector.clone()];
    let encoded = encode_frames(&some_header(), &messages);
    assert_eq!(encoded.left_out, 1);
    let counts: Vec<usize> = decode_all(&encoded.frames.concat(), 1 << 20)
        .unwrap()
        .iter()
        .map(|frame| if let Frame::Messages(_, messages) = frame { messages.len() } else { 0 })
        .collect();
    assert_eq!(counts.iter().sum::<usize>(), 4);
    assert!(matches!(encode_frame(&some_header(), &messages), Err(WireError::TooLarge { .. })));
    assert_eq!(encode_frames(&some_header(), &[]).frames.len(), 0);
}

#[test]
fn contents_share_the_memory_of_their_frame() {
    let content = Bytes::from(vec![5; 60_000]);
    let manifest: Manifest = Manifest::decode(&{
        let entry = acms_engine::protocol::Entry {
            path: "a".parse().unwrap(),
            hash: Hash::of(&content),
            size: content.len() as u64,
            content_type: String::new(),
            flags: Default::default(),
        };
        let (publisher, uid) = ("p".into(), Uid { micros: 1, sp: SpId(1), store: 0 });
        Manifest { uid, publisher, key: None, entries: vec![entry], unknown: Vec::new() }.encode()
    })
    .unwrap();
    let contents = vec![InlineContent { hash: Hash::of(&content), bytes: content }; 2];
    let offer = Message::Offer { manifest: manifest.into(), contents, agreed: false };
    let mut decoder = Decoder::new();
    decoder.push(&encode_frame(&some_header(), &[offer]).unwrap());
    let Ok(Some(Frame::Messages(_, messages))) = decoder.next() else { panic!("no frame") };
    let Message::Offer { contents, .. } = &messages[0] else { panic!("no offer") };
    let distance = contents[1].bytes.as_ptr() as usize - contents[0].bytes.as_ptr() as usize;
    assert_eq!(distance, 60_000 + 32 + 3);
}
