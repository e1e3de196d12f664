//! Runs of the engine as steps of [`crate::refine`].
//!
//! Whoever drives the engine's state machines records a [`Step`] for each input: what came in, what was asked for, what
//! the storage point knows then. [`replay`] finds in them the run of one path: its submissions are those of the
//! specification, and whatever belongs to other paths is left out. Order queries still tell of the greatest UID of all,
//! which the specification allows: an answer may name any greater one than it must.

use crate::{
    cases::PLAIN,
    refine::{self, Answer, Asking, Known, Name, NotAllowed, Request, Summary, Told, View},
    state::{self, Config, N, P},
};
use acms_engine::protocol::{
    Durable, Message, Mode, Now, Order, Outcome, SpId, SpSet, Uid,
    inspect::Inspection,
    io::{Event, Ticket},
    message::{JoinState, RequestId},
};
use std::collections::{BTreeMap, BTreeSet};

/// Something that happened to one storage point.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which one.
    pub at: SpId,
    /// Its clocks.
    pub now: Now,
    /// What came in.
    pub input: Input,
    /// What it sent.
    pub sent: Vec<(SpId, Message)>,
    /// What it said; outcomes matter here.
    pub events: Vec<Event>,
    /// What it knows afterwards.
    pub inspection: Inspection,
    /// The entry of the path.
    pub entry: Option<Uid>,
}

/// Publisher and idempotency key.
pub type Key = (String, String);

/// What came in.
#[derive(Clone, Debug)]
pub enum Input {
    /// A submission to the path that the run is about.
    Submitted {
        /// Its ticket.
        ticket: Ticket,
        /// Its key.
        key: Key,
    },
    /// A message, after the header of its frame.
    Message {
        /// Who sent it.
        from: SpId,
        /// The message.
        message: Message,
    },
    /// These records are durable.
    Flushed {
        /// In the order of the log.
        records: Vec<Durable>,
    },
    /// It has crashed since its last step and is up again; all that its start wrote is durable.
    Restarted {
        /// What was being written when it crashed: durable or not.
        begun: Vec<Durable>,
    },
    /// It has lost its disk since its last step and is up with an empty store, whose start is durable.
    Replaced,
    /// Anything else, in words.
    Other(String),
}

/// How the cluster of a run is configured. Quorums are majorities.
#[derive(Clone, Copy, Debug)]
pub struct Cluster {
    /// Storage points, numbered from 1; at most [`N`].
    pub n: usize,
    /// Acceptance mode.
    pub mode: Mode,
    /// Order mode. `fast`: each publisher knows everything accepted before.
    pub order: Order,
}

fn submitted(step: &Step) -> Option<Key> {
    match &step.input {
        Input::Submitted { key, .. } => Some(key.clone()),
        _ => None,
    }
}

/// The beginning of a run that the specification has room for: what comes before the submission after the [`P`]th.
pub fn followed(steps: &[Step]) -> &[Step] {
    let beyond = steps.iter().enumerate().filter(|(_, step)| submitted(step).is_some()).nth(P);
    &steps[..beyond.map_or(steps.len(), |(place, _)| place)]
}

/// Whether a recorded run, of which everything can be [`followed`], is a run of the specification.
pub fn replay(cluster: Cluster, steps: &[Step]) -> Result<Summary, NotAllowed> {
    assert!(cluster.n <= N, "the specification has {N} storage points at most");
    let submissions: Vec<Key> = steps.iter().filter_map(submitted).collect();
    assert!(submissions.len() <= P, "the specification has {P} submissions at most");
    let mut keys = PLAIN.keys;
    for (p, key) in submissions.iter().enumerate() {
        keys[p] = number_of(key, &submissions).expect("itself at least");
    }
    let config = Config {
        name: "a run of the engine",
        n: cluster.n,
        submissions: submissions.len(),
        keys,
        mode: if cluster.mode == Mode::Fused { state::Mode::Fused } else { state::Mode::TwoPhase },
        order: if cluster.order == Order::Fast { state::Order::Fast } else { state::Order::Strict },
        ..PLAIN
    };
    let mut translation = Translation::new(cluster.n, &submissions, steps);
    let steps: Vec<refine::Step> = steps.iter().filter_map(|step| translation.step(step)).collect();
    refine::replay(&config, &steps)
}

/// Number of a key: that of the first submission with it.
fn number_of(key: &Key, submissions: &[Key]) -> Option<u8> {
    submissions.iter().position(|other| other == key).and_then(|place| u8::try_from(place).ok())
}

/// Keeps what single steps do not say.
struct Translation<'a> {
    n: usize,
    /// Keys of the submissions by number: in the order in which they were handed in.
    submissions: &'a [Key],
    /// Their publications.
    followed: BTreeSet<Uid>,
    /// Which submission each ticket is.
    tickets: BTreeMap<(SpId, Ticket), usize>,
    next: usize,
    /// What each storage point knew after its last step.
    views: BTreeMap<SpId, View>,
}

impl<'a> Translation<'a> {
    fn new(n: usize, submissions: &'a [Key], steps: &[Step]) -> Translation<'a> {
        let publications = steps.iter().flat_map(|step| &step.inspection.publications);
        let is_followed = |key: &Option<Key>| key.as_ref().is_some_and(|key| submissions.contains(key));
        let followed = publications.filter(|(_, known)| is_followed(&known.key)).map(|(uid, _)| *uid).collect();
        Translation { n, submissions, followed, tickets: BTreeMap::new(), next: 0, views: BTreeMap::new() }
    }

    /// None: nothing has happened that the specification knows.
    fn step(&mut self, step: &Step) -> Option<refine::Step> {
        let at = step.at;
        if let Input::Restarted { .. } | Input::Replaced = step.input {
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
                let (held, own) = self.durable(records);
                refine::Input::Flushed { held, own }
            }
            Input::Restarted { begun } => {
                let (mut begun, own) = self.durable(begun);
                begun.extend(own);
                refine::Input::Restarted { begun }
            }
            Input::Replaced => refine::Input::Replaced,
            Input::Other(_) => refine::Input::Other,
        };
        let told = step.events.iter().filter_map(|event| match event {
            Event::Outcome { ticket, outcome } => Some((*self.tickets.get(&(at, *ticket))?, told(outcome))),
            _ => None,
        });
        let told = told.collect::<Vec<_>>();
        let vector = |(_, message): &(SpId, Message)| match message {
            Message::Vector(vector) if self.followed.contains(&vector.uid) => Some(name(vector.uid)),
            _ => None,
        };
        let vectors: Vec<Name> = step.sent.iter().filter_map(vector).collect();
        let join_reply = |(to, message): &(SpId, Message)| match message {
            Message::JoinReply { page, .. } if page.last => {
                let names = |is_it: fn(JoinState) -> bool| {
                    let items = page.items.iter().filter(|item| is_it(item.state)).map(|item| item.manifest.uid);
                    items.filter(|uid| self.followed.contains(uid)).map(name).collect()
                };
                Some(refine::JoinReply {
                    to: index(*to),
                    content: format!("{message:?}"),
                    held: names(|state| matches!(state, JoinState::Pending { .. } | JoinState::Agreed)),
                    own: names(|state| state == JoinState::Pending { own_bit: true }),
                    agreed: names(|state| state == JoinState::Agreed),
                })
            }
            _ => None,
        };
        let join_replies: Vec<_> = step.sent.iter().filter_map(join_reply).collect();
        let as_of_reply = |(to, message): &(SpId, Message)| match message {
            Message::AsOfReply { request, .. } => Some((index(*to), number(*request))),
            _ => None,
        };
        let as_of_replies: Vec<_> = step.sent.iter().filter_map(as_of_reply).collect();
        let view = self.view(step);
        let is_quiet = told.is_empty() && vectors.is_empty() && join_replies.is_empty() && as_of_replies.is_empty();
        if matches!(input, refine::Input::Other) && is_quiet && self.views.get(&at) == Some(&view) {
            return None;
        }
        self.views.insert(at, view.clone());
        Some(refine::Step {
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
        })
    }

    fn message(&self, from: SpId, message: &Message, step: &Step) -> refine::Input {
        match message {
            Message::OrderQuery { request: asked, keys } => {
                let answer = step.sent.iter().find_map(|(_, message)| match message {
                    Message::OrderAnswer { request, greatest, holds, .. } if request == asked => {
                        Some(self.answer(*greatest, holds, keys.len()))
                    }
                    _ => None,
                });
                refine::Input::OrderQuery { from: index(from), request: number(*asked), answer }
            }
            Message::OrderAnswer { request, greatest, holds, .. } => {
                let places = holds.iter().map(|(place, _)| *place as usize + 1).max().unwrap_or(0);
                let answer = self.answer(*greatest, holds, places);
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

    fn view(&self, Step { at, inspection: seen, entry, .. }: &Step) -> View {
        let at = *at;
        let mut view = View { stores: vec![0; self.n], joining: seen.joining, ..View::default() };
        view.entry = entry.map(name);
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
        let followed = seen.publications.iter().filter(|(uid, _)| self.followed.contains(uid));
        for (uid, known) in followed.filter(|(uid, _)| is_named(uid)) {
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
            if let (Some(key), Some(named)) = (&known.key, known.key_names) {
                let number = number_of(key, self.submissions).expect("a key that was submitted");
                view.keys.insert(number, Some(named).filter(is_named).map(name));
            }
        }
        for (request, asking) in &seen.queries {
            let number_of = |ticket: &Ticket| self.tickets.get(&(at, *ticket)).copied();
            let tickets = |place: &Vec<Ticket>| place.iter().filter_map(number_of).collect();
            let submissions = asking.tickets.iter().map(tickets).collect();
            view.asking.insert(number(*request), Asking { submissions, answered: set(asking.answered) });
        }
        for (ticket, uid) in &seen.tickets {
            if let (Some(uid), Some(submission)) = (uid, self.tickets.get(&(at, *ticket))) {
                let place = if is_named(uid) { &mut view.named } else { &mut view.unnamed };
                place.insert(*submission, name(*uid));
            }
        }
        view
    }

    fn answer(&self, greatest: Uid, holds: &[(u32, Uid)], places: usize) -> Answer {
        let mut names = vec![None; places];
        let followed = holds.iter().filter(|(_, uid)| self.followed.contains(uid));
        followed.for_each(|(place, uid)| names[*place as usize] = Some(name(*uid)));
        while names.last() == Some(&None) {
            names.pop();
        }
        Answer { greatest: (greatest != Uid::ZERO).then(|| name(greatest)), names }
    }

    /// Publications whose manifest, and those whose own bit, `records` hold.
    fn durable(&self, records: &[Durable]) -> (Vec<Name>, Vec<Name>) {
        let (mut held, mut own) = (Vec::new(), Vec::new());
        // What is agreed and superseded before its content came is remembered, not held.
        let is_remembered =
            |of: Uid| records.iter().any(|record| matches!(record, Durable::Released { uid } if *uid == of));
        for record in records {
            match record {
                Durable::Held { manifest, .. }
                    if is_remembered(manifest.uid) || !self.followed.contains(&manifest.uid) => {}
                Durable::Held { manifest, own_bit, .. } => {
                    held.push(name(manifest.uid));
                    own.extend(own_bit.then(|| name(manifest.uid)));
                }
                Durable::OwnBit { uid } if self.followed.contains(uid) => own.push(name(*uid)),
                _ => {}
            }
        }
        (held, own)
    }
}

fn index(sp: SpId) -> usize {
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
