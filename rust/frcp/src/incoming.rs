//! The direction from the peer: which packets belong to its run, and what it is told.

use crate::ack::{Acks, RANGE, Urgency};
use crate::config::{Config, IDLE, Peer, Pressure, Stats};
use crate::header::{Header, flag};
use crate::quirks::Quirks;
use crate::receive::{Arrival, Receive, Rules};
use crate::seq::ahead;

const SECOND: u64 = 1_000_000_000;
/// The longest that an acknowledgement may be withheld, and that a packet is retransmitted (A and R), ns.
const A: u64 = 10 * SECOND;
const R: u64 = 120 * SECOND;
/// A window that the peer may not know to be open again is told once more after this, doubling, so often.
const AGAIN: u64 = 100_000_000;
const AGAIN_TIMES: u32 = 6;

/// The window of a flow that shares its memory, and how it grows: it doubles when the program has read as much as it holds
/// within a second.
#[derive(Debug)]
struct Growth {
    least: u32,
    most: u32,
    now: u32,
    /// Where the packets begin that are counted for that, and when.
    mark: u32,
    since: u64,
    pressed: bool,
}

/// The receiving half of a flow.
#[derive(Debug)]
pub struct Incoming {
    reliable: bool,
    quirks: &'static Quirks,
    sack: bool,
    longest: usize,
    /// Packets that the peer sends before it is told a window.
    granted: u32,
    /// None: the window is what it is.
    growth: Option<Growth>,
    queue: Receive,
    acks: Acks,
    /// We know where the peer's run is.
    synchronised: bool,
    last_packet: u64,
    last_data: u64,
    /// Without packets for so long the run is over.
    inactivity: u64,
    /// Without data for so long a peer that forgets begins anew when it sends data.
    peer_inactivity: u64,
    /// A lost packet of the peer's last run may come that long after the data that followed.
    stale: u64,
    again_at: Option<u64>,
    again: u32,
    /// The peer asked for the window.
    asked: bool,
    closed: bool,
    read: u64,
    data: u64,
    bare: u64,
    duplicates: u64,
    beyond: u64,
    rejected: u64,
}

impl Growth {
    /// The peer is about to be told of a window.
    fn adapt(&mut self, now: u64, queue: &mut Receive) {
        if self.pressed {
            self.now = self.least;
        } else if ahead(self.mark, queue.next()) >= self.now {
            if now.saturating_sub(self.since) <= SECOND && queue.keeps_up() {
                self.now = self.now.saturating_mul(2).min(self.most);
            }
            (self.mark, self.since) = (queue.next(), now);
        }
        queue.set_window(self.now);
    }
}

impl Incoming {
    /// Nothing came yet.
    pub fn new(config: &Config, now: u64) -> Self {
        let (sack, fragments) = (config.sack(), config.fragments());
        let (granted, most) = (config.initial_window(), config.window());
        let growth = (config.thrifty && config.peer != Peer::Prototype).then_some(Growth {
            least: granted,
            most,
            now: granted,
            mark: 0,
            since: now,
            pressed: false,
        });
        let rules = Rules {
            reliable: config.reliable,
            fragments,
            history: sack && !config.reliable,
            window: growth.as_ref().map_or(most, |growth| growth.now),
            spare: config.spare(),
        };
        Incoming {
            reliable: config.reliable,
            quirks: config.quirks(),
            sack,
            longest: config.longest_payload(),
            granted,
            growth,
            queue: Receive::new(rules),
            acks: Acks::new(config.reliable || sack, config.longest_payload() / RANGE),
            synchronised: false,
            last_packet: now,
            last_data: now,
            inactivity: config.mpl.saturating_mul(2).saturating_add(A + R + SECOND),
            peer_inactivity: config.mpl.saturating_mul(3).saturating_add(A + R + SECOND),
            stale: config.mpl.saturating_mul(3).saturating_add(A),
            again_at: None,
            again: 0,
            asked: false,
            closed: false,
            read: 0,
            data: 0,
            bare: 0,
            duplicates: 0,
            beyond: 0,
            rejected: 0,
        }
    }

    /// A packet came. False: it is not one to be heeded.
    pub fn on_packet(&mut self, now: u64, header: &Header, payload: &[u8]) -> bool {
        if header.has(flag::DATA) {
            self.data += 1;
        } else {
            self.bare += 1;
        }
        if header.has(flag::DATA) && payload.len() > self.longest || !self.belongs(now, header) {
            self.rejected += 1;
            return false;
        }
        if self.synchronised {
            self.last_packet = now;
        }
        if header.has(flag::RDVS) {
            self.asked = true;
        } else if header.has(flag::DATA) {
            self.on_data(now, header, payload);
        }
        true
    }

    /// Begins a run where the peer does. False: the packet is data of a run that nobody knows.
    fn belongs(&mut self, now: u64, header: &Header) -> bool {
        self.synchronised &= now.saturating_sub(self.last_packet) <= self.inactivity;
        if !self.synchronised {
            if header.has(flag::DRF) {
                self.begin(now, header.seqno);
            }
            // Bare packets of a peer that has not sent anything itself are heeded, but tell nothing of where it is.
            return self.synchronised || !header.has(flag::DATA);
        }
        // Its numbers are forgotten although bare packets kept this run alive.
        if self.quirks.forgets
            && header.has(flag::DATA | flag::DRF)
            && now.saturating_sub(self.last_data) > self.stale
            && self.queue.is_foreign(header.seqno)
        {
            self.begin(now, header.seqno);
        }
        true
    }

    fn begin(&mut self, now: u64, seqno: u32) {
        self.synchronised = true;
        self.last_packet = now;
        self.last_data = now;
        self.queue.begin(seqno, self.granted);
        if let Some(growth) = &mut self.growth {
            (growth.mark, growth.since) = (seqno, now);
        }
    }

    fn on_data(&mut self, now: u64, header: &Header, payload: &[u8]) {
        self.again_at = None;
        self.again = 0;
        let arrival = self.queue.receive(header.seqno, header.flags, payload);
        let urgency = match arrival {
            Arrival::Expected => Urgency::Expected,
            Arrival::Early { new_gap: false } => Urgency::WhileMissing,
            Arrival::Early { new_gap: true } | Arrival::Filled => Urgency::Remarkable,
            Arrival::Old => {
                self.duplicates += 1;
                Urgency::Remarkable
            }
            Arrival::Beyond => {
                self.beyond += 1;
                Urgency::Remarkable
            }
        };
        if !matches!(arrival, Arrival::Old | Arrival::Beyond) {
            self.last_data = now;
        }
        self.acks.received(now, header.seqno, urgency);
        if self.closed {
            self.queue.discard();
        }
    }

    /// The next message for the program.
    pub fn message(&self) -> Option<&[u8]> {
        self.queue.message()
    }

    /// The program has read it.
    pub fn consume(&mut self) {
        if self.queue.consume() {
            self.read += 1;
        }
    }

    /// The program is gone: what comes is acknowledged and dropped.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.discard();
        if self.acks.owed() {
            self.acks.hurry();
        }
    }

    /// The peer may be told where we are: its numbers are those that we know.
    fn may_tell(&self, now: u64) -> bool {
        self.synchronised
            && now.saturating_sub(self.last_packet) <= self.inactivity
            && (!self.quirks.forgets || now.saturating_sub(self.last_data) < self.peer_inactivity - 2 * SECOND)
    }

    /// Put into the header of a data packet what the peer is to know.
    pub fn tell(&mut self, now: u64, header: &mut Header) {
        if !self.may_tell(now) {
            return;
        }
        self.tell_window(now, header);
        if self.reliable {
            header.flags |= flag::ACK;
            header.ackno = self.queue.next();
            // Ranges do not fit in here; they follow in a packet of their own.
            if !(self.sack && self.queue.has_gaps()) {
                self.acks.told();
            }
        } else if !self.sack {
            self.acks.told();
        }
    }

    fn tell_window(&mut self, now: u64, header: &mut Header) {
        if let Some(growth) = &mut self.growth {
            growth.adapt(now, &mut self.queue);
        }
        let left = ahead(self.queue.next(), self.queue.told());
        header.flags |= flag::FC;
        header.window = self.queue.tell();
        self.asked = false;
        let narrow = left <= self.quirks.narrow && self.queue.told() != self.queue.next();
        let repeats = self.again_at.is_some_and(|at| at <= now);
        if narrow || repeats {
            self.again_at = (self.again < AGAIN_TIMES).then(|| now.saturating_add(AGAIN << self.again));
            self.again = (self.again + 1).min(AGAIN_TIMES);
        }
    }

    /// A bare packet is due: an acknowledgement or a window.
    pub fn wants_bare(&self, now: u64) -> bool {
        self.synchronised
            && (self.acks.is_due(now)
                || self.asked
                || self.again_at.is_some_and(|at| at <= now)
                || self.queue.has_news())
    }

    /// It has to be sent even if data goes out: it lists ranges, which data packets cannot.
    pub fn wants_ranges(&self, now: u64) -> bool {
        self.sack && self.acks.is_due(now) && (!self.reliable || self.queue.has_gaps())
    }

    /// Complete the header of a bare packet, and append what follows it.
    pub fn tell_bare(&mut self, now: u64, header: &mut Header, out: &mut Vec<u8>) {
        let acknowledges = self.acks.owed() || !self.asked && self.reliable;
        if self.synchronised {
            self.tell_window(now, header);
        }
        if acknowledges && (self.reliable || self.sack) && self.may_tell(now) {
            header.flags |= flag::ACK;
            header.ackno = self.queue.next();
        }
        let ranges = header.has(flag::ACK) && self.sack && (!self.reliable || self.queue.has_gaps());
        out.extend_from_slice(&header.encode());
        if ranges {
            self.acks.ranges(self.queue.received(), out);
        }
        self.acks.told();
    }

    /// Everything that came was acknowledged.
    pub fn is_settled(&self) -> bool {
        !self.acks.owed() || !self.reliable || !self.synchronised
    }

    /// When something has to be told.
    pub fn deadline(&self) -> Option<u64> {
        if !self.synchronised {
            return None;
        }
        [self.acks.deadline(), self.again_at, self.idle_at()].into_iter().flatten().min()
    }

    /// When a window that has grown is the first one again, unless data come before.
    fn idle_at(&self) -> Option<u64> {
        let grown = self.growth.is_some() && self.queue.is_generous(self.granted);
        grown.then(|| self.last_data.saturating_add(2 * IDLE))
    }

    /// Time has passed.
    pub fn on_timeout(&mut self, now: u64) {
        if self.idle_at().is_some_and(|at| at <= now)
            && let Some(growth) = &mut self.growth
        {
            (growth.now, growth.mark, growth.since) = (growth.least, self.queue.next(), now);
            self.queue.set_window(growth.now);
            self.queue.take_back(self.granted);
        }
    }

    /// So short is the memory that it shares with others.
    pub fn press(&mut self, pressure: Pressure) {
        self.queue.set_short(pressure == Pressure::Over);
        if let Some(growth) = &mut self.growth {
            growth.pressed = pressure > Pressure::Easy;
        }
    }

    /// Bytes that it keeps, or has promised to keep, beside those that it may have in any case.
    pub fn memory(&self) -> usize {
        let beyond = self.queue.promised().saturating_sub(self.granted);
        beyond as usize * self.longest + self.queue.assembled()
    }

    /// Fill in the counters of this direction.
    pub fn report(&self, stats: &mut Stats) {
        let counters = self.queue.counters();
        stats.messages_read = self.read;
        stats.data_received = self.data;
        stats.bare_received = self.bare;
        stats.duplicates = self.duplicates;
        stats.beyond = self.beyond;
        stats.rejected += self.rejected;
        stats.broken = counters.broken;
        stats.skipped = counters.skipped;
    }
}
