//! A flow behaves like a queue of packets, whatever is done in whatever order.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use ouroboros_shm::endpoint::{Endpoint, Error};
use ouroboros_shm::layout::{CAPACITY, HOME, MAX_PACKET};
use proptest::prelude::*;
use rustix::fs::fstat;

mod common;

use common::checksum::OVERHEAD;
use common::{Flow, read, take, write};

#[derive(Debug, Clone)]
enum Step {
    /// Write packets of these lengths in one batch.
    Write(Vec<usize>),
    /// Read this many packets in one go.
    Read(usize),
    /// Read at most so many bytes of a packet.
    ReadPart(usize),
    /// Look at a packet, then read it.
    LookAndRead,
    /// Leave the mark of a packet's end, as a read of exactly its length does.
    MarkEnd,
}

fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => Just(0),
        8 => 1usize..200,
        4 => 1usize..6000,
        2 => 60_000usize..70_000,
        1 => MAX_PACKET - 9..=MAX_PACKET + 1,
    ]
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        4 => prop::collection::vec(lengths(), 0..5).prop_map(Step::Write),
        4 => (1usize..8).prop_map(Step::Read),
        2 => (0usize..300).prop_map(Step::ReadPart),
        1 => Just(Step::LookAndRead),
        1 => Just(Step::MarkEnd),
    ];
    prop::collection::vec((any::<bool>(), step), 0..80)
}

/// One direction: the slow, obvious twin of a ring.
#[derive(Default)]
struct Model {
    queue: VecDeque<Vec<u8>>,
    rest: Option<Vec<u8>>,
    written: u8,
    overhead: usize,
}

impl Model {
    fn available(&self) -> Option<usize> {
        self.rest.as_ref().or(self.queue.front()).map(Vec::len)
    }

    /// Take `count` bytes of what is available.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = self.rest.take().or_else(|| self.queue.pop_front()).unwrap();
        let rest = bytes.split_off(count);
        self.rest = (!rest.is_empty()).then_some(rest);
        bytes
    }

    fn write(&mut self, writer: &Endpoint, lengths: &[usize]) {
        let mut batch = writer.writer().unwrap();
        for &length in lengths {
            self.written = self.written.wrapping_add(1);
            let packet = vec![self.written; length];
            match batch.stage(&packet) {
                Ok(true) => self.queue.push_back(packet),
                Ok(false) => assert!(!self.queue.is_empty(), "{length} bytes must fit an empty ring"),
                Err(error) => {
                    assert!(error == Error::TooLong(MAX_PACKET - self.overhead) && length + self.overhead > MAX_PACKET)
                }
            }
        }
    }

    fn step(&mut self, step: &Step, writer: &Endpoint, reader: &Endpoint) {
        if let Step::Write(lengths) = step {
            return self.write(writer, lengths);
        }
        let mut reader = reader.reader().unwrap();
        let packets = if let Step::Read(packets) = step { *packets } else { 1 };
        for _ in 0..packets {
            let available = reader.available().unwrap();
            assert_eq!(available, self.available());
            let Some(length) = available else { return };
            let count = if let Step::ReadPart(count) = step { length.min(*count) } else { length };
            if let Step::LookAndRead = step {
                let peeked = reader.peek(length).to_vec();
                assert_eq!(peeked, reader.peek(length));
                assert_eq!(peeked, self.take(count));
                assert_eq!(peeked, take(&mut reader, length, count));
            } else {
                assert_eq!(take(&mut reader, length, count), self.take(count));
            }
            if let Step::MarkEnd = step {
                reader.mark_end();
                self.rest = Some(Vec::new());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flow_is_a_queue_of_packets_each_way(steps in steps(), guarded: bool) {
        let flow = if guarded { Flow::guarded() } else { Flow::new() };
        let overhead = if guarded { OVERHEAD } else { 0 };
        let mut models = [(); 2].map(|()| Model { overhead, ..Model::default() });
        for (backwards, step) in &steps {
            let (writer, reader) = if *backwards { (&flow.far, &flow.near) } else { (&flow.near, &flow.far) };
            let model = &mut models[usize::from(*backwards)];
            model.step(step, writer, reader);
            prop_assert_eq!(writer.transmit_queue().unwrap(), model.queue.len() as u64);
            prop_assert_eq!(reader.receive_queue().unwrap(), model.queue.len() as u64);
        }
        for (reader, model) in [&flow.far, &flow.near].into_iter().zip(&mut models) {
            while let Some(length) = model.available() {
                prop_assert_eq!(read(reader).unwrap(), Some(model.take(length)));
            }
            prop_assert_eq!(read(reader).unwrap(), None);
        }
    }

    #[test]
    fn longest_packet_fits_an_empty_ring_wherever_it_stands(lengths in prop::collection::vec(lengths(), 0..20)) {
        let flow = Flow::new();
        for length in lengths.into_iter().chain([MAX_PACKET]) {
            let length = length.min(MAX_PACKET);
            prop_assert_eq!(write(&flow.near, &vec![1; length]), Ok(true));
            prop_assert_eq!(read(&flow.far).unwrap().unwrap().len(), length);
        }
    }
}

fn pages(flow: &Flow) -> i64 {
    fstat(&flow.memory).unwrap().st_blocks * 512 / 4096
}

fn tail(flow: &Flow) -> u64 {
    flow.mapping.control().rings[0].producer.tail.load(Ordering::Relaxed)
}

#[test]
fn flow_without_backlog_lives_in_its_control_page() {
    for length in [1, 56, 57, 100, 1000, 1400] {
        let flow = Flow::new();
        for _ in 0..20_000 {
            assert_eq!(write(&flow.near, &vec![1; length]), Ok(true));
            assert_eq!(read(&flow.far).unwrap().unwrap().len(), length);
        }
        assert_eq!(pages(&flow), 1, "with packets of {length} bytes");
    }
}

#[test]
fn flow_goes_back_to_its_first_bytes_after_a_backlog() {
    let flow = Flow::new();
    common::fill(&flow.near);
    while read(&flow.far).unwrap().is_some() {}
    for _ in 0..1000 {
        write(&flow.near, &[1; 100]).unwrap();
        read(&flow.far).unwrap();
    }
    assert!(tail(&flow) % CAPACITY as u64 <= HOME as u64);
}

#[test]
fn empty_packet_that_was_looked_at_is_read_once() {
    let flow = Flow::new();
    for packet in [&b""[..], b"next"] {
        write(&flow.near, packet).unwrap();
    }
    {
        let mut reader = flow.far.reader().unwrap();
        assert_eq!(reader.available(), Ok(Some(0)));
        assert_eq!(reader.peek(0), b"");
    }
    assert_eq!(read(&flow.far).unwrap().unwrap(), b"");
    assert_eq!(read(&flow.far).unwrap().unwrap(), b"next");
    assert_eq!(read(&flow.far).unwrap(), None);
}

#[test]
fn empty_ring_has_room_wherever_it_is() {
    for before in 0..60 {
        let flow = Flow::new();
        for _ in 0..before {
            assert_eq!(write(&flow.near, &[1; 100]), Ok(true));
            read(&flow.far).unwrap();
        }
        let room = (0..).take_while(|_| write(&flow.near, &[2; 1000]) == Ok(true)).count();
        assert!(room >= CAPACITY / 1008 - 1, "{room} packets after {before}");
        for _ in 0..room {
            assert_eq!(read(&flow.far).unwrap().unwrap().len(), 1000);
        }
        assert_eq!(read(&flow.far), Ok(None));
    }
}
