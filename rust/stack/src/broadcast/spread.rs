//! Packets of a broadcast member: to the programs here, to its neighbours, and from those.

use ouroboros_wire::relay::{Kind, Relay};

use super::{BORDER_PAUSE, Hold, Hub, Link, MOST_FOREIGN, Taken};
use crate::flow::Place;
use crate::id::{FlowId, MemberId};
use crate::member::Carries;
use crate::outlet::{Blocker, Manner};
use crate::ring::Ring;
use crate::run::Run;
use crate::stack::{Event, Source, Stack};

/// Packets that wait for a neighbour and may leave before others have their turn.
const TURN: usize = 64;

impl Hub {
    pub(super) fn adopt(&mut self, flow: FlowId, most: usize, ours: bool) {
        self.links.retain(|link| link.flow != flow);
        let (waiting, place) = (Default::default(), Place::Idle);
        self.links.push(Link { flow, most, ours, waiting, bytes: 0, place, listed: None });
    }

    /// Nothing leads there any more. Whether that changes what others have to know.
    fn drop_link(&mut self, flow: FlowId) -> bool {
        let before = self.foreign();
        let gone = self.links.iter().position(|link| link.flow == flow).map(|at| self.links.remove(at));
        self.counters.queue_full += gone.map_or(0, |gone| gone.waiting.len() as u64);
        self.foreign() != before
    }
}

/// Commands of the control side.
impl<R: Ring> Stack<R> {
    pub(crate) fn hub(&mut self, member: MemberId) -> Option<&mut Hub> {
        match &mut self.members.get_mut(member)?.carries {
            Carries::Broadcast(hub) => Some(hub),
            _ => None,
        }
    }

    /// A lower flow leads to a neighbour. False: the member is none of a broadcast layer.
    pub(crate) fn adopt_neighbour(
        &mut self,
        now: u64,
        member: MemberId,
        flow: FlowId,
        most: usize,
        ours: bool,
    ) -> bool {
        let Some(hub) = self.hub(member) else { return false };
        hub.adopt(flow, most, ours);
        if ours {
            // What others have said of theirs, in their words.
            let said: Vec<_> = hub.borders.iter().map(|border| border.said).collect();
            said.into_iter().for_each(|said| self.pass(now, member, flow, said, &[]));
        }
        self.ready.push_back(Source::Border(member));
        self.wake_writers(member);
        true
    }

    /// See `Stack::resize`.
    pub(crate) fn resize_neighbour(&mut self, member: MemberId, flow: FlowId, most: usize) {
        if let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) {
            link.most = most;
        }
    }

    /// Nothing leads there any more. No error when nothing did.
    pub(crate) fn drop_neighbour(&mut self, member: MemberId, flow: FlowId) {
        if self.hub(member).is_some_and(|hub| hub.drop_link(flow)) {
            self.ready.push_back(Source::Border(member));
        }
        self.wake_writers(member);
    }

    /// Tell all members of ours how many neighbours of the prototype there are here.
    pub(crate) fn say_border(&mut self, now: u64, member: MemberId) {
        let Some(hub) = self.hub(member) else { return };
        (hub.said_at, hub.pause) = (now, BORDER_PAUSE);
        let said = hub.enter(Kind::Border);
        self.pass_to_all(now, member, None, said, &[]);
    }
}

/// Packets.
impl<R: Ring> Stack<R> {
    /// What holds up a program of a broadcast member: a port of this node that is full. Or, where no other program is that would
    /// be slowed, all neighbours that answer have to catch up: so the quickest sets the pace. What others do not take in time is
    /// lost.
    pub(crate) fn spread_blocker(&mut self, now: u64, member: MemberId) -> Option<Blocker> {
        let links = &self.hub(member)?.links;
        if links.iter().all(|link| link.hold() == Hold::Nothing) {
            return None;
        }
        let holds: Vec<_> = links.iter().map(|link| (link.flow, link.hold())).collect();
        for (_, hold) in &holds {
            if let Hold::Port(port) = hold {
                return Some(Blocker::Port(*port));
            }
        }
        let alone = self.members.get_mut(member).is_some_and(|at| at.flows.len() == 1);
        let answers = |lower: &FlowId| self.flows.get(*lower).is_some_and(|lower| lower.is_answered(now));
        let (mut held, mut open) = (false, false);
        for (_, hold) in holds.iter().filter(|(lower, _)| answers(lower)) {
            (held, open) = (held || *hold == Hold::Flow, open || *hold == Hold::Nothing);
        }
        (alone && held && !open).then_some(Blocker::Neighbours(member))
    }

    fn wake_writers(&mut self, member: MemberId) {
        let Some(hub) = self.hub(member) else { return };
        std::mem::take(&mut hub.waiters).into_iter().for_each(|writer| self.wake(writer));
    }

    /// A flow of a broadcast member sent the packet in `frame`: all others get it, and all neighbours.
    pub(crate) fn spread(&mut self, now: u64, member: MemberId) {
        let frame = std::mem::take(&mut self.frame);
        let got = self.give(now, member, &frame);
        if let Some(at) = self.members.get_mut(member) {
            at.copies += u64::max(got, 1) - 1;
            at.unheard += u64::from(got == 0);
        }
        if let Some(hub) = self.hub(member).filter(|hub| !hub.links.is_empty())
            && let Some(relay) = hub.enter_own(now, &frame)
        {
            self.pass_to_all(now, member, None, relay, &frame);
        }
        self.frame = frame;
    }

    /// Give a packet to all programs but the one that sends it. Returns how many there are.
    fn give(&mut self, now: u64, member: MemberId, packet: &[u8]) -> u64 {
        let Some(at) = self.members.get_mut(member) else { return 0 };
        let flows = std::mem::take(&mut at.flows);
        let (mut lost, mut got) = (0, 0);
        for id in &flows {
            // The sender itself is not there.
            if let Some(mut flow) = self.flows.take(*id) {
                let before = flow.overrun();
                flow.receive(now, Run::of(packet, 0), self, 0);
                lost += flow.overrun() - before;
                got += 1;
                self.note_changed(&mut flow);
                self.flows.put(*id, flow);
            }
        }
        if let Some(member) = self.members.get_mut(member) {
            member.flows = flows;
            member.shaken.lost += lost;
            member.slow += lost;
        }
        got
    }

    /// Packets of a neighbour.
    pub(crate) fn receive_spread(&mut self, now: u64, member: MemberId, from: FlowId, run: Run<'_>) {
        for bytes in run.packets() {
            let Some(hub) = self.hub(member) else { return };
            match hub.take(now, from, bytes) {
                Taken::Packet(relay, packet) => {
                    let got = self.give(now, member, packet);
                    if let Some(at) = self.members.get_mut(member) {
                        at.copies += got;
                    }
                    self.remind(now, member);
                    self.pass_to_all(now, member, Some(from), relay, packet);
                }
                Taken::Border(relay) => {
                    self.remind(now, member);
                    self.pass_to_all(now, member, Some(from), relay, &[]);
                }
                Taken::Word(word) => self.tell(Event::Heard(member, 0, Some(from), word.to_vec())),
                Taken::Nothing => self.remind(now, member),
            }
        }
    }

    /// Say again what others have to know of our neighbours: what was said may be lost.
    fn remind(&mut self, now: u64, member: MemberId) {
        if let Some(hub) = self.hub(member)
            && hub.foreign() > 0
            && !hub.borders.is_empty()
            && hub.said_at + hub.pause <= now
        {
            self.say_border(now, member);
        }
    }

    fn pass_to_all(&mut self, now: u64, member: MemberId, but: Option<FlowId>, relay: Relay, packet: &[u8]) {
        let Some(hub) = self.hub(member) else { return };
        let links: Vec<_> = hub.links.iter().map(|link| link.flow).filter(|flow| Some(*flow) != but).collect();
        links.into_iter().for_each(|flow| self.pass(now, member, flow, relay, packet));
    }

    /// Send a packet to one neighbour, or let it wait.
    fn pass(&mut self, now: u64, member: MemberId, flow: FlowId, relay: Relay, packet: &[u8]) {
        let Some(hub) = self.hub(member) else { return };
        let Some(at) = hub.links.iter().position(|link| link.flow == flow) else { return };
        let Some(link) = hub.links.get_mut(at) else { return };
        let header = relay.write();
        let (header, most) = if link.ours { (&header[..], link.most) } else { (&[][..], link.most.min(MOST_FOREIGN)) };
        if !link.ours && relay.kind == Kind::Border {
            return;
        }
        if header.len() + packet.len() > most {
            hub.counters.too_long += 1;
            return;
        }
        if link.waiting.is_empty() {
            match self.send_by(now, flow, Manner::Data, header, packet) {
                Ok(()) => self.count_passed(member, 1),
                Err(blocker) => {
                    self.wait(member, flow, [header, packet].concat());
                    self.hold_spread(now, member, flow, blocker);
                }
            }
        } else {
            self.wait(member, flow, [header, packet].concat());
        }
    }

    fn count_passed(&mut self, member: MemberId, count: u64) {
        if let Some(hub) = self.hub(member) {
            hub.counters.forwarded += count;
        }
    }

    fn wait(&mut self, member: MemberId, flow: FlowId, packet: Vec<u8>) {
        let Some(hub) = self.hub(member) else { return };
        let lost = hub.link(flow).map_or(1, |link| link.push(packet));
        hub.counters.queue_full += lost;
    }

    /// What waits for a neighbour has its turn when that is there which it waits for.
    fn hold_spread(&mut self, now: u64, member: MemberId, flow: FlowId, blocker: Blocker) {
        let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) else { return };
        let (mut place, mut listed, source) = (link.place, link.listed, Source::Spread(member, flow));
        if place != Place::Idle {
            return;
        }
        match blocker {
            // What is taken out now is there for its turn.
            Blocker::Busy => self.make_ready(source, &mut place),
            // What is below ends.
            Blocker::Down => return self.lose_waiting(member, flow),
            _ => {
                self.park_source(now, source, &mut place, &mut listed, blocker);
                if place == Place::Idle {
                    self.make_ready(source, &mut place);
                }
            }
        }
        if let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) {
            (link.place, link.listed) = (place, listed);
        }
    }

    fn lose_waiting(&mut self, member: MemberId, flow: FlowId) {
        let Some(hub) = self.hub(member) else { return };
        let lost = hub.link(flow).map_or(0, Link::lose_all);
        hub.counters.queue_full += lost;
    }

    /// Send what waits for a neighbour.
    pub(crate) fn serve_spread(&mut self, now: u64, member: MemberId, flow: FlowId) {
        let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) else { return };
        link.place = Place::Idle;
        let mut sent = 0;
        let held = loop {
            let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) else { return };
            let most = link.most;
            let Some(packet) = link.pop() else { break None };
            if packet.len() > most {
                self.count_too_long(member);
                continue;
            }
            if let Err(blocker) = self.send_by(now, flow, Manner::Data, &[], &packet) {
                if let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) {
                    link.push_front(packet);
                }
                break Some(blocker);
            }
            sent += 1;
            if sent as usize == TURN {
                break Some(Blocker::Busy);
            }
        };
        self.count_passed(member, sent);
        if let Some(blocker) = held {
            self.hold_spread(now, member, flow, blocker);
        }
        let Some(hub) = self.hub(member).filter(|hub| !hub.waiters.is_empty()) else { return };
        if hub.link(flow).is_some_and(|link| link.hold() == Hold::Nothing) {
            self.wake_writers(member);
        }
    }

    fn count_too_long(&mut self, member: MemberId) {
        if let Some(hub) = self.hub(member) {
            hub.counters.too_long += 1;
        }
    }

    /// What packets to a neighbour were listed for is there.
    pub(crate) fn wake_spread(&mut self, member: MemberId, flow: FlowId) {
        let Some(link) = self.hub(member).and_then(|hub| hub.link(flow)) else { return };
        link.listed = None;
        if matches!(link.place, Place::Parked(_)) {
            link.place = Place::Ready;
            self.ready.push_back(Source::Spread(member, flow));
        }
    }
}
