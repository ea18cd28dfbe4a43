//! How a flow ends, and time.

use super::{Flow, How, Protocol, User};
use crate::credit::Credit;
use crate::outlet::Manner;
use crate::ring::Ring;
use crate::stack::{Event, Stack};

impl<R: Ring> Flow<R> {
    /// The peer deallocated or died: packets that came before still reach the user.
    pub(crate) fn end_by_peer(&mut self, died: bool) {
        self.peer_gone = true;
        self.peer_died = died;
    }

    /// The user lets go, which only its ring says for a program.
    pub(crate) fn end_by_user(&mut self, now: u64) {
        if !matches!(self.user, User::Program(_)) {
            self.user_is_gone(now, How::Closed);
        }
    }

    /// The program died, whatever its ring says.
    pub(crate) fn doom(&mut self) {
        self.doomed.get_or_insert(R::CAPACITY);
    }

    /// See `Stack::resize`.
    pub(crate) fn resize(&mut self, packet: usize, mtu: usize) {
        self.outlet.mtu = mtu;
        self.outlet.longest = packet;
        if let Protocol::Frcp(connection) = &mut self.protocol {
            connection.resize(packet);
        }
    }

    /// The flow is over at once, with all that is under way. `died`: for the program.
    pub(crate) fn abort(&mut self, died: bool) {
        if let User::Program(ring) = &self.user {
            ring.close(died);
        }
    }

    pub(super) fn user_is_gone(&mut self, now: u64, how: How) {
        self.user_gone.get_or_insert(how);
        self.write_urgent(now);
    }

    /// How the flow ended, if it did; tells the program.
    pub(super) fn over(&mut self, now: u64, stack: &mut Stack<R>) -> Option<How> {
        let (done, failed, delivered) = match &self.protocol {
            Protocol::Raw { .. } => (true, false, true),
            Protocol::Frcp(each) => (each.is_done(), each.failure().is_some(), each.message().is_none()),
        };
        if let Some(how) = self.user_gone
            && (self.peer_gone || ((done || failed) && self.outlet.deadline().is_none()))
        {
            // Packets that were not acknowledged may be missing at the peer, whatever the program did.
            return Some(if failed { How::Broken } else { how });
        }
        if self.peer_gone && delivered && self.inbox.is_empty() {
            self.abort(self.peer_died);
            return Some(How::Gone);
        }
        if failed {
            self.abort(true);
            return Some(How::Broken);
        }
        let patience = self.patience().filter(|patience| !self.silent && *patience <= now)?;
        if !stack.is_drained(&self.outlet, patience) {
            // A packet that proves the peer alive may have arrived.
            return None;
        }
        if matches!(self.user, User::Program(_)) {
            self.abort(true);
            return Some(How::Silent);
        }
        self.silent = true;
        self.tell_state(stack, false);
        None
    }

    /// Packets that came and were not taken are lost with the flow, and so are packets on its link.
    pub(crate) fn abandon(&mut self, stack: &mut Stack<R>) {
        for packet in std::mem::take(&mut self.inbox) {
            self.count(1, packet.len() as u64);
            self.counters.unwanted += 1;
        }
        self.counters.unwanted += std::mem::take(&mut self.kept).len() as u64;
        self.counters.unsent += std::mem::take(&mut self.urgent).len() as u64;
        if let Some(link) = self.outlet.link.take() {
            stack.shaken(self.outlet.member).lost += link.under_way();
        }
        if let Some(mut past) = stack.members.get_mut(self.outlet.member).map(|member| std::mem::take(&mut member.past))
        {
            self.balance(&mut past);
            if let Some(member) = stack.members.get_mut(self.outlet.member) {
                member.past = past;
            }
        }
    }

    /// See `Stack::note_device`.
    pub(crate) fn note_device(&mut self, now: u64, on: bool, carries: bool, stack: &mut Stack<R>) {
        self.cut = !carries;
        if let User::Program(ring) = &self.user {
            if self.shown.down == on {
                self.shown.down = !on;
                ring.show(self.shown);
            }
        } else if carries == self.silent {
            // A peer that was silent before has its time once more.
            self.heard_at = now;
            self.silent = !carries;
            self.tell_state(stack, carries);
        }
    }

    pub(super) fn tell_state(&self, stack: &mut Stack<R>, up: bool) {
        if let User::Transfer(member) = self.user {
            stack.change_ways(member, |transfer| transfer.note_state(self.id, up));
        }
        stack.tell(Event::State(self.id, up));
    }

    /// Until when the peer may be silent; None: for ever.
    pub(super) fn patience(&self) -> Option<u64> {
        let longest = [self.timeout, self.grace].into_iter().filter(|time| *time > 0).min();
        longest.map(|time| self.heard_at + time)
    }

    /// A deadline passed.
    pub(crate) fn pass(&mut self, now: u64, stack: &mut Stack<R>) {
        match &mut self.protocol {
            Protocol::Frcp(connection) => connection.timeout(now),
            Protocol::Raw { credit, .. } => {
                if let Some(credit) = credit {
                    credit.pass(now);
                }
            }
        }
        if self.timeout > 0 && now >= self.outlet.sent_at + self.timeout / 4 {
            // One that finds no way is lost, as anywhere.
            self.outlet.sent_at = now;
            if let Ok(frame) = self.outlet.open(now, stack, Manner::Bare) {
                self.outlet.close(now, frame, &mut self.counters, stack, Manner::Bare);
            }
        }
    }

    /// When `pass` is to be called. `sends_at`: nothing can be sent before.
    pub(crate) fn deadline(&self, sends_at: u64) -> Option<u64> {
        let alive = (self.timeout > 0).then(|| self.outlet.sent_at + self.timeout / 4);
        let silence = self.patience().filter(|_| !self.silent);
        let protocol = match &self.protocol {
            Protocol::Frcp(connection) => connection.deadline(),
            Protocol::Raw { credit, .. } => credit.as_ref().and_then(Credit::deadline),
        };
        let sends = protocol.into_iter().chain(self.outlet.deadline()).min().map(|at| at.max(sends_at));
        alive.into_iter().chain(silence).chain(sends).chain(self.retry_at).min()
    }
}
