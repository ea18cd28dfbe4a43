//! A flow: both directions, and its end.

use crate::config::{Config, Failure, Pressure, Refused, Stats};
use crate::header::{Header, flag};
use crate::incoming::Incoming;
use crate::outgoing::{Next, Outgoing};

/// One side of a flow.
///
/// After every batch of calls: [`Connection::poll_transmit`] until it says false, then [`Connection::deadline`].
#[derive(Debug)]
pub struct Connection {
    incoming: Incoming,
    outgoing: Outgoing,
    closed_at: Option<u64>,
    failure: Option<Failure>,
    /// Or came after it had failed.
    malformed: u64,
    bare_sent: u64,
}

impl Connection {
    /// A flow at its beginning. `seed`: a random number that nobody can guess; the first sequence number is made of it.
    pub fn new(config: Config, seed: u64, now: u64) -> Self {
        Connection {
            incoming: Incoming::new(&config, now),
            outgoing: Outgoing::new(&config, (seed ^ (seed >> 32)) as u32, now),
            closed_at: None,
            failure: None,
            malformed: 0,
            bare_sent: 0,
        }
    }

    /// A packet came from the peer, or from anybody who can pretend to be it.
    pub fn receive(&mut self, now: u64, packet: &[u8]) {
        let Some((header, payload)) = Header::decode(packet).filter(|_| self.failure.is_none()) else {
            self.malformed += 1;
            return;
        };
        if !self.incoming.on_packet(now, &header, payload) {
            return;
        }
        // Of a rendez-vous nothing but the question counts.
        if !header.has(flag::RDVS) {
            self.outgoing.on_header(now, &header, payload);
        }
    }

    /// The next message for the program.
    pub fn message(&self) -> Option<&[u8]> {
        self.incoming.message()
    }

    /// The program has taken that message, which makes room for others.
    pub fn consume(&mut self) {
        self.incoming.consume();
    }

    /// The longest message that [`Connection::write`] takes, bytes.
    pub fn limit(&self) -> usize {
        self.outgoing.limit()
    }

    /// What is written from now on goes in packets of so many bytes at the most, header included. Those that are cut already
    /// stay as they are.
    pub fn resize(&mut self, max_packet: usize) {
        self.outgoing.resize(max_packet);
    }

    /// There is room for one more message.
    pub fn can_write(&self) -> bool {
        self.is_open() && self.outgoing.can_write()
    }

    /// Whether a message of that length can be written at all while memory is as short as it is.
    pub fn admits(&self, length: usize) -> bool {
        self.outgoing.admits(length)
    }

    /// So short is the memory that this flow shares with others. For one that is thrifty ([`Config::thrifty`]).
    pub fn press(&mut self, pressure: Pressure) {
        self.incoming.press(pressure);
        self.outgoing.press(pressure);
    }

    /// Bytes that it keeps, or has promised the peer to keep, beside its first window.
    pub fn memory(&self) -> usize {
        self.incoming.memory() + self.outgoing.memory()
    }

    fn is_open(&self) -> bool {
        self.closed_at.is_none() && self.failure.is_none()
    }

    /// Send a message.
    pub fn write(&mut self, now: u64, message: &[u8]) -> Result<(), Refused> {
        if !self.is_open() {
            return Err(Refused::Closed);
        }
        self.outgoing.write(now, message)
    }

    /// Append the next packet for the peer; false: nothing may be sent now.
    pub fn poll_transmit(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        if self.failure.is_some() {
            return false;
        }
        if self.incoming.wants_ranges(now) {
            return self.send_bare(now, out);
        }
        match self.outgoing.next(now) {
            Some(Next::Data(seqno)) => self.send_data(now, seqno, out),
            Some(Next::Ask) => self.send_question(now, out),
            Some(Next::Poke) => self.send_bare(now, out),
            None => self.incoming.wants_bare(now) && self.send_bare(now, out),
        }
    }

    fn send_data(&mut self, now: u64, seqno: u32, out: &mut Vec<u8>) -> bool {
        let mut header = self.outgoing.header(seqno);
        self.incoming.tell(now, &mut header);
        out.extend_from_slice(&header.encode());
        self.outgoing.send(now, seqno, out);
        true
    }

    fn send_bare(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        let mut header = self.outgoing.bare(now);
        self.incoming.tell_bare(now, &mut header, out);
        self.bare_sent += 1;
        true
    }

    fn send_question(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        let mut header = self.outgoing.bare(now);
        header.flags |= flag::RDVS;
        out.extend_from_slice(&header.encode());
        self.bare_sent += 1;
        true
    }

    /// When [`Connection::timeout`] and [`Connection::poll_transmit`] have something to do, once the latter said false.
    pub fn deadline(&self) -> Option<u64> {
        if self.failure.is_some() {
            return None;
        }
        let gives_up = self.outgoing.gives_up_at(self.closed_at);
        [self.incoming.deadline(), self.outgoing.deadline(), gives_up].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: u64) {
        if self.failure.is_some() {
            return;
        }
        if self.outgoing.gives_up_at(self.closed_at).is_some_and(|at| at <= now) {
            self.failure = Some(Failure::GivenUp);
            self.outgoing.clear();
            return;
        }
        self.incoming.on_timeout(now);
        self.outgoing.on_timeout(now);
    }

    /// The program let go: nothing more is read or written, what was written is delivered.
    pub fn close(&mut self, now: u64) {
        if self.closed_at.is_none() {
            self.closed_at = Some(now);
            self.incoming.close();
        }
    }

    /// It was closed and has nothing more to do, or it failed.
    pub fn is_done(&self) -> bool {
        self.failure.is_some() || self.closed_at.is_some() && self.outgoing.is_settled() && self.incoming.is_settled()
    }

    /// What ended the flow before its time.
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Counters and state.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { bare_sent: self.bare_sent, malformed: self.malformed, ..Stats::default() };
        self.incoming.report(&mut stats);
        self.outgoing.report(&mut stats);
        stats
    }
}
