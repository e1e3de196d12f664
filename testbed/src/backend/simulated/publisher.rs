//! Publishers at one storage point: each attempt is one request, begun when it is due whether or not earlier ones have
//! an outcome, and has exactly one outcome. The host beside the storage point also reads from it, where that is asked.

use super::{
    connection::{ConnectionId, Segment, Service},
    host::{HostId, Input},
    http::{PublishAnswer, PublishRequest},
    reader::Reader,
    shared::Shared,
};
use crate::{
    trace::{Kind, Template},
    workload::Attempt,
};
use acms_engine::protocol::{Duration, Hash, Instant, Order, SpId, Uid};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A storage point answers within 9 s of the content's last progress; this is beyond it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// Idle connections kept.
const IDLE_MAX: usize = 256;

/// Those who publish at one storage point, from a host of their own beside it.
#[derive(Debug)]
pub(super) struct Publisher {
    /// Where they publish, and what events call it.
    pub(super) to: HostId,
    sp: SpId,
    /// The order of attempts that ask for none.
    order: Order,
    /// Attempts begun.
    attempts: u64,
    pub(super) reader: Reader,
    /// What is due, by time (from the start of the run, in nanoseconds).
    due: VecDeque<(u64, Attempt)>,
    idle: Vec<ConnectionId>,
    under_way: BTreeMap<ConnectionId, UnderWay>,
    deadlines: BTreeSet<(Instant, ConnectionId)>,
}

#[derive(Debug)]
struct UnderWay {
    attempt: Attempt,
    /// Which one here, from 1.
    number: u64,
    request: Option<Box<PublishRequest>>,
    deadline: Instant,
}

impl Publisher {
    pub(super) fn new(to: HostId, sp: SpId, order: Order) -> Publisher {
        Publisher {
            to,
            sp,
            order,
            attempts: 0,
            reader: Reader::default(),
            due: VecDeque::new(),
            idle: Vec::new(),
            under_way: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Plans an attempt for `at_ns`; calls come in the order of time.
    pub(super) fn plan(&mut self, shared: &mut Shared<'_>, me: HostId, at_ns: u64, attempt: Attempt) {
        shared.attempts_open += 1;
        self.due.push_back((at_ns, attempt));
        self.set_timer(shared, me);
    }

    /// Reads these contents.
    pub(super) fn read(&mut self, shared: &mut Shared<'_>, me: HostId, hashes: Vec<Hash>) {
        self.reader.begin(shared, me, self.to, hashes);
    }

    /// Uses no connection of before: the storage point may have lost its end without a word.
    pub(super) fn forget_idle(&mut self, shared: &mut Shared<'_>, me: HostId) {
        for connection in std::mem::take(&mut self.idle) {
            shared.close(connection, me);
        }
    }

    fn set_timer(&mut self, shared: &mut Shared<'_>, me: HostId) {
        let due = self.due.front().map(|(at_ns, _)| shared.instant_of(*at_ns));
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        shared.set_timer(me, due.into_iter().chain(deadline).min());
    }

    pub(super) fn handle(&mut self, shared: &mut Shared<'_>, me: HostId, input: Input) {
        match input {
            Input::Timer => {
                while self.due.front().is_some_and(|(at_ns, _)| *at_ns <= shared.now_ns) {
                    if let Some((_, attempt)) = self.due.pop_front() {
                        self.begin(shared, me, attempt);
                    }
                }
                self.give_up_late(shared, me);
            }
            Input::Connected { connection } if self.reader.has(connection) => self.reader.ask(shared, me),
            Input::Segment { connection, segment: Segment::Answer(answer) } if self.reader.has(connection) => {
                self.reader.answered(shared, me, &answer);
            }
            Input::Closed { connection } if self.reader.has(connection) => self.reader.closed(),
            Input::Connected { connection } => {
                let request = self.under_way.get_mut(&connection).and_then(|under_way| under_way.request.take());
                if let Some(request) = request {
                    shared.send(connection, me, Segment::Publish(request));
                }
            }
            Input::Segment { connection, segment: Segment::Published(answer) } => {
                let may_stay = self.finish(shared, me, connection, &answer);
                match self.idle.len() < IDLE_MAX {
                    true if may_stay => self.idle.push(connection),
                    false if may_stay => shared.close(connection, me),
                    _ => {}
                }
            }
            Input::Closed { connection } => {
                self.idle.retain(|idle| *idle != connection);
                let is_sent = self.under_way.get(&connection).is_some_and(|under_way| under_way.request.is_none());
                let cause = if is_sent { "connection lost" } else { "not connected" };
                self.finish(shared, me, connection, &undetermined(cause));
            }
            _ => {}
        }
        self.set_timer(shared, me);
    }

    fn begin(&mut self, shared: &mut Shared<'_>, me: HostId, attempt: Attempt) {
        let known = attempt.known.then_some(shared.told).filter(|uid| *uid != Uid::ZERO);
        let hash = attempt.hash;
        let about = about(&attempt);
        shared.say(me, Kind::Scheduled, about);
        let deleted = attempt.content.is_none().then_some("deleted");
        self.attempts += 1;
        let (number, sp) = (self.attempts, self.sp);
        let order = match attempt.order.unwrap_or(self.order) {
            Order::Fast => "fast",
            Order::Strict => "strict",
        };
        let cause = format!("sp{sp} attempt={sp}-{number} order={order}");
        let invoke = Template { hash: Some(hash), uid: known, outcome: deleted, cause: Some(&cause), ..about };
        shared.say(me, Kind::Invoke, invoke);
        let request = Box::new(PublishRequest {
            path: attempt.path.clone(),
            content: attempt.content.clone(),
            hash,
            publisher: "publisher".to_owned(),
            key: attempt.key.clone(),
            known,
            order: attempt.order,
        });
        let deadline = shared.instant().after(ANSWER_WITHIN);
        let connection = match self.idle.pop() {
            Some(connection) => {
                shared.send(connection, me, Segment::Publish(request));
                self.under_way.insert(connection, UnderWay { attempt, number, request: None, deadline });
                connection
            }
            None => {
                let connection = shared.dial(me, self.to, Service::Http);
                self.under_way.insert(connection, UnderWay { attempt, number, request: Some(request), deadline });
                connection
            }
        };
        self.deadlines.insert((deadline, connection));
    }

    fn give_up_late(&mut self, shared: &mut Shared<'_>, me: HostId) {
        while let Some((at, connection)) = self.deadlines.first().copied() {
            if at > shared.instant() {
                return;
            }
            self.finish(shared, me, connection, &undetermined("no answer within 15s"));
            shared.close(connection, me);
        }
    }

    /// The attempt on this connection has its outcome; whether there was one.
    fn finish(
        &mut self,
        shared: &mut Shared<'_>,
        me: HostId,
        connection: ConnectionId,
        answer: &PublishAnswer,
    ) -> bool {
        let Some(under_way) = self.under_way.remove(&connection) else { return false };
        self.deadlines.remove(&(under_way.deadline, connection));
        shared.told = shared.told.max(answer.uid.unwrap_or(Uid::ZERO));
        shared.attempts_open -= 1;
        let cause = format!("attempt={}-{} {}", self.sp, under_way.number, answer.cause.as_deref().unwrap_or_default());
        let outcome = Template {
            uid: answer.uid,
            hash: Some(under_way.attempt.hash),
            outcome: Some(answer.outcome),
            cause: Some(cause.trim_end()),
            ..about(&under_way.attempt)
        };
        shared.say(me, Kind::Outcome, outcome);
        if answer.outcome != "accepted" {
            shared.refused.push((under_way.attempt, answer.cause.clone().unwrap_or_default()));
        }
        true
    }
}

fn undetermined(cause: &str) -> PublishAnswer {
    PublishAnswer { outcome: "undetermined", uid: None, cause: Some(cause.to_owned()) }
}

fn about(attempt: &Attempt) -> Template<'_> {
    Template { publication: attempt.key.as_deref(), path: Some(attempt.path.as_str()), ..Template::default() }
}
