//! A peer that writes what it likes into the shared memory and the socket harms itself and nobody else.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::thread;

use ouroboros_shm::channel::{self, mark_dead};
use ouroboros_shm::endpoint::{Endpoint, Error, Guard, Wait, Wish};
use ouroboros_shm::layout::{CAPACITY, MAGIC, MAX_PACKET, MEMORY, RingControl, place, state};
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::pwrite;
use rustix::net::{SendFlags, Shutdown, send, shutdown};

mod common;

use common::scribbler::{Attack, KINDS};
use common::{Flow, fill, is_readable, read, read_all, wait_now, write, write_all};

/// The ring that side 1, the hostile one, writes.
fn incoming(flow: &Flow) -> &RingControl {
    &flow.mapping.control().rings[1]
}

fn outgoing(flow: &Flow) -> &RingControl {
    &flow.mapping.control().rings[0]
}

fn write_length(flow: &Flow, at: usize, length: u32) {
    pwrite(&flow.memory, &length.to_ne_bytes(), place(1, at).0 as u64).unwrap();
}

fn ring_bell(flow: &Flow, count: usize, flags: SendFlags) {
    send(&flow.far_bell, &vec![b'?'; count], flags | SendFlags::NOSIGNAL).unwrap();
}

fn assert_corrupt_for_good(flow: &Flow) {
    assert_eq!(read(&flow.near), Err(Error::Corrupt));
    // Making good comes too late.
    write_length(flow, 0, 8);
    incoming(flow).producer.tail.store(16, Ordering::Relaxed);
    outgoing(flow).consumer.head.store(0, Ordering::Relaxed);
    assert_eq!(read(&flow.near), Err(Error::Corrupt));
    assert_eq!(write(&flow.near, b"x"), Err(Error::Corrupt));
    assert_eq!(flow.near.wait(Wish::Packet, None), Wait::Ready);
    assert_eq!(flow.near.wait(Wish::Room(1), None), Wait::Ready);
}

#[test]
fn impossible_tail_is_corrupt() {
    for tail in [7, CAPACITY as u64 + 8, 1 << 63, u64::MAX, u64::MAX - 7] {
        let flow = Flow::new();
        incoming(&flow).producer.tail.store(tail, Ordering::Relaxed);
        assert_corrupt_for_good(&flow);
    }
}

#[test]
fn tail_that_goes_back_is_corrupt() {
    let flow = Flow::new();
    write(&flow.far, b"packet").unwrap();
    read(&flow.near).unwrap();
    incoming(&flow).producer.tail.store(8, Ordering::Relaxed);
    assert_corrupt_for_good(&flow);
}

/// A peer that shows more of the ring whenever what it has shown is taken, without waiting for room.
fn show_more(control: &RingControl, record: u64) {
    let tail = control.producer.tail.load(Ordering::Relaxed);
    control.producer.tail.store(tail + record, Ordering::Relaxed);
}

#[test]
fn one_call_takes_no_more_than_a_ring_holds() {
    let flow = Flow::new();
    show_more(incoming(&flow), 8);
    let mut reader = flow.near.reader().unwrap();
    let mut packets = 0;
    while let Ok(Some(length)) = reader.available() {
        common::take(&mut reader, length, length);
        packets += 1;
        assert!(packets <= CAPACITY / 8, "it goes on and on");
        show_more(incoming(&flow), 8);
    }
    assert_eq!(packets, CAPACITY / 8);
    assert_eq!(reader.available(), Err(Error::Corrupt));
    drop(reader);
    assert_corrupt_for_good(&flow);
}

/// Rejects everything, and meanwhile the peer shows more.
#[derive(Debug)]
struct Runaway {
    mapping: channel::Mapping,
    looks: usize,
}

impl Guard for Runaway {
    fn overhead(&self) -> usize {
        0
    }

    fn seal(&mut self, _: &[u8], _: &mut [u8]) -> bool {
        false
    }

    fn open(&mut self, _: &[u8], _: &mut [u8]) -> bool {
        self.looks += 1;
        assert!(self.looks <= CAPACITY / 8, "it goes on and on");
        show_more(&self.mapping.control().rings[1], 8);
        false
    }
}

#[test]
fn one_call_rejects_no_more_than_a_ring_holds() {
    let Flow { near, far, memory, far_bell, mapping } = Flow::new();
    let guard = Runaway { mapping: channel::Mapping::new(&memory).unwrap(), looks: 0 };
    let flow = Flow { near: near.with_guard(Box::new(guard)), far, memory, far_bell, mapping };
    show_more(incoming(&flow), 8);
    assert_eq!(read(&flow.near), Err(Error::Corrupt));
    assert_eq!(flow.near.rejected(), CAPACITY as u64 / 8);
    assert_eq!(wait_now(&flow.near, Wish::Packet), Wait::Ready);
    assert_corrupt_for_good(&flow);
}

#[test]
fn impossible_length_is_corrupt() {
    for length in [57, 4096, MAX_PACKET as u32, MAX_PACKET as u32 + 1, i32::MAX as u32, u32::MAX - 1, u32::MAX] {
        let flow = Flow::new();
        write_length(&flow, 0, length);
        incoming(&flow).producer.tail.store(64, Ordering::Relaxed);
        assert_corrupt_for_good(&flow);
    }
}

#[test]
fn skip_to_nowhere_is_corrupt() {
    let flow = Flow::new();
    write(&flow.far, b"packet").unwrap();
    read(&flow.near).unwrap();
    // From where the reader is, but there is nothing behind the start of the data that it leads to.
    incoming(&flow).producer.skip.store(16, Ordering::Relaxed);
    incoming(&flow).producer.tail.store(32, Ordering::Relaxed);
    assert_corrupt_for_good(&flow);
}

#[test]
fn skip_from_elsewhere_is_none() {
    for skip in [0, 8, CAPACITY as u64, u64::MAX] {
        let flow = Flow::new();
        incoming(&flow).producer.skip.store(skip, Ordering::Relaxed);
        for _ in 0..100 {
            assert_eq!(write(&flow.far, b"packet"), Ok(true));
            assert_eq!(read(&flow.near).unwrap().unwrap(), b"packet");
        }
    }
}

#[test]
fn impossible_head_is_corrupt() {
    for head in [u64::MAX, 1 << 40, 8000] {
        let flow = Flow::new();
        outgoing(&flow).consumer.head.store(head, Ordering::Relaxed);
        // The second one is past the first page, so it looks where the reader is.
        assert_eq!(write(&flow.near, &[0; 5000]), Ok(true));
        assert_eq!(write(&flow.near, &[0; 5000]), Err(Error::Corrupt));
        assert_corrupt_for_good(&flow);
    }
}

#[test]
fn head_that_goes_back_is_corrupt() {
    let flow = Flow::new();
    write(&flow.near, &[0; MAX_PACKET]).unwrap();
    read(&flow.far).unwrap();
    write(&flow.near, &[0; MAX_PACKET]).unwrap();
    outgoing(&flow).consumer.head.store(0, Ordering::Relaxed);
    assert_eq!(write(&flow.near, &[0; MAX_PACKET]), Err(Error::Corrupt));
}

#[test]
fn lies_about_counts_stay_within_what_a_ring_holds() {
    let flow = Flow::new();
    write(&flow.near, b"packet").unwrap();
    outgoing(&flow).consumer.popped.store(u64::MAX, Ordering::Relaxed);
    incoming(&flow).producer.pushed.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(flow.near.transmit_queue(), Ok(0));
    assert_eq!(flow.near.receive_queue(), Ok(CAPACITY as u64 / 8));
}

#[test]
fn unknown_state_bits_mean_nothing() {
    let flow = Flow::new();
    let known = state::CLOSED | state::DEAD | state::DOWN | state::REFUSES;
    flow.mapping.control().state[1].store(!known, Ordering::Relaxed);
    assert!(!flow.near.glance(Wish::Packet));
    assert_eq!(wait_now(&flow.near, Wish::Packet), Wait::TimedOut);
    assert_eq!(write(&flow.near, b"x"), Ok(true));
}

#[test]
fn token_that_nobody_asked_for_is_corrupt() {
    for flags in [SendFlags::empty(), SendFlags::OOB] {
        let flow = Flow::new();
        assert_eq!(wait_now(&flow.near, Wish::Packet), Wait::TimedOut);
        ring_bell(&flow, 1, flags);
        assert_eq!(flow.near.wait(Wish::Packet, None), Wait::Ready);
        flow.near.wait(Wish::Packet, None);
        assert_corrupt_for_good(&flow);
    }
}

#[test]
fn token_that_nobody_asked_for_shows_a_poller_an_error() {
    let flow = Flow::new();
    assert!(!is_readable(flow.near.pollable().unwrap()));
    ring_bell(&flow, 1, SendFlags::empty());
    assert_eq!(read(&flow.near), Ok(None));
    assert!(is_readable(flow.near.pollable().unwrap()));
    assert_corrupt_for_good(&flow);
}

#[test]
fn false_alarms_do_not_outlast_the_deadline() {
    let flow = Flow::new();
    ring_bell(&flow, 100, SendFlags::empty());
    assert_eq!(wait_now(&flow.near, Wish::Packet), Wait::TimedOut);
}

#[test]
fn socket_that_hangs_up_is_a_dead_peer() {
    let [near_bell, far_bell] = channel::create().map(|channel| channel.bells).unwrap();
    let near = Endpoint::attach(channel::create().unwrap().memory, near_bell, 0).unwrap();
    drop(far_bell);
    assert_eq!(near.wait(Wish::Packet, None), Wait::Ready);
    assert_eq!(read(&near), Err(Error::PeerDead));
    assert_eq!(write(&near, b"x"), Err(Error::PeerDead));
}

#[test]
fn writer_that_rings_a_socket_that_hung_up_finds_a_dead_peer() {
    let channel = channel::create().unwrap();
    let [near_bell, far_bell] = channel.bells;
    let near = Endpoint::attach(&channel.memory, near_bell, 0).unwrap();
    let mapping = channel::Mapping::new(&channel.memory).unwrap();
    mapping.control().rings[0].wait.reader_armed.store(1, Ordering::Relaxed);
    drop(far_bell);
    assert_eq!(write(&near, b"x"), Ok(true));
    assert_eq!(write(&near, b"x"), Err(Error::PeerDead));
}

#[test]
fn writer_that_wants_room_from_a_dead_peer_is_told_without_being_rung() {
    let flow = Flow::new();
    fill(&flow.near);
    shutdown(&flow.far_bell, Shutdown::Write).unwrap();
    assert_eq!(flow.near.want_room(8), Ok(true));
    assert_eq!(write(&flow.near, b"x"), Err(Error::PeerDead));
}

#[test]
fn socket_that_hangs_up_halfway_is_a_dead_peer() {
    let flow = Flow::new();
    shutdown(&flow.far_bell, Shutdown::Write).unwrap();
    flow.near.wait(Wish::Packet, None);
    flow.near.wait(Wish::Packet, None);
    assert_eq!(read(&flow.near), Err(Error::PeerDead));
}

#[test]
fn socket_that_hangs_up_halfway_shows_a_poller_an_error() {
    let flow = Flow::new();
    flow.near.pollable().unwrap();
    shutdown(&flow.far_bell, Shutdown::Write).unwrap();
    assert!(is_readable(flow.near.pollable().unwrap()));
    assert_eq!(read(&flow.near), Err(Error::PeerDead));
}

#[test]
fn queued_packets_are_read_before_the_end_is_told() {
    for (end, error) in [(state::CLOSED, Error::PeerClosed), (state::DEAD, Error::PeerDead)] {
        let flow = Flow::new();
        write(&flow.far, b"last words").unwrap();
        if end == state::CLOSED {
            flow.far.close()
        } else {
            mark_dead(&flow.memory, 1).unwrap()
        }
        assert_eq!(flow.near.wait(Wish::Packet, None), Wait::Ready);
        assert_eq!(read(&flow.near).unwrap().unwrap(), b"last words");
        assert_eq!(read(&flow.near), Err(error));
        assert_eq!(write(&flow.near, b"x"), Err(error));
    }
}

/// Run `end` while threads wait on side 0 for a packet and for room; both must return. Returns what they were told.
fn end_while_waiting(flow: &Flow, end: impl FnOnce()) -> [Option<Error>; 2] {
    common::fill(&flow.near);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_all(&flow.near).err());
        let writer = scope.spawn(|| write_all(&flow.near, &[0; 1 << 16]).err());
        end();
        [reader.join().unwrap(), writer.join().unwrap()]
    })
}

#[test]
fn close_wakes_those_who_wait_here() {
    let flow = Flow::new();
    assert_eq!(end_while_waiting(&flow, || flow.near.close()), [Some(Error::Closed); 2]);
}

#[test]
fn close_wakes_those_who_wait_there() {
    let flow = Flow::new();
    assert_eq!(end_while_waiting(&flow, || flow.far.close()), [Some(Error::PeerClosed); 2]);
}

#[test]
fn down_wakes_those_who_wait_there() {
    let flow = Flow::new();
    assert_eq!(end_while_waiting(&flow, || flow.far.set_state(state::DOWN).unwrap()), [Some(Error::Down); 2]);
}

#[test]
fn corruption_wakes_those_who_wait() {
    let flow = Flow::new();
    let corrupt = || {
        // A tail that no bell announces: only who looks finds it.
        incoming(&flow).producer.tail.store(7, Ordering::Relaxed);
        assert_eq!(read(&flow.near), Err(Error::Corrupt));
    };
    assert_eq!(end_while_waiting(&flow, corrupt), [Some(Error::Corrupt); 2]);
    // Sockets that hang up are what wakes readers, so the peer's hangs up as well.
    while read(&flow.far) != Ok(None) {}
    assert_eq!(wait_now(&flow.far, Wish::Packet), Wait::Ready);
    assert_eq!(write(&flow.far, b"x"), Err(Error::PeerDead));
}

#[test]
fn mark_dead_wakes_the_writer() {
    let flow = Flow::new();
    common::fill(&flow.near);
    let before = outgoing(&flow).wait.space.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_all(&flow.near, &[0; 1 << 16]));
        mark_dead(&flow.memory, 1).unwrap();
        assert_eq!(writer.join().unwrap(), Err(Error::PeerDead));
    });
    // The writer looks for its peer now and then anyway; that it need not have done so shows in the futex word.
    assert_ne!(outgoing(&flow).wait.space.load(Ordering::Relaxed), before);
    assert!(mark_dead(&flow.memory, 2).is_err());
}

#[test]
fn writer_does_not_sleep_before_a_peer_that_refuses() {
    let flow = Flow::new();
    common::fill(&flow.near);
    assert_eq!(wait_now(&flow.near, Wish::Room(1 << 16)), Wait::TimedOut);
    flow.far.set_state(state::REFUSES).unwrap();
    assert_eq!(wait_now(&flow.near, Wish::Room(1 << 16)), Wait::Ready);
    assert_eq!(write(&flow.near, b"x"), Err(Error::Refused));
}

#[test]
fn close_waits_for_the_packet_that_is_being_written() {
    let flow = Flow::new();
    thread::scope(|scope| {
        let mut writer = flow.near.writer().unwrap();
        scope.spawn(|| flow.near.close());
        while !flow.near.is_closed() {
            thread::yield_now();
        }
        assert_eq!(flow.mapping.control().state[0].load(Ordering::Acquire), 0);
        assert_eq!(writer.stage(b"accepted"), Ok(true));
    });
    assert_eq!(flow.near.writer().err(), Some(Error::Closed));
    assert_eq!(read(&flow.far).unwrap().unwrap(), b"accepted");
    assert_eq!(read(&flow.far), Err(Error::PeerClosed));
}

#[test]
fn polled_flow_is_readable_while_part_of_a_packet_is_left() {
    let flow = Flow::new();
    assert!(!is_readable(flow.near.pollable().unwrap()));
    write(&flow.far, b"packet").unwrap();
    {
        let mut reader = flow.near.reader().unwrap();
        assert_eq!(reader.available(), Ok(Some(6)));
        common::take(&mut reader, 6, 2);
    }
    assert!(is_readable(flow.near.pollable().unwrap()));
    assert_eq!(read(&flow.near).unwrap().unwrap(), b"cket");
    assert!(!is_readable(flow.near.pollable().unwrap()));
}

#[test]
fn polled_flow_is_readable_when_the_peer_sets_it_down() {
    let flow = Flow::new();
    assert!(!is_readable(flow.near.pollable().unwrap()));
    flow.far.set_state(state::DOWN).unwrap();
    assert!(is_readable(flow.near.pollable().unwrap()));
    flow.far.set_state(0).unwrap();
    assert_eq!(read(&flow.near), Ok(None));
    assert!(!is_readable(flow.near.pollable().unwrap()));
}

/// A memfd like that of a flow, but for what the caller changes.
fn memory(size: usize, magic: u64, seals: SealFlags) -> OwnedFd {
    let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    pwrite(&memory, &magic.to_ne_bytes(), 0).unwrap();
    ftruncate(&memory, size as u64).unwrap();
    fcntl_add_seals(&memory, seals).unwrap();
    memory
}

#[test]
fn attach_refuses_what_is_no_flow() {
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    let attach = |memory: OwnedFd, side| {
        let [bell, _] = channel::create().unwrap().bells;
        Endpoint::attach(memory, bell, side).map(drop)
    };
    assert!(attach(memory(MEMORY, MAGIC, seals), 1).is_ok());
    assert!(attach(memory(MEMORY, MAGIC, seals), 2).is_err());
    assert!(attach(memory(MEMORY, MAGIC, SealFlags::SHRINK | SealFlags::SEAL), 1).is_err());
    assert!(attach(memory(MEMORY, MAGIC, SealFlags::empty()), 1).is_err());
    assert!(attach(memory(MEMORY - 1, MAGIC, seals), 1).is_err());
    assert!(attach(memory(MEMORY + 4096, MAGIC, seals), 1).is_err());
    assert!(attach(memory(MEMORY, MAGIC + 1, seals), 1).is_err());
    assert!(attach(std::fs::File::open("/dev/null").unwrap().into(), 1).is_err());
}

fn values() -> impl Strategy<Value = u64> {
    let sevens = |near: u64| near.wrapping_sub(16)..=near.saturating_add(16);
    prop_oneof![
        any::<u64>(),
        0u64..128,
        (0u64..=CAPACITY as u64 / 8).prop_map(|words| words * 8),
        sevens(CAPACITY as u64),
        sevens(MAX_PACKET as u64),
        u64::MAX - 16..=u64::MAX,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_scribble_harms_the_other_side(
        steps in prop::collection::vec((0..KINDS, any::<u16>(), values()), 0..120), guarded: bool,
    ) {
        let mut attack = if guarded { Attack::guarded() } else { Attack::new() };
        for (kind, place, value) in steps {
            attack.step(kind, place, value);
        }
        attack.finish();
    }
}
