//! Packets of the peer: from below, or from the other end of a loop.

use ouroboros_wire::management::Report;

use super::{Flow, Protocol, Reports, TURN, User};
use crate::credit::REPORT;
use crate::member::Member;
use crate::ring::{Ring, Write};
use crate::run::Run;
use crate::stack::{Stack, Where};

/// Bytes that wait at an end of a loop, at the most, but for the last packet.
const INBOX: usize = 256 << 10;
/// Bytes that a packet takes there beside its own.
const PLACE: usize = 64;
/// Messages that are kept for a user that is not known yet.
const KEPT: usize = 32;

impl<R: Ring> Flow<R> {
    /// Packets of the peer, without their endpoint ids. `depth`: levels below.
    pub(crate) fn receive(&mut self, now: u64, run: Run<'_>, stack: &mut Stack<R>, depth: usize) {
        self.hear(now, stack);
        match self.user {
            User::Program(_) => self.receive_for_program(now, run),
            User::Transfer(member) if !self.outlet.seals() && matches!(self.protocol, Protocol::Raw { .. }) => {
                let filled = run.filled();
                self.count(run.count(), filled.bytes());
                self.counters.empty += run.count() - filled.count();
                if stack.dispatch(now, member, Where::Flow(self.id), filled, depth + 1) {
                    self.counters.delivered += filled.count();
                } else {
                    self.counters.unwanted += filled.count();
                }
            }
            _ => run.packets().for_each(|packet| self.receive_one(now, packet, stack, depth)),
        }
    }

    /// The peer lives.
    fn hear(&mut self, now: u64, stack: &mut Stack<R>) {
        self.heard_at = now;
        if self.cut {
            return;
        }
        if std::mem::take(&mut self.silent) | (std::mem::take(&mut self.grace) > 0) {
            self.tell_state(stack, true);
        }
    }

    fn receive_for_program(&mut self, now: u64, run: Run<'_>) {
        let Flow { user: User::Program(ring), outlet, protocol, counters, .. } = self else { return };
        let mut writer = ring.writer();
        for packet in run.packets() {
            let Some(packet) = outlet.unseal(packet, counters) else { continue };
            match protocol {
                Protocol::Frcp(connection) => connection.receive(now, packet),
                // It waits for no reader: packets that do not fit into the ring of a slow one are lost.
                Protocol::Raw { reports, .. } => match writer.as_mut().map(|writer| writer.stage(packet)) {
                    Ok(Ok(true)) => {
                        counters.delivered += 1;
                        reports.backlog += packet.len() + 8;
                    }
                    Ok(Ok(false)) => counters.overrun += 1,
                    Ok(Err(_)) | Err(_) => counters.unwanted += 1,
                },
            }
        }
    }

    /// A packet for a user that is no program.
    fn receive_one(&mut self, now: u64, packet: &[u8], stack: &mut Stack<R>, depth: usize) {
        let Flow { id, user, outlet, protocol, counters, kept, .. } = self;
        let Some(packet) = outlet.unseal(packet, counters) else { return };
        match (protocol, user) {
            (Protocol::Frcp(connection), _) => connection.receive(now, packet),
            (_, User::Transfer(member)) => {
                let taken = stack.dispatch(now, *member, Where::Flow(*id), Run::of(packet, 0), depth + 1);
                *if taken { &mut counters.delivered } else { &mut counters.unwanted } += 1;
            }
            (_, User::Control(take @ 1..)) => {
                *take -= 1;
                counters.delivered += 1;
                stack.tell_message(now, *id, packet.to_vec());
            }
            (_, User::Control(_)) if kept.len() < KEPT => kept.push_back(packet.to_vec()),
            _ => counters.overrun += 1,
        }
    }

    /// The other end of a loop sent something.
    pub(crate) fn bring(&mut self, packet: Vec<u8>) {
        self.inbox_bytes += packet.len() + PLACE;
        self.inbox.push_back(packet);
    }

    /// Whether the other end of a loop may send one more packet.
    pub(crate) fn has_room(&self) -> bool {
        self.inbox_bytes < INBOX
    }

    /// Whether a link, which waits for nobody, may bring one more: as much as a ring holds.
    pub(crate) fn has_any_room(&self) -> bool {
        self.inbox_bytes < R::CAPACITY
    }

    pub(super) fn take_inbox(&mut self, now: u64, stack: &mut Stack<R>) {
        if self.inbox.is_empty() {
            return;
        }
        let before = (self.counters.received, self.counters.delivered, self.counters.overrun);
        for _ in 0..TURN {
            let Some(packet) = self.inbox.pop_front() else { break };
            self.inbox_bytes -= packet.len() + PLACE;
            if packet.is_empty() {
                self.hear(now, stack);
                self.count(1, 0);
                self.counters.empty += 1;
            } else {
                self.receive(now, Run::of(&packet, 0), stack, 0);
            }
        }
        let Some(Member { shaken, slow, .. }) = stack.members.get_mut(self.outlet.member) else { return };
        shaken.delivered += match self.protocol {
            Protocol::Raw { .. } => self.counters.delivered - before.1,
            Protocol::Frcp(_) => self.counters.received - before.0,
        };
        shaken.lost += self.counters.overrun - before.2;
        *slow += self.counters.overrun - before.2;
    }

    /// The peer reported how many packets it received.
    pub(crate) fn credit(&mut self, now: u64, report: Report, stack: &mut Stack<R>) {
        self.hear(now, stack);
        if let Protocol::Raw { credit: Some(credit), .. } = &mut self.protocol {
            credit.report(now, report);
        }
    }

    /// The report to the sender of a raw flow, when one is due. `room`: bytes of the kernel buffer.
    pub(crate) fn report(&mut self, room: u32) -> Option<Report> {
        let Flow { user, protocol: Protocol::Raw { credit: Some(_), reports }, counters, awaits_room, outlet, .. } =
            self
        else {
            return None;
        };
        // For keepalives the sender has no credit.
        let counted = counters.received - counters.empty;
        if counted - reports.counted < REPORT && !reports.wait {
            return None;
        }
        let mut wait = false;
        if let User::Program(ring) = user {
            wait = reports.is_slow(ring);
            if wait && !*awaits_room {
                // It tells when half of its ring is free; the packet is of no length in particular.
                ring.want_room(0);
                // `forget_room` has to follow, also if there is room for something.
                *awaits_room = true;
                // It may have read everything just before.
                wait = reports.is_slow(ring);
            }
        }
        (reports.counted != counted || reports.wait != wait).then(|| {
            (reports.counted, reports.wait) = (counted, wait);
            Report { source: outlet.eid, destination: outlet.peer_eid, counted, room, wait }
        })
    }
}

impl Reports {
    /// Whether more than half of the ring of the program may be full.
    fn is_slow<R: Ring>(&mut self, ring: &R) -> bool {
        if self.backlog > R::CAPACITY / 2 && ring.is_read() {
            self.backlog = 0;
        }
        self.backlog > R::CAPACITY / 2 && !ring.has_room(R::CAPACITY / 2)
    }
}
