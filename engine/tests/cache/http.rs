//! HTTP as tests speak it: one request on a connection, which ends with the answer.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        format!("{}\n\n{}", self.head, String::from_utf8_lossy(&self.body))
    }

    /// Whether all that the head promised came.
    pub(crate) fn is_whole(&self) -> bool {
        self.header("content-length").is_some_and(|len| len.parse() == Ok(self.body.len()))
    }
}

pub(crate) fn get(url: &str, target: &str) -> Answer {
    ask(url, "GET", target, &[], b"")
}

pub(crate) fn ask(url: &str, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let stream = send(url, method, target, headers, body);
    receive(stream)
}

/// Sends a request and leaves the answer for [`receive`].
pub(crate) fn send(url: &str, method: &str, target: &str, headers: &[&str], body: &[u8]) -> TcpStream {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: acms\r\nConnection: close\r\n");
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    if method == "PUT" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).unwrap();
    stream
}

pub(crate) fn receive(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    // A connection that is broken off may end with a reset.
    let _ = stream.read_to_end(&mut answer);
    parse(&answer)
}

pub(crate) fn parse(answer: &[u8]) -> Answer {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

/// A figure of `/metrics`; 0 if it is not there.
pub(crate) fn metric(url: &str, name: &str) -> u64 {
    let text = String::from_utf8(get(url, "/metrics").body).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}
