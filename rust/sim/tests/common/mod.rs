//! Two nodes with a port each, and layers of any depth between two programs: each packet of a level begins with the endpoint
//! id at its receiver.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

pub mod layer;

use std::net::SocketAddr;

use ouroboros_crypto::{Role, Session, Settings, Suite};
use ouroboros_frcp::{Config, Peer, UNSENT};
use ouroboros_sim::stack::{Account, Carrier, Event, FlowId, How, Kind, MemberId, Setup, Snapshot, User};
use ouroboros_sim::{Network, Program, Queue, Tally};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;
pub const DELAY: u64 = MS;

/// What a flow is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    pub reliable: bool,
    pub encrypted: bool,
    pub crc: bool,
    pub credit: bool,
    /// Milliseconds.
    pub timeout: u32,
    /// The key changes after two to the power of this packets.
    pub rotation_bit: u32,
    /// Bytes that all flows of this kind share in a node; 0: none.
    pub budget: usize,
}

pub const RAW: Quality =
    Quality { reliable: false, encrypted: false, crc: false, credit: false, timeout: 0, rotation_bit: 20, budget: 0 };
pub const CREDIT: Quality = Quality { credit: true, ..RAW };
pub const RELIABLE: Quality = Quality { reliable: true, crc: true, ..RAW };
pub const ENCRYPTED: Quality = Quality { encrypted: true, credit: true, ..RAW };
pub const SEALED: Quality = Quality { reliable: true, ..ENCRYPTED };

/// The longest packet of FRCP that goes over so many levels, each of which may seal and check.
fn longest(level: usize) -> usize {
    1472 - (level + 1) * 64
}

pub fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8 + 1], 3435))
}

/// A flow of that quality. `level`: layers below its own. `side`: 0 allocated it.
pub fn setup(
    id: FlowId,
    member: MemberId,
    side: usize,
    level: usize,
    quality: Quality,
    eids: (u64, u64),
) -> Setup<Queue> {
    let role = if side == 0 { Role::Allocator } else { Role::Acceptor };
    let settings = Settings { rotation_bit: quality.rotation_bit, ..Settings::new(Suite::Aes256Gcm, role) };
    let session = quality.encrypted.then(|| Session::with_seed(settings, &[7; 32], [side as u8 + 1; 10]).unwrap());
    let own = Peer::Own { sack: true, fragments: true, window: 1 << 12 };
    let config = Config {
        reliable: true,
        peer: own,
        max_packet: longest(level),
        mpl: 5 * SECOND,
        unsent: UNSENT,
        thrifty: false,
    };
    Setup {
        eid: eids.0,
        peer_eid: eids.1,
        frcp: quality.reliable.then_some(config),
        seed: 7 + side as u64,
        lot: (eids.0, side),
        credit: quality.credit,
        session,
        crc: quality.crc,
        mtu: 1472,
        timeout: quality.timeout,
        accounts: (quality.budget > 0).then_some(Account { key: 7, budget: quality.budget }).into_iter().collect(),
        ..Setup::new(id, member, Carrier::Broadcast, User::Program(Queue::default()))
    }
}

/// What happened to the control side of a node.
#[derive(Debug, Default)]
pub struct Told {
    pub ends: Vec<(usize, FlowId, How)>,
    pub datagrams: Vec<(usize, Vec<u8>)>,
    pub others: Vec<String>,
}

/// A path of two nodes, with members of layers on top of each other, and a flow of the topmost.
#[derive(Debug)]
pub struct Way {
    pub net: Network,
    /// By node.
    pub ports: [MemberId; 2],
    /// The flows of each level, the lowest first, and the members that carry them.
    pub flows: Vec<[FlowId; 2]>,
    pub members: Vec<[MemberId; 2]>,
    pub told: Told,
    eid: u64,
}

impl Way {
    /// `lower`: of the flows between members, the lowest first. `top`: of the flow between programs.
    pub fn new(lower: &[Quality], top: Quality) -> Self {
        let mut net = Network::default();
        let nodes = [net.add_node(), net.add_node()];
        let ports = nodes.map(|node| net.open_port(node, address(node), DELAY).unwrap());
        let mut way = Way { net, ports, flows: Vec::new(), members: vec![ports], told: Told::default(), eid: 100 };
        for quality in lower {
            way.level(*quality);
        }
        let flows = way.flow(top, |_| None);
        way.flows.push(flows);
        way
    }

    /// One more layer over what is there.
    fn level(&mut self, quality: Quality) {
        let members = [0, 1].map(|node| {
            let member = self.net.name_member(node);
            self.net.stack(node).open_member(member, Kind::Transfer);
            member
        });
        let flows = self.flow(quality, |node| Some(members[node]));
        self.flows.push(flows);
        self.members.push(members);
    }

    /// One more flow of programs beside that on top.
    pub fn flow_beside(&mut self, quality: Quality) -> [FlowId; 2] {
        let top = self.flows.pop();
        let flows = self.flow(quality, |_| None);
        self.flows.extend(top);
        flows
    }

    /// A flow of the layer that is on top by now, for members or programs.
    pub fn flow(&mut self, quality: Quality, user: impl Fn(usize) -> Option<MemberId>) -> [FlowId; 2] {
        let (members, below) = (*self.members.last().unwrap(), self.flows.last().copied());
        let level = self.members.len() - 1;
        let eids = (self.eid, self.eid + 1);
        self.eid += 2;
        [0, 1].map(|node| {
            let id = self.net.name_flow(node);
            let eids = if node == 0 { eids } else { (eids.1, eids.0) };
            let mut setup = setup(id, members[node], node, level, quality, eids);
            setup.carrier = match below {
                None => Carrier::Port(address(1 - node)),
                Some(flows) => Carrier::Transfer(flows[node]),
            };
            if let Some(member) = user(node) {
                setup.user = User::Transfer(member);
            }
            assert!(self.net.add(node, setup));
            id
        })
    }

    /// The flow of the programs.
    pub fn top(&self) -> [FlowId; 2] {
        *self.flows.last().unwrap()
    }

    pub fn start(&mut self, node: usize, program: Program) {
        let flow = self.top()[node];
        assert!(self.net.start(node, flow, program));
    }

    pub fn tally(&self, node: usize) -> Tally {
        self.net.tally(node, self.top()[node]).unwrap()
    }

    pub fn run(&mut self, time: u64) {
        run(&mut self.net, time, &mut self.told);
    }

    /// What a level of a node counted, and its only flow.
    pub fn counted(&mut self, node: usize, level: usize) -> Snapshot {
        let member = self.members[level][node];
        self.net.stack(node).snapshot(member)
    }

    /// Packets that a program sends both ways arrive: all, in order.
    pub fn exchange(&mut self, count: u64, length: usize) {
        self.start(0, source(count, length));
        self.start(1, Program::Echo);
        for _ in 0..600 {
            if self.tally(0).read == count {
                break;
            }
            self.run(SECOND / 10);
        }
        let (near, far) = (self.tally(0), self.tally(1));
        assert_eq!((near.written, far.read, near.read), (count, count, count), "{near:?} {far:?} {:?}", self.told);
        assert_eq!((near.bytes, far.bytes), (count * length as u64, count * length as u64));
        assert_eq!((near.disordered, far.disordered), (0, 0));
        assert_eq!(self.net.counted().stuck, 0);
    }
}

pub fn source(count: u64, length: usize) -> Program {
    Program::Source { count, length, interval: 0, closes: false }
}

/// Let so much time pass.
pub fn run(net: &mut Network, time: u64, told: &mut Told) {
    let until = net.now() + time;
    while net.now() < until {
        for (node, event) in net.run(until).1 {
            match event {
                Event::Ended(flow, how, ..) => told.ends.push((node, flow, how)),
                Event::Datagram(_, _, data) => told.datagrams.push((node, data)),
                Event::Message(..) | Event::Heard(..) | Event::State(..) | Event::Closed(..) => {
                    told.others.push(format!("{event:?}"))
                }
            }
        }
    }
}
