//! An answer that many connections are sent.

use crate::runtime::http::answer::{HttpDate, Outbox};
use bytes::Bytes;
use std::{borrow::Cow, collections::VecDeque};

/// JSON that may be kept for as long as its Cache-Control says.
#[derive(Clone, Debug)]
pub struct SharedAnswer {
    /// Head and body, for a plain GET on a connection that stays open.
    pub(super) whole: Bytes,
    control: Cow<'static, str>,
    body: Bytes,
}

impl SharedAnswer {
    /// An answer of 200 with this Cache-Control and body.
    pub fn new(control: impl Into<Cow<'static, str>>, body: Bytes, date: &HttpDate) -> SharedAnswer {
        let mut answer = SharedAnswer { whole: Bytes::new(), control: control.into(), body };
        let (mut bytes, mut queue) = (Vec::with_capacity(256 + answer.body.len()), VecDeque::new());
        let mut out = Outbox::new(&mut bytes, &mut queue, date.clone());
        answer.write_head(&mut out);
        out.body(&answer.body);
        answer.whole = bytes.into();
        answer
    }

    fn write_head(&self, out: &mut Outbox<'_>) {
        out.begin(200).header("Cache-Control", &self.control).header("Content-Type", "application/json");
    }

    /// Writes the answer in the form that the request asked for.
    pub fn write(&self, out: &mut Outbox<'_>) {
        self.write_head(out);
        out.shared_body(self.body.clone());
    }
}
