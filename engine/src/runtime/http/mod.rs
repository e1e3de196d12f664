//! HTTP/1.1 on the server's side: heads by `httparse`, framing rules of our own, answers; and a server on an event loop
//! that storage points and caches share ([`server`]), each with its own [`service`].

pub mod answer;
pub mod body;
pub mod cause;
pub mod connection;
pub mod head;
pub mod object;
pub mod range;
mod requests;
pub mod server;
pub mod service;
pub mod shared;
pub mod target;
