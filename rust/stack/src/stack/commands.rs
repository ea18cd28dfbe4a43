//! Commands of the control side.

use std::collections::VecDeque;

use super::{Carrier, Event, Kind, Stack, Where, has_eid, plain_where};
use crate::door::Door;
use crate::flow::{Flow, How, Setup, User};
use crate::id::{FlowId, MemberId};
use crate::link::{Impairment, Settings, seed_of};
use crate::member::{Carries, Member, Port, addressed, plain};
use crate::outlet::{Manner, Way};
use crate::ring::Ring;
use crate::run::Run;
use crate::stage::Stage;
use crate::transfer::Ecn;

impl<R: Ring> Stack<R> {
    /// A member with a port. `segments`: datagrams of one size that leave it at once. `room`: bytes of its buffer for what
    /// arrives.
    pub fn open_port(&mut self, member: MemberId, segments: usize, room: u32) {
        let port = Port {
            stage: Stage::new(segments),
            parked: VecDeque::new(),
            room,
            dropped: 0,
            mark: 0,
            drained_at: 0,
            door: None,
            foreign: false,
        };
        self.members.insert(member, Member::new(Carries::Port(Box::new(port))));
    }

    /// From now on, strangers have to prove their address, and only so many of their messages come to the control side.
    /// `secret`: random.
    pub fn guard(&mut self, member: MemberId, secret: &[u8; 32]) {
        if let Some(port) = self.port(member) {
            port.door = Some(Door::new(secret));
        }
    }

    /// Messages of management at that port have a form that only the control side knows.
    pub fn leave_management(&mut self, member: MemberId) {
        if let Some(port) = self.port(member) {
            port.foreign = true;
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

    /// A member ends, and all flows that it carries. `died`: programs see it as a death of their peers. Datagrams that
    /// are staged at its port are lost unless they were transmitted before.
    pub fn close_member(&mut self, member: MemberId, died: bool) {
        let Some(flows) = self.members.get_mut(member).map(|member| std::mem::take(&mut member.flows)) else { return };
        for id in flows.into_iter().chain(self.taps.of(member)) {
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
        let (id, eid, carrier, lot, about) = (setup.id, setup.eid, setup.carrier, setup.lot, setup.about);
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
            (Carrier::Tap { .. }, _) => Way::Tap,
        };
        let tap = match carrier {
            Carrier::Tap { snap, epoch } => Some((setup.member, snap, epoch)),
            // It is none of those that the layer carries.
            _ => None,
        };
        self.taps.add(id, about.of_user(&setup.user), tap);
        if tap.is_none() {
            member.flows.insert(id);
        }
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

    /// Keep the first packets for an endpoint id that come from a peer, or for None from any, until `add` or `unreserve`.
    pub fn reserve(&mut self, member: MemberId, eid: u64, from: Option<Where>) {
        if let Some(member) = self.members.get_mut(member) {
            member.reserve(eid, from.map(plain_where));
        }
    }

    /// Forget the packets that `reserve` kept. No error when there is nothing.
    pub fn unreserve(&mut self, member: MemberId, eid: u64) {
        if let Some(member) = self.members.get_mut(member) {
            member.counters.unknown += member.unreserve(eid).len() as u64;
        }
    }

    /// The peer of a flow deallocated, or `died`: its user gets the packets that arrived, then the end. No error when there is
    /// no such flow.
    pub fn peer_gone(&mut self, member: MemberId, eid: u64, died: bool) {
        let flow = self.members.get(member).and_then(|member| member.by_eid.get(&eid)).copied();
        if let Some(id) = flow {
            self.using(id, |flow, _| flow.end_by_peer(died));
            self.queue(id);
        }
    }

    /// The device below a port is on or off, and it carries frames or does not. Programs see the Down flag as long as it is
    /// off; to all other users, peers are silent as long as it carries nothing.
    pub fn note_device(&mut self, now: u64, port: MemberId, on: bool, carries: bool) {
        for id in self.members.get(port).map(|member| member.flows.clone()).unwrap_or_default() {
            self.using(id, |flow, stack| flow.note_device(now, on, carries, stack));
            self.queue(id);
        }
    }

    /// The user of a flow, which is no program, lets go: its packets are still delivered.
    pub fn end(&mut self, now: u64, flow: FlowId) {
        self.using(flow, |flow, _| flow.end_by_user(now));
        self.queue(flow);
    }

    /// The program of a flow died, which its ring need not show. Packets that it wrote before still arrive.
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

    /// Send a management datagram, behind the packets that were sent before.
    pub fn say(&mut self, now: u64, member: MemberId, to: Where, data: &[u8]) {
        self.taps.now = now;
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

    pub(super) fn say_below(&mut self, now: u64, member: MemberId, lower: FlowId, data: &[u8]) {
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

    /// A flow that is taken out is over, and its user was told.
    pub(super) fn bury(&mut self, mut flow: Flow<R>, how: How) {
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
        self.taps.remove(id);
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

fn set_link(link: &mut Option<Impairment>, settings: Settings, seed: u64) {
    match link {
        Some(link) => link.set(settings),
        None => *link = Some(Impairment::new(settings, seed)),
    }
}
