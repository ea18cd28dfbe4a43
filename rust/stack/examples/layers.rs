//! What a layer more costs a packet, down and up together, in nanoseconds: `cargo run --release -p ouroboros-stack --example
//! layers [PACKETS]`, of which `bench/measures/layers.py` reads the table. Two stacks, ports that are joined without a network,
//! raw flows, packets of 64 and 1400 bytes in runs of 16 and longer. The first column has no layer between the flow and the port,
//! each next one has one more: one that puts four bytes in front, or a unicast layer. The stacks show what they count after each
//! turn, as an engine does.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

mod common;

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Instant;

use common::{Program, add};
use ouroboros_stack::{
    Board, Carrier, FlowId, Kind, MemberId, Names, Run, Source, Stack, Table, TransferSettings, User,
};

/// A stack with a port, and so many layers above it; the flow at the top.
struct Node {
    stack: Stack<Program>,
    port: MemberId,
    top: FlowId,
}

impl Node {
    fn new(layers: usize, unicast: bool, peer: SocketAddr, packets: usize, length: usize) -> Self {
        let (mut stack, mut flows, mut members) = (Stack::default(), Names::default(), Names::default());
        let port: MemberId = members.draw();
        stack.open_port(port, 64, 1 << 22);
        let mut carrier = Carrier::Port(peer);
        let mut member = port;
        for _ in 0..layers {
            let above: MemberId = members.draw();
            let id = add(&mut stack, &mut flows, member, carrier, User::Control(0));
            if unicast {
                // The two members have one address: each packet that comes is for this one.
                stack.open_unicast(above, TransferSettings { address: 1, max_ttl: 60, ecn: true });
                stack.hand_over(0, above, id, 2, (9000, true));
                stack.route(above, Table::new([(1, &[2][..])].into_iter(), false));
                carrier = Carrier::Unicast(1, 0);
            } else {
                stack.open_member(above, Kind::Transfer);
                stack.hand(0, id, User::Transfer(above));
                carrier = Carrier::Transfer(id);
            }
            member = above;
        }
        let program = Program { left: Cell::new(packets), length, came: Cell::new(0) };
        let top = add(&mut stack, &mut flows, member, carrier, User::Program(program));
        Node { stack, port, top }
    }
}

/// A board with one slot.
struct Shown([u64; 64]);

impl Board for Shown {
    fn publish(&mut self, _: Source, _: bool, values: &[u64]) {
        self.0.iter_mut().zip(values).for_each(|(slot, value)| *slot = *value);
    }
}

/// Nanoseconds for each packet.
fn run(layers: usize, unicast: bool, packets: usize, length: usize) -> f64 {
    let [here, there] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (mut near, mut far) =
        (Node::new(layers, unicast, there, packets, length), Node::new(layers, unicast, here, 0, length));
    let mut shown = Shown([0; 64]);
    near.stack.show();
    far.stack.show();
    let start = Instant::now();
    let mut now = 0;
    near.stack.rang(near.top);
    while near.stack.has_work() || near.stack.deadline().is_some() {
        now += 1000;
        if !near.stack.has_work() {
            // A sender begins slowly in a unicast layer.
            now = near.stack.deadline().unwrap();
            near.stack.timeout(now);
        }
        near.stack.serve(now);
        while let Some(outgoing) = near.stack.transmit(near.port) {
            let run = Run::new(outgoing.bytes, outgoing.segment.unwrap_or(outgoing.bytes.len()));
            far.stack.receive(now, far.port, here, run);
            near.stack.sent(near.port, true);
        }
        while far.stack.has_work() {
            far.stack.serve(now);
        }
        // As an engine does that has nothing more to do.
        near.stack.publish(&mut shown);
        far.stack.publish(&mut shown);
    }
    let took = start.elapsed().as_nanos() as f64 / packets as f64;
    assert_eq!(far.stack.ring(far.top).unwrap().came.get(), packets);
    took
}

fn main() {
    let packets = std::env::args().nth(1).and_then(|number| number.parse().ok()).unwrap_or(2_000_000);
    for (unicast, kind) in [(false, "plain"), (true, "unicast")] {
        println!("{kind:>8} {:>6} {:>10} {:>10} {:>10} {:>10}", "bytes", "0 layers", "1 more", "2 more", "3 more");
        for length in [64, 1400] {
            // The best of several: the rest is noise of the machine.
            let best = |layers| (0..5).map(|_| run(layers, unicast, packets, length)).fold(f64::MAX, f64::min);
            let took: Vec<f64> = (0..4).map(best).collect();
            let more = |at: usize| took[at] - took[at - 1];
            println!(
                "{kind:>8} {length:>6} {:>10.1} {:>+10.1} {:>+10.1} {:>+10.1}",
                took[0],
                more(1),
                more(2),
                more(3)
            );
        }
    }
}
