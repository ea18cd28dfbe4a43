//! A node with layers over layers of any shape, and whatever strangers, neighbours, control and programs may do to it, from
//! bytes. Property tests and the fuzz target `fuzz/fuzz_targets/stack.rs` take it from here.
//!
//! No input may make the stack panic, go round in circles or lose count of a packet.

use std::net::SocketAddr;

use ouroboros_crypto::{Role, Session, Settings, Suite};
use ouroboros_frcp::{Config, Peer, UNSENT};
use ouroboros_sim::stack::link::{Chance, Settings as LinkSettings};
use ouroboros_sim::stack::{
    About, Account, Carrier, Event, FlowId, Kind, MemberId, Run, Setup, Table, TransferSettings, User, Where,
};
use ouroboros_sim::{Network, Queue};
use ouroboros_wire::management::Report;
use ouroboros_wire::pci::Pci;
use ouroboros_wire::update::Word;

/// Layers over each other, at the most, and flows of each with one user.
const LEVELS: usize = 4;
const FLOWS: u64 = 3;
/// Endpoint ids of flows begin there, so that those of unicast layers are none of components.
const EIDS: u64 = 100;
/// Our address in each unicast layer; those of others follow.
const OURS: u32 = 1;
const NODE: usize = 0;

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

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}

/// A member of a layer.
#[derive(Debug, Clone)]
struct At {
    member: MemberId,
    unicast: bool,
    /// What carries it: the place of a member below, and its flows there by our endpoint ids. A port has none.
    below: Option<(usize, Vec<(FlowId, u64)>)>,
    /// All flows that it carries.
    flows: Vec<FlowId>,
    eids: u64,
}

pub struct Attack {
    net: Network,
    members: Vec<At>,
    programs: Vec<(FlowId, Queue)>,
    taps: Vec<(FlowId, Queue)>,
}

fn peer(number: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, number as u8 % 4], 3435))
}

/// One input.
pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let mut attack = Attack::new(&mut input);
    while !input.0.is_empty() {
        attack.step(&mut input);
        attack.check();
    }
    attack.net.run(attack.net.now() + 200_000_000_000);
    attack.check();
}

impl Attack {
    fn new(input: &mut Input<'_>) -> Self {
        let mut net = Network::default();
        net.add_node();
        let mut attack = Attack { net, members: Vec::new(), programs: Vec::new(), taps: Vec::new() };
        for number in 0..1 + input.below(2) {
            let address = SocketAddr::from(([10, 0, 0, number as u8 + 1], 3435));
            let Some(member) = attack.net.open_port(NODE, address, 1_000_000) else { continue };
            if input.bit() {
                attack.net.stack(NODE).guard(member, &[7; 32]);
            }
            attack.members.push(At { member, unicast: false, below: None, flows: Vec::new(), eids: EIDS });
        }
        for _ in 0..input.below(LEVELS) {
            attack.layer(input);
        }
        for place in 0..attack.members.len() {
            for _ in 0..1 + input.below(2) {
                attack.program(place, input);
            }
        }
        attack
    }

    /// One more layer over one that is there.
    fn layer(&mut self, input: &mut Input<'_>) {
        let (below, unicast) = (input.below(self.members.len()), input.bit());
        let member = self.net.name_member(NODE);
        let stack = self.net.stack(NODE);
        if unicast {
            stack.open_unicast(member, TransferSettings { address: OURS, max_ttl: input.byte(), ecn: input.bit() });
        } else {
            stack.open_member(member, Kind::Transfer);
        }
        let mut lower = Vec::new();
        for neighbour in 0..1 + input.below(FLOWS as usize) {
            let eid = self.members[below].eids;
            let user = if unicast { User::Control(u32::from(input.byte() % 3)) } else { User::Transfer(member) };
            let flow = self.add(below, user, input);
            lower.push((flow, eid));
            if unicast {
                let (now, most) = (self.net.now(), 200 + usize::from(input.byte()) * 8);
                let about = (most, input.bit());
                self.net.stack(NODE).hand_over(now, member, flow, OURS + 1 + neighbour as u32, about);
            }
        }
        self.members.push(At { member, unicast, below: Some((below, lower)), flows: Vec::new(), eids: EIDS });
        self.route(self.members.len() - 1, input);
    }

    fn route(&mut self, place: usize, input: &mut Input<'_>) {
        let At { member, unicast: true, .. } = self.members[place] else { return };
        let ways: Vec<(u32, Vec<u32>)> = (0..input.below(8) as u32)
            .map(|each| (OURS + 1 + each, (0..1 + input.below(3)).map(|_| OURS + 1 + input.below(4) as u32).collect()))
            .collect();
        let table = Table::new(ways.iter().map(|(destination, ways)| (*destination, &ways[..])), input.bit());
        self.net.stack(NODE).route(member, table);
    }

    fn program(&mut self, place: usize, input: &mut Input<'_>) {
        let queue = Queue::default();
        let flow = self.add(place, User::Program(queue.clone()), input);
        self.programs.push((flow, queue));
    }

    /// A flow of a layer, of any quality.
    fn add(&mut self, place: usize, user: User<Queue>, input: &mut Input<'_>) -> FlowId {
        let (id, quality) = (self.net.name_flow(NODE), input.byte());
        let at = &mut self.members[place];
        let eid = at.eids;
        at.eids += 1;
        let carrier = match &at.below {
            None => Carrier::Port(peer(input.below(4))),
            Some(_) if at.unicast => Carrier::Unicast(OURS + input.below(6) as u32, 0),
            Some((_, lower)) => Carrier::Transfer(lower[input.below(lower.len())].0),
        };
        let rotation_bit = if quality & 2 != 0 { 7 } else { 20 };
        let settings = Settings { rotation_bit, ..Settings::new(Suite::Aes256Gcm, Role::Allocator) };
        let session = (quality & 1 != 0).then(|| Session::with_seed(settings, &[7; 32], [1; 10]).unwrap());
        let own = Peer::Own { sack: quality & 4 != 0, fragments: quality & 8 != 0, window: 64 };
        let max_packet = 64 + input.below(200) * 8;
        let reliable = quality & 16 != 0;
        let config = Config { reliable, peer: own, max_packet, mpl: 100_000_000, unsent: UNSENT, thrifty: false };
        let setup = Setup {
            eid,
            peer_eid: eid,
            frcp: (quality & 32 != 0).then_some(config),
            seed: u64::from(quality),
            lot: (eid, 0),
            credit: quality & 64 != 0,
            session,
            crc: quality & 128 != 0,
            mtu: 1472,
            timeout: if input.bit() { 0 } else { 1000 },
            grace: if input.bit() { 0 } else { 500 },
            about: About { label: eid, above: None },
            accounts: reliable.then_some(Account { key: 1, budget: 1 << 16 }).into_iter().collect(),
            ..Setup::new(id, at.member, carrier, user)
        };
        at.flows.push(id);
        self.net.add(NODE, setup);
        id
    }

    /// What one byte says, and those behind it.
    fn step(&mut self, input: &mut Input<'_>) {
        let (now, place) = (self.net.now(), input.below(self.members.len()));
        let At { member, flows, .. } = self.members[place].clone();
        let flow = flows.get(input.below(flows.len())).copied().unwrap_or_else(|| FlowId::from(u64::MAX));
        match input.below(24) {
            0..8 => self.arrive(place, input),
            8..11 => self.pass(u64::from(input.byte()) * 1_000_000 + 1),
            11 => self.pass(u64::from(input.byte()) * 1_000_000_000),
            12..15 => self.use_program(input),
            15 => {
                let (to, data) = (self.somewhere(place, input), input.bytes(60));
                self.net.stack(NODE).say(now, member, to, &data);
            }
            16 => {
                let (to, eid, length) = (OURS + input.below(6) as u32, input.byte().into(), 70 * input.below(5));
                let data = input.bytes(length);
                let ttl = input.byte();
                self.net.stack(NODE).send_pdu(now, member, to, eid, ttl, &data);
            }
            17 => {
                let data = input.bytes(40);
                self.net.stack(NODE).send_message(now, flow, &data);
            }
            18 => self.route(place, input),
            19 => self.end(flow, member, input),
            20 => self.reserve(place, input),
            21 => self.resize(place, flow, input),
            22 => self.tap(place, input),
            _ => self.change(place, input),
        }
    }

    fn pass(&mut self, time: u64) {
        let until = self.net.now() + time;
        while self.net.now() < until {
            for (_, event) in self.net.run(until).1 {
                if let Event::Ended(flow, ..) = event {
                    self.net.forget(NODE, flow);
                }
            }
        }
    }

    /// A place of a peer of a member.
    fn somewhere(&self, place: usize, input: &mut Input<'_>) -> Where {
        match &self.members[place].below {
            None => Where::Address(peer(input.below(5))),
            Some((_, lower)) => Where::Flow(lower[input.below(lower.len())].0),
        }
    }

    /// Packets of a neighbour of a member, by all layers below, in a run.
    fn arrive(&mut self, place: usize, input: &mut Input<'_>) {
        let mut packets: Vec<Vec<u8>> = (0..1 + input.below(4)).map(|_| self.packet(place, input)).collect();
        let mut at = place;
        while let Some((below, lower)) = self.members[at].below.clone() {
            let eid = lower[input.below(lower.len())].1;
            for packet in &mut packets {
                *packet = [&header(self.members[below].unicast, OURS, eid)[..], packet].concat();
            }
            at = below;
        }
        let stride = packets.iter().map(Vec::len).max().unwrap_or(0);
        let last = packets.pop().unwrap_or_default();
        packets.iter_mut().for_each(|packet| packet.resize(stride, 0));
        let bytes = [packets.concat(), last].concat();
        let (now, from) = (self.net.now(), peer(input.below(5)));
        let port = self.members[at].member;
        self.net.stack(NODE).receive(now, port, from, Run::new(&bytes, stride));
    }

    /// A packet of the layer of a member.
    fn packet(&mut self, place: usize, input: &mut Input<'_>) -> Vec<u8> {
        let at = &self.members[place];
        let eid = match input.below(5) {
            0 => 0,
            1 => u64::from(input.byte()),
            _ => EIDS + input.below(at.eids as usize + 1 - EIDS as usize) as u64,
        };
        let destination = if input.below(3) == 0 { OURS + input.below(8) as u32 } else { OURS };
        let length = input.below(80);
        let payload = match input.below(6) {
            0 => Word::Congested(EIDS + u64::from(input.byte() % 4), u16::from(input.byte()) << 8).write().to_vec(),
            1 => Word::Report(self.report(input)).write().to_vec(),
            2 => self.report(input).encode()[4..].to_vec(),
            3 => vec![],
            4 => input.bytes(length * 10),
            _ => input.bytes(length),
        };
        let mut packet = [&header(at.unicast, destination, eid)[..], &payload].concat();
        if input.below(8) == 0 {
            packet.truncate(input.below(20));
        } else if at.unicast && packet.len() > 6 {
            (packet[4], packet[5], packet[6]) = (input.byte(), input.byte(), input.byte());
        }
        packet
    }

    fn report(&self, input: &mut Input<'_>) -> Report {
        let eid = EIDS + u64::from(input.byte() % 4);
        let counted = u64::from(input.byte()) << (8 * input.below(8));
        Report { source: eid, destination: eid, counted, room: u32::from(input.byte()) << 16, wait: input.bit() }
    }

    fn use_program(&mut self, input: &mut Input<'_>) {
        let chosen = input.below(self.programs.len());
        let Some((_, queue)) = self.programs.get(chosen) else { return };
        match input.below(8) {
            // Each of them fails when the flow is over.
            0..5 => (0..1 + input.below(40)).for_each(|_| {
                let _ = queue.write(&[7; 99][..input.below(100)]);
            }),
            5 | 6 => while let Ok(Some(_)) = queue.read() {},
            _ => queue.let_go(input.bit()),
        }
    }

    fn end(&mut self, flow: FlowId, member: MemberId, input: &mut Input<'_>) {
        let (now, eid) = (self.net.now(), EIDS + u64::from(input.byte() % 4));
        let stack = self.net.stack(NODE);
        match input.below(5) {
            0 => stack.end(now, flow),
            1 => stack.doom(flow),
            2 => stack.drop_flow(flow),
            3 => stack.peer_gone(member, eid, input.bit()),
            _ if input.below(8) == 0 => self.net.close(NODE, member, input.bit()),
            _ => stack.hand(now, flow, User::Control(u32::from(input.byte()))),
        }
    }

    fn reserve(&mut self, place: usize, input: &mut Input<'_>) {
        let eid = EIDS + input.below(20) as u64;
        let from = input.bit().then(|| self.somewhere(place, input));
        let member = self.members[place].member;
        if input.bit() {
            self.net.stack(NODE).reserve(member, eid, from);
        } else {
            self.net.stack(NODE).unreserve(member, eid);
        }
    }

    fn resize(&mut self, place: usize, flow: FlowId, input: &mut Input<'_>) {
        let sizes = [0; 3].map(|_| usize::from(input.byte()) * 8);
        self.net.stack(NODE).resize(flow, sizes[0], sizes[1], sizes[2]);
        let Some((_, lower)) = self.members[place].below.clone() else { return };
        let (member, flow, now) = (self.members[place].member, lower[input.below(lower.len())].0, self.net.now());
        match input.below(3) {
            0 => self.net.stack(NODE).take_back(member, flow),
            1 if self.members[place].unicast => {
                let about = (sizes[0], input.bit());
                self.net.stack(NODE).hand_over(now, member, flow, OURS + 1 + input.below(4) as u32, about);
            }
            _ => {}
        }
    }

    fn tap(&mut self, place: usize, input: &mut Input<'_>) {
        if self.taps.len() > 3 {
            let (_, queue) = self.taps.swap_remove(input.below(self.taps.len()));
            return queue.let_go(input.bit());
        }
        let (id, member) = (self.net.name_flow(NODE), self.members[place].member);
        let carrier = Carrier::Tap { snap: u32::from(input.byte()), epoch: u64::MAX - 5 };
        let about = About { label: 1, above: None };
        let queue = Queue::default();
        let setup = Setup { about, ..Setup::new(id, member, carrier, User::Program(queue.clone())) };
        self.net.add(NODE, setup);
        self.taps.push((id, queue));
    }

    fn change(&mut self, place: usize, input: &mut Input<'_>) {
        let member = self.members[place].member;
        match input.below(3) {
            0 => {
                let settings = TransferSettings { address: OURS, max_ttl: input.byte(), ecn: input.bit() };
                self.net.stack(NODE).change_unicast(member, settings);
            }
            1 => {
                let calls = (!input.bit()).then(|| u64::from(input.byte()));
                self.net.allow(NODE, member, calls);
            }
            _ => {
                let loss = Chance::new(f64::from(input.byte()) / 255.0).unwrap_or_default();
                let settings = LinkSettings { loss, duplicate: loss, ..LinkSettings::default() };
                self.net.stack(NODE).impair(member, settings, 3);
            }
        }
    }

    /// All packets are somewhere, and nobody goes round in circles.
    fn check(&mut self) {
        let balance = self.net.stack(NODE).balance();
        assert!(balance.is_even(), "{balance:?}");
        self.pass(1);
        assert_eq!(self.net.counted().stuck, 0);
    }
}

fn header(unicast: bool, destination: u32, eid: u64) -> Vec<u8> {
    if unicast {
        Pci { destination, cube: 0, ttl: 60, ecn: 0, eid }.write().to_vec()
    } else {
        (eid as u32).to_be_bytes().to_vec()
    }
}
