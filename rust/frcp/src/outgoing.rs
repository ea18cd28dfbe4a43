//! The direction to the peer: what is sent next, and what the peer says about it.

use crate::ack;
use crate::config::{Config, IDLE, MAX_MESSAGE, Pressure, Refused, SPARE, Stats, longest_payload};
use crate::congestion::Controller;
use crate::header::{Header, flag};
use crate::pacing::Pacer;
use crate::quirks::Quirks;
use crate::recovery::{Counters, GIVE_UP, Recovery, Rules};
use crate::send::Send;
use crate::seq::before;
use crate::window::Window;

/// Bytes that are kept altogether before the program has to wait, and packets that may be unsent.
const MOST_KEPT: usize = 16 << 20;
const MOST_UNSENT: usize = 8192;
/// The peer's record of what we send may have run out when it got none for so long, ns; it does after 131 s.
const RECORD: u64 = 100_000_000_000;

/// What is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// This data packet.
    Data(u32),
    /// A rendez-vous.
    Ask,
    /// A bare packet that wants an answer.
    Poke,
}

/// The sending half of a flow.
#[derive(Debug)]
pub struct Outgoing {
    reliable: bool,
    quirks: &'static Quirks,
    sack: bool,
    fragments: bool,
    /// Packets are acknowledged, so that it is known what is under way.
    tracked: bool,
    longest: usize,
    /// Bytes that may be unsent before the program has to wait.
    most_unsent: usize,
    pressure: Pressure,
    send: Send,
    recovery: Recovery,
    controller: Controller,
    pacer: Pacer,
    window: Window,
    /// Something was sent.
    began: bool,
    /// The peer acknowledged something: it knows our numbers.
    known: bool,
    last_data: u64,
    since_poke: u32,
    /// Since when there has been nothing to send although more could have been.
    dry_since: Option<u64>,
    progress_at: u64,
    messages: u64,
    sent: u64,
    retransmitted: u64,
}

impl Outgoing {
    /// Nothing to send; the first packet will have the number `first`.
    pub fn new(config: &Config, first: u32, now: u64) -> Self {
        let reliable = config.reliable;
        let (quirks, sack) = (config.quirks(), config.sack());
        let rules = Rules { reliable, sack, quirks };
        Outgoing {
            reliable,
            quirks,
            sack,
            fragments: config.fragments(),
            tracked: reliable || sack,
            longest: config.longest_payload(),
            most_unsent: config.unsent.max(1),
            pressure: Pressure::Easy,
            send: Send::new(first, !reliable, config.spare()),
            recovery: Recovery::new(rules),
            controller: Controller::new(config.longest_payload() as u64 + 72, now),
            pacer: Pacer::default(),
            window: Window::new(first, config.initial_window(), config.window(), quirks, reliable),
            began: false,
            known: false,
            last_data: now,
            since_poke: 0,
            dry_since: None,
            progress_at: now,
            messages: 0,
            sent: 0,
            retransmitted: 0,
        }
    }

    /// The longest message, bytes.
    pub fn limit(&self) -> usize {
        if self.fragments { MAX_MESSAGE } else { self.longest }
    }

    /// See `Connection::resize`.
    pub fn resize(&mut self, max_packet: usize) {
        self.longest = longest_payload(max_packet);
    }

    /// There is room for another message.
    pub fn can_write(&self) -> bool {
        self.send.unsent() < self.most_unsent
            && self.send.kept() < MOST_KEPT
            && !self.many_unsent()
            && !(self.pressure > Pressure::Easy && self.memory() >= SPARE)
    }

    /// Whether there is memory for a message of that length, at some time.
    pub fn admits(&self, length: usize) -> bool {
        self.pressure < Pressure::Over || length <= SPARE
    }

    /// Bytes that it keeps.
    pub fn memory(&self) -> usize {
        self.send.memory()
    }

    /// So short is the memory that it shares with others.
    pub fn press(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    /// Empty messages, too, take memory.
    fn many_unsent(&self) -> bool {
        self.send.total() - self.send.outstanding() >= MOST_UNSENT
    }

    /// A message of the program.
    pub fn write(&mut self, now: u64, message: &[u8]) -> Result<(), Refused> {
        let limit = self.limit();
        if message.len() > limit {
            return Err(Refused::TooLong { limit });
        }
        if !self.can_write() {
            return Err(Refused::Full);
        }
        self.note_pause(now);
        if self.is_settled() && now.saturating_sub(self.last_data) >= IDLE {
            self.window.rest_long(self.send.next());
        }
        if self.fragments {
            self.send.push_fragments(message, self.longest);
        } else {
            self.send.push(message, 0);
        }
        self.messages += 1;
        Ok(())
    }

    /// The program let the path run dry before this message: what is delivered now tells nothing about the path.
    fn note_pause(&mut self, now: u64) {
        if let Some(since) = self.dry_since.take()
            && now.saturating_sub(since) > self.controller.min_rtt().unwrap_or(0) / 4
        {
            self.controller.on_limited(self.recovery.in_flight());
        }
    }

    /// The header of a packet of the peer, and the ranges that a bare one lists.
    pub fn on_header(&mut self, now: u64, header: &Header, payload: &[u8]) {
        if header.has(flag::ACK) && self.tracked {
            self.on_ack(now, header.ackno, if header.has(flag::DATA) { &[] } else { payload });
        }
        if header.has(flag::FC) && self.began {
            let before = self.window.room(self.send.first(), self.send.next());
            self.window.update(header.window, self.send.next());
            if self.window.room(self.send.first(), self.send.next()) > before {
                self.progress_at = now;
            }
        }
    }

    fn on_ack(&mut self, now: u64, ackno: u32, payload: &[u8]) {
        // Bounded by what was sent, or the peer would acknowledge what it cannot have.
        let (first, next) = (self.send.first(), self.send.next());
        if self.reliable && (before(ackno, first) || before(next, ackno)) {
            return;
        }
        let ranges = ack::parse(payload).filter(|_| self.sack).into_iter().flatten();
        if self.recovery.on_ack(now, ackno, ranges, &mut self.send, &mut self.controller) {
            self.known = true;
            self.progress_at = now;
            self.since_poke = 0;
            self.pacer.set_rate(self.controller.pacing_rate());
        }
    }

    /// What to send now.
    pub fn next(&mut self, now: u64) -> Option<Next> {
        if self.window.ask(now) {
            return Some(Next::Ask);
        }
        if let Some(seqno) = self.next_data(now) {
            return Some(Next::Data(seqno));
        }
        if self.quirks.poke > 0 && self.since_poke >= self.quirks.poke {
            self.since_poke = 0;
            return Some(Next::Poke);
        }
        None
    }

    fn next_data(&mut self, now: u64) -> Option<u32> {
        let lost = self.recovery.next_lost(&self.send);
        let fresh = self.fresh(now);
        if let Some(seqno) = lost.or(fresh) {
            return self.may_send(now).then_some(seqno);
        }
        self.recovery.take_probe(&self.send, self.known)
    }

    /// The next packet that was never sent, if there is one and the peer takes it.
    fn fresh(&mut self, now: u64) -> Option<u32> {
        let (first, next) = (self.send.first(), self.send.next());
        if self.send.has_unsent() {
            self.window.watch(now, first, next);
            if self.has_fresh() {
                return Some(next);
            }
        } else {
            self.window.rest();
        }
        if self.tracked && self.has_congestion_room() {
            if self.send.has_unsent() {
                self.controller.on_limited(self.recovery.in_flight());
            } else {
                self.dry_since.get_or_insert(now);
            }
        }
        None
    }

    fn has_fresh(&self) -> bool {
        self.send.has_unsent() && self.window.room(self.send.first(), self.send.next()) > 0 && !self.is_bold()
    }

    /// More of what the peer may drop altogether would be under way.
    fn is_bold(&self) -> bool {
        !self.known && self.send.outstanding() >= self.quirks.first_flight
    }

    fn may_send(&mut self, now: u64) -> bool {
        self.recovery.is_forced() || !self.tracked || self.has_congestion_room() && self.pacer.is_ready(now)
    }

    fn has_congestion_room(&self) -> bool {
        self.recovery.in_flight() < self.controller.window()
    }

    /// The header of a data packet that is to be sent, without what it tells about the other direction.
    pub fn header(&mut self, seqno: u32) -> Header {
        // DRF is kept in retransmissions: the loss of the first packet would be fatal otherwise.
        let begins = seqno == self.send.next() && (self.send.outstanding() == 0 || !self.reliable);
        let Some(packet) = self.send.get_mut(seqno) else { return Header::default() };
        if begins {
            packet.flags |= flag::DRF;
        }
        Header { flags: packet.flags, seqno, ..Header::default() }
    }

    /// Append the payload of that packet, which is sent now.
    pub fn send(&mut self, now: u64, seqno: u32, out: &mut Vec<u8>) {
        self.send.payload(seqno, out);
        if seqno == self.send.next() {
            self.send.mark_sent();
        } else {
            self.retransmitted += 1;
        }
        self.sent += 1;
        self.began = true;
        self.last_data = now;
        // Nothing counts it from the start again where nobody is poked.
        self.since_poke = (self.since_poke + 1).min(self.quirks.poke);
        if !self.tracked {
            self.send.pop_if(|_, _| true);
        } else if let Some(packet) = self.send.get(seqno) {
            self.pacer.spend(now, packet.cost());
            self.recovery.on_sent(now, seqno, &mut self.send, &mut self.controller);
        }
    }

    /// A bare packet goes out: it tells where we are, unless the peer is sure to know.
    pub fn bare(&self, now: u64) -> Header {
        let known = self.known && self.reliable && now.saturating_sub(self.last_data) < RECORD;
        if known { Header::default() } else { Header { flags: flag::DRF, seqno: self.oldest(), ..Header::default() } }
    }

    fn oldest(&self) -> u32 {
        if self.reliable { self.send.first() } else { self.send.next() }
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: u64) {
        if self.tracked {
            self.recovery.on_timeout(now, &mut self.send, &mut self.controller);
        }
    }

    /// When something is to be done, provided that all that may be sent now was sent.
    pub fn deadline(&self) -> Option<u64> {
        let recovery = self.tracked.then(|| self.recovery.deadline(&self.send, &self.controller)).flatten();
        [recovery, self.window.deadline(), self.pacing_deadline()].into_iter().flatten().min()
    }

    fn pacing_deadline(&self) -> Option<u64> {
        let waits = self.recovery.has_lost() || self.has_fresh();
        (waits && self.tracked && self.has_congestion_room()).then(|| self.pacer.ready_at())
    }

    /// A packet has been retransmitted for too long; or, while the flow lingers since then, nothing has moved for as long.
    pub fn gives_up_at(&self, lingers_since: Option<u64>) -> Option<u64> {
        let packet = self.recovery.gives_up_at(&self.send);
        let lingering = lingers_since.filter(|_| !self.is_settled());
        let linger = lingering.map(|since| since.max(self.progress_at).saturating_add(GIVE_UP));
        [packet, linger].into_iter().flatten().min()
    }

    /// All that was written arrived (mode R) or was sent (mode U).
    pub fn is_settled(&self) -> bool {
        if self.reliable { self.send.is_empty() } else { !self.send.has_unsent() }
    }

    /// Forget everything that was to be sent.
    pub fn clear(&mut self) {
        self.send.clear();
        self.window.rest();
    }

    /// Fill in the counters of this direction.
    pub fn report(&self, stats: &mut Stats) {
        let Counters { lost, spurious, timeouts, probes } = self.recovery.counters();
        stats.messages_written = self.messages;
        stats.data_sent = self.sent;
        stats.retransmitted = self.retransmitted;
        (stats.lost, stats.spurious, stats.timeouts, stats.probes) = (lost, spurious, timeouts, probes);
        stats.acknowledged = self.controller.delivered();
        stats.rtt = self.recovery.rtt().smoothed().unwrap_or(0);
        stats.min_rtt = self.controller.min_rtt().unwrap_or(0);
        stats.in_flight = self.recovery.in_flight();
        stats.congestion_window = self.controller.window();
        stats.bandwidth = self.controller.bandwidth();
        stats.pacing_rate = self.controller.pacing_rate();
        stats.loss_bound = self.controller.loss_bound();
        stats.rto = self.recovery.timeout();
        stats.window = self.window.room(self.send.first(), self.send.next());
        stats.unsent = self.send.unsent() as u64;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Peer, UNSENT};

    #[test]
    fn nothing_counts_without_end_in_mode_u() {
        let config =
            Config { reliable: false, peer: Peer::Prototype, max_packet: 100, mpl: 0, unsent: UNSENT, thrifty: false };
        let mut outgoing = Outgoing::new(&config, 0, 0);
        for seqno in 0..200 {
            outgoing.write(0, b"packet").unwrap();
            outgoing.send(0, seqno, &mut vec![]);
        }
        assert_eq!((outgoing.sent, outgoing.since_poke), (200, 0));
    }
}
