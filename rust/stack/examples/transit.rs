//! What a packet of others costs a member of a unicast layer, in nanoseconds: `cargo run --release -p ouroboros-stack --example
//! transit [PACKETS [ROUTES LENGTH]]`, of which `bench/measures/layers.py` reads the table. One stack, ports without a network, raw
//! lower flows; packets arrive in runs of 16 of one flow, or each of another one (mixed), to the destinations of a table in turn.
//! With `ROUTES`, mixed packets of that length once: for a count of instructions and of misses of caches.
#![allow(clippy::unwrap_used, clippy::disallowed_types)]

mod common;

use std::net::SocketAddr;
use std::time::Instant;

use common::{Program, add};
use ouroboros_stack::{Carrier, MemberId, Names, Run, Stack, Table, TransferSettings, User};

const RUN: usize = 16;
/// Runs that arrive in turn, whatever the number of routes: those that are used are spread over the table.
const BURSTS: u32 = 512;
/// Neighbours of the member; the first one sends.
const NEIGHBOURS: u32 = 5;
const EID: u32 = 77;

fn address(neighbour: u32) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], neighbour as u16))
}

/// A packet as it arrives.
fn packet(destination: u32, flow: u64, length: usize) -> Vec<u8> {
    let mut packet = EID.to_be_bytes().to_vec();
    packet.extend(destination.to_le_bytes());
    packet.extend([0, 60, 0]);
    packet.extend((1000 + flow).to_le_bytes());
    packet.resize(packet.len() + length, 7);
    packet
}

/// Nanoseconds for each packet.
fn run(routes: u32, mixed: bool, packets: usize, length: usize) -> f64 {
    let (mut stack, mut flows, mut members) = (Stack::<Program>::default(), Names::default(), Names::default());
    let member: MemberId = members.draw();
    stack.open_unicast(member, TransferSettings { address: 1, max_ttl: 60, ecn: true });
    let ports: Vec<MemberId> = (0..NEIGHBOURS)
        .map(|neighbour| {
            let port = members.draw();
            stack.open_port(port, 64, 1 << 22);
            let carrier = Carrier::Port(address(neighbour));
            let lower = add(&mut stack, &mut flows, port, carrier, User::Control(0));
            stack.hand_over(0, member, lower, 10 + neighbour, (9000, true));
            port
        })
        .collect();
    let destination = |route: u32| 1_000_000 + route * 7919;
    let ways: Vec<[u32; 2]> = (0..routes).map(|route| [11 + route % 4, 11 + (route + 1) % 4]).collect();
    stack.route(member, Table::new((0..routes).map(|route| (destination(route), &ways[route as usize][..])), false));
    let burst = |route: u32| -> Vec<u8> {
        let of = |number: usize| {
            let route = if mixed { (route + number as u32 * 31) % routes } else { route };
            packet(destination(route), if mixed { number as u64 } else { 0 }, length)
        };
        (0..RUN).flat_map(of).collect()
    };
    // What arrives is read from memory, as from a socket, but the memory is not what is measured.
    // By an odd step, so that all neighbours have their share.
    let bursts: Vec<Vec<u8>> = (0..BURSTS).map(|at| burst(at * ((routes / BURSTS) | 1) % routes)).collect();
    let (start, mut now, mut left) = (Instant::now(), 0, 0);
    for at in 0..packets / RUN {
        now += 1000;
        let bytes = &bursts[at % bursts.len()];
        stack.receive(now, ports[0], address(0), Run::new(bytes, bytes.len() / RUN));
        if at % 8 == 7 {
            for port in &ports[1..] {
                while stack.transmit(*port).is_some() {
                    stack.sent(*port, true);
                    left += 1;
                }
            }
        }
    }
    let took = start.elapsed().as_nanos() as f64 / packets as f64;
    let forwarded = stack.snapshot(member).transfer.unwrap().forwarded;
    assert_eq!(forwarded, (packets / RUN * RUN) as u64);
    assert!(left > 0);
    took
}

fn main() {
    let number = |at| std::env::args().nth(at).and_then(|number| number.parse::<usize>().ok());
    let packets = number(1).unwrap_or(2_000_000);
    if let (Some(routes), Some(length)) = (number(2), number(3)) {
        println!("{:.1}", run(routes as u32, true, packets, length));
        return;
    }
    println!("{:>6} {:>10} {:>10} {:>10} {:>10}", "bytes", "10 routes", "10 mixed", "10000", "10000 mixed");
    for length in [64, 1400] {
        // The best of several: the rest is noise of the machine.
        let best = |routes, mixed| (0..5).map(|_| run(routes, mixed, packets, length)).fold(f64::MAX, f64::min);
        let [few, few_mixed, many, many_mixed] =
            [(10, false), (10, true), (10_000, false), (10_000, true)].map(|(routes, mixed)| best(routes, mixed));
        println!("{length:>6} {few:>10.1} {few_mixed:>10.1} {many:>10.1} {many_mixed:>10.1}");
    }
}
