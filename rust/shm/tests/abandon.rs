//! A flow whose program ends: its peer is told, and the other threads of the program notice nothing.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ouroboros_shm::endpoint::{Error, Wait, Wish, note_exit};

mod common;

use common::{Flow, fill, read, write};

#[test]
fn abandoned_flow_is_one_on_which_nothing_happens_any_more() {
    let flow = Flow::new();
    assert!(write(&flow.far, b"queued").unwrap());
    fill(&flow.near);
    let near = &flow.near;
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(move || near.wait(Wish::Room(60_000), None));
        // This thread ends the program; to the others, one after the other, the flow only falls silent.
        note_exit();
        near.abandon();
        assert!(near.is_abandoned());
        assert_eq!(read(near), Err(Error::Closed));
        assert_eq!(write(near, b"x"), Err(Error::Closed));
        let reader = scope.spawn(move || {
            assert_eq!(read(near), Ok(Some(b"queued".to_vec())));
            assert_eq!(read(near), Ok(None));
            assert_eq!(write(near, b"x"), Err(Error::Abandoned));
            assert!(!near.glance(Wish::Packet));
            for wish in [Wish::Packet, Wish::Room(1)] {
                let end = Instant::now() + Duration::from_millis(5);
                assert_eq!(near.wait(wish, Some(end)), Wait::TimedOut);
                assert!(Instant::now() >= end);
            }
            tell.send(()).unwrap();
            near.wait(Wish::Packet, None)
        });
        // The peer reads what it was sent, and is told.
        while read(&flow.far) != Err(Error::PeerClosed) {}
        flow.far.close();
        told.recv().unwrap();
        assert!(!writer.is_finished());
        // By hand it ends for everybody.
        near.close();
        assert_eq!(writer.join().unwrap(), Wait::Ready);
        assert_eq!(reader.join().unwrap(), Wait::Ready);
    });
    assert!(near.is_closed() && !near.is_abandoned());
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(read(near), Err(Error::Closed)));
    });
}
