//! Two programs with a relay between them.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::fd::OwnedFd;
use std::thread::yield_now;

use common::layers::Relay;
use ouroboros_io::impair::{Chance, Counters, Settings};
use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish};
use ouroboros_shm::layout::{CAPACITY, state};

/// A delay that no test lives to see the end of, nanoseconds.
const FOR_EVER: u64 = 1 << 62;

/// The ends of two programs whose flow goes through the relay.
fn flow(relay: &Relay, id: u64) -> [Endpoint; 2] {
    let (allocator, near) = pair();
    let (far, acceptor) = pair();
    relay.add(id, [near, far]).unwrap();
    [allocator, acceptor]
}

fn pair() -> (Endpoint, Endpoint) {
    let made = channel::create().unwrap();
    let [zero, one]: [OwnedFd; 2] = made.bells;
    (Endpoint::attach(&made.memory, zero, 0).unwrap(), Endpoint::attach(&made.memory, one, 1).unwrap())
}

fn relay(settings: Settings) -> Relay {
    Relay::start(settings, 42).unwrap()
}

fn write(endpoint: &Endpoint, packet: &[u8]) {
    assert_eq!(endpoint.writer().unwrap().stage(packet), Ok(true));
}

/// The next packet, or why there will be none.
fn read(endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    loop {
        {
            let mut reader = endpoint.reader()?;
            if let Some(length) = reader.available()? {
                let mut packet = Vec::new();
                reader.append_to(&mut packet, length);
                return Ok(packet);
            }
        }
        assert_ne!(endpoint.wait(Wish::Packet, None), Wait::TimedOut);
    }
}

fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        yield_now();
    }
}

#[test]
fn packets_go_both_ways_whole_and_in_order() {
    let relay = relay(Settings { delay: 1_000_000, jitter: 1_000_000, ..Settings::default() });
    let [one, other] = flow(&relay, 1);
    let packets: Vec<Vec<u8>> = (0..200usize).map(|number| vec![number as u8; 1 + number * 40]).collect();
    for (from, to) in [(&one, &other), (&other, &one)] {
        packets.iter().for_each(|packet| write(from, packet));
        for packet in &packets {
            assert_eq!(read(to).as_ref(), Ok(packet), "{:?}", relay.counters());
        }
    }
    assert_eq!(relay.counters(), Counters { delivered: 400, ..Counters::default() });
}

#[test]
fn what_is_under_way_arrives_before_the_end() {
    let relay = relay(Settings { delay: 20_000_000, ..Settings::default() });
    for side in [0, 1] {
        let mut ends = flow(&relay, side as u64 + 1).map(Some);
        let leaver = ends[side].take().unwrap();
        let stayer = ends[1 - side].take().unwrap();
        write(&leaver, b"last words");
        drop(leaver);
        assert_eq!(read(&stayer), Ok(b"last words".to_vec()));
        assert_eq!(read(&stayer), Err(Error::PeerClosed));
    }
}

#[test]
fn a_death_is_told_as_one() {
    let relay = relay(Settings { delay: 1_000_000, ..Settings::default() });
    for side in [0, 1] {
        let ends = flow(&relay, side as u64 + 1);
        write(&ends[side], b"last words");
        relay.mark_dead(side as u64 + 1, side);
        assert_eq!(read(&ends[1 - side]), Ok(b"last words".to_vec()));
        assert_eq!(read(&ends[1 - side]), Err(Error::PeerDead));
    }
    // Of one that is not there nobody hears.
    relay.mark_dead(7, 0);
}

#[test]
fn a_writer_that_waits_for_a_program_that_is_gone_hears_of_it() {
    let relay = relay(Settings::default());
    let [one, other] = flow(&relay, 1);
    drop(other);
    until(|| one.writer().is_err());
    assert_eq!(one.writer().err(), Some(Error::PeerClosed));
}

#[test]
fn flags_reach_the_other_side_and_are_taken_back() {
    let relay = relay(Settings::default());
    let [one, other] = flow(&relay, 1);
    for (setter, sees) in [(&one, &other), (&other, &one)] {
        for (bits, error) in [(state::DOWN, Error::Down), (state::REFUSES, Error::Refused)] {
            setter.set_state(bits).unwrap();
            until(|| sees.writer().err() == Some(error));
            setter.set_state(0).unwrap();
            until(|| sees.writer().is_ok());
        }
    }
    // Both at once: it is over when both have taken it back.
    one.set_state(state::DOWN).unwrap();
    until(|| other.writer().is_err());
    other.set_state(state::DOWN).unwrap();
    one.set_state(0).unwrap();
    until(|| one.ended() == Ok(state::DOWN));
    other.set_state(0).unwrap();
    until(|| one.writer().is_ok() && other.writer().is_ok());
}

#[test]
fn what_is_written_after_a_flag_was_taken_back_arrives() {
    let relay = relay(Settings::default());
    let [one, other] = flow(&relay, 1);
    for _ in 0..100 {
        one.set_state(state::DOWN).unwrap();
        until(|| other.writer().is_err());
        one.set_state(0).unwrap();
        write(&one, b"up again");
        until(|| read(&other) == Ok(b"up again".to_vec()));
    }
}

#[test]
fn what_a_slow_reader_has_no_room_for_is_lost_and_counted() {
    let relay = relay(Settings::default());
    let [one, other] = flow(&relay, 1);
    let packet = vec![7; 64 << 10];
    let sent = 3 * CAPACITY / packet.len();
    for _ in 0..sent {
        until(|| one.writer().unwrap().stage(&packet) == Ok(true));
    }
    until(|| relay.counters().delivered + relay.counters().lost == sent as u64);
    let Counters { delivered, lost, .. } = relay.counters();
    assert!(lost > 0);
    for _ in 0..delivered {
        assert_eq!(read(&other), Ok(packet.clone()));
    }
    assert!(!other.spin(Wish::Packet));
}

#[test]
fn the_same_flow_of_the_same_seed_loses_the_same() {
    let settings = Settings { loss: Chance::new(0.5).unwrap(), ..Settings::default() };
    let arrived = || {
        let relay = relay(settings);
        let [one, other] = flow(&relay, 9);
        (0..100u8).for_each(|number| write(&one, &[number]));
        drop(one);
        std::iter::from_fn(|| read(&other).ok()).collect::<Vec<_>>()
    };
    assert_eq!(arrived(), arrived());
    assert!((20..80).contains(&arrived().len()));
}

#[test]
fn a_partition_can_be_healed() {
    let relay = relay(Settings { partition: true, ..Settings::default() });
    let [one, other] = flow(&relay, 1);
    write(&one, b"into the void");
    until(|| relay.counters().lost == 1);
    relay.set(Settings::default(), 42);
    write(&one, b"hello");
    assert_eq!(read(&other), Ok(b"hello".to_vec()));
}

#[test]
fn flows_of_a_relay_whose_thread_panics_end_as_died_and_so_do_those_to_come() {
    let relay = relay(Settings::default());
    let ends = flow(&relay, 1);
    relay.panic();
    for program in ends.iter().chain(&flow(&relay, 2)) {
        assert_eq!(read(program), Err(Error::PeerDead));
    }
    until(|| relay.failure().is_some());
    assert!(common::is_readable(relay.news()));
    for program in &flow(&relay, 3) {
        assert_eq!(read(program), Err(Error::PeerDead));
    }
}

#[test]
fn a_layer_that_ends_takes_its_flows_down() {
    let mut relay = relay(Settings { delay: FOR_EVER, ..Settings::default() });
    let ends: Vec<_> = (0..3).flat_map(|id| flow(&relay, id)).collect();
    write(&ends[0], b"never to be seen");
    relay.remove(2);
    assert_eq!(read(&ends[4]), Err(Error::PeerClosed));
    relay.remove(2);
    relay.stop();
    assert!(ends[..4].iter().all(|end| read(end) == Err(Error::PeerDead)));
}

#[test]
fn a_flow_of_which_one_end_cannot_be_carried_ends_at_both() {
    let relay = relay(Settings::default());
    let (one, near) = pair();
    let (far, other) = pair();
    relay.add_half([near, far]);
    for program in [one, other] {
        assert_eq!(read(&program), Err(Error::PeerClosed));
    }
    // Nothing else happened.
    let [one, other] = flow(&relay, 1);
    write(&one, b"hello");
    assert_eq!(read(&other), Ok(b"hello".to_vec()));
    assert_eq!(relay.failure(), None);
}

#[test]
fn a_program_that_left_frees_the_flow_when_the_other_leaves_too() {
    let relay = relay(Settings { delay: FOR_EVER, ..Settings::default() });
    let [one, other] = flow(&relay, 1);
    write(&one, b"never to be seen");
    drop(one);
    // What it wrote is under way for ever, but there is nobody left to wait for it.
    drop(other);
    // Its successor has the same number.
    let [one, other] = flow(&relay, 1);
    drop(one);
    assert_eq!(read(&other), Err(Error::PeerClosed));
}
