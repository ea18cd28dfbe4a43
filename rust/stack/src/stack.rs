//! All flows and members of one node, and the order in which they get their turns.
//!
//! Invariants:
//!
//! * At most one packet is being written (`outlet::Frame`); until it is closed or discarded, only its bytes are appended.
//! * `receive`, `serve`, `timeout` and the commands never call one another. Whatever a packet causes elsewhere is queued, or
//!   gives a flow a turn. A flow that something is done with is taken out of the arena, so nothing finds it half-made.
//! * A packet for the other end of a loop is queued there. So calls are nested no deeper than layers, `DEPTH` at most.
//! * A packet is sealed when it leaves its queue, so the numbers of the sealing leave in order.
//! * Each flow is in one place: idle, in the queue for a turn, or parked in the list of its blocker, which then wakes it.

mod arrivals;
mod commands;
mod ports;
mod reports;
mod turns;

use std::collections::VecDeque;
use std::net::SocketAddr;

use ouroboros_wire::pci::PCI;

use crate::balance::Balance;
use crate::counters::{MemberCounted, Snapshot};
use crate::flow::{Flow, How, User};
use crate::id::{FlowId, MemberId, Slots};
use crate::link::Counters;
use crate::member::{Member, plain};
use crate::memory::Accounts;
use crate::outlet::{Passing, Way};
use crate::ring::Ring;
use crate::tap::Taps;
use crate::timers::Timers;

/// Where a peer of a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// At an address of IP.
    Address(SocketAddr),
    /// At the other end of a flow below.
    Flow(FlowId),
}

/// The way to the peer of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The port of the member, to an address.
    Port(SocketAddr),
    /// A flow of a layer below, to the member at its other end.
    Transfer(FlowId),
    /// The lower flow that leads towards the member of the layer with that address, in a cube.
    Unicast(u32, u8),
    /// Within this stack: the flow that is the other end.
    Loop(FlowId),
    /// To all other flows of the member.
    Broadcast,
    /// Nowhere: its program gets copies of the packets that the member sends and gets, of so many bytes each at the most.
    /// `epoch`: nanoseconds since 1970 when the time of the stack was 0.
    Tap {
        #[allow(missing_docs)]
        snap: u32,
        #[allow(missing_docs)]
        epoch: u64,
    },
}

/// How a member without a port carries its flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By flows of layers below.
    Transfer,
    /// Within this stack, which has both ends of each flow.
    Local,
    /// Each flow gets the packets of all others, and so do neighbours. The number is random.
    Broadcast(u64),
}

/// News for the control side.
#[derive(Debug)]
pub enum Event<R> {
    /// A management datagram, endpoint id 0 included, and its source.
    Datagram(MemberId, Where, Vec<u8>),
    /// A message for the control side.
    Message(FlowId, Vec<u8>),
    /// A packet for a component of a member, by its endpoint id; and the lower flow that brought it, None from the member
    /// itself.
    Heard(MemberId, u64, Option<FlowId>, Vec<u8>),
    /// The peer of a flow that no program uses is silent for longer than its timeout, or (true) is back. Also
    /// (true): the peer of a flow with a grace was heard for the first time.
    State(FlowId, bool),
    /// A flow ended; its name is free. The ring of its program is to be dropped where that may take time.
    Ended(FlowId, How, Box<crate::Counted>, Option<R>),
    /// A member ended, after all its flows; its name is free.
    Closed(MemberId, Box<MemberCounted>),
}

/// A sender that takes turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Flow(FlowId),
    /// Packets of others that pass through a member of a unicast layer, to the neighbour at that place.
    Transit(MemberId, usize),
    /// Messages of such a member itself.
    Words(MemberId),
    /// Packets of a broadcast member that wait for the neighbour at the other end of a lower flow.
    Spread(MemberId, FlowId),
    /// What such a member has to say of its neighbours.
    Border(MemberId),
}

/// See the module.
#[derive(Debug)]
pub struct Stack<R> {
    pub(crate) flows: Slots<Box<Flow<R>>>,
    pub(crate) members: Slots<Member>,
    timers: Timers,
    pub(crate) accounts: Accounts,
    pub(crate) ready: VecDeque<Source>,
    /// A packet that is being written, and does not leave by a port at once.
    pub(crate) frame: Vec<u8>,
    events: VecDeque<Event<R>>,
    /// Packets of others that were passed on lately.
    pub(crate) transit: u64,
    /// The mark of the datagrams that are received now.
    pub(crate) arriving: u8,
    /// All packets that are received now leave as they are, with that header behind the one of the flow.
    pub(crate) passing: Option<(Passing, [u8; PCI])>,
    /// For a member that is gone.
    nowhere: Counters,
    /// The balance of members that ended.
    pub(crate) past: Balance,
    pub(crate) taps: Taps,
    /// Flows that have counted something since `publish` was called last; None: nobody calls it.
    pub(crate) changed: Option<Vec<FlowId>>,
}

impl<R> Default for Stack<R> {
    fn default() -> Self {
        Stack {
            flows: Slots::default(),
            members: Slots::default(),
            timers: Timers::default(),
            accounts: Accounts::default(),
            ready: VecDeque::new(),
            frame: Vec::new(),
            events: VecDeque::new(),
            transit: 0,
            arriving: 0,
            passing: None,
            nowhere: Counters::default(),
            past: Balance::default(),
            taps: Taps::default(),
            changed: None,
        }
    }
}

/// Queries and events.
impl<R: Ring> Stack<R> {
    /// All members.
    pub fn members(&self) -> Vec<MemberId> {
        self.members.entries().map(|(name, _)| name.into()).collect()
    }

    /// The program of a flow, if one uses it.
    pub fn ring(&self, flow: FlowId) -> Option<&R> {
        match &self.flows.get(flow)?.user {
            User::Program(ring) => Some(ring),
            _ => None,
        }
    }

    /// The member that carries a flow.
    pub fn carrier_of(&self, flow: FlowId) -> Option<MemberId> {
        Some(self.flows.get(flow)?.outlet.member)
    }

    /// The counters of a member and of its flows.
    pub fn snapshot(&self, member: MemberId) -> Snapshot {
        let Some(member) = self.members.get(member) else { return Snapshot::default() };
        let flows = member.flows.iter().filter_map(|id| Some((*id, self.flows.get(*id)?.counted())));
        let (layer, transfer) = member.counted();
        Snapshot { layer, transfer, flows: flows.collect() }
    }

    /// Memory of FRCP that flows share, by the key of the account, bytes.
    pub fn held(&self) -> Vec<(i64, usize)> {
        self.accounts.held().collect()
    }

    /// The next event.
    pub fn event(&mut self) -> Option<Event<R>> {
        self.events.pop_front()
    }

    /// Events of a member were refused: there are too many already.
    pub fn count_refused(&mut self, member: MemberId) {
        if let Some(member) = self.members.get_mut(member) {
            member.counters.management = member.counters.management.saturating_sub(1);
            member.counters.refused += 1;
        }
    }

    pub(crate) fn tell(&mut self, event: Event<R>) {
        self.events.push_back(event);
    }

    /// A packet of a flow is for the control side.
    pub(crate) fn tell_message(&mut self, now: u64, flow: FlowId, packet: Vec<u8>) {
        if !self.taps.is_empty() {
            self.tap_message(now, flow, &packet);
        }
        self.tell(Event::Message(flow, packet));
    }

    pub(crate) fn flow(&mut self, flow: FlowId) -> Option<&mut Flow<R>> {
        self.flows.get_mut(flow).map(|flow| &mut **flow)
    }

    /// Do something with a flow, if it is there.
    fn using(&mut self, flow: FlowId, call: impl FnOnce(&mut Flow<R>, &mut Self)) {
        if let Some(mut taken) = self.flows.take(flow) {
            call(&mut taken, self);
            self.flows.put(flow, taken);
        }
    }

    pub(crate) fn count_crowded(&mut self, member: MemberId) {
        if let Some(member) = self.members.get_mut(member) {
            member.counters.crowded += 1;
        }
    }

    /// The counters of the bad links of a member.
    pub(crate) fn shaken(&mut self, member: MemberId) -> &mut Counters {
        match self.members.get_mut(member) {
            Some(member) => &mut member.shaken,
            None => &mut self.nowhere,
        }
    }
}

/// Whether packets to us carry an endpoint id.
fn has_eid(way: Way) -> bool {
    matches!(way, Way::Port(..) | Way::Transfer(_) | Way::Unicast(..))
}

fn plain_where(at: Where) -> Where {
    match at {
        Where::Address(address) => Where::Address(plain(address)),
        Where::Flow(_) => at,
    }
}
