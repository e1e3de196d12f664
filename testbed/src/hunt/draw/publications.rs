//! Publications on few paths: they collide, hide each other, come again under their keys at other storage points.

use super::Dice;
use crate::scenario::{Bounds, ByteRange, Bytes, Publication, Scenario, Span};
use acms_engine::protocol::Order;
use std::{collections::BTreeSet, time::Duration};

pub(super) fn draw(scenario: &mut Scenario, bounds: &Bounds, dice: &mut Dice) {
    let paths = paths(dice.range(bounds.paths), dice);
    let count = dice.range(bounds.publications);
    let times = times(count, scenario.duration, dice);
    let mut list = Vec::new();
    for at in times {
        if list.len() as u64 >= count {
            break;
        }
        let first = publication(scenario, bounds, at, &paths, list.len(), dice);
        let mut again = dice.happens(bounds.retried);
        list.push(first.clone());
        while again && (list.len() as u64) < count {
            list.extend(retry(scenario, &first, dice));
            again = dice.percent(30);
        }
    }
    list.sort_by_key(|publication| publication.at);
    scenario.workload.publications = list;
    if dice.percent(40) {
        scenario.fleet.subscribe = subscriptions(&paths, dice);
    }
}

/// Paths in few directories. Of a quarter another one is a part, so that one hides the other.
fn paths(count: u64, dice: &mut Dice) -> Vec<String> {
    let mut paths = BTreeSet::new();
    let mut number = 0;
    while (paths.len() as u64) < count {
        let top = format!("d{}", dice.between(0, 2));
        let path = match dice.between(0, 3) {
            0 => format!("f{number}"),
            1 | 2 => format!("{top}/f{number}"),
            _ => format!("{top}/e{}/f{number}", dice.between(0, 1)),
        };
        number += 1;
        if (paths.len() as u64) < count - 1 && dice.percent(25) {
            paths.insert(format!("{path}/g"));
        }
        paths.insert(path);
    }
    paths.into_iter().collect()
}

/// Half of them anywhere, half in a few bursts.
fn times(count: u64, duration: Span, dice: &mut Dice) -> Vec<Span> {
    let end = (duration.0.as_micros() as u64).saturating_sub(1);
    let bursts: Vec<u64> = (0..dice.between(2, 8)).map(|_| dice.between(0, end)).collect();
    let mut times: Vec<u64> = (0..count)
        .map(|_| match dice.percent(50) {
            true => dice.between(0, end),
            false => (dice.choice(&bursts) + dice.log_between(1, 1_000_000)).min(end),
        })
        .collect();
    times.sort_unstable();
    times.into_iter().map(Span::from_micros).collect()
}

fn publication(
    scenario: &Scenario,
    bounds: &Bounds,
    at: Span,
    paths: &[String],
    number: usize,
    dice: &mut Dice,
) -> Publication {
    let to = format!("sp{}", dice.between(1, scenario.fleet.storage_points.into()));
    let path = dice.choice(paths);
    let deleted = dice.happens(bounds.deletes);
    let size = match () {
        () if deleted => Bytes(0),
        () if dice.happens(bounds.large) => dice.bytes(bounds.large_size),
        // Inline in answers up to 4 KiB, in the log up to 64 KiB.
        () if dice.percent(15) => dice.bytes(ByteRange(Bytes(4 << 10), Bytes(64 << 10))),
        () => dice.bytes(ByteRange(Bytes(16), Bytes(4 << 10))),
    };
    let other = match scenario.acms.order {
        Order::Strict => Order::Fast,
        Order::Fast => Order::Strict,
    };
    Publication {
        key: Some(format!("k{number:03}")),
        deleted,
        known: dice.percent(30),
        order: dice.percent(10).then_some(other).filter(|other| bounds.orders.contains(other)),
        ..Publication::new(at, &to, path, size.0)
    }
}

/// The same again, soon enough to overlap or after the publisher gave up; mostly at another storage point.
fn retry(scenario: &Scenario, first: &Publication, dice: &mut Dice) -> Option<Publication> {
    let later = if dice.percent(50) { dice.between(1, 300) } else { dice.between(300, 12_000) };
    let at = Span(first.at.0 + Duration::from_millis(later));
    let to = format!("sp{}", dice.between(1, scenario.fleet.storage_points.into()));
    (at < scenario.duration).then(|| Publication { at, to, known: dice.percent(30), ..first.clone() })
}

/// A few first segments; now and then a single file.
fn subscriptions(paths: &[String], dice: &mut Dice) -> Vec<String> {
    let mut chosen = BTreeSet::new();
    for _ in 0..dice.between(1, 3) {
        let path = dice.choice(paths);
        let top = path.split('/').next().unwrap_or_default();
        chosen.insert(if dice.percent(25) { path.clone() } else { top.to_owned() });
    }
    chosen.into_iter().collect()
}
