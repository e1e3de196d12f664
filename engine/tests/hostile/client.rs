//! A client that writes what it likes and reads what comes.

use acms_engine::client::response::{Head, Progress, ResponseParser};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// Nothing takes longer, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(addr: &str) -> Client {
        let started = Instant::now();
        loop {
            match TcpStream::connect(addr) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    return Client { stream, unread: Vec::new() };
                }
                Err(error) if started.elapsed() > PATIENCE => panic!("{addr}: {error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Writes. False if the server has ended the connection.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        match self.stream.write_all(bytes) {
            Ok(()) => true,
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => false,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Bytes that come; none: the connection has ended.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        if !self.unread.is_empty() {
            return std::mem::take(&mut self.unread);
        }
        let mut buffer = vec![0; 64 << 10];
        match self.stream.read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                buffer
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Vec::new(),
            Err(error) => panic!("nothing comes and the connection does not end: {error}"),
        }
    }

    /// The next answer; none: the connection has ended before it.
    pub(crate) fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut parser = ResponseParser::new(method == "HEAD", 64 << 20);
        let mut body = Vec::new();
        loop {
            let bytes = self.read();
            if bytes.is_empty() {
                assert!(!parser.has_begun(), "the connection ends within an answer");
                return None;
            }
            let progress = parser.push(&bytes).unwrap();
            body.extend(parser.take_body());
            if let Progress::Done { unread } = progress {
                self.unread = bytes[bytes.len() - unread..].to_vec();
                return Some(Answer { head: parser.head().unwrap().clone(), body });
            }
        }
    }

    /// Whether the server ends the connection with nothing more to say.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.read().is_empty()
    }
}

/// One request on a connection of its own.
pub(crate) fn request(addr: &str, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut client = Client::connect(addr);
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n");
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    if !body.is_empty() || method == "PUT" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    client.send(&[(head + "\r\n").as_bytes(), body].concat());
    client.answer_to(method).unwrap()
}

pub(crate) fn get(addr: &str, target: &str) -> Answer {
    request(addr, "GET", target, &[], b"")
}

/// Publishes until it is accepted.
pub(crate) fn publish(addr: &str, path: &str, content: &[u8]) -> Answer {
    let started = Instant::now();
    loop {
        let answer = request(addr, "PUT", &format!("/v1/config/{path}"), &[], content);
        if answer.status() == 201 {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{}", answer.text());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A metric by its name with labels.
pub(crate) fn metric(addr: &str, name: &str) -> u64 {
    let text = get(addr, "/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}
