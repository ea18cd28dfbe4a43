//! What was lost: by the packets sent later that arrived (RACK), by a probe when the end of what was sent stays unanswered,
//! and by waiting, each time twice as long.

use std::collections::VecDeque;

use crate::congestion::Controller;
use crate::quirks::Quirks;
use crate::ranges::{Range, Ranges};
use crate::rtt::Rtt;
use crate::send::{Packet, Send, State};
use crate::seq::{ahead, before};

/// The longest that a packet is retransmitted, ns (R).
pub const GIVE_UP: u64 = 120_000_000_000;
/// Packets sent later that have to arrive, as long as no packet was ever overtaken.
const LATER: u64 = 3;
/// How far back a probe may lie: it waits two round trips and this, ns, for an acknowledgement that is held back.
const PROBE_SLACK: u64 = 2_000_000;
/// Packets that are repaired together at most while acknowledgements come in order.
const MOST_REPAIRS: u32 = 4;
/// So many repaired packets in a row, each of them sent after that was seen of the one before, may be acknowledged faster than
/// anything before: then the path is faster than it was. Packets that were repaired together in vain are no more than one.
const DOUBTS: u32 = 3;
/// A reordering window that nobody confirms shrinks to 7/8 after so many round trips.
const FORGET: u64 = 16;

/// What the peer's acknowledgements are like.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Every packet is delivered in the end; otherwise a lost one is given up.
    pub reliable: bool,
    /// Ranges are told.
    pub sack: bool,
    pub quirks: &'static Quirks,
}

/// One transmission, in the order of sending.
#[derive(Debug, Clone, Copy)]
struct Transmission {
    seqno: u32,
    number: u64,
    sent: u64,
}

/// The transmission that was sent last of those that are known to have arrived.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    number: u64,
    rtt: u64,
}

/// Counters of a flow's losses.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    pub lost: u64,
    pub spurious: u64,
    pub timeouts: u64,
    pub probes: u64,
}

/// Finds out which packets were lost.
#[derive(Debug)]
pub struct Recovery {
    rules: Rules,
    rtt: Rtt,
    transmissions: VecDeque<Transmission>,
    number: u64,
    newest: Newest,
    /// How much later than expected an overtaken packet came, ns; 0: none was seen.
    reordering: u64,
    reordering_at: u64,
    /// Packets in a row of which an earlier transmission may have been acknowledged.
    doubts: u32,
    doubted_at: u64,
    known: Ranges,
    lost: VecDeque<u32>,
    in_flight: u64,
    /// What RTO and probe count from.
    since: u64,
    last_sent: u64,
    backoff: u32,
    probed: bool,
    /// Packets that may be sent whatever the congestion window says.
    forced: u32,
    /// A probe has to be sent.
    probe: bool,
    /// Packets that are repaired together while acknowledgements come in order.
    repairs: u32,
    counters: Counters,
}

impl Recovery {
    /// Nothing is under way.
    pub fn new(rules: Rules) -> Self {
        Recovery {
            rules,
            rtt: Rtt::default(),
            transmissions: VecDeque::new(),
            number: 0,
            newest: Newest::default(),
            reordering: 0,
            reordering_at: 0,
            doubts: 0,
            doubted_at: 0,
            known: Ranges::default(),
            lost: VecDeque::new(),
            in_flight: 0,
            since: 0,
            last_sent: 0,
            backoff: 0,
            probed: false,
            forced: 0,
            probe: false,
            repairs: 1,
            counters: Counters::default(),
        }
    }

    /// Bytes under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// The round trip.
    pub fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    /// Counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A packet that was taken for lost and has not been sent again, the oldest judgement first.
    pub fn next_lost(&mut self, send: &Send) -> Option<u32> {
        while let Some(&seqno) = self.lost.front() {
            if send.is_outstanding(seqno) && send.get(seqno).is_some_and(|packet| packet.state == State::Lost) {
                return Some(seqno);
            }
            self.lost.pop_front();
        }
        None
    }

    /// There may be such a packet.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A packet may be sent whatever the congestion window says.
    pub fn is_forced(&self) -> bool {
        self.forced > 0
    }

    /// The packet to send as a probe, if one is due and nothing else is left to send. `known`: the peer has acknowledged
    /// something; before, only the first packet makes sense to it.
    pub fn take_probe(&mut self, send: &Send, known: bool) -> Option<u32> {
        if !std::mem::take(&mut self.probe) || send.outstanding() == 0 {
            return None;
        }
        let newest = send.next().wrapping_sub(1);
        let usable = |seqno: u32| send.get(seqno).is_some_and(|packet| packet.state == State::Sent);
        [newest, send.first()].into_iter().skip(usize::from(!(known && self.rules.sack))).find(|seqno| usable(*seqno))
    }

    /// A packet is sent, for the first time or again.
    pub fn on_sent(&mut self, now: u64, seqno: u32, send: &mut Send, controller: &mut Controller) {
        let Some(packet) = send.get_mut(seqno) else { return };
        let cost = packet.cost();
        if packet.state == State::Sent {
            // A probe: the transmission before does not count any more.
            self.in_flight -= cost;
        }
        if self.in_flight == 0 && self.lost.is_empty() {
            self.since = now;
        }
        self.number += 1;
        packet.stamp = controller.on_sent(now, cost, self.in_flight);
        packet.state = State::Sent;
        packet.transmission = self.number;
        packet.sent = now;
        if packet.transmissions == 0 {
            packet.first_sent = now;
        }
        packet.transmissions = packet.transmissions.saturating_add(1);
        self.in_flight += cost;
        self.last_sent = now;
        self.forced = self.forced.saturating_sub(1);
        self.probe = false;
        self.transmissions.push_back(Transmission { seqno, number: self.number, sent: now });
    }

    /// An acknowledgement: of everything before `ackno` (mode R), and of ranges. True: it told of something new.
    pub fn on_ack(
        &mut self,
        now: u64,
        ackno: u32,
        ranges: impl Iterator<Item = Range>,
        send: &mut Send,
        controller: &mut Controller,
    ) -> bool {
        let mut report = Report { newest: self.newest, ..Report::default() };
        let first = send.first();
        if self.rules.reliable {
            self.acknowledge_before(now, ackno, send, controller, &mut report);
        }
        for range in ranges {
            if before(range.start, range.end) && before(range.start, send.next()) && !before(send.next(), range.end) {
                self.acknowledge_range(now, range, send, controller, &mut report);
            }
        }
        if !report.any {
            return false;
        }
        self.newest = report.newest;
        // Without ranges what waited behind a hole is acknowledged with it, long after it arrived.
        let clear = self.rules.sack || !report.repaired;
        let sample = report.sample.filter(|_| clear);
        // A guess is better than the second that a flow begins with.
        let guess = (self.rtt.smoothed().is_none() && report.repaired).then_some(report.newest.rtt);
        if let Some(sample) = sample.or(guess) {
            self.rtt.sample(sample);
        }
        // An acknowledgement of just what was repaired tells that what follows is missing, too.
        let more = report.repaired && ahead(first, send.first()) <= self.repairs;
        self.repairs = if more { (self.repairs * 2).min(MOST_REPAIRS) } else { 1 };
        self.backoff = 0;
        self.since = now;
        self.probed = false;
        self.probe = false;
        self.detect(now, send, controller);
        self.drop_done(send);
        // The shortest round trip is what all rates and windows are made of: packets that were sent once tell it.
        controller.on_ack(now, self.in_flight, sample.filter(|_| !report.doubtful));
        true
    }

    fn acknowledge_before(
        &mut self,
        now: u64,
        ackno: u32,
        send: &mut Send,
        controller: &mut Controller,
        report: &mut Report,
    ) {
        while before(send.first(), ackno) {
            let first = send.first();
            if let Some(packet) = send.get_mut(first) {
                self.deliver(now, packet, controller, report);
            }
            if !send.pop_if(|_, _| true) {
                return;
            }
        }
        self.known.forget_before(send.first());
    }

    fn acknowledge_range(
        &mut self,
        now: u64,
        range: Range,
        send: &mut Send,
        controller: &mut Controller,
        report: &mut Report,
    ) {
        let start = if before(range.start, send.first()) { send.first() } else { range.start };
        let range = Range { start, end: range.end };
        if !before(range.start, range.end)
            || self.known.find(range.start).is_some_and(|known| !before(known.end, range.end))
        {
            return;
        }
        let mut known = std::mem::take(&mut self.known);
        known.insert_range(range, |part| {
            for n in 0..part.len() {
                if let Some(packet) = send.get_mut(part.start.wrapping_add(n)) {
                    self.deliver(now, packet, controller, report);
                }
            }
        });
        self.known = known;
    }

    fn deliver(&mut self, now: u64, packet: &mut Packet, controller: &mut Controller, report: &mut Report) {
        let cost = packet.cost();
        let elapsed = now.saturating_sub(packet.sent);
        match packet.state {
            State::Sent => self.in_flight -= cost,
            State::Lost => {
                self.counters.spurious += 1;
                self.overtaken(now, elapsed);
            }
            State::Unsent | State::Delivered => return,
        }
        packet.state = State::Delivered;
        report.any = true;
        let again = packet.transmissions > 1;
        report.repaired |= again;
        // Without ranges the shortest round trip says less: it is often one with a queue or a reader in it.
        let early = again && self.rules.sack && controller.min_rtt().is_some_and(|least| elapsed < least);
        if !early {
            self.doubts = 0;
        } else if packet.sent >= self.doubted_at {
            (self.doubts, self.doubted_at) = (self.doubts.saturating_add(1), now);
        }
        if early && self.doubts <= DOUBTS {
            // It should not be the last transmission that is acknowledged.
            self.counters.spurious += 1;
            if packet.transmissions == 2 {
                self.overtaken(now, now.saturating_sub(packet.first_sent));
            }
        } else {
            if !again && packet.transmission < self.newest.number {
                self.overtaken(now, elapsed);
            }
            if packet.transmission > report.newest.number {
                report.newest = Newest { number: packet.transmission, rtt: elapsed };
                // If the shortest round trip was never that short, each packet would be repaired alone, after RTO.
                if !again || early {
                    (report.sample, report.doubtful) = (Some(elapsed), early);
                }
            }
        }
        controller.on_delivered(now, packet.stamp, packet.sent, packet.transmission, cost);
    }

    /// A packet came although later ones had come before: learn how long to wait for such.
    fn overtaken(&mut self, now: u64, elapsed: u64) {
        let most = self.rtt.smoothed().unwrap_or(0).max(1);
        let late = elapsed.saturating_sub(self.newest.rtt).min(most);
        self.reordering = self.reordering.max((late + late / 4 + 1).min(most));
        self.reordering_at = now;
    }

    /// How long after a later one a packet may come.
    fn patience(&self, controller: &Controller) -> u64 {
        self.reordering.max(controller.min_rtt().unwrap_or(0) / 4)
    }

    /// Take for lost what should have come by now.
    fn detect(&mut self, now: u64, send: &mut Send, controller: &mut Controller) {
        self.forget_reordering(now);
        let patience = self.newest.rtt.saturating_add(self.patience(controller));
        while let Some(&Transmission { seqno, number, sent }) = self.transmissions.front() {
            let under_way = |packet: &Packet| packet.state == State::Sent && packet.transmission == number;
            if !send.is_outstanding(seqno) || !send.get(seqno).is_some_and(under_way) {
                self.transmissions.pop_front();
                continue;
            }
            let overtaken = self.reordering == 0 && number.saturating_add(LATER) <= self.newest.number;
            let late = number < self.newest.number && now >= sent.saturating_add(patience);
            if !(overtaken || late) || !self.may_repair(seqno, send) {
                return;
            }
            self.transmissions.pop_front();
            self.mark_lost(seqno, send, controller);
            if self.rules.quirks.in_order {
                // What is behind it does not leave the path before it is repaired.
                self.forced = (self.forced + 1).min(self.repairs);
            }
        }
    }

    /// A peer in order tells only of the oldest; others may wait for its reader, and would fill its memory twice.
    fn may_repair(&self, seqno: u32, send: &Send) -> bool {
        !self.rules.quirks.in_order || ahead(send.first(), seqno) < self.repairs
    }

    fn forget_reordering(&mut self, now: u64) {
        let age = FORGET.saturating_mul(self.rtt.smoothed().unwrap_or(0));
        if self.reordering > 0 && now.saturating_sub(self.reordering_at) > age {
            self.reordering -= self.reordering / 8 + 1;
            self.reordering_at = now;
        }
    }

    fn mark_lost(&mut self, seqno: u32, send: &mut Send, controller: &mut Controller) {
        let Some(packet) = send.get_mut(seqno) else { return };
        packet.state = State::Lost;
        self.in_flight -= packet.cost();
        self.counters.lost += 1;
        controller.on_lost(packet.stamp);
        if self.rules.reliable {
            self.lost.push_back(seqno);
        }
    }

    /// In mode U what was delivered or lost is given up once nothing older is under way.
    fn drop_done(&mut self, send: &mut Send) {
        if !self.rules.reliable {
            while send.pop_if(|_, packet| packet.state != State::Sent) {}
            self.known.forget_before(send.first());
        }
    }

    /// How long to wait before the oldest packet is sent again.
    pub fn timeout(&self) -> u64 {
        let Quirks { least_rto, most_rto, .. } = *self.rules.quirks;
        let base = self.rtt.timeout().saturating_add(crate::ack::DELAY).clamp(least_rto, most_rto);
        base.saturating_mul(1 << self.backoff.min(16)).min(most_rto)
    }

    fn rto_at(&self, send: &Send) -> Option<u64> {
        (send.outstanding() > 0).then(|| self.since.saturating_add(self.timeout()))
    }

    fn probe_at(&self) -> Option<u64> {
        let smoothed = self.rtt.smoothed()?;
        let wanted = self.in_flight > 0 && !self.probed && self.backoff == 0 && self.lost.is_empty();
        (wanted && self.rules.reliable && self.rules.quirks.probed)
            .then(|| self.last_sent.max(self.since).saturating_add(2 * smoothed + PROBE_SLACK))
    }

    fn late_at(&self, send: &Send, controller: &Controller) -> Option<u64> {
        let first = self.transmissions.front().filter(|first| first.number < self.newest.number)?;
        self.may_repair(first.seqno, send)
            .then(|| first.sent.saturating_add(self.newest.rtt).saturating_add(self.patience(controller)))
    }

    /// When the oldest packet has been sent in vain for too long.
    pub fn gives_up_at(&self, send: &Send) -> Option<u64> {
        let oldest = send.oldest().filter(|_| self.rules.reliable)?;
        Some(oldest.first_sent.saturating_add(GIVE_UP))
    }

    /// When [`Recovery::on_timeout`] has something to do.
    pub fn deadline(&self, send: &Send, controller: &Controller) -> Option<u64> {
        [self.rto_at(send), self.probe_at(), self.late_at(send, controller), self.gives_up_at(send)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: u64, send: &mut Send, controller: &mut Controller) {
        if self.late_at(send, controller).is_some_and(|at| at <= now) {
            self.detect(now, send, controller);
            self.drop_done(send);
        }
        if self.rto_at(send).is_some_and(|at| at <= now) {
            return self.on_silence(now, send, controller);
        }
        if self.probe_at().is_some_and(|at| at <= now) {
            self.probed = true;
            self.probe = true;
            self.forced = self.forced.max(1);
            self.since = now;
            self.counters.probes += 1;
        }
    }

    fn on_silence(&mut self, now: u64, send: &mut Send, controller: &mut Controller) {
        self.since = now;
        self.backoff = (self.backoff + 1).min(16);
        self.counters.timeouts += 1;
        controller.on_silence();
        if !self.rules.reliable {
            return self.give_up_all(send, controller);
        }
        // Only the oldest: what it tells of the others decides about them.
        self.forced = self.forced.max(1);
        let first = send.first();
        if send.oldest().is_some_and(|packet| packet.state == State::Sent) {
            self.mark_lost(first, send, controller);
        }
        self.lost.push_front(first);
    }

    fn give_up_all(&mut self, send: &mut Send, controller: &mut Controller) {
        while let Some(Transmission { seqno, number, .. }) = self.transmissions.pop_front() {
            let under_way = |packet: &Packet| packet.state == State::Sent && packet.transmission == number;
            if send.is_outstanding(seqno) && send.get(seqno).is_some_and(under_way) {
                self.mark_lost(seqno, send, controller);
            }
        }
        self.drop_done(send);
    }
}

#[derive(Debug, Default)]
struct Report {
    any: bool,
    newest: Newest,
    sample: Option<u64>,
    /// The sample may be that of an earlier transmission.
    doubtful: bool,
    /// Some of it had been sent more than once.
    repaired: bool,
}
