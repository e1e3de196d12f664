//! HTTP framing: malformed heads and bodies, and the shapes that request smuggling is made of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use acms_engine::runtime::http::{
    body::{BodyReader, Piece},
    head::{self, Framing, Method},
};

/// Status of a refused head, or its method, framing, keep-alive and length.
fn parse(input: &[u8]) -> Result<Option<(Method, Framing, bool, usize)>, u16> {
    let mut room = head::header_room();
    match head::parse(input, &mut room) {
        Ok(Some((head, len))) => Ok(Some((head.method, head.framing, head.keep_alive, len))),
        Ok(None) => Ok(None),
        Err(error) => Err(error.status),
    }
}

fn get(headers: &str) -> Vec<u8> {
    format!("GET /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes()
}

#[test]
fn good_heads() {
    let ok = |input: &[u8]| parse(input).unwrap().unwrap();
    assert_eq!(ok(&get("")), (Method::Get, Framing::None, true, get("").len()));
    assert!(!ok(&get("Connection: keep-alive, Close\r\n")).2);
    assert_eq!(ok(&get("Content-Length: 0\r\n")).1, Framing::Length(0));
    assert_eq!(ok(&get("content-length: 12\r\nContent-Length: 12\r\n")).1, Framing::Length(12));
    assert_eq!(ok(&get("Transfer-Encoding: Chunked\r\n")).1, Framing::Chunked);
    assert!(!ok(b"GET /x HTTP/1.0\r\n\r\n").2);
    assert!(ok(b"GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").2);
    assert_eq!(ok(b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n").0, Method::NotAllowed);
    for target in ["http://a/x?y", "HTTPS://a:7400/x", "https://[::1]:7400", "http://a?x", "/x?y?z"] {
        assert_eq!(ok(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).0, Method::Get, "{target}");
    }
    assert_eq!(ok(b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n").0, Method::Options);
    assert_eq!(ok(b"\r\n\r\nGET /x HTTP/1.0\r\n\r\n").3, 23, "empty lines before a request are passed over");
    let two = [get(""), get("Connection: close\r\n")].concat();
    assert_eq!(ok(&two).3, get("").len(), "the second of a pipeline is left alone");
    for cut in 0..get("").len() {
        assert_eq!(parse(&get("")[..cut]), Ok(None), "cut at {cut}");
    }
}

#[test]
fn bad_heads_and_what_they_get() {
    let many = "A: b\r\n".repeat(65);
    let long = format!("A: {}\r\n", "b".repeat(9000));
    let cases: Vec<(Vec<u8>, u16)> = vec![
        (b"nonsense\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\n\r\n".to_vec(), 400),
        (get("Host: b\r\n"), 400),
        (b"GET /x HTTP/2.0\r\nHost: a\r\n\r\n".to_vec(), 505),
        (b"BREW /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 501),
        (b"GET x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET ftp://a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET\t/x HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1 \r\nHost: a\r\n\r\n".to_vec(), 400),
        (b"GET /x\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a, b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a/b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: u@a\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nA\x0b: b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\nHost: a\n\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nA: b\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost : a\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n".to_vec(), 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nA: b\0\r\n\r\n".to_vec(), 400),
        (get("Content-Length: +1\r\n"), 400),
        (get("Content-Length: -1\r\n"), 400),
        (get("Content-Length: 0x10\r\n"), 400),
        (get("Content-Length: 1 2\r\n"), 400),
        (get("Content-Length: 5, 5\r\n"), 400),
        (get("Content-Length:\r\n"), 400),
        (get("Content-Length: 99999999999999999999\r\n"), 413),
        (get("Content-Length: 5\r\nContent-Length: 6\r\n"), 400),
        (get("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), 400),
        (get("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (get("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), 501),
        (get("Transfer-Encoding: gzip\r\n"), 400),
        (get("Transfer-Encoding: identity\r\n"), 400),
        (get("Transfer-Encoding: chunked, chunked\r\n"), 400),
        (get("Transfer-Encoding: chunked;q=1\r\n"), 400),
        (get("Transfer-Encoding:\r\n"), 400),
        (get("Transfer-Encoding: chunked, identity\r\n"), 400),
        (get("Transfer-Encoding: xchunked\r\n"), 400),
        (get("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400),
        (get("Transfer-Encoding: \x0bchunked\r\n"), 400),
        (b"GET /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), 400),
        (get("Expect: money\r\n"), 417),
        (get(&many), 431),
        (get(&long), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(5000)).into_bytes(), 414),
        (format!("GET /{}", "x".repeat(9000)).into_bytes(), 414),
        ("\r\n".repeat(5000).into_bytes(), 431),
        (format!("GET /x HTTP/1.1\r\nA: {}", "b".repeat(9000)).into_bytes(), 431),
    ];
    for (input, status) in cases {
        let shown = String::from_utf8_lossy(&input[..input.len().min(80)]).into_owned();
        assert_eq!(parse(&input), Err(status), "{shown:?}");
    }
}

/// The content of a body given in steps of `step` bytes, and how many bytes were taken.
fn read_body(framing: Framing, input: &[u8], step: usize) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut reader = BodyReader::new(framing);
    let (mut content, mut at, mut seen) = (Vec::new(), 0, 0);
    loop {
        let (taken, piece) = reader.next(&input[at..seen]).map_err(|_| ())?;
        at += taken;
        match piece {
            Piece::Data(data) => content.extend_from_slice(data),
            Piece::End => return Ok(Some((content, at))),
            Piece::NeedMore if seen == input.len() => return Ok(None),
            Piece::NeedMore => seen = (seen + step).min(input.len()),
        }
    }
}

#[test]
fn bodies_end_where_they_should_however_they_are_cut() {
    let chunked = b"5\r\nhello\r\n006;name=\"v\"\r\n world\r\n0\r\nTrailer: x\r\n\r\nGET /next";
    for step in 1..chunked.len() {
        let (content, taken) = read_body(Framing::Chunked, chunked, step).unwrap().unwrap();
        assert_eq!((content.as_slice(), taken), (b"hello world".as_slice(), chunked.len() - 9), "step {step}");
    }
    for step in 1..8 {
        assert_eq!(read_body(Framing::Length(3), b"abcGET", step), Ok(Some((b"abc".to_vec(), 3))));
    }
    assert_eq!(read_body(Framing::None, b"GET", 1), Ok(Some((Vec::new(), 0))));
    assert_eq!(read_body(Framing::Chunked, b"5\r\nhel", 1), Ok(None));
    let small = format!("{}0\r\n\r\n", "1;ext\r\nx\r\n".repeat(20_000));
    assert_eq!(read_body(Framing::Chunked, small.as_bytes(), 1000).unwrap().unwrap().0.len(), 20_000);
}

#[test]
fn malformed_chunks_are_refused() {
    let long_line = format!("5;{}\r\nhello\r\n", "x".repeat(300));
    let long_trailer = format!("0\r\nA: {}\r\n\r\n", "x".repeat(5000));
    let flood = format!("{}0\r\n\r\n", format!("1;{}\r\nx\r\n", "e".repeat(200)).repeat(200));
    let cases: Vec<&[u8]> = vec![
        b"\r\nhello",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\r\n",
        b" 5\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"-5\r\nhello\r\n",
        b";\r\n",
        b"5;a\nb\r\nhello\r\n",
        b"ffffffffffffffff\r\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\n\n",
        b"0\r\nA\r\n\r\n",
        b"0\r\n: b\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n folded\r\n\r\n",
        b"0\r\nA: b\x01\r\n\r\n",
        b"5;a\0\r\nhello\r\n",
        b"g\r\n",
        flood.as_bytes(),
        long_line.as_bytes(),
        long_trailer.as_bytes(),
    ];
    for input in cases {
        for step in [1, 7, input.len()] {
            assert_eq!(read_body(Framing::Chunked, input, step), Err(()), "{:?}", String::from_utf8_lossy(input));
        }
    }
}
