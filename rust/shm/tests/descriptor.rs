//! The descriptor of a flow, beside writers that wait for room by it and changes that this process makes itself.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::Ordering;
use std::thread;

use ouroboros_shm::endpoint::Error;
use ouroboros_shm::layout::state;
use proptest::prelude::*;

mod common;

use common::{Flow, fill, is_readable, read, read_all, write};

#[test]
fn packets_show_in_the_descriptor_after_a_wait_for_room() {
    let flow = Flow::new();
    fill(&flow.near);
    write(&flow.far, b"queued").unwrap();
    assert!(!flow.near.want_room(8).unwrap());
    flow.near.forget_room().unwrap();
    assert!(is_readable(flow.near.pollable().unwrap()));
}

#[derive(Debug, Clone, Copy)]
enum Act {
    FarWrites,
    NearReads,
    FarReads,
    NearFills,
    WantRoom,
    ForgetRoom,
    Watch,
    Poll,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    use Act::*;
    let act = prop::sample::select(vec![FarWrites, NearReads, FarReads, NearFills, WantRoom, ForgetRoom, Watch, Poll]);
    prop::collection::vec(act, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 100 } else { 1000 }))]

    #[test]
    fn an_unreadable_descriptor_never_hides_a_packet(acts in acts()) {
        let flow = Flow::new();
        let mut wanted = false;
        for act in acts {
            match act {
                Act::FarWrites => drop(write(&flow.far, b"packet").unwrap()),
                Act::NearReads => drop(read(&flow.near).unwrap()),
                Act::FarReads => while read(&flow.far).unwrap().is_some() {},
                Act::NearFills => fill(&flow.near),
                Act::WantRoom if !wanted => wanted = !flow.near.want_room(1000).unwrap() || { flow.near.forget_room().unwrap(); false },
                Act::ForgetRoom if wanted => { flow.near.forget_room().unwrap(); wanted = false; }
                Act::Watch => flow.near.watch(0).unwrap(),
                Act::Poll => drop(flow.near.pollable().unwrap()),
                _ => {}
            }
            let queued = flow.near.receive_queue().unwrap();
            prop_assert!(queued == 0 || is_readable(flow.near.bell().unwrap()), "{queued} packets, and the descriptor is silent");
        }
    }
}

#[test]
fn down_by_this_side_wakes_its_readers() {
    let flow = Flow::new();
    let armed = &flow.mapping.control().rings[1].wait.reader_armed;
    for _ in 0..50 {
        thread::scope(|scope| {
            let readers = [(); 3].map(|()| scope.spawn(|| read_all(&flow.near)));
            // From here on it takes a wake-up.
            while armed.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            flow.near.set_state(state::DOWN).unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), Err(Error::Down));
            }
        });
        flow.near.set_state(0).unwrap();
        write(&flow.far, b"up again").unwrap();
        assert_eq!(read_all(&flow.near).unwrap(), b"up again");
    }
}
