//! Reports of the packets that a raw flow received, for the credit of its sender.

use std::net::SocketAddr;

use ouroboros_wire::management::Report;
use ouroboros_wire::update::Word;

use super::{Stack, Where};
use crate::flow::Flow;
use crate::id::{FlowId, MemberId};
use crate::outlet::Way;
use crate::ring::Ring;

/// As much as a port commonly has.
const LOOP_ROOM: u32 = 4 << 20;

impl<R: Ring> Stack<R> {
    /// False: it is of no flow here, or not of its peer, and is counted as such.
    pub(crate) fn take_report(&mut self, now: u64, member: MemberId, report: Report, from: Where) -> bool {
        let Some(at) = self.members.get_mut(member) else { return false };
        let id = at.by_eid.get(&report.destination).copied();
        let Some((id, mut flow)) = id.and_then(|id| Some((id, self.flows.take(id)?))) else {
            at.counters.unknown += 1;
            return false;
        };
        let taken = flow.outlet.peer_eid == report.source && flow.outlet.comes_from(from);
        if taken {
            at.counters.management += 1;
            flow.credit(now, report, self);
            self.ready_taken(id, &mut flow.place);
        } else {
            at.counters.wrong_source += 1;
        }
        self.flows.put(id, flow);
        taken
    }

    /// Send the report of a raw flow to its sender, when one is due.
    pub(super) fn report(&mut self, now: u64, flow: &mut Flow<R>, to: SocketAddr) {
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
    pub(super) fn report_anywhere(&mut self, now: u64, flow: &mut Flow<R>) {
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
            Way::Loop(_) | Way::Broadcast | Way::Tap => {}
        }
    }

    /// Bytes of the kernel's buffer at the port below a flow.
    fn room_below(&mut self, flow: FlowId) -> u32 {
        let Some(outlet) = self.flow(flow).map(|flow| (flow.outlet.way, flow.outlet.member)) else { return 0 };
        match outlet {
            (Way::Port(..), member) => self.port(member).map_or(0, |port| port.room),
            (Way::Transfer(lower), _) => self.room_below(lower),
            (Way::Unicast(..) | Way::Loop(_) | Way::Broadcast | Way::Tap, _) => LOOP_ROOM,
        }
    }
}
