//! One direction of a path: a bottleneck with a finite queue, a delay, and faults.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Random, SECOND};

#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Bits a second; 0: no bottleneck.
    pub rate: u64,
    /// Packets that wait for the bottleneck.
    pub queue: usize,
    /// One way, ns.
    pub delay: u64,
    pub jitter: u64,
    pub loss: f64,
    pub duplicate: f64,
    /// Packets that are late by up to `late` ns.
    pub reorder: f64,
    pub late: u64,
    /// Packets that are replaced by garbage.
    pub garbage: f64,
    pub cut: bool,
}

impl Path {
    pub const fn clean(delay: u64) -> Self {
        Path {
            rate: 0,
            queue: 1000,
            delay,
            jitter: 0,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            late: 0,
            garbage: 0.0,
            cut: false,
        }
    }
}

pub struct Link {
    pub path: Path,
    pub random: Random,
    arrivals: BinaryHeap<Reverse<(u64, u64, usize)>>,
    packets: Vec<Vec<u8>>,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    count: u64,
    free_at: u64,
    last: u64,
    pub sent: u64,
    pub dropped: u64,
    pub bytes: u64,
    /// Every packet that was sent, if wanted.
    pub log: Option<Vec<(u64, Vec<u8>)>>,
}

impl Link {
    pub fn new(path: Path, seed: u64) -> Self {
        Link {
            path,
            random: Random(seed),
            arrivals: BinaryHeap::new(),
            packets: vec![],
            free: vec![],
            spare: vec![],
            count: 0,
            free_at: 0,
            last: 0,
            sent: 0,
            dropped: 0,
            bytes: 0,
            log: None,
        }
    }

    pub fn send(&mut self, now: u64, packet: &[u8]) {
        let path = self.path;
        self.sent += 1;
        if let Some(log) = &mut self.log {
            log.push((now, packet.to_vec()));
        }
        if path.cut || self.random.happens(path.loss) {
            self.dropped += 1;
            return;
        }
        let mut at = now;
        // Lower layers add to every packet.
        let bits = (packet.len() as u64 + 46) * 8;
        if let Some(time) = (bits * SECOND).checked_div(path.rate) {
            let start = self.free_at.max(now);
            if start - now > time * path.queue as u64 {
                self.dropped += 1;
                return;
            }
            self.free_at = start + time;
            at = self.free_at;
        }
        at += path.delay + self.random.below(path.jitter);
        self.bytes += packet.len() as u64;
        if self.random.happens(path.garbage) {
            return self.garbage(at);
        }
        let again = self.random.happens(path.duplicate);
        if self.random.happens(path.reorder) {
            at += self.random.below(path.late.max(1));
        } else {
            self.last = self.last.max(at);
            at = self.last;
        }
        if again {
            let again = at + self.random.below(path.late.max(1));
            self.place(again, packet);
        }
        self.place(at, packet);
    }

    fn garbage(&mut self, at: u64) {
        let bytes = (0..self.random.below(40)).map(|_| self.random.next() as u8).collect::<Vec<_>>();
        self.place(at, &bytes);
    }

    fn place(&mut self, at: u64, packet: &[u8]) {
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        let place = self.free.pop().unwrap_or_else(|| {
            self.packets.push(vec![]);
            self.packets.len() - 1
        });
        self.packets[place] = bytes;
        self.count += 1;
        self.arrivals.push(Reverse((at, self.count, place)));
    }

    pub fn next(&self) -> Option<u64> {
        self.arrivals.peek().map(|first| first.0.0)
    }

    pub fn due(&mut self, now: u64) -> Option<Vec<u8>> {
        let &Reverse((at, _, place)) = self.arrivals.peek()?;
        if at > now {
            return None;
        }
        self.arrivals.pop();
        self.free.push(place);
        Some(std::mem::take(&mut self.packets[place]))
    }

    pub fn recycle(&mut self, packet: Vec<u8>) {
        self.spare.push(packet);
    }
}
