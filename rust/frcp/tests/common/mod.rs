//! A world for two ends of a flow: links in virtual time that jumps from event to event.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub mod attack;
pub mod link;
pub mod prototype;

use link::{Link, Path};
use ouroboros_frcp::{Config, Connection, Peer, UNSENT};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000_000_000;

pub const OWN: Peer = Peer::Own { sack: true, fragments: true, window: 16384 };

pub fn config(reliable: bool, peer: Peer) -> Config {
    Config { reliable, peer, max_packet: 1412, mpl: 5 * SECOND, unsent: UNSENT, thrifty: false }
}

/// splitmix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        if limit == 0 { 0 } else { self.next() % limit }
    }

    pub fn happens(&mut self, probability: f64) -> bool {
        ((self.next() >> 11) as f64) < probability * (1u64 << 53) as f64
    }
}

/// An end of a flow, ours or a model of another.
pub trait End {
    fn receive(&mut self, now: u64, packet: &[u8]);
    fn transmit(&mut self, now: u64, out: &mut Vec<u8>) -> bool;
    fn deadline(&mut self) -> Option<u64>;
    fn timeout(&mut self, now: u64);
}

impl End for Connection {
    fn receive(&mut self, now: u64, packet: &[u8]) {
        Connection::receive(self, now, packet);
    }

    fn transmit(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        self.poll_transmit(now, out)
    }

    fn deadline(&mut self) -> Option<u64> {
        Connection::deadline(self)
    }

    fn timeout(&mut self, now: u64) {
        Connection::timeout(self, now);
    }
}

/// Take the next message.
pub fn read(end: &mut Connection) -> Option<Vec<u8>> {
    let message = end.message()?.to_vec();
    end.consume();
    Some(message)
}

/// Two ends and what is between them.
pub struct World<A, B> {
    pub now: u64,
    pub a: A,
    pub b: B,
    /// From a to b, and back.
    pub there: Link,
    pub back: Link,
    events: u64,
}

impl<A: End, B: End> World<A, B> {
    pub fn new(a: A, b: B, path: Path, seed: u64) -> Self {
        World { now: SECOND, a, b, there: Link::new(path, seed), back: Link::new(path, !seed), events: 0 }
    }

    /// Send all that may be sent.
    pub fn flush(&mut self) {
        let mut out = vec![];
        send_all(self.now, &mut self.a, &mut self.there, &mut out);
        send_all(self.now, &mut self.b, &mut self.back, &mut out);
    }

    /// Go to the next event, but not beyond `limit`; false: there is none before.
    pub fn step(&mut self, limit: u64) -> bool {
        self.flush();
        let times = [self.a.deadline(), self.b.deadline(), self.there.next(), self.back.next()];
        let next = times.into_iter().flatten().min().unwrap_or(u64::MAX);
        if next > limit {
            self.now = self.now.max(limit);
            return false;
        }
        self.events = if next > self.now { 0 } else { self.events + 1 };
        assert!(self.events < 100_000, "time stands still at {}", self.now);
        self.now = self.now.max(next);
        deliver(self.now, &mut self.there, &mut self.b);
        deliver(self.now, &mut self.back, &mut self.a);
        if self.a.deadline().is_some_and(|at| at <= self.now) {
            self.a.timeout(self.now);
        }
        if self.b.deadline().is_some_and(|at| at <= self.now) {
            self.b.timeout(self.now);
        }
        true
    }

    /// Let time pass; nobody reads or writes.
    pub fn pass(&mut self, time: u64) {
        let limit = self.now + time;
        while self.step(limit) {}
        self.flush();
    }
}

fn send_all(now: u64, end: &mut impl End, link: &mut Link, out: &mut Vec<u8>) {
    loop {
        out.clear();
        if !end.transmit(now, out) {
            return;
        }
        link.send(now, out);
    }
}

fn deliver(now: u64, link: &mut Link, end: &mut impl End) {
    while let Some(packet) = link.due(now) {
        end.receive(now, &packet);
        link.recycle(packet);
    }
}

/// A message that shows its place in the stream.
pub fn message(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((8..length.max(8)).map(|n| (number as usize * 31 + n) as u8));
    bytes
}

pub fn number(message: &[u8]) -> u64 {
    u64::from_be_bytes(message[..8].try_into().unwrap())
}
