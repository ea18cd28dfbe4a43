//! A flow whose ends seal their packets delivers what the other end sealed, and nothing else.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Instant;

use ouroboros_shm::endpoint::{Endpoint, Error, Guard, Wait, Wish};
use ouroboros_shm::layout::{CAPACITY, MAX_PACKET, state};

mod common;

use common::checksum::{Checksum, OVERHEAD};
use common::{Flow, is_readable, read, take, wait_now, write};

/// An end that seals, and one that reads and writes the ring as it is.
fn half_guarded() -> Flow {
    let Flow { near, far, memory, far_bell, mapping } = Flow::new();
    Flow { near: near.with_guard(Box::new(Checksum::default())), far, memory, far_bell, mapping }
}

/// What an end puts into the ring for `packet`.
fn sealed(packet: &[u8]) -> Vec<u8> {
    let flow = half_guarded();
    write(&flow.near, packet).unwrap();
    read(&flow.far).unwrap().unwrap()
}

fn shows_packets(endpoint: &Endpoint) -> bool {
    is_readable(endpoint.pollable().unwrap())
}

#[test]
fn ring_holds_the_sealed_packet_only() {
    let flow = half_guarded();
    assert_eq!(write(&flow.near, b"confidential"), Ok(true));
    let seen = read(&flow.far).unwrap().unwrap();
    assert_eq!(seen.len(), b"confidential".len() + OVERHEAD);
    assert!(!seen.windows(4).any(|part| part == b"conf"));
}

#[test]
fn packets_that_are_not_sealed_are_stepped_over_and_counted() {
    let flow = half_guarded();
    let sealed = sealed(b"good");
    for packet in [&b""[..], b"short", &[0; 100], &sealed[..sealed.len() - 1], &sealed, &[0; 5000]] {
        write(&flow.far, packet).unwrap();
    }
    assert_eq!(read(&flow.near).unwrap().unwrap(), b"good");
    assert_eq!(read(&flow.near), Ok(None));
    assert_eq!(flow.near.rejected(), 5);
    assert_eq!(wait_now(&flow.near, Wish::Packet), Wait::TimedOut);
}

#[test]
fn socket_is_readable_for_a_packet_and_not_for_garbage() {
    let flow = half_guarded();
    assert!(!shows_packets(&flow.near));
    write(&flow.far, b"garbage").unwrap();
    assert!(shows_packets(&flow.near));
    assert_eq!(read(&flow.near), Ok(None));
    assert!(!shows_packets(&flow.near));

    let flow = Flow::guarded();
    assert!(!shows_packets(&flow.near));
    write(&flow.far, b"packet").unwrap();
    // To look whether it is one does not take it.
    assert_eq!(flow.near.reader().unwrap().available(), Ok(Some(6)));
    assert!(shows_packets(&flow.near));
    assert_eq!(flow.near.receive_queue(), Ok(1));
    assert_eq!(read(&flow.near).unwrap().unwrap(), b"packet");
    assert!(!shows_packets(&flow.near));
    assert_eq!(flow.near.receive_queue(), Ok(0));
}

/// A peer that is always faster: for each packet that is rejected it writes the next.
#[derive(Debug)]
struct Flood(Arc<Endpoint>);

impl Guard for Flood {
    fn overhead(&self) -> usize {
        OVERHEAD
    }

    fn seal(&mut self, _: &[u8], _: &mut [u8]) -> bool {
        false
    }

    fn open(&mut self, _: &[u8], _: &mut [u8]) -> bool {
        while write(&self.0, &[0; 5000]) == Ok(true) {}
        false
    }
}

#[test]
fn reader_in_an_endless_flood_of_garbage_comes_back() {
    let Flow { near, far, .. } = Flow::new();
    let far = Arc::new(far);
    let near = near.with_guard(Box::new(Flood(Arc::clone(&far))));
    write(&far, &[0; 5000]).unwrap();
    for round in 1..4 {
        assert_eq!(read(&near), Ok(None));
        assert_eq!(near.rejected(), round * (CAPACITY / 5008) as u64);
        write(&far, &[0; 5000]).unwrap();
        // Who waits gets the chance to look at signals and at the clock.
        assert!(!near.glance(Wish::Packet));
        assert_eq!(near.wait(Wish::Packet, None), Wait::Ready);
        assert_eq!(near.wait(Wish::Packet, Some(Instant::now())), Wait::TimedOut);
    }
}

#[test]
fn packets_behind_garbage_are_read_after_the_peer_closed() {
    let flow = Flow::guarded();
    let raw = Endpoint::attach(&flow.memory, flow.far_bell.try_clone().unwrap(), 1).unwrap();
    let mut garbage = 0u64;
    while write(&raw, &[1; 1000]) == Ok(true) {
        garbage += 1;
    }
    assert_eq!(write(&raw, &sealed(b"last")), Ok(true));
    raw.close();
    assert_eq!(read(&flow.near).unwrap().unwrap(), b"last");
    assert_eq!(flow.near.rejected(), garbage);
    assert_eq!(read(&flow.near), Err(Error::PeerClosed));
}

#[test]
fn longest_packet_is_shorter_by_the_overhead() {
    let flow = Flow::guarded();
    assert_eq!(write(&flow.near, &vec![1; MAX_PACKET - OVERHEAD + 1]), Err(Error::TooLong(MAX_PACKET - OVERHEAD)));
    assert_eq!(write(&flow.near, &vec![1; MAX_PACKET - OVERHEAD]), Ok(true));
    assert_eq!(read(&flow.far).unwrap().unwrap().len(), MAX_PACKET - OVERHEAD);
}

#[test]
fn room_that_a_writer_waits_for_is_that_of_the_sealed_packet() {
    let flow = Flow::guarded();
    let mut length = MAX_PACKET / 2;
    while length > 1 {
        while write(&flow.near, &vec![1; length]).unwrap() {}
        assert!(!flow.near.spin(Wish::Room(length)), "{length}");
        assert_eq!(wait_now(&flow.near, Wish::Room(length)), Wait::TimedOut);
        assert_eq!(flow.near.want_room(length), Ok(false));
        flow.near.forget_room().unwrap();
        length /= 2;
    }
    while read(&flow.far).unwrap().is_some() {}
    assert!(flow.near.spin(Wish::Room(MAX_PACKET - OVERHEAD)));
}

#[test]
fn packet_that_cannot_be_sealed_is_an_error_and_those_before_it_arrive() {
    let Flow { near, far, .. } = Flow::new();
    let near = near.with_guard(Box::new(Checksum { limit: Some(2) }));
    let far = far.with_guard(Box::new(Checksum::default()));
    {
        let mut writer = near.writer().unwrap();
        assert_eq!(writer.stage(b"one"), Ok(true));
        assert_eq!(writer.stage(b"two"), Ok(true));
        assert_eq!(writer.stage(b"three"), Err(Error::Unsealed));
    }
    assert_eq!(read(&far).unwrap().unwrap(), b"one");
    assert_eq!(read(&far).unwrap().unwrap(), b"two");
    assert_eq!(read(&far), Ok(None));
}

#[test]
fn part_of_a_packet_stays_and_does_not_count_as_queued() {
    let flow = Flow::guarded();
    write(&flow.near, b"first part, second part").unwrap();
    write(&flow.near, b"next").unwrap();
    assert_eq!((flow.far.receive_queue(), flow.near.transmit_queue()), (Ok(2), Ok(2)));
    {
        let mut reader = flow.far.reader().unwrap();
        let length = reader.available().unwrap().unwrap();
        assert_eq!(take(&mut reader, length, 10), b"first part");
    }
    assert_eq!((flow.far.receive_queue(), flow.near.transmit_queue()), (Ok(1), Ok(1)));
    assert_eq!(read(&flow.far).unwrap().unwrap(), b", second part");
    assert_eq!(read(&flow.far).unwrap().unwrap(), b"next");
}

#[test]
fn peer_that_goes_down_is_seen_through_a_guard() {
    let flow = Flow::guarded();
    write(&flow.far, b"queued").unwrap();
    flow.far.set_state(state::DOWN).unwrap();
    assert_eq!(read(&flow.near).unwrap().unwrap(), b"queued");
    assert_eq!(read(&flow.near), Err(Error::Down));
}
