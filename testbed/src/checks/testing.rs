//! Hand-written traces: a line for each event, `<seconds> <process>[#incarnation] <kind> [name=value]...`.

use crate::trace::{Event, Text, Trace};
use acms_engine::protocol::Hash;

/// The trace that `text` describes. `hash=x` is the hash of the text `x`; `key` is the publication.
pub(crate) fn trace(text: &str) -> Trace {
    Trace::new(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(event).collect())
}

fn event(line: &str) -> Event {
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("too short: {line}"));
    let time_ns = word().parse::<u64>().unwrap() * 1_000_000_000;
    let (process, incarnation) = word().split_once('#').map_or_else(
        || (line.split_whitespace().nth(1).unwrap(), 0),
        |(process, incarnation)| (process, incarnation.parse().unwrap()),
    );
    let mut event = Event::new(time_ns, &process.into(), incarnation, word().parse().unwrap());
    for (name, value) in words.map(|word| word.split_once('=').unwrap()) {
        let text = Some(Text::from(value));
        match name {
            "key" => event.publication = text,
            "path" => event.path = text,
            "uid" => event.uid = Some(value.parse().unwrap()),
            "hash" => event.hash = Some(Hash::of(value.as_bytes())),
            "outcome" => event.outcome = text,
            "cause" => event.cause = text,
            _ => panic!("unknown column {name}"),
        }
    }
    event
}
