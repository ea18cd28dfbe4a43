//! What a program sets about its end of a flow, and what its calls and its peer see of that.
#![allow(clippy::unwrap_used)]

use std::mem::MaybeUninit;
use std::time::Duration;

use ouroboros_crypto::{Replay, Suite};
use ouroboros_flow::{Limit, Properties, Unfit, guard, session, stage};
use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Error};

const READ_ONLY: u32 = 0o0;
const WRITE_ONLY: u32 = 0o1;
const READ_WRITE: u32 = 0o2;
const DOWN: u32 = 0o4;
const NON_BLOCKING_READ: u32 = 0o1000;
const NON_BLOCKING_WRITE: u32 = 0o2000;
const NO_PARTIAL_READ: u32 = 0o10000;
const NO_PARTIAL_WRITE: u32 = 0o20000;

fn ends() -> [Endpoint; 2] {
    let made = channel::create().unwrap();
    let mut bells = made.bells.into_iter();
    [0, 1].map(|side| Endpoint::attach(&made.memory, bells.next().unwrap(), side).unwrap())
}

fn write(end: &Endpoint, packet: &[u8]) -> Result<bool, Error> {
    stage(&mut end.writer()?, packet)
}

/// One read with room for so many bytes: how many came. None: nothing is there, or it would be cut and must not be.
fn read(end: &Endpoint, properties: &Properties, room: usize) -> Option<usize> {
    let mut reader = end.reader().unwrap();
    let length = reader.available().unwrap()?;
    let taken = properties.portion(length, room)?;
    reader.take(length, &mut vec![MaybeUninit::uninit(); taken]);
    properties.mark_end(&mut reader, length, room);
    Some(taken)
}

fn set(flags: u32) -> Properties {
    let properties = Properties::default();
    properties.set_flags(flags, &ends()[0]).unwrap();
    properties
}

#[test]
fn a_flow_begins_with_both_ways_and_waits() {
    let properties = Properties::default();
    assert_eq!(properties.flags(), READ_WRITE | NO_PARTIAL_WRITE);
    assert!(properties.may_read() && properties.may_write() && properties.read_waits() && properties.write_waits());
    assert_eq!((properties.receive_timeout.get(), properties.send_timeout.get()), (None, None));
}

#[test]
fn each_flag_means_one_thing() {
    let means = |flags| {
        let set = set(flags);
        [set.may_read(), set.may_write(), set.read_waits(), set.write_waits(), set.portion(2, 1).is_some()]
    };
    assert_eq!(means(READ_ONLY), [true, false, true, true, true]);
    assert_eq!(means(WRITE_ONLY), [false, true, true, true, true]);
    assert_eq!(means(READ_WRITE | DOWN), [true, true, true, true, true]);
    assert_eq!(means(READ_WRITE | NON_BLOCKING_READ), [true, true, false, true, true]);
    assert_eq!(means(READ_WRITE | NON_BLOCKING_WRITE), [true, true, true, false, true]);
    assert_eq!(means(READ_WRITE | NO_PARTIAL_READ), [true, true, true, true, false]);
}

#[test]
fn flags_that_exclude_each_other_change_nothing() {
    let [near, far] = ends();
    let properties = Properties::default();
    assert_eq!(properties.set_flags(WRITE_ONLY | READ_WRITE | DOWN, &near), Err(Unfit::Access));
    assert_eq!(properties.flags(), READ_WRITE | NO_PARTIAL_WRITE);
    assert_eq!(write(&far, b"x"), Ok(true));
}

#[test]
fn flags_of_a_flow_that_is_gone_change_nothing() {
    let [near, _far] = ends();
    let properties = Properties::default();
    near.close();
    assert_eq!(properties.set_flags(WRITE_ONLY, &near), Err(Unfit::Flow(Error::Closed)));
    assert_eq!(properties.flags(), READ_WRITE | NO_PARTIAL_WRITE);
}

#[test]
fn the_peer_is_told_of_what_concerns_it() {
    let [near, far] = ends();
    let properties = Properties::default();
    for (flags, answer) in [
        (WRITE_ONLY, Err(Error::Refused)),
        (READ_WRITE | DOWN, Err(Error::Down)),
        (READ_ONLY, Ok(true)),
        (READ_WRITE, Ok(true)),
    ] {
        properties.set_flags(flags, &near).unwrap();
        assert_eq!(write(&far, b"x"), answer, "{flags:o}");
    }
}

#[test]
fn a_packet_is_read_in_parts_and_its_end_is_told_when_a_read_stops_there() {
    let [near, far] = ends();
    let properties = Properties::default();
    let reads = |rooms: &[usize]| rooms.iter().map(|room| read(&far, &properties, *room)).collect::<Vec<_>>();
    write(&near, b"12345").unwrap();
    assert_eq!(reads(&[2, 2, 2, 9]), [Some(2), Some(2), Some(1), None], "a read with room to spare shows the end");
    write(&near, b"12345").unwrap();
    assert_eq!(reads(&[3, 2, 9, 9]), [Some(3), Some(2), Some(0), None]);
    write(&near, b"12345").unwrap();
    assert_eq!(reads(&[0, 5, 0, 9]), [Some(0), Some(5), Some(0), None]);
}

#[test]
fn without_partial_reads_a_packet_stays_until_there_is_room_for_all_of_it() {
    let [near, far] = ends();
    let properties = set(READ_WRITE | NO_PARTIAL_READ);
    write(&near, b"12345").unwrap();
    assert_eq!([4, 0, 5, 9].map(|room| read(&far, &properties, room)), [None, None, Some(5), None], "and has no mark");
}

#[test]
fn an_empty_packet_is_not_sent() {
    let [near, far] = ends();
    assert_eq!(write(&near, b""), Ok(true));
    assert_eq!(read(&far, &Properties::default(), 9), None);
}

#[test]
fn a_limit_counts_from_the_first_wait_and_is_what_was_set_when_the_call_began() {
    let properties = Properties::default();
    let mut endless = Limit::new(&properties.send_timeout);
    properties.send_timeout.set(Some(Duration::ZERO));
    let mut over = Limit::new(&properties.send_timeout);
    properties.send_timeout.set(Some(Duration::MAX));
    let mut long = Limit::new(&properties.send_timeout);
    assert_eq!(endless.deadline(), None);
    assert!(!endless.is_over() && over.is_over() && !long.is_over());
    assert_eq!(long.deadline(), long.deadline(), "it is fixed");
    assert!(properties.send_timeout.get().is_some_and(|time| time > Duration::from_secs(1 << 33)));
    properties.send_timeout.set(None);
    assert_eq!(properties.send_timeout.get(), None);
}

#[test]
fn the_two_sides_of_a_session_understand_each_other_and_not_themselves() {
    let aes = Suite::from_nid(901).unwrap();
    let guarded = |sides: [usize; 2]| {
        let [near, far] = ends();
        let new = |side| guard(session(aes, &[7; 32], side, Replay::Reject).unwrap());
        [near.with_guard(new(sides[0])), far.with_guard(new(sides[1]))]
    };
    for (sides, came) in [([0, 1], Some(6)), ([1, 0], Some(6)), ([0, 0], None), ([1, 1], None)] {
        let [near, far] = guarded(sides);
        write(&near, b"secret").unwrap();
        assert_eq!(read(&far, &Properties::default(), 99), came, "{sides:?}");
    }
}
