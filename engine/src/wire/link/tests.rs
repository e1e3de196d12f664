//! Two ends of a link in one memory, stepped by hand.

use super::*;
use crate::protocol::{StoreId, message::Header};

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant(1_000_000 * MS + ms * MS)
}

fn header(sp: u8, epoch: u32) -> Header {
    let store = StoreId { number: 0, nonce: sp.into() };
    Header { epoch, config: [epoch as u8; 8], from: SpId(sp), store, stores: Vec::new() }
}

fn links(sp: u8, epoch: u32) -> Links<u32> {
    links_of(sp, epoch, Versions::default())
}

fn links_of(sp: u8, epoch: u32, versions: Versions) -> Links<u32> {
    let hello = Hello { cluster: "c".to_owned(), header: header(sp, epoch), versions };
    Links::new(SpId(sp), hello, (1..=3).map(SpId), 7, at(0)).unwrap()
}

/// All that `from` writes over its connection goes to `to`; how many bytes there were.
fn carry(from: &mut Links<u32>, key: u32, to: &mut Links<u32>, other: u32, now: Instant) -> usize {
    let mut carried = 0;
    loop {
        let bytes = from.unsent(key);
        if bytes.is_empty() {
            return carried;
        }
        from.wrote(key, bytes.len(), now);
        to.received(other, &bytes, now);
        carried += bytes.len();
    }
}

fn events(links: &mut Links<u32>) -> Vec<LinkEvent> {
    std::iter::from_fn(|| links.poll_event()).collect()
}

fn actions(links: &mut Links<u32>) -> Vec<Action<u32>> {
    std::iter::from_fn(|| links.poll_action()).collect()
}

/// Storage points 1 and 2, connected: 1 dials over connection 10, which is 20 at the other end.
fn pair() -> (Links<u32>, Links<u32>) {
    let (mut one, mut two) = (links(1, 1), links(2, 1));
    one.handle_timeout(at(0));
    assert_eq!(actions(&mut one), [Action::Dial(SpId(2)), Action::Dial(SpId(3))]);
    one.dialled(SpId(2), 10, at(0));
    assert!(two.accepted(20, at(0)));
    carry(&mut one, 10, &mut two, 20, at(1));
    carry(&mut two, 20, &mut one, 10, at(2));
    assert_eq!(events(&mut one), [LinkEvent::Up(SpId(2), header(2, 1))]);
    assert_eq!(events(&mut two), [LinkEvent::Up(SpId(1), header(1, 1))]);
    (one, two)
}

fn frame(sp: u8, len: usize) -> Vec<u8> {
    let (hash, total) = (crate::protocol::Hash::of(b""), len as u64);
    let chunk = Message::ContentChunk { hash, offset: 0, total, bytes: vec![7; len].into() };
    crate::wire::encode_frame(&header(sp, 1), &[chunk]).unwrap()
}

#[test]
fn the_smaller_dials_and_both_say_hello() {
    let (one, mut two) = pair();
    two.handle_timeout(at(2));
    assert_eq!(actions(&mut two), [Action::Dial(SpId(3))], "never the smaller one");
    assert!(one.is_up(SpId(2)) && !one.is_up(SpId(3)));
    assert_eq!(two.up().collect::<Vec<_>>(), [(SpId(1), 0)]);
}

#[test]
fn nothing_but_a_hello_is_sent_before_the_others() {
    let mut one = links(1, 1);
    one.handle_timeout(at(0));
    one.dialled(SpId(2), 10, at(0));
    one.send(SpId(2), vec![frame(1, 10)], false);
    let hello = one.unsent(10);
    one.wrote(10, hello.len(), at(0));
    assert!(one.unsent(10).is_empty());
}

#[test]
fn other_configurations_and_other_storage_points_are_refused() {
    let mut one = links(1, 1);
    for (mut other, why) in [(links(2, 2), "differs"), (links(3, 1), "storage point 3 answers there")] {
        one.handle_timeout(at(10_000));
        actions(&mut one);
        one.dialled(SpId(2), 10, at(10_000));
        other.accepted(20, at(10_000));
        carry(&mut other, 20, &mut one, 10, at(10_000));
        let said = events(&mut one);
        assert!(matches!(&said[..], [LinkEvent::Failed(SpId(2), problem)] if problem.contains(why)), "{said:?}");
        assert_eq!(actions(&mut one), [Action::Close(10)]);
    }
    // Who takes a connection knows the other end by its hello alone: of the same epoch it must be, and smaller.
    let mut two = links(2, 1);
    for (other, key) in [(links(1, 2), 31), (links(3, 1), 32)] {
        let mut other = other;
        two.accepted(key, at(0));
        other.accepted(9, at(0));
        carry(&mut other, 9, &mut two, key, at(0));
        assert!(matches!(&events(&mut two)[..], [LinkEvent::Failed(..)]));
        assert_eq!(actions(&mut two), [Action::Close(key)]);
    }
}

#[test]
fn frames_in_anothers_name_end_the_link() {
    let (mut one, _) = pair();
    one.received(10, &frame(3, 10), at(5));
    let said = events(&mut one);
    assert!(matches!(&said[..], [LinkEvent::Down(SpId(2), problem)] if problem.contains("out of turn")), "{said:?}");
}

#[test]
fn contents_wait_behind_all_others_but_not_in_the_middle_of_a_frame() {
    let (mut one, _) = pair();
    one.send(SpId(2), vec![frame(1, 1_000), frame(1, 2_000)], true);
    let first = one.unsent(10);
    one.wrote(10, 100, at(5));
    one.send(SpId(2), vec![frame(1, 10)], false);
    assert_eq!(one.unsent(10), first.slice(100..));
    one.wrote(10, first.len() - 100, at(5));
    assert_eq!(one.unsent(10).len(), frame(1, 10).len());
    one.wrote(10, frame(1, 10).len(), at(5));
    assert_eq!(one.unsent(10).len(), frame(1, 2_000).len());
    assert_eq!(one.up().next(), Some((SpId(2), frame(1, 2_000).len())));
}

/// Found by the simulator: a process with a void store that was refused everywhere was never told why.
#[test]
fn hellos_name_the_stores_that_are_known_now() {
    let (mut one, mut two) = pair();
    two.set_header(Header { stores: vec![(SpId(1), StoreId { number: 1, nonce: 9 })], ..header(2, 1) });
    one.closed(10, "reset", at(10));
    one.handle_timeout(at(200));
    one.dialled(SpId(2), 11, at(200));
    two.accepted(21, at(200));
    carry(&mut two, 21, &mut one, 11, at(200));
    let said = events(&mut one);
    assert!(matches!(&said[..], [_, LinkEvent::Up(_, header)] if header.stores.len() == 1), "{said:?}");
}

#[test]
fn silence_is_broken_by_pings_and_ends_the_link() {
    let (mut one, mut two) = pair();
    assert_eq!(one.poll_timeout(), Some(at(1_001)), "the first ping");
    one.handle_timeout(at(900));
    assert!(one.unsent(10).is_empty());
    one.handle_timeout(at(1_001));
    assert_eq!(carry(&mut one, 10, &mut two, 20, at(1_001)), crate::wire::HEAD_LEN);
    // Bytes of a frame that comes slowly are a sign of life, whole or not.
    let slow = frame(1, 100_000);
    for (i, part) in slow.chunks(20_000).enumerate() {
        two.handle_timeout(at(4_000 + 3_000 * i as u64));
        two.received(20, part, at(4_000 + 3_000 * i as u64));
    }
    assert!(two.is_up(SpId(1)));
    let heard = 4_000 + 3_000 * (slow.chunks(20_000).len() as u64 - 1);
    assert!(matches!(events(&mut two)[..], [LinkEvent::Messages(..)]));
    two.handle_timeout(at(heard + 3_999));
    assert!(two.is_up(SpId(1)));
    two.handle_timeout(at(heard + 4_000));
    assert!(matches!(&events(&mut two)[..], [LinkEvent::Down(SpId(1), problem)] if problem.contains("4 s")));
}

#[test]
fn dialling_again_takes_longer_each_time() {
    let mut one = links(1, 1);
    let (mut now, mut pauses) = (0, Vec::new());
    for key in 0..8 {
        one.handle_timeout(at(now));
        assert!(actions(&mut one).contains(&Action::Dial(SpId(2))));
        one.dialled(SpId(2), key, at(now));
        one.not_dialled(SpId(3), "no".to_owned(), at(now + 100_000));
        assert!(one.closed(key, "refused", at(now)));
        let next = one.links[&SpId(2)].redial_at.since(at(now)).as_millis() as u64 + 1;
        pauses.push(next);
        now += next;
    }
    assert!((25..=75).contains(&pauses[0]) && pauses[7] >= 500 && pauses[7] <= 1_500, "{pauses:?}");
}

#[test]
fn a_new_connection_takes_the_place_of_the_old_one() {
    let (mut one, mut two) = pair();
    one.closed(10, "reset", at(10));
    one.handle_timeout(at(200));
    one.dialled(SpId(2), 11, at(200));
    two.accepted(21, at(200));
    carry(&mut one, 11, &mut two, 21, at(200));
    let said = events(&mut two);
    assert!(matches!(&said[..], [LinkEvent::Down(..), LinkEvent::Up(..)]), "{said:?}");
    assert_eq!(actions(&mut two), [Action::Close(20)]);
}

#[test]
fn more_than_the_limit_ends_the_link() {
    let (mut one, _) = pair();
    for _ in 0..257 {
        one.send(SpId(2), vec![frame(1, 256 << 10)], true);
    }
    one.close_overfull(at(5));
    assert!(matches!(&events(&mut one)[..], [LinkEvent::Down(SpId(2), problem)] if problem.contains("too much")));
}

#[test]
fn strangers_are_few_and_must_speak() {
    let mut two = links(2, 1);
    assert_eq!((0..70).filter(|key| two.accepted(*key, at(0))).count(), STRANGERS_MAX);
    two.handle_timeout(at(4_000));
    assert_eq!(actions(&mut two).iter().filter(|action| matches!(action, Action::Close(_))).count(), STRANGERS_MAX);
    two.accepted(99, at(4_000));
    two.received(99, b"GET / HTTP/1.1\r\n", at(4_000));
    assert!(actions(&mut two).contains(&Action::Close(99)));
}

#[test]
fn who_shows_the_certificate_of_another_is_refused() {
    let (mut one, mut two) = (links(1, 1), links(2, 1));
    one.handle_timeout(at(0));
    one.dialled(SpId(2), 10, at(0));
    two.accepted(20, at(0));
    two.certified(20, SpId(3));
    carry(&mut one, 10, &mut two, 20, at(0));
    assert!(matches!(&events(&mut two)[..], [LinkEvent::Failed(SpId(1), problem)] if problem.contains("point 3")));
    assert_eq!(actions(&mut two).iter().filter(|action| **action == Action::Close(20)).count(), 1);
    let (mut one, mut two) = (links(1, 1), links(2, 1));
    one.dialled(SpId(2), 10, at(0));
    one.certified(10, SpId(3));
    two.accepted(20, at(0));
    carry(&mut two, 20, &mut one, 10, at(0));
    assert!(matches!(&events(&mut one)[..], [LinkEvent::Failed(SpId(2), problem)] if problem.contains("point 3")));
}

/// Storage points 1 and 2 of these versions, once all that they had to say is said.
fn pair_of(newest: (u8, u8)) -> (Links<u32>, Links<u32>) {
    let (mut one, mut two) = (links_of(1, 1, Versions::up_to(newest.0)), links_of(2, 1, Versions::up_to(newest.1)));
    one.handle_timeout(at(0));
    one.dialled(SpId(2), 10, at(0));
    assert!(two.accepted(20, at(0)));
    carry(&mut one, 10, &mut two, 20, at(1));
    carry(&mut two, 20, &mut one, 10, at(2));
    (one, two)
}

#[test]
fn neighbouring_versions_share_the_lesser_and_others_have_no_link() {
    for (newest, version) in [((1, 1), 1), ((1, 2), 1), ((2, 1), 1), ((2, 2), 2), ((3, 2), 2), ((3, 3), 3)] {
        let (mut one, mut two) = pair_of(newest);
        assert_eq!((one.version(SpId(2)), two.version(SpId(1))), (Some(version), Some(version)), "{newest:?}");
        events(&mut two);
        one.send(SpId(2), vec![frame(1, 10)], false);
        assert_eq!(one.unsent(10)[2], version, "frames bear it");
        carry(&mut one, 10, &mut two, 20, at(3));
        assert!(matches!(&events(&mut two)[..], [LinkEvent::Messages(SpId(1), ..)]), "{newest:?}");
        // Pings, too.
        one.handle_timeout(at(1_500));
        assert!(carry(&mut one, 10, &mut two, 20, at(1_500)) > 0 && two.is_up(SpId(1)));
    }
    for newest in [(1, 3), (3, 1), (2, 4)] {
        let (one, mut two) = pair_of(newest);
        assert!(!one.is_up(SpId(2)) && !two.is_up(SpId(1)));
        let said = events(&mut two);
        assert!(
            matches!(&said[..], [LinkEvent::Failed(SpId(1), why)] if why.contains("only neighbouring versions")),
            "{said:?}"
        );
    }
}
