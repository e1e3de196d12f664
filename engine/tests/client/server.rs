//! A tiny HTTP server on loopback that says what a test wants it to say.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Number of its connection.
    pub(crate) connection: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What to do about a request.
pub(crate) enum Reply {
    /// Say this, keep the connection.
    Say(String),
    /// Say this, close the connection.
    SayAndClose(String),
    /// Say nothing for as long as the test runs.
    Silence,
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers each request by `handle`, which is told how many came before it.
    pub(crate) fn start(handle: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::with_body(true, handle)
    }

    /// Answers before it has read any of the body.
    pub(crate) fn hasty(handle: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::with_body(false, handle)
    }

    fn with_body(body: bool, handle: impl Fn(usize, &Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, handle) = (seen.clone(), Arc::new(handle));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (log, handle) = (log.clone(), handle.clone());
                thread::spawn(move || serve(stream, connection, body, &log, &*handle));
            }
        });
        Server { url, seen }
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

/// An address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn serve(
    stream: TcpStream,
    connection: usize,
    body: bool,
    log: &Mutex<Vec<Request>>,
    handle: &(dyn Fn(usize, &Request) -> Reply + Send + Sync),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader, connection, body) {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        match handle(before, &request) {
            Reply::Say(text) => writer.write_all(text.as_bytes()).unwrap(),
            Reply::SayAndClose(text) => {
                writer.write_all(text.as_bytes()).unwrap();
                // Lingers a little, so that a reset does not overtake what was said.
                let _ = writer.shutdown(std::net::Shutdown::Write);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            Reply::Silence => loop {
                thread::park();
            },
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>, connection: usize, body: bool) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|len| *len > 0).map(|_| line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut request = Request { method: words.next()?, target: words.next()?, connection, ..Request::default() };
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    let len = request.header("content-length").map_or(0, |len| len.parse().unwrap());
    if body {
        request.body.resize(len, 0);
        reader.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

/// A response with Content-Length.
pub(crate) fn response(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A response to a publication.
pub(crate) fn outcome(status: u16, word: &str, more: &str) -> String {
    response(status, &format!("ACMS-Outcome: {word}\r\n"), &format!("{{\"outcome\":\"{word}\"{more}}}"))
}
