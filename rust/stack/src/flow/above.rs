//! For members and control above: packets of flows of theirs, and a change of the user.

use super::{Flow, Protocol, User};
use crate::outlet::{Blocker, Frame, Manner, Passing, Sink, Way};
use crate::ring::{Ring, Write};
use crate::run::Run;
use crate::stack::{Stack, Where};

/// Bytes of keepalives and of words of control that wait for room in FRCP below, at the most.
const URGENT: usize = 64 << 10;

impl<R: Ring> Flow<R> {
    /// Begin a packet of a flow above.
    pub(crate) fn open_below(&mut self, now: u64, stack: &mut Stack<R>, manner: Manner) -> Result<Frame, Blocker> {
        if self.user_gone.is_some() || self.peer_gone {
            return Err(Blocker::Down);
        }
        match &mut self.protocol {
            Protocol::Frcp(connection) if self.urgent.is_empty() && connection.can_write() => {
                Ok(stack.begin(Sink::Queue))
            }
            Protocol::Frcp(_) if manner != Manner::Data && self.urgent_bytes < URGENT => Ok(stack.begin(Sink::Queue)),
            Protocol::Frcp(_) => Err(Blocker::Flow(self.id)),
            Protocol::Raw { credit, .. } => {
                if manner != Manner::Data {
                    return self.outlet.open(now, stack, Manner::Control);
                }
                if credit.as_mut().is_some_and(|credit| !credit.may_send(now)) {
                    return Err(Blocker::Flow(self.id));
                }
                let opened = match self.pacer.as_ref().and_then(|pacer| pacer.waits_until(now)) {
                    Some(at) => Err(Blocker::Until(at)),
                    None => self.outlet.open(now, stack, Manner::Data),
                };
                if let Err(Blocker::Until(at)) = opened {
                    stack.wake_at(self.id, at);
                    return Err(Blocker::Flow(self.id));
                }
                opened
            }
        }
    }

    /// Send packets of a flow above from where they came in, all or none; see `Outlet::pass`.
    pub(crate) fn pass_below(
        &mut self,
        now: u64,
        run: Run<'_>,
        stride: usize,
        stack: &mut Stack<R>,
    ) -> Option<Passing> {
        let Flow { outlet, protocol: Protocol::Raw { credit, .. }, counters, user_gone: None, .. } = self else {
            return None;
        };
        let may = credit.as_mut().is_none_or(|credit| credit.may_send_all(now, run.count()));
        if !may || self.peer_gone || self.pacer.is_some() {
            return None;
        }
        let passing = outlet.pass(now, run, stride, counters, stack)?;
        if let Some(credit) = credit {
            credit.sent_all(now, stride, run.count());
        }
        Some(passing)
    }

    /// That packet is complete.
    pub(crate) fn close_below(&mut self, now: u64, frame: Frame, stack: &mut Stack<R>) {
        if !stack.taps.is_empty() {
            let start = if let Protocol::Raw { .. } = self.protocol { self.outlet.inside(&frame) } else { 0 };
            let control = matches!(self.user, User::Control(_));
            stack.tap_lowered(now, (self.id, control), &frame, start);
        }
        match &mut self.protocol {
            Protocol::Frcp(connection) => {
                if !self.urgent.is_empty() || !connection.can_write() {
                    self.urgent_bytes += stack.frame.len();
                    self.urgent.push_back(stack.frame.clone());
                } else if let Err(why) = connection.write(now, &stack.frame) {
                    self.counters.count_refused(why);
                }
                stack.ready_taken(self.id, &mut self.place);
            }
            Protocol::Raw { credit, .. } => {
                if let Some(credit) = credit {
                    credit.sent(now, stack.written(&frame).len());
                }
                if let Some(pacer) = &mut self.pacer {
                    pacer.sent(now);
                }
                self.outlet.close(now, frame, &mut self.counters, stack, Manner::Data);
            }
        }
        if self.outlet.link.is_some()
            && let Some(at) = self.deadline(now + 1)
        {
            // Its own turn was before: nothing else would tell when what is on the bad link arrives.
            stack.wake_at(self.id, at);
        }
    }

    /// Give FRCP the urgent packets, and let it close after the last one.
    pub(super) fn write_urgent(&mut self, now: u64) {
        let Protocol::Frcp(connection) = &mut self.protocol else { return };
        while connection.can_write()
            && let Some(message) = self.urgent.pop_front()
        {
            self.urgent_bytes -= message.len();
            if let Err(why) = connection.write(now, &message) {
                self.counters.count_refused(why);
            }
        }
        if self.user_gone.is_some() && self.urgent.is_empty() {
            connection.close(now);
        }
    }

    /// Whether sources that wait for this flow may try again: flows above, or the other end of a loop.
    pub(crate) fn can_take(&mut self, now: u64) -> bool {
        let from_above = match &mut self.protocol {
            Protocol::Frcp(connection) => self.urgent.is_empty() && connection.can_write(),
            Protocol::Raw { credit, .. } => {
                credit.as_mut().is_none_or(|credit| credit.may_send(now))
                    && self.outlet.waits_until(now).is_none()
                    && self.pacer.as_ref().is_none_or(|pacer| pacer.waits_until(now).is_none())
            }
        };
        from_above || (matches!(self.outlet.way, Way::Loop(_)) && self.has_room())
    }

    /// Whether what the peer does not take yet may be worth waiting for.
    pub(crate) fn is_answered(&self, now: u64) -> bool {
        match &self.protocol {
            Protocol::Raw { credit: Some(credit), .. } => !self.silent && credit.is_answered(now),
            _ => !self.silent,
        }
    }

    /// Take in messages for a user that took none.
    pub(crate) fn hand(&mut self, now: u64, user: User<R>, stack: &mut Stack<R>) {
        self.user = user;
        for packet in std::mem::take(&mut self.kept) {
            match &mut self.user {
                User::Transfer(member) => {
                    let taken = stack.dispatch(now, *member, Where::Flow(self.id), Run::of(&packet, 0), 1);
                    *if taken { &mut self.counters.delivered } else { &mut self.counters.unwanted } += 1;
                }
                User::Control(take @ 1..) => {
                    *take -= 1;
                    self.counters.delivered += 1;
                    stack.tell_message(now, self.id, packet);
                }
                User::Control(_) => self.kept.push_back(packet),
                User::Program(ring) => match ring.writer().and_then(|mut writer| writer.stage(&packet)) {
                    Ok(true) => self.counters.delivered += 1,
                    Ok(false) => self.counters.overrun += 1,
                    Err(_) => self.counters.unwanted += 1,
                },
            }
        }
    }
}
