//! Ports: datagrams that came in, and those that are to leave.

use std::net::SocketAddr;

use ouroboros_wire::management::EID;
use ouroboros_wire::pci::PCI;

use super::{Stack, Where};
use crate::id::MemberId;
use crate::member::{Carries, Port, plain, unaddressed};
use crate::outlet::{Outlet, Passing, Way};
use crate::ring::Ring;
use crate::run::Run;
use crate::stage::{Outgoing, Stage};
use crate::transfer::MOST_MARK;

/// The mark of what arrives after something was dropped: half of the most.
const OVERFLOW: u8 = MOST_MARK.div_ceil(2);

impl<R: Ring> Stack<R> {
    /// Datagrams came in.
    pub fn receive(&mut self, now: u64, port: MemberId, from: SocketAddr, run: Run<'_>) {
        self.taps.now = now;
        if run.count() == 0
            && let Some(member) = self.members.get_mut(port)
        {
            // An empty datagram.
            member.counters.received += 1;
            member.counters.short += 1;
        }
        self.arriving = self.port(port).map_or(0, |port| port.mark);
        self.dispatch(now, port, Where::Address(plain(from)), run, 0);
        self.arriving = 0;
    }

    /// As `receive`, for datagrams that are the first `length` bytes of a buffer: `stride` bytes each, but for a shorter last
    /// one. If all of them go on to one neighbour, the buffer goes with them, and the caller has another one, as long, instead.
    pub fn receive_in(
        &mut self,
        now: u64,
        port: MemberId,
        from: SocketAddr,
        buffer: &mut Vec<u8>,
        (length, stride): (usize, usize),
    ) {
        let bytes = buffer.get(..length).unwrap_or_default();
        // A buffer with little in it is worth more than the copy.
        let run = if 2 * length < buffer.len() { Run::new(bytes, stride) } else { Run::whole(bytes, stride) };
        self.receive(now, port, from, run);
        let Some((Passing { port, peer, eid }, pci)) = self.passing.take() else { return };
        for datagram in buffer[..length].chunks_mut(stride) {
            let (front, rest) = datagram.split_at_mut(EID);
            front.copy_from_slice(&eid);
            rest[..PCI].copy_from_slice(&pci);
        }
        if let Some(stage) = self.stage(port) {
            stage.adopt(peer, buffer, length, stride);
        }
    }

    /// How full the kernel's buffer for arrivals is, and how many it has dropped by now. What arrives from now on is marked
    /// by that, as by a queue, where it comes for a unicast layer: the queue of an engine that cannot keep up is there.
    pub fn note_backlog(&mut self, port: MemberId, held: u32, room: u32, dropped: u32) {
        let Some(member) = self.members.get_mut(port) else { return };
        let Some(at) = member.port() else { return };
        let lost = dropped.wrapping_sub(at.dropped);
        at.dropped = dropped;
        at.mark = mark_of(held, room).max(if lost > 0 { OVERFLOW } else { 0 });
        member.counters.overflowed += u64::from(lost);
    }

    /// Whether what arrives there is marked.
    pub fn is_marked(&self, port: MemberId) -> bool {
        matches!(self.members.get(port).map(|member| &member.carries), Some(Carries::Port(port)) if port.mark > 0)
    }

    /// There was nothing more to receive.
    pub fn drained(&mut self, now: u64, port: MemberId) {
        if let Some(port) = self.port(port) {
            port.drained_at = now;
        }
    }

    /// The next datagrams to leave a port; None: there are none, or it takes none now. The caller answers with `sent`, `part`
    /// or `blocked`.
    pub fn transmit(&mut self, port: MemberId) -> Option<Outgoing<'_>> {
        self.members.get_mut(port)?.stage()?.transmit()
    }

    /// The datagrams that `transmit` returned have left, or (false) will never.
    pub fn sent(&mut self, port: MemberId, left: bool) {
        if left && !self.taps.is_empty() {
            self.tap_sent(port);
        }
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

    /// The port does not take those datagrams together: they leave one by one, then. `segments`: how many it takes at
    /// once from now on.
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

    /// Whether it may be full before as many datagrams were passed on to it as arrive together.
    pub fn is_nearly_full(&mut self, port: MemberId) -> bool {
        self.stage(port).is_some_and(|stage| !stage.has_room_for_run())
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
            Way::Loop(_) | Way::Broadcast | Way::Tap => true,
        }
    }

    pub(super) fn stage_datagram(&mut self, port: MemberId, to: SocketAddr, datagram: &[u8]) {
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
    pub(super) fn pass_on(&mut self, now: u64, port: MemberId) {
        while let Some(packet) =
            self.members.get_mut(port).and_then(|member| member.link.as_mut()).and_then(|link| link.due(now))
        {
            if let Some((address, datagram)) = unaddressed(&packet) {
                self.stage_datagram(port, address, datagram);
            }
        }
    }
}

/// Half of a buffer is what senders with credit may fill. Beyond it the mark rises, to the most when it is full.
fn mark_of(held: u32, room: u32) -> u8 {
    let (held, half) = (u64::from(held), u64::from(room / 2).max(1));
    (held.saturating_sub(half) * u64::from(MOST_MARK) / half).min(u64::from(MOST_MARK)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_half_of_a_buffer_is_marked() {
        let marks = [0, 50, 51, 75, 100, 1000].map(|held| mark_of(held, 100));
        assert_eq!(marks, [0, 0, 1, 31, 63, 63]);
        assert_eq!((mark_of(0, 0), mark_of(u32::MAX, 1)), (0, 63));
    }
}
