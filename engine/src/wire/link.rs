//! What storage points make of their connections to each other, without a socket: one link for each pair, dialled by the
//! one with the smaller id; hello and what it must say; pings in silence and an end after 4 s of it; what is said first
//! when not all can be said at once; when to dial again.
//!
//! A driver owns the connections, each under a name `K` of its own that is never used again while the link knows it. It
//! says what happened ([`Links::accepted`], [`Links::received`], ...), does what [`Links::poll_action`] asks for, and
//! writes what [`Links::unsent`] gives as far as the connection takes it.
//!
//! Invariant: nothing but a hello is sent before the other end's hello with equal cluster, epoch and configuration has
//! come, so that a paused peer gets no publications into its socket buffers by a fresh connection.

use super::{Decoder, Frame, Hello, Versions, WireError, encode_hello, encode_ping, set_version};
use crate::protocol::{Duration, Instant, Message, SpId, message::Header};
use bytes::{Buf as _, Bytes};
use std::collections::{BTreeMap, VecDeque};

const PING_AFTER: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(4);
const REDIAL_MIN: Duration = Duration::from_millis(50);
const REDIAL_MAX: Duration = Duration::from_secs(1);
/// More than this unsent closes the link; what it would have carried is sent again later.
const QUEUED_LEN_MAX: usize = 64 << 20;
/// Connections that have not said hello yet.
const STRANGERS_MAX: usize = 64;

/// What a link has to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkEvent {
    /// The peer has said hello; everything of its header holds from now on.
    Up(SpId, Header),
    /// The link is gone, and why.
    Down(SpId, String),
    /// Messages came.
    Messages(SpId, Header, Vec<Message>),
    /// A connection to or from who says that it is this storage point came to nothing.
    Failed(SpId, String),
}

/// What a driver is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action<K> {
    /// Connect to this storage point, then call [`Links::dialled`] or [`Links::not_dialled`].
    Dial(SpId),
    /// End this connection; nothing more of it is wanted.
    Close(K),
}

#[derive(Debug)]
struct Channel {
    decoder: Decoder,
    /// Frames of the protocol, before those that carry contents.
    control: VecDeque<Bytes>,
    bulk: VecDeque<Bytes>,
    /// What is left of the frame that is being written.
    current: Bytes,
    queued_len: usize,
    greeted: bool,
    /// Of all that goes over it behind the hellos.
    version: u8,
    /// Whose certificate the other end has shown, where certificates are.
    certified: Option<SpId>,
    heard_at: Instant,
    sent_at: Instant,
}

impl Channel {
    fn new(hello: Bytes, now: Instant) -> Channel {
        Channel {
            decoder: Decoder::expecting_hello(),
            control: VecDeque::new(),
            bulk: VecDeque::new(),
            queued_len: hello.len(),
            current: hello,
            greeted: false,
            version: Versions::FIRST.max,
            certified: None,
            heard_at: now,
            sent_at: now,
        }
    }

    /// Whether the other end may say that it is `sp`.
    fn check_certified(&self, sp: SpId) -> Result<(), Problem> {
        match self.certified {
            Some(other) if other != sp => {
                Err(Problem("certificate", format!("it has the certificate of storage point {other}")))
            }
            _ => Ok(()),
        }
    }

    /// The other end has said a hello that counts.
    fn greet(&mut self, version: u8) {
        (self.greeted, self.version) = (true, version);
        self.decoder.set_version(version);
    }

    fn queue(&mut self, mut frame: Vec<u8>, is_bulk: bool) {
        set_version(&mut frame, self.version);
        let frame = Bytes::from(frame);
        self.queued_len += frame.len();
        if is_bulk { self.bulk.push_back(frame) } else { self.control.push_back(frame) }
    }
}

#[derive(Debug)]
struct Link<K> {
    channel: Option<(K, Channel)>,
    /// It was asked to be dialled, and nobody has said yet what came of it.
    dialling: bool,
    redial_at: Instant,
    back_off: Duration,
}

/// All links of a storage point.
#[derive(Debug)]
pub struct Links<K> {
    me: SpId,
    hello: Hello,
    hello_frame: Bytes,
    links: BTreeMap<SpId, Link<K>>,
    strangers: BTreeMap<K, Channel>,
    random: u64,
    events: VecDeque<LinkEvent>,
    actions: VecDeque<Action<K>>,
    refused: BTreeMap<&'static str, u64>,
}

/// Why a connection cannot be used: for those who count, and for people.
struct Problem(&'static str, String);

impl From<WireError> for Problem {
    fn from(error: WireError) -> Problem {
        Problem(error.label(), error.to_string())
    }
}

impl<K: Copy + Ord> Links<K> {
    /// Links to `others`, all down. Fails if the hello is too long.
    pub fn new(
        me: SpId,
        hello: Hello,
        others: impl Iterator<Item = SpId>,
        seed: u64,
        now: Instant,
    ) -> Result<Links<K>, WireError> {
        let link = || Link { channel: None, dialling: false, redial_at: now, back_off: REDIAL_MIN };
        Ok(Links {
            me,
            hello_frame: encode_hello(&hello)?.into(),
            hello,
            links: others.filter(|sp| *sp != me).map(|sp| (sp, link())).collect(),
            strangers: BTreeMap::new(),
            random: seed | 1,
            events: VecDeque::new(),
            actions: VecDeque::new(),
            refused: BTreeMap::new(),
        })
    }

    /// What hellos say from now on: a process whose store was replaced must find out from whomever it reaches, and
    /// nobody sends it anything else.
    pub fn set_header(&mut self, header: Header) {
        self.hello.header = header;
        if let Ok(frame) = encode_hello(&self.hello) {
            self.hello_frame = frame.into();
        }
    }

    /// How many connections were ended for what came over them or did not, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.refused.iter().map(|(reason, count)| (*reason, *count))
    }

    fn count(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    /// The next thing that a link has to say.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        self.events.pop_front()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action<K>> {
        self.actions.pop_front()
    }

    /// Links that are up: (peer, bytes not yet sent).
    pub fn up(&self) -> impl Iterator<Item = (SpId, usize)> + '_ {
        let greeted = |link: &'_ Link<K>| link.channel.as_ref().filter(|(_, c)| c.greeted).map(|(_, c)| c.queued_len);
        self.links.iter().filter_map(move |(sp, link)| Some((*sp, greeted(link)?)))
    }

    /// Whether messages to `sp` can be sent.
    pub fn is_up(&self, sp: SpId) -> bool {
        self.links.get(&sp).and_then(|link| link.channel.as_ref()).is_some_and(|(_, channel)| channel.greeted)
    }

    /// The version of the link to `sp`, if it is up.
    pub fn version(&self, sp: SpId) -> Option<u8> {
        let (_, channel) = self.links.get(&sp)?.channel.as_ref()?;
        channel.greeted.then_some(channel.version)
    }

    /// All connections that are known.
    pub fn connections(&self) -> impl Iterator<Item = K> + '_ {
        let links = self.links.values().filter_map(|link| link.channel.as_ref()).map(|(key, _)| *key);
        links.chain(self.strangers.keys().copied())
    }

    /// Whether the other end of this connection has said a hello that counts.
    pub fn is_greeted(&mut self, key: K) -> bool {
        self.channel(key).is_some_and(|channel| channel.greeted)
    }

    // ---- What happened --------------------------------------------------------------------------------------------

    /// Someone has connected; false if there are too many already, and the connection is not wanted.
    pub fn accepted(&mut self, key: K, now: Instant) -> bool {
        if self.strangers.len() >= STRANGERS_MAX {
            self.count("too_many");
            return false;
        }
        self.strangers.insert(key, Channel::new(self.hello_frame.clone(), now));
        true
    }

    /// A connection to `sp` has been begun.
    pub fn dialled(&mut self, sp: SpId, key: K, now: Instant) {
        let Some(link) = self.links.get_mut(&sp) else { return self.actions.push_back(Action::Close(key)) };
        link.dialling = false;
        if link.channel.is_some() {
            return self.actions.push_back(Action::Close(key));
        }
        link.channel = Some((key, Channel::new(self.hello_frame.clone(), now)));
    }

    /// No connection to `sp` can be begun.
    pub fn not_dialled(&mut self, sp: SpId, problem: String, now: Instant) {
        let Some(link) = self.links.get_mut(&sp) else { return };
        (link.dialling, link.redial_at) = (false, now.after(REDIAL_MAX));
        self.events.push_back(LinkEvent::Failed(sp, problem));
    }

    /// A connection is gone; whether it was known.
    pub fn closed(&mut self, key: K, problem: &str, now: Instant) -> bool {
        if self.strangers.remove(&key).is_some() {
            return true;
        }
        let found = self.link_of(key);
        if let Some(sp) = found {
            self.end(sp, problem, now);
        }
        found.is_some()
    }

    /// Bytes came over a connection that make no frame yet, or were handed in otherwise.
    pub fn heard(&mut self, key: K, at: Instant) {
        if let Some(channel) = self.channel(key) {
            channel.heard_at = channel.heard_at.max(at);
        }
    }

    /// The other end of a connection has shown the certificate of `sp`: it may be no other.
    pub fn certified(&mut self, key: K, sp: SpId) {
        if let Some(channel) = self.channel(key) {
            channel.certified = Some(sp);
        }
    }

    /// Bytes came over a connection.
    pub fn received(&mut self, key: K, bytes: &[u8], now: Instant) {
        let Some(channel) = self.channel(key) else { return };
        channel.heard_at = now;
        channel.decoder.push(bytes);
        if self.strangers.contains_key(&key) {
            self.greet(key, now);
        }
        if let Some(sp) = self.link_of(key)
            && let Err(Problem(reason, problem)) = self.read(sp)
        {
            self.count(reason);
            self.close(sp, &problem, now);
        }
    }

    fn read(&mut self, sp: SpId) -> Result<(), Problem> {
        let Some(link) = self.links.get_mut(&sp) else { return Ok(()) };
        let Some((_, channel)) = &mut link.channel else { return Ok(()) };
        while let Some(frame) = channel.decoder.next()? {
            match frame {
                Frame::Hello(hello) if !channel.greeted => {
                    let version = check_hello(&self.hello, &hello)?;
                    is_from(&hello, sp)?;
                    channel.check_certified(sp)?;
                    channel.greet(version);
                    link.back_off = REDIAL_MIN;
                    self.events.push_back(LinkEvent::Up(sp, hello.header));
                }
                Frame::Messages(header, messages) if channel.greeted && header.from == sp => {
                    self.events.push_back(LinkEvent::Messages(sp, header, messages));
                }
                Frame::Ping if channel.greeted => {}
                _ => return Err(Problem("out_of_turn", "it sends frames out of turn".to_owned())),
            }
        }
        Ok(())
    }

    /// Reads the hello of a connection that a peer has made, which then takes the place of its link.
    fn greet(&mut self, key: K, now: Instant) {
        let Some(channel) = self.strangers.get_mut(&key) else { return };
        let hello = match channel.decoder.next() {
            Ok(None) => return,
            Ok(Some(Frame::Hello(hello))) => Ok(hello),
            Ok(Some(_)) => Err(WireError::NoHello),
            Err(error) => Err(error),
        };
        let Some(mut channel) = self.strangers.remove(&key) else { return };
        let hello = match hello {
            Ok(hello) => hello,
            Err(error) => {
                // Nobody knows who it is, so there is nobody to speak of.
                self.count(error.label());
                return self.actions.push_back(Action::Close(key));
            }
        };
        let sp = hello.header.from;
        let checked = match self.links.contains_key(&sp) && sp < self.me {
            true => {
                let version = check_hello(&self.hello, &hello);
                version.and_then(|version| channel.check_certified(sp).map(|()| version))
            }
            false => {
                let problem = format!("a stranger says that it is storage point {sp} of {}", hello.cluster);
                Err(Problem("stranger", problem))
            }
        };
        let version = match checked {
            Ok(version) => version,
            Err(Problem(reason, problem)) => {
                self.count(reason);
                self.events.push_back(LinkEvent::Failed(sp, problem));
                return self.actions.push_back(Action::Close(key));
            }
        };
        self.close(sp, "it has connected again", now);
        channel.greet(version);
        if let Some(link) = self.links.get_mut(&sp) {
            link.channel = Some((key, channel));
        }
        self.events.push_back(LinkEvent::Up(sp, hello.header));
    }

    /// Ends a link's connection.
    fn close(&mut self, sp: SpId, problem: &str, now: Instant) {
        if let Some(key) = self.end(sp, problem, now) {
            self.actions.push_back(Action::Close(key));
        }
    }

    /// A link's connection is gone. Which it was.
    fn end(&mut self, sp: SpId, problem: &str, now: Instant) -> Option<K> {
        let jitter_percent = 50 + (self.draw() % 100) as u32;
        let link = self.links.get_mut(&sp)?;
        let (key, channel) = link.channel.take()?;
        link.redial_at = now.after(link.back_off * jitter_percent / 100);
        link.back_off = (link.back_off * 2).min(REDIAL_MAX);
        let event = if channel.greeted { LinkEvent::Down } else { LinkEvent::Failed };
        self.events.push_back(event(sp, problem.to_owned()));
        Some(key)
    }

    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn link_of(&self, key: K) -> Option<SpId> {
        let is_it = |link: &Link<K>| link.channel.as_ref().is_some_and(|(other, _)| *other == key);
        self.links.iter().find(|(_, link)| is_it(link)).map(|(sp, _)| *sp)
    }

    fn channel(&mut self, key: K) -> Option<&mut Channel> {
        let links = self.links.values_mut().filter_map(|link| link.channel.as_mut());
        let linked = links.filter(|(other, _)| *other == key).map(|(_, channel)| channel).next();
        linked.or_else(|| self.strangers.get_mut(&key))
    }

    // ---- What is said ---------------------------------------------------------------------------------------------

    /// Queues frames; those that carry contents go behind all others.
    pub fn send(&mut self, sp: SpId, frames: Vec<Vec<u8>>, is_bulk: bool) {
        let channel = self.links.get_mut(&sp).and_then(|link| link.channel.as_mut());
        if let Some((_, channel)) = channel.filter(|(_, channel)| channel.greeted) {
            frames.into_iter().for_each(|frame| channel.queue(frame, is_bulk));
        }
    }

    /// Closes links for which too much waits that the connection has not taken: to be called after writing.
    pub fn close_overfull(&mut self, now: Instant) {
        let overfull = |link: &Link<K>| link.channel.as_ref().is_some_and(|(_, c)| c.queued_len > QUEUED_LEN_MAX);
        let all: Vec<SpId> = self.links.iter().filter(|(_, link)| overfull(link)).map(|(sp, _)| *sp).collect();
        all.into_iter().for_each(|sp| self.close(sp, "too much waits to be sent to it", now));
    }

    /// What is to be written next over a connection: the rest of a frame, or a frame. Empty: nothing.
    pub fn unsent(&mut self, key: K) -> Bytes {
        let Some(channel) = self.channel(key) else { return Bytes::new() };
        if channel.current.is_empty()
            && let Some(frame) = channel.control.pop_front().or_else(|| channel.bulk.pop_front())
        {
            channel.current = frame;
        }
        channel.current.clone()
    }

    /// The first `len` bytes of what [`unsent`](Links::unsent) gave are written.
    pub fn wrote(&mut self, key: K, len: usize, now: Instant) {
        if let Some(channel) = self.channel(key) {
            channel.current.advance(len);
            channel.queued_len -= len;
            channel.sent_at = now;
        }
    }

    // ---- Time -----------------------------------------------------------------------------------------------------

    /// Dials, pings, and closes what is dead.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |channel: &Channel| now.since(channel.heard_at) >= DEAD_AFTER;
        let silent: Vec<K> = self.strangers.extract_if(.., |_, channel| late(channel)).map(|(key, _)| key).collect();
        for key in silent {
            self.count("silent");
            self.actions.push_back(Action::Close(key));
        }
        let mut dead = Vec::new();
        for (sp, link) in &mut self.links {
            match &mut link.channel {
                None if self.me < *sp && !link.dialling && link.redial_at <= now => {
                    link.dialling = true;
                    self.actions.push_back(Action::Dial(*sp));
                }
                Some((_, channel)) if late(channel) => dead.push(*sp),
                Some((_, channel)) if channel.greeted && now.since(channel.sent_at) >= PING_AFTER => {
                    channel.sent_at = now;
                    channel.queue(encode_ping().to_vec(), false);
                }
                _ => {}
            }
        }
        dead.into_iter().for_each(|sp| self.close(sp, "nothing was heard of it for 4 s", now));
    }

    /// When [`handle_timeout`](Links::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_link = |(sp, link): (&SpId, &Link<K>)| match &link.channel {
            None => (self.me < *sp && !link.dialling).then_some(link.redial_at),
            Some((_, channel)) if channel.greeted => {
                Some(channel.heard_at.after(DEAD_AFTER).min(channel.sent_at.after(PING_AFTER)))
            }
            Some((_, channel)) => Some(channel.heard_at.after(DEAD_AFTER)),
        };
        let strangers = self.strangers.values().map(|channel| channel.heard_at.after(DEAD_AFTER));
        self.links.iter().filter_map(of_link).chain(strangers).min()
    }
}

/// Whether there can be a link, and of which version it is.
fn check_hello(mine: &Hello, theirs: &Hello) -> Result<u8, Problem> {
    if mine.cluster != theirs.cluster {
        let problem = format!("it belongs to cluster {:?}, this one to {:?}", theirs.cluster, mine.cluster);
        return Err(Problem("cluster", problem));
    }
    if (mine.header.epoch, mine.header.config) != (theirs.header.epoch, theirs.header.config) {
        let (theirs, mine) = (theirs.header.epoch, mine.header.epoch);
        let problem = format!("its configuration (epoch {theirs}) differs from this one's (epoch {mine})");
        return Err(Problem("configuration", problem));
    }
    mine.versions.shared_with(theirs.versions).ok_or_else(|| {
        let (mine, theirs) = (mine.versions, theirs.versions);
        let problem = format!(
            "it speaks {theirs} of the protocol, this one {mine}: only neighbouring versions work together, so replace \
             the program on all storage points by one version at a time"
        );
        Problem("version", problem)
    })
}

fn is_from(hello: &Hello, sp: SpId) -> Result<(), Problem> {
    let from = hello.header.from;
    if from == sp { Ok(()) } else { Err(Problem("stranger", format!("storage point {from} answers there"))) }
}

#[cfg(test)]
mod tests;
