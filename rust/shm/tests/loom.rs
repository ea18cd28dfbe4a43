//! The protocols of `ring`, in every order that the memory model allows (up to a number of preemptions).
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ouroboros-shm --release --target-dir target/loom --test loom`
//!
//! A lost wake-up shows as a deadlock, a missing barrier as a data race on a word of the heap ring; loom reports both.
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic)]

use core::mem::MaybeUninit;
use std::collections::VecDeque;

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use ouroboros_shm::layout::RingControl;
use ouroboros_shm::ring::{Arm, Bell, Consumer, Memory, Producer, StageError};

/// Room for four records of the packets used here; the third passes `HOME` and goes back when the reader is done.
const CAPACITY: usize = 64;
const PREEMPTIONS: usize = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.max_branches = 10_000;
    builder.check(model);
}

/// The memory of one ring, on the heap; loom watches every word of the data for races.
#[derive(Clone)]
struct HeapRing(Arc<Heap>);

struct Heap {
    control: RingControl,
    words: Vec<UnsafeCell<[u8; 8]>>,
}

// SAFETY: loom checks each access of a word against all others.
unsafe impl Sync for Heap {}
// SAFETY: the words are plain bytes.
unsafe impl Send for Heap {}

impl HeapRing {
    fn new() -> Self {
        let words = (0..CAPACITY / 8).map(|_| UnsafeCell::new([0; 8])).collect();
        HeapRing(Arc::new(Heap { control: RingControl::default(), words }))
    }
}

impl Memory for HeapRing {
    const CAPACITY: usize = CAPACITY;
    const HOME: usize = 40;
    const CHECK: usize = 8;

    fn control(&self) -> &RingControl {
        &self.0.control
    }

    fn write(&self, at: usize, source: &[u8]) {
        for (index, bytes) in source.chunks(8).enumerate() {
            let word = &self.0.words[(at / 8 + index) % (CAPACITY / 8)];
            // SAFETY: loom fails the test when another thread uses the word meanwhile.
            word.with_mut(|word| unsafe { (&mut *word)[..bytes.len()].copy_from_slice(bytes) });
        }
    }

    fn read(&self, at: usize, target: &mut [MaybeUninit<u8>]) {
        for (index, bytes) in target.chunks_mut(8).enumerate() {
            let word = &self.0.words[(at / 8 + index) % (CAPACITY / 8)];
            // SAFETY: as in `write`.
            let word = word.with(|word| unsafe { *word });
            for (to, from) in bytes.iter_mut().zip(word) {
                to.write(from);
            }
        }
    }

    fn length_at(&self, at: usize) -> u32 {
        // SAFETY: as in `write`.
        let word = self.0.words[at / 8].with(|word| unsafe { *word });
        u32::from_ne_bytes([word[0], word[1], word[2], word[3]])
    }
}

/// The doorbell: a count of tokens, and sleeping until there is one, like a socket that is polled by level. The rings are
/// counted, too, for who polls by edge.
#[derive(Clone)]
struct Tokens(Arc<(Mutex<Count>, Condvar)>);

struct Count {
    tokens: usize,
    rings: usize,
}

impl Tokens {
    /// A ring starts disarmed, with its token in the socket.
    fn new() -> Self {
        Tokens(Arc::new((Mutex::new(Count { tokens: 1, rings: 0 }), Condvar::new())))
    }

    fn ring(&self) {
        let mut bell = self.0.0.lock().unwrap();
        bell.tokens += 1;
        bell.rings += 1;
        self.0.1.notify_all();
    }

    fn sleep_until_rung(&self) {
        let mut bell = self.0.0.lock().unwrap();
        while bell.tokens == 0 {
            bell = self.0.1.wait(bell).unwrap();
        }
    }

    fn rings(&self) -> usize {
        self.0.0.lock().unwrap().rings
    }

    fn sleep_until_next(&self, seen: usize) {
        let mut bell = self.0.0.lock().unwrap();
        while bell.rings == seen {
            bell = self.0.1.wait(bell).unwrap();
        }
    }
}

impl Bell for Tokens {
    fn drain(&self, count: usize) -> usize {
        let mut bell = self.0.0.lock().unwrap();
        let taken = count.min(bell.tokens);
        bell.tokens -= taken;
        taken
    }

    fn has_token(&self) -> bool {
        self.0.0.lock().unwrap().tokens > 0
    }
}

/// What the kernel does for a futex: compare and sleep in one step.
#[derive(Clone)]
struct Futex(Arc<(Mutex<()>, Condvar)>);

impl Futex {
    fn new() -> Self {
        Futex(Arc::new((Mutex::new(()), Condvar::new())))
    }

    fn wait(&self, word: &AtomicU32, seen: u32) {
        let bucket = self.0.0.lock().unwrap();
        if word.load(Ordering::Relaxed) == seen {
            drop(self.0.1.wait(bucket).unwrap());
        }
    }

    fn wake(&self, word: &AtomicU32) {
        word.fetch_add(1, Ordering::Release);
        drop(self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }
}

/// Packet number `number`; a torn one shows.
fn packet(number: u8) -> [u8; 8] {
    [number; 8]
}

fn send(producer: &mut Producer<HeapRing>, bell: &Tokens, number: u8) {
    producer.stage(&packet(number)).unwrap();
    if producer.publish() {
        bell.ring();
    }
}

fn take(consumer: &mut Consumer<HeapRing>) -> Option<u8> {
    let length = consumer.next_length().unwrap()?;
    assert_eq!(length, 8);
    let mut bytes = [MaybeUninit::uninit(); 8];
    consumer.take(&mut bytes);
    // SAFETY: `take` wrote all of it.
    let bytes = bytes.map(|byte| unsafe { byte.assume_init() });
    assert_eq!(bytes, packet(bytes[0]));
    Some(bytes[0])
}

fn never() -> bool {
    false
}

#[test]
fn sleeping_reader_gets_every_packet_in_order() {
    check(|| {
        let (ring, bell) = (HeapRing::new(), Tokens::new());
        let mut consumer = Consumer::new(ring.clone());
        let writer = thread::spawn({
            let bell = bell.clone();
            move || {
                let mut producer = Producer::new(ring);
                (0..3).for_each(|number| send(&mut producer, &bell, number));
            }
        });
        for number in 0..3 {
            let got = loop {
                if let Some(got) = take(&mut consumer) {
                    break got;
                }
                if consumer.arm(&bell, never).unwrap() == Arm::Armed {
                    bell.sleep_until_rung();
                }
            };
            assert_eq!(got, number);
            assert!(!consumer.release());
        }
        writer.join().unwrap();
        assert_eq!(consumer.queued(), 0);
    });
}

#[test]
fn batch_wakes_the_reader_and_comes_whole() {
    check(|| {
        let (ring, bell) = (HeapRing::new(), Tokens::new());
        let mut consumer = Consumer::new(ring.clone());
        let writer = thread::spawn({
            let bell = bell.clone();
            move || {
                let mut producer = Producer::new(ring);
                producer.stage(&packet(0)).unwrap();
                send(&mut producer, &bell, 1);
            }
        });
        while consumer.next_length().unwrap().is_none() {
            if consumer.arm(&bell, never).unwrap() == Arm::Armed {
                bell.sleep_until_rung();
            }
        }
        assert_eq!((take(&mut consumer), take(&mut consumer)), (Some(0), Some(1)));
        writer.join().unwrap();
    });
}

#[test]
fn two_sleeping_readers_get_every_packet_once() {
    // One packet for either reader: whoever finds the ring empty sleeps until the other's packet or its own wakes it.
    check(|| {
        let (ring, bell) = (HeapRing::new(), Tokens::new());
        let consumer = Arc::new(Mutex::new(Consumer::new(ring.clone())));
        let read_one = {
            let (consumer, bell) = (consumer.clone(), bell.clone());
            move || loop {
                let armed = {
                    let mut consumer = consumer.lock().unwrap();
                    if let Some(number) = take(&mut consumer) {
                        return number;
                    }
                    consumer.arm(&bell, never).unwrap()
                };
                if armed == Arm::Armed {
                    bell.sleep_until_rung();
                }
            }
        };
        let other = thread::spawn(read_one.clone());
        let writer = thread::spawn(move || {
            let mut producer = Producer::new(ring);
            (0..2).for_each(|number| send(&mut producer, &bell, number));
        });
        let mine = read_one();
        let theirs = other.join().unwrap();
        writer.join().unwrap();
        assert_eq!(mine + theirs, 1);
    });
}

#[test]
fn writer_waiting_for_room_is_woken() {
    check(|| {
        let (ring, futex) = (HeapRing::new(), Futex::new());
        let mut consumer = Consumer::new(ring.clone());
        let mut producer = Producer::new(ring.clone());
        let mut expected: VecDeque<u8> = (0..).take_while(|&number| producer.stage(&packet(number)).is_ok()).collect();
        assert!(!producer.publish());
        expected.push_back(9);
        let writer = thread::spawn({
            let (ring, futex) = (ring.clone(), futex.clone());
            move || {
                let space = &ring.control().wait.space;
                loop {
                    match producer.stage(&packet(9)) {
                        Ok(()) => break,
                        Err(error) => assert_eq!(error, StageError::Full),
                    }
                    let seen = space.load(Ordering::Acquire);
                    producer.request_wake(8);
                    if !producer.has_room(8).unwrap() {
                        futex.wait(space, seen);
                    }
                }
                let _ = producer.publish();
                producer
            }
        });
        while expected.len() > 1 {
            assert_eq!(take(&mut consumer), expected.pop_front());
            if consumer.release() {
                futex.wake(&ring.control().wait.space);
            }
        }
        let producer = writer.join().unwrap();
        assert_eq!(take(&mut consumer), Some(9));
        assert!(producer.queued() <= 1);
    });
}

#[test]
fn poller_that_only_looks_at_the_socket_sees_every_packet() {
    check(|| {
        let (ring, bell) = (HeapRing::new(), Tokens::new());
        let mut consumer = Consumer::new(ring.clone());
        let writer = thread::spawn({
            let bell = bell.clone();
            move || {
                let mut producer = Producer::new(ring);
                (0..3).for_each(|number| send(&mut producer, &bell, number));
            }
        });
        let mut next = 0;
        while next < 3 {
            bell.sleep_until_rung();
            while let Some(number) = take(&mut consumer) {
                assert_eq!(number, next);
                next += 1;
                let _ = consumer.release();
            }
            // Whether armed or ready: what comes later, or is there, must show in the socket.
            consumer.arm(&bell, never).unwrap();
        }
        writer.join().unwrap();
        // Once it is over the socket becomes unreadable and stays so.
        consumer.arm(&bell, never).unwrap();
        consumer.arm(&bell, never).unwrap();
        assert!(!bell.has_token());
    });
}

#[test]
fn poller_sees_a_change_of_state() {
    check(|| {
        let (ring, bell) = (HeapRing::new(), Tokens::new());
        let state = Arc::new(AtomicU32::new(0));
        let mut consumer = Consumer::new(ring.clone());
        let peer = thread::spawn({
            let (state, bell) = (state.clone(), bell.clone());
            move || {
                let producer = Producer::new(ring);
                state.fetch_or(1, Ordering::AcqRel);
                if producer.disarm() {
                    bell.ring();
                }
            }
        });
        loop {
            bell.sleep_until_rung();
            if state.load(Ordering::Acquire) == 1 {
                break;
            }
            consumer.arm(&bell, || state.load(Ordering::Acquire) == 1).unwrap();
        }
        peer.join().unwrap();
    });
}

/// One side: it writes to a ring that is full, and waits for room by the edge of its doorbell, while a poller of it looks at
/// the level. The peer writes a packet, reads, and ends.
#[test]
fn writer_that_waits_by_the_doorbell_is_woken_and_hides_no_packet() {
    check(|| {
        let (incoming, outgoing, bell) = (HeapRing::new(), HeapRing::new(), Tokens::new());
        let consumer = Arc::new(Mutex::new(Consumer::new(incoming.clone())));
        let mut producer = Producer::new(outgoing.clone());
        let full = (0..).take_while(|&number| producer.stage(&packet(number)).is_ok()).count();
        assert!(!producer.publish());
        let peer = thread::spawn({
            let bell = bell.clone();
            move || {
                send(&mut Producer::new(incoming), &bell, 7);
                let mut consumer = Consumer::new(outgoing);
                for _ in 0..full {
                    assert!(take(&mut consumer).is_some());
                }
                if consumer.release() && consumer.disarm_writer() {
                    bell.ring();
                }
            }
        });
        let writer = thread::spawn({
            let (consumer, bell) = (consumer.clone(), bell.clone());
            move || loop {
                let seen = bell.rings();
                consumer.lock().unwrap().expect_room_token();
                producer.arm();
                producer.request_wake(8);
                let there = producer.has_room(8).unwrap();
                if !there {
                    bell.sleep_until_next(seen);
                }
                let mut consumer = consumer.lock().unwrap();
                let rung = producer.unarm();
                consumer.settle_room_token(rung, &bell);
                drop(consumer);
                if producer.stage(&packet(9)).is_ok() {
                    break;
                }
            }
        });
        loop {
            bell.sleep_until_rung();
            let mut consumer = consumer.lock().unwrap();
            if take(&mut consumer).is_some() {
                break;
            }
            consumer.arm(&bell, never).unwrap();
        }
        peer.join().unwrap();
        writer.join().unwrap();
        // Once it is over the socket becomes unreadable and stays so.
        let mut consumer = consumer.lock().unwrap();
        consumer.arm(&bell, never).unwrap();
        consumer.arm(&bell, never).unwrap();
        assert!(!bell.has_token());
    });
}
