//! HTTP/1.1 on the server's side: heads by `httparse`, framing rules of our own, answers. Nothing here touches a socket.

pub mod answer;
pub mod body;
pub mod head;
pub mod range;
pub mod target;
