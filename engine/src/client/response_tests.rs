use super::*;
use proptest::prelude::*;

fn parse(parser: &mut ResponseParser, bytes: &[u8], step: usize) -> Result<(Progress, Vec<u8>), ResponseError> {
    let mut progress = Progress::Head;
    for part in bytes.chunks(step) {
        progress = parser.push(part)?;
    }
    Ok((progress, parser.take_body()))
}

#[test]
fn sized_body_in_parts_of_any_size() {
    let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\nhello";
    for step in 1..bytes.len() + 1 {
        let mut parser = ResponseParser::new(false, 5);
        let (progress, body) = parse(&mut parser, bytes, step).unwrap();
        assert_eq!((progress, body.as_slice()), (Progress::Done { unread: 0 }, &b"hello"[..]));
        assert_eq!(parser.head().unwrap().header("etag"), Some("\"x\""));
        assert!(parser.keeps_alive());
    }
}

#[test]
fn chunked_body_with_extension_and_trailer() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n";
    for step in 1..bytes.len() + 1 {
        let mut parser = ResponseParser::new(false, 100);
        let (progress, body) = parse(&mut parser, bytes, step).unwrap();
        assert_eq!((progress, body.as_slice()), (Progress::Done { unread: 0 }, &b"abcde"[..]));
        assert!(parser.has_continued());
    }
}

#[test]
fn a_body_that_ends_early_is_an_error() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"",
    ] {
        let mut parser = ResponseParser::new(false, 100);
        parser.push(bytes).unwrap();
        assert_eq!(parser.end(), Err(ResponseError::Truncated));
    }
}

#[test]
fn a_body_without_framing_ends_with_the_connection() {
    let mut parser = ResponseParser::new(false, 100);
    assert_eq!(parser.push(b"HTTP/1.0 200 OK\r\n\r\nabc"), Ok(Progress::Body));
    parser.end().unwrap();
    assert_eq!(parser.take_body(), b"abc");
    assert!(!parser.keeps_alive());
}

#[test]
fn answers_without_a_body() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP";
    assert_eq!(ResponseParser::new(true, 0).push(head), Ok(Progress::Done { unread: 4 }));
    for status in ["204", "304"] {
        let bytes = format!("HTTP/1.1 {status} x\r\nETag: \"1\"\r\n\r\n");
        let mut parser = ResponseParser::new(false, 0);
        assert_eq!(parser.push(bytes.as_bytes()), Ok(Progress::Done { unread: 0 }));
        assert!(parser.keeps_alive());
    }
}

#[test]
fn bounds_and_nonsense_are_refused() {
    let refuse = |bytes: &[u8]| ResponseParser::new(false, 4).push(bytes).unwrap_err();
    assert_eq!(refuse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), ResponseError::BodyTooLarge { max: 4 });
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    assert_eq!(refuse(chunked), ResponseError::BodyTooLarge { max: 4 });
    assert!(matches!(refuse(b"SSH-2.0-x\r\n"), ResponseError::NotHttp(_)));
    for framing in [
        "Content-Length: +1",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked\r\n\r\nxyz",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nab",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n");
        assert!(matches!(refuse(bytes.as_bytes()), ResponseError::Framing(_)), "{framing}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "y".repeat(HEAD_LEN_MAX));
    assert_eq!(refuse(long.as_bytes()), ResponseError::HeadTooLarge);
}

#[test]
fn a_value_makes_no_header_of_its_own() {
    let bytes = encode_request("PUT", "h:1", "/v1/config/a b\r\nX: y", &[("Idempotency-Key", "k\r\nEvil: 1")]);
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text, "PUT /v1/config/a?b??X:?y HTTP/1.1\r\nHost: h:1\r\nIdempotency-Key: k??Evil: 1\r\n\r\n");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(head in prop::sample::select(vec![
        "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    ]), bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
        let mut parser = ResponseParser::new(false, 1000);
        let all = [head.as_bytes(), &bytes].concat();
        for part in all.chunks(step) {
            if !matches!(parser.push(part), Ok(Progress::Head | Progress::Body)) { break }
        }
        let _ = parser.end();
    }
}
