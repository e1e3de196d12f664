//! From steps of the engine to steps that the specification's replay understands.

use super::support::cluster::{Input, Step};
use acms_engine::protocol::{
    Durable, Message, Outcome, SpId, SpSet, Uid,
    inspect::Inspection,
    io::{Event, Ticket},
    message::RequestId,
};
use acms_spec::refine::{self, Answer, Asking, Known, Name, Request, Told, View};
use std::collections::BTreeMap;

/// What a submission is for the specification.
pub(crate) struct Submitted {
    pub(crate) key: String,
}

/// Keeps what single steps do not say: which submission each ticket is.
pub(crate) struct Translation<'a> {
    n: usize,
    /// By number: in the order in which they were handed in.
    submissions: &'a [Submitted],
    tickets: BTreeMap<(SpId, Ticket), usize>,
    next: usize,
}

impl<'a> Translation<'a> {
    pub(crate) fn new(n: usize, submissions: &'a [Submitted]) -> Translation<'a> {
        Translation { n, submissions, tickets: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn step(&mut self, step: &Step) -> refine::Step {
        let at = step.at;
        if let Input::Started { .. } = step.input {
            self.tickets.retain(|(sp, _), _| *sp != at);
        }
        let input = match &step.input {
            Input::Submitted { ticket, .. } => {
                self.tickets.insert((at, *ticket), self.next);
                self.next += 1;
                refine::Input::Submitted { submission: self.next - 1 }
            }
            Input::Message { from, message } => self.message(*from, message, step),
            Input::Flushed { records } => {
                let (held, own) = durable(records);
                refine::Input::Flushed { held, own }
            }
            Input::Started { begun, replaced: false } => {
                let (mut begun, own) = durable(begun);
                begun.extend(own);
                refine::Input::Restarted { begun }
            }
            Input::Started { replaced: true, .. } => refine::Input::Replaced,
            Input::Timeout | Input::Connected { .. } | Input::Disconnected { .. } => refine::Input::Other,
        };
        let told = step.events.iter().filter_map(|event| match event {
            Event::Outcome { ticket, outcome } => Some((self.tickets[&(at, *ticket)], told(outcome))),
            _ => None,
        });
        let told = told.collect();
        let vector = |(_, message): &(SpId, Message)| match message {
            Message::Vector(vector) => Some(name(vector.uid)),
            _ => None,
        };
        let vectors = step.sent.iter().filter_map(vector).collect();
        let join_reply = |(to, message): &(SpId, Message)| match message {
            Message::JoinReply { page, .. } if page.last => Some((index(*to), format!("{message:?}"))),
            _ => None,
        };
        let join_replies = step.sent.iter().filter_map(join_reply).collect();
        let as_of_reply = |(to, message): &(SpId, Message)| match message {
            Message::AsOfReply { request, .. } => Some((index(*to), number(*request))),
            _ => None,
        };
        let as_of_replies = step.sent.iter().filter_map(as_of_reply).collect();
        let mut view = self.view(at, &step.inspection);
        view.entry = step.entry.map(name);
        refine::Step {
            at: index(at),
            input,
            told,
            vectors,
            join_replies,
            as_of_replies,
            now_ns: step.now.instant.0,
            clock_us: step.now.wall.0,
            view,
            text: text(&step.input),
        }
    }

    fn message(&self, from: SpId, message: &Message, step: &Step) -> refine::Input {
        match message {
            Message::OrderQuery { request: asked, keys } => {
                let answer = step.sent.iter().find_map(|(_, message)| match message {
                    Message::OrderAnswer { request, greatest, holds, .. } if request == asked => {
                        Some(answer(*greatest, holds, keys.len()))
                    }
                    _ => None,
                });
                refine::Input::OrderQuery { from: index(from), request: number(*asked), answer }
            }
            Message::OrderAnswer { request, greatest, holds, .. } => {
                let places = holds.iter().map(|(place, _)| *place as usize + 1).max().unwrap_or(0);
                let answer = answer(*greatest, holds, places);
                refine::Input::OrderAnswer { from: index(from), request: number(*request), answer }
            }
            Message::JoinReply { page, .. } if page.last => {
                refine::Input::JoinReply { from: index(from), content: format!("{message:?}") }
            }
            Message::AsOfReply { request, reply } => {
                refine::Input::AsOfReply { from: index(from), request: number(*request), clock_us: reply.clock.0 }
            }
            _ => refine::Input::Other,
        }
    }

    fn view(&self, at: SpId, seen: &Inspection) -> View {
        let mut view = View { stores: vec![0; self.n], joining: seen.joining, ..View::default() };
        (view.as_of_us, view.as_of_asked_us) = (seen.as_of.0, seen.as_of_asked.0);
        view.round = seen.as_of_round.map(number);
        for (sp, store) in &seen.stores {
            view.stores[index(*sp)] = *store;
        }
        // A UID that nothing may name yet is as good as not taken: a crash may undo that.
        let is_named = |uid: &Uid| {
            let own = uid.sp == at && Some(&uid.store) == seen.stores.get(&at);
            !own || seen.publications.get(uid).is_none_or(|known| known.may_be_named)
        };
        for (uid, known) in seen.publications.iter().filter(|(uid, _)| is_named(uid)) {
            let dropped = known.superseded_by.is_some();
            let bits = set(known.bits);
            let known_ = Known {
                held: known.held,
                remembered: known.remembered,
                writing: known.writing || (known.agreed && !known.held && !known.remembered),
                own: known.own_bit && known.held,
                own_asked: known.own_bit_asked,
                agreed: known.agreed,
                dropped,
                bits,
            };
            view.publications.insert(name(*uid), known_);
            if let (Some((_, key)), Some(named)) = (&known.key, known.key_names) {
                view.keys.insert(self.key(key), Some(named).filter(is_named).map(name));
            }
        }
        for (request, asking) in &seen.queries {
            let tickets = |place: &Vec<Ticket>| place.iter().map(|ticket| self.tickets[&(at, *ticket)]).collect();
            let submissions = asking.tickets.iter().map(tickets).collect();
            view.asking.insert(number(*request), Asking { submissions, answered: set(asking.answered) });
        }
        for (ticket, uid) in &seen.tickets {
            if let Some(uid) = uid {
                let place = if is_named(uid) { &mut view.named } else { &mut view.unnamed };
                place.insert(self.tickets[&(at, *ticket)], name(*uid));
            }
        }
        view
    }

    /// Number of a key: that of the first submission with it.
    fn key(&self, key: &str) -> u8 {
        self.submissions.iter().position(|submitted| submitted.key == key).expect("a key that was submitted") as u8
    }
}

pub(crate) fn index(sp: SpId) -> usize {
    usize::from(sp.0) - 1
}

fn set(sps: SpSet) -> u8 {
    (sps.0 >> 1) as u8
}

fn name(uid: Uid) -> Name {
    Name { micros: uid.micros, sp: index(uid.sp), store: uid.store }
}

fn number(request: RequestId) -> Request {
    (request.starts, request.number)
}

fn answer(greatest: Uid, holds: &[(u32, Uid)], places: usize) -> Answer {
    let mut names = vec![None; places];
    holds.iter().for_each(|(place, uid)| names[*place as usize] = Some(name(*uid)));
    while names.last() == Some(&None) {
        names.pop();
    }
    Answer { greatest: (greatest != Uid::ZERO).then(|| name(greatest)), names }
}

/// Publications whose manifest, and those whose own bit, `records` hold.
fn durable(records: &[Durable]) -> (Vec<Name>, Vec<Name>) {
    let (mut held, mut own) = (Vec::new(), Vec::new());
    // What is agreed and superseded before its content came is remembered, not held.
    let is_remembered =
        |of: Uid| records.iter().any(|record| matches!(record, Durable::Released { uid } if *uid == of));
    for record in records {
        match record {
            Durable::Held { manifest, .. } if is_remembered(manifest.uid) => {}
            Durable::Held { manifest, own_bit, .. } => {
                held.push(name(manifest.uid));
                own.extend(own_bit.then(|| name(manifest.uid)));
            }
            Durable::OwnBit { uid } => own.push(name(*uid)),
            _ => {}
        }
    }
    (held, own)
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Outcome::Accepted { uid } => Told::Accepted(name(*uid)),
        Outcome::Rejected { .. } => Told::Rejected,
        Outcome::Undetermined { uid, superseded_by, .. } => {
            Told::Undetermined { of: uid.map(name), superseded_by: superseded_by.map(name) }
        }
    }
}

fn text(input: &Input) -> String {
    let text = format!("{input:?}");
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
