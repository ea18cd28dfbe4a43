//! What a stack takes that has nothing to do.
#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::*;
use ouroboros_sim::stack::Kind;
use ouroboros_sim::{Network, Program};

struct Counting;

thread_local! {
    static BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    BYTES.with(|total| total.set(total.get() + bytes));
}

// SAFETY: all is done by the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MOST: isize = 16 << 10;

#[test]
fn a_node_that_has_nothing_to_do_takes_little() {
    let mut net = Network::default();
    let before = BYTES.get();
    for node in 0..100 {
        net.add_node();
        net.open_port(node, address(node), DELAY).unwrap();
        let member = net.name_member(node);
        net.stack(node).open_member(member, Kind::Transfer);
    }
    net.run(SECOND);
    let each = (BYTES.get() - before) / 100;
    println!("{each} bytes for an idle stack");
    assert!(each < MOST, "{each}");
}

#[test]
fn what_was_busy_takes_little_when_it_is_over() {
    let before = BYTES.get();
    let mut way = Way::new(&[RAW], CREDIT);
    way.start(0, Program::Source { count: 100, length: 100, interval: MS, closes: false });
    way.start(1, Program::Sink);
    way.run(10 * SECOND);
    assert_eq!(way.tally(1).read, 100);
    let each = (BYTES.get() - before) / 2;
    println!("{each} bytes for a stack with two flows that were busy");
    assert!(each < 2 * MOST, "{each}");
}
