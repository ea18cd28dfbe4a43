//! Packets from below: to the flow with their endpoint id, or to the control side.

use ouroboros_wire::management::{Datagram, EID, FIXED, Kind as Message, LONGEST};
use ouroboros_wire::pci::PCI;

use super::{Event, Stack, Where};
use crate::DEPTH;
use crate::door::Verdict;
use crate::id::{FlowId, MemberId};
use crate::member::Carries;
use crate::ring::Ring;
use crate::run::Run;

impl<R: Ring> Stack<R> {
    /// Take a run of packets of a member apart. `depth`: levels below. False: the member is gone.
    pub(crate) fn dispatch(&mut self, now: u64, member: MemberId, from: Where, run: Run<'_>, depth: usize) -> bool {
        if !self.taps.is_empty() {
            self.tap_arrived(now, member, from, run);
        }
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
        if let (Carries::Broadcast(_), Where::Flow(lower)) = (&at.carries, from) {
            self.receive_spread(now, member, lower, run);
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
            self.note_marks(member, &mut flow.outlet, mark, run.count());
            self.ready_taken(id, &mut flow.place);
        } else if let Some(at) = self.members.get_mut(member) {
            at.counters.wrong_source += run.count();
        }
        self.flows.put(id, flow);
    }

    fn manage(&mut self, now: u64, member: MemberId, datagram: &[u8], from: Where) {
        let Some(at) = self.members.get_mut(member) else { return };
        let is_foreign = at.port().is_some_and(|port| port.foreign);
        match Datagram::new(datagram).map(Datagram::report) {
            Some(Some(report)) if !is_foreign || datagram.len() == FIXED => {
                self.take_report(now, member, report, from);
            }
            _ if is_foreign => self.let_in(now, member, datagram, from),
            None => at.counters.short += 1,
            Some(_) if datagram.len() > LONGEST => at.counters.refused += 1,
            Some(_) => self.let_in(now, member, datagram, from),
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

    /// Whether the control side gets such a datagram.
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

    /// The other end of a loop sent something. False: this end is gone.
    pub(crate) fn bring(&mut self, to: FlowId, packet: Vec<u8>) -> bool {
        let Some(flow) = self.flow(to) else { return false };
        flow.bring(packet);
        self.queue(to);
        true
    }
}
