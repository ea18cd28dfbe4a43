//! One node: its stack, and the surroundings of a real one: names, ports, programs.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ouroboros_stack::{FlowId, MemberId, Names, Outgoing, Setup, Stack, User};

use crate::link::Flight;
use crate::program::Running;
use crate::queue::{Bells, Queue, lock};

/// Turns of its flows at one instant, at the most.
const TURNS: usize = 1 << 20;
/// Bytes that wait at a node that stands still.
const ROOM: usize = 4 << 20;

/// A port of a node: the place of it in the network, and how many calls it takes until it is full; None: all.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) place: u32,
    pub(crate) calls: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) stack: Stack<Queue>,
    pub(crate) flows: Names,
    pub(crate) members: Names,
    pub(crate) ports: BTreeMap<MemberId, Port>,
    /// Rings of programs, and programs that run here.
    pub(crate) queues: BTreeMap<FlowId, Queue>,
    pub(crate) running: BTreeMap<FlowId, Running>,
    bells: Arc<Mutex<Bells>>,
    /// When the network looks after it next.
    pub(crate) due: Option<u64>,
    /// It stands still.
    pub(crate) still: Option<Still>,
}

/// What arrived at a node that stands still, bounded as the buffer of a socket is.
#[derive(Debug, Default)]
pub(crate) struct Still {
    pub(crate) arrived: VecDeque<(MemberId, SocketAddr, Flight)>,
    bytes: usize,
}

impl Still {
    /// Keep datagrams. Returns how many found no room.
    pub(crate) fn keep(&mut self, member: MemberId, from: SocketAddr, flight: Flight) -> u64 {
        let length = flight.bytes.len();
        if self.bytes + length > ROOM {
            return flight.count();
        }
        self.bytes += length;
        self.arrived.push_back((member, from, flight));
        0
    }

    /// Datagrams.
    pub(crate) fn count(&self) -> u64 {
        self.arrived.iter().map(|(.., flight)| flight.count()).sum()
    }
}

impl Node {
    /// False: its member is not there.
    pub(crate) fn add(&mut self, now: u64, setup: Setup<Queue>) -> bool {
        let id = setup.id;
        if let User::Program(queue) = &setup.user {
            queue.join(id, &self.bells);
            self.queues.insert(id, queue.clone());
        }
        self.stack.add(now, setup)
    }

    /// Give each flow that has something to do its turn, and `send` the datagrams of the ports. False: there is no end to it.
    pub(crate) fn settle(&mut self, now: u64, send: &mut impl FnMut(u32, &Outgoing<'_>)) -> bool {
        let mut turns = 0;
        loop {
            let rang = std::mem::take(&mut lock(&self.bells).flows);
            rang.into_iter().for_each(|flow| self.stack.rang(flow));
            for _ in 0..self.stack.turns() {
                self.stack.serve(now);
                self.drain(true, send);
                turns += 1;
            }
            self.drain(false, send);
            if !self.stack.has_work() && lock(&self.bells).flows.is_empty() {
                return true;
            }
            if turns > TURNS {
                return false;
            }
        }
    }

    /// Send the staged datagrams of all ports, or only of `full` ones.
    pub(crate) fn drain(&mut self, full: bool, send: &mut impl FnMut(u32, &Outgoing<'_>)) {
        for (member, port) in &mut self.ports {
            if full && !self.stack.is_full(*member) {
                continue;
            }
            while let Some(outgoing) = self.stack.transmit(*member) {
                if port.calls == Some(0) {
                    self.stack.blocked(*member);
                    break;
                }
                port.calls = port.calls.map(|calls| calls - 1);
                send(port.place, &outgoing);
                self.stack.sent(*member, true);
            }
        }
    }

    /// The programs that something happened to.
    pub(crate) fn rung_programs(&self) -> Vec<FlowId> {
        std::mem::take(&mut lock(&self.bells).programs)
    }
}
