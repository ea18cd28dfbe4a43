//! A member of a unicast layer: packets with addresses, which it sends, takes in and passes on over lower flows
//! (docs/spec/unicast-data.md).

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod ecn;
mod forward;
mod pacer;
mod queue;
mod table;

use std::collections::VecDeque;

use ouroboros_wire::pci::Pci;
use ouroboros_wire::update::Word;

use crate::counters::TransferCounters;
use crate::id::{FlowId, Map};
use crate::stack::Source;
pub(crate) use ecn::Ecn;
pub(crate) use pacer::Pacer;
pub(crate) use queue::{MARK as MOST_MARK, PACKETS as WAITING};
use queue::{Queue, Waiting};
use table::Hops;
pub use table::{Table, WAYS};

/// Settings of a member of a unicast layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Its address.
    pub address: u32,
    /// Lower flows that its packets cross at the most; 0, which some layers have, is 255.
    pub max_ttl: u8,
    /// It marks packets when its queues fill, and heeds marks.
    pub ecn: bool,
}

/// A lower flow that leads to a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lower {
    flow: FlowId,
    /// The longest packet that it carries, header included.
    most: usize,
    up: bool,
}

/// A member at the other end of lower flows.
#[derive(Debug)]
struct Neighbour {
    address: u32,
    /// The newest first.
    lower: Vec<Lower>,
    /// What others send there and had to wait; from the first time on.
    queue: Option<Box<Queue>>,
}

impl Neighbour {
    fn best(&self) -> Option<Lower> {
        self.lower.iter().find(|lower| lower.up).copied()
    }

    fn waits(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }
}

/// The next member on the way of a packet, and the lower flow that leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    neighbour: usize,
    pub(crate) lower: FlowId,
    /// See `Lower`.
    pub(crate) most: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Transfer {
    settings: Settings,
    table: Table,
    /// For each place of the table.
    hops: Vec<Hops>,
    /// A place is free when its neighbour has no lower flow.
    neighbours: Vec<Neighbour>,
    /// The places of the neighbours that lower flows lead to.
    by_flow: Map<u64, usize>,
    /// Rises with each change of the ways.
    epoch: u64,
    /// Flows that wait for a way.
    pub(crate) lost: VecDeque<Source>,
    pub(crate) counters: TransferCounters,
    /// What the member has to say to the flow allocators of others, and could not while the flow was taken out that leads
    /// there.
    words: VecDeque<(u32, Word)>,
}

impl Transfer {
    pub(crate) fn new(settings: Settings) -> Self {
        Transfer {
            settings,
            table: Table::default(),
            hops: Vec::new(),
            neighbours: Vec::new(),
            by_flow: Map::default(),
            epoch: 1,
            lost: VecDeque::new(),
            counters: TransferCounters::default(),
            words: VecDeque::new(),
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The header of a packet of ours.
    pub(crate) fn pci(&self, destination: u32, cube: u8, eid: u64) -> Pci {
        Pci { destination, cube, ttl: self.most_ttl(), ecn: 0, eid }
    }

    /// How full the way of a packet of ours is.
    pub(crate) fn mark(&self, hop: Option<Hop>) -> u8 {
        let queue = hop.and_then(|hop| self.neighbours.get(hop.neighbour)?.queue.as_ref());
        queue.filter(|_| self.settings.ecn).map_or(0, |queue| queue.mark())
    }

    fn most_ttl(&self) -> u8 {
        if self.settings.max_ttl == 0 { u8::MAX } else { self.settings.max_ttl }
    }

    /// The TTL with which a packet of others goes on; None: it does not.
    fn ttl(&self, ttl: u8) -> Option<u8> {
        // Where it is set to 0, members of the C prototype send 0, and take one from it.
        let ttl = if ttl == 0 && self.settings.max_ttl == 0 { u8::MAX } else { ttl };
        ttl.min(self.most_ttl()).checked_sub(1).filter(|left| *left > 0)
    }

    pub(crate) fn counted(&self) -> TransferCounters {
        let queues = self.neighbours.iter().filter_map(|neighbour| neighbour.queue.as_ref());
        TransferCounters { waiting: queues.map(|queue| queue.packets() as u64).sum(), ..self.counters }
    }

    // --- ways

    /// The next hop to a destination for a flow. It depends on nothing but the table and the lower flows that are up.
    pub(crate) fn hop(&self, destination: u32, eid: u64) -> Option<Hop> {
        let hops = self.hops.get(self.table.find(destination)?)?;
        let place = if self.table.spread { hops.choose(destination, eid) } else { hops.first() }?;
        let Lower { flow, most, .. } = self.neighbours.get(place)?.best()?;
        Some(Hop { neighbour: place, lower: flow, most })
    }

    pub(crate) fn route(&mut self, table: Table) {
        self.table = table;
        self.resolve();
    }

    /// A lower flow leads to the neighbour with that address from now on, before those that did already.
    pub(crate) fn adopt(&mut self, flow: FlowId, address: u32, most: usize) {
        self.drop_lower(flow);
        let same = |neighbour: &Neighbour| !neighbour.lower.is_empty() && neighbour.address == address;
        let place = self.neighbours.iter().position(same).unwrap_or_else(|| self.free_place());
        let Some(neighbour) = self.neighbours.get_mut(place) else { return };
        neighbour.address = address;
        neighbour.lower.insert(0, Lower { flow, most, up: true });
        self.by_flow.insert(flow.into(), place);
        self.resolve();
    }

    /// A lower flow carries packets of another length from now on.
    pub(crate) fn set_most(&mut self, flow: FlowId, most: usize) {
        if let Some(neighbour) = self.by_flow.get(&flow.into()).and_then(|place| self.neighbours.get_mut(*place)) {
            neighbour.lower.iter_mut().filter(|lower| lower.flow == flow).for_each(|lower| lower.most = most);
            self.resolve();
        }
    }

    fn free_place(&mut self) -> usize {
        self.neighbours.iter().position(|neighbour| neighbour.lower.is_empty() && !neighbour.waits()).unwrap_or_else(
            || {
                self.neighbours.push(Neighbour { address: 0, lower: Vec::new(), queue: None });
                self.neighbours.len() - 1
            },
        )
    }

    /// A lower flow leads nowhere any more. No error when it did not.
    pub(crate) fn drop_lower(&mut self, flow: FlowId) {
        if let Some(neighbour) = self.by_flow.remove(&flow.into()).and_then(|place| self.neighbours.get_mut(place)) {
            neighbour.lower.retain(|lower| lower.flow != flow);
            self.resolve();
        }
    }

    /// The neighbour at the other end of a lower flow is silent, or (`up`) is back.
    pub(crate) fn note_state(&mut self, flow: FlowId, up: bool) {
        let Some(neighbour) = self.by_flow.get(&flow.into()).and_then(|place| self.neighbours.get_mut(*place)) else {
            return;
        };
        neighbour.lower.iter_mut().filter(|lower| lower.flow == flow).for_each(|lower| lower.up = up);
        self.resolve();
    }

    /// Packets that wait for neighbours to which nothing leads any more.
    fn stranded(&mut self) -> Vec<Waiting> {
        let gone = self.neighbours.iter_mut().filter(|neighbour| neighbour.best().is_none());
        gone.filter_map(|neighbour| neighbour.queue.as_mut()).flat_map(|queue| queue.take_all()).collect()
    }

    /// The queue to a neighbour.
    fn queue(&mut self, place: usize) -> Option<&mut Queue> {
        Some(self.neighbours.get_mut(place)?.queue.get_or_insert_default())
    }

    /// All lower flows.
    pub(crate) fn lower(&self) -> Vec<FlowId> {
        self.neighbours.iter().flat_map(|neighbour| &neighbour.lower).map(|lower| lower.flow).collect()
    }

    /// Find the neighbours of the table that are up.
    fn resolve(&mut self) {
        self.epoch += 1;
        let up: Map<u32, usize> = (self.neighbours.iter().enumerate())
            .filter(|(_, neighbour)| neighbour.best().is_some())
            .map(|(place, neighbour)| (neighbour.address, place))
            .collect();
        self.hops.clear();
        self.hops.extend(self.table.ways().iter().map(|ways| {
            let mut hops = Hops::default();
            for (number, address) in ways.neighbours.iter().enumerate() {
                if let Some(place) = up.get(address) {
                    hops.push(*place, *address, number < ways.equal);
                }
            }
            hops
        }));
    }
}
