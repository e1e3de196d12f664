//! A server in the test: it answers as it is told, and counts who asked for what. Told to ask another one and to spoil what
//! that answers, it is a cache that lies.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What is answered to a target: bytes as they are, after which the connection ends.
type Script = dyn Fn(&Request) -> Vec<u8> + Send + Sync;

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub(crate) struct Origin {
    pub(crate) url: String,
    counts: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Origin {
    pub(crate) fn start(script: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::new(Mutex::new(BTreeMap::new()));
        let (shared, script): (_, Arc<Script>) = (Arc::clone(&counts), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (counts, script) = (Arc::clone(&shared), Arc::clone(&script));
                std::thread::spawn(move || serve(&stream, &counts, &script));
            }
        });
        Origin { url, counts }
    }

    /// How often targets that begin so were asked for.
    pub(crate) fn count(&self, start: &str) -> usize {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|(target, _)| target.starts_with(start)).map(|(_, count)| count).sum()
    }
}

fn serve(mut stream: &TcpStream, counts: &Mutex<BTreeMap<String, usize>>, script: &Arc<Script>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())));
    let headers = headers.collect();
    *counts.lock().unwrap().entry(target.clone()).or_default() += 1;
    stream.write_all(&script(&Request { target, headers })).ok()
}

/// An answer of 200 as a storage point gives it.
pub(crate) fn answer(control: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: {control}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An answer without a body.
pub(crate) fn refusal(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} No\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
}

pub(crate) const OBJECT_CONTROL: &str = "public, max-age=31536000, immutable";
