//! The child of a fork cannot use, or end, the flows of its parent. Alone in its program: the mark is for a whole process.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::Ordering;
use std::time::Instant;

use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish, note_fork};

mod common;

use common::{Flow, read, wait_now, write};

#[test]
fn endpoint_of_the_parent_refuses_and_leaves_the_flow_alone() {
    let flow = Flow::new();
    common::fill(&flow.near);
    let before = format!("{:?}", flow.mapping.control());

    note_fork();

    let near = &flow.near;
    assert_eq!(near.reader().err(), Some(Error::Forked));
    assert_eq!(near.writer().err(), Some(Error::Forked));
    assert_eq!(near.pollable().err(), Some(Error::Forked));
    assert_eq!(near.receive_queue(), Err(Error::Forked));
    assert_eq!(near.transmit_queue(), Err(Error::Forked));
    assert_eq!(near.set_state(0), Err(Error::Forked));
    assert_eq!(near.wait(Wish::Packet, None), Wait::Ready);
    assert_eq!(near.wait(Wish::Room(1), None), Wait::Ready);
    near.close();
    assert!(!near.is_closed());
    assert_eq!(format!("{:?}", flow.mapping.control()), before);

    // What is attached after the fork works, and the peer's socket did not hang up.
    let far = Endpoint::attach(&flow.memory, flow.far_bell.try_clone().unwrap(), 1).unwrap();
    assert_eq!(read(&far).unwrap().unwrap().len(), 1 << 16);
    while read(&far).unwrap().is_some() {}
    assert_eq!(far.wait(Wish::Packet, Some(Instant::now())), Wait::TimedOut);
    assert_eq!(wait_now(&far, Wish::Packet), Wait::TimedOut);
    assert_eq!(write(&far, b"to the parent"), Ok(true));
    assert_eq!(flow.mapping.control().rings[1].producer.pushed.load(Ordering::Relaxed), 1);
}
