//! Virtual time: the next event, and the order of events of one instant: first datagrams arrive, then deadlines pass, then
//! programs run; each in the order of ports and nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;

use ouroboros_stack::ether::{EVERYBODY, Station};
use ouroboros_stack::link::{Counters, Settings};
use ouroboros_stack::{Balance, Event, FlowId, MemberId, Outgoing, Run, Setup, Stack};

use crate::link::{Flight, Link};
use crate::node::{self, Node, Still};
use crate::program::{Program, Running, Tally};
use crate::queue::Queue;

/// Datagrams that a kernel takes in one call, and bytes of its buffer for arrivals.
const SEGMENTS: usize = 64;
const ROOM: u32 = 4 << 20;
/// Bytes of a buffer in which a driver receives. With little in it, it makes no difference.
const BUFFER: usize = 64 << 10;
/// How long it takes a program to be woken, ns.
const REACTION: u64 = 1_000;
/// How often deadlines may have passed before a node is through with an instant.
const PASSES: u32 = 4;
/// A node that is never through is looked after again then, ns.
const PAUSE: u64 = 1_000_000;

/// News for the control side of the node at that place.
pub type News = (usize, Event<Queue>);

/// Counters of events, beside those of stacks and programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams that left a port.
    pub sent: u64,
    /// Datagrams that came to a port.
    pub arrived: u64,
    /// Datagrams for an address that no port had.
    pub astray: u64,
    /// Datagrams lost on links.
    pub lost: u64,
    /// Datagrams sent twice there.
    pub duplicated: u64,
    /// Times that programs ran, and deadlines of nodes.
    pub woken: u64,
    /// Times that a node was not through, or wanted to be woken in the past. Each is a fault of the stack.
    pub stuck: u64,
}

#[derive(Debug)]
struct Port {
    node: usize,
    member: MemberId,
    address: SocketAddr,
    open: bool,
    link: Link,
    due: Option<u64>,
}

/// Kinds of events, in their order at one instant. By places of ports and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrival(u32),
    Deadline(usize),
    Program(usize, FlowId),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Network {
    now: u64,
    nodes: Vec<Node>,
    ports: Vec<Port>,
    addresses: BTreeMap<SocketAddr, u32>,
    heap: BinaryHeap<Reverse<(u64, What)>>,
    /// Nodes that something was done with.
    touched: BTreeSet<usize>,
    news: Vec<News>,
    watched: BTreeSet<(usize, FlowId)>,
    /// Something happened to a program that is watched.
    rang: bool,
    counted: Counted,
    /// Datagrams that found no room at a node that stood still.
    unread: u64,
    /// Pairs of nodes between which nothing gets through, the lesser first.
    severed: BTreeSet<(usize, usize)>,
}

/// Nodes. Their numbers are given in order, from 0.
impl Network {
    /// Nanoseconds since it began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// One node more.
    pub fn add_node(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The stack of a node, for commands, but for commands that open, close or add.
    pub fn stack(&mut self, node: usize) -> &mut Stack<Queue> {
        &mut self.node(node).stack
    }

    fn node(&mut self, node: usize) -> &mut Node {
        self.touched.insert(node);
        &mut self.nodes[node]
    }

    /// A name for a member.
    pub fn name_member(&mut self, node: usize) -> MemberId {
        self.nodes[node].members.draw()
    }

    /// A name for a flow.
    pub fn name_flow(&mut self, node: usize) -> FlowId {
        self.nodes[node].flows.draw()
    }

    /// A flow that has that name will not be carried.
    pub fn unname_flow(&mut self, node: usize, flow: FlowId) {
        self.nodes[node].flows.give_back(flow);
    }

    /// A member with a port at an address, whose datagrams take so many ns to wherever they go. None: somebody has it.
    pub fn open_port(&mut self, node: usize, address: SocketAddr, delay: u64) -> Option<MemberId> {
        if self.addresses.contains_key(&address) {
            return None;
        }
        let (member, place) = (self.name_member(node), self.ports.len() as u32);
        self.addresses.insert(address, place);
        self.ports.push(Port { node, member, address, open: true, link: Link::new(delay), due: None });
        let node = self.node(node);
        node.stack.open_port(member, SEGMENTS, ROOM);
        if Station::of(address).is_some() {
            node.stack.leave_management(member);
        }
        node.ports.insert(member, node::Port { place, calls: None });
        Some(member)
    }

    /// End a member and its flows. Staged datagrams of its port have left.
    pub fn close(&mut self, node: usize, member: MemberId, died: bool) {
        let Network { ports, addresses, now, counted, .. } = self;
        let at = &mut self.nodes[node];
        at.drain(false, &mut |place, outgoing| send(ports, addresses, counted, *now, place, outgoing));
        at.stack.close_member(member, died);
        if let Some(place) = at.ports.remove(&member).map(|port| port.place as usize) {
            let port = &mut self.ports[place];
            port.open = false;
            self.addresses.remove(&port.address);
            self.look_after_link(place);
        }
        self.touched.insert(node);
    }

    /// Carry a flow. False: its member is not there, and it has no name any more.
    pub fn add(&mut self, node: usize, setup: Setup<Queue>) -> bool {
        let (id, now) = (setup.id, self.now);
        let added = self.node(node).add(now, setup);
        if !added {
            self.nodes[node].queues.remove(&id);
            self.nodes[node].flows.give_back(id);
        }
        added
    }

    /// The program's side of a flow; also after the flow ended, until it is forgotten.
    pub fn queue(&self, node: usize, flow: FlowId) -> Option<&Queue> {
        self.nodes[node].queues.get(&flow)
    }

    /// Packets that are left in the ring of a flow are not read any more.
    pub fn forget(&mut self, node: usize, flow: FlowId) {
        self.nodes[node].queues.remove(&flow);
        self.nodes[node].running.remove(&flow);
        self.watched.remove(&(node, flow));
    }

    /// A program has a flow from now on. False: there is no such flow of a program.
    pub fn start(&mut self, node: usize, flow: FlowId, program: Program) -> bool {
        let Some(queue) = self.queue(node, flow).cloned() else { return false };
        self.nodes[node].running.insert(flow, Running::new(program, queue, self.now));
        self.wake(node, flow, self.now + REACTION);
        true
    }

    /// Counters of a program, so far.
    pub fn tally(&self, node: usize, flow: FlowId) -> Option<Tally> {
        Some(self.nodes[node].running.get(&flow)?.tally)
    }

    /// Let `run` come back, too, when there is something for the program of a flow.
    pub fn watch(&mut self, node: usize, flow: FlowId) {
        self.watched.insert((node, flow));
    }

    /// That does not matter any more.
    pub fn unwatch(&mut self, node: usize, flow: FlowId) {
        self.watched.remove(&(node, flow));
    }

    /// Counters of events. Links of closed ports count, too.
    pub fn counted(&self) -> Counted {
        let links = self.ports.iter().map(|port| &port.link.counters);
        let begin = (self.counted.lost, self.counted.duplicated);
        let (lost, duplicated) =
            links.fold(begin, |(lost, duplicated), link| (lost + link.lost, duplicated + link.duplicated));
        Counted { lost, duplicated, ..self.counted }
    }

    /// Where all packets are of all nodes and the links between them. It is even, or the stack has a fault:
    /// `sent + duplicated = received + dropped + queued`, but for what was put into a stack by hand.
    pub fn balance(&self) -> Balance {
        let mut all = Balance::default();
        self.nodes.iter().for_each(|node| all.add(&node.stack.balance()));
        let counted = self.counted();
        // What left one node came to another, is on its way, or was dropped on it.
        all.left = all.left.saturating_sub(counted.sent);
        all.arrived = all.arrived.saturating_sub(counted.arrived);
        all.duplicated += counted.duplicated;
        all.queued += self.ports.iter().map(|port| port.link.under_way()).sum::<u64>();
        all.queued += self.nodes.iter().filter_map(|node| node.still.as_ref()).map(Still::count).sum::<u64>();
        all.drop("lost", counted.lost);
        all.drop("unread", self.unread);
        all.drop("astray", counted.astray);
        all
    }
}

/// Links.
impl Network {
    fn place(&self, node: usize, port: MemberId) -> Option<usize> {
        Some(self.nodes[node].ports.get(&port)?.place as usize)
    }

    /// From now on nothing is lost that leaves a port, and all takes that long, ns.
    pub fn mend(&mut self, node: usize, port: MemberId, delay: u64) {
        if let Some(place) = self.place(node, port) {
            self.ports[place].link.mend(delay);
        }
    }

    /// Impair the datagrams that leave a port, from now on.
    pub fn impair(&mut self, node: usize, port: MemberId, settings: Settings, seed: u64) {
        if let Some(place) = self.place(node, port) {
            self.ports[place].link.impair(settings, seed);
        }
    }

    /// Nothing gets from one node to the other any more, either way (`on`), or all does again. What is on its way is lost.
    pub fn sever(&mut self, one: usize, other: usize, on: bool) {
        let pair = (one.min(other), one.max(other));
        if on {
            self.severed.insert(pair);
        } else {
            self.severed.remove(&pair);
        }
    }

    /// Counters of the way out of a port.
    pub fn link_counters(&self, node: usize, port: MemberId) -> Counters {
        self.place(node, port).map(|place| self.ports[place].link.counters).unwrap_or_default()
    }

    /// A port takes so many calls more, until this is said again; None: all.
    pub fn allow(&mut self, node: usize, port: MemberId, calls: Option<u64>) {
        if let Some(port) = self.nodes[node].ports.get_mut(&port) {
            port.calls = calls;
        }
        if calls != Some(0) {
            self.node(node).stack.unblocked(port);
        }
    }

    fn look_after_link(&mut self, place: usize) {
        let port = &mut self.ports[place];
        if let Some(at) = port.link.deadline()
            && port.due.is_none_or(|due| at < due)
        {
            port.due = Some(at);
            self.heap.push(Reverse((at, What::Arrival(place as u32))));
        }
    }
}

/// Nodes that stand still, and those that are gone.
impl Network {
    /// A node stands still, as a process does at SIGSTOP: nothing of it happens until `thaw`. What arrives waits, as far as
    /// there is room.
    pub fn freeze(&mut self, node: usize) {
        self.nodes[node].still.get_or_insert_default();
    }

    /// A node goes on: first it finds what arrived, then what was due meanwhile.
    pub fn thaw(&mut self, node: usize) {
        let Some(still) = self.nodes[node].still.take() else { return };
        for (member, from, flight) in still.arrived {
            self.receive(node, member, from, flight);
        }
        self.nodes[node].due = None;
        self.pass(node);
        let late: Vec<FlowId> = self.nodes[node].running.keys().copied().collect();
        for flow in late {
            if let Some(running) = self.nodes[node].running.get_mut(&flow)
                && running.due.take().is_some()
            {
                self.wake(node, flow, self.now);
            }
        }
    }

    /// A node is gone, as a process is at SIGKILL: it says nothing more, and its addresses are free.
    pub fn crash(&mut self, node: usize) {
        self.freeze(node);
        let places: Vec<u32> = self.nodes[node].ports.values().map(|port| port.place).collect();
        for place in places {
            let port = &mut self.ports[place as usize];
            port.open = false;
            self.addresses.remove(&port.address);
        }
        if let Some(still) = &mut self.nodes[node].still {
            self.counted.astray += still.count();
            *still = Still::default();
        }
    }

    fn receive(&mut self, node: usize, member: MemberId, from: SocketAddr, flight: Flight) {
        self.counted.arrived += flight.count();
        let Flight { mut bytes, stride, .. } = flight;
        let length = bytes.len();
        let stack = &mut self.nodes[node].stack;
        if 2 * length < BUFFER {
            stack.receive(self.now, member, from, Run::new(&bytes, stride));
        } else {
            bytes.resize(BUFFER, 0);
            stack.receive_in(self.now, member, from, &mut bytes, (length, stride));
        }
        self.touched.insert(node);
    }
}

/// A port sends something.
fn send(
    ports: &mut [Port],
    addresses: &BTreeMap<SocketAddr, u32>,
    counted: &mut Counted,
    now: u64,
    from: u32,
    outgoing: &Outgoing<'_>,
) {
    let count = outgoing.count();
    counted.sent += count;
    if let Some(to) = addresses.get(&outgoing.to) {
        return ports[from as usize].link.send(now, *to, outgoing);
    }
    let mut copies = 0;
    if Station::of(outgoing.to).is_some_and(|station| station.mac == EVERYBODY) {
        // All stations are on one segment.
        let others = addresses.iter().filter(|(address, to)| Station::of(**address).is_some() && **to != from);
        for (_, to) in others {
            copies += count;
            ports[from as usize].link.send(now, *to, outgoing);
        }
    }
    counted.duplicated += copies.saturating_sub(count);
    counted.astray += if copies == 0 { count } else { 0 };
}

/// Time.
impl Network {
    /// Let time pass until `until`, or to the first instant with news. Returns the time, and the news. Whoever took an end has
    /// its name; it may be given away again.
    pub fn run(&mut self, until: u64) -> (u64, Vec<News>) {
        loop {
            self.settle();
            if !self.news.is_empty() || std::mem::take(&mut self.rang) {
                return (self.now, self.take_news());
            }
            let Some(at) = self.heap.peek().map(|Reverse((at, _))| *at).filter(|at| *at <= until) else {
                self.now = self.now.max(until);
                return (self.now, Vec::new());
            };
            self.now = self.now.max(at);
            while let Some(Reverse((_, what))) = self.heap.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
                self.heap.pop();
                self.happen(what);
            }
        }
    }

    /// When something happens next.
    pub fn next(&self) -> Option<u64> {
        if self.touched.is_empty() { self.heap.peek().map(|Reverse((at, _))| *at) } else { Some(self.now) }
    }

    fn take_news(&mut self) -> Vec<News> {
        let news = std::mem::take(&mut self.news);
        for (node, event) in &news {
            let node = &mut self.nodes[*node];
            match event {
                Event::Ended(flow, ..) => node.flows.give_back(*flow),
                Event::Closed(member, _) => node.members.give_back(*member),
                _ => {}
            }
        }
        news
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Arrival(place) => self.arrive(place as usize),
            What::Deadline(node) => {
                // It may have moved.
                let at = &mut self.nodes[node];
                if at.still.is_none() && at.due.is_some_and(|due| due <= self.now) {
                    at.due = None;
                    self.pass(node);
                }
            }
            What::Program(node, _) if self.nodes[node].still.is_some() => {}
            What::Program(node, flow) => {
                let Some(running) = self.nodes[node].running.get_mut(&flow) else { return };
                if running.due.take_if(|due| *due <= self.now).is_some() {
                    self.counted.woken += 1;
                    let next = running.run(self.now);
                    next.into_iter().for_each(|at| self.wake(node, flow, at));
                    self.touched.insert(node);
                }
            }
        }
    }

    fn arrive(&mut self, place: usize) {
        if self.ports[place].due.is_none_or(|due| due > self.now) {
            return;
        }
        self.ports[place].due = None;
        let (from, sender) = (self.ports[place].address, self.ports[place].node);
        while let Some(flight) = self.ports[place].link.due(self.now) {
            let to = &self.ports[flight.to as usize];
            if !to.open {
                self.counted.astray += flight.count();
                continue;
            }
            let (node, member) = (to.node, to.member);
            if self.severed.contains(&(sender.min(node), sender.max(node))) {
                self.counted.lost += flight.count();
                continue;
            }
            match &mut self.nodes[node].still {
                None => self.receive(node, member, from, flight),
                Some(still) => self.unread += still.keep(member, from, flight),
            }
        }
        self.look_after_link(place);
    }

    fn pass(&mut self, node: usize) {
        self.counted.woken += 1;
        let Node { stack, ports, .. } = &mut self.nodes[node];
        // All that has arrived by now was received.
        ports.keys().for_each(|port| stack.drained(self.now, *port));
        stack.timeout(self.now);
        self.touched.insert(node);
    }

    fn settle(&mut self) {
        while let Some(node) = self.touched.pop_first() {
            let Network { nodes, ports, addresses, now, counted, .. } = self;
            let at = &mut nodes[node];
            if at.still.is_some() {
                continue;
            }
            let mut send = |place, outgoing: &Outgoing<'_>| send(ports, addresses, counted, *now, place, outgoing);
            let mut through = at.settle(*now, &mut send);
            for _ in 0..PASSES {
                if at.stack.deadline().is_none_or(|at| at > *now) {
                    break;
                }
                at.stack.timeout(*now);
                through = at.settle(*now, &mut send);
            }
            let places: Vec<u32> = at.ports.values().map(|port| port.place).collect();
            places.into_iter().for_each(|place| self.look_after_link(place as usize));
            self.tell(node);
            self.plan(node, through);
        }
    }

    fn tell(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].stack.event() {
            self.news.push((node, event));
        }
        for flow in self.nodes[node].rung_programs() {
            self.rang |= self.watched.contains(&(node, flow));
            self.wake(node, flow, self.now + REACTION);
        }
    }

    /// Let a program run then.
    fn wake(&mut self, node: usize, flow: FlowId, at: u64) {
        if let Some(running) = self.nodes[node].running.get_mut(&flow)
            && running.due.is_none_or(|due| at < due)
        {
            running.due = Some(at);
            self.heap.push(Reverse((at, What::Program(node, flow))));
        }
    }

    /// Look after a node when it wants to be.
    fn plan(&mut self, node: usize, through: bool) {
        let (at, now) = (&mut self.nodes[node], self.now);
        let wanted = at.stack.deadline();
        let stuck = !through || wanted.is_some_and(|at| at <= now);
        self.counted.stuck += u64::from(stuck);
        let next = if stuck { Some(now + PAUSE) } else { wanted };
        if let Some(next) = next
            && at.due.is_none_or(|due| next < due)
        {
            at.due = Some(next);
            self.heap.push(Reverse((next, What::Deadline(node))));
        }
    }
}
