//! The layers that tests have, each with an engine of its own.
#![allow(clippy::unwrap_used, dead_code)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;

use ouroboros_crypto::Session;
use ouroboros_frcp::Config;
use ouroboros_io::Program;
use ouroboros_io::engine::Engine;
use ouroboros_io::impair::{Counters, Settings};
use ouroboros_io::stack::{self, Carrier, FlowCounters, FlowId, How, Kind, LayerCounters, MemberId, User, Where};
use ouroboros_shm::endpoint::Endpoint;

/// A flow between two nodes.
pub struct Setup {
    pub eid: u64,
    pub peer_eid: u64,
    pub peer: SocketAddr,
    pub endpoint: Endpoint,
    pub frcp: Option<Config>,
    pub seed: u64,
    pub credit: bool,
    pub crypto: Option<Session>,
    pub crc: bool,
    pub timeout: u32,
    pub mtu: usize,
}

#[derive(Debug)]
pub enum Event {
    Management(Vec<u8>, SocketAddr),
    Ended(u64, How, FlowCounters),
}

#[derive(Debug)]
pub struct Snapshot {
    pub layer: LayerCounters,
    pub flows: Vec<(u64, FlowCounters)>,
}

pub struct UdpLayer {
    engine: Engine,
    port: MemberId,
    eids: Mutex<BTreeMap<FlowId, u64>>,
}

impl UdpLayer {
    pub fn start(socket: OwnedFd) -> std::io::Result<Self> {
        let engine = Engine::start()?;
        let port = engine.open_port(socket, None)?;
        Ok(UdpLayer { engine, port, eids: Mutex::default() })
    }

    pub fn add(&self, setup: Setup) {
        let id = self.engine.name();
        self.eids.lock().unwrap().insert(id, setup.eid);
        let user = User::Program(Program::new(setup.endpoint));
        self.engine.add(vec![stack::Setup {
            eid: setup.eid,
            peer_eid: setup.peer_eid,
            frcp: setup.frcp,
            seed: setup.seed,
            lot: (setup.eid, 0),
            credit: setup.credit,
            session: setup.crypto,
            crc: setup.crc,
            mtu: setup.mtu,
            timeout: setup.timeout,
            ..stack::Setup::new(id, self.port, Carrier::Port(setup.peer), user)
        }]);
    }

    pub fn reserve(&self, eid: u64, peer: SocketAddr) {
        self.engine.reserve(self.port, eid, Some(Where::Address(peer)));
    }

    pub fn send(&self, datagram: &[u8], to: SocketAddr) {
        self.engine.say(self.port, Where::Address(to), datagram);
    }

    pub fn peer_gone(&self, eid: u64, died: bool) {
        self.engine.peer_gone(self.port, eid, died);
    }

    pub fn impair(&self, settings: Settings, seed: u64) {
        self.engine.impair(self.port, settings, seed);
    }

    pub fn snapshot(&self) -> Snapshot {
        let stack::Snapshot { layer, flows, .. } = self.engine.snapshot(self.port);
        let eids = self.eids.lock().unwrap();
        Snapshot { layer, flows: flows.into_iter().map(|(id, (counters, _))| (eids[&id], counters)).collect() }
    }

    pub fn take_events(&self) -> Vec<Event> {
        let mut eids = self.eids.lock().unwrap();
        let events = self.engine.take_events(usize::MAX).into_iter();
        events
            .filter_map(|event| match event {
                stack::Event::Datagram(_, Where::Address(from), data) => Some(Event::Management(data, from)),
                stack::Event::Ended(id, how, counted, _) => Some(Event::Ended(eids.remove(&id)?, how, counted.0)),
                _ => None,
            })
            .collect()
    }

    pub fn news(&self) -> BorrowedFd<'_> {
        self.engine.news()
    }

    pub fn failure(&self) -> Option<&str> {
        self.engine.failure()
    }

    pub fn panic(&self) {
        self.engine.panic();
    }
}

/// An impaired layer within a node.
pub struct Relay {
    engine: Engine,
    member: MemberId,
    flows: Mutex<BTreeMap<u64, [FlowId; 2]>>,
}

impl Relay {
    pub fn start(settings: Settings, seed: u64) -> std::io::Result<Self> {
        let engine = Engine::start()?;
        let member = engine.open_member(Kind::Local);
        engine.impair(member, settings, seed);
        Ok(Relay { engine, member, flows: Mutex::default() })
    }

    pub fn add(&self, id: u64, ends: [Endpoint; 2]) -> std::io::Result<()> {
        let names = [self.engine.name(), self.engine.name()];
        self.flows.lock().unwrap().insert(id, names);
        let setups = ends.into_iter().enumerate().map(|(side, endpoint)| {
            let carrier = Carrier::Loop(names[1 - side]);
            stack::Setup { lot: (id, side), ..within(names[side], self.member, carrier, endpoint) }
        });
        self.engine.add(setups.collect());
        Ok(())
    }

    /// Of which only one end can be carried: the member of the other is not there.
    pub fn add_half(&self, [here, nowhere]: [Endpoint; 2]) {
        let names = [self.engine.name(), self.engine.name()];
        let ends = [(self.member, here), (MemberId::from(1 << 20), nowhere)].into_iter().enumerate();
        let setups = ends.map(|(side, (member, end))| within(names[side], member, Carrier::Loop(names[1 - side]), end));
        self.engine.add(setups.collect());
    }

    pub fn remove(&self, id: u64) {
        let flows = self.flows.lock().unwrap();
        flows.get(&id).into_iter().flatten().for_each(|flow| self.engine.drop_flow(*flow));
    }

    pub fn mark_dead(&self, id: u64, side: usize) {
        if let Some(ends) = self.flows.lock().unwrap().get(&id) {
            self.engine.doom(ends[side]);
        }
    }

    pub fn set(&self, settings: Settings, seed: u64) {
        self.engine.impair(self.member, settings, seed);
    }

    pub fn counters(&self) -> Counters {
        let LayerCounters { delivered, lost, duplicated, reordered, .. } = self.engine.snapshot(self.member).layer;
        Counters { delivered, lost, duplicated, reordered }
    }

    pub fn news(&self) -> BorrowedFd<'_> {
        self.engine.news()
    }

    pub fn failure(&self) -> Option<&str> {
        self.engine.failure()
    }

    pub fn panic(&self) {
        self.engine.panic();
    }

    pub fn stop(&mut self) {
        self.engine.stop();
    }
}

pub struct Broadcast {
    engine: Engine,
    member: MemberId,
}

impl Broadcast {
    pub fn start() -> std::io::Result<Self> {
        let engine = Engine::start()?;
        let member = engine.open_member(Kind::Broadcast(1));
        Ok(Broadcast { engine, member })
    }

    pub fn add(&self, endpoint: Endpoint) -> std::io::Result<()> {
        self.engine.join(within(self.engine.name(), self.member, Carrier::Broadcast, endpoint));
        Ok(())
    }

    pub fn lost(&self) -> u64 {
        self.engine.snapshot(self.member).layer.lost
    }

    pub fn news(&self) -> BorrowedFd<'_> {
        self.engine.news()
    }

    pub fn failure(&self) -> Option<&str> {
        self.engine.failure()
    }

    pub fn panic(&self) {
        self.engine.panic();
    }

    pub fn stop(&mut self) {
        self.engine.close(self.member, false);
    }
}

/// A flow of a program that does not leave the node.
fn within(id: FlowId, member: MemberId, carrier: Carrier, endpoint: Endpoint) -> stack::Setup<Program> {
    stack::Setup::new(id, member, carrier, User::Program(Program::new(endpoint)))
}
