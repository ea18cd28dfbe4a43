//! All flows and members of one node, and the order in which they get their turns.
//!
//! Invariants:
//!
//! * At most one packet is being written (`outlet::Frame`); until it is closed or discarded, only its bytes are appended.
//! * `receive`, `serve`, `timeout` and the commands never call one another. Whatever a packet causes elsewhere is queued, or
//!   gives a flow a turn. A flow that something is done with is taken out of the arena, so nothing finds it half-made.
//! * A packet for the other end of a loop is queued there. So the depth of calls is that of the layers, `DEPTH` at most.
//! * A packet is sealed when it leaves its queue, so the numbers of the sealing leave in order.
//! * Each flow is in one place: idle, in the queue for a turn, or parked at what it waits for, which then wakes it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ouroboros_wire::management::{Datagram, EID, Kind as Message, LONGEST, Report};
use ouroboros_wire::pci::PCI;
use ouroboros_wire::update::Word;

use crate::DEPTH;
use crate::balance::Balance;
use crate::counters::{MemberCounted, Snapshot};
use crate::door::{Door, Verdict};
use crate::flow::{Flow, How, Place, Setup, Turn, User};
use crate::id::{FlowId, MemberId, Slots};
use crate::link::{Counters, Impairment, Settings, seed_of};
use crate::member::{Carries, Member, Port, addressed, plain, unaddressed};
use crate::memory::Accounts;
use crate::outlet::{Blocker, Manner, Outlet, Way};
use crate::ring::Ring;
use crate::run::Run;
use crate::stage::{Outgoing, Stage};
use crate::timers::Timers;
use crate::transfer::Ecn;

/// Where a peer of a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// At an address of IP.
    Address(SocketAddr),
    /// At the other end of a flow below.
    Flow(FlowId),
}

/// What carries a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// The port of the member, to an address.
    Port(SocketAddr),
    /// A flow of a layer below, to the member at its other end.
    Transfer(FlowId),
    /// The lower flow that leads towards the member of the layer with that address, in a cube.
    Unicast(u32, u8),
    /// Nothing: the other end is in this stack.
    Loop(FlowId),
    /// The other flows of the member.
    Broadcast,
}

/// What carries the flows of a member that has no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Flows of layers below.
    Transfer,
    /// Nothing: both ends of each flow are in this stack.
    Local,
    /// Nothing: what one flow sends, all others get.
    Broadcast,
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
    /// The peer of a flow that no program uses is silent for longer than its timeout, or (true) is back. That of any flow with
    /// a grace was heard for the first time (true).
    State(FlowId, bool),
    /// A flow ended; its name is free. The ring of its program is to be dropped where that may take time.
    Ended(FlowId, How, Box<crate::Counted>, Option<R>),
    /// A member ended, after all its flows; its name is free.
    Closed(MemberId, Box<MemberCounted>),
}

/// What gets turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Flow(FlowId),
    /// What others send through a member of a unicast layer, to the neighbour at that place.
    Transit(MemberId, usize),
    /// What such a member itself has to say.
    Words(MemberId),
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
    /// For a member that is gone.
    nowhere: Counters,
    /// What became of the packets of members that ended.
    pub(crate) past: Balance,
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
            nowhere: Counters::default(),
            past: Balance::default(),
            changed: None,
        }
    }
}

/// Commands of the control side.
impl<R: Ring> Stack<R> {
    /// A member with a port. `segments`: datagrams of one size that leave it at once. `room`: bytes of its buffer for what
    /// arrives.
    pub fn open_port(&mut self, member: MemberId, segments: usize, room: u32) {
        let port = Port { stage: Stage::new(segments), parked: VecDeque::new(), room, drained_at: 0, door: None };
        self.members.insert(member, Member::new(Carries::Port(Box::new(port))));
    }

    /// From now on, strangers have to prove their address, and only so much of what they say comes to the control side.
    /// `secret`: random.
    pub fn guard(&mut self, member: MemberId, secret: &[u8; 32]) {
        if let Some(port) = self.port(member) {
            port.door = Some(Door::new(secret));
        }
    }

    /// A member without one.
    pub fn open_member(&mut self, member: MemberId, kind: Kind) {
        let carries = match kind {
            Kind::Transfer => Carries::Transfer,
            Kind::Local => Carries::Local,
            Kind::Broadcast => Carries::Broadcast,
        };
        self.members.insert(member, Member::new(carries));
    }

    /// All members.
    pub fn members(&self) -> Vec<MemberId> {
        self.members.entries().map(|(name, _)| name.into()).collect()
    }

    /// A member ends, and all flows that it carries. `died`: programs see it as a death of their peers. What its port has
    /// staged is lost if it was not transmitted before.
    pub fn close_member(&mut self, member: MemberId, died: bool) {
        let Some(flows) = self.members.get_mut(member).map(|member| std::mem::take(&mut member.flows)) else { return };
        for id in flows {
            if let Some(mut flow) = self.flows.take(id) {
                flow.abort(died);
                self.bury(*flow, How::Gone);
            }
        }
        let counted = self.members.take(member).map(|mut ended| {
            ended.lose_all();
            ended.balance(&mut self.past);
            ended.counted()
        });
        self.tell(Event::Closed(member, Box::new(counted.unwrap_or_default())));
    }

    /// Carry a flow. False: its member is not there.
    pub fn add(&mut self, now: u64, setup: Setup<R>) -> bool {
        let (id, eid, carrier, lot) = (setup.id, setup.eid, setup.carrier, setup.lot);
        let Some(member) = self.members.get_mut(setup.member) else { return false };
        let unicast = matches!(member.carries, Carries::Unicast(_));
        let way = match (carrier, member.stage()) {
            (Carrier::Port(address), Some(stage)) => Way::Port(stage.know(address), plain(address)),
            (Carrier::Port(_), None) => return false,
            (Carrier::Transfer(lower), _) => Way::Transfer(lower),
            (Carrier::Unicast(address, cube), _) if unicast => Way::Unicast(address, cube),
            (Carrier::Unicast(..), _) => return false,
            (Carrier::Loop(other), _) => Way::Loop(other),
            (Carrier::Broadcast, _) => Way::Broadcast,
        };
        member.flows.insert(id);
        let mut kept = Vec::new();
        if has_eid(way) {
            member.by_eid.insert(eid, id);
            kept = member.unreserve(eid);
        }
        let impaired = member.impaired;
        let cares = matches!(&member.carries, Carries::Unicast(transfer) if transfer.settings().ecn);
        let mut flow = Box::new(Flow::new(setup, way, now));
        self.accounts.open(&flow.accounts);
        if cares && matches!(way, Way::Unicast(..)) {
            flow.outlet.ecn = Some(Box::new(Ecn::new(now)));
        }
        if matches!(way, Way::Port(..) | Way::Loop(_)) {
            flow.outlet.link = impaired.map(|(settings, seed)| Impairment::new(settings, seed_of(seed, lot.0, lot.1)));
        }
        self.flows.insert(id, flow);
        self.using(id, |flow, stack| {
            let header = flow.outlet.header();
            kept.iter().for_each(|datagram| flow.receive(now, Run::of(datagram, header), stack, 0));
        });
        self.queue(id);
        if let Carrier::Loop(other) = carrier {
            // It may have had nobody to send to.
            self.queue(other);
        }
        true
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

    /// Keep the first packets for an endpoint id that come from a peer, or for None from any, until `add` or `unreserve`.
    pub fn reserve(&mut self, member: MemberId, eid: u64, from: Option<Where>) {
        if let Some(member) = self.members.get_mut(member) {
            member.reserve(eid, from.map(plain_where));
        }
    }

    /// Forget what `reserve` kept. No error when there is nothing.
    pub fn unreserve(&mut self, member: MemberId, eid: u64) {
        if let Some(member) = self.members.get_mut(member) {
            member.counters.unknown += member.unreserve(eid).len() as u64;
        }
    }

    /// The peer of a flow deallocated, or `died`: its user gets what has arrived, then the end. No error when there is none.
    pub fn peer_gone(&mut self, member: MemberId, eid: u64, died: bool) {
        let flow = self.members.get(member).and_then(|member| member.by_eid.get(&eid)).copied();
        if let Some(id) = flow {
            self.using(id, |flow, _| flow.end_by_peer(died));
            self.queue(id);
        }
    }

    /// The user of a flow, which is no program, lets go: what it sent is still delivered.
    pub fn end(&mut self, now: u64, flow: FlowId) {
        self.using(flow, |flow, _| flow.end_by_user(now));
        self.queue(flow);
    }

    /// The program of a flow died, which its ring need not show. What it wrote before still arrives.
    pub fn doom(&mut self, flow: FlowId) {
        self.using(flow, |flow, _| flow.doom());
        self.queue(flow);
    }

    /// A flow is over at once. No error when it is not there.
    pub fn drop_flow(&mut self, flow: FlowId) {
        if let Some(mut flow) = self.flows.take(flow) {
            flow.abort(false);
            self.bury(*flow, How::Closed);
        }
    }

    /// Another user has the flow from now on.
    pub fn hand(&mut self, now: u64, flow: FlowId, user: User<R>) {
        self.using(flow, |flow, stack| flow.hand(now, user, stack));
        self.queue(flow);
    }

    /// Send a management datagram, behind what was sent before.
    pub fn say(&mut self, now: u64, member: MemberId, to: Where, data: &[u8]) {
        let Some(said) = self.members.get_mut(member) else { return };
        said.counters.said += 1;
        let address = match to {
            Where::Address(address) => address,
            Where::Flow(lower) => return self.say_below(now, member, lower, data),
        };
        match &mut said.link {
            None => self.stage_datagram(member, address, data),
            Some(link) => {
                link.offer(now, addressed(address, data), &mut said.shaken);
                self.pass_on(now, member);
            }
        }
    }

    fn say_below(&mut self, now: u64, member: MemberId, lower: FlowId, data: &[u8]) {
        let said = self.with(lower, |below, stack| {
            let frame = below.open_below(now, stack, Manner::Control)?;
            stack.bytes(&frame).extend_from_slice(data);
            below.close_below(now, frame, stack);
            stack.note_changed(below);
            Ok(())
        });
        if said.is_err() {
            // Nobody here can wait: lost, as anywhere on the way.
            self.count_crowded(member);
        }
    }

    /// Let this happen to all that a member sends from now on. Members over flows have no link of their own.
    pub fn impair(&mut self, member: MemberId, settings: Settings, seed: u64) {
        let Some(impaired) = self.members.get_mut(member) else { return };
        impaired.impaired = Some((settings, seed));
        if matches!(impaired.carries, Carries::Port(_)) {
            set_link(&mut impaired.link, settings, seed_of(seed, 0, 0));
        }
        for id in impaired.flows.clone() {
            if let Some(flow) = self.flow(id)
                && matches!(flow.outlet.way, Way::Port(..) | Way::Loop(_))
            {
                let (key, direction) = flow.outlet.lot;
                set_link(&mut flow.outlet.link, settings, seed_of(seed, key, direction));
            }
        }
    }

    /// What a member and its flows have counted.
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

    /// The next thing that happened.
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
}

/// Ports.
impl<R: Ring> Stack<R> {
    /// Datagrams came in.
    pub fn receive(&mut self, now: u64, port: MemberId, from: SocketAddr, run: Run<'_>) {
        if run.count() == 0
            && let Some(member) = self.members.get_mut(port)
        {
            // An empty datagram.
            member.counters.received += 1;
            member.counters.short += 1;
        }
        self.dispatch(now, port, Where::Address(plain(from)), run, 0);
    }

    /// There was nothing more to receive.
    pub fn drained(&mut self, now: u64, port: MemberId) {
        if let Some(port) = self.port(port) {
            port.drained_at = now;
        }
    }

    /// What is to leave a port next; None: nothing, or it takes nothing now. The answer is `sent`, `part` or `blocked`.
    pub fn transmit(&mut self, port: MemberId) -> Option<Outgoing<'_>> {
        self.members.get_mut(port)?.stage()?.transmit()
    }

    /// What `transmit` returned has left, or (false) will never.
    pub fn sent(&mut self, port: MemberId, left: bool) {
        if let Some(member) = self.members.get_mut(port) {
            let count = member.stage().and_then(|stage| stage.transmit()).map_or(0, |outgoing| outgoing.count());
            member.counters.calls += 1;
            member.counters.errors += u64::from(!left);
            *if left { &mut member.counters.sent } else { &mut member.counters.unsent } += count;
            if let Some(stage) = member.stage() {
                stage.sent();
            }
        }
        self.unpark(port);
    }

    /// The port does not take what `transmit` returned as it is: datagram by datagram, then. `segments`: what it takes at once
    /// from now on.
    pub fn part(&mut self, port: MemberId, segments: usize) {
        if let Some(member) = self.members.get_mut(port) {
            member.counters.calls += 1;
            if let Some(stage) = member.stage() {
                stage.part(segments);
            }
        }
    }

    /// The port takes nothing now.
    pub fn blocked(&mut self, port: MemberId) {
        if let Some(member) = self.members.get_mut(port) {
            member.counters.calls += 1;
            if let Some(stage) = member.stage() {
                stage.blocked();
            }
        }
    }

    /// It may take something again.
    pub fn unblocked(&mut self, port: MemberId) {
        if let Some(stage) = self.stage(port) {
            stage.unblocked();
        }
        self.unpark(port);
    }

    /// Whether writers that can wait have to, until something has left the port.
    pub fn is_full(&mut self, port: MemberId) -> bool {
        self.stage(port).is_some_and(|stage| !stage.has_room())
    }

    fn unpark(&mut self, port: MemberId) {
        let Some(port) = self.port(port) else { return };
        if port.parked.is_empty() || !port.stage.has_room() {
            return;
        }
        let parked = std::mem::take(&mut port.parked);
        parked.into_iter().for_each(|source| self.wake(source));
    }

    pub(crate) fn port(&mut self, port: MemberId) -> Option<&mut Port> {
        self.members.get_mut(port)?.port()
    }

    pub(crate) fn stage(&mut self, port: MemberId) -> Option<&mut Stage> {
        self.members.get_mut(port)?.stage()
    }

    /// Whether everything was received that arrived at the port below a flow by a time.
    pub(crate) fn is_drained(&mut self, outlet: &Outlet, at: u64) -> bool {
        match outlet.way {
            Way::Port(..) => self.port(outlet.member).is_none_or(|port| port.drained_at >= at),
            Way::Transfer(lower) => {
                self.with(lower, |below, stack| Ok(stack.is_drained(&below.outlet, at))).unwrap_or(true)
            }
            Way::Unicast(..) => {
                let lower = self.transfer(outlet.member).map(|transfer| transfer.lower()).unwrap_or_default();
                lower.into_iter().all(|lower| {
                    self.with(lower, |below, stack| Ok(stack.is_drained(&below.outlet, at))).unwrap_or(true)
                })
            }
            Way::Loop(_) | Way::Broadcast => true,
        }
    }

    fn stage_datagram(&mut self, port: MemberId, to: SocketAddr, datagram: &[u8]) {
        let Some(stage) = self.stage(port) else { return };
        if stage.is_crowded() {
            // Nobody here can wait: lost, as anywhere on the way.
            return self.count_crowded(port);
        }
        let peer = stage.know(to);
        stage.begin(peer).extend_from_slice(datagram);
        stage.commit(0);
        stage.forget(peer);
    }

    /// Send the management datagrams that a bad link lets through by now.
    fn pass_on(&mut self, now: u64, port: MemberId) {
        while let Some(packet) =
            self.members.get_mut(port).and_then(|member| member.link.as_mut()).and_then(|link| link.due(now))
        {
            if let Some((address, datagram)) = unaddressed(&packet) {
                self.stage_datagram(port, address, datagram);
            }
        }
    }

    pub(crate) fn count_crowded(&mut self, member: MemberId) {
        if let Some(member) = self.members.get_mut(member) {
            member.counters.crowded += 1;
        }
    }

    /// What the links of a member did.
    pub(crate) fn shaken(&mut self, member: MemberId) -> &mut Counters {
        match self.members.get_mut(member) {
            Some(member) => &mut member.shaken,
            None => &mut self.nowhere,
        }
    }
}

/// What comes from below.
impl<R: Ring> Stack<R> {
    /// Take a run of packets of a member apart. `depth`: levels below. False: the member is gone.
    pub(crate) fn dispatch(&mut self, now: u64, member: MemberId, from: Where, run: Run<'_>, depth: usize) -> bool {
        let Some(at) = self.members.get_mut(member) else { return false };
        at.counters.received += run.count();
        if depth > DEPTH {
            at.counters.unknown += run.count();
            return true;
        }
        if let (Carries::Unicast(_), Where::Flow(lower)) = (&at.carries, from) {
            self.receive_pdus(now, member, lower, run, depth);
            return true;
        }
        let mut rest = run;
        while let Some((eid, packets, others)) = rest.split::<EID>() {
            match u32::from_be_bytes(eid) {
                0 => packets.unread(EID).packets().for_each(|packet| self.manage(now, member, packet, from)),
                eid => self.hand_to_flow(now, member, eid.into(), from, packets, (0, depth)),
            }
            rest = others;
        }
        if rest.count() > 0
            && let Some(member) = self.members.get_mut(member)
        {
            member.counters.short += rest.count();
        }
        true
    }

    /// Packets for one flow. `mark`: how full the queues on their way were.
    pub(crate) fn hand_to_flow(
        &mut self,
        now: u64,
        member: MemberId,
        eid: u64,
        from: Where,
        run: Run<'_>,
        (mark, depth): (u8, usize),
    ) {
        let Some(at) = self.members.get_mut(member) else { return };
        let Some(id) = at.by_eid.get(&eid).copied() else {
            let header = if let Carries::Unicast(_) = at.carries { PCI } else { EID };
            return at.keep(eid, from, run.count(), run.unread(header).packets());
        };
        let Some(mut flow) = self.flows.take(id) else {
            // It is below itself, which control does not allow.
            at.counters.unknown += run.count();
            return;
        };
        if flow.outlet.comes_from(from) {
            flow.receive(now, run, self, depth);
            if let Where::Address(address) = from {
                self.report(now, &mut flow, address);
            }
            self.note_marks(member, &mut flow.outlet, mark, run.count());
            self.ready_taken(id, &mut flow.place);
        } else if let Some(at) = self.members.get_mut(member) {
            at.counters.wrong_source += run.count();
        }
        self.flows.put(id, flow);
    }

    fn manage(&mut self, now: u64, member: MemberId, datagram: &[u8], from: Where) {
        let Some(at) = self.members.get_mut(member) else { return };
        match Datagram::new(datagram).map(Datagram::report) {
            None => at.counters.short += 1,
            Some(Some(report)) => self.take_report(now, member, report, from),
            Some(None) if datagram.len() > LONGEST => at.counters.refused += 1,
            Some(None) => self.let_in(now, member, datagram, from),
        }
    }

    /// A management datagram is for the control side.
    fn let_in(&mut self, now: u64, member: MemberId, datagram: &[u8], from: Where) {
        let verdict = self.at_door(now, member, datagram, from);
        let Some(at) = self.members.get_mut(member) else { return };
        match verdict {
            Verdict::Pass => {
                at.counters.management += 1;
                self.tell(Event::Datagram(member, from, datagram.to_vec()));
            }
            Verdict::Drop => at.counters.refused += 1,
            Verdict::Answer(answer) => {
                at.counters.challenged += 1;
                self.say(now, member, from, &answer);
            }
        }
    }

    /// What becomes of it.
    fn at_door(&mut self, now: u64, member: MemberId, datagram: &[u8], from: Where) -> Verdict {
        let (Where::Address(address), Some(kind)) = (from, Datagram::new(datagram).map(Datagram::kind)) else {
            return Verdict::Pass;
        };
        let expected = match kind {
            Message::Answer(eid) => self.members.get(member).is_some_and(|at| at.expects(eid.into(), from)),
            Message::End(eid) => self.is_peer(member, eid.into(), from),
            Message::Request { .. } | Message::Other => false,
        };
        let door = self.port(member).and_then(|port| port.door.as_mut());
        door.map_or(Verdict::Pass, |door| door.judge(now, address, kind, datagram, expected))
    }

    /// Whether the flow with that endpoint id has its peer there, or will have it.
    fn is_peer(&self, member: MemberId, eid: u64, from: Where) -> bool {
        let Some(at) = self.members.get(member) else { return false };
        let flow = at.by_eid.get(&eid).and_then(|id| self.flows.get(*id));
        flow.is_some_and(|flow| flow.outlet.comes_from(from)) || at.expects(eid, from)
    }

    pub(crate) fn take_report(&mut self, now: u64, member: MemberId, report: Report, from: Where) {
        let Some(at) = self.members.get_mut(member) else { return };
        let Some(id) = at.by_eid.get(&report.destination).copied() else {
            at.counters.unknown += 1;
            return;
        };
        let Some(mut flow) = self.flows.take(id) else {
            at.counters.unknown += 1;
            return;
        };
        if flow.outlet.peer_eid == report.source && flow.outlet.comes_from(from) {
            at.counters.management += 1;
            flow.credit(now, report, self);
            self.ready_taken(id, &mut flow.place);
        } else {
            at.counters.wrong_source += 1;
        }
        self.flows.put(id, flow);
    }

    /// Tell the sender of a raw flow what came, when it is time to.
    fn report(&mut self, now: u64, flow: &mut Flow<R>, to: SocketAddr) {
        let member = flow.outlet.member;
        let Some(room) = self.port(member).map(|port| port.room) else { return };
        let Some(report) = flow.report(room) else { return };
        let Some(at) = self.members.get_mut(member) else { return };
        let Way::Port(peer, _) = flow.outlet.way else { return };
        if at.link.is_some() {
            return self.say(now, member, Where::Address(to), &report.encode());
        }
        at.counters.said += 1;
        let Some(stage) = at.stage() else { return };
        stage.begin(peer).extend_from_slice(&report.encode());
        if !stage.commit_urgent() {
            self.count_crowded(member);
        }
    }

    /// As `report`, for any flow.
    fn report_anywhere(&mut self, now: u64, flow: &mut Flow<R>) {
        match flow.outlet.way {
            Way::Port(_, address) => self.report(now, flow, address),
            Way::Transfer(lower) => {
                let room = self.room_below(lower);
                if let Some(report) = flow.report(room) {
                    self.say_below(now, flow.outlet.member, lower, &report.encode());
                }
            }
            Way::Unicast(destination, _) => {
                if let Some(report) = flow.report(LOOP_ROOM) {
                    self.say_word(flow.outlet.member, destination, Word::Report(report));
                }
            }
            Way::Loop(_) | Way::Broadcast => {}
        }
    }

    /// Bytes of the kernel's buffer at the port below a flow.
    fn room_below(&mut self, flow: FlowId) -> u32 {
        let Some(outlet) = self.flow(flow).map(|flow| (flow.outlet.way, flow.outlet.member)) else { return 0 };
        match outlet {
            (Way::Port(..), member) => self.port(member).map_or(0, |port| port.room),
            (Way::Transfer(lower), _) => self.room_below(lower),
            (Way::Unicast(..) | Way::Loop(_) | Way::Broadcast, _) => LOOP_ROOM,
        }
    }

    /// The other end of a loop sent something. False: this end is gone.
    pub(crate) fn bring(&mut self, to: FlowId, packet: Vec<u8>) -> bool {
        let Some(flow) = self.flow(to) else { return false };
        flow.bring(packet);
        self.queue(to);
        true
    }

    /// A flow of a broadcast member sent what is in `frame`: all others get it.
    pub(crate) fn spread(&mut self, now: u64, member: MemberId) {
        let Some(at) = self.members.get_mut(member) else { return };
        let (flows, frame) = (std::mem::take(&mut at.flows), std::mem::take(&mut self.frame));
        let (mut lost, mut got) = (0, 0);
        for id in &flows {
            // The sender itself is not there.
            if let Some(mut flow) = self.flows.take(*id) {
                let before = flow.overrun();
                flow.receive(now, Run::of(&frame, 0), self, 0);
                lost += flow.overrun() - before;
                got += 1;
                self.note_changed(&mut flow);
                self.flows.put(*id, flow);
            }
        }
        self.frame = frame;
        if let Some(member) = self.members.get_mut(member) {
            member.flows = flows;
            member.shaken.lost += lost;
            member.slow += lost;
            member.copies += u64::max(got, 1) - 1;
            member.unheard += u64::from(got == 0);
        }
    }
}

/// Nanoseconds until a flow that is blocked looks at its deadlines again.
const PAUSE: u64 = 50_000_000;
/// As much as a port commonly has.
const LOOP_ROOM: u32 = 4 << 20;

/// Turns.
impl<R: Ring> Stack<R> {
    /// The program of a flow wrote, read, changed its flags or let go.
    pub fn rang(&mut self, flow: FlowId) {
        self.queue(flow);
    }

    /// Whether `serve` has something to do.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Packets of others that were passed on as they came, since `forget_transit`.
    pub fn transit(&self) -> u64 {
        self.transit
    }

    /// See `transit`.
    pub fn forget_transit(&mut self) {
        self.transit = 0;
    }

    /// How many turns are due.
    pub fn turns(&self) -> usize {
        self.ready.len()
    }

    /// Give whatever waits longest its turn. After it ports may be full.
    pub fn serve(&mut self, now: u64) {
        match self.ready.pop_front() {
            Some(Source::Flow(id)) => self.serve_flow(now, id),
            Some(Source::Transit(member, place)) => self.serve_transit(now, member, place),
            Some(Source::Words(member)) => self.serve_words(now, member),
            None => {}
        }
    }

    fn serve_flow(&mut self, now: u64, id: FlowId) {
        let Some(mut flow) = self.flows.take(id) else { return };
        flow.place = Place::Idle;
        let turn = flow.turn(now, self);
        if let Turn::Over(how) = turn {
            return self.bury(*flow, how);
        }
        flow.settle(self);
        self.note_changed(&mut flow);
        // The program may have read what it was waited for.
        self.report_anywhere(now, &mut flow);
        // What is due to be sent may wait for a turn, or find no way before the flow is woken: no reason to look all the time.
        let sends_at = if turn == Turn::Idle { 0 } else { now + PAUSE };
        if !flow.waiters.is_empty() && flow.can_take(now) {
            std::mem::take(&mut flow.waiters).into_iter().for_each(|waiter| self.wake(waiter));
        }
        // After that, because those who wait in vain may depend on it.
        self.timers.set(id, flow.deadline(sends_at));
        match turn {
            Turn::Again => self.ready_taken(id, &mut flow.place),
            Turn::Blocked(blocker) => self.park(now, &mut flow, blocker),
            Turn::Idle | Turn::Over(_) => {}
        }
        self.flows.put(id, flow);
    }

    /// When `timeout` is to be called.
    pub fn deadline(&self) -> Option<u64> {
        let links = self.members.values().filter_map(|member| member.link.as_ref()?.next_deadline());
        links.chain(self.timers.next()).min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: u64) {
        for member in self.due_links(now) {
            self.pass_on(now, member);
        }
        while let Some(id) = self.timers.due(now) {
            self.using(id, |flow, stack| {
                if flow.deadline(0).is_some_and(|deadline| deadline <= now) {
                    flow.pass(now, stack);
                }
            });
            self.queue(id);
        }
    }

    fn due_links(&self, now: u64) -> Vec<MemberId> {
        let due =
            |member: &Member| member.link.as_ref().and_then(Impairment::next_deadline).is_some_and(|at| at <= now);
        self.members.entries().filter(|(_, member)| due(member)).map(|(name, _)| name.into()).collect()
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

    /// Give a flow a turn.
    fn queue(&mut self, id: FlowId) {
        if let Some(flow) = self.flows.get_mut(id)
            && flow.place != Place::Ready
        {
            flow.place = Place::Ready;
            self.ready.push_back(Source::Flow(id));
        }
    }

    /// As `queue`, for a flow that is taken out.
    pub(crate) fn ready_taken(&mut self, id: FlowId, place: &mut Place) {
        self.make_ready(Source::Flow(id), place);
    }

    pub(crate) fn make_ready(&mut self, source: Source, place: &mut Place) {
        if *place != Place::Ready {
            *place = Place::Ready;
            self.ready.push_back(source);
        }
    }

    /// Let a flow that is taken out wait for something.
    fn park(&mut self, now: u64, flow: &mut Flow<R>, blocker: Blocker) {
        let (mut place, mut listed) = (flow.place, flow.listed);
        self.park_source(now, Source::Flow(flow.id), &mut place, &mut listed, blocker);
        (flow.place, flow.listed) = (place, listed);
    }

    /// Let whatever has turns wait for something. `listed`: the list in which it stands already, perhaps.
    pub(crate) fn park_source(
        &mut self,
        now: u64,
        source: Source,
        place: &mut Place,
        listed: &mut Option<Blocker>,
        blocker: Blocker,
    ) {
        if *listed != Some(blocker)
            && let Blocker::Flow(lower) = blocker
            && let Some(deadline) = self.flow(lower).map(|lower| lower.deadline(now + 1))
        {
            // Its own turn was before this flow used its credit up, and perhaps no report comes.
            self.timers.set(lower, deadline);
        }
        if let (Blocker::Until(at), Source::Flow(id)) = (blocker, source) {
            return self.timers.set(id, Some(at));
        }
        let Some(list) = self.list_of(blocker) else { return };
        *place = Place::Parked(blocker);
        if *listed != Some(blocker) {
            *listed = Some(blocker);
            list.push_back(source);
        }
    }

    /// What waits for something.
    pub(crate) fn list_of(&mut self, blocker: Blocker) -> Option<&mut VecDeque<Source>> {
        match blocker {
            Blocker::Port(port) => self.port(port).map(|port| &mut port.parked),
            Blocker::Flow(lower) => self.flow(lower).map(|lower| &mut lower.waiters),
            Blocker::Route(member) => self.transfer(member).map(|transfer| &mut transfer.lost),
            Blocker::Busy | Blocker::Down | Blocker::Until(_) => None,
        }
    }

    /// Give a flow a turn then.
    pub(crate) fn look_after(&mut self, id: FlowId, at: u64) {
        self.timers.set(id, Some(at));
    }

    /// What something was listed for is there.
    pub(crate) fn wake(&mut self, source: Source) {
        let id = match source {
            Source::Flow(id) => id,
            Source::Transit(member, place) => return self.wake_transit(member, place),
            // They wait for nothing.
            Source::Words(_) => return,
        };
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.listed = None;
        if matches!(flow.place, Place::Parked(_)) {
            self.queue(id);
        }
    }

    /// A flow that is taken out is over, and its user was told.
    fn bury(&mut self, mut flow: Flow<R>, how: How) {
        let (id, outlet) = (flow.id, &flow.outlet);
        if let Some(member) = self.members.get_mut(outlet.member) {
            member.flows.remove(&id);
            if has_eid(outlet.way) {
                member.by_eid.remove(&outlet.eid);
            }
            if let (Way::Port(peer, _), Some(stage)) = (outlet.way, member.stage()) {
                stage.forget(peer);
            }
        }
        if let User::Transfer(member) = flow.user {
            self.change_ways(member, |transfer| transfer.drop_lower(id));
        }
        self.timers.remove(id);
        self.accounts.close(&flow.accounts, flow.memory);
        if let Way::Loop(other) = outlet.way {
            self.using(other, |other, _| other.end_by_peer(how != How::Closed));
            self.queue(other);
        }
        std::mem::take(&mut flow.waiters).into_iter().for_each(|waiter| self.wake(waiter));
        flow.abandon(self);
        let counted = Box::new(flow.counted());
        let ring = match flow.user {
            User::Program(ring) => Some(ring),
            _ => None,
        };
        self.tell(Event::Ended(id, how, counted, ring));
    }
}

/// Whether packets to us carry an endpoint id.
fn has_eid(way: Way) -> bool {
    matches!(way, Way::Port(..) | Way::Transfer(_) | Way::Unicast(..))
}

fn set_link(link: &mut Option<Impairment>, settings: Settings, seed: u64) {
    match link {
        Some(link) => link.set(settings),
        None => *link = Some(Impairment::new(settings, seed)),
    }
}

fn plain_where(at: Where) -> Where {
    match at {
        Where::Address(address) => Where::Address(plain(address)),
        Where::Flow(_) => at,
    }
}
