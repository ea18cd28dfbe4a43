//! A unicast or a broadcast layer of a few nodes in any shape, and whatever one of them says that is no member, from bytes: what it
//! invents, and what came to it, once more, back, or altered. Property tests and the fuzz target `fuzz/fuzz_targets/layer.rs`
//! take it from here.
//!
//! No input may make a stack panic, go round in circles, forget what waits, or lose count of a packet.

use std::net::SocketAddr;

use ouroboros_frcp::{Config, Peer, UNSENT};
use ouroboros_sim::stack::{Carrier, Event, FlowId, Kind, MemberId, Setup, Table, TransferSettings, User};
use ouroboros_sim::{Network, Queue};
use ouroboros_wire::management::Report;
use ouroboros_wire::pci::Pci;
use ouroboros_wire::relay::{Kind as Said, Relay};
use ouroboros_wire::update::Word;

const MS: u64 = 1_000_000;
/// The longest packet of a lower flow.
const MOST: usize = 1400;
/// Of what came to the liar, so many are remembered.
const REMEMBERED: usize = 64;
/// The node that is no member.
const LIAR: usize = 0;

/// Takes an input apart; behind its end there are zeros.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    fn bit(&mut self) -> bool {
        self.byte() & 1 != 0
    }
}

struct World {
    net: Network,
    broadcast: bool,
    ports: Vec<MemberId>,
    members: Vec<MemberId>,
    /// Node, its neighbour, and the flow that leads there.
    lower: Vec<(usize, usize, FlowId)>,
    programs: Vec<Queue>,
    came: Vec<Vec<u8>>,
    eid: u64,
}

fn name(node: usize) -> u32 {
    0x1000_0000 + node as u32
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8 + 1], 3435))
}

/// One input.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new(&mut input);
    while !input.0.is_empty() {
        world.step(&mut input);
        world.check();
    }
    world.pass(2000 * MS);
    world.check();
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let (mut net, nodes, broadcast) = (Network::default(), 3 + input.below(4), input.bit());
        let (mut ports, mut members) = (Vec::new(), Vec::new());
        let settings = TransferSettings { address: 0, max_ttl: input.byte(), ecn: input.bit() };
        for node in 0..nodes {
            net.add_node();
            ports.extend(net.open_port(node, address(node), MS));
            let member = net.name_member(node);
            let stack = net.stack(node);
            if node == LIAR {
            } else if broadcast {
                stack.open_member(member, Kind::Broadcast(node as u64));
            } else {
                stack.open_unicast(member, TransferSettings { address: name(node), ..settings });
            }
            members.push(member);
        }
        let (lower, programs, came) = Default::default();
        let mut world = World { net, broadcast, ports, members, lower, programs, came, eid: 100 };
        for node in 1..nodes {
            let other = input.below(node);
            world.join(other, node, input);
        }
        for _ in 0..input.below(nodes) {
            world.join(input.below(nodes), input.below(nodes), input);
        }
        (1..nodes).for_each(|node| world.program(node, 1 + input.below(nodes - 1)));
        (1..nodes).for_each(|node| world.route(node, 0));
        world
    }

    /// Make two nodes neighbours.
    fn join(&mut self, one: usize, other: usize, input: &mut Input<'_>) {
        if one == other {
            return;
        }
        let (quality, ours, eid) = (input.byte(), !input.below(8).is_multiple_of(8), self.eid);
        self.eid += 2;
        for (node, peer, eids) in [(one, other, (eid, eid + 1)), (other, one, (eid + 1, eid))] {
            let id = self.net.name_flow(node);
            let own = Peer::Own { sack: true, fragments: true, window: 64 };
            let config =
                Config { reliable: true, peer: own, max_packet: MOST, mpl: 100 * MS, unsent: UNSENT, thrifty: false };
            let setup = Setup {
                eid: eids.0,
                peer_eid: eids.1,
                frcp: (quality & 3 == 0).then_some(config),
                credit: quality & 3 == 1,
                mtu: 1472,
                ..Setup::new(id, self.ports[node], Carrier::Port(address(peer)), User::Control(u32::MAX))
            };
            if !self.net.add(node, setup) {
                continue;
            }
            self.lower.push((node, peer, id));
            if node != LIAR {
                let (now, member) = (self.net.now(), self.members[node]);
                self.net.stack(node).hand_over(now, member, id, name(peer), (MOST, ours || peer != LIAR));
            }
        }
    }

    /// Programs that talk to each other.
    fn program(&mut self, node: usize, peer: usize) {
        let eid = self.eid;
        self.eid += 2;
        let ends = [(node, peer, (eid, eid + 1)), (peer, node, (eid + 1, eid))];
        for (node, peer, eids) in ends.into_iter().take(if self.broadcast { 1 } else { 2 }) {
            let (id, queue) = (self.net.name_flow(node), Queue::default());
            let way = if self.broadcast { Carrier::Broadcast } else { Carrier::Unicast(name(peer), 0) };
            let setup = Setup::new(id, self.members[node], way, User::Program(queue.clone()));
            if self.net.add(node, Setup { eid: eids.0, peer_eid: eids.1, credit: !self.broadcast, mtu: MOST, ..setup })
            {
                self.programs.push(queue);
            }
        }
    }

    /// A table in which each neighbour may come first, so that packets go in circles.
    fn route(&mut self, node: usize, turn: usize) {
        if self.broadcast || node == LIAR {
            return;
        }
        let mut next: Vec<_> =
            self.lower.iter().filter(|(at, ..)| *at == node).map(|(_, peer, _)| name(*peer)).collect();
        next.truncate(8);
        let turn = turn % next.len().max(1);
        next.rotate_left(turn);
        let ways = (0..self.members.len()).filter(|to| *to != node).map(|to| (name(to), &next[..]));
        let table = Table::new(ways, turn % 2 == 1);
        let member = self.members[node];
        self.net.stack(node).route(member, table);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let node = 1 + input.below(self.members.len() - 1);
        match input.below(16) {
            0..8 => self.lie(input),
            8..10 => self.pass(u64::from(input.byte()) * MS / 4 + 1),
            10 => self.write(input),
            11 => self.programs.iter().for_each(|queue| while let Ok(Some(_)) = queue.read() {}),
            12 => self.route(node, input.below(8)),
            13 => {
                let calls = (!input.bit()).then(|| u64::from(input.byte() % 8));
                self.net.allow(node, self.ports[node], calls);
            }
            14 => {
                let (node, _, flow) = self.lower[input.below(self.lower.len())];
                if input.bit() {
                    self.net.stack(node).take_back(self.members[node], flow);
                } else {
                    self.net.stack(node).drop_flow(flow);
                }
            }
            _ => self.join(input.below(self.members.len()), node, input),
        }
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let queue = &self.programs[input.below(self.programs.len())];
        (0..input.byte()).for_each(|_| {
            // It fails when the flow is over.
            let _ = queue.write(&[7; 999]);
        });
    }

    fn lie(&mut self, input: &mut Input<'_>) {
        let flows: Vec<_> = self.lower.iter().filter(|(node, ..)| *node == LIAR).map(|(.., flow)| *flow).collect();
        let Some(flow) = flows.get(input.below(flows.len())).copied() else { return };
        let packet = match input.below(4) {
            0 if !self.came.is_empty() => self.came[input.below(self.came.len())].clone(),
            1 if !self.came.is_empty() => self.altered(input),
            2 => (0..input.below(60)).map(|_| input.byte()).collect(),
            _ if self.broadcast => invented(input),
            _ => self.packet(input),
        };
        for _ in 0..1 + input.below(3) * input.below(40) {
            let now = self.net.now();
            self.net.stack(LIAR).send_message(now, flow, &packet);
        }
    }

    fn altered(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut packet = self.came[input.below(self.came.len())].clone();
        for _ in 0..1 + input.below(4) {
            let at = input.below(packet.len());
            let byte = input.byte();
            packet.get_mut(at).into_iter().for_each(|it| *it = byte);
        }
        if input.bit() {
            packet.truncate(input.below(30));
        }
        packet
    }

    fn packet(&self, input: &mut Input<'_>) -> Vec<u8> {
        let eid = if input.bit() { input.byte().into() } else { 100 + u64::from(input.byte()) % (self.eid - 98) };
        let destination = name(input.below(self.members.len() + 1));
        let pci = Pci { destination, cube: input.byte() % 4, ttl: input.byte(), ecn: input.byte(), eid };
        let report = Report {
            source: eid,
            destination: eid ^ 1,
            counted: input.byte().into(),
            room: 1 << 20,
            wait: input.bit(),
        };
        let payload = match input.below(4) {
            0 => Word::Congested(100 + u64::from(input.byte()), u16::from(input.byte()) << 5).write().to_vec(),
            1 => Word::Report(report).write().to_vec(),
            2 => vec![],
            _ => vec![7; 6 * usize::from(input.byte())],
        };
        [&pci.write()[..], &payload].concat()
    }

    fn pass(&mut self, time: u64) {
        let until = self.net.now() + time;
        while self.net.now() < until {
            for (node, event) in self.net.run(until).1 {
                match event {
                    Event::Message(_, data) if node == LIAR => {
                        if self.came.len() >= REMEMBERED {
                            self.came.remove(0);
                        }
                        self.came.push(data);
                    }
                    Event::Ended(flow, ..) => self.net.forget(node, flow),
                    _ => {}
                }
            }
        }
    }

    fn check(&mut self) {
        self.pass(1);
        let balance = self.net.balance();
        assert!(balance.is_even(), "{balance:?}");
        assert_eq!(self.net.counted().stuck, 0);
        (0..self.members.len()).for_each(|node| assert_eq!(self.net.stack(node).forgotten(), 0));
    }
}

/// A packet between members of a broadcast layer.
fn invented(input: &mut Input<'_>) -> Vec<u8> {
    let kind = [Said::Packet, Said::Foreign, Said::Border][input.below(3)];
    let number = [1, u64::from(input.byte()), u64::MAX - u64::from(input.byte())][input.below(3)];
    let relay = Relay {
        kind,
        hops: input.byte(),
        foreign: input.byte() as u16 % 3,
        origin: u64::from(input.byte()) % 9,
        number,
    };
    [&relay.write()[..], &vec![7; usize::from(input.byte())]].concat()
}
