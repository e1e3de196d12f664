//! Hand-written traces: a line for each event, `<seconds> <process>[#incarnation] <kind> [name=value]...`.

use super::{Check, CheckReport};
use crate::{
    facts::Facts,
    trace::{Event, Text, Trace},
};
use acms_engine::protocol::Hash;

/// The trace that `text` describes. `hash=x` is the hash of the text `x`; `key` is the publication.
pub(crate) fn trace(text: &str) -> Trace {
    Trace::new(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(event).collect())
}

/// What one check finds in the trace that `text` describes.
pub(crate) fn judge<C: Check>(text: &str) -> CheckReport {
    let (trace, mut facts, mut check) = (trace(text), Facts::new(), C::default());
    for event in trace.events() {
        let seen = facts.see(event);
        check.observe(&seen, &facts);
    }
    facts.finish();
    check.finish(&facts)
}

/// Whether the check held, and its violations in one text.
pub(crate) fn held<C: Check>(text: &str) -> (bool, String) {
    let report = judge::<C>(text);
    (report.held, report.violations.join("\n"))
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
            // A cause may have several words.
            "cause" => event.cause = Some(value.replace(';', " ").into()),
            _ => panic!("unknown column {name}"),
        }
    }
    event
}
