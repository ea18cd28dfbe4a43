//! Turns: the queue for them, waiting for something else, and time.

use std::collections::VecDeque;

use super::{Source, Stack};
use crate::flow::{Flow, Place, Turn};
use crate::id::{FlowId, MemberId};
use crate::link::Impairment;
use crate::member::Member;
use crate::outlet::Blocker;
use crate::ring::Ring;

/// Nanoseconds until a flow that is blocked looks at its deadlines again.
const PAUSE: u64 = 50_000_000;

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
        self.taps.now = now;
        match self.ready.pop_front() {
            Some(Source::Flow(id)) => self.serve_flow(now, id),
            Some(Source::Transit(member, place)) => self.serve_transit(now, member, place),
            Some(Source::Words(member)) => self.serve_words(now, member),
            Some(Source::Spread(member, lower)) => self.serve_spread(now, member, lower),
            Some(Source::Border(member)) => self.say_border(now, member),
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
        // The program may have read, and a sender waits for that.
        self.report_anywhere(now, &mut flow);
        // A packet that is due may wait for a turn, or for the flow to be woken: no reason to check all the time.
        let sends_at = if turn == Turn::Idle { 0 } else { now + PAUSE };
        if !flow.waiters.is_empty() && flow.can_take(now) {
            std::mem::take(&mut flow.waiters).into_iter().for_each(|waiter| self.wake(waiter));
        }
        // After that, because flows that wait in vain may depend on it.
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
        self.taps.now = now;
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

    /// Give a flow a turn.
    pub(super) fn queue(&mut self, id: FlowId) {
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
    pub(super) fn park(&mut self, now: u64, flow: &mut Flow<R>, blocker: Blocker) {
        if let Blocker::Neighbours(_) = blocker {
            // None of them may say anything any more.
            self.timers.set(flow.id, flow.deadline(0).into_iter().chain([now + PAUSE]).min());
        }
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

    /// The sources that wait for something.
    pub(crate) fn list_of(&mut self, blocker: Blocker) -> Option<&mut VecDeque<Source>> {
        match blocker {
            Blocker::Port(port) => self.port(port).map(|port| &mut port.parked),
            Blocker::Flow(lower) => self.flow(lower).map(|lower| &mut lower.waiters),
            Blocker::Route(member) => self.transfer(member).map(|transfer| &mut transfer.lost),
            Blocker::Neighbours(member) => self.hub(member).map(|hub| &mut hub.waiters),
            Blocker::Busy | Blocker::Down | Blocker::Until(_) => None,
        }
    }

    /// Give a flow a turn then.
    pub(crate) fn wake_at(&mut self, id: FlowId, at: u64) {
        self.timers.set(id, Some(at));
    }

    /// A source need not wait any more.
    pub(crate) fn wake(&mut self, source: Source) {
        let id = match source {
            Source::Flow(id) => id,
            Source::Transit(member, place) => return self.wake_transit(member, place),
            Source::Spread(member, lower) => return self.wake_spread(member, lower),
            // They wait for nothing.
            Source::Words(_) | Source::Border(_) => return,
        };
        let Some(flow) = self.flows.get_mut(id) else { return };
        flow.listed = None;
        if matches!(flow.place, Place::Parked(_)) {
            self.queue(id);
        }
    }
}
