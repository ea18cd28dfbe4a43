//! Nodes with a port and a member of a unicast layer each, and lower flows between some of them.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::{BTreeMap, VecDeque};

use ouroboros_sim::stack::{Carrier, Event, FlowId, MemberId, Table, TransferCounters, TransferSettings, User};
use ouroboros_sim::{Network, Program, Queue, Tally};

use super::{DELAY, Quality, address, setup};

/// The longest packet that a lower flow carries.
pub const MOST: usize = 1400;
pub const MAX_TTL: u8 = 60;

/// The address of the member on a node.
pub fn name(node: usize) -> u32 {
    0x1000_0000 + node as u32
}

/// See the module.
#[derive(Debug)]
pub struct Layer {
    pub net: Network,
    pub ports: Vec<MemberId>,
    pub members: Vec<MemberId>,
    /// The flow of a node to a neighbour.
    pub lower: BTreeMap<(usize, usize), FlowId>,
    /// All that led to neighbours at any time, with those that others took the place of.
    pub handed: Vec<(usize, FlowId)>,
    pub heard: Vec<(usize, u64, Option<FlowId>, Vec<u8>)>,
    pub messages: Vec<(usize, FlowId, Vec<u8>)>,
    pub states: Vec<(usize, FlowId, bool)>,
    eid: u64,
}

impl Layer {
    pub fn new(nodes: usize, settings: TransferSettings) -> Self {
        let mut net = Network::default();
        let (mut ports, mut members) = (Vec::new(), Vec::new());
        for node in 0..nodes {
            net.add_node();
            ports.push(net.open_port(node, address(node), DELAY).unwrap());
            let member = net.name_member(node);
            net.stack(node).open_unicast(member, TransferSettings { address: name(node), ..settings });
            members.push(member);
        }
        let (lower, handed, heard, messages, states) = Default::default();
        Layer { net, ports, members, lower, handed, heard, messages, states, eid: 100 }
    }

    /// Neighbours in a row, and the shortest ways.
    pub fn line(nodes: usize, quality: Quality) -> Self {
        let mut layer = Layer::new(nodes, plain());
        (1..nodes).for_each(|node| layer.join(node - 1, node, quality));
        layer.route();
        layer
    }

    /// A lower flow between two nodes, for control.
    pub fn lower_flow(&mut self, one: usize, other: usize, quality: Quality) -> [FlowId; 2] {
        self.uneven_flow(one, other, [quality; 2])
    }

    /// One whose ends do not know the same.
    pub fn uneven_flow(&mut self, one: usize, other: usize, qualities: [Quality; 2]) -> [FlowId; 2] {
        let eids = self.eids();
        [(one, other, 0), (other, one, 1)].map(|(node, peer, side)| {
            let id = self.net.name_flow(node);
            let eids = if side == 0 { eids } else { (eids.1, eids.0) };
            let mut setup = setup(id, self.ports[node], side, 0, qualities[side], eids);
            (setup.carrier, setup.user) = (Carrier::Port(address(peer)), User::Control(1));
            assert!(self.net.add(node, setup));
            id
        })
    }

    fn eids(&mut self) -> (u64, u64) {
        self.eid += 2;
        (self.eid, self.eid + 1)
    }

    /// Make two nodes neighbours.
    pub fn join(&mut self, one: usize, other: usize, quality: Quality) {
        let [near, far] = self.lower_flow(one, other, quality);
        self.hand_over(one, other, near);
        self.hand_over(other, one, far);
    }

    pub fn hand_over(&mut self, node: usize, neighbour: usize, flow: FlowId) {
        self.hand_over_to(node, neighbour, flow, true);
    }

    pub fn hand_over_to(&mut self, node: usize, neighbour: usize, flow: FlowId, ours: bool) {
        self.lower.insert((node, neighbour), flow);
        self.handed.push((node, flow));
        let (now, member) = (self.net.now(), self.members[node]);
        self.net.stack(node).hand_over(now, member, flow, name(neighbour), (MOST, ours));
    }

    /// The neighbours of a node on shortest ways to each other node, with all others behind them.
    pub fn ways(&self, node: usize) -> Vec<(u32, Vec<u32>)> {
        let nodes = self.members.len();
        let to = |target: usize| {
            let mut far = vec![usize::MAX; nodes];
            let mut queue = VecDeque::from([target]);
            far[target] = 0;
            while let Some(at) = queue.pop_front() {
                for (from, _) in self.lower.keys().filter(|(_, to)| *to == at) {
                    if far[*from] == usize::MAX && *from != node {
                        far[*from] = far[at] + 1;
                        queue.push_back(*from);
                    }
                }
            }
            let mut next: Vec<_> =
                self.lower.keys().filter(|(from, to)| *from == node && far[*to] < usize::MAX).collect();
            next.sort_by_key(|(_, to)| far[*to]);
            (name(target), next.into_iter().map(|(_, to)| name(*to)).collect())
        };
        (0..nodes).filter(|target| *target != node).map(to).collect()
    }

    pub fn route(&mut self) {
        for node in 0..self.members.len() {
            let ways = self.ways(node);
            self.set_ways(node, &ways, false);
        }
    }

    pub fn set_ways(&mut self, node: usize, ways: &[(u32, Vec<u32>)], spread: bool) {
        let table = Table::new(ways.iter().map(|(to, ways)| (*to, &ways[..])), spread);
        let member = self.members[node];
        self.net.stack(node).route(member, table);
    }

    /// A flow between programs.
    pub fn flow(&mut self, one: usize, other: usize, quality: Quality) -> [FlowId; 2] {
        self.flow_in_cube(one, other, quality, 0)
    }

    pub fn flow_in_cube(&mut self, one: usize, other: usize, quality: Quality, cube: u8) -> [FlowId; 2] {
        let members = [one, other].map(|node| self.members[node]);
        self.flow_of(members, (one, other), quality, cube, || User::Program(Queue::default()))
    }

    /// A flow of these members, for whatever users.
    pub fn flow_of(
        &mut self,
        members: [MemberId; 2],
        (one, other): (usize, usize),
        quality: Quality,
        cube: u8,
        user: impl Fn() -> User<Queue>,
    ) -> [FlowId; 2] {
        let eids = self.eids();
        [(one, other, 0), (other, one, 1)].map(|(node, peer, side)| {
            let id = self.net.name_flow(node);
            let eids = if side == 0 { eids } else { (eids.1, eids.0) };
            let mut setup = setup(id, members[side], side, 1, quality, eids);
            (setup.carrier, setup.user) = (Carrier::Unicast(name(peer), cube), user());
            assert!(self.net.add(node, setup));
            id
        })
    }

    pub fn start(&mut self, node: usize, flow: FlowId, program: Program) {
        assert!(self.net.start(node, flow, program));
    }

    pub fn tally(&self, node: usize, flow: FlowId) -> Tally {
        self.net.tally(node, flow).unwrap()
    }

    pub fn run(&mut self, time: u64) {
        let until = self.net.now() + time;
        while self.net.now() < until {
            for (node, event) in self.net.run(until).1 {
                match event {
                    Event::Heard(_, eid, from, data) => self.heard.push((node, eid, from, data)),
                    Event::Message(flow, data) => self.messages.push((node, flow, data)),
                    Event::State(flow, up) => self.states.push((node, flow, up)),
                    _ => {}
                }
            }
        }
        assert_eq!(self.net.counted().stuck, 0);
    }

    /// Let packets go both ways: all arrive, in order.
    pub fn exchange(&mut self, (one, other): (usize, usize), flows: [FlowId; 2], count: u64, length: usize) {
        self.start(one, flows[0], super::source(count, length));
        self.start(other, flows[1], Program::Echo);
        for _ in 0..600 {
            if self.tally(one, flows[0]).read == count {
                break;
            }
            self.run(super::SECOND / 10);
        }
        let (near, far) = (self.tally(one, flows[0]), self.tally(other, flows[1]));
        assert_eq!((near.written, far.read, near.read), (count, count, count), "{near:?} {far:?}");
        assert_eq!((near.disordered, far.disordered), (0, 0));
    }

    pub fn transfer(&mut self, node: usize) -> TransferCounters {
        let member = self.members[node];
        self.net.stack(node).snapshot(member).transfer.unwrap()
    }

    /// A packet with any header, by the flow of a neighbour that has no member: a stack of its own would not send it.
    pub fn inject(&mut self, node: usize, flow: FlowId, bytes: &[u8]) {
        let now = self.net.now();
        self.net.stack(node).send_message(now, flow, bytes);
    }
}

pub fn plain() -> TransferSettings {
    TransferSettings { address: 0, max_ttl: MAX_TTL, ecn: false }
}
